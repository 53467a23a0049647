use super::*;

fn blanked(address: &str, text: &str) -> Option<String> {
    ForgottenAddress::parse(address).unwrap().blanked(text)
}

#[test]
fn an_address_is_blanked_wherever_it_stands_by_itself() {
    for (text, expected) in [
        ("bob@example.org", "[forgotten]"),
        ("550 5.1.1 <Bob@Example.ORG>: no such user", "550 5.1.1 <[forgotten]>: no such user"),
        ("to=bob@example.org, orig_to=bob@example.org.", "to=[forgotten], orig_to=[forgotten]."),
        (
            "RCPT TO:<bob@example.org> ORCPT=rfc822;bob@example.org",
            "RCPT TO:<[forgotten]> ORCPT=rfc822;[forgotten]",
        ),
        ("é bob@example.org é", "é [forgotten] é"),
    ] {
        assert_eq!(blanked("<bob@example.org>", text).as_deref(), Some(expected), "{text}");
    }
    for text in [
        "jimbob@example.org",
        "bob@example.org.uk",
        "bob@example.orgs",
        "b.bob@example.org",
        "bob@example.com",
        "",
    ] {
        assert_eq!(blanked("bob@example.org", text), None, "{text}");
    }
    assert_eq!(
        blanked("bob@müller.example", "to bob@xn--mller-kva.example").as_deref(),
        Some("to [forgotten]")
    );
}

#[test]
fn what_is_no_whole_address_is_not_forgotten() {
    for text in [
        "",
        "bob",
        "@example.org",
        "bob@",
        "<>",
        "a b@example.org",
        "*@example.org",
        "a@b@example.org",
        "bob@*.org",
    ] {
        assert_eq!(ForgottenAddress::parse(text), None, "{text}");
    }
}

/// An order is JSON, where the quotes of an address are escaped.
#[test]
fn a_quoted_address_is_blanked_in_orders_too() {
    for rule in ["{\"recipient\":", "{\"line\":"] {
        let text = |address: &str| {
            format!("{rule}{}}}", serde_json::to_string(&format!("sender:{address}")).unwrap())
        };
        let address = r#""b\\b c"@example.org"#;
        assert_eq!(blanked(address, &text(address)), Some(text("[forgotten]")));
    }
}

#[test]
fn a_column_of_addresses_is_compared_as_a_whole() {
    let connection = Connection::open_in_memory().unwrap();
    connection
        .execute_batch(
            "CREATE TABLE dispatch_attempts (attempt_id INTEGER PRIMARY KEY, sender, recipient, text, message_id, why);
            INSERT INTO dispatch_attempts (sender, recipient, text)
            VALUES ('o''bob@example.org', 'a/bob@example.org', 'x'), ('Bob@example.org', 'bob@example.org', 'to ''bob@example.org''')",
        )
        .unwrap();
    let address = ForgottenAddress::parse("bob@example.org").unwrap();
    assert_eq!(blank(&connection, &address, &ATTEMPTS, (1, 2)).unwrap(), 1);
    let rows: Vec<String> = connection
        .prepare("SELECT sender || ' ' || recipient || ' ' || text FROM dispatch_attempts ORDER BY 1 DESC")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows, ["o'bob@example.org a/bob@example.org x", "[forgotten] [forgotten] to '[forgotten]'"]);
}
