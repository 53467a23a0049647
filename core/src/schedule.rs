//! Decides whether a mail is due, waits, or is given up: a pure function of its faillog and the time.

use crate::settings::Settings;
use crate::time::{Duration, UnixTime};

/// Shortest time between two attempts of a mail, even if the administrator orders one, because `retryinterval` may be 0.
pub const MIN_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The rules by which mail is tried again and given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryRules {
    /// A mail with this many failed attempts is given up.
    pub retries: u32,
    /// A mail is due when more than this many seconds have passed since its last attempt.
    pub interval_s: i64,
}

/// The state of a mail according to its faillog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryState {
    /// It is to be tried now.
    Due,
    /// It is to be tried from this second on.
    NotBefore(UnixTime),
    /// It is not to be tried any more, but bounced.
    GivenUp,
}

impl RetryRules {
    /// Returns the rules of the configuration.
    pub fn of(settings: &Settings) -> Self {
        Self { retries: settings.retries, interval_s: settings.retry_interval_s }
    }

    /// Returns the time that must have passed between two attempts.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.interval_s).unwrap_or(0))
    }

    /// Returns the shortest time between two attempts of a mail, whatever its faillog says. `scan_interval` is the longest time
    /// between two scans of the outbox.
    pub fn min_interval(&self, scan_interval: Duration) -> Duration {
        self.interval().min(scan_interval).max(MIN_RETRY_INTERVAL)
    }

    /// Returns the state of a mail that has failed `fail_count` times, last at `last_try`, at least once permanently if `fatal`.
    pub fn retry_state(&self, fail_count: u32, last_try: UnixTime, fatal: bool, now: UnixTime) -> RetryState {
        if fatal || fail_count >= self.retries {
            return RetryState::GivenUp;
        }
        if fail_count == 0 {
            return RetryState::Due;
        }
        // Strictly more than the interval must have passed, in whole seconds.
        let not_before = last_try.0.saturating_add(self.interval_s).saturating_add(1);
        if now.0 >= not_before { RetryState::Due } else { RetryState::NotBefore(UnixTime(not_before)) }
    }
}

#[cfg(test)]
mod tests;
