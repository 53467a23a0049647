use super::*;
use proptest::prelude::*;

fn found(octets: &[u8], is_whole: bool) -> (&[u8], bool) {
    let HeaderSection { octets, is_cut } = HeaderSection::find(octets, is_whole);
    (octets, is_cut)
}

#[test]
fn the_header_section_ends_at_the_empty_line_however_lines_end() {
    for is_whole in [true, false] {
        assert_eq!(found(b"A: 1\r\nB: 2\r\n\r\nbody", is_whole), (&b"A: 1\r\nB: 2\r\n"[..], false));
        assert_eq!(found(b"A: 1\nB: 2\n\nbody", is_whole), (&b"A: 1\nB: 2\n"[..], false));
        assert_eq!(found(b"A: 1\rB: 2\r\rbody", is_whole), (&b"A: 1\rB: 2\r"[..], false));
        assert_eq!(found(b"\r\nbody", is_whole), (&b""[..], false));
    }
}

#[test]
fn a_truncated_header_section_ends_with_a_whole_field() {
    assert_eq!(found(b"A: 1\r\nB: 2\r\n 3\r\n", false), (&b"A: 1\r\n"[..], true));
    assert_eq!(found(b"A: 1\r\nB: 2", false), (&b"A: 1\r\n"[..], true));
    assert_eq!(found(b"A: 1\r\nB: 2", true), (&b"A: 1\r\nB: 2"[..], false));
    assert_eq!(found(b"A: 1", false), (&b""[..], true));
}

#[test]
fn of_too_many_fields_those_stay_that_tell_which_message_it_is() {
    let header = b"Received: a\r\n long one\r\nX: 1\r\nTo: c\r\n d\r\nSUBJECT : b\r\nX: 2\r\n";
    let section = HeaderSection::find(header, true);
    let kept = |limit| String::from_utf8(section.within(limit).0.into_owned()).unwrap();
    assert_eq!(section.within(header.len()), (Cow::Borrowed(&header[..]), false));
    assert_eq!(kept(header.len() - 1), "Received: a\r\n long one\r\nX: 1\r\nTo: c\r\n d\r\nSUBJECT : b\r\n");
    assert_eq!(kept(35), "X: 1\r\nTo: c\r\n d\r\nSUBJECT : b\r\n");
    assert_eq!(kept(11), "To: c\r\n d\r\n");
    assert!(section.within(11).1);
}

#[test]
fn a_message_id_is_found_in_any_case_and_folded() {
    for header in [
        "Message-ID: <a@b>\r\n",
        "Subject: x\nMESSAGE-id:<a@b>\n",
        "Subject: Message-ID:\r\n <no@no>\r\nMessage-Id :\r\n\t<a@b> (comment)\r\n",
        "Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\n",
    ] {
        assert_eq!(message_id(header.as_bytes()).as_deref(), Some("a@b"), "{header:?}");
    }
}

#[test]
fn what_could_break_a_header_is_no_message_id() {
    let long = "Message-ID: <".to_owned() + &"x".repeat(900) + "@b>";
    for header in [
        "",
        "Message-ID:",
        "Message-ID: a@b",
        "Message-ID: <a b>",
        "Message-ID: <a@b\r\n",
        "Message-ID: <>",
        "Message-ID: <a\0b>",
        "Message-ID: <\u{e4}@b>",
        &long,
    ] {
        assert_eq!(message_id(header.as_bytes()), None, "{header:?}");
    }
}

#[test]
fn references_continue_the_thread() {
    // RFC 5322 section 3.6.4.
    let of = |header: &str| references(header.as_bytes(), "c");
    assert_eq!(of("References: <a> <b>\r\n <c>\r\nIn-Reply-To: <x>\r\n"), ["a", "b", "c"]);
    assert_eq!(of("In-Reply-To: <x>\r\n"), ["x", "c"]);
    assert_eq!(of("In-Reply-To: <x> <y>\r\n"), ["c"]);
    let many = of(&("References: ".to_owned() + &"<r> ".repeat(100)));
    assert_eq!((many.len(), many.last().map(String::as_str)), (REFERENCES_LIMIT, Some("c")));
}

#[test]
fn only_what_fits_7bit_is_called_so() {
    assert_eq!(transfer_encoding(b"plain\r\ntext\n"), "7bit");
    assert_eq!(transfer_encoding(b""), "7bit");
    for octets in [&b"gr\xfcn"[..], b"a\0b", &[b'x'; LINE_LIMIT_OCTETS + 1]] {
        assert_eq!(transfer_encoding(octets), "8bit");
    }
}

proptest! {
    #[test]
    fn a_header_section_is_a_beginning_without_an_empty_line(
        octets in prop::collection::vec(prop::sample::select(&b"\r\na:"[..]), 0..20),
        is_whole: bool,
    ) {
        let section = HeaderSection::find(&octets, is_whole);
        prop_assert!(octets.starts_with(section.octets));
        prop_assert_eq!(section.fields().flatten().copied().collect::<Vec<u8>>(), section.octets);
        let mut rest = section.octets;
        while let Some(line) = split_line(rest) {
            prop_assert!(!line.content.is_empty());
            rest = line.rest;
        }
    }

    #[test]
    fn identifiers_are_always_safe(octets in prop::collection::vec(any::<u8>(), 0..80)) {
        let header = [b"Message-ID: <", &*octets, b"> <x@y>\r\n"].concat();
        if let Some(id) = message_id(&header) {
            prop_assert!(id.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'<' | b'>')));
        }
    }
}
