//! Two clocks that are never confused: [`Instant`] for deadlines, [`UnixTime`] for stored times.

pub use core::time::Duration;

use core::fmt;
use core::ops::{Add, Sub};

use jiff::Timestamp;

/// A point on the driver's monotonic clock, in microseconds since an origin of the driver's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Returns the instant `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to `self`, or zero if `earlier` is later.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of the clock, which is half a million years away.
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    /// Saturates at the origin.
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// Seconds since 1970-01-01 00:00:00 UTC, as the database stores them. It may jump in either direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub i64);

impl fmt::Display for UnixTime {
    /// Writes it as RFC 3339 does, in UTC; what is beyond the years of its calendar, as a number of seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{} s", self.0),
        }
    }
}

/// Milliseconds since 1970-01-01 00:00:00 UTC, for what people and programs compare with other records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

impl From<UnixTime> for UnixMillis {
    /// Saturates at the ends of the clock.
    fn from(time: UnixTime) -> Self {
        Self(time.0.saturating_mul(1000))
    }
}

/// The readings of the two clocks, taken together by the driver just before a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The clock for deadlines.
    pub monotonic: Instant,
    /// The clock for stored and shown times.
    pub wall: UnixTime,
    /// The time since that second began: less than a second, and zero if unknown. With it, what is due at a second is done at its
    /// beginning.
    pub since_second: Duration,
}

impl Now {
    /// Returns the readings of both clocks at the beginning of a second.
    pub const fn new(monotonic: Instant, wall: UnixTime) -> Self {
        Self { monotonic, wall, since_second: Duration::ZERO }
    }

    /// Returns the wall clock to the millisecond, as far as the driver knows it.
    pub fn wall_millis(self) -> UnixMillis {
        let millis = i64::try_from(self.since_second.as_millis()).unwrap_or(0);
        UnixMillis(UnixMillis::from(self.wall).0.saturating_add(millis))
    }

    /// Returns when the wall clock will show a time, if it is not set meanwhile; now if it already does.
    pub(crate) fn when(self, time: UnixTime) -> Instant {
        let seconds = u64::try_from(time.0.saturating_sub(self.wall.0)).unwrap_or(0);
        self.monotonic + Duration::from_secs(seconds).saturating_sub(self.since_second)
    }
}

/// A number of seconds, written in the largest unit of which it is a multiple: `90s`, `15m`, `1h`, `5d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400, 'd'), (3600, 'h'), (60, 'm')];
        let whole = units.into_iter().find(|(seconds, _)| self.0 > 0 && self.0.is_multiple_of(*seconds));
        let (seconds, unit) = whole.unwrap_or((1, 's'));
        write!(f, "{}{unit}", self.0 / seconds)
    }
}

#[cfg(test)]
mod tests;
