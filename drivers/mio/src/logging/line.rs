//! Formats a line of the log.

use std::fmt::{self, Write as _};

use cmail_delivery::one_line::OneLine;
use jiff::Timestamp;
use log::Level;

/// Longest line of the log below the verbosity that logs lines of any length, in octets. Only a text from outside gets this
/// long, and most readers of logs cut lines there anyway.
pub(super) const LINE_LIMIT_OCTETS: usize = 8 * 1024;

/// Longest value in such a line, before what is special in it is escaped. A line has few long values, so that it is not
/// much longer than a line of text.
pub(super) const VALUE_LIMIT_OCTETS: usize = 4 * 1024;

/// The name of what a line says in words.
pub(super) const MESSAGE: &str = "message";

/// The longest mark that says how much was cut.
const MARK_LIMIT_OCTETS: usize = 48;

/// Makes a line of a message: the time by RFC 3339 (UTC, milliseconds), the level, and the message without line ends and
/// other control characters. A line beyond the limit, if there is one, is cut, and says how much was cut.
pub(super) fn line(level: Level, message: impl fmt::Display, limit_octets: Option<usize>) -> String {
    let mut line = cut(format_args!("{:.3} {level:5} {}", Timestamp::now(), OneLine(message)), limit_octets);
    line.push('\n');
    line
}

/// Writes a text, which is cut at a limit, if there is one, and then says how much was cut.
pub(super) fn cut(text: impl fmt::Display, limit_octets: Option<usize>) -> String {
    let limit_octets = limit_octets.map_or(usize::MAX, |limit| limit.saturating_sub(MARK_LIMIT_OCTETS));
    let mut kept = Cut { text: String::new(), limit_octets, cut_octets: 0 };
    // Writing to memory does not fail; if the text fails, its beginning is shown.
    let _ = write!(kept, "{text}");
    let Cut { mut text, cut_octets, .. } = kept;
    if cut_octets > 0 {
        let _ = write!(text, "… ({cut_octets} octets more)");
    }
    text
}

/// Keeps the beginning of a text, and counts the rest.
struct Cut {
    text: String,
    limit_octets: usize,
    cut_octets: usize,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = if self.cut_octets > 0 { 0 } else { self.limit_octets.saturating_sub(self.text.len()) };
        let fitting = (0..=room.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let (kept, cut) = text.split_at(fitting);
        self.text.push_str(kept);
        self.cut_octets = self.cut_octets.saturating_add(cut.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
