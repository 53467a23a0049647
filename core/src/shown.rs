//! Makes texts from outside fit to be shown in a log line, a faillog row, or a bounce.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;

use crate::one_line::is_misleading;

/// Most octets of an address or a remote specification that a text shows: enough to recognize it.
pub const SHOWN_LIMIT_OCTETS: usize = 200;
/// Marks an omission.
pub(crate) const ELLIPSIS: &str = "…";

/// Returns the text with every character replaced that could end a line, control a terminal, or mislead about the order of others.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\t' => ' ',
            misleading if is_misleading(misleading) => '?',
            printable => printable,
        })
        .collect()
}

/// Returns the beginning of a text, with a mark if something was cut.
pub fn truncated(text: &str, limit_octets: usize) -> String {
    if text.len() <= limit_octets {
        return text.to_owned();
    }
    let end = limit_octets.saturating_sub(ELLIPSIS.len());
    let end = (0..=end).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    let mut beginning = text.get(..end).unwrap_or_default().to_owned();
    beginning.push_str(ELLIPSIS);
    beginning
}

/// Returns an address for a text: at most [`SHOWN_LIMIT_OCTETS`] of it.
pub(crate) fn shortened(address: &str) -> String {
    truncated(address, SHOWN_LIMIT_OCTETS)
}

/// An address as a text shows it: shortened if it is very long. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownAddress(Arc<str>);

impl ShownAddress {
    /// Returns an address for a text.
    pub fn new(address: &str) -> Self {
        Self(shortened(address).into())
    }

    /// Returns the address, or its beginning with a mark.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns octets that may not be text, shortened, as they are to be shown.
pub fn shortened_octets(address: &[u8]) -> String {
    // One octet more than is shown, so that the cut is marked.
    shortened(&String::from_utf8_lossy(address.get(..=SHOWN_LIMIT_OCTETS).unwrap_or(address)))
}

#[cfg(test)]
mod tests;
