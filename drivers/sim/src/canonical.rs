//! Mail data as it travels.

use bytes::Bytes;

/// Returns the canonical form of a message's octets on the wire: CRLF line ends only, one at the end (a naive model of what the
/// core does as a stream).
pub(crate) fn canonical(data: &[u8]) -> Bytes {
    let mut canonical = Vec::with_capacity(data.len() + data.len() / 8 + 2);
    let mut rest = data;
    while let Some(position) = memchr::memchr2(b'\r', b'\n', rest) {
        let (text, end) = rest.split_at(position);
        canonical.extend_from_slice(text);
        canonical.extend_from_slice(b"\r\n");
        rest = end.get(if end.starts_with(b"\r\n") { 2 } else { 1 }..).unwrap_or_default();
    }
    canonical.extend_from_slice(rest);
    if !canonical.is_empty() && !canonical.ends_with(b"\r\n") {
        canonical.extend_from_slice(b"\r\n");
    }
    canonical.into()
}

#[cfg(test)]
mod tests;
