//! Decides whether a mail is due, waits, or is given up: a pure function of its faillog, the rules, and the time.

use alloc::sync::Arc;

use crate::envelope::Envelope;
use crate::outbox::Row;
use crate::retry_rule::{NextAttempt, RetryRule};
use crate::settings::Settings;
use crate::time::{Duration, UnixTime};

/// Shortest time between two attempts of a mail, even if the administrator orders one, because `retryinterval` may be 0.
pub const MIN_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The rules by which mail is tried again and given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryRules<'a> {
    /// The lines of the administrator. The first one that is about a mail decides; the other fields count only if there is none.
    pub lines: &'a [RetryRule],
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
    /// It is neither to be tried nor to be bounced, until it is released.
    Held,
}

impl<'a> RetryRules<'a> {
    /// Returns the rules of the configuration.
    pub fn of(settings: &'a Settings) -> Self {
        Self {
            lines: &settings.retry_rules,
            retries: settings.retries,
            interval_s: settings.retry_interval_s,
        }
    }

    /// Returns the time that must have passed between two attempts, if no line says otherwise.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.interval_s).unwrap_or(0))
    }

    /// Returns the shortest time between two attempts of a mail, whatever its faillog says. `scan_interval` is the longest time
    /// between two scans of the outbox.
    pub fn min_interval(&self, scan_interval: Duration) -> Duration {
        self.interval().min(scan_interval).max(MIN_RETRY_INTERVAL)
    }

    /// Returns when mail is due by the interval: strictly more than it must have passed, in whole seconds.
    pub(crate) fn due_by_interval(&self, last_try: UnixTime) -> UnixTime {
        UnixTime(last_try.0.saturating_add(self.interval_s).saturating_add(1))
    }

    /// Returns the line that is about a mail, if it has failed and there is one.
    pub fn line_about(&self, row: &Row) -> Option<&'a RetryRule> {
        let failure = row.last_failure.filter(|_| !self.lines.is_empty())?;
        let next_hop = Envelope::parse(row).ok().map(|envelope| envelope.next_hop);
        self.lines.iter().find(|line| line.is_about(next_hop.as_ref(), row.sender.as_deref(), failure))
    }

    /// Returns the state of a mail at a time.
    pub fn retry_state(&self, row: &Row, now: UnixTime) -> RetryState {
        if row.fatal {
            return RetryState::GivenUp;
        }
        if row.fail_count == 0 {
            return RetryState::Due;
        }
        let next = match self.line_about(row) {
            Some(line) => line.next_attempt(row),
            None if row.fail_count >= self.retries => NextAttempt::Never,
            None => NextAttempt::At(self.due_by_interval(row.last_try)),
        };
        match next {
            NextAttempt::Never => RetryState::GivenUp,
            NextAttempt::At(not_before) if now >= not_before => RetryState::Due,
            NextAttempt::At(not_before) => RetryState::NotBefore(not_before),
        }
    }
}

/// The rules by which mail is tried again, at a time: what the database needs to say how a mail stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryTerms {
    lines: Arc<[RetryRule]>,
    retries: u32,
    interval_s: i64,
    /// The time.
    pub now: UnixTime,
}

impl RetryTerms {
    /// Returns the rules of the configuration at this time.
    pub fn of(settings: &Settings, now: UnixTime) -> Self {
        let lines = Arc::clone(&settings.retry_rules);
        Self { lines, retries: settings.retries, interval_s: settings.retry_interval_s, now }
    }

    /// Returns the rules.
    pub fn rules(&self) -> RetryRules<'_> {
        RetryRules { lines: &self.lines, retries: self.retries, interval_s: self.interval_s }
    }
}

#[cfg(test)]
mod tests;
