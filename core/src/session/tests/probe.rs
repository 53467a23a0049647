//! A transaction that only asks whether the server would take a message.

use super::*;

fn probe() -> Transaction {
    Transaction { is_probe: true, ..mail(1, "") }
}

#[test]
fn a_probe_ends_after_rcpt_with_rset_and_never_says_data() {
    // With and without PIPELINING (RFC 2920), and without a size (RFC 1870), for there is no message.
    dialogue(&plain(), |talk| {
        talk.make_ready("SIZE 1000");
        talk.begin(probe()).client("MAIL FROM:<s@example.org>\r\n").server("250 ok\r\n");
        talk.client("RCPT TO:<r1@example.net>\r\n").server("250 2.1.5 fine\r\n").client("RSET\r\n");
        assert!(talk.outputs().is_empty());
        talk.server("250 ok\r\n");
        assert_eq!(talk.verdicts(), (all(1, "accepted 250 2.1.5 fine"), ready()));
    });
    dialogue(&plain(), |talk| {
        talk.make_ready("PIPELINING");
        talk.begin(probe()).client("MAIL FROM:<s@example.org>\r\nRCPT TO:<r1@example.net>\r\n");
        talk.server("250 ok\r\n250 fine\r\n").client("RSET\r\n");
        assert_eq!(talk.outputs(), ready(), "mail could follow directly");
        talk.server("250 ok\r\n");
        assert_eq!(talk.verdicts(), (all(1, "accepted 250 fine"), Vec::new()));
        talk.quit().client("QUIT\r\n");
    });
}

#[test]
fn a_probe_is_refused_as_mail_is() {
    dialogue(&plain(), |talk| {
        talk.make_ready("");
        talk.begin(probe()).client("MAIL FROM:<s@example.org>\r\n").server("250 ok\r\n");
        talk.client("RCPT TO:<r1@example.net>\r\n").server("550 5.1.1 who?\r\n").client("RSET\r\n");
        talk.server("250 ok\r\n");
        assert_eq!(talk.verdicts(), (all(1, "fatal 550 5.1.1 who? RCPT TO"), ready()));
    });
    dialogue(&plain(), |talk| {
        talk.make_ready("");
        talk.begin(probe()).client("MAIL FROM:<s@example.org>\r\n").server("550 no\r\n").client("");
        assert_eq!(talk.verdicts(), (all(1, "fatal 550 no MAIL FROM"), ready()));
    });
    // Of what was not answered nothing is known.
    dialogue(&plain(), |talk| {
        talk.make_ready("");
        talk.begin(probe()).client("MAIL FROM:<s@example.org>\r\n").server("250 ok\r\n").closed();
        let (verdicts, _) = talk.verdicts();
        assert_eq!(verdicts, all(1, "undecided"));
    });
}
