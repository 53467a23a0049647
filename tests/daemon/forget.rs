//! An address is blanked in what is recorded, with the real daemon and without it.

use serde_json::json;

use crate::support::{Mail, Script, World, tool};

const ADDRESS: &str = "bob@example.org";

/// Counts the rows that name the address in the tables of the ledger and of orders.
fn naming(world: &World) -> i64 {
    let select = "SELECT (SELECT count(*) FROM dispatch_attempts WHERE \
        lower(coalesce(sender, '') || recipient || coalesce(text, '') || coalesce(message_id, '')) LIKE '%' || ?1 || '%') \
        + (SELECT count(*) FROM dispatch_connections WHERE transcript LIKE '%' || ?1 || '%') \
        + (SELECT count(*) FROM dispatch_orders WHERE scope || coalesce(result, '') || coalesce(reason, '') LIKE '%' || ?1 || '%')";
    world.database.another().query_row(select, [ADDRESS], |row| row.get(0)).unwrap()
}

#[test]
fn an_address_is_blanked_in_ledger_transcripts_and_orders_and_nowhere_else() {
    let refusal = "550 5.1.1 <bob@example.org> is unknown";
    let (mut world, _server) = World::with_server(Script::new().always("RCPT", refusal));
    world.set("transcripts", "all").set("interval", 1).set("hold", "sender:later@example.org not yet");
    let first = world.insert(&Mail::to("Bob@Example.org").null_sender());
    world.insert(&Mail::to("jimbob@example.org").null_sender());
    let daemon = world.start();
    world.database.wait_until_empty();
    // More than one step is about.
    world
        .database
        .another()
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
             INSERT INTO dispatch_attempts (mail_id, at_ms, result, recipient, message_id) \
             SELECT 100000 + i, 1, 'delivered', iif(i % 1000 = 0, 'bob@example.org', 'other@example.org'), '<' || i || '@example.net>' FROM n",
        )
        .unwrap();
    let waits = world.insert(&Mail::to(ADDRESS).from("later@example.org").data("it waits"));
    tool::output(&world, &["hold", "--from", "x@example.net", "--reason", "asked bob@example.org"]);
    assert!(naming(&world) >= 8);
    let forgotten = tool::records(&world, &["forget", ADDRESS]);
    assert_eq!(
        (&forgotten[0]["verb"], &forgotten[0]["done"]),
        (&json!("forget"), &json!(true)),
        "{forgotten:?}"
    );
    // Two attempts whose texts name it, five more, and the transcripts.
    assert!(forgotten[0]["mails"].as_u64().unwrap() >= 8, "{forgotten:?}");
    assert_eq!(naming(&world), 3, "that of which it is a part: its attempt, its end and the transcript");
    let history = tool::records(&world, &["history", "--limit", "100000", &first.to_string()]);
    assert_eq!(history[0]["recipient"], json!("[forgotten]"), "{history:?}");
    let text = history[0]["text"].as_str().unwrap();
    assert!(text.starts_with("550 5.1.1 <[forgotten]> is unknown"), "{text}");
    assert!(world.database.row(waits).is_some_and(|row| row.to == ADDRESS), "mail is left alone");
    daemon.terminate();
    let alone = tool::output(&world, &["forget", "jimbob@example.org"]);
    assert!(alone.contains("rows are blanked"), "{alone}");
    assert_eq!(naming(&world), 0);
    let wrong = tool::run(&world, &["forget", "example.org"]);
    assert_eq!(wrong.code(), Some(64), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("forget is about one whole mail address"), "{}", wrong.stderr);
}
