//! What comes back of the original.

use super::*;

fn quoted_printable(octets: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(octets.to_vec()).unwrap().replace("=\r\n", "");
    let mut pieces = text.split('=');
    let mut decoded = pieces.next().unwrap().as_bytes().to_vec();
    for piece in pieces {
        decoded.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        decoded.extend_from_slice(&piece.as_bytes()[2..]);
    }
    decoded
}

fn words(text: &Part) -> String {
    str::from_utf8(&text.body).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn an_original_that_servers_refuse_for_its_form_comes_back_as_headers() {
    let long = "x".repeat(999);
    let body_with_nul = b"Subject: x\r\n\r\na\0b\r\n".to_vec();
    let long_line = format!("Subject: x\r\n\r\n{long}\r\n").into_bytes();
    let settings = BounceSettings { return_limit_octets: 10_000, ..SETTINGS };
    for original in [body_with_nul, long_line] {
        let octets = compose(settings, &simple(&original), NOW, &mut Rng::from_seed([1; 32])).unwrap();
        let (_, [text, _, returned]) = take_apart(&octets);
        assert_eq!((returned.media_type(), &*returned.body), ("text/rfc822-headers", &b"Subject: x\r\n"[..]));
        assert!(words(&text).contains("lines of more than 998 octets, or NUL characters"), "{text:?}");
        assert!(words(&text).contains("only its headers are attached."), "{text:?}");
    }
    let allowed = format!("Subject: x\r\n\r\n{}\r\n", &long[1..]);
    let octets = compose(settings, &simple(allowed.as_bytes()), NOW, &mut Rng::from_seed([1; 32])).unwrap();
    let (_, [_, _, returned]) = take_apart(&octets);
    assert_eq!(returned.body, allowed.as_bytes());

    // So does a header section of that form, which has to be written otherwise.
    let header = format!("Subject: a\0b\r\nX: {long}\r\n");
    let octets = compose(settings, &simple(header.as_bytes()), NOW, &mut Rng::from_seed([1; 32])).unwrap();
    assert!(!original::is_hard_to_send(&octets));
    let (whole, [_, _, returned]) = take_apart(&octets);
    assert_eq!(returned.field("Content-Transfer-Encoding"), Some("quoted-printable"));
    assert_eq!(whole.field("Content-Transfer-Encoding"), Some("7bit"));
    assert_eq!(quoted_printable(&returned.body), header.as_bytes());
}

#[test]
fn an_original_that_was_refused_for_what_it_is_comes_back_as_headers() {
    let address = "192.0.2.1:25".parse().unwrap();
    let said = |reply: &str, command: &str| FailureText::server(reply, "mx.example.net", address, command);
    let spam = || attempt(1, &said("451 4.7.1 spam?", "end of data"), false);
    for (attempts, is_whole) in [
        (vec![attempt(1, &said("554 no", "end of data"), true)], false),
        (vec![attempt(1, &said("552 5.3.4 too big", "MAIL FROM"), true)], false),
        (vec![attempt(1, &refused(), true)], true),
        // What ended in a fatal failure did not fail for what came before.
        (vec![spam(), attempt(2, &refused(), true)], true),
        (vec![spam(), attempt(2, "Failed to reach any MX", false)], false),
    ] {
        let mails = vec![
            failed_mail(b"s@example.org", b"a@example.net", vec![attempt(1, &refused(), true)]),
            failed_mail(b"s@example.org", b"b@example.net", attempts),
        ];
        let (_, [text, _, returned]) =
            take_apart(&compose_seeded(&message(b"Subject: x\r\n\r\nbody\r\n", mails)));
        assert_eq!(returned.media_type() == "message/rfc822", is_whole, "{text:?}");
        assert_eq!(words(&text).contains("refused the message for what it contains"), !is_whole, "{text:?}");
        assert_eq!(returned.body == b"Subject: x\r\n", !is_whole);
    }
}

#[test]
fn of_an_endless_header_section_what_identifies_the_message_comes_back() {
    let received = "Received: from somewhere\r\n by elsewhere\r\n";
    let header = format!(
        "{}Message-ID: <id@example.org>\r\nTo: y\r\nSubject: x\r\nDate: today\r\n",
        received.repeat(10_000)
    );
    let original = format!("{header}\r\nbody").into_bytes();
    assert_eq!(needed_octets(&original, original.len() as u64, 1000), original.len() as u64);
    let (whole, [text, _, returned]) = take_apart(&compose_seeded(&simple(&original)));
    assert_eq!(whole.field("In-Reply-To"), Some("<id@example.org>"));
    assert!(words(&text).contains("The headers are long: some of them are left out."), "{text:?}");
    let body = String::from_utf8(returned.body).unwrap();
    assert!(body.starts_with(received) && body.len() <= 256 * 1024 && body.len() > 256 * 1024 - 100);
    assert!(body.ends_with("Message-ID: <id@example.org>\r\nTo: y\r\nSubject: x\r\nDate: today\r\n"));
}

#[test]
fn no_more_of_a_large_original_is_needed_than_has_its_header_section() {
    let chunk = crate::outbox::DATA_CHUNK_OCTETS;
    let most = crate::outbox::HEADER_LIMIT_OCTETS as u64;
    let with_header = |octets: usize| [vec![b'x'; octets], b"\r\n\r\n".to_vec(), vec![b'y'; chunk]].concat();
    let needed = |original: &[u8], data_octets| needed_octets(original, data_octets, 1000);
    assert_eq!(needed(b"a", 1000), 1000);
    assert_eq!(needed(&with_header(chunk - 4), 10 * most), chunk as u64);
    assert_eq!(needed(&with_header(chunk), 10 * most), most);
    assert_eq!(needed(&with_header(chunk), most / 2), most / 2);
}

#[test]
fn an_original_up_to_the_limit_comes_back_whole_a_larger_one_as_headers() {
    let original = |octets: usize| {
        let header = b"Subject: x\r\nTo: y\r\n\r\n".to_vec();
        let body = vec![b'x'; octets - header.len()];
        [header, body].concat()
    };
    let (_, [_, _, whole]) = take_apart(&compose_seeded(&simple(&original(1000))));
    assert_eq!(whole.media_type(), "message/rfc822");
    assert_eq!(whole.body, original(1000));
    let (_, [_, _, headers]) = take_apart(&compose_seeded(&simple(&original(1001))));
    assert_eq!(headers.media_type(), "text/rfc822-headers");
    assert_eq!(headers.body, b"Subject: x\r\nTo: y\r\n");
}

#[test]
fn of_an_original_that_was_not_read_whole_only_whole_header_lines_come_back() {
    let mut message = simple(b"Subject: x\r\nTo: y\r\nCc: trunca");
    message.data_octets = 900;
    let (_, [_, _, headers]) = take_apart(&compose_seeded(&message));
    assert_eq!(
        (headers.media_type(), &*headers.body),
        ("text/rfc822-headers", &b"Subject: x\r\nTo: y\r\n"[..])
    );
}
