//! Refusals that are about something else than the mail.

use super::*;

const REFUSALS: [&str; 4] =
    ["530 5.7.0 Must issue STARTTLS", "530 log in", "538 encrypt", "554 5.7.10 encryption needed"];
const ENVELOPE: [&str; 3] =
    ["MAIL FROM:<s@example.org>\r\n", "RCPT TO:<r1@example.net>\r\n", "RCPT TO:<r2@example.net>\r\n"];

#[test]
fn a_refusal_of_the_channel_decides_nobody_wherever_it_comes_in_the_envelope() {
    for refusal in REFUSALS {
        for (position, command) in ["MAIL FROM", "RCPT TO", "DATA"].into_iter().enumerate() {
            dialogue(&plain(), |talk| {
                talk.make_ready("");
                talk.begin(mail(1, "x"));
                for line in &ENVELOPE[..position.min(2)] {
                    talk.client(line).server("250 ok\r\n");
                }
                let line = [ENVELOPE[0], ENVELOPE[1], "DATA\r\n"][position];
                talk.client(line).server(&alloc::format!("{refusal}\r\n")).client("QUIT\r\n");
                assert_eq!(talk.verdicts().0, all(1, "undecided"), "{refusal} {command}");
                let end = talk.server("221 bye\r\n").end();
                assert_eq!(reply_text(&end.cause), alloc::format!("{refusal} {command}"));
            });
        }
    }
}

#[test]
fn what_follows_a_refusal_of_the_channel_in_a_batch_decides_nobody() {
    for replies in [
        "530 TLS first\r\n503 MAIL first\r\n503 MAIL first\r\n503 RCPT first\r\n",
        "250 ok\r\n250 ok\r\n530 TLS first\r\n554 no\r\n",
        "250 ok\r\n250 ok\r\n250 ok\r\n530 TLS first\r\n",
    ] {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING");
            talk.begin(mail(2, "x")).client(&(ENVELOPE.concat() + "DATA\r\n"));
            talk.server(replies).client("QUIT\r\n");
            assert_eq!(talk.verdicts().0, all(2, "undecided"), "{replies}");
            assert!(!talk.server("221 bye\r\n").end().no_pipelining);
        });
    }
}

#[test]
fn a_recipient_who_was_refused_before_keeps_that_verdict_if_the_replies_are_in_step() {
    for (reply, first) in [("250 reset", "fatal 550 no RCPT TO"), ("503 DATA", "undecided")] {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING");
            talk.begin(mail(2, "x")).client(&(ENVELOPE.concat() + "DATA\r\n"));
            talk.server("250 ok\r\n550 no\r\n530 TLS first\r\n503 no\r\n").client("RSET\r\n");
            talk.server(&alloc::format!("{reply}\r\n")).client("QUIT\r\n");
            assert_eq!(talk.verdicts().0, [(1, first.into()), (2, "undecided".into())]);
            assert_eq!(reply_text(&talk.server("221 bye\r\n").end().cause), "530 TLS first RCPT TO");
        });
    }
}

#[test]
fn where_data_is_accepted_behind_a_refusal_of_the_channel_the_connection_is_closed() {
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(2, "x")).client(&(ENVELOPE.concat() + "DATA\r\n"));
        talk.server("250 ok\r\n250 ok\r\n530 TLS first\r\n354 go\r\n").client("");
        let (verdicts, rest) = talk.verdicts();
        assert_eq!(verdicts, all(2, "undecided"));
        let [SessionOutput::Ended(end)] = rest.as_slice() else { panic!("{rest:?}") };
        assert_eq!(reply_text(&end.cause), "530 TLS first RCPT TO");
    });
}

#[test]
fn a_refusal_of_the_channel_in_the_message_or_at_its_end_decides_nobody() {
    for is_early in [true, false] {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING");
            talk.begin(mail(1, "x\n")).client(BATCH).server("250 ok\r\n250 ok\r\n354 go\r\n");
            if is_early {
                talk.server("530 TLS first\r\n").client("");
            } else {
                talk.client("x\r\n.\r\n");
                assert_eq!(talk.outputs().last(), Some(&SessionOutput::Ready));
                talk.server("530 TLS first\r\n").client("QUIT\r\n");
            }
            assert_eq!(talk.verdicts().0, all(1, "undecided"));
        });
    }
}

#[test]
fn an_envelope_behind_a_message_that_the_channel_is_not_fit_for_is_undecided_too() {
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(1, "x")).client(BATCH).server("250 ok\r\n250 ok\r\n354 go\r\n").client("x\r\n.\r\n");
        assert_eq!(talk.outputs(), [SessionOutput::Ready]);
        talk.begin(mail(1, "y")).client(BATCH).server("530 TLS first\r\n");
        assert_eq!(talk.verdicts().0, all(1, "undecided"));
        talk.server("250 ok\r\n550 no\r\n503 no\r\n").client("QUIT\r\n");
        assert_eq!(talk.verdicts().0, all(1, "undecided"));
    });
}

/// A session whose server has taken a message, mail 9.
fn has_taken(talk: &mut Talk, extensions: &str) {
    talk.make_ready(extensions);
    talk.begin(next_mail(9, "x")).transmit();
    for reply in ["250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 taken\r\n"] {
        talk.server(reply).transmit();
    }
    assert_eq!(verdicts_of(talk.outputs()), [one(9, "delivered 250 taken")]);
}

#[test]
fn what_a_refusal_is_about_hangs_on_the_command_the_code_and_the_enhanced_code() {
    let cases = [
        ("MAIL FROM", "451 4.7.500 busy", "NotNow"),
        ("MAIL FROM", "450 4.1.8 who are you", "failed"),
        ("MAIL FROM", "452 4.2.2 full", "failed"),
        ("MAIL FROM", "452 4.3.1 full", "NotNow"),
        ("MAIL FROM", "550 5.7.1 no", "fatal"),
        ("RCPT TO", "452 too many", "NotNow"),
        ("RCPT TO", "552 too many", "NotNow"),
        ("RCPT TO", "452 4.2.2 mailbox full", "failed"),
        ("RCPT TO", "552 5.2.2 mailbox full", "fatal"),
        ("RCPT TO", "450 4.3.2 shutting down", "NotNow"),
        ("RCPT TO", "432 4.3.2 busy", "NotNow"),
        ("RCPT TO", "451 4.4.5 busy", "NotNow"),
        ("RCPT TO", "450 4.5.3 too many", "NotNow"),
        ("RCPT TO", "450 4.7.1 greylisted", "failed"),
        ("RCPT TO", "450 greylisted", "failed"),
        ("DATA", "451 4.4.5 enough", "NotNow"),
        ("DATA", "451 4.2.1 no", "failed"),
        ("end of data", "451 4.4.5 later", "failed"),
        ("end of data", "452 4.3.1 full", "failed"),
        ("end of data", "432 4.3.2 busy", "failed"),
    ];
    for (command, reply, kind) in cases {
        dialogue(&plain(), |talk| {
            talk.make_ready("");
            talk.begin(mail(1, "x"));
            for name in ["MAIL FROM", "RCPT TO", "DATA", "end of data"] {
                talk.transmit();
                if name == command {
                    break;
                }
                talk.server(if name == "DATA" { "354 go\r\n" } else { "250 ok\r\n" });
            }
            talk.server(&alloc::format!("{reply}\r\n"));
            if !talk.transmit().is_empty() {
                talk.server("250 reset\r\n");
            }
            let expected = all(1, &alloc::format!("{kind} {reply} {command}"));
            assert_eq!(talk.verdicts(), (expected, ready()));
        });
    }
}

#[test]
fn a_confused_reply_is_about_the_conversation_if_the_server_has_taken_or_refused_before() {
    for (reply, on_new, on_used) in [
        ("500 what?", "fatal", "OutOfStep"),
        ("502 what?", "fatal", "OutOfStep"),
        ("503 what?", "fatal", "OutOfStep"),
        ("503 5.5.1 what?", "fatal", "fatal"),
        ("501 what?", "fatal", "fatal"),
        ("504 what?", "fatal", "fatal"),
    ] {
        let expected = |kind: &str| (all(1, &alloc::format!("{kind} {reply} MAIL FROM")), ready());
        let reply = alloc::format!("{reply}\r\n");
        dialogue(&plain(), |talk| {
            talk.make_ready("");
            talk.begin(mail(1, "x")).client(ENVELOPE[0]).server(&reply);
            assert_eq!(talk.verdicts(), expected(on_new));
        });
        dialogue(&plain(), |talk| {
            has_taken(talk, "");
            talk.begin(mail(1, "x")).client(ENVELOPE[0]).server(&reply);
            assert_eq!(talk.verdicts(), expected(on_used));
        });
        dialogue(&plain(), |talk| {
            talk.make_ready("");
            talk.begin(next_mail(9, "x")).client(ENVELOPE[0]).server("550 no\r\n").outputs();
            talk.begin(mail(1, "x")).client(ENVELOPE[0]).server(&reply);
            assert_eq!(talk.verdicts(), expected(on_used));
        });
    }
}

#[test]
fn on_a_connection_that_has_taken_a_message_the_others_of_a_refused_one_are_not_asked_about() {
    dialogue(&plain(), |talk| {
        has_taken(talk, "");
        talk.begin(mail(2, "x")).client(ENVELOPE[0]).server("250 ok\r\n");
        talk.client(ENVELOPE[1]).server("452 enough\r\n").client("RSET\r\n").server("250 ok\r\n");
        let expected = [(1, "NotNow 452 enough RCPT TO".into()), (2, "undecided".into())];
        assert_eq!(talk.verdicts(), (expected.into(), ready()));
        talk.quit().client("QUIT\r\n");
    });
}

#[test]
fn a_recipient_keeps_what_was_said_of_him_before_the_server_lost_the_thread() {
    for ends_asked in [true, false] {
        dialogue(&plain(), |talk| {
            talk.make_ready("");
            talk.begin(mail(3, "x")).client(ENVELOPE[0]).server("250 ok\r\n").client(ENVELOPE[1]);
            talk.server("551 no\r\n");
            if ends_asked {
                talk.client(ENVELOPE[2]).server("500 Too many failed commands\r\n").client("RSET\r\n");
            } else {
                talk.server("500 Too many failed commands\r\n");
            }
            talk.closed();
            let (verdicts, rest) = talk.verdicts();
            assert_eq!(verdicts[0], (1, "fatal 551 no RCPT TO".to_string()));
            assert!(verdicts[1].1.starts_with("OutOfStep 500"), "{verdicts:?}");
            assert!(matches!(rest.as_slice(), [SessionOutput::Ended(_)]), "{rest:?}");
        });
    }
}

#[test]
fn data_that_was_sent_ahead_of_a_refusal_of_the_first_recipient_is_used() {
    dialogue(&plain(), |talk| {
        has_taken(talk, "PIPELINING");
        talk.begin(mail(3, "x")).transmit();
        talk.server("250 ok\r\n550 no\r\n452 4.5.3 enough\r\n250 ok\r\n354 go\r\n");
        talk.client("x\r\n.\r\n");
        assert_eq!(talk.outputs(), [], "nothing is sent behind it");
        let refused = "NotNow 452 4.5.3 enough RCPT TO";
        let expected =
            [(1, "fatal 550 no RCPT TO".into()), (2, refused.into()), (3, "delivered 250 taken".into())];
        assert_eq!(talk.server("250 taken\r\n").verdicts(), (expected.into(), ready()));
    });
}

#[test]
fn a_refused_rset_behind_a_refusal_of_the_connection_is_out_of_step() {
    dialogue(&plain(), |talk| {
        has_taken(talk, "PIPELINING");
        talk.begin(mail(2, "x")).transmit();
        talk.server("250 ok\r\n550 no\r\n250 ok\r\n451 4.4.5 enough\r\n").client("RSET\r\n");
        assert_eq!(talk.outputs(), [], "nothing is sent behind it");
        talk.server("503 no\r\n").client("");
        let (verdicts, rest) = talk.verdicts();
        assert_eq!(verdicts, all(2, "undecided"));
        let [SessionOutput::Ended(end)] = rest.as_slice() else { panic!("{rest:?}") };
        assert_eq!(out_of_step(end), "the server refused RSET: 503 no");
    });
}

#[test]
fn a_server_that_leaves_behind_recipients_for_whom_it_had_no_room_gets_one_command_at_a_time() {
    for (replies, no_pipelining) in
        [("250 ok\r\n250 ok\r\n452 full\r\n421 bye\r\n", true), ("250 ok\r\n250 ok\r\n421 bye\r\n", false)]
    {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING");
            talk.begin(mail(4, "x")).transmit();
            talk.server(replies);
            assert_eq!(talk.end().no_pipelining, no_pipelining);
        });
    }
}
