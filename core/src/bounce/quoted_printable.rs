//! Quoted-printable (RFC 2045 section 6.7), for originals and header sections that cannot be sent as they are.

use alloc::vec::Vec;

/// Longest line, in octets without its end.
const LINE_LIMIT_OCTETS: usize = 76;
const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Encodes lines that end with CRLF, CR or LF. The encoded lines end with CRLF.
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
        // White space at the end of a line may be lost in transit.
        let is_last = matches!(after.first(), None | Some(b'\r' | b'\n'));
        let is_plain =
            matches!(octet, b'!'..=b'<' | b'>'..=b'~') || (matches!(octet, b' ' | b'\t') && !is_last);
        let written_octets = if is_plain { 1 } else { 3 };
        // Leaves room for the sign that the line continues.
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
mod tests;
