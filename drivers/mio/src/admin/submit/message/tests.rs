use super::*;

fn read(text: &[u8], ends_at_dot: bool) -> Message {
    Message::read(text, ends_at_dot).unwrap()
}

fn completed(text: &[u8]) -> String {
    let from = Mailbox::parse(b"root@me.example").unwrap();
    let origin = Origin {
        from: &from,
        full_name: Some("Charlie Root"),
        date: "DATE",
        message_id: "ID@me.example",
        host: "me.example",
    };
    let mut message = read(text, false);
    message.complete(&origin);
    String::from_utf8(message.into_octets()).unwrap()
}

#[test]
fn what_is_missing_is_added_and_what_is_not_for_recipients_goes() {
    let text =
        b"To: a@example.org\nbcc: b@example.org,\n c@example.org\nReturn-Path: <x>\nSubject: x\n\nbody\n";
    let expected = "Date: DATE\r\nMessage-ID: <ID@me.example>\r\nFrom: \"Charlie Root\" <root@me.example>\r\n\
        To: a@example.org\r\nSubject: x\r\n\r\nbody\r\n";
    assert_eq!(completed(text), expected);
}

#[test]
fn what_is_there_stays_as_it_is() {
    let text = "from: x@y.example\r\nDATE : y\r\nmessage-id: <z>\r\nSubject: a\r\n b\r\n\r\n..\r\n\r\nlast line without an end";
    assert_eq!(completed(text.as_bytes()), format!("{text}\r\n"));
}

/// A text without a header section, as from `echo`, is a body.
#[test]
fn a_text_without_fields_is_a_body() {
    for text in ["hello\n", "\nhello\n"] {
        let shown = completed(text.as_bytes());
        assert!(shown.ends_with("<root@me.example>\r\n\r\nhello\r\n"), "{shown}");
    }
    assert!(completed(b"hello: world\n").ends_with("<root@me.example>\r\nhello: world\r\n\r\n"));
    assert!(matches!(read(b"hello\n", false).recipients(), Err(MessageError::NoHeader)));
    assert!(
        completed(b"Subject: x\nno field\n\nbody\n").ends_with("Subject: x\r\n\r\nno field\r\n\r\nbody\r\n")
    );
}

#[test]
fn a_lone_dot_ends_the_message_unless_it_is_a_line_like_others() {
    let text = b"Subject: x\n\none\n..\n.\ntwo\n";
    assert_eq!(read(text, true).body, b"one\r\n..\r\n");
    assert_eq!(read(text, false).body, b"one\r\n..\r\n.\r\ntwo\r\n");
    assert_eq!(read(b".\r\nSubject: x\n", true), Message::default());
}

#[test]
fn the_line_of_a_folder_is_no_field() {
    let message = read(b"From root Mon Nov 30 12:00:00 2026\nSubject: x\n\nFrom me\n", false);
    assert_eq!(message.fields, [b"Subject: x\r\n"]);
    assert_eq!(message.body, b"From me\r\n");
}

/// A text may begin as such a line does.
#[test]
fn a_text_that_begins_with_from_is_a_body() {
    for (text, body) in [
        (&b"From me\n"[..], &b"From me\r\n"[..]),
        (b"From me\nto you\n", b"From me\r\nto you\r\n"),
        (b"From me\n\nto: you\n", b"From me\r\n\r\nto: you\r\n"),
        (b"From me\nFrom you\nTo: x\n", b"From me\r\nFrom you\r\nTo: x\r\n"),
    ] {
        let message = read(text, false);
        assert_eq!((message.fields.len(), &*message.body), (0, body), "{}", text.escape_ascii());
    }
    assert_eq!(read(b"From : a@x\n\n", false).fields, [b"From : a@x\r\n"]);
}

/// On the wire a bare CR ends a line. A field behind one must neither be hidden from us nor be taken for one where it is body.
#[test]
fn a_bare_cr_ends_a_line_of_the_header() {
    for (text, fields, body) in [
        (&b"To: a@x\rBcc: s@y\n\nhi\n"[..], &[&b"To: a@x\r\n"[..], b"Bcc: s@y\r\n"][..], &b"hi\r\n"[..]),
        (b"To: a@x\r\rBcc: s@y\rz\n\n", &[b"To: a@x\r\n"], b"Bcc: s@y\rz\r\n\r\n"),
        (b"Subject: x\r\r\nTo: a@x\n", &[b"Subject: x\r\n"], b"To: a@x\r\n"),
        (b"Subject: x\r y\rno field\rz\n", &[b"Subject: x\r\n y\r\n"], b"no field\rz\r\n"),
        (b"Subject: x\r", &[b"Subject: x\r\n"], b""),
    ] {
        let message = read(text, false);
        assert_eq!(message.fields, fields, "{}", text.escape_ascii());
        assert_eq!(message.body, body, "{}", text.escape_ascii());
    }
    let hidden = completed(b"To: a@x\rBcc: s@y\rSubject: hi\rReturn-Path: <z@q>\n\nhi\n");
    assert!(hidden.ends_with("To: a@x\r\nSubject: hi\r\n\r\nhi\r\n"), "{hidden}");
    assert_eq!(read(b"To: a@x\rCc: b@x\n\n", false).recipients().unwrap(), ["a@x", "b@x"]);
}

/// A name on the command line cannot begin a field.
#[test]
fn a_full_name_is_no_line() {
    let from = Mailbox::parse(b"root@me.example").unwrap();
    let origin = Origin {
        from: &from,
        full_name: Some("A\rBcc: s@y\nCc: t@y"),
        date: "D",
        message_id: "I",
        host: "h",
    };
    let mut message = read(b"x\n", false);
    message.complete(&origin);
    let written = String::from_utf8(message.into_octets()).unwrap();
    assert!(!written.contains("\rBcc") && !written.contains("\nCc"), "{written}");
}

/// An address that cannot be read is not sent to another.
#[test]
fn a_recipient_that_is_no_text_is_refused() {
    assert!(matches!(read(b"To: a\xff@x\n\n", false).recipients(), Err(MessageError::NotText(_))));
    assert_eq!(read(b"To: J\xfcrgen <a@x> (\xfc)\n\n", false).recipients().unwrap(), ["a@x"]);
}

/// Recipients of the header are limited, the body by the size of the message only.
#[test]
fn the_header_section_is_limited() {
    let of = |octets: usize| [b"Subject: x\n", &b" y\n".repeat(octets / 3)[..], b"\nbody\n"].concat();
    assert!(Message::read(&of(HEADER_LIMIT_OCTETS - 100)[..], false).is_ok());
    let refused = Message::read(&of(HEADER_LIMIT_OCTETS + 100)[..], false);
    assert!(matches!(refused, Err(MessageError::HeaderTooLarge)), "{refused:?}");
    let body = [b"Subject: x\n\n", &b"y\n".repeat(HEADER_LIMIT_OCTETS)[..]].concat();
    assert_eq!(read(&body, false).body.len(), 3 * HEADER_LIMIT_OCTETS);
}

/// Octets of any kind reach the database as they are.
#[test]
fn octets_are_kept() {
    let message = read(b"Subject: \xff\n\n\0\xfe\rx\n", false);
    assert_eq!(message.into_octets(), b"Subject: \xff\r\n\r\n\0\xfe\rx\r\n");
}

#[test]
fn recipients_are_those_of_the_header() {
    for (text, expected) in [
        ("To: a@x, b@x\ncc: c@x\nBcc:\n d@x\nFrom: e@x\n\n", Some(&["a@x", "b@x", "c@x", "d@x"][..])),
        ("To: a@x\nResent-To: b@x\nResent-bcc: c@x\n\n", Some(&["b@x", "c@x"])),
        ("To: undisclosed-recipients:;\n\n", Some(&[])),
        ("Subject: x\n\nTo: a@x\n", Some(&[])),
        ("To: bob alice\n\n", None),
    ] {
        let found = read(text.as_bytes(), false).recipients().ok();
        assert_eq!(
            found.as_deref(),
            expected.map(|list| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).as_deref(),
            "{text}"
        );
    }
}

/// As cron writes it.
#[test]
fn local_addresses_of_the_header_get_a_domain() {
    let text = b"From: root (Cron Daemon)\nTo: root,\n bob@example.org\nSubject: root\nDate: x\nMessage-ID: <y>\n\nTo: root\n";
    let expected = "From: root@me.example (Cron Daemon)\r\nTo: root@me.example,\r\n bob@example.org\r\nSubject: root\r\nDate: x\r\n\
        Message-ID: <y>\r\n\r\nTo: root\r\n";
    assert_eq!(completed(text), expected);
    // What is no list stays as it is.
    assert!(completed(b"To: bob alice\n\n").ends_with("To: bob alice\r\n\r\n"));
}
