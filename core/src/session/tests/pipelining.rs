//! Commands in batches (RFC 2920) and messages as chunks (RFC 3030).

use super::*;

const BATCH: &str = "MAIL FROM:<s@example.org>\r\nRCPT TO:<r1@example.net>\r\nDATA\r\n";
const CHUNK: &str = "MAIL FROM:<s@example.org>\r\nRCPT TO:<r1@example.net>\r\nBDAT 3 LAST\r\nx\r\n";

/// A message whose recipients have other ids than those of the one before.
fn next_mail(first: i64, data: &'static str) -> Transaction {
    let mut transaction = mail(1, data);
    transaction.recipients[0].0 = MailId(first);
    transaction
}

fn ready() -> Vec<SessionOutput> {
    [SessionOutput::Ready].into()
}

fn one(id: i64, word: &str) -> Vec<(i64, String)> {
    [(id, word.to_string())].into()
}

/// The verdicts of each transaction, without what else was said.
fn verdicts_of(outputs: Vec<SessionOutput>) -> Vec<Vec<(i64, String)>> {
    let verdicts = |output| {
        let SessionOutput::Verdicts(verdicts) = output else { return None };
        Some(verdicts.iter().map(|(id, outcome)| (id.0, word(outcome))).collect())
    };
    outputs.into_iter().filter_map(verdicts).collect()
}

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
    let cautious = SessionConfig { cautious: true, ..plain() };
    for (config, extensions) in
        [(plain(), ""), (plain(), "CHUNKINGS PIPELININGS"), (cautious, "PIPELINING CHUNKING")]
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
        ("450 no\r\n503 MAIL first\r\n554 RCPT first\r\n", "", "failed 450 no MAIL FROM"),
        ("250 ok\r\n450 later\r\n503 RCPT first\r\n", "RSET\r\n", "failed 450 later RCPT TO"),
        ("250 ok\r\n250 ok\r\n452 full\r\n", "RSET\r\n", "failed 452 full DATA"),
        ("250 ok\r\n250 ok\r\n554 no\r\n", "RSET\r\n", "fatal 554 no DATA"),
    ];
    for (replies, then, expected) in replies {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING");
            talk.begin(mail(1, "x")).client(BATCH).server(replies);
            // Behind RSET the next batch may follow at once.
            assert_eq!(talk.verdicts(), (all(1, expected), ready()));
            talk.client(then);
            if !then.is_empty() {
                assert_eq!(talk.server("250 ok\r\n").outputs(), []);
            }
            talk.begin(next_mail(2, "x")).client(BATCH);
        });
    }
}

#[test]
fn a_server_that_cannot_follow_a_batch_gets_the_mail_again_command_by_command() {
    for replies in ["503 slowly\r\n503 slowly\r\n503 slowly\r\n", "250 ok\r\n500 what\r\n503 RCPT first\r\n"]
    {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING CHUNKING");
            talk.begin(mail(1, "x")).client(CHUNK).server(replies);
            let (verdicts, rest) = talk.verdicts();
            assert_eq!(verdicts, all(1, "undecided"));
            if rest.is_empty() {
                talk.client("RSET\r\n").server("250 ok\r\n");
                assert_eq!(talk.outputs(), ready());
            }
            talk.begin(mail(1, "x")).client("MAIL FROM:<s@example.org>\r\n");
            talk.server("503 no\r\n").client("");
            assert_eq!(talk.verdicts(), (all(1, "fatal 503 no MAIL FROM"), ready()));
            talk.quit().client("QUIT\r\n").closed();
            assert!(talk.end().needs_caution);
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
        let expected = [(2, "undecided"), (4, "undecided"), (1, "delivered 250 ok"), (3, "delivered 250 ok")];
        assert_eq!(verdicts_of(talk.outputs()), [expected.map(|(id, word)| (id, word.to_string()))]);
    });
}

#[test]
fn a_short_message_goes_with_its_envelope_as_one_chunk() {
    // RFC 3030 section 2: no dots are doubled, and the length counts what is sent.
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING CHUNKING SIZE");
        talk.begin(mail(1, ".\n..x\r"));
        talk.client(
            "MAIL FROM:<s@example.org> SIZE=8\r\nRCPT TO:<r1@example.net>\r\nBDAT 8 LAST\r\n.\r\n..x\r\n",
        );
        assert!(talk.session.awaits_final_reply());
        talk.server("250 ok\r\n250 ok\r\n250 taken\r\n").client("");
        assert_eq!(talk.verdicts(), (all(1, "delivered 250 taken"), ready()));
    });
}

#[test]
fn without_pipelining_a_chunk_waits_for_the_replies_to_its_envelope() {
    dialogue(&plain(), |talk| {
        talk.make_ready("CHUNKING");
        talk.begin(mail(2, "x")).client("MAIL FROM:<s@example.org>\r\n").server("250 ok\r\n");
        talk.client("RCPT TO:<r1@example.net>\r\n")
            .server("550 no\r\n")
            .client("RCPT TO:<r2@example.net>\r\n");
        talk.server("250 ok\r\n").client("BDAT 3 LAST\r\nx\r\n").server("250 ok\r\n").client("");
        let expected = [one(1, "fatal 550 no RCPT TO"), one(2, "delivered 250 ok")].concat();
        assert_eq!(talk.verdicts(), (expected, ready()));
        talk.begin(next_mail(3, "x")).client("MAIL FROM:<s@example.org>\r\n").server("250 ok\r\n");
        talk.client("RCPT TO:<r1@example.net>\r\n").server("550 no\r\n").client("RSET\r\n");
    });
}

#[test]
fn a_message_that_is_not_here_as_a_whole_goes_behind_data() {
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING CHUNKING");
        let transaction = Transaction { data_octets: 6, ..mail(1, "abc") };
        talk.begin(transaction).client(BATCH).server("250 ok\r\n250 ok\r\n354 go\r\n").client("abc");
        talk.supply("def").client("def\r\n.\r\n");
    });
}

#[test]
fn chunks_overlap_when_the_server_has_taken_one_with_rset_in_between() {
    // RFC 3030 section 2: after a refused chunk the transaction may be open still.
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING CHUNKING");
        talk.begin(mail(1, "x")).client(CHUNK);
        assert_eq!(talk.outputs(), [], "whether it takes chunks is not known yet");
        talk.server("250 ok\r\n250 ok\r\n250 taken\r\n");
        assert_eq!(talk.verdicts(), (all(1, "delivered 250 taken"), ready()));
        talk.begin(next_mail(2, "x")).client(CHUNK);
        assert_eq!(talk.outputs(), ready());
        talk.begin(next_mail(3, "x")).client(&("RSET\r\n".to_string() + CHUNK));
        assert_eq!(talk.outputs(), [], "not more than were taken");
        // The second is refused before its chunk: the replies to the third are its own.
        talk.server("250 ok\r\n550 who?\r\n554 no recipients\r\n");
        assert_eq!(talk.verdicts().0, one(2, "fatal 550 who? RCPT TO"));
        talk.server("250 reset\r\n250 ok\r\n250 ok\r\n250 taken\r\n").client("");
        assert_eq!(talk.verdicts().0, one(3, "delivered 250 taken"));
    });
}

#[test]
fn a_refused_chunk_leaves_the_transaction_open() {
    // RFC 3030 section 2
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING CHUNKING");
        talk.begin(mail(1, "x")).client(CHUNK).server("250 ok\r\n250 ok\r\n554 spam\r\n").client("RSET\r\n");
        assert_eq!(talk.verdicts().0, all(1, "fatal 554 spam end of data"));
    });
}

#[test]
fn a_server_that_does_not_take_the_chunks_it_offers_is_left() {
    // What it has made of the octets of the message is not known.
    for reply in ["500 what?", "502 not here", "503 not now"] {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING CHUNKING");
            talk.begin(mail(1, "x")).client(CHUNK);
            talk.server("250 ok\r\n250 ok\r\n").server(&(reply.to_string() + "\r\n")).client("");
            let (verdicts, rest) = talk.verdicts();
            assert_eq!(verdicts, all(1, "undecided"));
            let [SessionOutput::Ended(end)] = rest.as_slice() else { panic!("{rest:?}") };
            assert!(end.needs_caution);
            assert_eq!(
                lost(end),
                alloc::format!("the server offers CHUNKING, but does not take BDAT: {reply}")
            );
        });
    }
}

#[test]
fn a_message_that_was_sent_is_uncertain_if_the_connection_is_lost_when_it_is_its_turn() {
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING CHUNKING");
        talk.begin(mail(1, "x")).client(CHUNK).server("250 ok\r\n250 ok\r\n250 taken\r\n");
        talk.outputs();
        talk.begin(next_mail(2, "x")).client(CHUNK);
        talk.outputs();
        talk.begin(next_mail(3, "x")).client(&("RSET\r\n".to_string() + CHUNK));
        talk.server("250 ok\r\n250 ok\r\n").closed();
        let outputs = talk.outputs();
        let [SessionOutput::Verdicts(second), SessionOutput::Verdicts(third), SessionOutput::Ended(end)] =
            outputs.as_slice()
        else {
            panic!("{outputs:?}")
        };
        assert!(word(&second[0].1).contains("delivery uncertain"), "{second:?}");
        assert_eq!(word(&third[0].1), "undecided", "the server did not get to its envelope");
        assert!(end.needs_caution, "so much at once is not risked again");
    });
}

#[test]
fn a_chunk_is_not_uncertain_if_the_connection_is_lost_at_its_envelope() {
    for replies in ["", "250 ok\r\n"] {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING CHUNKING");
            talk.begin(mail(1, "x")).client(CHUNK).server(replies).closed();
            let (verdicts, rest) = talk.verdicts();
            assert_eq!(verdicts, all(1, "undecided"));
            let [SessionOutput::Ended(end)] = rest.as_slice() else { panic!("{rest:?}") };
            assert!(!end.needs_caution, "who dies without progress is not tried again in the pass");
        });
    }
}

#[test]
fn a_chunk_is_uncertain_if_the_server_is_left_at_its_envelope() {
    // It may only be slow.
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING CHUNKING");
        talk.begin(mail(1, "x")).client(CHUNK);
        talk.pass(301);
        let verdicts = talk.verdicts().0;
        assert!(alloc::format!("{verdicts:?}").contains("delivery uncertain"), "{verdicts:?}");
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
        assert!(word(&first[0].1).contains("delivery uncertain"));
        assert_eq!((word(&second[0].1), end.needs_caution), ("undecided".into(), false));
    });
}

#[test]
fn after_421_nothing_that_was_sent_behind_is_taken() {
    // RFC 5321 section 3.8
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING CHUNKING");
        talk.begin(mail(1, "x")).client(CHUNK).server("250 ok\r\n250 ok\r\n250 taken\r\n");
        talk.outputs();
        talk.begin(next_mail(2, "x")).client(CHUNK);
        talk.outputs();
        talk.begin(next_mail(3, "x")).client(&("RSET\r\n".to_string() + CHUNK));
        talk.server("250 ok\r\n250 ok\r\n250 taken\r\n250 reset\r\n421 enough\r\n").client("");
        let outputs = talk.outputs();
        let Some(SessionOutput::Ended(end)) = outputs.last().cloned() else { panic!("{outputs:?}") };
        assert_eq!(verdicts_of(outputs), [one(2, "delivered 250 taken"), one(3, "undecided")]);
        assert_eq!((reply_text(&end.cause), end.needs_caution), ("421 enough MAIL FROM".into(), false));
    });
}

#[test]
fn a_server_that_answers_only_the_beginning_of_a_batch_is_not_trusted_with_one_again() {
    for (reply, needs_caution) in [("250 ok\r\n", true), ("", false)] {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING");
            talk.begin(mail(1, "x")).client(BATCH).server(reply).pass(300);
            assert_eq!(talk.end().needs_caution, needs_caution);
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
fn a_reply_before_a_chunk_is_sent_ends_the_session() {
    for (reply, expected) in [("451 no\r\n", "failed 451 no mail data"), ("250 ok\r\n", "undecided")] {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING CHUNKING");
            talk.begin(mail(1, "a message that is longer than the rest"));
            let mut octets = BytesMut::new();
            while !octets.ends_with(b"LAST\r\n") {
                assert!(talk.session.poll_transmit(talk.now, 10, &mut octets));
            }
            assert!(talk.session.poll_transmit(talk.now, 10, &mut octets));
            talk.server("250 ok\r\n250 ok\r\n").server(reply);
            assert_eq!(talk.verdicts().0, all(1, expected));
        });
    }
}

#[test]
fn an_empty_message_goes_behind_data() {
    // As a chunk it would be sent when its length is, without a moment in which it is not.
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING CHUNKING");
        talk.begin(mail(1, "")).client(BATCH).server("250 ok\r\n250 ok\r\n354 go\r\n").client(".\r\n");
        talk.server("250 taken\r\n");
        assert_eq!(verdicts_of(talk.outputs()), [all(1, "delivered 250 taken")]);
    });
}

/// Hands out the transaction up to the line of BDAT, and so many octets of the chunk.
fn send_to_bdat(talk: &mut Talk, chunk: usize) {
    let mut octets = BytesMut::new();
    while !octets.ends_with(b"LAST\r\n") {
        assert!(talk.session.poll_transmit(talk.now, 1, &mut octets));
    }
    for _ in 0..chunk {
        assert!(talk.session.poll_transmit(talk.now, 1, &mut octets));
    }
}

#[test]
fn nothing_of_a_chunk_is_sent_while_a_reply_comes_in_that_could_be_taken_to_answer_it() {
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING CHUNKING");
        talk.begin(mail(1, "x"));
        send_to_bdat(talk, 0);
        talk.server("250 ok\r\n250 ok\r\n25").client("").server("0 taken\r\n");
        assert_eq!(talk.verdicts().0, all(1, "undecided"));
    });
}

#[test]
fn a_refusal_before_bdat_is_sent_is_none_of_the_message() {
    dialogue(&plain(), |talk| {
        talk.make_ready("CHUNKING");
        talk.begin(mail(1, "x")).client("MAIL FROM:<s@example.org>\r\n").server("250 ok\r\n");
        talk.client("RCPT TO:<r1@example.net>\r\n").server("250 ok\r\n550 who?\r\n");
        let (verdicts, _) = talk.verdicts();
        assert_eq!(verdicts, all(1, "undecided"));
    });
}

#[test]
fn a_server_that_does_not_take_the_chunk_while_it_is_being_sent_is_left() {
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING CHUNKING");
        talk.begin(mail(1, "a message"));
        send_to_bdat(talk, 2);
        talk.server("250 ok\r\n250 ok\r\n502 what?\r\n").client("");
        let (verdicts, rest) = talk.verdicts();
        assert_eq!(verdicts, all(1, "undecided"));
        let [SessionOutput::Ended(end)] = rest.as_slice() else { panic!("{rest:?}") };
        assert!(end.needs_caution);
    });
}

#[test]
fn nothing_is_sent_behind_a_batch_whose_rset_is_refused() {
    // What was sent of it could be completed by QUIT.
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING CHUNKING");
        talk.begin(mail(1, "x")).client(CHUNK).server("250 ok\r\n250 ok\r\n250 taken\r\n");
        talk.outputs();
        talk.begin(next_mail(2, "x")).client(CHUNK);
        talk.outputs();
        talk.begin(next_mail(3, "x"));
        let mut octets = BytesMut::new();
        assert!(talk.session.poll_transmit(talk.now, "RSET\r\nMAIL".len(), &mut octets));
        talk.server("250 ok\r\n250 ok\r\n554 no\r\n502 what?\r\n").client("");
        assert_eq!(verdicts_of(talk.outputs()), [one(2, "fatal 554 no end of data"), one(3, "undecided")]);
    });
}

#[test]
fn a_refused_rset_with_a_batch_behind_it_ends_the_session_at_once() {
    // RFC 2920 section 3.1: nothing may follow DATA before the reply to it, QUIT neither.
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(1, "x")).client(BATCH).server("250 ok\r\n550 no\r\n503 no\r\n");
        assert_eq!(talk.verdicts(), (all(1, "fatal 550 no RCPT TO"), ready()));
        talk.begin(next_mail(2, "x")).client(&("RSET\r\n".to_string() + BATCH));
        talk.server("502 not here\r\n").client("");
        assert_eq!(talk.verdicts().0, one(2, "undecided"));
        assert_eq!(talk.session.phase(), Phase::Ended);
    });
}

#[test]
fn a_server_that_refuses_padding_gets_one_command_at_a_time() {
    dialogue(&SessionConfig { padding_limit: 1000, ..config(TlsMode::Implicit) }, |talk| {
        talk.tls(true).server("220 mx\r\n").client("EHLO client.example.org\r\n");
        talk.server("250-mx\r\n250-CHUNKING\r\n250 PIPELINING\r\n");
        assert!(!talk.transmit().is_empty(), "padding");
        talk.server("502 no\r\n").begin(mail(1, "x")).client("MAIL FROM:<s@example.org>\r\n");
    });
}

#[test]
fn a_chunk_for_nobody_that_is_refused_says_nothing_about_chunks() {
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING CHUNKING");
        talk.begin(mail(1, "x"));
        send_to_bdat(talk, 0);
        talk.server("250 ok\r\n550 who?\r\n503 RCPT first\r\n");
        let (verdicts, rest) = talk.verdicts();
        assert_eq!(verdicts, all(1, "fatal 550 who? RCPT TO"));
        let [SessionOutput::Ended(end)] = rest.as_slice() else { panic!("{rest:?}") };
        assert!(!end.needs_caution);
    });
}

#[test]
fn a_message_with_a_line_that_could_be_a_command_is_no_chunk() {
    // A server that refuses BDAT may read on in the chunk as if it were commands.
    for data in ["Subject: x\n\nRCPT TO:<you@example.net>\n", "help me"] {
        dialogue(&plain(), |talk| {
            talk.make_ready("PIPELINING CHUNKING");
            talk.begin(mail(1, data)).client(BATCH);
        });
    }
}

#[test]
fn a_refusal_for_a_reason_of_policy_is_a_verdict_whatever_its_code() {
    // RFC 3463 section 3.8
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(1, "x")).client(BATCH);
        talk.server("250 2.1.0 ok\r\n503 5.7.1 relaying denied\r\n503 5.5.1 RCPT first\r\n");
        assert_eq!(talk.verdicts().0, all(1, "fatal 503 5.7.1 relaying denied RCPT TO"));
    });
}
