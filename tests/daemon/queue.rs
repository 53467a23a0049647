//! The queue: what is due, when it is tried again, and life beside other writers (contract, sections 3 and 4).

use crate::support::smtp_server::{SmtpServer, most_simultaneous};
use crate::support::{Action, Gate, Mail, Script, World};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;

#[test]
fn mail_inserted_while_the_daemon_runs_is_delivered() {
    for journal_mode in ["wal", "delete"] {
        let mut world = World::in_journal_mode(journal_mode);
        let server = SmtpServer::start(Script::new());
        world.set("portprio", server.port());
        world.route("example.org", &server);
        world.insert(&Mail::to("first@example.org"));
        let daemon = world.start();
        world.database.wait_until_empty();
        let writer = world.database.another();
        crate::support::database::insert(&writer, &Mail::to("second@example.org"));
        world.database.wait_until_empty();
        assert_eq!(server.records().delivered_to(), ["first@example.org", "second@example.org"]);
        daemon.terminate();
        assert_eq!(world.database.journal_mode(), journal_mode, "the journal mode stays as found");
        assert_eq!(world.database.schema_version().as_deref(), Some("9"));
    }
}

#[test]
fn a_failed_mail_is_tried_again_after_the_retry_interval_and_not_before() {
    let script = Script::new().once("RCPT", "450 4.2.0 later");
    let (mut world, server) = World::with_server(script);
    world.set("retryinterval", 2);
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    let failure = world.database.wait_for_failure(id);
    let records = server.wait_for_messages(1);
    let attempts: Vec<_> = records
        .connections
        .iter()
        .flat_map(|connection| connection.lines.iter())
        .filter(|line| line.text.starts_with(b"RCPT"))
        .map(|line| line.at)
        .collect();
    assert_eq!(attempts.len(), 2);
    // Strictly more than two whole seconds of wall time lie between; the failure's time is cut to seconds.
    let waited = attempts[1] - attempts[0];
    assert!(waited.as_millis() >= 1900, "tried again after {waited:?} (failed at {})", failure.time);
    world.database.wait_until_empty();
    daemon.terminate();
}

#[test]
fn only_mail_strictly_older_than_the_retry_interval_is_due() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("retryinterval", 1000);
    let ids = world.database.insert_all(&[
        Mail::to("never@example.org"),
        Mail::to("recent@example.org"),
        Mail::to("old@example.org"),
        Mail::to("twice@example.org"),
    ]);
    world.database.insert_failure(ids[1], "450 later", false, 900);
    world.database.insert_failure(ids[2], "450 later", false, 1100);
    // The latest attempt counts, whatever order the rows have.
    world.database.insert_failure(ids[3], "450 later", false, 10);
    world.database.insert_failure(ids[3], "450 later", false, 5000);
    assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
    assert_eq!(server.records().delivered_to(), ["never@example.org", "old@example.org"]);
    assert_eq!(world.database.ids(), [ids[1], ids[3]]);
}

#[test]
fn each_failed_attempt_is_one_row_per_recipient() {
    let (mut world, _server) = World::with_server(Script::new().always("MAIL", "451 4.3.0 later"));
    world.set("retryinterval", 0).set("retries", 100);
    let ids = world.database.insert_all(&["a", "b"].map(|user| Mail::to(&format!("{user}@example.org"))));
    let daemon = world.start();
    for id in &ids {
        let failures = world.database.wait_for_failures(*id, 3);
        let times: BTreeSet<i64> = failures.iter().map(|failure| failure.time).collect();
        assert_eq!(
            times.len(),
            failures.len(),
            "two rows of one second are two attempts in one: {failures:?}"
        );
    }
    daemon.terminate();
}

#[test]
fn a_mail_is_given_up_after_the_configured_number_of_failures() {
    let (mut world, _server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 later"));
    world.set("retryinterval", 0).set("retries", 3);
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_for_bounces(1);
    assert!(world.database.row(id).is_none());
    daemon.terminate();
    assert_eq!(_server.records().count("RCPT"), 3);
}

#[test]
fn a_fatal_failure_is_not_tried_again() {
    let (world, server) = World::with_server(Script::new().always("RCPT", "550 5.1.1 no"));
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_for_bounces(1);
    daemon.signal(Signal::SIGUSR2);
    world.insert(&Mail::to("b@example.org"));
    server.wait("the second mail was tried", |records| records.count("RCPT") == 2);
    assert!(world.database.row(id).is_none());
    assert_eq!(server.records().delivered_to().len(), 0);
    daemon.terminate();
}

#[test]
fn a_new_mail_waits_no_longer_than_the_interval() {
    let (world, server) = World::with_server(Script::new());
    let daemon = world.start();
    for n in 0..3 {
        let inserted = std::time::Instant::now();
        world.insert(&Mail::to(&format!("{n}@example.org")).data(n.to_string()));
        let records = server.wait_for_messages(n + 1);
        let took = records.accepted()[n].at - inserted;
        // The interval is one second; a loaded machine gets some more.
        assert!(took.as_secs() < 5, "{took:?}");
    }
    world.database.wait_until_empty();
    daemon.terminate();
}

#[test]
fn a_mail_deleted_long_before_its_turn_is_not_delivered() {
    let gate = Gate::new();
    let slow = Action::After(gate.clone(), Box::new("250 ok".into()));
    let (mut world, server) = World::with_server(Script::new().once(".", slow));
    world.set("destination_concurrency", 1);
    let mails: Vec<Mail> = (0..120)
        .map(|n| Mail::to(&format!("{n}@example.org")).from(&format!("{n}@client.example")))
        .collect();
    let ids = world.database.insert_all(&mails);
    let daemon = world.start();
    server.wait("one message is under way", |records| !records.messages.is_empty());
    assert_eq!(server.records().messages[0].to(), ["0@example.org"], "the oldest comes first");
    world.database.connection.execute("DELETE FROM outbox WHERE mail_id = ?1", [ids[119]]).unwrap();
    gate.open();
    world.database.wait_until_empty();
    daemon.terminate();
    assert!(!server.records().delivered_to().contains(&"119@example.org".to_owned()));
    assert_eq!(server.records().accepted().len(), 119);
}

#[test]
fn a_failure_row_has_the_types_that_other_programs_expect() {
    let (world, _server) = World::with_server(Script::new().always("RCPT", "450 later"));
    world.failure_after_a_pass(&Mail::to("a@example.org"));
    let query = "SELECT typeof(fail_message) || ' ' || typeof(fail_time) || ' ' || typeof(fail_fatal) || ' '
        || (fail_time BETWEEN strftime('%s','now') - 60 AND strftime('%s','now')) || ' '
        || (SELECT mail_failcount || mail_fatality || (mail_lasttry = fail_time) FROM outbound) FROM faillog";
    let types: String = world.database.connection.query_row(query, [], |row| row.get(0)).unwrap();
    assert_eq!(types, "text text integer 1 101");
}

#[test]
fn a_reader_that_keeps_a_transaction_open_loses_nothing_and_doubles_nothing() {
    for journal_mode in ["wal", "delete"] {
        let mut world = World::in_journal_mode(journal_mode);
        let server = SmtpServer::start(Script::new());
        world.set("portprio", server.port());
        world.route("example.org", &server);
        world.insert(&Mail::to("a@example.org"));
        let reader = world.database.another();
        reader.execute_batch("BEGIN").unwrap();
        let _: i64 = reader.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
        let daemon = world.start();
        server.wait_for_messages(1);
        std::thread::park_timeout(std::time::Duration::from_secs(3));
        reader.execute_batch("COMMIT").unwrap();
        world.database.wait_until_empty();
        assert_eq!(server.records().delivered_to(), ["a@example.org"], "{journal_mode}");
        daemon.terminate();
    }
}

#[test]
fn a_daemon_that_must_end_while_the_database_is_locked_ends_and_loses_nothing() {
    let (world, server) = World::with_server(Script::new());
    let gate = Gate::new();
    let slow = SmtpServer::start_beside(
        Script::new().once(".", Action::After(gate.clone(), Box::new("250 ok".into()))),
        &server,
    );
    world.route("slow.example", &slow);
    world.insert(&Mail::to("a@slow.example"));
    let mut daemon = world.start();
    slow.wait("the data has arrived", |records| !records.messages.is_empty());
    let writer = world.database.another();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    gate.open();
    slow.wait_for_messages(1);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_exit(std::time::Duration::from_secs(10));
    writer.execute_batch("COMMIT").unwrap();
    assert!(world.database.failures().is_empty());
    // The deletion could not be written: the mail may go out once more, but never be lost.
    let daemon = world.start();
    world.database.wait_until_empty();
    assert!(!slow.records().accepted().is_empty());
    daemon.terminate();
}

#[test]
fn a_failure_deleted_by_the_operator_makes_the_mail_due() {
    let (world, server) = World::with_server(Script::new().once("RCPT", "550 no"));
    let id = world.insert(&Mail::to("a@example.org").null_sender());
    assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
    world.database.wait_for_failure(id);
    world.database.connection.execute("DELETE FROM faillog", []).unwrap();
    let daemon = world.start();
    server.wait_for_messages(1);
    world.database.wait_until_empty();
    daemon.terminate();
}

#[test]
fn nothing_is_lost_while_another_writer_holds_the_database() {
    for journal_mode in ["wal", "delete"] {
        let gate = Gate::new();
        let slow = Action::After(gate.clone(), Box::new("250 ok".into()));
        let mut world = World::in_journal_mode(journal_mode);
        let server = SmtpServer::start(Script::new().once(".", slow));
        world.set("portprio", server.port());
        world.route("example.org", &server);
        world.insert(&Mail::to("a@example.org"));
        let daemon = world.start();
        server.wait("the data has arrived", |records| !records.messages.is_empty());
        let writer = world.database.another();
        let lock = if journal_mode == "wal" { "BEGIN IMMEDIATE" } else { "BEGIN EXCLUSIVE" };
        writer.execute_batch(lock).unwrap();
        gate.open();
        server.wait_for_messages(1);
        // Long enough for several looks at the outbox; the lock is what is tested, so time must pass.
        std::thread::park_timeout(std::time::Duration::from_secs(4));
        crate::support::database::insert(&writer, &Mail::to("b@example.org"));
        writer.execute_batch("COMMIT").unwrap();
        world.database.wait_until_empty();
        daemon.terminate();
        let records = server.records();
        assert_eq!(records.delivered_to(), ["a@example.org", "b@example.org"], "nothing twice, nothing lost");
    }
}

#[test]
fn no_lock_is_held_while_a_server_is_waited_for() {
    let gate = Gate::new();
    for verb in ["GREETING", "RCPT", "."] {
        let stalled = Action::After(gate.clone(), Box::new("421 bye".into()));
        let mut world = World::in_journal_mode("delete");
        let server = SmtpServer::start(Script::new().lenient().always(verb, stalled));
        world.set("portprio", server.port());
        world.route("example.org", &server);
        world.insert(&Mail::to("a@example.org"));
        let daemon = world.start();
        server.wait("the server is waited for", |records| {
            records.connections.iter().any(|connection| match verb {
                "GREETING" => true,
                "." => connection.count("DATA") == 1 && !records.messages.is_empty(),
                _ => connection.count(verb) == 1,
            })
        });
        let writer = world.database.another();
        writer.busy_timeout(std::time::Duration::from_secs(3)).unwrap();
        writer.execute_batch("BEGIN EXCLUSIVE; ROLLBACK").unwrap();
        drop(daemon);
    }
    gate.open();
}

#[test]
fn concurrent_writers_and_the_daemon_lose_nothing() {
    let (world, server) = World::with_server(Script::new());
    let daemon = world.start();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let connection = world.database.another();
            std::thread::spawn(move || {
                for n in 0..25 {
                    let mail = Mail::to(&format!("w{writer}n{n}@example.org"));
                    crate::support::database::insert(&connection, &mail.data(format!("{writer} {n}")));
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    world.database.wait_until_empty();
    daemon.terminate();
    let delivered = server.records().delivered_to();
    let distinct: BTreeSet<&String> = delivered.iter().collect();
    assert_eq!((delivered.len(), distinct.len()), (100, 100));
}

/// Servers that hold every message until the gate opens, each the MX of `dN.example`.
fn slow_world(count: usize, gate: &Gate) -> (World, Vec<SmtpServer>) {
    let script = || Script::new().always(".", Action::After(gate.clone(), Box::new("250 ok".into())));
    let mut servers = vec![SmtpServer::start(script())];
    servers.extend((1..count).map(|_| SmtpServer::start_beside(script(), &servers[0])).collect::<Vec<_>>());
    let mut world = World::new();
    world.set("portprio", servers[0].port());
    for (n, server) in servers.iter().enumerate() {
        world.route(&format!("d{n}.example"), server);
    }
    (world, servers)
}

#[test]
fn connections_to_one_destination_are_limited_and_the_limit_is_used() {
    let gate = Gate::new();
    let (mut world, servers) = slow_world(1, &gate);
    world.set("destination_concurrency", 3);
    let mails: Vec<Mail> =
        (0..12).map(|n| Mail::to("a@d0.example").from(&format!("{n}@client.example"))).collect();
    world.database.insert_all(&mails);
    let daemon = world.start();
    servers[0].wait("three messages are under way", |records| records.messages.len() >= 3);
    gate.open();
    world.database.wait_until_empty();
    daemon.terminate();
    assert_eq!(most_simultaneous(&[&servers[0]]), 3);
    assert_eq!(servers[0].records().accepted().len(), 12);
}

#[test]
fn connections_overall_are_limited() {
    let gate = Gate::new();
    let (mut world, servers) = slow_world(6, &gate);
    world.set("concurrency", 2);
    // Conversations that are logged come to their end. Others are closed behind QUIT where a place is needed, and the servers,
    // which count here, may not have noticed when the next one comes.
    world.set("verbosity", 4);
    for n in 0..6 {
        world.insert(&Mail::to(&format!("a@d{n}.example")));
    }
    let daemon = world.start();
    for wanted in 1..=2 {
        world.database.wait(&format!("{wanted} destinations are busy"), |_| {
            servers.iter().filter(|server| !server.records().messages.is_empty()).count() >= wanted
        });
    }
    gate.open();
    world.database.wait_until_empty();
    daemon.terminate();
    let all: Vec<&SmtpServer> = servers.iter().collect();
    assert_eq!(most_simultaneous(&all), 2);
}

#[test]
fn a_slow_destination_does_not_delay_another() {
    let gate = Gate::new();
    let script =
        Script::new().lenient().always("GREETING", Action::After(gate.clone(), Box::new("220 late".into())));
    let (world, server) = World::with_server(Script::new());
    let slow = SmtpServer::start_beside(script, &server);
    world.route("slow.example", &slow);
    let mails: Vec<Mail> =
        (0..30).map(|n| Mail::to(&format!("{n}@slow.example")).data(n.to_string())).collect();
    world.database.insert_all(&mails);
    let daemon = world.start();
    slow.wait_for_connections(1);
    world.insert(&Mail::to("a@example.org"));
    assert_eq!(server.wait_for_messages(1).delivered_to(), ["a@example.org"]);
    drop(daemon);
    gate.open();
}

#[test]
fn a_long_queue_is_delivered_completely_and_each_mail_once() {
    let (world, server) = World::with_server(Script::new().keywords(["PIPELINING"]));
    let mails: Vec<Mail> =
        (0..500).map(|n| Mail::to(&format!("u{n}@example.org")).data(format!("{}\r\n", n / 5))).collect();
    world.database.insert_all(&mails);
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    let records = server.records();
    let distinct: BTreeSet<String> = records.delivered_to().into_iter().collect();
    assert_eq!((records.delivered_to().len(), distinct.len()), (500, 500));
    assert_eq!(records.accepted().len(), 100);
}

#[test]
fn mail_that_is_not_due_does_not_keep_due_mail_back() {
    let (world, server) = World::with_server(Script::new());
    let mails: Vec<Mail> = (0..2000).map(|n| Mail::to(&format!("u{n}@example.org"))).collect();
    for id in world.database.insert_all(&mails) {
        world.database.connection.execute_batch("BEGIN").ok();
        world.database.insert_failure(id, "450 later", false, 5);
    }
    world.database.connection.execute_batch("COMMIT").unwrap();
    let due = world.insert(&Mail::to("due@example.org"));
    let daemon = world.start();
    assert_eq!(server.wait_for_messages(1).delivered_to(), ["due@example.org"]);
    world.database.wait("the due mail is gone", |database| database.row(due).is_none());
    assert_eq!(world.database.ids().len(), 2000);
    daemon.terminate();
}

#[test]
fn a_rate_limit_spreads_messages_over_time() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("ratelimit", "2/s");
    let mails: Vec<Mail> =
        (0..7).map(|n| Mail::to(&format!("{n}@example.org")).data(n.to_string())).collect();
    world.database.insert_all(&mails);
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    let records = server.records();
    let times: Vec<_> = records.accepted().iter().map(|message| message.at).collect();
    // A burst of one second's worth is two messages, the other five need half a second each.
    let took = *times.iter().max().unwrap() - *times.iter().min().unwrap();
    assert!(took.as_millis() >= 2000, "{took:?}");
}

#[test]
fn rows_of_unexpected_types_do_not_stop_the_queue() {
    let (world, server) = World::with_server(Script::new());
    world
        .database
        .connection
        .execute_batch(
            "INSERT INTO outbox (mail_envelopefrom, mail_envelopeto, mail_submission, mail_data) VALUES
                (x'ff00fe', 'a@example.org', 'never', 'x'),
                ('s@client.example', x'ff40ff', 1.5, 'x'),
                ('s@client.example', 12345, x'00', 'x'),
                ('s@client.example', 'number@example.org', -1, 12345),
                (99, 'nine@example.org', 9223372036854775807, x'0d0a');
             INSERT INTO outbox (mail_remote, mail_envelopeto, mail_data) VALUES (x'ff', 'b@example.org', 'x'), (5, 'c@example.org', 'x');
             INSERT INTO outbox (mail_envelopeto, mail_data) VALUES (CAST(zeroblob(100000) AS TEXT), 'x');
             INSERT INTO outbox (mail_id, mail_envelopeto, mail_data) VALUES (900, 'strange.time@example.org', 'x');
             INSERT INTO faillog (fail_mail, fail_message, fail_time, fail_fatal) VALUES (900, x'ff', 'yesterday', 'no');",
        )
        .unwrap();
    let mut daemon = world.start();
    world.insert(&Mail::to("good@example.org"));
    server.wait("the good mail arrives", |records| {
        records.delivered_to().contains(&"good@example.org".to_owned())
    });
    assert!(daemon.is_running());
    daemon.terminate();
}

#[test]
fn mail_with_ids_that_were_not_counted_up_is_delivered() {
    let (world, server) = World::with_server(Script::new());
    world.insert(&Mail::to("first@example.org"));
    let insert = |id: i64| {
        let insert = "INSERT INTO outbox (mail_id, mail_envelopefrom, mail_envelopeto, mail_data)
            VALUES (?1, 's@client.example', 'id' || ?1 || '@example.org', 'x')";
        world.database.connection.execute(insert, [id]).unwrap();
    };
    insert(i64::MIN);
    let daemon = world.start();
    world.database.wait_until_empty();
    for id in [1000, 5, -7, i64::MIN, i64::MAX] {
        insert(id);
        world.database.wait_until_empty();
    }
    assert_eq!(server.records().accepted().len(), 7);
    daemon.terminate();
}

#[test]
fn an_id_that_is_used_again_is_a_new_mail() {
    let (world, server) = World::with_server(Script::new());
    let daemon = world.start();
    for n in 0..3 {
        let insert = "INSERT INTO outbox (mail_id, mail_envelopefrom, mail_envelopeto, mail_data)
            VALUES (77, 's@client.example', 'n' || ?1 || '@example.org', 'x')";
        world.database.connection.execute(insert, [n]).unwrap();
        world.database.wait_until_empty();
    }
    assert_eq!(server.records().delivered_to(), ["n0@example.org", "n1@example.org", "n2@example.org"]);
    daemon.terminate();
}
