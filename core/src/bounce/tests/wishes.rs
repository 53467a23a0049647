//! What senders want of reports (RFC 3461 section 6).

use super::*;
use crate::attempt::{Acceptance, Attempt, Server};
use crate::dsn::{EnvelopeId, MessageWishes, OriginalRecipient, ReturnExtent};
use crate::next_hop::Host;
use crate::reply::ReplyParser;
use crate::shown::ShownAddress;
use alloc::sync::Arc;

fn wishing(extent: Option<ReturnExtent>) -> FailedMessage {
    let mut message = simple(b"Subject: x\r\nMessage-ID: <1@example.org>\r\n\r\nthe body\r\n");
    message.mails[0].row.wishes = DsnWishes {
        notify: None,
        original_recipient: OriginalRecipient::parse("rfc822;old+name@example.net").ok(),
        message: MessageWishes {
            sign: Default::default(),
            extent,
            envelope_id: EnvelopeId::parse(&"two  spaces+".repeat(5)).ok(),
        },
    };
    message
}

#[test]
fn ids_and_recipients_of_the_sender_come_back() {
    // RFC 3461 section 6.3
    let (_, [_, status, _]) = take_apart(&compose_seeded(&wishing(None)));
    let groups = status_groups(&status);
    assert_eq!(groups[0][0], format!("Original-Envelope-Id: {}", "two  spaces+".repeat(5)));
    assert_eq!(groups[1][0], "Original-Recipient: rfc822; old+name@example.net");
    assert_eq!(groups[1][1], "Final-Recipient: rfc822; rcpt@example.net");
    let (_, [_, status, _]) = take_apart(&compose_seeded(&simple(b"")));
    assert!(!String::from_utf8(status.body).unwrap().contains("Original-"), "nothing is made up");
}

#[test]
fn as_much_is_returned_as_the_sender_wants() {
    // RFC 3461 section 4.3
    for (extent, has_body, media_type) in [
        (Some(ReturnExtent::Headers), false, "text/rfc822-headers"),
        (Some(ReturnExtent::Full), true, "message/rfc822"),
        (None, true, "message/rfc822"),
    ] {
        let (_, [readable, _, returned]) = take_apart(&compose_seeded(&wishing(extent)));
        assert_eq!(returned.media_type(), media_type);
        let text = String::from_utf8(returned.body).unwrap();
        assert!(text.starts_with("Subject: x\r\n"), "{text}");
        assert_eq!(text.contains("the body"), has_body, "{text}");
        let sentence = "As you have asked, only the headers of the message are attached.";
        assert_eq!(String::from_utf8(readable.body).unwrap().contains(sentence), !has_body);
    }
    let mut large = wishing(Some(ReturnExtent::Full));
    large.data_octets = 5000;
    let (_, [_, _, returned]) = take_apart(&compose_seeded(&large));
    assert_eq!(returned.media_type(), "text/rfc822-headers", "the limit counts all the same");
}

#[test]
fn a_report_of_a_delivery_says_who_has_taken_it_and_returns_the_headers_only() {
    // RFC 3461 section 6.3
    let reply = ReplyParser::default().parse(&mut &b"250-2.1.5 taken\r\n250 2.1.5 id=7\r\n"[..]);
    let server = Server {
        host: Host::Name(Domain::parse("mx.example.net").unwrap()),
        address: "192.0.2.1:25".parse().unwrap(),
        tls: None,
    };
    let attempt = Attempt {
        at: UnixTime(NOW.0 - 60),
        recipient: ShownAddress::new("rcpt@example.net"),
        course: None,
        result: Acceptance { server: Arc::new(server), reply: reply.unwrap().unwrap() },
    };
    let mut message = wishing(Some(ReturnExtent::Full));
    message.mails[0].attempts.clear();
    let compose = |message: &FailedMessage| {
        let mut rng = Rng::from_seed([1; 32]);
        compose_relayed(&attempt, SETTINGS.announce, SETTINGS.bounce_from, message, NOW, &mut rng)
    };
    let (whole, [readable, status, returned]) = take_apart(&compose(&message).unwrap());
    assert_eq!(whole.field("Subject"), Some("Mail was delivered to the next server"));
    assert_eq!(whole.field("Auto-Submitted"), Some("auto-replied"));
    assert_eq!(whole.field("In-Reply-To"), Some("<1@example.org>"));
    let text = String::from_utf8(readable.body).unwrap().replace("\r\n", "\n");
    assert!(
        text.contains(
            "<rcpt@example.net>\n  Delivered on Sun, 22 Nov 2026 10:14:40 UTC:\n    mx.example.net"
        ),
        "{text}"
    );
    assert!(text.contains("id=7") && !text.contains("could not be delivered"), "{text}");
    assert_eq!(
        status_groups(&status)[1],
        [
            "Original-Recipient: rfc822; old+name@example.net",
            "Final-Recipient: rfc822; rcpt@example.net",
            "Action: relayed",
            "Status: 2.1.5",
            "Remote-MTA: dns; mx.example.net",
            "Diagnostic-Code: smtp; 250-2.1.5 taken 250 2.1.5 id=7",
            "Last-Attempt-Date: Sun, 22 Nov 2026 10:14:40 +0000",
        ]
    );
    assert!(!String::from_utf8(returned.body).unwrap().contains("the body"));
    message.mails[0].row.sender = None;
    assert_eq!(compose(&message), None);
}
