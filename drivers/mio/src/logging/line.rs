//! Formats a line of the log.

use std::fmt::{self, Write as _};

use cmail_delivery::one_line::OneLine;
use jiff::Timestamp;
use log::Level;

/// Longest line of the log below the verbosity that logs lines of any length, in octets. Only a text from outside gets this
/// long, and most readers of logs cut lines there anyway.
pub(super) const LINE_LIMIT_OCTETS: usize = 8 * 1024;

/// The longest mark that says how much was cut.
const MARK_LIMIT_OCTETS: usize = 48;

/// Makes a line of a message: the time by RFC 3339 (UTC, milliseconds), the level, and the message without line ends and
/// other control characters. A line beyond the limit, if there is one, is cut, and says how much was cut.
pub(super) fn line(level: Level, message: impl fmt::Display, limit_octets: Option<usize>) -> String {
    let limit_octets = limit_octets.map_or(usize::MAX, |limit| limit.saturating_sub(MARK_LIMIT_OCTETS));
    let mut line = Cut { text: String::new(), limit_octets, cut_octets: 0 };
    // Writing to memory does not fail; if the message fails, its beginning is shown.
    let _ = write!(line, "{:.3} {level:5} {}", Timestamp::now(), OneLine(message));
    let Cut { mut text, cut_octets, .. } = line;
    if cut_octets > 0 {
        let _ = write!(text, "… ({cut_octets} octets more)");
    }
    text.push('\n');
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
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_time_and_a_level_and_no_control_characters() {
        let line = line(Level::Warn, "a\r\nb\u{1b}[31mü\n", None);
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
        let age = time.parse::<Timestamp>().unwrap().duration_until(Timestamp::now());
        assert!((0..60).contains(&age.as_secs()), "{time}");
        assert_eq!(rest, "WARN  a / b\\u{1b}[31mü\n");
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_says_how_much() {
        let message = "ü".repeat(LINE_LIMIT_OCTETS);
        let line = line(Level::Warn, &message, Some(LINE_LIMIT_OCTETS));
        assert!(line.len() <= LINE_LIMIT_OCTETS, "{}", line.len());
        let (kept, rest) = line.split_once("… (").unwrap();
        let kept = kept.chars().filter(|character| *character == 'ü').count();
        assert_eq!(rest, format!("{} octets more)\n", message.len() - 2 * kept));
        assert!(LINE_LIMIT_OCTETS - line.len() < MARK_LIMIT_OCTETS, "{}", line.len());
    }

    #[test]
    fn a_line_without_a_limit_is_whole() {
        let message = "x".repeat(10 * LINE_LIMIT_OCTETS);
        assert!(line(Level::Trace, &message, None).ends_with(&format!(" {message}\n")));
    }
}
