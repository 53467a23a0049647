//! Commands in batches (RFC 2920): one message at a time.

use super::*;

#[test]
fn the_commands_of_a_transaction_are_one_batch_where_the_server_offers_that() {
    // RFC 2920 section 3.1
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(2, "x"));
        talk.client(
            "MAIL FROM:<s@example.org>\r\nRCPT TO:<r1@example.net>\r\nRCPT TO:<r2@example.net>\r\nDATA\r\n",
        );
        talk.server("250 ok\r\n550 who?\r\n250 ok\r\n").client("").server("354 go\r\n").client("x\r\n.\r\n");
        assert_eq!(talk.outputs(), ready(), "the next one may follow directly");
        let expected = [one(1, "fatal 550 who? RCPT TO"), one(2, "delivered 250 taken")].concat();
        assert_eq!(talk.server("250 taken\r\n").verdicts(), (expected, Vec::new()));
    });
}

#[test]
fn a_server_that_offers_nothing_or_is_not_trusted_gets_one_command_at_a_time() {
    let cautious = SessionConfig { no_pipelining: true, ..plain() };
    for (config, extensions) in
        [(plain(), ""), (plain(), "PIPELININGS CHUNKING"), (cautious, "PIPELINING CHUNKING")]
    {
        dialogue(&config, |talk| {
            talk.make_ready(extensions);
            talk.begin(mail(1, "x")).client("MAIL FROM:<s@example.org>\r\n");
            talk.server("250 ok\r\n").client("RCPT TO:<r1@example.net>\r\n");
            talk.server("250 ok\r\n").client("DATA\r\n").server("354 go\r\n").client("x\r\n.\r\n");
            assert!(talk.outputs().is_empty());
            assert_eq!(talk.server("250 taken\r\n").verdicts(), (all(1, "delivered 250 taken"), ready()));
        });
    }
}

#[test]
fn what_was_offered_before_tls_does_not_count() {
    // RFC 3207 section 4.2
    dialogue(&config(TlsMode::StartTls), |talk| {
        talk.server("220 mx\r\n").client("EHLO client.example.org\r\n");
        talk.server("250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n").client("STARTTLS\r\n");
        talk.server("220 go\r\n").tls(true).client("EHLO client.example.org\r\n").server("250 mx\r\n");
        talk.begin(mail(1, "x")).client("MAIL FROM:<s@example.org>\r\n");
    });
}

#[test]
fn the_next_batch_follows_the_final_dot() {
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(1, "x")).client(BATCH).server("250 ok\r\n250 ok\r\n354 go\r\n").client("x\r\n.\r\n");
        assert_eq!(talk.outputs(), ready());
        talk.begin(next_mail(2, "y")).client(BATCH);
        // The replies come in the order of the commands, each to its own message.
        talk.server("451 full\r\n");
        assert_eq!(talk.verdicts(), (one(1, "failed 451 full end of data"), Vec::new()));
        talk.server("250 ok\r\n250 ok\r\n354 go\r\n").client("y\r\n.\r\n").server("250 taken\r\n");
        assert_eq!(talk.outputs().first(), Some(&SessionOutput::Ready));
    });
}

#[test]
fn data_that_was_sent_in_advance_for_nobody_is_ended_by_a_lone_dot() {
    // RFC 2920 section 3.1
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(1, "x")).client(BATCH).server("250 ok\r\n550 who?\r\n354 go\r\n").client(".\r\n");
        talk.server("250 an empty message for nobody\r\n").client("");
        assert_eq!(verdicts_of(talk.outputs()), [one(1, "fatal 550 who? RCPT TO")]);
    });
}

#[test]
fn a_refused_command_of_a_batch_is_judged_as_if_it_were_alone() {
    let replies = [
        // The reply to RCPT and DATA after a refused MAIL says nothing about the mail.
        ("550 no\r\n503 MAIL first\r\n503 RCPT first\r\n", "", "fatal 550 no MAIL FROM"),
        ("450 no\r\n503 MAIL first\r\n554 RCPT first\r\n", "", "NotNow 450 no MAIL FROM"),
        ("250 ok\r\n450 later\r\n503 RCPT first\r\n", "RSET\r\n", "failed 450 later RCPT TO"),
        ("250 ok\r\n250 ok\r\n554 no\r\n", "RSET\r\n", "fatal 554 no DATA"),
    ];
    for (replies, then, expected) in replies {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING");
            talk.begin(mail(1, "x")).client(BATCH).server(replies);
            if then.is_empty() {
                assert_eq!(talk.verdicts(), (all(1, expected), ready()));
                talk.begin(next_mail(2, "x")).client(BATCH);
            } else {
                // Behind RSET the next batch may follow at once.
                assert_eq!(talk.outputs(), ready());
                talk.begin(next_mail(2, "x")).client(&(then.to_string() + BATCH));
                assert_eq!(talk.server("250 ok\r\n").verdicts().0, all(1, expected));
            }
        });
    }
}

#[test]
fn a_server_that_cannot_follow_a_batch_gets_the_mail_again_command_by_command() {
    for replies in ["503 slowly\r\n503 slowly\r\n503 slowly\r\n", "250 ok\r\n500 what\r\n503 RCPT first\r\n"]
    {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING");
            talk.begin(mail(1, "x")).client(BATCH).server(replies);
            if !talk.transmit().is_empty() {
                talk.server("250 ok\r\n");
            }
            assert_eq!(talk.verdicts(), (all(1, "undecided"), ready()));
            talk.begin(mail(1, "x")).client("MAIL FROM:<s@example.org>\r\n");
            // Now it is said to a single command, if on a connection that has seen better.
            talk.server("503 no\r\n").client("");
            assert_eq!(talk.verdicts(), (all(1, "OutOfStep 503 no MAIL FROM"), ready()));
            talk.quit().client("QUIT\r\n").closed();
            assert!(talk.end().no_pipelining);
        });
    }
}

#[test]
fn no_room_for_a_recipient_in_a_batch_leaves_only_that_one_to_the_next_transaction() {
    // RFC 5321 section 4.5.3.1.10
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(4, "x"));
        talk.transmit();
        talk.server("250 ok\r\n250 ok\r\n452 full\r\n250 ok\r\n552 full\r\n354 go\r\n");
        talk.client("x\r\n.\r\n").server("250 ok\r\n");
        let expected = [(1, "delivered 250 ok"), (2, "undecided"), (3, "delivered 250 ok"), (4, "undecided")];
        assert_eq!(verdicts_of(talk.outputs()), [expected.map(|(id, word)| (id, word.to_string()))]);
    });
}

#[test]
fn only_what_was_sent_whole_is_uncertain() {
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(1, "x")).client(BATCH).server("250 ok\r\n250 ok\r\n354 go\r\n").client("x\r\n.\r\n");
        assert_eq!(talk.outputs(), ready());
        talk.begin(next_mail(2, "y")).client(BATCH).closed();
        let outputs = talk.outputs();
        let [SessionOutput::Verdicts(first), SessionOutput::Verdicts(second), SessionOutput::Ended(end)] =
            outputs.as_slice()
        else {
            panic!("{outputs:?}")
        };
        assert!(word(&first[0].1).contains("uncertain: "));
        assert_eq!((word(&second[0].1), end.no_pipelining), ("undecided".into(), false));
    });
}

#[test]
fn a_server_that_answers_only_the_beginning_of_a_batch_is_not_trusted_with_one_again() {
    for (reply, no_pipelining) in [("250 ok\r\n", true), ("", false)] {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING");
            talk.begin(mail(1, "x")).client(BATCH).server(reply).pass(300);
            assert_eq!(talk.end().no_pipelining, no_pipelining);
        });
    }
}

#[test]
fn each_reply_to_a_batch_has_its_own_time() {
    // RFC 5321 section 4.5.3.2
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(1, "x")).client(BATCH);
        for (reply, phase, seconds) in
            [("", Phase::Mail, 300), ("250 ok\r\n", Phase::Rcpt, 300), ("250 ok\r\n", Phase::Data, 120)]
        {
            talk.server(reply);
            assert_eq!(talk.session.poll_timeout(), Some((talk.now + Duration::from_secs(seconds), phase)));
            talk.pass(seconds - 1);
        }
        talk.server("354 go\r\n").client("x\r\n.\r\n");
        assert_eq!(talk.session.phase(), Phase::EndOfData);
    });
}

#[test]
fn quit_waits_for_all_that_is_under_way() {
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(1, "x")).client(BATCH).server("250 ok\r\n250 ok\r\n354 go\r\n").client("x\r\n.\r\n");
        assert_eq!(talk.outputs(), ready());
        talk.quit().client("").begin(next_mail(2, "x")).client("");
        assert_eq!(talk.verdicts(), (one(2, "undecided"), Vec::new()));
        talk.server("250 taken\r\n").client("QUIT\r\n");
        assert_eq!(talk.verdicts(), (all(1, "delivered 250 taken"), Vec::new()));
    });
}

#[test]
fn a_server_that_refuses_padding_gets_one_command_at_a_time() {
    dialogue(&SessionConfig { padding_limit: 1000, ..config(TlsMode::Implicit) }, |talk| {
        talk.tls(true).server("220 mx\r\n").client("EHLO client.example.org\r\n");
        talk.server("250-mx\r\n250 PIPELINING\r\n");
        assert!(!talk.transmit().is_empty(), "padding");
        talk.server("502 no\r\n").begin(mail(1, "x")).client("MAIL FROM:<s@example.org>\r\n");
    });
}

#[test]
fn a_refusal_for_a_reason_of_policy_is_a_verdict_whatever_its_code() {
    // RFC 3463 section 3.8
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(1, "x")).client(BATCH);
        talk.server("250 2.1.0 ok\r\n503 5.7.1 relaying denied\r\n503 5.5.1 RCPT first\r\n");
        assert_eq!(talk.outputs(), ready());
        talk.client("RSET\r\n").server("250 ok\r\n");
        assert_eq!(talk.verdicts().0, all(1, "fatal 503 5.7.1 relaying denied RCPT TO"));
    });
}
