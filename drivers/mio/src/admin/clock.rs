//! Shows times and spans to people, and reads them.

use std::fmt;
use std::str::FromStr;

use cmail_delivery::time::{UnixMillis, UnixTime};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use thiserror::Error;

use crate::selection;

/// Shows and reads times, of one time zone.
pub(super) struct Clock {
    zone: TimeZone,
}

impl Clock {
    /// Returns the clock of this host, or that of UTC.
    pub(super) fn new(is_utc: bool) -> Self {
        Self { zone: if is_utc { TimeZone::UTC } else { TimeZone::system() } }
    }

    /// Shows a time with its offset, as `2026-11-30 14:02:11+01:00`. One that no calendar has is shown as its number of seconds.
    pub(super) fn show(&self, time: UnixMillis) -> String {
        match Timestamp::from_millisecond(time.0) {
            Ok(time) => {
                time.to_zoned_datetime(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
            }
            Err(_) => (time.0 / 1000).to_string(),
        }
    }

    /// Shows a time of today to the millisecond, as `14:02:11.123`.
    pub(super) fn show_moment(&self, time: UnixMillis) -> String {
        match Timestamp::from_millisecond(time.0) {
            Ok(time) => time.to_zoned_datetime(self.zone.clone()).strftime("%H:%M:%S%.3f").to_string(),
            Err(_) => time.0.to_string(),
        }
    }

    /// Returns the time that is meant in the future.
    pub(super) fn resolve_until(&self, until: Since, now: UnixTime) -> UnixMillis {
        match until {
            Since::Ago(seconds) => UnixMillis::from(UnixTime(now.0.saturating_add(seconds.into()))),
            Since::At(_) | Since::Local(_) => self.resolve(until, now),
        }
    }

    /// Returns the time that is meant. In the hour that a change of the clock skips or repeats, it is the earlier one.
    pub(super) fn resolve(&self, since: Since, now: UnixTime) -> UnixMillis {
        match since {
            Since::Ago(seconds) => UnixMillis::from(UnixTime(now.0.saturating_sub(seconds.into()))),
            Since::At(time) => UnixMillis(time.as_millisecond()),
            Since::Local(time) => {
                let found = self.zone.to_ambiguous_timestamp(time).earlier();
                // Only at the ends of the calendar is there none.
                UnixMillis(found.map_or(i64::MIN, Timestamp::as_millisecond))
            }
        }
    }
}

/// A time, as it was written. A span is meant into the past, or, where something is to happen, into the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// So many seconds ago.
    Ago(u32),
    /// At this time of the calendar.
    Local(DateTime),
    /// At this time, which was written with its offset.
    At(Timestamp),
}

/// Why a word is no time.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "it must be a span like 90s, 2h or 5d, or a time like 2026-11-30, \"2026-11-30 14:00\" or 2026-11-30T14:00:00+01:00"
)]
pub(super) struct SinceError;

impl FromStr for Since {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(seconds) = selection::span(text) {
            return Ok(Self::Ago(seconds));
        }
        if let Ok(time) = text.parse() {
            return Ok(Self::At(time));
        }
        text.parse().map(Self::Local).map_err(|_| SinceError)
    }
}

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
