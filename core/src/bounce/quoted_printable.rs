//! Quoted-printable (RFC 2045 section 6.7), for originals and header sections that could not be sent as they are.

use alloc::vec::Vec;

/// Longest line, in octets without its end.
const LINE_LIMIT_OCTETS: usize = 76;
const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Encodes lines, which end with CRLF, CR or LF and come to end with CRLF.
pub(super) fn encode(octets: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(octets.len() + octets.len() / 8);
    let mut line_octets = 0;
    let mut rest = octets;
    while let Some((&octet, after)) = rest.split_first() {
        if matches!(octet, b'\r' | b'\n') {
            rest = rest.strip_prefix(b"\r\n").unwrap_or(after);
            encoded.extend_from_slice(b"\r\n");
            line_octets = 0;
            continue;
        }
        // White space at the end of a line may be lost on the way.
        let is_last = matches!(after.first(), None | Some(b'\r' | b'\n'));
        let is_plain =
            matches!(octet, b'!'..=b'<' | b'>'..=b'~') || (matches!(octet, b' ' | b'\t') && !is_last);
        let written_octets = if is_plain { 1 } else { 3 };
        // There has to be room for the sign that the line goes on.
        if line_octets + written_octets + 1 > LINE_LIMIT_OCTETS {
            encoded.extend_from_slice(b"=\r\n");
            line_octets = 0;
        }
        if is_plain {
            encoded.push(octet);
        } else {
            let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
            encoded.extend_from_slice(&[b'=', digit(octet >> 4), digit(octet & 15)]);
        }
        line_octets += written_octets;
        rest = after;
    }
    encoded
}

#[cfg(test)]
mod tests {
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
}
