//! The ledger of attempts: what is recorded of each, and that nothing hangs on it (the tables `dispatch_attempts` and
//! `dispatch_connections`).

use rusqlite::types::Value;

use crate::support::tls::Identity;
use crate::support::{Action, Mail, Script, World, tool};

/// Returns the rows of a query, each value as text; NULL is `-`.
fn rows(world: &World, query: &str) -> Vec<Vec<String>> {
    let connection = world.database.another();
    let mut statement = connection.prepare(query).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        (0..columns)
            .map(|column| {
                Ok(match row.get(column)? {
                    Value::Null => "-".to_owned(),
                    Value::Integer(number) => number.to_string(),
                    Value::Real(number) => number.to_string(),
                    Value::Text(text) => text,
                    Value::Blob(octets) => String::from_utf8_lossy(&octets).into_owned(),
                })
            })
            .collect()
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Returns the only row of a query.
fn row(world: &World, query: &str) -> Vec<String> {
    let mut rows = rows(world, query);
    assert_eq!(rows.len(), 1, "{query}: {rows:?}");
    rows.remove(0)
}

#[test]
fn a_delivered_mail_leaves_its_attempt() {
    let script = Script::new().always(".", "250 2.0.0 Ok: queued as 4bX1Yz2Qk9z1");
    let (world, server) = World::with_server(script);
    let data = "Message-ID: <m1@client.example>\r\nSubject: x\r\n\r\nbody\r\n";
    let id = world.insert(&Mail::to("a@example.org").data(data));
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    let attempt = row(
        &world,
        "SELECT mail_id, result, kind, transaction_no, sender, recipient, message_id, octets, code, status, command, text, \
         remote_id FROM dispatch_attempts",
    );
    let expected = [
        &id.to_string(),
        "delivered",
        "delivered",
        "1",
        "sender@client.example",
        "a@example.org",
        "m1@client.example",
        &data.len().to_string(),
        "250",
        "2.0.0",
        "end of data",
        "250 2.0.0 Ok: queued as 4bX1Yz2Qk9z1",
        "4bX1Yz2Qk9z1",
    ];
    assert_eq!(attempt, expected);
    let connection = row(
        &world,
        "SELECT next_hop, address, port, tls_version, auth, lookup_ms IS NOT NULL, connect_ms IS NOT NULL, \
         negotiate_ms IS NOT NULL, transcript FROM dispatch_history",
    );
    let port = server.port().to_string();
    assert_eq!(connection, ["example.org", &server.ip().to_string(), &port, "-", "-", "1", "1", "1", "-"]);
}

/// The four delays of an attempt are its age when it was decided, as Postfix counts it.
#[test]
fn the_delays_add_up() {
    let (world, _server) = World::with_server(Script::new());
    world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    let sums = row(
        &world,
        "SELECT a_ms + b_ms + c_ms + d_ms = at_ms - submitted * 1000, min(a_ms, b_ms, c_ms, d_ms) >= 0, \
         c_ms >= ifnull(connect_ms, 0) FROM dispatch_history",
    );
    assert_eq!(sums, ["1", "1", "1"]);
}

/// A refused mail is told with what was said, and each end of a mail that is no attempt is an entry too.
#[test]
fn a_failure_leaves_its_transcript_and_the_bounce_an_entry() {
    let (mut world, _server) = World::with_server(Script::new().always("RCPT", "550 5.1.1 no such user"));
    world.set("verbosity", 1);
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_for_bounces(1);
    daemon.terminate();
    let results = rows(
        &world,
        &format!(
            "SELECT result, kind, code, status, command FROM dispatch_attempts WHERE mail_id = {id} ORDER BY attempt_id"
        ),
    );
    assert_eq!(
        results,
        [vec!["failed", "recipient", "550", "5.1.1", "RCPT TO"], vec!["bounced", "-", "-", "-", "-"]]
    );
    let transcript = rows(&world, "SELECT transcript FROM dispatch_connections WHERE transcript IS NOT NULL");
    let transcript = &transcript[0][0];
    for part in [" < 220 ", " > EHLO ", " > MAIL FROM:<sender@client.example>", " > RCPT TO:<a@example.org>"]
    {
        assert!(transcript.contains(part), "{part}: {transcript}");
    }
    assert!(transcript.contains(" < 550 5.1.1 no such user"), "{transcript}");
}

/// Why mail has come to this server and no other is told where what was said there is.
#[test]
fn a_transcript_begins_with_dns_and_the_servers_that_were_passed_over() {
    let (mut world, server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 later"));
    world.set("interval", 1);
    // Nothing listens there.
    world.dns.mx("example.org", 5, "down.example.org");
    world.dns.a("down.example.org", "127.0.0.77".parse().unwrap());
    let ids = ["a@example.org", "b@example.org"].map(|to| {
        let id = world.insert(&Mail::to(to));
        let daemon = world.start();
        world.database.wait_for_failure(id);
        daemon.terminate();
        id
    });
    let transcripts =
        rows(&world, "SELECT transcript FROM dispatch_connections WHERE transcript IS NOT NULL");
    for transcript in &transcripts {
        let (top, said) = transcript[0].split_once(" < 220 ").unwrap();
        for told in [
            "* MX of example.org: 5 down.example.org, 10 mx.example.org\n".to_owned(),
            "* addresses of down.example.org: 127.0.0.77\n".to_owned(),
            format!("* addresses of mx.example.org: {}\n", server.ip()),
            format!("* passed over: down.example.org [127.0.0.77]:{}: Connection refused\n", server.port()),
        ] {
            assert!(top.contains(&told), "{told:?} in {top}");
        }
        assert!(!said.contains("\n* "), "{said}");
    }
    assert_eq!(transcripts.len(), 2);
    let shown = tool::output(&world, &["show", &ids[0].to_string()]);
    assert!(shown.contains("\n  * MX of example.org: 5 down.example.org, 10 mx.example.org\n"), "{shown}");
}

/// Passwords and mail data stand in no table.
#[test]
fn a_transcript_holds_no_secrets_and_no_data() {
    let script = Script::new()
        .auth("PLAIN", "user", "Secret-Word")
        .always(".", "451 4.3.0 Secret-Word is what you have said");
    let (mut world, server) = World::with_server(script);
    world.set("transcripts", "all").set("auth_insecure", "yes");
    let remote = format!("user:Secret-Word@{}:{}", server.ip(), server.port());
    world.insert(&Mail::to("a@example.org").remote(&remote).data("Subject: x\r\n\r\nhidden body\r\n"));
    let daemon = world.start();
    world.database.wait("the transcript is there", |_| {
        !rows(&world, "SELECT 1 FROM sqlite_schema WHERE name = 'dispatch_connections'").is_empty()
            && !rows(&world, "SELECT 1 FROM dispatch_connections WHERE transcript IS NOT NULL").is_empty()
    });
    daemon.terminate();
    let everything = format!(
        "{:?}{:?}",
        rows(&world, "SELECT * FROM dispatch_connections"),
        rows(&world, "SELECT * FROM dispatch_attempts")
    );
    assert!(everything.contains("octets of mail data]"), "{everything}");
    assert!(everything.contains("AUTH PLAIN ***"), "{everything}");
    // "\0user\0Secret-Word" in base64 ends so.
    for secret in ["Secret-Word", "hidden body", "dXNlcgBTZWNyZXQtV29yZA"] {
        assert!(!everything.contains(secret), "{secret} in {everything}");
    }
}

/// Also of a conversation that came to its end before any mail was sent in it.
#[test]
fn a_refused_conversation_leaves_its_transcript() {
    let (world, _server) =
        World::with_server(Script::new().always("EHLO", "421 4.3.2 closing for the night"));
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_for_failure(id);
    daemon.terminate();
    let attempt = row(
        &world,
        "SELECT result, kind, transaction_no, recipient, code, next_hop, greeting, transcript LIKE '%< 421 4.3.2 closing for%' \
         FROM dispatch_history",
    );
    let greeting = "220 scripted.example ESMTP";
    assert_eq!(attempt, ["deferred", "greeting", "0", "a@example.org", "421", "example.org", greeting, "1"]);
}

#[test]
fn what_protects_a_connection_is_recorded() {
    let identity = Identity::self_signed(&["mx.example.org"]);
    let (mut world, server) = World::with_server(Script::new().starttls(&identity));
    world.set("portprio", format!("{}@starttls", server.port()));
    world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    let tls = row(
        &world,
        "SELECT tls_version, tls_cipher LIKE 'TLS%', tls_group IS NOT NULL, tls_peer, tls_ms IS NOT NULL FROM dispatch_connections",
    );
    assert_eq!(tls, ["TLSv1.3", "1", "1", "unverified", "1"]);
}

/// With `all`, what is told of a connection that worked at first is told again when mail fails on it.
#[test]
fn a_failure_on_a_connection_that_worked_is_in_its_transcript() {
    let script = Script::new().when(|command| {
        command.line.contains("RCPT TO:<b@").then(|| Action::reply("550 5.1.1 no such user"))
    });
    let (mut world, _server) = World::with_server(script);
    world.set("transcripts", "all").set("destination_concurrency", 1);
    world.insert(&Mail::to("a@example.org").data("one\r\n"));
    world.insert(&Mail::to("b@example.org").data("two\r\n"));
    let daemon = world.start();
    world.database.wait_for_bounces(1);
    daemon.terminate();
    let transcripts = rows(
        &world,
        "SELECT transcript FROM dispatch_history WHERE recipient = 'b@example.org' AND result = 'failed'",
    );
    let transcript = &transcripts[0][0];
    assert!(
        transcript.contains("RCPT TO:<a@") && transcript.contains("550 5.1.1 no such user"),
        "{transcript}"
    );
}

#[test]
fn without_a_ledger_there_are_no_tables() {
    let (mut world, _server) = World::with_server(Script::new());
    world.set("ledger", "off");
    world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    let tables =
        rows(&world, "SELECT name FROM sqlite_schema WHERE name IN ('dispatch_attempts', 'dispatch_meta')");
    assert!(tables.is_empty(), "{tables:?}");
}

#[test]
fn a_ledger_of_failures_has_no_successes() {
    let (mut world, _server) = World::with_server(Script::new().when(|command| {
        command.line.contains("RCPT TO:<b@").then(|| Action::reply("450 4.2.0 come back later"))
    }));
    world.set("ledger", "failures");
    world.insert(&Mail::to("a@example.org"));
    let deferred = world.insert(&Mail::to("b@example.org").data("other\r\n"));
    let daemon = world.start();
    world.database.wait_for_failure(deferred);
    world.database.wait("the other is delivered", |database| database.ids() == [deferred]);
    daemon.terminate();
    assert_eq!(
        rows(&world, "SELECT result, recipient FROM dispatch_attempts"),
        [["deferred", "b@example.org"]]
    );
}

#[test]
fn addresses_can_be_left_out() {
    let (mut world, _server) = World::with_server(Script::new());
    world.set("ledger_addresses", "domain");
    world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    assert_eq!(
        rows(&world, "SELECT sender, recipient FROM dispatch_attempts"),
        [["client.example", "example.org"]]
    );
}

/// Only the newest attempts are kept.
#[test]
fn old_attempts_are_deleted() {
    let (mut world, _server) = World::with_server(Script::new());
    world.set("ledger_keep", "1d 700");
    let mails: Vec<Mail> =
        (0..2000).map(|number| Mail::to("a@example.org").data(format!("{number}\r\n"))).collect();
    world.database.insert_all(&mails);
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    let count: i64 = row(&world, "SELECT count(*) FROM dispatch_attempts")[0].parse().unwrap();
    assert!((700..=1300).contains(&count), "{count}");
    assert_eq!(row(&world, "SELECT max(attempt_id) FROM dispatch_attempts"), ["2000"]);
}

/// What is older than the ledger may be goes with the next commit, and younger entries stay.
#[test]
fn entries_that_are_too_old_are_deleted() {
    let (mut world, _server) = World::with_server(Script::new());
    world.set("ledger_keep", "2h 1000");
    let deliver = |text: &str| {
        world.insert(&Mail::to("a@example.org").data(text));
        let daemon = world.start();
        world.database.wait_until_empty();
        daemon.terminate();
    };
    deliver("one");
    let connection = world.database.another();
    let (three_hours_ms, an_hour_ms) = (3 * 3_600_000, 3_600_000);
    connection.execute("UPDATE dispatch_attempts SET at_ms = at_ms - ?1", [three_hours_ms]).unwrap();
    connection
        .execute("UPDATE dispatch_connections SET opened_ms = opened_ms - ?1", [three_hours_ms])
        .unwrap();
    deliver("two");
    connection.execute("UPDATE dispatch_attempts SET at_ms = at_ms - ?1", [an_hour_ms]).unwrap();
    deliver("three");
    assert_eq!(row(&world, "SELECT count(*), min(attempt_id) FROM dispatch_attempts"), ["2", "2"]);
    assert_eq!(row(&world, "SELECT count(*) FROM dispatch_connections"), ["2"]);
}

/// A ledger that cannot be written costs no mail: not if the tables look otherwise, nor if they go away.
#[test]
fn a_ledger_in_trouble_costs_nothing_else() {
    let (world, server) = World::with_server(Script::new());
    let connection = world.database.another();
    connection.execute_batch("CREATE TABLE dispatch_attempts (something INTEGER)").unwrap();
    world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_until_empty();
    let text = daemon.wait_for_output("cannot write the ledger of attempts");
    assert!(text.contains("mail is delivered without it"), "{text}");
    world.insert(&Mail::to("b@example.org").data("other\r\n"));
    world.database.wait_until_empty();
    let log = daemon.terminate();
    assert_eq!(log.matches("cannot write the ledger").count(), 1, "told once: {log}");
    assert_eq!(server.records().delivered_to(), ["a@example.org", "b@example.org"]);
}

/// Connections of two runs are told apart.
#[test]
fn connections_are_unique_across_restarts() {
    let (world, _server) = World::with_server(Script::new());
    for number in 0..2 {
        world.insert(&Mail::to("a@example.org").data(format!("{number}\r\n")));
        let daemon = world.start();
        world.database.wait_until_empty();
        daemon.terminate();
    }
    assert_eq!(
        row(&world, "SELECT count(DISTINCT connection_id), count(*) FROM dispatch_attempts"),
        ["2", "2"]
    );
    assert_eq!(row(&world, "SELECT value FROM dispatch_meta WHERE key = 'run'"), ["2"]);
}
