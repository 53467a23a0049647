//! Texts from outside, made fit to be shown: in a log line, a faillog row, or a bounce.

use alloc::borrow::ToOwned;
use alloc::string::String;

/// Longest part of an address or a remote specification that a text shows, in octets: enough to recognize it by.
pub const SHOWN_LIMIT_OCTETS: usize = 200;
/// Stands where something was left out.
pub(crate) const ELLIPSIS: &str = "…";

/// The text with everything replaced that could end a line or steer a terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\t' => ' ',
            // What Unicode calls line and paragraph separators, some programs take for line ends, too.
            '\u{2028}' | '\u{2029}' => '?',
            control if control.is_control() => '?',
            printable => printable,
        })
        .collect()
}

/// The beginning of a text, marked as such if it is not the whole.
pub(crate) fn truncated(text: &str, limit_octets: usize) -> String {
    if text.len() <= limit_octets {
        return text.to_owned();
    }
    let end = limit_octets.saturating_sub(ELLIPSIS.len());
    let end = (0..=end).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    let mut beginning = text.get(..end).unwrap_or_default().to_owned();
    beginning.push_str(ELLIPSIS);
    beginning
}

/// An address for a text: at most [`SHOWN_LIMIT_OCTETS`] of it.
pub(crate) fn shortened(address: &str) -> String {
    truncated(address, SHOWN_LIMIT_OCTETS)
}

/// Shortens octets that may be no text, as they are to be shown.
pub fn shortened_octets(address: &[u8]) -> String {
    // One octet more than is shown, so that what was left out is marked.
    shortened(&String::from_utf8_lossy(address.get(..=SHOWN_LIMIT_OCTETS).unwrap_or(address)))
}

#[cfg(test)]
mod tests;
