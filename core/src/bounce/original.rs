//! The parts of the original that a bounce uses. The original may consist of any octets.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use alloc::vec::Vec;
use core::str;

/// Longest line that may go out as 7bit or 8bit (RFC 2045 section 2.7), in octets without its line end.
const LINE_LIMIT_OCTETS: usize = 998;
/// Longest message identifier that is copied, in octets with its angle brackets. A longer one does not fit a line, and is left
/// out.
const MESSAGE_ID_LIMIT_OCTETS: usize = 900;
/// Most message identifiers in References.
const REFERENCES_LIMIT: usize = 20;
/// The fields by which people and programs recognize a message.
const TELLING_FIELDS: [&str; 8] =
    ["Subject", "Message-ID", "References", "In-Reply-To", "From", "To", "Cc", "Date"];
/// Longest value of a header field that is examined, in octets.
const FIELD_LIMIT_OCTETS: usize = 16 * 1024;

/// The known part of the header section of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeaderSection<'a> {
    /// Whole fields only, without the empty line after them.
    pub(super) octets: &'a [u8],
    /// True if the header section continues.
    pub(super) is_cut: bool,
}

impl<'a> HeaderSection<'a> {
    /// Finds the header section in `octets`, which are the beginning of a message, or all of it if `is_whole`.
    pub(super) fn find(octets: &'a [u8], is_whole: bool) -> Self {
        let mut rest = octets;
        let mut last_field = octets;
        while let Some(line) = split_line(rest) {
            if line.content.is_empty() {
                return Self { octets: before(octets, rest), is_cut: false };
            }
            if !line.is_continuation() {
                last_field = rest;
            }
            rest = line.rest;
        }
        if is_whole {
            return Self { octets, is_cut: false };
        }
        // The end of the last field is unknown.
        Self { octets: before(octets, last_field), is_cut: true }
    }

    /// Returns the fields, each with all its lines and their ends.
    fn fields(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.octets;
        core::iter::from_fn(move || {
            let field = rest;
            rest = split_line(rest)?.rest;
            while let Some(line) = split_line(rest).filter(Line::is_continuation) {
                rest = line.rest;
            }
            Some(before(field, rest))
        })
    }

    /// Returns as many whole fields as fit into so many octets: first those by which a message is recognized, then the others, in
    /// their order. Also returns whether some are missing.
    pub(super) fn within(self, limit_octets: usize) -> (Cow<'a, [u8]>, bool) {
        if self.octets.len() <= limit_octets {
            return (Cow::Borrowed(self.octets), self.is_cut);
        }
        let mut left_octets = limit_octets;
        let mut fields: Vec<(&[u8], bool)> = self.fields().map(|field| (field, false)).collect();
        for telling in [true, false] {
            for (field, is_kept) in fields.iter_mut().filter(|(field, _)| is_telling(field) == telling) {
                if let Some(left) = left_octets.checked_sub(field.len()) {
                    (left_octets, *is_kept) = (left, true);
                }
            }
        }
        let kept = fields.iter().filter(|(_, is_kept)| *is_kept);
        (Cow::Owned(kept.flat_map(|(field, _)| field.iter().copied()).collect()), true)
    }
}

/// Returns the part of `octets` before `rest`, which is its end.
fn before<'a>(octets: &'a [u8], rest: &[u8]) -> &'a [u8] {
    octets.get(..octets.len() - rest.len()).unwrap_or_default()
}

/// Returns whether a field is one of [`TELLING_FIELDS`].
fn is_telling(field: &[u8]) -> bool {
    let name = field.split(|&octet| octet == b':').next().unwrap_or_default().trim_ascii_end();
    TELLING_FIELDS.iter().any(|telling| name.eq_ignore_ascii_case(telling.as_bytes()))
}

/// Returns the identifier in Message-ID, without its angle brackets.
pub(super) fn message_id(header: &[u8]) -> Option<String> {
    identifiers(&field(header, "Message-ID")?).into_iter().next()
}

/// Returns the identifiers for References of an answer, without their angle brackets (RFC 5322 section 3.6.4).
pub(super) fn references(header: &[u8], message_id: &str) -> Vec<String> {
    let mut references = match field(header, "References") {
        Some(references) => identifiers(&references),
        // With a single parent, its identifier stands in for the missing field.
        None => match field(header, "In-Reply-To").map(|parents| identifiers(&parents)) {
            Some(parents) if parents.len() == 1 => parents,
            _ => Vec::new(),
        },
    };
    references.retain(|reference| reference != message_id);
    references.push(message_id.to_owned());
    // The nearest ancestors are worth most.
    references.drain(..references.len().saturating_sub(REFERENCES_LIMIT));
    references
}

/// Returns whether servers may refuse or cut `octets` because no message may contain them (RFC 5322 sections 2.1.1 and 2.2): NUL,
/// or a line that is too long.
pub(super) fn is_hard_to_send(octets: &[u8]) -> bool {
    let is_long = |line: &[u8]| line.len() > LINE_LIMIT_OCTETS;
    memchr::memchr(0, octets).is_some() || octets.split(|octet| matches!(octet, b'\r' | b'\n')).any(is_long)
}

/// Returns the transfer encoding that `octets` have without a change. Of those allowed for a message (RFC 2046 section 5.2.1, RFC
/// 6522 section 3), binary is not used, because it requires an extension.
pub(super) fn transfer_encoding(octets: &[u8]) -> &'static str {
    if octets.is_ascii() && !is_hard_to_send(octets) { "7bit" } else { "8bit" }
}

/// A line, and the rest after it.
struct Line<'a> {
    content: &'a [u8],
    rest: &'a [u8],
}

impl Line<'_> {
    /// Returns whether the line belongs to the field before it (RFC 5322 section 2.2.3).
    fn is_continuation(&self) -> bool {
        matches!(self.content.first(), Some(b' ' | b'\t'))
    }
}

/// Splits at the first line end: CRLF, or a bare CR or LF, which is sent as CRLF.
fn split_line(octets: &[u8]) -> Option<Line<'_>> {
    if octets.is_empty() {
        return None;
    }
    let end = memchr::memchr2(b'\r', b'\n', octets);
    let Some((content, rest)) = end.and_then(|end| octets.split_at_checked(end)) else {
        return Some(Line { content: octets, rest: &[] });
    };
    let rest = rest.strip_prefix(b"\r\n").or_else(|| rest.get(1..)).unwrap_or_default();
    Some(Line { content, rest })
}

/// Returns the value of the first field of this name, unfolded.
fn field(header: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut value: Option<Vec<u8>> = None;
    let mut rest = header;
    while let Some(line) = split_line(rest) {
        rest = line.rest;
        let is_continuation = line.is_continuation();
        match &mut value {
            Some(value) if !is_continuation || value.len() + line.content.len() > FIELD_LIMIT_OCTETS => break,
            Some(value) => value.extend_from_slice(line.content),
            None if is_continuation => {}
            None => {
                let colon = line.content.iter().position(|&octet| octet == b':');
                let Some((found, after)) = colon.and_then(|colon| line.content.split_at_checked(colon))
                else {
                    continue;
                };
                if found.trim_ascii_end().eq_ignore_ascii_case(name.as_bytes()) {
                    value = Some(after.iter().skip(1).take(FIELD_LIMIT_OCTETS).copied().collect());
                }
            }
        }
    }
    value
}

/// Returns the texts between angle brackets that can be copied without a change.
fn identifiers(value: &[u8]) -> Vec<String> {
    value
        .split(|&octet| octet == b'<')
        .skip(1)
        .filter_map(|text| {
            let end = text.iter().position(|&octet| octet == b'>')?;
            let text = text.get(..end)?;
            let is_plain = text.iter().all(u8::is_ascii_graphic);
            if text.is_empty() || !is_plain || text.len() + 2 > MESSAGE_ID_LIMIT_OCTETS {
                return None;
            }
            str::from_utf8(text).ok().map(ToOwned::to_owned)
        })
        .collect()
}

#[cfg(test)]
mod tests;
