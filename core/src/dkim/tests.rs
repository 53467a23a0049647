use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::BytesMut;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::transparency::MailDataEncoder;

fn key(id: u64, domain: &str, algorithm: Algorithm) -> SigningKey {
    let parse = |text: &str| Domain::parse(text).unwrap();
    SigningKey { id: KeyId(id), domain: parse(domain), selector: parse(&format!("s{id}")), algorithm }
}

fn signing() -> Signing {
    let keys = vec![
        key(1, "example.org", Algorithm::RsaSha256),
        key(2, "example.org", Algorithm::Ed25519Sha256),
        key(3, "example.net", Algorithm::Ed25519Sha256),
    ];
    let rules = SigningRules { keys, mail: SignedMail::All };
    Signing { rules: Arc::new(rules), now: UnixTime(1_700_000_000) }
}

/// Returns what is drafted of a message that is read in pieces of this many octets.
fn draft(message: &[u8], piece: usize, body: Option<Digest>) -> Result<Drafted, Unsigned> {
    let mut draft = Draft::new(signing(), body);
    for piece in message.chunks(piece.max(1)) {
        if draft.add(piece).is_break() {
            break;
        }
    }
    draft.finish()
}

/// Returns the fields of its signatures.
fn drafted(message: &[u8], piece: usize) -> Vec<UnsignedField> {
    draft(message, piece, None).map_or(Vec::new(), |drafted| drafted.fields)
}

/// Returns the message as it goes over the wire, without doubled dots and the final one.
fn on_the_wire(message: &[u8]) -> Vec<u8> {
    let (mut encoder, mut octets) = (MailDataEncoder::default(), BytesMut::new());
    encoder.encode(message, &mut octets);
    encoder.finish(&mut octets);
    let lines = octets.strip_suffix(b".\r\n").unwrap();
    let mut plain = Vec::new();
    for (index, line) in split(lines, b"\r\n").into_iter().enumerate() {
        if index > 0 {
            plain.extend_from_slice(b"\r\n");
        }
        plain.extend_from_slice(if line.starts_with(b"..") { &line[1..] } else { line });
    }
    plain
}

fn split<'a>(octets: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut rest) = (Vec::new(), octets);
    while let Some(position) = rest.windows(at.len()).position(|window| window == at) {
        parts.push(&rest[..position]);
        rest = &rest[position + at.len()..];
    }
    parts.push(rest);
    parts
}

/// What a signature covers, computed by a verifier of the test's own, from a whole message with its signature in front.
struct Verified {
    body_hash: String,
    given_body_hash: String,
    digest: Digest,
}

/// RFC 6376 section 6.1.3, in the order of its text.
fn verify(signed: &[u8]) -> Verified {
    let (header, body) = match signed.windows(4).position(|window| window == b"\r\n\r\n") {
        Some(end) => (&signed[..end + 2], &signed[end + 4..]),
        None => (signed, &b""[..]),
    };
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for line in split(header.strip_suffix(b"\r\n").unwrap(), b"\r\n") {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            fields.last_mut().unwrap().extend([b"\r\n", line].concat());
        } else {
            fields.push(line.to_vec());
        }
    }
    let signature = fields.remove(0);
    let text = String::from_utf8(signature).unwrap();
    assert!(text.split("\r\n").all(|line| line.len() <= 78), "{text}");
    let tag = |name: &str| {
        let list = text.split_once(':').unwrap().1;
        let tags = list.split(';').map(|tag| tag.split_once('=').unwrap());
        let mut found = tags.filter(|(found, _)| found.trim() == name).map(|(_, value)| value);
        let value: String = found.next().unwrap().chars().filter(|c| !c.is_whitespace()).collect();
        assert_eq!(found.next(), None, "{name} is there once");
        value
    };
    let mut canonical = Vec::new();
    let mut left = fields;
    for name in tag("h").split(':') {
        let is_it = |field: &Vec<u8>| {
            let colon = field.iter().position(|octet| *octet == b':').unwrap();
            field[..colon].trim_ascii().eq_ignore_ascii_case(name.as_bytes())
        };
        if let Some(position) = left.iter().rposition(is_it) {
            canonical.extend(relaxed(&left.remove(position)));
            canonical.extend(b"\r\n");
        }
    }
    let (before, _) = text.split_once("b=").map(|_| text.rsplit_once("b=").unwrap()).unwrap();
    canonical.extend(relaxed(format!("{before}b=").as_bytes()));
    let mut lines: Vec<Vec<u8>> = split(body, b"\r\n").into_iter().map(blanks_reduced).collect();
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    let body: Vec<u8> = lines.into_iter().flat_map(|line| [line, b"\r\n".to_vec()].concat()).collect();
    Verified {
        body_hash: BASE64.encode(Sha256::digest(&body)),
        given_body_hash: tag("bh"),
        digest: Sha256::digest(&canonical).into(),
    }
}

fn blanks_reduced(line: &[u8]) -> Vec<u8> {
    let mut reduced = Vec::new();
    for &octet in line {
        match octet {
            b' ' | b'\t' if reduced.last() == Some(&b' ') => {}
            b' ' | b'\t' => reduced.push(b' '),
            _ => reduced.push(octet),
        }
    }
    if reduced.last() == Some(&b' ') {
        reduced.pop();
    }
    reduced
}

fn relaxed(field: &[u8]) -> Vec<u8> {
    let colon = field.iter().position(|octet| *octet == b':').unwrap();
    let unfolded: Vec<u8> = split(&field[colon + 1..], b"\r\n").concat();
    let value = blanks_reduced(&unfolded);
    let value = value.strip_prefix(b" ").unwrap_or(&value);
    [field[..colon].trim_ascii_end().to_ascii_lowercase().as_slice(), b":", value].concat()
}

#[track_caller]
fn assert_signed(message: &[u8]) {
    let fields = drafted(message, message.len());
    assert_eq!(fields.len(), 2, "{}", message.escape_ascii());
    let body = draft(message, message.len(), None).unwrap().body;
    for piece in [1, 2, 3, 7] {
        assert_eq!(drafted(message, piece), fields, "{}", message.escape_ascii());
        let again = draft(message, piece, Some(body)).unwrap();
        assert_eq!((&again.fields, again.body), (&fields, body), "{}", message.escape_ascii());
    }
    for field in fields {
        let (key, digest) = (field.key, field.digest);
        let mut signed = field.signed(&[0xab; 256]).into_bytes();
        assert!(String::from_utf8_lossy(&signed).contains(&format!("s=s{};", key.0)));
        signed.extend(on_the_wire(message));
        let verified = verify(&signed);
        assert_eq!(verified.body_hash, verified.given_body_hash, "{}", message.escape_ascii());
        assert_eq!(verified.digest, digest, "{}", message.escape_ascii());
    }
}

#[test]
fn what_is_signed_is_what_goes_over_the_wire() {
    let from = "From: A <a@example.org>";
    for rest in [
        "",
        "\n",
        "\r\n\r\n",
        "\n\n",
        "\n\n\n\n",
        "\n\nhello",
        "\n\nhello\r\n\r\n\r\n",
        "\n\n hello \t there \r\n\t\r\n  \n.\n..\n",
        "\r\rbody with\rbare\r\r\nends\n\r",
        "\nSubject: \t folded\n\tover\r\n  lines  \n\nx",
        "\nSubject: once\nsubject: twice\nTo: b@example.net\n\nx\n",
        "\nDate: now\nMessage-ID: <1@example.org>\nX-Other: y\n\n\u{e9}\0\u{1}\n",
        "\nDKIM-Signature: v=1; d=example.com; s=x; b=abc\n\nsigned by another\n",
        "\nSubject:\nTo:\r\n b@example.net\n\nempty fields\n",
    ] {
        assert_signed(format!("{from}{rest}").as_bytes());
    }
    assert_signed(&[from.as_bytes(), b"\nSubject: \xff\xfe\n\n\xff", &[b'x'; 10_000], b"\n"].concat());
}

#[test]
fn the_body_of_the_rfc_is_canonicalized_as_it_says() {
    // RFC 6376 section 3.4.5.
    let mut hash = body_hash::BodyHash::default();
    let (mut lines, mut body) = (wire_lines::WireLines::default(), &b" C \r\nD \t E\r\n\r\n\r\n"[..]);
    while let Some(part) = lines.next(&mut body) {
        hash.add(&part);
    }
    assert_eq!(hash.finish(), <Digest>::from(Sha256::digest(b" C\r\nD E\r\n")));
    let mut canonical = Vec::new();
    header::relax("a", b" X", &mut canonical);
    header::relax("b", b" Y\t\r\n\tZ  ", &mut canonical);
    assert_eq!(canonical, b"a:Xb:Y Z");
    assert_eq!(body_hash::BodyHash::default().finish(), <Digest>::from(Sha256::digest(b"")));
}

#[test]
fn mail_is_left_alone_that_has_no_one_author_of_a_domain_with_a_key_and_the_reason_is_said() {
    let domain = |text| Domain::parse(text).unwrap();
    for (message, why) in [
        ("", Unsigned::NoAuthor),
        ("\n", Unsigned::NoAuthor),
        ("hello", Unsigned::MalformedHeader),
        ("\nFrom: a@example.org\n\nin the body", Unsigned::NoAuthor),
        ("Subject: none\n\nx", Unsigned::NoAuthor),
        ("From: a@example.com\n\nx", Unsigned::NoKey(domain("example.com"))),
        ("From: a@sub.example.org\n\nx", Unsigned::NoKey(domain("sub.example.org"))),
        ("From: a@example.org\nFrom: b@example.org\n\nx", Unsigned::SeveralAuthors),
        ("From: a@example.org, b@example.net\n\nx", Unsigned::UnclearAuthor),
        ("From: a@example.org\nno field\n\nx", Unsigned::MalformedHeader),
        ("From: a@example.org\nSubject : blank before the colon\n\nx", Unsigned::MalformedHeader),
        (" From: a@example.org\n\nx", Unsigned::MalformedHeader),
        ("From: a@example.org\nSubject: x\n \t\n y\n\nx", Unsigned::MalformedHeader),
        ("From: a@example.org\nSubject:\r\n \r\n\r\nx", Unsigned::MalformedHeader),
        ("From:\r\t\r a@example.org\r\rx", Unsigned::MalformedHeader),
        ("From b Mon Jan  1 00:00:00 2024\nFrom: a@example.org\n\nx", Unsigned::MalformedHeader),
        (
            "From: a@example.org\nDKIM-Signature: v=1;\n d = Example.ORG;s=x;b=\n\nx",
            Unsigned::AlreadySigned(domain("example.org")),
        ),
    ] {
        assert_eq!(draft(message.as_bytes(), 5, None), Err(why), "{message}");
    }
    let long = format!("From: a@example.org\nX: {}\n\nx", "y".repeat(HEADER_LIMIT_OCTETS));
    for long in [&long[..], &long[..HEADER_LIMIT_OCTETS + 1]] {
        assert_eq!(draft(long.as_bytes(), 4096, None), Err(Unsigned::LongHeader));
        assert_eq!(author(long.as_bytes()), None);
    }
}

#[test]
fn mail_with_very_many_fields_is_left_alone_and_what_waits_for_a_signature_stays_small() {
    // Eight names are always listed, and those of From: and To: once more.
    let message = |count| format!("From: a@example.org\n{}\nx", "To:\n".repeat(count));
    let longest =
        "From: a@example.org\n".to_owned() + &"Content-Transfer-Encoding:\n".repeat(FIELDS_LIMIT - 9);
    assert_signed(message(FIELDS_LIMIT - 9).as_bytes());
    assert_signed(longest.as_bytes());
    for field in drafted(longest.as_bytes(), 100) {
        assert!(field.signed(&[0; 512]).len() < 8 * 1024);
    }
    for count in [FIELDS_LIMIT - 8, 10_000] {
        assert_eq!(draft(message(count).as_bytes(), 100, None), Err(Unsigned::ManyFields));
    }
}

#[test]
fn an_author_is_found_where_nothing_is_unclear() {
    let found = |value: &str| author_domain(value.as_bytes()).map(|domain| domain.to_string());
    for (value, domain) in [
        (" a@example.org", Some("example.org")),
        ("A B <a@EXAMPLE.org.>", Some("example.org")),
        ("\"B, A\" <a@example.org>", Some("example.org")),
        ("\"a@example.net\" <a@example.org> (and@example.com)", Some("example.org")),
        ("x@example.org <a@example.org>", Some("example.org")),
        ("J. \u{dc}. Doe =?utf-8?q?=40?= <a.b.@example.org>", Some("example.org")),
        ("a @ (c) example.org", Some("example.org")),
        ("<\"a b\"\r\n\t@example.org>", Some("example.org")),
        ("\"a@example.net\"@example.org", Some("example.org")),
        ("a(b@c(d))@example.org\r\n (x)", Some("example.org")),
        ("a@example.org, , B <b@example.org>,", Some("example.org")),
        ("us: a@example.org, <b@example.org>;", Some("example.org")),
        ("\"us\" all: a@example.org;, <b@example.org>", Some("example.org")),
        ("a@b\u{fc}cher.example", Some("xn--bcher-kva.example")),
        ("\"a\\\"@example.net\" <a@example.org>", Some("example.org")),
        ("a@example.org, b@example.net", None),
        ("a@example.org b", None),
        ("<a@example.org> b@example.net", None),
        ("<a@example.org> <b@example.net>", None),
        ("a", None),
        ("a@", None),
        ("a@example.org, b", None),
        ("a@[192.0.2.1]", None),
        ("<>", None),
        ("\"a@example.org", None),
        ("a@example.org (", None),
        ("<a@example.org", None),
        ("a@example.org>", None),
        ("", None),
        (",", None),
        ("x@example.net <a@example.org>", None),
        ("<@x.example,@y.example:a@example.org>", None),
        ("<b@evil.org> :<c@example.com>", None),
        ("<ceo@bank.example>:;me@example.com", None),
        ("ceo:;, me@example.com", None),
        (":a@example.org;", None),
        ("us: a@example.org", None),
        ("us: them: a@example.org;;", None),
        ("us: a@example.org; b@example.org", None),
        ("a@example.org; b@example.org", None),
        ("a@evil.com b@example.com", None),
        ("b a@example.com", None),
        ("<a@evil.org@example.com>", None),
        ("a@evil.org@example.com", None),
        ("a@example.com(c).evil.com", None),
        ("<a@example.com(c).evil>", None),
        ("a@example. com", None),
        ("a@example.com\"x\".evil", None),
        ("a@\"example.com\"", None),
        ("<b@evil.org,c@example.com>", None),
        ("<b@evil.org;c@example.com>", None),
        ("<c@example.com:evil>", None),
        ("<<a@example.org>>", None),
        ("<A a@example.org>", None),
        ("<(c)>, a@example.org", None),
        ("a@example.org (<b@evil.org>)", None),
        ("a@example.org (\")", None),
        ("a@example.org\0", None),
        ("a\\@evil.org,@example.org", None),
        ("[a@evil.org] <a@example.org>", None),
        ("@example.org", None),
        ("a@example.org\u{ff0c}b@evil.org", None),
    ] {
        assert_eq!(found(value).as_deref(), domain, "{value}");
    }
    assert_eq!(author_domain(b"\xff <a@example.org>"), None);
    let many = |count| ["a@example.org"; 60][..count].join(",");
    assert_eq!(found(&many(AUTHORS_LIMIT)).as_deref(), Some("example.org"));
    assert_eq!(found(&many(AUTHORS_LIMIT + 1)), None);
}

#[test]
fn the_fields_that_matter_are_signed_once_more_than_they_are_there() {
    let field = drafted(b"From: a@example.org\nSubject: x\nSubject: y\nDate: z\n\n", 9).remove(0);
    let text: String = field.signed(b"").chars().filter(|c| !c.is_whitespace()).collect();
    assert!(text.starts_with("DKIM-Signature:v=1;a=rsa-sha256;c=relaxed/relaxed;d=example.org;s=s1;t=1700000000;h=from:from:to:cc:subject:subject:subject:reply-to:"), "{text}");
    assert!(text.contains(":date:date;bh="), "{text}");
    assert!(!text.contains("message-id"), "{text}");
}

#[test]
fn marks_decide_unless_all_mail_is_signed() {
    let of = |mail, mark| SigningRules { mail, ..(*signing().rules).clone() }.covers(mark);
    assert!(of(SignedMail::All, SignMark::Unmarked) && of(SignedMail::Marked, SignMark::Wanted));
    assert!(!of(SignedMail::Marked, SignMark::Unmarked) && of(SignedMail::Marked, SignMark::IfPossible));
    assert!(!SigningRules::default().covers(SignMark::Wanted));
    let rules = signing().rules;
    assert_eq!(rules.mark_of_own("postmaster@Example.ORG"), SignMark::IfPossible);
    assert_eq!(rules.mark_of_own("postmaster@example.com"), SignMark::Unmarked);
    assert_eq!(rules.mark_of_own("postmaster"), SignMark::Unmarked);
    assert_eq!(rules.mark_of_submitted(b"From: a@example.net\n\n"), SignMark::Wanted);
    assert_eq!(rules.mark_of_submitted(b"From: a@example.com\n\n"), SignMark::Unmarked);
}

proptest! {
    #[test]
    fn any_message_is_signed_as_it_goes_over_the_wire(
        header in "([A-Za-z-]{1,9}:[ -~\t]{0,30}(\r\n|\n|\r)([ \t][!-~]{0,9}(\r\n|\n|\r))?){0,4}",
        body in prop::collection::vec(prop::sample::select(&b"\r\n \t.ab\0\xff"[..]), 0..120),
    ) {
        let message = [b"From: a@example.org\n", header.as_bytes(), b"\n", &body].concat();
        if !drafted(&message, 3).is_empty() {
            assert_signed(&message);
        }
    }

    #[test]
    fn no_octets_make_a_draft_fail(octets: Vec<u8>, piece in 1usize..9) {
        drafted(&octets, piece);
        author_domain(&octets);
    }
}
