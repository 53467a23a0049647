//! Shows times and spans to people.

use std::fmt;

/// Shows a number of seconds in its two largest units, as `45s`, `12m`, `2h5m`, `5d`.
pub(super) struct Span(pub(super) i64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.max(0);
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds}s"),
            (0, 0, minutes) => write!(f, "{minutes}m"),
            (0, hours, 0) => write!(f, "{hours}h"),
            (0, hours, minutes) => write!(f, "{hours}h{minutes}m"),
            (days, 0, _) => write!(f, "{days}d"),
            (days, hours, _) => write!(f, "{days}d{hours}h"),
        }
    }
}

#[cfg(test)]
mod tests;
