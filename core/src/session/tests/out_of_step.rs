//! Servers whose replies do not fit the commands: one too many, one in the wrong place, one at the wrong time.

use super::*;

/// Two recipients in one batch.
const BATCH_OF_TWO: &str =
    "MAIL FROM:<s@example.org>\r\nRCPT TO:<r1@example.net>\r\nRCPT TO:<r2@example.net>\r\nDATA\r\n";

/// Up to the final dot of a first message, mail 9, with the envelope of a second behind it: mails 1 and 2.
fn send_ahead(talk: &mut Talk) {
    talk.make_ready("PIPELINING");
    talk.begin(next_mail(9, "x")).client(BATCH).server("250 ok\r\n250 ok\r\n354 go\r\n").client("x\r\n.\r\n");
    assert_eq!(talk.outputs(), ready());
    talk.begin(mail(2, "y")).client(BATCH_OF_TWO);
}

/// The same without PIPELINING, and without another message.
fn send_alone(talk: &mut Talk, text: &'static str) {
    talk.make_ready("");
    talk.begin(mail(1, text)).client("MAIL FROM:<s@example.org>\r\n").server("250 ok\r\n");
    talk.client("RCPT TO:<r1@example.net>\r\n").server("250 ok\r\n").client("DATA\r\n").server("354 go\r\n");
}

#[test]
fn one_reply_too_many_to_a_message_counts_for_no_other() {
    for (reply, word) in [("250 taken", "delivered 250 taken"), ("550 spam", "fatal 550 spam end of data")] {
        dialogue(&plain(), |talk| {
            send_ahead(talk);
            talk.server(&alloc::format!("{reply}\r\n"));
            assert_eq!(talk.verdicts(), (one(9, word), Vec::new()));
            // It stands in the place of that to MAIL, and those behind it are shifted too: that to DATA shows it. The refusal of
            // the first recipient came in the place of the second.
            talk.server("250 once more\r\n250 MAIL\r\n550 RCPT 1\r\n250 RCPT 2\r\n").client("");
            let (verdicts, rest) = talk.verdicts();
            assert_eq!(verdicts, all(2, "undecided"));
            let [SessionOutput::Ended(end)] = rest.as_slice() else { panic!("{rest:?}") };
            assert_eq!(out_of_step(end), "the server cannot answer DATA by this: 250 RCPT 2");
            assert!(end.no_pipelining, "it gets one command at a time");
        });
    }
}

#[test]
fn shifted_refusals_of_all_recipients_are_not_believed() {
    // RSET is the checkpoint where DATA is not accepted.
    dialogue(&plain(), |talk| {
        send_ahead(talk);
        talk.server("250 taken\r\n250 once more\r\n250 MAIL\r\n550 RCPT 1\r\n450 RCPT 2\r\n");
        assert_eq!(verdicts_of(talk.outputs()), [one(9, "delivered 250 taken")]);
        talk.client("RSET\r\n").server("503 DATA\r\n").client("");
        assert_eq!(talk.verdicts().0, all(2, "undecided"));
    });
}

#[test]
fn one_reply_too_many_without_pipelining_is_not_taken_for_another() {
    // In time, it is an unasked one; too late, that to DATA shows it.
    for is_late in [false, true] {
        dialogue(&plain(), |talk| {
            send_alone(talk, "x");
            talk.client("x\r\n.\r\n").server("550 spam\r\n");
            assert_eq!(talk.verdicts(), (all(1, "fatal 550 spam end of data"), ready()));
            if is_late {
                talk.begin(next_mail(2, "y"))
                    .client("MAIL FROM:<s@example.org>\r\n")
                    .server("250 once more\r\n");
                talk.client("RCPT TO:<r1@example.net>\r\n").server("250 MAIL\r\n").client("DATA\r\n");
                talk.server("250 RCPT\r\n").client("");
                assert_eq!(talk.verdicts().0, one(2, "undecided"));
            } else {
                assert!(!talk.server("250 once more\r\n").end().no_pipelining);
            }
            assert_eq!(talk.session.phase(), Phase::Ended);
        });
    }
}

#[test]
fn a_3yz_in_the_wrong_place_leaves_an_envelope_undecided() {
    for replies in ["354 what\r\n", "250 ok\r\n354 what\r\n", "250 ok\r\n550 no\r\n354 what\r\n"] {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING");
            talk.begin(mail(2, "x")).client(BATCH_OF_TWO).server(replies).client("");
            assert_eq!(talk.verdicts().0, all(2, "undecided"));
            assert_eq!(talk.session.phase(), Phase::Ended);
        });
    }
}

#[test]
fn a_message_is_uncertain_when_the_replies_are_out_of_step_before_its_verdict() {
    dialogue(&plain(), |talk| {
        send_ahead(talk);
        talk.server("354 what\r\n250 taken\r\n").client("");
        let [first, second] = verdicts_of(talk.outputs()).try_into().unwrap();
        assert!(first[0].1.contains("uncertain: "), "{first:?}");
        assert_eq!(second, all(2, "undecided"));
    });
}

/// What the server says after it has refused in the middle of the message, and what becomes of the mail then.
const LAST_WORDS: [(&str, &str); 6] = [
    ("250 taken\r\n221 bye\r\n", "delivered 250 taken"),
    ("500 what?\r\n250 taken\r\n221 bye\r\n", "delivered 250 taken"),
    ("451 later\r\n221 bye\r\n", "failed 451 later end of data"),
    ("421 bye\r\n", "ClosingAtEnd 421 bye end of data"),
    ("221 bye\r\n", "fatal 500 what?"),
    ("", "fatal 500 what?"),
];

#[test]
fn after_a_refusal_in_the_middle_of_a_message_success_may_still_come() {
    for (words, expected) in LAST_WORDS {
        dialogue(&plain(), |talk| {
            send_alone(talk, "some octets\n");
            let mut octets = BytesMut::new();
            assert!(talk.session.poll_transmit(talk.now, 4, &mut octets));
            talk.server("500 what?\r\n").client(" octets\r\n.\r\nQUIT\r\n");
            assert_eq!(talk.outputs(), []);
            assert_eq!(talk.session.phase(), Phase::EndOfData, "it has the time of a message");
            talk.begin(next_mail(2, "y")).client("");
            assert_eq!(talk.verdicts().0, one(2, "undecided"), "no further transaction begins");
            talk.server(words).closed();
            let (verdicts, rest) = talk.verdicts();
            assert!(verdicts[0].1.starts_with(expected), "{verdicts:?}");
            assert!(matches!(rest.as_slice(), [SessionOutput::Ended(_)]), "{rest:?}");
        });
    }
}

#[test]
fn a_message_that_is_refused_in_its_middle_and_never_sent_whole_is_refused() {
    dialogue(&plain(), |talk| {
        send_alone(talk, "some octets\n");
        let mut octets = BytesMut::new();
        assert!(talk.session.poll_transmit(talk.now, 4, &mut octets));
        talk.server("552 too big\r\n").closed();
        assert_eq!(talk.verdicts().0, all(1, "fatal 552 too big mail data"));
    });
}

#[test]
fn after_a_confused_refusal_of_a_whole_message_success_may_still_come() {
    for code in [500, 501, 504] {
        for (words, expected) in LAST_WORDS {
            dialogue(&plain(), |talk| {
                send_alone(talk, "x");
                talk.client("x\r\n.\r\n").server(&alloc::format!("{code} what?\r\n")).client("QUIT\r\n");
                talk.server(words).closed();
                let (verdicts, _) = talk.verdicts();
                let expected = expected.replace("500", &code.to_string());
                assert!(verdicts[0].1.starts_with(&expected), "{verdicts:?}");
            });
        }
    }
    dialogue(&plain(), |talk| {
        send_alone(talk, "x");
        talk.client("x\r\n.\r\n").server("505 spam\r\n");
        assert_eq!(talk.verdicts(), (all(1, "fatal 505 spam end of data"), ready()));
    });
}

#[test]
fn what_was_sent_ahead_of_a_confused_refusal_tells_whether_it_was_one_too_many() {
    let cases = [
        // 354 in its place: it was the verdict.
        ("250 MAIL\r\n250 RCPT 1\r\n550 RCPT 2\r\n354 go\r\n", "fatal 500 what? end of data"),
        // One behind its place: what came in place of that to MAIL may have been the verdict.
        ("250 taken\r\n250 MAIL\r\n250 RCPT 1\r\n250 RCPT 2\r\n", "uncertain: "),
        ("250 taken\r\n250 MAIL\r\n550 RCPT 1\r\n550 RCPT 2\r\n", "uncertain: "),
        ("250 MAIL\r\n", "uncertain: "),
        // No success that it could have been.
        ("503 no\r\n", "fatal 500 what? end of data"),
    ];
    for (replies, expected) in cases {
        dialogue(&plain(), |talk| {
            send_ahead(talk);
            talk.server("500 what?\r\n").client("").server(replies).client("").closed();
            let verdicts = verdicts_of(talk.outputs());
            assert!(verdicts[0][0].1.contains(expected), "{replies}: {verdicts:?}");
            assert!(!verdicts[1].iter().any(|(_, word)| word.contains("delivered")), "{verdicts:?}");
            assert_eq!(talk.session.phase(), Phase::Ended);
        });
    }
    // If all that was sent ahead is refused, QUIT can be sent, and success may still come.
    dialogue(&plain(), |talk| {
        send_ahead(talk);
        talk.server("500 what?\r\n503 no\r\n503 no\r\n503 no\r\n503 no\r\n").client("QUIT\r\n");
        talk.server("250 taken\r\n221 bye\r\n");
        assert_eq!(verdicts_of(talk.outputs()), [all(2, "undecided"), one(9, "delivered 250 taken")]);
    });
}
