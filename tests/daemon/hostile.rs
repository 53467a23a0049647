//! Servers that lie, flood, stall and vanish: no crash, no loss, no harm to other mail.

use crate::support::smtp_server::SmtpServer;
use crate::support::{Action, Daemon, Gate, Mail, Script, World, unique_loopback};

/// One pass to a server with this script; the daemon must end well. Returns how the mail fared.
fn pass(script: Script, data: &str) -> (World, SmtpServer, Vec<crate::support::database::Failure>) {
    let (world, server) = World::with_server(script.lenient());
    let failures = world.failures_after_a_pass(&Mail::to("a@example.org").data(data));
    (world, server, failures)
}

/// The most memory the process ever used, in bytes.
fn peak_memory(daemon: &Daemon) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn replies_that_are_no_replies_are_temporary_failures() {
    let garbage: [&[u8]; 10] = [
        b"hello\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"250+ok\r\n",
        b"\r\n",
        b"\0\0\0\0\r\n",
        b"\xff\xfe\xfd\r\n",
        b" 250 ok\r\n",
        b"250-one\r\n550 two\r\n",
        b"999 what\r\n",
    ];
    for octets in garbage {
        for verb in ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "."] {
            // EHLO answered with two different codes may be read either way; all else must not succeed.
            if verb == "EHLO" {
                continue;
            }
            let script = Script::new().always(verb, Action::Raw(octets.to_vec()));
            let (world, server, failures) = pass(script, "x\r\n");
            let shown = octets.escape_ascii();
            assert_eq!(failures.len(), 1, "{verb} {shown}: {}", server.records().transcript());
            assert!(!failures[0].fatal, "{verb} {shown}: {failures:?}");
            assert_eq!(world.database.ids().len(), 1, "{verb} {shown}");
        }
    }
}

#[test]
fn replies_sent_before_their_commands_do_not_make_the_mail_vanish() {
    let early = b"220 hi\r\n250 a\r\n250 b\r\n250 c\r\n354 d\r\n250 e\r\n".to_vec();
    let (world, server, _failures) = pass(Script::new().always("GREETING", Action::Raw(early)), "x\r\n");
    assert!(!world.database.ids().is_empty() || server.records().accepted().len() == 1);
}

#[test]
fn a_success_before_the_end_of_the_data_is_not_an_acceptance() {
    let early = Action::TakeData(100, Box::new(Action::ReplyThenClose("250 2.0.0 queued already".into())));
    let (world, _server, failures) =
        pass(Script::new().always("DATA", early), &"0123456789\r\n".repeat(1_000_000));
    assert_eq!(failures.len(), 1);
    assert!(!failures[0].fatal, "{failures:?}");
    assert_eq!(world.database.ids().len(), 1);
}

#[test]
fn a_refusal_in_the_middle_of_the_data_does_not_hang() {
    let early = Action::TakeData(100, Box::new(Action::ReplyThenClose("554 5.7.1 enough".into())));
    let (world, _server, failures) =
        pass(Script::new().always("DATA", early), &"0123456789\r\n".repeat(1_000_000));
    assert_eq!(failures.len(), 1);
    assert_eq!(world.database.ids().len(), 1);
}

#[test]
fn an_endless_reply_is_cut_off_and_memory_stays_bounded() {
    let endless =
        [b"250-all work and no play makes jack a dull boy\r\n".repeat(600_000), b"x".repeat(30_000_000)];
    for flood in endless {
        let (world, server) = World::with_server(Script::new());
        let flooding =
            SmtpServer::start_beside(Script::new().lenient().always("EHLO", Action::Raw(flood)), &server);
        world.route("flood.example", &flooding);
        let id = world.insert(&Mail::to("a@flood.example"));
        let daemon = world.start();
        let failure = world.database.wait_for_failure(id);
        assert!(!failure.fatal, "{}", failure.text.len());
        assert!(failure.text.len() < 100_000, "the failure text has {} octets", failure.text.len());
        world.insert(&Mail::to("b@example.org"));
        server.wait_for_messages(1);
        let peak = peak_memory(&daemon);
        assert!(peak < 60_000_000, "{peak} bytes");
        daemon.terminate();
    }
}

/// A reply of so many lines.
fn lines(code: u16, text: &str, count: usize) -> String {
    format!("{code}-{text}\r\n").repeat(count - 1) + &format!("{code} {text}")
}

#[test]
fn a_reply_to_the_message_counts_whatever_its_length() {
    let long = format!("250 2.0.0 {}", "queued ".repeat(430));
    let many = lines(250, "2.0.0 queued", 201);
    let both = lines(250, &"queued ".repeat(430), 201);
    for reply in [long, many, both] {
        let (world, server, failures) = pass(Script::new().always(".", Action::Reply(reply)), "x\r\n");
        assert_eq!(failures, []);
        assert_eq!(server.records().messages.len(), 1, "{}", server.records().transcript());
        assert!(world.database.ids().is_empty());
    }
}

#[test]
fn a_long_refusal_is_one_and_says_that_it_was_cut() {
    for (reply, fatal) in
        [(lines(550, "5.1.1 no such user", 201), true), (lines(450, &"later ".repeat(500), 3), false)]
    {
        let script = Script::new().always("RCPT", Action::Reply(reply.clone()));
        let (_world, server, failures) = pass(script, "x\r\n");
        assert_eq!((failures.len(), failures[0].fatal), (1, fatal), "{failures:?}");
        assert!(failures[0].text.starts_with(&reply[..3]), "{failures:?}");
        assert!(failures[0].text.contains('…'), "{failures:?}");
        assert_eq!(server.records().connections.len(), 1);
    }
}

#[test]
fn a_reply_to_ehlo_that_is_too_long_is_an_error() {
    // It may have offered more in the lines that were not read.
    for reply in [lines(250, "SIZE 1000000", 201), format!("250-hello\r\n250 X{}", "y".repeat(3000))] {
        let (_world, server, failures) = pass(Script::new().always("EHLO", Action::Reply(reply)), "x\r\n");
        assert_eq!((failures.len(), failures[0].fatal), (1, false), "{failures:?}");
        assert!(failures[0].text.contains("reply to EHLO is too long"), "{failures:?}");
        assert_eq!(server.records().count("MAIL"), 0);
    }
}

#[test]
fn a_refusal_without_an_end_loses_the_connection() {
    let endless = b"550-5.1.1 no such user\r\n".repeat(100_000);
    let (_world, server, failures) = pass(Script::new().always("RCPT", Action::Raw(endless)), "x\r\n");
    assert_eq!((failures.len(), failures[0].fatal), (1, false), "{failures:?}");
    assert!(failures[0].text.contains("a reply of more than 1048576 octets"), "{failures:?}");
    assert_eq!(server.records().messages.len(), 0);
}

#[test]
fn a_large_message_does_not_grow_the_memory_with_its_size() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("destination_concurrency", 4);
    for n in 0..4 {
        world.insert(
            &Mail::to(&format!("{n}@example.org")).data(format!("{n}{}", "0123456789\r\n".repeat(2_000_000))),
        );
    }
    let daemon = world.start();
    server.wait_for_messages(4);
    let peak = peak_memory(&daemon);
    assert!(peak < 60_000_000, "{peak} bytes for 96 MB of mail");
    world.database.wait_until_empty();
    daemon.terminate();
}

#[test]
fn a_hundred_keywords_with_long_parameters_are_read_past() {
    let mut text = String::from("250-hello");
    for n in 0..100 {
        text.push_str(&format!("\r\n250-X{n} {}", "y".repeat(100)));
    }
    text.push_str("\r\n250 SIZE 10000000");
    let (_world, server, failures) = pass(Script::new().always("EHLO", Action::Reply(text)), "x\r\n");
    assert_eq!(failures, []);
    assert_eq!(server.records().accepted().len(), 1);
}

#[test]
fn a_server_that_closes_after_the_acceptance_has_accepted() {
    let (world, _server, failures) =
        pass(Script::new().always(".", Action::ReplyThenClose("250 ok".into())), "x\r\n");
    assert_eq!(failures, []);
    assert!(world.database.ids().is_empty());
}

#[test]
fn the_row_is_deleted_although_quit_is_never_answered() {
    let (world, server) = World::with_server(Script::new().lenient().always("QUIT", Action::Stall));
    world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    world.database.wait_until_empty();
    assert_eq!(server.records().accepted().len(), 1);
    daemon.terminate();
}

#[test]
fn a_server_that_stops_reading_holds_up_nobody_else() {
    let gate = Gate::new();
    let stuck = Action::TakeData(1, Box::new(Action::After(gate.clone(), Box::new(Action::Close))));
    let (world, server) = World::with_server(Script::new());
    let deaf = SmtpServer::start_beside(Script::new().lenient().always("DATA", stuck), &server);
    world.route("deaf.example", &deaf);
    world.insert(&Mail::to("a@deaf.example").data("0123456789\r\n".repeat(2_000_000)));
    let daemon = world.start();
    deaf.wait("the data began", |records| records.count("DATA") == 1);
    for n in 0..5 {
        world.insert(&Mail::to(&format!("{n}@example.org")).data(n.to_string()));
    }
    server.wait_for_messages(5);
    drop(daemon);
    gate.open();
}

#[test]
fn a_421_between_transactions_moves_the_rest_to_a_new_connection() {
    // RFC 5321 section 3.8: 421 may come at any time.
    let script =
        Script::new().lenient().once(".", Action::ReplyThenClose("250 ok\r\n421 4.4.2 idle too long".into()));
    let (mut world, server) = World::with_server(script);
    world.set("destination_concurrency", 1);
    world.database.insert_all(&["1", "2", "3"].map(|n| Mail::to(&format!("{n}@example.org")).data(n)));
    assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
    assert_eq!(server.records().accepted().len(), 3, "{}", server.records().transcript());
    assert!(world.database.failures().is_empty());
    assert!(world.database.ids().is_empty());
}

#[test]
fn replies_in_strange_octets_are_stored_readably_and_the_daemon_lives() {
    let reply = b"450-4.2.0 \xff\xfe \x1b[31mred\x07\r\n450 4.2.0 \xe4\xf6\0\r\n".to_vec();
    let (world, server) = World::with_server(Script::new().always("RCPT", Action::Raw(reply)));
    let id = world.insert(&Mail::to("a@example.org"));
    let mut daemon = world.start();
    let failure = world.database.wait_for_failure(id);
    assert!(failure.text.starts_with("450"), "{failure:?}");
    // Readable as text by the other programs: SQLite's own idea of its length reaches the end.
    let (text, octets): (i64, i64) = world
        .database
        .connection
        .query_row(
            "SELECT length(fail_message), length(CAST(fail_message AS BLOB)) FROM faillog",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert!(text > 20 && octets >= text, "{text} characters, {octets} octets");
    assert!(!daemon.stderr().contains('\u{1b}'), "escape sequences reach the log");
    assert!(daemon.is_running());
    drop(server);
    daemon.terminate();
}

#[test]
fn dozens_of_dead_hosts_are_one_failure() {
    let mut world = World::new();
    world.set("portprio", 1);
    for n in 0..40 {
        let host = format!("mx{n}.example.org");
        world.dns.mx("example.org", n, &host);
        world.dns.a(&host, unique_loopback().into());
    }
    let failure = world.failure_after_a_pass(&Mail::to("a@example.org"));
    assert!(!failure.fatal && failure.text.starts_with("Failed to reach any MX"), "{failure:?}");
    assert!(failure.text.len() < 20_000);
}

#[test]
fn a_server_that_always_dies_after_one_message_gets_all_of_them_in_one_pass() {
    let script = Script::new().lenient().always(".", Action::ReplyThenClose("250 ok".into()));
    let (mut world, server) = World::with_server(script);
    world.set("destination_concurrency", 1);
    let mails: Vec<Mail> =
        (0..10).map(|n| Mail::to(&format!("{n}@example.org")).data(n.to_string())).collect();
    world.database.insert_all(&mails);
    assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
    assert_eq!(server.records().accepted().len(), 10);
    assert!(world.database.failures().is_empty());
    assert!(world.database.ids().is_empty());
}

#[test]
fn a_server_that_refuses_everything_after_the_first_error_ends_in_one_failure_each() {
    let script = Script::new().once("RCPT", "450 first").always("RSET", "500 no").always("MAIL", "250 ok");
    let (mut world, server) = World::with_server(script.lenient());
    world.set("destination_concurrency", 1);
    let ids = world.database.insert_all(&["1", "2"].map(|n| Mail::to(&format!("{n}@example.org")).data(n)));
    assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
    // Every mail is either delivered or has exactly one failure.
    for id in ids {
        let delivered = world.database.row(id).is_none();
        let failures = world.database.failures_of(id).len();
        assert_eq!(usize::from(delivered) + failures, 1, "{}", server.records().transcript());
    }
}

#[test]
fn endless_challenges_of_auth_come_to_an_end() {
    let script = Script::new()
        .lenient()
        .auth("SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN", "user", "password")
        .when(|c| (!["GREETING", "EHLO", "QUIT"].contains(&c.verb)).then(|| "334 YWJj".into()));
    let world = World::new();
    let server = SmtpServer::start(script);
    let remote = format!("user:password@{}", server.address());
    let id = world.insert(&Mail::to("a@example.org").remote(&remote));
    assert_eq!(world.run(&["handoff", &remote]).code(), Some(0));
    assert_eq!(world.database.failures_of(id).len(), 1);
    assert!(!world.database.failures_of(id)[0].fatal);
}

#[test]
fn a_size_that_no_number_holds_is_no_limit() {
    let script = Script::new().keywords(["SIZE 99999999999999999999999999999999"]);
    let (_world, server, failures) = pass(script, "x\r\n");
    assert_eq!(failures, []);
    assert_eq!(server.records().accepted().len(), 1);
}

#[test]
fn a_server_that_drops_every_connection_is_not_hammered_within_a_pass() {
    let (world, server) = World::with_server(Script::new().lenient().always("MAIL", Action::Close));
    let mails: Vec<Mail> =
        (0..30).map(|n| Mail::to("a@example.org").from(&format!("{n}@client.example"))).collect();
    let ids = world.database.insert_all(&mails);
    assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
    for id in ids {
        assert_eq!(world.database.failures_of(id).len(), 1);
    }
    let connections = server.records().connections.len();
    assert!(connections <= 10, "{connections} connections to a server that decides nothing");
}
