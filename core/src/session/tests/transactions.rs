//! MAIL, RCPT, DATA, the message, the final dot.

use super::*;
use crate::outbox::DATA_CHUNK_OCTETS;

const MAIL: &str = "MAIL FROM:<s@example.org>\r\n";

/// Up to the RCPT of the first recipient.
fn open(talk: &mut Talk, transaction: Transaction) {
    talk.make_ready("");
    talk.begin(transaction).client(MAIL).server("250 ok\r\n").client("RCPT TO:<r1@example.net>\r\n");
}

/// Up to the final dot, with one recipient.
fn finish(talk: &mut Talk) {
    open(talk, mail(1, "Subject: x\n\n.\n"));
    talk.server("250 ok\r\n").client("DATA\r\n").server("354 go\r\n").client("Subject: x\r\n\r\n..\r\n.\r\n");
    assert!(talk.session.awaits_final_reply());
}

#[test]
fn a_message_is_delivered_when_the_server_says_so_after_the_final_dot() {
    // RFC 5321 section 4.2.5
    dialogue(&plain(), |talk| {
        finish(talk);
        assert!(talk.outputs().is_empty());
        talk.server("250 2.0.0 taken\r\n").client("");
        assert_eq!(talk.verdicts(), (all(1, "delivered 250 2.0.0 taken"), [SessionOutput::Ready].into()));
        assert!(!talk.session.awaits_final_reply());
        // The session can be used again, without RSET.
        talk.begin(mail(1, "x")).client(MAIL).server("250 ok\r\n").client("RCPT TO:<r1@example.net>\r\n");
    });
}

#[test]
fn each_recipient_has_a_verdict_of_its_own() {
    dialogue(&plain(), |talk| {
        open(talk, mail(4, "x"));
        talk.server("550 5.1.1-a\r\n").client("RCPT TO:<r2@example.net>\r\n");
        talk.server("299 unknown success\r\n").client("RCPT TO:<r3@example.net>\r\n");
        talk.server("450-greylisted\r\n450 come back\r\n").client("RCPT TO:<r4@example.net>\r\n");
        talk.server("150 what\r\n").client("DATA\r\n").server("399 go\r\n").client("x\r\n.\r\n");
        let (verdicts, _) = talk.server("250 ok\r\n").verdicts();
        let expected = [
            (1, "fatal 550 5.1.1-a RCPT TO"),
            (2, "delivered 250 ok"),
            (3, "failed 450-greylisted\n450 come back RCPT TO"),
            (4, "failed 150 what RCPT TO"),
        ];
        assert_eq!(verdicts, expected.map(|(id, word)| (id, word.to_string())));
    });
}

#[test]
fn replies_are_judged_by_their_first_digit() {
    // RFC 5321 section 4.2
    for (code, kind) in [(450, "failed"), (599, "fatal"), (150, "failed"), (999, "failed")] {
        dialogue(&plain(), |talk| {
            talk.make_ready("");
            talk.begin(mail(2, "x")).client(MAIL).server(&alloc::format!("{code} no\r\n")).client("");
            // Whether a temporary one is about the mail at all is for others to find out.
            let kind = if code == 450 { "NotNow" } else { kind };
            let expected = all(2, &alloc::format!("{kind} {code} no MAIL FROM"));
            assert_eq!(talk.verdicts(), (expected, [SessionOutput::Ready].into()));
        });
        dialogue(&plain(), |talk| {
            finish(talk);
            let expected = all(1, &alloc::format!("{kind} {code} no end of data"));
            talk.server(&alloc::format!("{code} no\r\n")).client("");
            assert_eq!(talk.verdicts(), (expected, [SessionOutput::Ready].into()));
        });
    }
}

#[test]
fn too_many_recipients_leave_the_rest_to_the_next_transaction() {
    // RFC 5321 section 4.5.3.1.10
    for code in [452, 552] {
        dialogue(&plain(), |talk| {
            open(talk, mail(4, "x"));
            talk.server("250 ok\r\n").client("RCPT TO:<r2@example.net>\r\n");
            talk.server(&alloc::format!("{code} too many\r\n")).client("DATA\r\n").server("354 go\r\n");
            talk.client("x\r\n.\r\n").server("250 ok\r\n");
            let undecided = [3, 4, 2].map(|id| (id, "undecided".to_string()));
            let expected = [&undecided[..2], &all(1, "delivered 250 ok"), &undecided[2..]].concat();
            assert_eq!(talk.verdicts(), (expected, [SessionOutput::Ready].into()));
        });
    }
}

#[test]
fn no_room_for_the_first_recipient_refuses_the_connection() {
    for code in [452, 552] {
        dialogue(&plain(), |talk| {
            open(talk, mail(2, "x"));
            let reply = alloc::format!("{code} full\r\n");
            talk.server(&reply).client("RCPT TO:<r2@example.net>\r\n").server(&reply).client("RSET\r\n");
            let expected = all(2, &alloc::format!("NotNow {code} full RCPT TO"));
            assert_eq!(talk.server("250 ok\r\n").verdicts(), (expected, [SessionOutput::Ready].into()));
        });
    }
}

#[test]
fn a_full_mailbox_is_no_lack_of_room_for_recipients() {
    // RFC 3463 section 3.3: x.2.z is about the mailbox.
    dialogue(&plain(), |talk| {
        open(talk, mail(2, "x"));
        talk.server("250 ok\r\n").client("RCPT TO:<r2@example.net>\r\n");
        talk.server("552 5.2.2 full\r\n").client("DATA\r\n").server("354 go\r\n").client("x\r\n.\r\n");
        let mut expected = all(1, "delivered 250 ok");
        expected.push((2, "fatal 552 5.2.2 full RCPT TO".to_string()));
        assert_eq!(talk.server("250 ok\r\n").verdicts(), (expected, [SessionOutput::Ready].into()));
    });
}

#[test]
fn without_an_accepted_recipient_there_is_rset_instead_of_data() {
    dialogue(&plain(), |talk| {
        open(talk, mail(1, "x"));
        talk.server("550 no\r\n").client("RSET\r\n");
        assert_eq!(talk.outputs(), []);
        let expected = (all(1, "fatal 550 no RCPT TO"), [SessionOutput::Ready].into());
        assert_eq!(talk.server("250 ok\r\n").verdicts(), expected);
        talk.begin(mail(1, "x")).client(MAIL);
    });
}

#[test]
fn a_server_that_refuses_rset_is_left() {
    dialogue(&plain(), |talk| {
        open(talk, mail(1, "x"));
        talk.server("550 no\r\n").client("RSET\r\n").server("500 no\r\n").client("QUIT\r\n").closed();
        assert_eq!(lost(&talk.end()), "the server refused RSET: 500 no");
    });
}

#[test]
fn refused_data_is_the_verdict_of_all_accepted() {
    for (reply, word) in [
        ("451 later", "NotNow 451 later DATA"),
        ("451 4.1.8 who are you", "failed 451 4.1.8 who are you DATA"),
        ("554 never", "fatal 554 never DATA"),
        ("150 what", "failed 150 what DATA"),
    ] {
        dialogue(&plain(), |talk| {
            open(talk, mail(2, "x"));
            talk.server("250 ok\r\n").client("RCPT TO:<r2@example.net>\r\n").server("250 ok\r\n");
            talk.client("DATA\r\n").server(&alloc::format!("{reply}\r\n")).client("RSET\r\n");
            assert_eq!(talk.server("250 ok\r\n").verdicts().0, all(2, word));
        });
    }
}

#[test]
fn a_421_before_the_final_dot_decides_nothing_more() {
    // RFC 5321 section 3.8
    let steps: [fn(&mut Talk); 3] = [
        |talk| talk.make_ready(""),
        |talk| open(talk, mail(2, "x")),
        |talk| {
            open(talk, mail(2, "x"));
            talk.server("250 ok\r\n").transmit();
            talk.server("250 ok\r\n").client("DATA\r\n");
        },
    ];
    for (step, command) in steps.iter().zip(["MAIL FROM", "RCPT TO", "DATA"]) {
        dialogue(&plain(), |talk| {
            step(talk);
            if command == "MAIL FROM" {
                talk.begin(mail(2, "x")).client(MAIL);
            }
            talk.server("421 bye\r\n").client("");
            let (verdicts, rest) = talk.verdicts();
            assert_eq!(verdicts, all(2, &alloc::format!("Closing 421 bye {command}")));
            let [SessionOutput::Ended(end)] = rest.as_slice() else { panic!("{rest:?}") };
            assert_eq!(reply_text(&end.cause), alloc::format!("421 bye {command}"));
        });
    }
}

#[test]
fn what_was_refused_before_a_421_stays_refused() {
    dialogue(&plain(), |talk| {
        open(talk, mail(2, "x"));
        talk.server("550 no\r\n").client("RCPT TO:<r2@example.net>\r\n").server("421 bye\r\n");
        let expected = [(1, "fatal 550 no RCPT TO".to_string()), (2, "Closing 421 bye RCPT TO".to_string())];
        assert_eq!(talk.verdicts().0, expected);
    });
}

#[test]
fn a_421_to_the_final_dot_is_told_from_one_before() {
    dialogue(&plain(), |talk| {
        finish(talk);
        let (verdicts, rest) = talk.server("421 bye\r\n").verdicts();
        assert_eq!(verdicts, all(1, "ClosingAtEnd 421 bye end of data"));
        let [SessionOutput::Ended(end)] = rest.as_slice() else { panic!("{rest:?}") };
        assert_eq!((end.phase, reply_text(&end.cause)), (Phase::EndOfData, "421 bye end of data".into()));
    });
}

#[test]
fn a_connection_lost_after_the_final_dot_is_an_uncertain_delivery() {
    let losses: [fn(&mut Talk) -> &mut Talk; 3] =
        [|talk| talk.server("250 taken").closed(), |talk| talk.pass(600), |talk| talk.server("garbage\r\n")];
    for loses in losses {
        dialogue(&plain(), |talk| {
            finish(talk);
            loses(talk);
            let (verdicts, rest) = talk.verdicts();
            let [(1, word)] = verdicts.as_slice() else { panic!("{verdicts:?}") };
            assert!(word.starts_with("uncertain: "), "{word}");
            let [SessionOutput::Ended(end)] = rest.as_slice() else { panic!("{rest:?}") };
            assert_eq!(end.phase, Phase::EndOfData);
        });
    }
}

#[test]
fn the_final_dot_has_ten_minutes() {
    // RFC 5321 section 4.5.3.2.6
    dialogue(&plain(), |talk| {
        finish(talk);
        talk.pass(599);
        assert!(talk.session.awaits_final_reply());
        assert_eq!(talk.server("250 ok\r\n").verdicts().0, all(1, "delivered 250 ok"));
    });
}

/// Up to the message, of which nothing has been handed out.
fn data(talk: &mut Talk, transaction: Transaction) {
    open(talk, transaction);
    talk.server("250 ok\r\n").client("DATA\r\n").server("354 go\r\n");
    assert_eq!(talk.session.phase(), Phase::MailData);
}

#[test]
fn a_connection_lost_before_the_final_dot_decides_nothing() {
    dialogue(&plain(), |talk| {
        data(talk, mail(1, "some octets"));
        let mut octets = BytesMut::new();
        assert!(talk.session.poll_transmit(talk.now, 4, &mut octets));
        assert_eq!(octets, "some");
        assert_eq!(talk.closed().verdicts().0, all(1, "undecided"));
    });
}

#[test]
fn an_early_temporary_refusal_is_a_verdict_but_an_early_success_is_none() {
    for (reply, word) in [
        ("451 full", "failed 451 full mail data"),
        ("250 thanks", "undecided"),
        ("354 go on", "undecided"),
        ("421 bye", "Closing 421 bye mail data"),
    ] {
        dialogue(&plain(), |talk| {
            data(talk, mail(1, "x"));
            let (verdicts, rest) = talk.server(&alloc::format!("{reply}\r\n")).verdicts();
            assert_eq!(verdicts, all(1, word));
            assert!(matches!(rest.as_slice(), [SessionOutput::Ended(_)]), "{rest:?}");
            talk.client("");
        });
    }
}

#[test]
fn a_success_that_begins_before_the_final_dot_is_not_taken_for_its_reply() {
    dialogue(&plain(), |talk| {
        data(talk, mail(1, "x"));
        talk.server("250 tha").client("x").server("nks\r\n");
        assert_eq!(talk.verdicts().0, all(1, "undecided"));
    });
}

#[test]
fn extensions_are_used_where_they_are_offered() {
    // RFC 1870 section 6, RFC 6152 section 3: the size counts CRLF line ends, but no doubled dots.
    let cases = [
        ("SIZE", "a\n.b", "MAIL FROM:<s@example.org> SIZE=7\r\n"),
        ("SIZE_0 8BITMIME", "ä\n", "MAIL FROM:<s@example.org> SIZE=4 BODY=8BITMIME\r\n"),
        ("8BITMIME", "a", MAIL),
        ("SMTPUTF8", "ä", MAIL),
        ("SIZE_3", "a", "MAIL FROM:<s@example.org> SIZE=3\r\n"),
    ];
    for (extensions, data, expected) in cases {
        dialogue(&plain(), |talk| {
            talk.make_ready(extensions);
            talk.begin(mail(1, data)).client(expected);
        });
    }
}

#[test]
fn of_a_message_that_is_not_here_as_a_whole_only_what_is_known_is_declared() {
    for (beginning, expected) in [("x\n", MAIL), ("\u{e4}\n", "MAIL FROM:<s@example.org> BODY=8BITMIME\r\n")]
    {
        dialogue(&plain(), |talk| {
            talk.make_ready("SIZE 8BITMIME");
            talk.begin(Transaction { data_octets: 1000, ..mail(1, beginning) }).client(expected);
        });
    }
    // It is at least as long as what is stored.
    dialogue(&plain(), |talk| {
        talk.make_ready("SIZE_999");
        talk.begin(Transaction { data_octets: 1000, ..mail(1, "x\n") }).client("");
        let word = "fatal 5.3.4 the message has 1000 octets, more than the 999 that the server takes";
        assert_eq!(talk.verdicts().0, all(1, word));
    });
}

#[test]
fn a_message_beyond_the_limit_is_not_sent() {
    // RFC 1870 section 6.1
    dialogue(&plain(), |talk| {
        talk.make_ready("SIZE_3");
        talk.begin(mail(2, "a\nb\n")).client("");
        let word = "fatal 5.3.4 the message has 6 octets, more than the 3 that the server takes";
        assert_eq!(talk.verdicts(), (all(2, word), [SessionOutput::Ready].into()));
    });
}

fn utf8_mail(sender: &str, recipients: &[&str]) -> Transaction {
    let recipients = recipients.iter().zip(1..).map(|(text, id)| recipient(id, text)).collect();
    Transaction { reverse_path: Some(mailbox(sender)), recipients, ..mail(0, "x") }
}

#[test]
fn addresses_that_are_not_ascii_need_smtputf8() {
    // RFC 6531 section 3.4
    let word = "fatal 5.6.7 the address is not ASCII, and the server does not offer SMTPUTF8";
    dialogue(&plain(), |talk| {
        talk.make_ready("");
        talk.begin(utf8_mail("s@example.org", &["ä@example.net", "b@example.net"])).client(MAIL);
        talk.server("250 ok\r\n")
            .client("RCPT TO:<b@example.net>\r\n")
            .server("250 ok\r\n")
            .client("DATA\r\n");
        talk.server("354 go\r\n").client("x\r\n.\r\n").server("250 ok\r\n");
        assert_eq!(talk.verdicts().0, [(1, word.to_string()), (2, "delivered 250 ok".to_string())]);
        talk.begin(utf8_mail("ä@example.org", &["a@example.net", "b@example.net"])).client("");
        assert_eq!(talk.verdicts(), (all(2, word), [SessionOutput::Ready].into()));
    });
    dialogue(&plain(), |talk| {
        talk.make_ready("SMTPUTF8");
        talk.begin(utf8_mail("s@example.org", &["b@example.net", "ä@example.net"]));
        talk.client("MAIL FROM:<s@example.org> SMTPUTF8\r\n").server("250 ok\r\n");
        talk.client("RCPT TO:<b@example.net>\r\n").server("250 ok\r\n").client("RCPT TO:<ä@example.net>\r\n");
    });
}

#[test]
fn a_sender_that_is_not_ascii_asks_for_smtputf8_alone() {
    // RFC 6531 section 3.4
    dialogue(&plain(), |talk| {
        talk.make_ready("SMTPUTF8");
        talk.begin(utf8_mail("ä@example.org", &["b@example.net"]));
        talk.client("MAIL FROM:<ä@example.org> SMTPUTF8\r\n");
    });
}

#[test]
fn the_null_reverse_path_is_written_as_one() {
    // RFC 5321 section 4.5.5
    dialogue(&plain(), |talk| {
        talk.make_ready("");
        talk.begin(Transaction { reverse_path: None, ..mail(1, "") }).client("MAIL FROM:<>\r\n");
        talk.server("250 ok\r\n")
            .client("RCPT TO:<r1@example.net>\r\n")
            .server("250 ok\r\n")
            .client("DATA\r\n");
        talk.server("354 go\r\n").client(".\r\n");
    });
}

/// A message of which only the first octets are here.
fn long(octets: u64) -> Transaction {
    Transaction { data_octets: octets, ..mail(1, "head\n") }
}

#[test]
fn a_long_message_is_asked_for_in_pieces_one_ahead() {
    let chunk = DATA_CHUNK_OCTETS as u64;
    let need = |offset, limit| [SessionOutput::NeedData { id: MailId(1), offset, limit }];
    dialogue(&plain(), |talk| {
        data(talk, long(chunk + 7));
        assert_eq!(talk.outputs(), need(5, 65536));
        talk.supply(alloc::vec![b'a'; DATA_CHUNK_OCTETS]);
        // Two pieces are here: the next is asked for when one is sent.
        assert!(talk.outputs().is_empty());
        assert_eq!(talk.transmit().len(), DATA_CHUNK_OCTETS + 6);
        assert_eq!(talk.outputs(), need(chunk + 5, 2));
        assert!(!talk.session.wants_transmit());
        talk.supply(&b"b"[..]);
        assert_eq!(talk.outputs(), need(chunk + 6, 1));
        talk.client("b").supply(&b"cX"[..]);
        // What exceeds the stored size is not part of the message.
        talk.client("c\r\n.\r\n").server("250 ok\r\n");
        assert_eq!(talk.verdicts().0, all(1, "delivered 250 ok"));
    });
}

#[test]
fn a_mail_that_vanishes_is_never_ended_by_a_dot() {
    dialogue(&plain(), |talk| {
        data(talk, long(9));
        talk.client("head").supply("");
        let (verdicts, rest) = talk.client("").verdicts();
        assert_eq!(verdicts, all(1, "undecided"));
        let [SessionOutput::Ended(end)] = rest.as_slice() else { panic!("{rest:?}") };
        assert!(matches!(end.cause, EndCause::Local(_)) && end.phase == Phase::MailData);
    });
}

#[test]
fn data_that_was_not_asked_for_is_not_sent() {
    dialogue(&plain(), |talk| {
        talk.make_ready("");
        talk.supply(&b"x"[..]);
        talk.supply("");
        talk.client("").begin(mail(1, "y"));
        talk.client(MAIL).server("250 ok\r\n").transmit();
        talk.server("250 ok\r\n").client("DATA\r\n").server("354 go\r\n");
        talk.supply(&b"x"[..]);
        talk.client("y\r\n.\r\n");
    });
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_after_three_minutes() {
    // RFC 5321 section 4.5.3.2.5
    let mut talk = Talk::new(plain(), usize::MAX);
    data(&mut talk, mail(1, "four"));
    talk.pass(179);
    assert!(talk.session.poll_transmit(talk.now, 2, &mut BytesMut::new()));
    talk.pass(179);
    assert_eq!(talk.session.phase(), Phase::MailData);
    talk.pass(1);
    assert_eq!(talk.verdicts().0, all(1, "undecided"));
}

#[test]
fn a_peer_that_takes_an_octet_a_minute_is_given_up_in_the_end() {
    let mut talk = Talk::new(plain(), usize::MAX);
    data(&mut talk, mail(1, "a short message"));
    for _ in 0..9 {
        assert!(talk.session.poll_transmit(talk.now, 1, &mut BytesMut::new()));
        talk.pass(60);
    }
    assert_eq!(talk.session.phase(), Phase::MailData);
    talk.pass(60);
    assert_eq!(talk.verdicts().0, all(1, "undecided"));
}

#[test]
fn a_long_message_has_more_time_as_a_whole() {
    let mut talk = Talk::new(plain(), usize::MAX);
    data(&mut talk, mail(1, "x"));
    let short = talk.session.deadline.unwrap().saturating_duration_since(talk.now);
    let mut talk = Talk::new(plain(), usize::MAX);
    data(&mut talk, long(1024 * 1024));
    let long = talk.session.deadline.unwrap().saturating_duration_since(talk.now);
    assert_eq!(long, short + Duration::from_secs(1024));
}

#[test]
fn a_slow_store_is_not_the_fault_of_the_peer() {
    let mut talk = Talk::new(plain(), usize::MAX);
    data(&mut talk, long(9));
    talk.client("head").pass(500);
    assert_eq!(talk.session.phase(), Phase::MailData);
    talk.supply(&b"tail"[..]);
    talk.pass(99);
    assert_eq!(talk.session.phase(), Phase::MailData);
    let mut talk = Talk::new(plain(), usize::MAX);
    data(&mut talk, long(9));
    talk.client("head").pass(600);
    let (_, rest) = talk.verdicts();
    let [SessionOutput::Ended(end)] = rest.as_slice() else { panic!("{rest:?}") };
    assert!(matches!(end.cause, EndCause::Local(_)), "{end:?}");
}

#[test]
fn each_recipient_has_its_five_minutes() {
    // RFC 5321 section 4.5.3.2.3
    let mut talk = Talk::new(plain(), usize::MAX);
    open(&mut talk, mail(3, "x"));
    for _ in 0..2 {
        talk.pass(299).server("250 ok\r\n").transmit();
    }
    assert_eq!(talk.session.phase(), Phase::Rcpt);
    talk.pass(300);
    assert_eq!(talk.verdicts().0.len(), 3);
}

#[test]
fn quit_lets_a_running_transaction_finish() {
    dialogue(&plain(), |talk| {
        open(talk, mail(1, "x"));
        talk.quit();
        talk.server("250 ok\r\n").client("DATA\r\n").server("354 go\r\n").client("x\r\n.\r\n");
        talk.server("250 ok\r\n").client("QUIT\r\n");
        assert_eq!(talk.verdicts(), (all(1, "delivered 250 ok"), Vec::new()));
        assert_eq!(talk.server("221 bye\r\n").end().cause, EndCause::Quit);
    });
}

#[test]
fn a_transaction_at_the_wrong_time_comes_back_undecided() {
    dialogue(&plain(), |talk| {
        talk.begin(mail(1, "x")).client("");
        assert_eq!(talk.verdicts(), (all(1, "undecided"), Vec::new()));
        // The end is not yet told: it stays the last output.
        talk.closed().begin(mail(1, "x"));
        let (verdicts, rest) = talk.verdicts();
        assert_eq!(verdicts, all(1, "undecided"));
        assert!(matches!(rest.as_slice(), [SessionOutput::Ended(_)]));
        assert!(talk.begin(mail(1, "x")).outputs().is_empty());
    });
}

#[test]
fn a_trace_shows_all_that_is_said() {
    let config = SessionConfig { trace: true, ..plain() };
    let mut talk = Talk::new(config, usize::MAX);
    talk.server("220 mx\r\n").transmit();
    talk.server("250 mx\r\n").begin(mail(1, ".")).transmit();
    talk.server("250 ok\r\n").transmit();
    talk.server("250 ok\r\n").transmit();
    talk.server("354 go\r\n").transmit();
    let (mut sent, mut received) = (BytesMut::new(), BytesMut::new());
    for output in talk.outputs() {
        if let SessionOutput::Sent(octets) | SessionOutput::SentData(octets) = &output {
            sent.extend_from_slice(octets);
        } else if let SessionOutput::Received(octets) = &output {
            received.extend_from_slice(octets);
        } else {
            assert_eq!(output, SessionOutput::Ready);
        }
    }
    let expected = "EHLO client.example.org\r\nMAIL FROM:<s@example.org>\r\nRCPT TO:<r1@example.net>\r\nDATA\r\n\
                    ..\r\n.\r\n";
    assert_eq!(sent, expected);
    assert_eq!(received, "220 mx\r\n250 mx\r\n250 ok\r\n250 ok\r\n354 go\r\n");
}
