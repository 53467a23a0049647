use super::*;
use alloc::string::String;
use proptest::prelude::*;

fn encoded(octets: &[u8]) -> String {
    String::from_utf8(encode(octets)).unwrap()
}

#[test]
fn only_what_could_be_lost_is_written_otherwise() {
    assert_eq!(encoded(b"A: b=c\tx \nB: \xe4\0\r\n"), "A: b=3Dc\tx=20\r\nB: =E4=00\r\n");
    assert_eq!(encoded(&[b'a'; 77]), "a".repeat(75) + "=\r\naa");
    assert_eq!(encoded(&[0; 26]), "=00".repeat(25) + "=\r\n=00");
}

proptest! {
    #[test]
    fn it_is_short_lines_of_ascii_and_can_be_decoded(
        octets in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"ab =\r\n"[..])], 0..300),
    ) {
        let text = encoded(&octets);
        let mut decoded = Vec::new();
        for line in text.split("\r\n") {
            prop_assert!(line.len() <= LINE_LIMIT_OCTETS && line.is_ascii() && !line.ends_with([' ', '\t']));
            let (line, end) = line.strip_suffix('=').map_or((line, &b"\r\n"[..]), |line| (line, b""));
            let mut pieces = line.split('=');
            decoded.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
            for piece in pieces {
                decoded.push(u8::from_str_radix(&piece[..2], 16).unwrap());
                decoded.extend_from_slice(&piece.as_bytes()[2..]);
            }
            decoded.extend_from_slice(end);
        }
        // The end of the last line was put there by this test.
        decoded.truncate(decoded.len().saturating_sub(2));
        let mut expected = Vec::new();
        let mut rest = &octets[..];
        while let Some((octet, after)) = rest.split_first() {
            if matches!(octet, b'\r' | b'\n') {
                expected.extend_from_slice(b"\r\n");
                rest = rest.strip_prefix(b"\r\n").unwrap_or(after);
            } else {
                expected.push(*octet);
                rest = after;
            }
        }
        prop_assert_eq!(decoded, expected);
    }
}
