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
    for text in ["", "bob", "@example.org", "bob@", "<>", "a b@example.org"] {
        assert_eq!(ForgottenAddress::parse(text), None, "{text}");
    }
}
