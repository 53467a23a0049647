use super::*;
use crate::dsn::DsnWishes;
use crate::failure::{FailureText, OwnFailure};
use crate::hold::Hold;
use crate::outbox::{FailedMail, FaillogRow, MailId, Row};
use crate::rng::Rng;
use crate::status::EnhancedStatus;
use alloc::string::ToString as _;
use core::str;
use proptest::prelude::*;

mod returned;
mod wishes;

const SETTINGS: BounceSettings<'_> = BounceSettings {
    announce: "mail.example.org",
    bounce_from: "postmaster@mail.example.org",
    return_limit_octets: 1000,
};

/// Sun, 22 Nov 2026 10:15:40 UTC.
const NOW: UnixTime = UnixTime(1_795_342_540);

fn attempt(time: i64, text: &str, fatal: bool) -> FaillogRow {
    FaillogRow { time: UnixTime(time), text: text.as_bytes().into(), fatal }
}

fn failed_mail(sender: &[u8], recipient: &[u8], attempts: Vec<FaillogRow>) -> FailedMail {
    let row = Row {
        id: MailId(1),
        remote: None,
        sender: Some(Bytes::copy_from_slice(sender)),
        recipient: Bytes::copy_from_slice(recipient),
        submission: UnixTime(NOW.0 - 86_400),
        data_octets: 0,
        fail_count: 1,
        last_try: UnixTime(0),
        fatal: true,
        last_failure: None,
        hold: Hold::default(),
        wishes: DsnWishes::default(),
    };
    FailedMail { row, attempts }
}

fn message(original: &[u8], mails: Vec<FailedMail>) -> FailedMessage {
    FailedMessage { mails, data_octets: original.len() as u64, original: Bytes::copy_from_slice(original) }
}

fn refused() -> String {
    let address = "192.0.2.1:25".parse().unwrap();
    FailureText::server("550-5.1.1 no such user\r\n550 5.1.1 really", "mx.example.net", address, "RCPT TO")
}

fn simple(original: &[u8]) -> FailedMessage {
    let attempts = vec![attempt(NOW.0 - 60, &refused(), true)];
    message(original, vec![failed_mail(b"sender@example.org", b"rcpt@example.net", attempts)])
}

fn compose_seeded(message: &FailedMessage) -> Vec<u8> {
    compose(SETTINGS, message, NOW, &mut Rng::from_seed([1; 32])).unwrap().to_vec()
}

/// A body part: its header fields, unfolded, and its octets.
#[derive(Debug)]
struct Part {
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Part {
    fn parse(octets: &[u8]) -> Self {
        let end = octets.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let header = str::from_utf8(&octets[..end]).unwrap().replace("\r\n ", " ");
        let fields = header
            .split("\r\n")
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { fields, body: octets[end + 4..].to_vec() }
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(field, _)| field == name);
        let value = found.next().map(|(_, value)| &**value);
        assert!(found.next().is_none(), "{name} stands twice");
        value
    }

    fn media_type(&self) -> &str {
        self.field("Content-Type").unwrap().split(';').next().unwrap()
    }

    fn boundary(&self) -> &str {
        self.field("Content-Type").unwrap().split("boundary=\"").nth(1).unwrap().split('"').next().unwrap()
    }
}

/// Takes a bounce apart: the message, and its three parts.
fn take_apart(octets: &[u8]) -> (Part, [Part; 3]) {
    let split_once = |octets: &[u8], delimiter: &str| {
        let at = octets.windows(delimiter.len()).position(|window| window == delimiter.as_bytes())?;
        Some((octets[..at].to_vec(), octets[at + delimiter.len()..].to_vec()))
    };
    let end = octets.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    // The empty line after the header is also the line end before the first delimiter.
    let whole = Part::parse(&[&octets[..end + 4], &octets[end + 2..]].concat());
    let delimiter = format!("\r\n--{}", whole.boundary());
    let (preamble, mut rest) = split_once(&whole.body, &delimiter).unwrap();
    assert_eq!(preamble, b"");
    let mut parts = Vec::new();
    while let Some((part, after)) = split_once(&rest, &delimiter) {
        parts.push(Part::parse(part.strip_prefix(b"\r\n").unwrap()));
        rest = after;
    }
    assert_eq!(rest, b"--\r\n");
    (whole, parts.try_into().unwrap())
}

/// The groups of fields of a delivery status, unfolded.
fn status_groups(part: &Part) -> Vec<Vec<String>> {
    let text = str::from_utf8(&part.body).unwrap();
    text.split("\r\n\r\n")
        .map(|group| {
            let group = group.trim_end_matches("\r\n").replace("\r\n ", " ");
            group.split("\r\n").map(ToOwned::to_owned).collect()
        })
        .collect()
}

#[test]
fn a_bounce_has_the_headers_of_a_report() {
    let original = b"Message-ID: <orig@example.org>\r\nReferences: <root@example.org>\r\n\r\nbody\r\n";
    let (whole, _) = take_apart(&compose_seeded(&simple(original)));
    assert_eq!(whole.field("From"), Some("\"Mail Delivery System\" <postmaster@mail.example.org>"));
    assert_eq!(whole.field("To"), Some("<sender@example.org>"));
    assert_eq!(whole.field("Subject"), Some("Undelivered mail returned to sender"));
    assert_eq!(whole.field("Date"), Some("Sun, 22 Nov 2026 10:15:40 +0000"));
    assert_eq!(whole.field("Auto-Submitted"), Some("auto-replied"));
    assert_eq!(whole.field("In-Reply-To"), Some("<orig@example.org>"));
    assert_eq!(whole.field("References"), Some("<root@example.org> <orig@example.org>"));
    assert_eq!(whole.field("MIME-Version"), Some("1.0"));
    assert!(whole.field("Message-ID").unwrap().ends_with("@mail.example.org>"));
    // RFC 6522 section 3.
    assert_eq!(whole.media_type(), "multipart/report");
    assert!(whole.field("Content-Type").unwrap().contains("report-type=\"delivery-status\""));
    assert_eq!(whole.field("Content-Transfer-Encoding"), Some("7bit"));
}

#[test]
fn an_original_without_a_message_id_is_not_referred_to() {
    let (whole, _) =
        take_apart(&compose_seeded(&simple(b"Subject: x\r\n\r\nMessage-ID: <no@example.org>\r\n")));
    assert_eq!((whole.field("In-Reply-To"), whole.field("References")), (None, None));
}

#[test]
fn the_status_part_says_what_rfc_3464_asks_for() {
    let (_, [_, status, _]) = take_apart(&compose_seeded(&simple(b"Subject: x\r\n\r\n")));
    assert_eq!(status.media_type(), "message/delivery-status");
    let expected = [
        vec!["Reporting-MTA: dns; mail.example.org", "Arrival-Date: Sat, 21 Nov 2026 10:15:40 +0000"],
        vec![
            "Final-Recipient: rfc822; rcpt@example.net",
            "Action: failed",
            "Status: 5.1.1",
            "Remote-MTA: dns; mx.example.net",
            "Diagnostic-Code: smtp; 550-5.1.1 no such user 550 5.1.1 really",
            "Last-Attempt-Date: Sun, 22 Nov 2026 10:14:40 +0000",
        ],
    ];
    assert_eq!(status_groups(&status), expected);
}

#[test]
fn the_text_tells_of_every_attempt_in_the_servers_words() {
    let attempts =
        vec![attempt(NOW.0 - 3700, "450 4.2.0 greylisted", false), attempt(NOW.0 - 60, &refused(), true)];
    let message = message(b"", vec![failed_mail(b"s@example.org", b"rcpt@example.net", attempts)]);
    let (_, [text, ..]) = take_apart(&compose_seeded(&message));
    let text = str::from_utf8(&text.body).unwrap();
    let expected = "<rcpt@example.net>\r\n\
        \x20 Attempt on Sun, 22 Nov 2026 09:14:00 UTC:\r\n\
        \x20   450 4.2.0 greylisted\r\n\
        \x20 Attempt on Sun, 22 Nov 2026 10:14:40 UTC:\r\n\
        \x20   550-5.1.1 no such user\r\n\
        \x20   550 5.1.1 really\r\n\
        \x20   (mx.example.net [192.0.2.1]:25, in reply to RCPT TO)\r\n";
    assert!(text.ends_with(expected), "{text}");
    assert!(text.contains("submitted on Sat, 21 Nov 2026 10:15:40 UTC."), "{text}");
}

#[test]
fn all_recipients_share_one_bounce() {
    let mail = |recipient: &str| {
        failed_mail(b"s@example.org", recipient.as_bytes(), vec![attempt(1, &refused(), true)])
    };
    let message = message(b"", vec![mail("a@example.net"), mail("b@example.net")]);
    let (_, [text, status, _]) = take_apart(&compose_seeded(&message));
    let groups = status_groups(&status);
    let recipients: Vec<_> = groups[1..].iter().map(|group| &*group[0]).collect();
    assert_eq!(
        recipients,
        ["Final-Recipient: rfc822; a@example.net", "Final-Recipient: rfc822; b@example.net"]
    );
    let text = str::from_utf8(&text.body).unwrap();
    assert!(text.contains("<a@example.net>") && text.contains("<b@example.net>"));
}

#[test]
fn an_original_of_any_octets_comes_back_as_it_is_and_labelled_as_such() {
    // RFC 2045 section 6.4: the multipart has the encoding of its parts.
    let original = b"Subject: gr\xfc\xdfe\n\n bare\rends\n--=_not a boundary\r\n";
    let (whole, [_, status, returned]) = take_apart(&compose_seeded(&simple(original)));
    assert_eq!(returned.body, original);
    assert_eq!(returned.field("Content-Transfer-Encoding"), Some("8bit"));
    assert_eq!(whole.field("Content-Transfer-Encoding"), Some("8bit"));
    assert_eq!(status.field("Content-Transfer-Encoding"), Some("7bit"));
}

#[test]
fn a_boundary_that_the_original_knows_is_not_used() {
    let first = compose_seeded(&simple(b""));
    let known = take_apart(&first).0.boundary().to_owned();
    // The original has the very delimiter that the generator draws first.
    let original = format!("Subject: x\r\n\r\n--{known}\r\n--{known}--\r\n");
    let (whole, [_, _, returned]) = take_apart(&compose_seeded(&simple(original.as_bytes())));
    assert_ne!(whole.boundary(), known);
    assert_eq!(returned.body, original.as_bytes());
}

#[test]
fn a_null_sender_is_never_answered() {
    let mut message = simple(b"");
    for sender in [None, Some(Bytes::new()), Some(b" <> "[..].into())] {
        message.mails[0].row.sender = sender;
        assert_eq!(compose(SETTINGS, &message, NOW, &mut Rng::from_seed([1; 32])), None);
    }
}

#[test]
fn composing_twice_gives_equal_octets() {
    let message = simple(b"Message-ID: <a@b>\r\n\r\nbody");
    assert_eq!(compose_seeded(&message), compose_seeded(&message));
}

#[test]
fn no_reply_can_add_a_field_or_a_recipient_to_the_status() {
    let attack = "550 x\r\nAction: delivered\r\n\r\nFinal-Recipient: rfc822; evil@example.com\r\n\r\n \r\nStatus: 2.0.0";
    let mixed = "550-\r\n550-\u{85}Status: 2.0.0\r\n550  \r\n";
    for text in [attack, mixed] {
        let attempts = vec![attempt(1, text, true)];
        let message = message(b"", vec![failed_mail(b"s@example.org", b"a@example.net", attempts)]);
        let (_, [_, status, _]) = take_apart(&compose_seeded(&message));
        let groups = status_groups(&status);
        assert_eq!(groups.len(), 2, "{groups:?}");
        let names: Vec<_> = groups[1].iter().map(|field| field.split(':').next().unwrap()).collect();
        assert_eq!(names, ["Final-Recipient", "Action", "Status", "Diagnostic-Code", "Last-Attempt-Date"]);
        assert_eq!(groups[1][1..3], ["Action: failed", "Status: 5.0.0"]);
    }
}

#[test]
fn the_status_is_the_servers_or_one_that_fits() {
    // RFC 3463.
    let own = |failure, status| FailureText::own(failure, status, "detail");
    for (text, fatal, expected) in [
        ("550 no".to_owned(), true, "5.0.0"),
        ("550 5.7.1 no".to_owned(), true, "5.7.1"),
        ("450 4.2.2 full".to_owned(), false, "4.2.2"),
        ("450 later".to_owned(), false, "4.4.7"),
        ("250 2.0.0 what?".to_owned(), false, "4.4.7"),
        (own(OwnFailure::Resolve, EnhancedStatus::NULL_MX), true, "5.1.10"),
        ("Failed to resolve recipient domain".to_owned(), false, "4.4.3"),
        ("Failed to resolve recipient domain".to_owned(), true, "5.1.2"),
        ("Failed to reach any MX".to_owned(), false, "4.4.1"),
        ("Failed to connect or negotiate with handoff remote".to_owned(), false, "4.4.1"),
        ("anything".to_owned(), true, "5.0.0"),
        (String::new(), false, "4.4.7"),
    ] {
        let attempts = vec![attempt(1, &text, fatal)];
        let message = message(b"", vec![failed_mail(b"s@example.org", b"a@example.net", attempts)]);
        let (_, [_, status, _]) = take_apart(&compose_seeded(&message));
        assert!(status_groups(&status)[1].contains(&format!("Status: {expected}")), "{text}: {status:?}");
    }
}

#[test]
fn addresses_that_are_not_ascii_make_an_international_report() {
    // RFC 6533 sections 3, 4 and 6.
    let attempts = vec![attempt(1, "550 5.1.1 größe\u{20ac}", true)];
    let mail = failed_mail("jürgen@example.org".as_bytes(), "bücher@bücher.example".as_bytes(), attempts);
    let (whole, [_, status, returned]) = take_apart(&compose_seeded(&message(b"", vec![mail])));
    assert_eq!(whole.field("To"), Some("<jürgen@example.org>"));
    assert_eq!(status.media_type(), "message/global-delivery-status");
    assert_eq!(status.field("Content-Transfer-Encoding"), Some("8bit"));
    assert_eq!(returned.media_type(), "message/global");
    let groups = status_groups(&status);
    assert_eq!(groups[1][0], "Final-Recipient: utf-8; bücher@xn--bcher-kva.example");
    assert!(groups[1].contains(&"Diagnostic-Code: smtp; 550 5.1.1 größe\u{20ac}".to_owned()));
}

#[test]
fn a_sender_of_ascii_gets_a_report_of_ascii_about_addresses_that_are_not() {
    // RFC 6533 sections 3, 4.5 and 6, RFC 6532 section 3.7.
    let mail = |recipient: &str, sender: &[u8]| {
        failed_mail(sender, recipient.as_bytes(), vec![attempt(1, "550 5.1.1 größe", true)])
    };
    let recipient = "\"j\u{f6}rg \\+=\"@b\u{fc}cher.example";
    let international = "Subject: gr\u{f6}\u{df}e\r\n\r\n".as_bytes();
    let in_ascii = &b"Subject: gr=C3=B6=C3=9Fe\r\n\r\n"[..];
    for (original, limit, returned_type, expected, encoding) in [
        (&b"Subject: x\r\n\r\n"[..], 1000, "message/rfc822", &b"Subject: x\r\n\r\n"[..], "7bit"),
        (international, 1000, "message/global", in_ascii, "quoted-printable"),
        (international, 0, "message/global-headers", &in_ascii[..in_ascii.len() - 2], "quoted-printable"),
    ] {
        let message = message(original, vec![mail(recipient, b"s@example.org")]);
        let settings = BounceSettings { return_limit_octets: limit, ..SETTINGS };
        let bounce = compose(settings, &message, NOW, &mut Rng::from_seed([7; 32])).unwrap();
        let (whole, [_, status, returned]) = take_apart(&bounce);
        assert_eq!(whole.field("Content-Transfer-Encoding"), Some("7bit"));
        assert_eq!(returned.field("Content-Transfer-Encoding"), Some(encoding));
        assert_eq!((returned.media_type(), &*returned.body), (returned_type, expected));
        assert_eq!(status.media_type(), "message/delivery-status");
        assert_eq!(status.field("Content-Transfer-Encoding"), Some("7bit"));
        assert!(status.body.is_ascii());
        let expected = r#"Final-Recipient: utf-8; "j\x{F6}rg\x{20}\x{5C}\x{2B}\x{3D}"@xn--bcher-kva.example"#;
        assert_eq!(status_groups(&status)[1][0], expected);
    }
    // Mail that is not of RFC 6532 stays what it was, however its header is written.
    let message = message(international, vec![mail("a+b@example.net", b"s@example.org")]);
    let (_, [_, status, returned]) = take_apart(&compose_seeded(&message));
    assert_eq!(status_groups(&status)[1][0], "Final-Recipient: rfc822; a+b@example.net");
    assert_eq!(returned.media_type(), "message/rfc822");
}

#[test]
fn a_reply_that_is_not_ascii_is_escaped_in_a_plain_report() {
    let attempts = vec![attempt(1, "550 5.1.1 gr\u{f6}\u{20ac}", true)];
    let mail = failed_mail(b"s@example.org", b"a@example.net", attempts);
    let (_, [_, status, _]) = take_apart(&compose_seeded(&message(b"", vec![mail])));
    let expected = "Diagnostic-Code: smtp; 550 5.1.1 gr\\x{F6}\\x{20AC}".to_owned();
    assert!(status_groups(&status)[1].contains(&expected));
    assert_eq!(status.field("Content-Transfer-Encoding"), Some("7bit"));
}

#[test]
fn only_the_last_attempts_are_told_of() {
    let attempts = (0..150).map(|number| attempt(number, &format!("450 number {number}."), false)).collect();
    let message = message(b"", vec![failed_mail(b"s@example.org", b"a@example.net", attempts)]);
    let (_, [text, ..]) = take_apart(&compose_seeded(&message));
    let text = str::from_utf8(&text.body).unwrap();
    assert_eq!(text.matches("Attempt on").count(), ATTEMPT_LIMIT);
    assert!(text.contains("not shown: 50.") && !text.contains("number 49.") && text.contains("number 50."));
}

#[test]
fn many_long_texts_do_not_make_an_endless_bounce() {
    let mail = |number: usize| {
        let attempts = (0..100).map(|time| attempt(time, &"450 x".repeat(800), false)).collect();
        failed_mail(b"s@example.org", number.to_string().as_bytes(), attempts)
    };
    let message = message(b"", (0..100).map(mail).collect());
    let octets = compose_seeded(&message);
    assert!(octets.len() < 4 * 1024 * 1024, "{}", octets.len());
    let (_, [text, status, _]) = take_apart(&octets);
    assert!(text.body.windows(10).filter(|window| window == b"Attempt on").count() >= 100);
    assert_eq!(status_groups(&status).len(), 101);
}

#[test]
fn a_server_that_is_verbose_about_every_recipient_makes_no_endless_bounce() {
    let address = "192.0.2.1:25".parse().unwrap();
    let reply = "550-5.1.1 \u{fffd}\u{fffd}\u{fffd}".to_owned() + &" \u{fffd}".repeat(100) + "\r\n";
    let text = FailureText::server(&reply.repeat(20), "mx.example.net", address, "RCPT TO");
    assert!(text.len() > 3500);
    let count = 2000;
    let mails = (0..count).map(|number| {
        let recipient = format!("r{number}@example.net");
        failed_mail(b"s@example.org", recipient.as_bytes(), vec![attempt(NOW.0, &text, true)])
    });
    let octets = compose_seeded(&message(b"", mails.collect()));
    assert!(octets.len() < 8 * 1024 * 1024, "{}", octets.len());
    let (_, [_, status, _]) = take_apart(&octets);
    let groups = status_groups(&status);
    assert_eq!(groups.len(), 1 + count);
    for group in groups.iter().skip(1) {
        assert!(group.contains(&"Status: 5.1.1".into()), "{group:?}");
        assert!(group.contains(&"Remote-MTA: dns; mx.example.net".into()), "{group:?}");
        assert!(group.iter().any(|field| field.starts_with("Diagnostic-Code: smtp; 550-5.1.1")), "{group:?}");
    }
}

#[test]
fn no_text_without_spaces_makes_a_line_too_long() {
    // RFC 5322 section 2.1.1.
    for (recipient, text) in [
        ("a@example.net".to_owned(), "550 ".to_owned() + &"\u{10ffff}".repeat(1000)),
        ("a@example.net".to_owned(), "x".repeat(4000)),
        ("\u{20ac}".repeat(99) + "<", "550 no".to_owned()),
        ("\u{20ac}".repeat(2000) + "<", "550 no".to_owned()),
        ("x".repeat(3000), "550 no".to_owned()),
    ] {
        let attempts = vec![attempt(1, &text, true)];
        let message = message(b"", vec![failed_mail(b"s@example.org", recipient.as_bytes(), attempts)]);
        let (_, [_, status, _]) = take_apart(&compose_seeded(&message));
        let longest = status.body.split(|&octet| octet == b'\n').map(<[u8]>::len).max().unwrap();
        assert!(status.body.is_ascii() && longest <= 999, "{longest}");
    }
}

#[test]
fn addresses_that_are_none_break_no_header() {
    for octets in [&b"a\r\nBcc: evil@example.com"[..], b"\xff\xfe", b"<a>, <b>", b"no domain", &[b'a'; 5000]]
    {
        let attempts = vec![attempt(1, "Failed", true)];
        let message = message(b"", vec![failed_mail(octets, octets, attempts)]);
        let (whole, [_, status, _]) = take_apart(&compose_seeded(&message));
        assert_eq!(whole.field("To"), Some("undisclosed-recipients:;"));
        assert_eq!(whole.field("Bcc"), None);
        assert_eq!(status_groups(&status)[1].len(), 5, "{status:?}");
    }
}

const MARKER: &[u8] = b"MARKER-OF-ANOTHER-MESSAGE";

/// A message whose every text holds the marker.
fn marked(repeat: usize) -> FailedMessage {
    let marker = str::from_utf8(MARKER).unwrap();
    let header = format!("Message-ID: <{marker}@b>\r\nReferences: <{marker}>\r\nSubject: {marker}\r\n\r\n");
    let original = [header.into_bytes(), MARKER.repeat(repeat)].concat();
    let recipient = format!("{marker}@example.net");
    let attempts = vec![attempt(5, &format!("550 {marker}\n({marker} [192.0.2.9]:25, in reply to x)"), true)];
    message(&original, vec![failed_mail(recipient.as_bytes(), recipient.as_bytes(), attempts)])
}

/// The bounce without what was drawn at random.
fn without_randomness(octets: &[u8]) -> Vec<u8> {
    let (whole, _) = take_apart(octets);
    let token = whole.field("Message-ID").unwrap()[1..].split('@').next().unwrap().to_owned();
    let mut octets = octets.to_vec();
    for random in [whole.boundary(), &token] {
        while let Some(at) = octets.windows(random.len()).position(|window| window == random.as_bytes()) {
            octets.drain(at..at + random.len());
        }
    }
    octets
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        "[45][0-9]{2}[ -][45]\\.[0-9]\\.[0-9] \\PC{0,90}(\r?\n\\PC{0,20}){0,3}".prop_map(String::into_bytes),
        "(Failed to reach any MX|Failed to resolve recipient domain): \\PC{0,20}"
            .prop_map(String::into_bytes),
    ]
}

fn any_message() -> impl Strategy<Value = FailedMessage> {
    let address = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 1..30),
            "[a-zäß]{1,9}@[a-z]{1,9}\\.example".prop_map(String::into_bytes),
        ]
    };
    let attempts = prop::collection::vec((any::<i64>(), any_text(), any::<bool>()), 0..4);
    let mails = prop::collection::vec((address(), any::<i64>(), attempts), 1..4);
    let original = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..1500),
        "([A-Za-z-]{1,12}: [ -~]{0,40}\r?\n){0,4}(Message-ID: <[!-~]{0,20}>\r\n)?\r\n[ -~\r\n]{0,80}"
            .prop_map(String::into_bytes),
    ];
    let sender = address().prop_filter("nobody answers the null path", |sender| !is_null_path(sender));
    (sender, mails, original, 0..3u64).prop_map(|(sender, mails, original, beyond)| {
        let mails = mails
            .into_iter()
            .map(|(recipient, submission, attempts)| {
                let attempts = attempts
                    .into_iter()
                    .map(|(time, text, fatal)| FaillogRow {
                        time: UnixTime(time),
                        text: text.into_boxed_slice(),
                        fatal,
                    })
                    .collect();
                let mut mail = failed_mail(&sender, &recipient, attempts);
                mail.row.submission = UnixTime(submission);
                mail
            })
            .collect();
        let data_octets = original.len() as u64 + beyond.saturating_sub(1);
        FailedMessage { mails, data_octets, original: original.into() }
    })
}

proptest! {
    #[test]
    fn no_octet_of_another_message_can_get_in(
        message in any_message(),
        repeat in 0..100usize,
        before in 0..3usize,
        seed in any::<[u8; 32]>(),
    ) {
        let alone = compose(SETTINGS, &message, NOW, &mut Rng::from_seed(seed)).unwrap();
        // In a world with other messages, whose bounces are composed in between by the same generator.
        let mut rng = Rng::from_seed(seed);
        let other = marked(repeat);
        for _ in 0..before {
            let bounce = compose(SETTINGS, &other, NOW, &mut rng).unwrap();
            prop_assert!(bounce.windows(MARKER.len()).any(|window| window == MARKER));
        }
        let among_others = compose(SETTINGS, &message, NOW, &mut rng).unwrap();
        prop_assert!(!among_others.windows(MARKER.len()).any(|window| window == MARKER));
        prop_assert_eq!(without_randomness(&among_others), without_randomness(&alone));
    }

    #[test]
    fn every_bounce_can_be_taken_apart_and_keeps_the_original(message in any_message()) {
        let (whole, [text, status, returned]) = take_apart(&compose_seeded(&message));
        prop_assert_eq!(whole.media_type(), "multipart/report");
        prop_assert_eq!(text.media_type(), "text/plain");
        let may_be_whole = message.original.len() as u64 == message.data_octets
            && message.data_octets <= 1000
            && !original::is_hard_to_send(&message.original);
        let is_whole = ["message/rfc822", "message/global"].contains(&returned.media_type());
        let may_be_about_content = message.mails.iter().any(|mail| !mail.attempts.is_empty());
        prop_assert!(is_whole == may_be_whole || (may_be_whole && may_be_about_content));
        if returned.field("Content-Transfer-Encoding") == Some("quoted-printable") {
            prop_assert!(returned.body.is_ascii());
        } else if is_whole {
            prop_assert_eq!(&*returned.body, &*message.original);
        } else {
            prop_assert!(message.original.starts_with(&returned.body));
        }
        prop_assert!(is_whole || !original::is_hard_to_send(&returned.body));
        let groups = status_groups(&status);
        prop_assert_eq!(groups.len(), 1 + message.mails.len());
        for group in &groups[1..] {
            prop_assert!(group[0].starts_with("Final-Recipient: "));
            prop_assert_eq!(&*group[1], "Action: failed");
            prop_assert!(group[2].starts_with("Status: "));
        }
        // RFC 5322 section 2.1.1: nothing that is ours has a line that is too long, or a bare line end.
        for ours in [&text.body, &status.body] {
            let text = String::from_utf8_lossy(ours);
            prop_assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])));
        }
        prop_assert!(status_groups(&status).iter().flatten().all(|field| field.contains(": ")));
    }
}

#[test]
fn a_header_section_ends_with_its_empty_line() {
    for (message, section) in [
        (&b"A: 1\r\nB: 2\r\n\r\ntext"[..], &b"A: 1\r\nB: 2\r\n\r\n"[..]),
        (b"A: 1\n\ntext", b"A: 1\n\n"),
        (b"A: 1\nB: 2\n\n", b"A: 1\nB: 2\n\n"),
    ] {
        assert_eq!(header_section(message), section);
        assert!(!original::HeaderSection::find(section, false).is_cut, "{}", section.escape_ascii());
    }
}
