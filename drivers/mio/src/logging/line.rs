//! How a line of the log looks.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use cmail_delivery::one_line::OneLine;
use log::Level;

/// Longest line of the log below the verbosity that shows all input and output, with everything, in octets. A line that
/// somebody else has made this long is not worth more, and most readers of logs cut there themselves.
pub(super) const LINE_LIMIT_OCTETS: usize = 8 * 1024;

/// What the mark takes at most that says how much was cut.
const MARK_LIMIT_OCTETS: usize = 48;

/// Makes a line of a message: the time, how much it matters, and the message without line ends and other control
/// characters. What is beyond the limit, if there is one, is cut, and the line says how much that is.
pub(super) fn line(level: Level, message: impl fmt::Display, limit_octets: Option<usize>) -> String {
    let limit_octets = limit_octets.map_or(usize::MAX, |limit| limit.saturating_sub(MARK_LIMIT_OCTETS));
    let mut line = Cut { text: String::new(), limit_octets, cut_octets: 0 };
    // Writing to memory does not fail; a message that fails is shown as far as it came.
    let _ = write!(line, "{} {level:5} {}", Timestamp(SystemTime::now()), OneLine(message));
    let Cut { mut text, cut_octets, .. } = line;
    if cut_octets > 0 {
        let _ = write!(text, "… ({cut_octets} octets more)");
    }
    text.push('\n');
    text
}

/// The beginning of a text, and how much was left out.
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

/// A time in UTC as RFC 3339 section 5.6 writes it, with milliseconds.
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since_epoch = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since_epoch.as_secs();
        let (year, month, day) = civil_date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let millis = since_epoch.subsec_millis();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// Year, month and day of a day that is counted from 1970-01-01 on, in the Gregorian calendar.
fn civil_date(days_since_epoch: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, a year ends with its leap day, and 400 years have 146097 days.
    let days = days_since_epoch.saturating_add(719_468);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March or August on have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_has_a_time_and_a_level_and_no_control_characters() {
        let line = line(Level::Warn, "a\r\nb\u{1b}[31mü\n", None);
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
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

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        ] {
            let time = Timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(time.to_string(), expected);
        }
    }
}
