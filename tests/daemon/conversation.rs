//! The SMTP conversation and what each reply means for the mail (contract, section 5).

use crate::support::smtp_server::SmtpServer;
use crate::support::{Action, Gate, Mail, Script, World};
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn the_conversation_is_ehlo_mail_rcpt_data_quit() {
    let (world, server) = World::with_server(Script::new());
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    let records = server.wait_until_closed();
    let commands = records.connections[0].commands();
    assert_eq!(commands[0], "EHLO client.example");
    assert_eq!(commands[1], "MAIL FROM:<sender@client.example>");
    assert_eq!(commands[2], "RCPT TO:<a@example.org>");
    assert_eq!(commands[3], "DATA");
    assert_eq!(commands.last().map(String::as_str), Some("QUIT"));
    assert_eq!(commands.len(), 6, "{commands:?}");
}

#[test]
fn a_multi_line_greeting_and_replies_without_text_are_understood() {
    // RFC 5321 section 4.2.1.
    let script = Script::new()
        .always("GREETING", "220-one\r\n220-\r\n220 three")
        .always("EHLO", "250")
        .always("MAIL", "250-\r\n250")
        .always("RCPT", "250 ");
    let (world, server) = World::with_server(script);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().accepted().len(), 1);
}

#[test]
fn replies_that_arrive_octet_by_octet_are_understood() {
    let script = Script::new()
        .always("GREETING", Action::Dribble("220-a\r\n220 b".into()))
        .always("EHLO", Action::Dribble("250-a\r\n250 SIZE".into()))
        .always("MAIL", Action::Dribble("250 ok".into()))
        .always(".", Action::Dribble("250-ok\r\n250 ok".into()));
    let (world, server) = World::with_server(script);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().accepted().len(), 1);
}

#[test]
fn helo_follows_on_the_same_connection_where_ehlo_is_refused() {
    // RFC 5321 section 3.2.
    for refusal in ["500 what", "502 5.5.1 not implemented", "550 no"] {
        let (world, server) = World::with_server(Script::new().always("EHLO", refusal));
        assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
        let records = server.records();
        assert_eq!(records.connections.len(), 1);
        assert_eq!(records.connections[0].commands()[1], "HELO client.example");
        assert_eq!(records.accepted().len(), 1);
    }
}

#[test]
fn a_temporary_refusal_of_ehlo_is_not_answered_with_helo() {
    let (world, server) = World::with_server(Script::new().always("EHLO", "451 4.3.0 later"));
    let failure = world.failure_after_a_pass(&Mail::to("a@example.org"));
    assert!(!failure.fatal);
    assert_eq!(server.records().count("HELO"), 0);
}

#[test]
fn helo_refused_for_good_by_every_candidate_is_fatal() {
    let script = Script::new().always("EHLO", "502 no").always("HELO", "550 5.7.1 not you");
    let (world, _server) = World::with_server(script);
    assert!(world.failure_after_a_pass(&Mail::to("a@example.org")).fatal);
}

/// The one failure of a mail to a server with this script.
fn failure_of(script: Script) -> (crate::support::database::Failure, World, SmtpServer) {
    let (world, server) = World::with_server(script);
    let failure = world.failure_after_a_pass(&Mail::to("a@example.org"));
    (failure, world, server)
}

/// Contract, section 4: the server's words, code first, every line, then host, address, port and command.
fn assert_names_the_server(text: &str, server: &SmtpServer, words: &[&str], command: &str) {
    assert!(text.starts_with(&words[0][..3]), "the code does not come first: {text:?}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in {text:?}");
    }
    for part in ["mx.example.org", &server.ip().to_string(), &server.port().to_string(), command] {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
}

#[test]
fn a_permanent_refusal_of_a_recipient_is_fatal_and_told_in_the_servers_words() {
    let (failure, _world, server) =
        failure_of(Script::new().always("RCPT", "550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user"));
    assert!(failure.fatal);
    assert_names_the_server(&failure.text, &server, &["550", "no", "such", "user"], "RCPT");
    assert_eq!(server.records().count("DATA"), 0);
}

#[test]
fn a_temporary_refusal_of_a_recipient_is_temporary() {
    let (failure, world, server) = failure_of(Script::new().always("RCPT", "450 4.2.0 greylisted"));
    assert!(!failure.fatal);
    assert_names_the_server(&failure.text, &server, &["450", "greylisted"], "RCPT");
    assert_eq!(world.database.ids().len(), 1);
}

#[test]
fn refusals_of_mail_data_and_the_end_of_data_are_judged_by_their_first_digit() {
    let cases = [
        ("MAIL", "451 4.3.0 later", false, "MAIL"),
        ("MAIL", "553 5.1.8 bad sender", true, "MAIL"),
        ("DATA", "451 4.3.0 later", false, "DATA"),
        ("DATA", "554 5.5.1 no valid recipients", true, "DATA"),
        (".", "452 4.3.1 full", false, ""),
        (".", "554 5.6.0 spam", true, ""),
    ];
    for (verb, reply, fatal, command) in cases {
        let (failure, _world, server) = failure_of(Script::new().always(verb, reply));
        assert_eq!(failure.fatal, fatal, "{verb} {reply}: {failure:?}");
        assert_names_the_server(&failure.text, &server, &[reply.split(' ').next().unwrap()], command);
    }
}

#[test]
fn an_unknown_code_is_judged_by_its_first_digit() {
    // RFC 5321 section 4.2: 2yz is success, 3yz only for DATA, 4yz temporary, 5yz fatal.
    let script = Script::new()
        .always("MAIL", "299 hm")
        .always("RCPT", "251 forwarded")
        .always("DATA", "399 go")
        .always(".", "222 ok");
    let (world, server) = World::with_server(script);
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert_eq!(server.records().accepted().len(), 1);
    for (verb, reply) in
        [("MAIL", "499 x"), ("RCPT", "354 x"), ("RCPT", "150 x"), (".", "354 x"), (".", "499 x")]
    {
        assert!(!failure_of(Script::new().lenient().always(verb, reply)).0.fatal, "{verb} {reply}");
    }
    assert!(failure_of(Script::new().always("RCPT", "599 x")).0.fatal);
}

#[test]
fn one_refused_recipient_does_not_keep_the_others_from_their_mail() {
    let script = Script::new().when(|c| c.line.contains("<b@").then(|| "550 5.1.1 unknown".into()));
    let (world, server) = World::with_server(script);
    let ids =
        world.database.insert_all(&["a", "b", "c"].map(|user| Mail::to(&format!("{user}@example.org"))));
    assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
    assert_eq!(server.records().delivered_to(), ["a@example.org", "c@example.org"]);
    assert_eq!(world.database.ids(), [ids[1]]);
    assert!(world.database.failures_of(ids[1])[0].fatal);
    assert_eq!(world.database.failures().len(), 1);
}

#[test]
fn too_many_recipients_moves_the_rest_to_the_next_transaction() {
    // RFC 5321 section 4.5.3.1.10; 552 counts as 452. This server takes two recipients per transaction.
    for (code, pipelining) in
        [("452 4.5.3 too many", false), ("552 too many", false), ("452 4.5.3 too many", true)]
    {
        let taken = AtomicUsize::new(0);
        let script = Script::new().when(move |command| match command.verb {
            "MAIL" => {
                taken.store(0, Ordering::SeqCst);
                None
            }
            "RCPT" if taken.fetch_add(1, Ordering::SeqCst) >= 2 => Some(code.into()),
            _ => None,
        });
        let script = if pipelining { script.keywords(["PIPELINING"]) } else { script };
        let (world, server) = World::with_server(script);
        world
            .database
            .insert_all(&["a", "b", "c", "d", "e"].map(|user| Mail::to(&format!("{user}@example.org"))));
        assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
        let records = server.records();
        let sizes: Vec<usize> = records.accepted().iter().map(|message| message.to().len()).collect();
        assert_eq!(sizes, [2, 2, 1], "{}", records.transcript());
        assert_eq!(records.delivered_to().len(), 5);
        assert!(world.database.failures().is_empty());
        assert!(world.database.ids().is_empty());
    }
}

#[test]
fn a_refused_end_of_data_fails_the_accepted_recipients_and_leaves_the_refused_ones_their_own_words() {
    let script = Script::new()
        .when(|c| c.line.contains("<b@").then(|| "550 5.1.1 unknown".into()))
        .always(".", "451 4.3.0 disk");
    let (world, _server) = World::with_server(script);
    let ids =
        world.database.insert_all(&["a", "b", "c"].map(|user| Mail::to(&format!("{user}@example.org"))));
    assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
    for (id, word, fatal) in [(ids[0], "disk", false), (ids[1], "unknown", true), (ids[2], "disk", false)] {
        let failures = world.database.failures_of(id);
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(failures[0].text.contains(word) && failures[0].fatal == fatal, "{failures:?}");
    }
}

#[test]
fn nothing_is_said_before_the_greeting() {
    // RFC 5321 section 3.1.
    let gate = Gate::new();
    let late = Action::After(gate.clone(), Box::new("220 at last".into()));
    let (world, server) = World::with_server(Script::new().always("GREETING", late));
    world.insert(&Mail::to("a@example.org"));
    let daemon = world.start();
    server.wait_for_connections(1);
    gate.open();
    server.wait_for_messages(1);
    let records = server.records();
    assert!(records.connections[0].lines[0].text.starts_with(b"220"), "{}", records.transcript());
    daemon.terminate();
}

#[test]
fn too_many_recipients_in_answer_to_the_first_one_is_a_temporary_failure() {
    // 552 is about the mailbox where its enhanced code says so.
    for (code, fatal) in [("452 4.5.3 too many", false), ("552 5.3.1 full", false), ("552 5.2.2 full", true)]
    {
        let (failure, _world, server) = failure_of(Script::new().always("RCPT", code));
        assert_eq!(failure.fatal, fatal, "{failure:?}");
        assert_eq!(server.records().count("DATA"), 0);
    }
}

#[test]
fn data_is_not_said_when_no_recipient_was_accepted_and_the_session_goes_on_after_rset() {
    let script = Script::new().when(|c| c.line.contains("<a@").then(|| "550 no".into()));
    let (mut world, server) = World::with_server(script);
    world.set("destination_concurrency", 1);
    world
        .database
        .insert_all(&[Mail::to("a@example.org").data("1\r\n"), Mail::to("b@example.org").data("2\r\n")]);
    world.run(&["deliver", "example.org"]);
    let records = server.records();
    assert_eq!(records.delivered_to(), ["b@example.org"]);
    assert_eq!(records.connections.len(), 1, "{}", records.transcript());
    assert_eq!(records.count("DATA"), 1);
}

#[test]
fn rset_is_said_only_where_a_transaction_was_left_open() {
    // A refused MAIL opens no transaction, an accepted message ends one.
    let script = Script::new().once("MAIL", "451 later");
    let (mut world, server) = World::with_server(script);
    world.set("destination_concurrency", 1);
    let mails = ["1", "2", "3"].map(|n| Mail::to(&format!("{n}@example.org")).data(n));
    world.database.insert_all(&mails);
    world.run(&["deliver", "example.org"]);
    let records = server.records();
    assert_eq!(records.accepted().len(), 2);
    assert_eq!(records.count("RSET"), 0, "{}", records.transcript());
}

#[test]
fn a_size_is_announced_where_size_is_offered() {
    // RFC 1870 section 3.
    let (world, server) = World::with_server(Script::new().keywords(["size 1000000"]));
    let data = "Subject: x\r\n\r\nhello\r\n";
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org").data(data)), []);
    let mail = server.records().messages[0].mail.clone();
    let size: usize = mail
        .split("SIZE=")
        .nth(1)
        .unwrap_or_else(|| panic!("{mail}"))
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(size >= data.len() && size < data.len() + 64, "{mail}");
}

#[test]
fn what_is_said_of_a_message_is_true_to_the_octet_or_is_not_said() {
    // RFC 1870 section 3: CRLF counts as two octets, a doubled dot as one. RFC 6152 section 3.
    let (world, server) = World::with_server(Script::new().keywords(["SIZE", "8BITMIME"]));
    let lines = |octets: usize| ".dot\n".repeat(octets / 5 + 1)[..octets].to_owned();
    let last_is_8_bit = |octets: usize| [lines(octets - 1).as_bytes(), b"\xe9"].concat();
    let first_is_8_bit = |octets: usize| [b"\xe9", lines(octets - 1).as_bytes()].concat();
    let mut expected = Vec::new();
    for (name, octets) in [("a", 65_535), ("b", 65_536), ("c", 65_537), ("d", 200_000)] {
        for (kind, data) in [
            ("", lines(octets).into_bytes()),
            ("first", first_is_8_bit(octets)),
            ("last", last_is_8_bit(octets)),
        ] {
            let (bare, ends) = (data.iter().filter(|octet| **octet == b'\n').count(), data.ends_with(b"\n"));
            let wire = octets + bare + if ends { 0 } else { 2 };
            // Of a longer message only the beginning is known before it is sent.
            let size = if octets <= 65_536 { format!(" SIZE={wire}") } else { String::new() };
            let is_8_bit = kind == "first" || (kind == "last" && octets <= 65_536);
            let body = if is_8_bit { " BODY=8BITMIME" } else { "" };
            let to = format!("{name}{kind}@example.org");
            world.insert(&Mail::to(&to).data(&data));
            expected.push((to, format!("MAIL FROM:<sender@client.example>{size}{body}"), wire));
        }
    }
    assert_eq!(world.run(&["nodetach", "deliver", "example.org"]).code(), Some(0));
    let records = server.records();
    for (to, mail, wire) in expected {
        let message = records.accepted().into_iter().find(|message| message.to() == [&*to]);
        let message = message.unwrap_or_else(|| panic!("nothing for {to}"));
        assert_eq!((message.mail.as_str(), message.data.len()), (mail.as_str(), wire), "{to}");
    }
}

#[test]
fn a_message_above_the_servers_limit_is_not_sent() {
    // RFC 1870 section 6.1, RFC 3463 5.3.4.
    let (world, server) = World::with_server(Script::new().keywords(["SIZE 1000"]));
    let failure = world.failure_after_a_pass(&Mail::to("a@example.org").data("x".repeat(5000)));
    assert!(failure.fatal, "{failure:?}");
    assert_eq!(server.records().count("DATA"), 0);
}

#[test]
fn a_size_limit_of_zero_or_none_is_no_limit() {
    // RFC 1870 section 4.
    for keyword in ["SIZE", "SIZE 0"] {
        let (world, server) = World::with_server(Script::new().keywords([keyword]));
        assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
        assert_eq!(server.records().accepted().len(), 1);
    }
}

#[test]
fn body_8bitmime_is_said_for_8_bit_data_where_it_is_offered() {
    // RFC 6152 section 2.
    let (world, server) = World::with_server(Script::new().keywords(["8BITMIME"]));
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org").data("caf\u{e9}\r\n")), []);
    assert!(server.records().messages[0].mail.contains(" BODY=8BITMIME"));
    let (world, server) = World::with_server(Script::new());
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org").data("caf\u{e9}\r\n")), []);
    assert!(!server.records().messages[0].mail.contains("BODY"));
}

#[test]
fn an_internationalised_address_needs_smtputf8() {
    // RFC 6531 section 3.4.
    let (world, server) = World::with_server(Script::new().keywords(["SMTPUTF8", "8BITMIME"]));
    assert_eq!(world.failures_after_a_pass(&Mail::to("j\u{f6}rg@example.org")), []);
    let message = server.records().messages[0].clone();
    assert!(message.mail.contains(" SMTPUTF8"), "{}", message.mail);
    assert_eq!(message.to(), ["j\u{f6}rg@example.org"]);
    let (world, server) = World::with_server(Script::new());
    let failure = world.failure_after_a_pass(&Mail::to("j\u{f6}rg@example.org"));
    assert!(failure.fatal && failure.text.contains("5.6.7"), "{failure:?}");
    assert_eq!(server.records().count("RCPT"), 0);
}

#[test]
fn an_internationalised_sender_needs_smtputf8_too() {
    let (world, server) = World::with_server(Script::new().keywords(["8BITMIME"]));
    let failure = world.failure_after_a_pass(&Mail::to("a@example.org").from("j\u{f6}rg@client.example"));
    assert!(failure.fatal && failure.text.contains("5.6.7"), "{failure:?}");
    assert_eq!(server.records().count("RCPT"), 0);
    // Only its domain: the A-label form will do.
    let (world, server) = World::with_server(Script::new());
    let mail = Mail::to("a@example.org").from("s@b\u{fc}cher.example");
    assert_eq!(world.failures_after_a_pass(&mail), []);
    assert_eq!(server.records().messages[0].from(), "s@xn--bcher-kva.example");
}

#[test]
fn smtputf8_is_not_said_where_it_is_not_needed() {
    let (world, server) = World::with_server(Script::new().keywords(["SMTPUTF8", "8BITMIME"]));
    assert_eq!(world.failures_after_a_pass(&Mail::to("a@example.org")), []);
    assert!(!server.records().messages[0].mail.contains("SMTPUTF8"));
}

#[test]
fn one_message_that_needs_smtputf8_does_not_fail_the_others() {
    let (world, server) = World::with_server(Script::new());
    let ids = world.database.insert_all(&[Mail::to("a@example.org"), Mail::to("j\u{f6}rg@example.org")]);
    world.run(&["deliver", "example.org"]);
    assert_eq!(server.records().delivered_to(), ["a@example.org"]);
    assert_eq!(world.database.ids(), [ids[1]]);
}

#[test]
fn pipelining_is_used_or_not_but_every_reply_is_checked() {
    // RFC 2920 section 3.1.
    let script = Script::new()
        .keywords(["PIPELINING"])
        .when(|c| c.line.contains("<b@").then(|| "550 5.1.1 unknown".into()))
        .when(|c| c.line.contains("<c@").then(|| "450 4.2.0 later".into()));
    let (world, server) = World::with_server(script);
    let ids =
        world.database.insert_all(&["a", "b", "c", "d"].map(|user| Mail::to(&format!("{user}@example.org"))));
    world.run(&["deliver", "example.org"]);
    assert_eq!(server.records().delivered_to(), ["a@example.org", "d@example.org"]);
    assert!(world.database.failures_of(ids[1])[0].fatal);
    assert!(!world.database.failures_of(ids[2])[0].fatal);
}

#[test]
fn go_ahead_without_a_valid_recipient_is_ended_with_a_lone_dot() {
    // RFC 2920 section 3.1: a pipelined DATA may be answered 354 although no recipient was accepted.
    let script = Script::new()
        .keywords(["PIPELINING"])
        .always("RCPT", "550 5.1.1 no")
        .always("DATA", "354 whatever")
        .always(".", "554 5.5.1 no recipients");
    let (world, server) = World::with_server(script);
    let failure = world.failure_after_a_pass(&Mail::to("a@example.org").data("secret text\r\n"));
    assert!(failure.fatal && failure.text.contains("5.1.1"), "{failure:?}");
    assert!(!server.records().transcript().contains("secret text"));
}

#[test]
fn a_refused_mail_with_pipelined_recipients_is_one_failure_in_the_words_of_mail() {
    let script = Script::new().keywords(["PIPELINING"]).always("MAIL", "451 4.7.1 sender later");
    let (failure, _world, _server) = failure_of(script);
    assert!(!failure.fatal && failure.text.contains("sender later"), "{failure:?}");
}
