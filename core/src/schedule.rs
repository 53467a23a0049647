//! Decides whether a mail is due, waits, or is given up: a pure function of its faillog, the rules, and the time.

use core::fmt;

use crate::hold::{HeldBy, Hold, HoldLine, HoldState};
use crate::mail_pattern::named_hop;
use crate::outbox::Row;
use crate::retry_rule::{NextAttempt, RetryRule};
use crate::settings::Schedule;
use crate::time::{Duration, UnixTime};

/// Shortest time between two attempts of a mail, even if the administrator orders one, because `retryinterval` may be 0.
pub const MIN_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The rules by which mail is tried again and given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryRules<'a> {
    /// The lines of the administrator. The first one that is about a mail decides; the other fields count only if there is none.
    pub lines: &'a [RetryRule],
    /// The lines that hold mail.
    pub hold_lines: &'a [HoldLine],
    /// A mail with this many failed attempts is given up.
    pub retries: u32,
    /// A mail is due when more than this many seconds have passed since its last attempt.
    pub interval_s: i64,
}

/// The state of a mail according to its holds and its faillog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryState {
    /// It is to be tried now.
    Due,
    /// It is to be tried from this second on.
    NotBefore(UnixTime),
    /// It is not to be tried any more, but bounced.
    GivenUp,
    /// It is neither to be tried nor to be bounced, as long as this holds it.
    Held(HeldBy),
}

/// What becomes of a mail that has failed, as far as nobody changes that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// When it is tried next, or that it is not.
    pub next: NextTry,
    /// The line of the configuration that says so, if one does.
    pub line: Option<u32>,
}

/// When a mail is tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTry {
    /// Then, or later if there is much to do.
    At(UnixTime),
    /// Never: it is given up.
    Never,
    /// Once it is released.
    Held,
}

impl fmt::Display for NextTry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(time) => time.fmt(f),
            Self::Never => f.write_str("never"),
            Self::Held => f.write_str("held"),
        }
    }
}

impl<'a> RetryRules<'a> {
    /// Returns the rules of the configuration.
    pub fn of(schedule: &'a Schedule) -> Self {
        Self {
            lines: &schedule.rules,
            hold_lines: &schedule.hold_lines,
            retries: schedule.retries,
            interval_s: schedule.retry_interval_s,
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
        let next_hop = named_hop(row);
        self.lines.iter().find(|line| line.is_about(next_hop.as_ref(), row.sender.as_deref(), failure))
    }

    /// Returns the line that holds a mail, if there is one.
    pub fn hold_line_about(&self, row: &Row) -> Option<&'a HoldLine> {
        if self.hold_lines.is_empty() || row.hold.state != HoldState::Unset {
            return None;
        }
        let next_hop = named_hop(row);
        self.hold_lines.iter().find(|line| line.is_about(next_hop.as_ref(), row.sender.as_deref()))
    }

    /// Returns what holds a mail, if it is held.
    pub fn held_by(&self, row: &Row) -> Option<HeldBy> {
        match row.hold.state {
            HoldState::Held(hold) => Some(HeldBy::Hold(hold)),
            HoldState::Unset => self.hold_line_about(row).map(|line| HeldBy::Line(line.line)),
            HoldState::Exempt => None,
        }
    }

    /// Returns whether a line would hold a mail if the database knew nothing of it.
    pub fn has_hold_line_about(&self, row: &Row) -> bool {
        self.hold_lines.iter().any(|line| line.mail.fits(row))
    }

    /// Returns the line whose age a mail has reached, if it is given up for that.
    pub fn line_of_expiry(&self, row: &Row) -> Option<u32> {
        let line = self.line_about(row).filter(|_| !row.fatal)?;
        (line.next_attempt(row) == NextAttempt::Never).then_some(line.line)
    }

    /// Returns the state of a mail at a time.
    pub fn retry_state(&self, row: &Row, now: UnixTime) -> RetryState {
        if let Some(held_by) = self.held_by(row) {
            return RetryState::Held(held_by);
        }
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
    schedule: Schedule,
    /// The time.
    pub now: UnixTime,
}

impl RetryTerms {
    /// Returns the rules of the configuration at this time.
    pub fn of(schedule: &Schedule, now: UnixTime) -> Self {
        Self { schedule: schedule.clone(), now }
    }

    /// Returns what the database knows of the holds of a mail after an order that has named and released it.
    pub fn released(&self, row: &Row) -> Hold {
        let rules = self.rules();
        if rules.held_by(row).is_none() {
            return row.hold;
        }
        let state = if rules.has_hold_line_about(row) { HoldState::Exempt } else { HoldState::Unset };
        Hold { state, released: Some(self.now) }
    }

    /// Returns the rules.
    pub fn rules(&self) -> RetryRules<'_> {
        RetryRules::of(&self.schedule)
    }
}

#[cfg(test)]
mod tests;
