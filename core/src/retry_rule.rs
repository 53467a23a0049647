//! A line of the administrator that says when failed mail is tried again, and when it is given up.

use alloc::boxed::Box;
use core::fmt;

use crate::failure_pattern::{FailurePattern, LastFailure};
use crate::mail_pattern::MailPattern;
use crate::next_hop::NextHop;
use crate::outbox::Row;
use crate::time::{Duration, Span, UnixTime};

/// Mail that says it was submitted before this time (the year 2000) does not know when it was: another program has written a date
/// where a number is expected, or nothing at all.
pub(crate) const EARLIEST_SUBMISSION: UnixTime = UnixTime(946_684_800);

/// One waiting time is made longer or shorter by up to this part of it, so that mail that has failed together is not tried together
/// for ever.
const JITTER_PARTS: i64 = 10;

/// A rule by which failed mail is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryRule {
    /// The mail that it is about.
    pub mail: MailPattern,
    /// The last failures that it is about.
    pub failure: FailurePattern,
    /// How long mail waits after its first failure, its second one, and so on.
    pub waits: Waits,
    /// Mail of this age that has failed is given up.
    pub until: Duration,
    /// Its line in the configuration file, from 1.
    pub line: u32,
}

/// The times between attempts: at least one. The last one repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    first_s: u32,
    more_s: Box<[u32]>,
}

impl Waits {
    /// Returns these times in seconds, or `None` if there is none.
    pub fn new(seconds: &[u32]) -> Option<Self> {
        let (&first_s, more_s) = seconds.split_first()?;
        Some(Self { first_s, more_s: more_s.into() })
    }

    /// Returns them in seconds.
    pub fn seconds(&self) -> impl Iterator<Item = u32> {
        core::iter::once(self.first_s).chain(self.more_s.iter().copied())
    }

    /// Returns the time in seconds after this many failed attempts, from 1.
    fn after(&self, fail_count: u32) -> i64 {
        let index = usize::try_from(fail_count.saturating_sub(2)).unwrap_or(usize::MAX);
        let wait_s = match fail_count {
            0 | 1 => self.first_s,
            _ => self.more_s.get(index).or(self.more_s.last()).copied().unwrap_or(self.first_s),
        };
        wait_s.into()
    }

    /// Returns the time in seconds from the first attempt to the one of this number, from 1.
    fn until_attempt(&self, number: u32) -> i64 {
        let given = u32::try_from(self.more_s.len()).unwrap_or(u32::MAX).saturating_add(1);
        let each: i64 =
            (1..number).take(usize::try_from(given).unwrap_or(usize::MAX)).map(|n| self.after(n)).sum();
        let repeated = number.saturating_sub(1).saturating_sub(given);
        each.saturating_add(self.after(u32::MAX).saturating_mul(repeated.into()))
    }
}

/// What a rule says of a mail that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextAttempt {
    /// It is to be tried from this second on.
    At(UnixTime),
    /// It has been tried for as long as the rule allows.
    Never,
}

impl RetryRule {
    /// Returns whether the rule is about this mail, which has failed so.
    pub fn is_about(&self, next_hop: Option<&NextHop>, sender: Option<&[u8]>, failure: LastFailure) -> bool {
        self.failure.matches(failure) && self.mail.matches(next_hop, sender)
    }

    /// Returns when a mail that has failed is given up by this rule; `None` if its times tell no age.
    pub fn end(&self, row: &Row) -> Option<UnixTime> {
        young_since(row).map(|since| UnixTime(since.0.saturating_add(self.until_s())))
    }

    fn until_s(&self) -> i64 {
        i64::try_from(self.until.as_secs()).unwrap_or(i64::MAX)
    }

    /// Returns whether no mail is left that another rule would be about, which comes after this one.
    pub fn leaves_nothing_to(&self, other: &Self) -> bool {
        let has_its_mail = self.mail == MailPattern::All || self.mail == other.mail;
        let has_its_failures = self.failure == FailurePattern::All || self.failure == other.failure;
        has_its_mail && has_its_failures
    }

    /// Returns when a mail that has failed is tried again. The last attempt is made when it has the age at which it is given up, so
    /// that mail that has waited longer, because the daemon did not run, is tried once more. No mail is given up for its age by its first
    /// failure: the clock may have been wrong just then.
    pub(crate) fn next_attempt(&self, row: &Row) -> NextAttempt {
        let Row { fail_count, last_try, .. } = *row;
        let age_s = match young_since(row) {
            // What has failed before it was released begins anew.
            Some(since) => last_try.0.saturating_sub(since.0).max(0),
            None => self.waits.until_attempt(fail_count),
        };
        let left_s = self.until_s().saturating_sub(age_s);
        if left_s <= 0 && fail_count > 1 {
            return NextAttempt::Never;
        }
        // Times are cut to seconds, so one more makes sure that the whole time has passed.
        let wait_s = blurred(self.waits.after(fail_count), row).saturating_add(1);
        let wait_s = if left_s > 0 { wait_s.min(left_s) } else { wait_s };
        NextAttempt::At(UnixTime(last_try.0.saturating_add(wait_s)))
    }
}

/// Returns from when on the age of a mail counts that has failed: from its submission, or from its last release. `None` if its times tell
/// no age: another program has written a date where a number is expected, or a number of something else than seconds.
fn young_since(row: &Row) -> Option<UnixTime> {
    let Row { submission, last_try, hold, .. } = *row;
    let submitted = (submission >= EARLIEST_SUBMISSION && last_try >= submission).then_some(submission);
    hold.released.max(submitted)
}

/// Makes a waiting time longer or shorter. It is no draw, so that the second of the next attempt can be foretold; and the recipients of
/// one message that have failed together wait for the same time, so that they stay together.
fn blurred(wait_s: i64, row: &Row) -> i64 {
    let numbers = [row.submission.0.cast_unsigned(), row.data_octets, u64::from(row.fail_count)];
    let octets = row.sender.iter().flatten().copied().chain(numbers.into_iter().flat_map(u64::to_le_bytes));
    // FNV-1a, and the finalizer of splitmix64, which spreads neighbouring numbers.
    let mut mixed = octets.fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(factor);
    }
    mixed ^= mixed >> 31;
    let most_s = wait_s / JITTER_PARTS;
    let range = u64::try_from(most_s.saturating_mul(2)).unwrap_or(0).saturating_add(1);
    let offset_s = i64::try_from(mixed % range).unwrap_or(0) - most_s;
    wait_s.saturating_add(offset_s).max(1)
}

impl fmt::Display for RetryRule {
    /// Writes the value of the directive.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.mail, self.failure)?;
        for wait_s in self.waits.seconds() {
            write!(f, " {}", Span(wait_s.into()))?;
        }
        write!(f, " until {}", Span(self.until.as_secs()))
    }
}

#[cfg(test)]
mod tests;
