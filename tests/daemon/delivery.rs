//! What is delivered: transactions, envelopes, and every octet of the mail data (contract, sections 4 and 5).

use crate::support::{Action, Gate, Mail, Script, World};
use std::collections::BTreeMap;

#[test]
fn a_row_is_deleted_only_after_the_server_took_responsibility() {
    // RFC 5321 section 4.2.5.
    let gate = Gate::new();
    let last = Action::After(gate.clone(), Box::new("250 2.0.0 queued".into()));
    let (world, server) = World::with_server(Script::new().always(".", last));
    let id = world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    server.wait("the data has arrived", |records| !records.messages.is_empty());
    assert_eq!(world.database.ids(), [id]);
    gate.open();
    world.database.wait_until_empty();
    assert!(world.database.failures().is_empty());
    daemon.terminate();
}

#[test]
fn the_envelope_and_the_data_arrive_as_they_were_stored() {
    let (world, server) = World::with_server(Script::new());
    world.insert(
        &Mail::to("Mixed.Case@example.org")
            .from("Some.One@client.example")
            .data("Subject: x\r\n\r\nbody\r\n"),
    );
    let daemon = world.start();
    let records = server.wait_for_messages(1);
    let message = &records.messages[0];
    // RFC 5321 section 2.4: the case of a local part is kept.
    assert_eq!(message.to(), ["Mixed.Case@example.org"]);
    assert_eq!(message.from(), "Some.One@client.example");
    assert_eq!(message.data, b"Subject: x\r\n\r\nbody\r\n");
    world.database.wait_until_empty();
    daemon.terminate();
}

#[test]
fn rows_with_equal_sender_and_equal_data_share_one_transaction() {
    let (world, server) = World::with_server(Script::new());
    world.database.insert_all(&["a", "b", "c"].map(|user| Mail::to(&format!("{user}@example.org"))));
    let daemon = world.start();
    world.database.wait_until_empty();
    let records = server.records();
    assert_eq!(records.messages.len(), 1, "{}", records.transcript());
    assert_eq!(records.delivered_to(), ["a@example.org", "b@example.org", "c@example.org"]);
    daemon.terminate();
}

#[test]
fn rows_with_other_data_or_another_sender_get_their_own_transaction() {
    let (world, server) = World::with_server(Script::new());
    world.database.insert_all(&[
        Mail::to("a@example.org").data("one\r\n"),
        Mail::to("b@example.org").data("two\r\n"),
        Mail::to("c@example.org").data("one\r\n").from("other@client.example"),
        Mail::to("d@example.org").data("one\r\n").null_sender(),
    ]);
    let daemon = world.start();
    world.database.wait_until_empty();
    let seen: BTreeMap<String, (String, Vec<u8>)> =
        server.records().accepted().iter().map(|m| (m.to().join(","), (m.from(), m.data.clone()))).collect();
    let sender = "sender@client.example".to_owned();
    let expected = [
        ("a@example.org", (sender.clone(), b"one\r\n".to_vec())),
        ("b@example.org", (sender, b"two\r\n".to_vec())),
        ("c@example.org", ("other@client.example".to_owned(), b"one\r\n".to_vec())),
        ("d@example.org", (String::new(), b"one\r\n".to_vec())),
    ];
    assert_eq!(seen, expected.map(|(to, rest)| (to.to_owned(), rest)).into());
    daemon.terminate();
}

#[test]
fn data_of_equal_length_and_equal_beginning_is_not_taken_for_equal() {
    let (world, server) = World::with_server(Script::new());
    let data = |end: &str| format!("Subject: x\r\n\r\n{}{end}\r\n", "same ".repeat(20_000));
    world
        .database
        .insert_all(&[Mail::to("a@example.org").data(data("A")), Mail::to("b@example.org").data(data("B"))]);
    let daemon = world.start();
    world.database.wait_until_empty();
    for message in server.records().accepted() {
        let expected = if message.to() == ["a@example.org"] { data("A") } else { data("B") };
        assert!(message.data == expected.as_bytes(), "{:?} got the wrong data", message.to());
    }
    daemon.terminate();
}

#[test]
fn a_transaction_has_at_most_one_hundred_recipients() {
    // RFC 5321 section 4.5.3.1.8.
    let (world, server) = World::with_server(Script::new());
    let mails: Vec<Mail> = (0..250).map(|n| Mail::to(&format!("user{n:03}@example.org"))).collect();
    world.database.insert_all(&mails);
    let daemon = world.start();
    world.database.wait_until_empty();
    let records = server.records();
    let mut sizes: Vec<usize> = records.accepted().iter().map(|message| message.to().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [50, 100, 100]);
    let expected: Vec<String> = (0..250).map(|n| format!("user{n:03}@example.org")).collect();
    assert_eq!(records.delivered_to(), expected);
    daemon.terminate();
}

#[test]
fn the_same_recipient_in_two_rows_is_delivered_for_both() {
    let (world, server) = World::with_server(Script::new());
    world.database.insert_all(&[Mail::to("a@example.org"), Mail::to("a@example.org")]);
    let daemon = world.start();
    world.database.wait_until_empty();
    assert!(server.records().delivered_to().iter().all(|to| to == "a@example.org"));
    assert!(world.database.failures().is_empty());
    daemon.terminate();
}

#[test]
fn domains_are_compared_without_regard_to_case() {
    let (world, server) = World::with_server(Script::new());
    world.database.insert_all(&[Mail::to("a@EXAMPLE.org"), Mail::to("b@example.ORG")]);
    let daemon = world.start();
    world.database.wait_until_empty();
    let records = server.records();
    assert_eq!(records.messages.len(), 1, "{}", records.transcript());
    assert_eq!(records.messages[0].recipients.len(), 2);
    daemon.terminate();
}

#[test]
fn the_domain_begins_after_the_last_at_sign() {
    let (world, server) = World::with_server(Script::new());
    world.insert(&Mail::to("\"a@elsewhere.example\"@example.org"));
    let daemon = world.start();
    world.database.wait_until_empty();
    assert_eq!(server.records().delivered_to(), ["\"a@elsewhere.example\"@example.org"]);
    daemon.terminate();
}

#[test]
fn a_domain_of_u_labels_is_looked_up_and_sent_as_a_labels() {
    // RFC 6531 section 3.2: where only the domain is not ASCII, its A-label form needs no SMTPUTF8.
    let (world, server) = World::with_server(Script::new());
    world.route("xn--bcher-kva.example", &server);
    world.insert(&Mail::to("a@b\u{fc}cher.example"));
    let daemon = world.start();
    world.database.wait_until_empty();
    assert_eq!(server.records().delivered_to(), ["a@xn--bcher-kva.example"]);
    daemon.terminate();
}

#[test]
fn a_null_sender_is_the_null_reverse_path() {
    // RFC 5321 section 4.5.5.
    let (world, server) = World::with_server(Script::new());
    world.database.insert_all(&[
        Mail::to("a@example.org").null_sender().data("1\r\n"),
        Mail::to("b@example.org").from("").data("2\r\n"),
    ]);
    let daemon = world.start();
    world.database.wait_until_empty();
    for message in server.records().accepted() {
        assert!(message.mail.starts_with("MAIL FROM:<>"), "{}", message.mail);
    }
    assert_eq!(server.records().accepted().len(), 2);
    daemon.terminate();
}

/// What the contract makes of stored data, octet by octet: bare CR and bare LF become CRLF, and a missing
/// final line end is added.
fn as_it_must_arrive(data: &[u8]) -> Vec<u8> {
    let mut arrived = Vec::new();
    let mut at = 0;
    while at < data.len() {
        match data[at] {
            b'\r' if data.get(at + 1) == Some(&b'\n') => {
                arrived.extend_from_slice(b"\r\n");
                at += 1;
            }
            b'\r' | b'\n' => arrived.extend_from_slice(b"\r\n"),
            octet => arrived.push(octet),
        }
        at += 1;
    }
    if !arrived.is_empty() && !arrived.ends_with(b"\r\n") {
        arrived.extend_from_slice(b"\r\n");
    }
    arrived
}

/// Delivers each of these in one world and compares.
fn assert_arrives(cases: &[Vec<u8>]) {
    let (world, server) = World::with_server(Script::new());
    let mails: Vec<Mail> = cases
        .iter()
        .enumerate()
        .map(|(n, data)| {
            Mail::to(&format!("{n}@example.org")).from(&format!("{n}@client.example")).data(data)
        })
        .collect();
    world.database.insert_all(&mails);
    let daemon = world.start();
    let records = server.wait_for_messages(cases.len());
    for message in records.accepted() {
        let number: usize = message.from().split('@').next().unwrap().parse().unwrap();
        let expected = as_it_must_arrive(&cases[number]);
        assert!(
            message.data == expected,
            "case {number}: {:?}… instead of {:?}…",
            message.data[..message.data.len().min(80)].escape_ascii().to_string(),
            expected[..expected.len().min(80)].escape_ascii().to_string()
        );
    }
    world.database.wait_until_empty();
    assert!(world.database.failures().is_empty());
    daemon.terminate();
}

#[test]
fn bare_line_feeds_and_carriage_returns_become_line_ends() {
    let cases: [&[u8]; 9] = [
        b"a\nb\n",
        b"a\rb\r",
        b"a\r\nb\r\n",
        b"a\n\rb\n",
        b"a\r\r\nb",
        b"\n\n\n",
        b"\r\r\r",
        b"\r\n\n\r\r\n",
        b"a\n.\nb\n",
    ];
    assert_arrives(&cases.map(<[u8]>::to_vec));
}

#[test]
fn leading_dots_are_doubled_also_after_line_ends_that_were_mended() {
    // RFC 5321 section 4.5.2.
    let cases: [&[u8]; 8] = [
        b".\r\n",
        b"..\r\n",
        b".a\r\n.b\r\n",
        b"a\n.\nRCPT TO:<x@y>\n",
        b"a\r.\rb\r",
        b".",
        b"a\r\n.",
        b"a.\r\n.b.\r\n...\r\n",
    ];
    assert_arrives(&cases.map(<[u8]>::to_vec));
}

#[test]
fn data_without_a_final_line_end_gets_one_and_other_data_gets_none() {
    assert_arrives(&[
        b"x".to_vec(),
        b"x\r\n".to_vec(),
        b"x\n".to_vec(),
        b"x\r\n\r\n".to_vec(),
        b"x\r".to_vec(),
    ]);
}

#[test]
fn octets_above_127_and_nul_are_sent_as_they_are_where_8bitmime_is_not_offered() {
    let all: Vec<u8> = (0..=255).filter(|octet| !b"\r\n".contains(octet)).collect();
    assert_arrives(&[all, b"\0".to_vec(), b"a\0b\r\n\0\r\nc\xff\xfe\r\n".to_vec()]);
}

#[test]
fn large_messages_arrive_whole_whatever_falls_on_a_buffer_boundary() {
    let mut cases = Vec::new();
    for padding in [4095, 4096, 16_383, 65_534, 65_535, 65_536] {
        let mut data = vec![b'x'; padding];
        data.extend_from_slice(b"\r\n.\r\n..\n.\r.end");
        cases.push(data);
    }
    let mut long = b"Subject: long\r\n\r\n".to_vec();
    for line in 0..60_000 {
        long.extend_from_slice(
            format!(".line {line} of a message of some megabytes, as it may well be sent\n").as_bytes(),
        );
    }
    cases.push(long);
    assert_arrives(&cases);
}

#[test]
fn empty_and_null_data_are_delivered_as_an_empty_message() {
    let (world, server) = World::with_server(Script::new());
    world.database.insert_all(&[
        Mail::to("a@example.org").data("").from("1@client.example"),
        Mail::to("b@example.org").no_data().from("2@client.example"),
    ]);
    let daemon = world.start();
    world.database.wait_until_empty();
    let records = server.records();
    assert_eq!(records.accepted().len(), 2);
    assert!(records.accepted().iter().all(|message| message.data.is_empty()), "{}", records.transcript());
    daemon.terminate();
}

#[test]
fn an_address_that_would_inject_commands_never_reaches_the_wire_and_fails_for_good() {
    let hostile: [&[u8]; 8] = [
        b"a\r\nRCPT TO:<evil@example.org>\r\n@example.org",
        b"a\n@example.org",
        b"a\r@example.org",
        b"a\0b@example.org",
        b"a b@example.org",
        b"a> SIZE=1 <b@example.org",
        b"<a@example.org",
        b"a@exam ple.org",
    ];
    let (world, server) = World::with_server(Script::new());
    for (n, recipient) in hostile.iter().enumerate() {
        world.insert(&Mail::to("").raw_recipient(recipient).data(format!("Subject: {n}\r\n\r\nx\r\n")));
    }
    world.insert(&Mail::to("good@example.org"));
    let daemon = world.start();
    let rows = world.database.wait_for_bounces(hostile.len());
    server.wait_for_messages(1);
    world.database.wait("all else is gone", |database| database.ids().len() == hostile.len());
    assert_eq!(rows.len(), hostile.len());
    let records = server.records();
    assert_eq!(records.delivered_to(), ["good@example.org"], "{}", records.transcript());
    assert!(!records.transcript().contains("evil"));
    daemon.terminate();
}

#[test]
fn a_sender_that_would_inject_commands_never_reaches_the_wire() {
    let (world, server) = World::with_server(Script::new());
    let bad = world.insert(&Mail::to("a@example.org").from("x@client.example>\r\nRCPT TO:<evil@example.org"));
    world.insert(&Mail::to("good@example.org"));
    let daemon = world.start();
    world.database.wait("the bad mail was judged", |database| {
        database.row(bad).is_none() || database.failures_of(bad).iter().any(|failure| failure.fatal)
    });
    server.wait_for_messages(1);
    let records = server.records();
    assert!(!records.transcript().contains("evil"), "{}", records.transcript());
    assert_eq!(records.delivered_to(), ["good@example.org"]);
    daemon.terminate();
}

#[test]
fn quoted_local_parts_may_hold_spaces_and_angle_brackets() {
    let (world, server) = World::with_server(Script::new());
    world.insert(&Mail::to("\"a <b> c\"@example.org"));
    let daemon = world.start();
    world.database.wait_until_empty();
    assert_eq!(server.records().count("RCPT"), 1);
    assert!(server.records().messages[0].recipients[0].contains("<\"a <b> c\"@example.org>"));
    daemon.terminate();
}

#[test]
fn an_address_without_a_domain_fails_for_good() {
    let world = World::new();
    world.database.insert_all(&[
        Mail::to("nobody").data("1\r\n"),
        Mail::to("nobody@").data("2\r\n"),
        Mail::to("").data("3\r\n"),
        Mail::to("a@-.-").data("4\r\n"),
        Mail::to("a@two..dots.example").data("5\r\n"),
        Mail::to(&format!("a@{}.example", "x".repeat(64))).data("6\r\n"),
        Mail::to(&format!("a@{}example", "abcdefg.".repeat(40))).data("7\r\n"),
    ]);
    let daemon = world.start();
    world.database.wait_for_bounces(7);
    world.database.wait("the originals are gone", |database| database.ids().len() == 7);
    daemon.terminate();
}

#[test]
fn several_messages_for_one_destination_use_one_connection_and_quit() {
    // RFC 5321 section 4.1.1.10.
    let (mut world, server) = World::with_server(Script::new());
    world.set("destination_concurrency", 1);
    let mails: Vec<Mail> =
        (0..5).map(|n| Mail::to(&format!("{n}@example.org")).data(format!("{n}\r\n"))).collect();
    world.database.insert_all(&mails);
    assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
    let records = server.wait_until_closed();
    assert_eq!(records.accepted().len(), 5);
    assert_eq!(records.connections.len(), 1, "{}", records.transcript());
    assert_eq!(records.connections[0].verbs().last().map(String::as_str), Some("QUIT"));
}

#[test]
fn mails_that_come_one_by_one_share_a_connection_that_is_kept_for_them() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("connection_idle", 60);
    let daemon = world.start();
    for n in 0..3 {
        world.insert(&Mail::to(&format!("{n}@example.org")));
        server.wait_for_messages(n + 1);
        world.database.wait_until_empty();
    }
    daemon.terminate();
    let records = server.wait_until_closed();
    assert_eq!(records.connections.len(), 1, "{}", records.transcript());
    assert_eq!(records.connections[0].verbs().last().map(String::as_str), Some("QUIT"));
}

#[test]
fn a_connection_ends_with_its_work_where_none_is_to_be_kept() {
    let (mut world, server) = World::with_server(Script::new());
    world.set("connection_idle", 0);
    let daemon = world.start();
    for n in 0..2 {
        world.insert(&Mail::to(&format!("{n}@example.org")));
        server.wait_for_messages(n + 1);
        let records = server.wait_until_closed();
        assert_eq!(records.connections.len(), n + 1, "{}", records.transcript());
        assert_eq!(records.connections[n].verbs().last().map(String::as_str), Some("QUIT"));
    }
    daemon.terminate();
}

#[test]
fn a_kept_connection_that_the_server_has_given_up_fails_no_mail() {
    let script = Script::new().once("MAIL", "250 ok").once("MAIL", Action::Close);
    let (mut world, server) = World::with_server(script);
    world.set("connection_idle", 60);
    let daemon = world.start();
    for n in 0..2 {
        world.insert(&Mail::to(&format!("{n}@example.org")));
        server.wait_for_messages(n + 1);
        world.database.wait_until_empty();
    }
    assert_eq!(server.records().connections.len(), 2);
    assert!(world.database.failures().is_empty());
    daemon.terminate();
}
