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
            assert!(!talk.server("221 bye\r\n").end().needs_caution);
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
