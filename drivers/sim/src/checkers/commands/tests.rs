use cmail_delivery::io::{ConnectionId, Groups, Purpose};
use cmail_delivery::memory_outbox::MemoryOutbox;
use cmail_delivery::next_hop::{Port, TlsMode};
use cmail_delivery::time::{Instant, Now, UnixTime};

use super::*;
use crate::dialogue::Dialogue;
use crate::dice::Dice;
use crate::facts::Shown;
use crate::map::Map;
use crate::options::Options;
use crate::witness::Witness;

const PLAIN: &str = "250 x\r\n";
const PIPELINING: &str = "250-x\r\n250 PIPELINING\r\n";

/// Returns what is said of a conversation after EHLO: what the client says, and then what the server does.
fn objection(ehlo_reply: &str, turns: &[(&str, &str)]) -> Option<String> {
    let mut settings = Options::draw(&mut Dice::new(1), 1).settings();
    // So that nobody is promised TLS.
    settings.policy.ports = [Port { number: 25, tls: TlsMode::Plain }].into();
    let (outbox, map) = (MemoryOutbox::new(), Map::default());
    let now = Now::new(Instant::default(), UnixTime(0));
    let scene = Scene {
        now,
        said_since: now.monotonic,
        settings: &settings,
        earlier_settings: &[],
        outbox: &outbox,
        map: &map,
    };
    let mut witness = Witness::new(Dialogue::Off);
    let link = Link { epoch: 1, id: ConnectionId(1) };
    let remote = ([192, 0, 2, 1], 25).into();
    witness.see(&scene, Fact::Connecting { link, remote, purpose: Purpose::Smtp });
    witness.see(&scene, Fact::Received { link, octets: b"220 x\r\n" });
    let mut tls = false;
    for (said, heard) in std::iter::once(&("EHLO a\r\n", ehlo_reply)).chain(turns) {
        if *said == "tls" {
            witness.see(&scene, Fact::StartTls { link, groups: Groups::All });
            witness.see(&scene, Fact::TlsEstablished { link, shown: Shown::default() });
            tls = true;
            continue;
        }
        witness.see(&scene, Fact::Sent { link, octets: said.as_bytes(), tls });
        witness.see(&scene, Fact::Received { link, octets: heard.as_bytes() });
    }
    witness.violation.map(|violation| violation.text)
}

fn assert_legal(ehlo_reply: &str, turns: &[(&str, &str)]) {
    assert_eq!(objection(ehlo_reply, turns), None, "{turns:?}");
}

fn assert_illegal(ehlo_reply: &str, turns: &[(&str, &str)], why: &str) {
    let objection = objection(ehlo_reply, turns).unwrap_or_default();
    assert!(objection.contains(why), "\"{objection}\" of {turns:?}");
}

const ENVELOPE: (&str, &str) = ("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", "250 a\r\n250 b\r\n");

#[test]
fn commands_one_by_one_are_legal_whatever_is_offered() {
    for offer in [PLAIN, PIPELINING] {
        let turns = [
            ("MAIL FROM:<a@b>\r\n", "250 a\r\n"),
            ("RCPT TO:<c@d>\r\n", "250 a\r\n"),
            ("DATA\r\n", "354 a\r\n"),
            ("x\r\n.\r\n", "250 a\r\n"),
            ("QUIT\r\n", "221 a\r\n"),
        ];
        assert_legal(offer, &turns);
    }
}

#[test]
fn batches_are_legal_where_pipelining_is_offered() {
    let all = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@d>\r\nDATA\r\n";
    let next = "x\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";
    let turns = [
        (all, "250 a\r\n550 b\r\n250 c\r\n354 d\r\n"),
        (next, "250 a\r\n550 b\r\n503 c\r\n503 d\r\n"),
        ("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "250 a\r\n550 b\r\n354 c\r\n"),
        (".\r\nQUIT\r\n", "250 a\r\n221 b\r\n"),
    ];
    assert_legal(PIPELINING, &turns);
    assert_illegal(PLAIN, &turns, "before the reply to Mail");
}

#[test]
fn what_was_offered_before_tls_does_not_count_after_it() {
    let offer = "250-x\r\n250-STARTTLS\r\n250 PIPELINING\r\n";
    let starttls = [("STARTTLS\r\n", "220 a\r\n"), ("tls", "")];
    let again = |offer| [&starttls[..], &[("EHLO a\r\n", offer), ENVELOPE]].concat();
    assert_legal(offer, &again(PIPELINING));
    assert_illegal(offer, &again(PLAIN), "before the reply to Mail");
}

#[test]
fn what_has_to_be_last_in_a_batch_is_last() {
    // RFC 2920 section 3.1
    let why = "which has to be its last";
    assert_illegal(PIPELINING, &[("NOOP\r\nMAIL FROM:<a@b>\r\n", "")], why);
    assert_illegal(PIPELINING, &[("EHLO a\r\nMAIL FROM:<a@b>\r\n", "")], why);
    assert_illegal(PIPELINING, &[ENVELOPE, ("DATA\r\nRSET\r\n", "")], why);
    let offer = "250-x\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n";
    assert_illegal(offer, &[("STARTTLS\r\nNOOP\r\n", "")], why);
    assert_legal(PIPELINING, &[("RSET\r\nMAIL FROM:<a@b>\r\nQUIT\r\n", "250 a\r\n250 b\r\n221 c\r\n")]);
}

#[test]
fn a_message_for_nobody_is_a_lone_dot() {
    let refused = ("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "250 a\r\n550 b\r\n354 c\r\n");
    assert_legal(PIPELINING, &[refused, (".\r\n", "554 a\r\n"), ENVELOPE]);
    assert_illegal(PIPELINING, &[refused, ("x\r\n.\r\n", "")], "no recipient was accepted");
}

#[test]
fn data_without_a_recipient_is_not_asked_for() {
    let why = "where it is not allowed";
    let envelope = ("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", "250 a\r\n550 b\r\n");
    assert_illegal(PIPELINING, &[envelope, ("DATA\r\n", "")], why);
    assert_illegal(PIPELINING, &[("RCPT TO:<c@d>\r\n", "")], why);
    assert_illegal(PIPELINING, &[ENVELOPE, ("MAIL FROM:<a@b>\r\n", "")], why);
}

#[test]
fn quit_waits_for_the_reply_to_a_message_unless_that_was_refused_early() {
    let envelope =
        [("MAIL FROM:<a@b>\r\n", "250 a\r\n"), ("RCPT TO:<c@d>\r\n", "250 a\r\n"), ("DATA\r\n", "354 a\r\n")];
    let and = |said: &'static [(&str, &str)]| [&envelope[..], said].concat();
    assert_legal(PLAIN, &and(&[("x\r\n", "500 a\r\n"), (".\r\nQUIT\r\n", "250 a\r\n221 a\r\n")]));
    assert_illegal(PLAIN, &and(&[("x\r\n.\r\nQUIT\r\n", "")]), "before the reply to FinalDot");
    assert_illegal(PLAIN, &and(&[("x\r\n", "500 a\r\n"), (".\r\nRSET\r\n", "")]), "before the reply to");
}

#[test]
fn a_message_is_sent_only_while_no_reply_is_owed() {
    let turns = [("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n", "250 a\r\n250 a\r\n354 a\r\n")];
    let behind = [&turns[..], &[("x\r\n.\r\n", "250 a\r\n")]].concat();
    assert_legal(PIPELINING, &behind);
}
