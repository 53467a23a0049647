//! How the end of a message goes to servers that do not offer PIPELINING.

use super::*;

/// Up to the message, of which nothing has been handed out.
fn data(talk: &mut Talk, extensions: &str, data: &'static str) {
    talk.make_ready(extensions);
    talk.begin(mail(1, data)).transmit();
    for reply in ["250 ok\r\n", "250 ok\r\n", "354 go\r\n"] {
        talk.server(reply);
        if reply.starts_with("250") {
            talk.transmit();
        }
    }
    assert_eq!(talk.session.phase(), Phase::MailData);
}

#[test]
fn the_end_of_a_message_follows_after_a_pause_whole_and_alone() {
    for (text, first) in [("x\n", "x"), ("x", "x"), ("x\n\n", "x\r\n"), ("x\r\n.\r", "x\r\n..")] {
        dialogue(&plain(), |talk| {
            data(talk, "", text);
            assert_eq!(talk.transmit_at_once(), first);
            assert!(!talk.session.wants_transmit());
            let end = talk.now + END_OF_DATA_PAUSE;
            assert_eq!(talk.session.poll_timeout(), Some((end, Phase::MailData)));
            talk.session.handle_timeout(talk.now);
            assert_eq!(talk.transmit_at_once(), "", "too early");
            talk.now = end;
            talk.session.handle_timeout(end);
            assert_eq!(talk.transmit_at_once(), "\r\n.\r\n");
            assert_eq!(talk.server("250 taken\r\n").verdicts().0, all(1, "delivered 250 taken"));
        });
    }
}

#[test]
fn an_empty_message_is_its_end() {
    dialogue(&plain(), |talk| {
        data(talk, "", "");
        assert_eq!(talk.transmit_at_once(), ".\r\n");
    });
}

#[test]
fn inside_tls_it_follows_in_a_call_of_its_own() {
    dialogue(&config(TlsMode::Implicit), |talk| {
        assert_eq!(talk.tls(true).outputs(), [SessionOutput::StartTls]);
        data(talk, "", "x");
        assert_eq!(talk.transmit_at_once(), "x");
        // The time is over at once: the connection is asked for what it has to send again.
        assert_eq!(talk.session.poll_timeout(), Some((talk.now, Phase::MailData)));
        talk.session.handle_timeout(talk.now);
        assert_eq!(talk.transmit_at_once(), "\r\n.\r\n");
    });
}

#[test]
fn a_line_end_that_comes_alone_is_part_of_the_end() {
    dialogue(&plain(), |talk| {
        talk.make_ready("");
        talk.begin(Transaction { data_octets: 2, ..mail(1, "x") }).transmit();
        talk.server("250 ok\r\n").transmit();
        talk.server("250 ok\r\n").client("DATA\r\n").server("354 go\r\n");
        assert_eq!(talk.transmit_at_once(), "x");
        talk.supply(&b"\n"[..]);
        assert_eq!(talk.transmit_at_once(), "");
        talk.client("\r\n.\r\n");
    });
}

#[test]
fn a_server_that_offers_pipelining_gets_message_and_end_together() {
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(mail(1, "x")).client(BATCH).server("250 ok\r\n250 ok\r\n354 go\r\n");
        assert_eq!(talk.transmit_at_once(), "x\r\n.\r\n");
    });
}
