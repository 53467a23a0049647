//! Counts of what has happened since the start, for monitoring. No decision depends on one.
//!
//! Each fact is counted in one place: where it becomes known. Counts only grow.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;

use crate::attempt::{AttemptFacts, AttemptKind};
use crate::course::Course;
use crate::next_hop::TlsMode;
use crate::outbox::Row;
use crate::time::{Duration, UnixTime};
use crate::tls::{Proved, TlsSummary, TlsVersion};

/// The counts of a dispatcher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Attempts, each on one mail, by their result.
    pub attempts: Counts<AttemptResult>,
    /// The failed ones among them, by their subject and finality.
    pub failures: Counts<(AttemptKind, Finality)>,
    /// Mail that has left the outbox for good, by the reason. It counts once the database has recorded it. What an earlier
    /// process has delivered does not count.
    pub mails: Counts<Fate>,
    /// Mail that was put into the outbox to tell senders what became of theirs.
    pub reports: ReportCounts,
    /// Transactions that servers have answered, for at least one recipient, by taking the message or by refusing it.
    pub transactions: u64,
    /// Octets of the messages that servers have taken, as they are stored: once for each transaction, however many recipients it
    /// has. Only as far as attempts [tell how they went](crate::settings::Told::courses).
    pub delivered_octets: u64,
    /// Connections for mail.
    pub connections: ConnectionTally,
    /// Questions to the resolver, such as for the MX records of a name, by their outcome.
    pub lookups: Counts<LookupResult>,
    /// Requests that the database has refused.
    pub store_errors: u64,
    /// How long mail was waited for, and what for.
    pub delays: Delays,
}

/// How much mail was put into the outbox to tell senders what became of theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportCounts {
    /// Bounces.
    pub bounces: u64,
    /// Warnings that mail is late.
    pub delay_warnings: u64,
    /// Reports that mail was delivered to a server that offers no DSN.
    pub relay_reports: u64,
}

/// The counts of connections for mail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionTally {
    /// Those on which mail could be sent, by what protects them.
    pub opened: Counts<TlsMode>,
    /// Those that came to nothing before that, by the reason.
    pub failed: Counts<ConnectionFailure>,
    /// How often a server has shown that it wants fewer of them.
    pub pushbacks: u64,
    /// TLS sessions on which mail could be sent.
    pub tls_sessions: Counts<TlsSession>,
}

/// The result of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttemptResult {
    /// A server has taken the mail.
    Delivered,
    /// It has failed, and will be tried again.
    Deferred,
    /// It has failed for good.
    Failed,
    /// The message was sent whole, without a verdict. It will be tried again.
    Uncertain,
}

/// Whether a failed attempt is worth another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finality {
    /// It is.
    Temporary,
    /// It is not.
    Permanent,
}

/// What became of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// A server has taken it.
    Delivered,
    /// It was given up, and replaced by a bounce.
    Bounced,
    /// It was given up and deleted without a bounce, which would reach no one, or which its sender does not want.
    Dropped,
    /// It was given up because of its age, with or without a bounce.
    Expired,
    /// An order has deleted it.
    Removed,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Delivered, Self::Bounced, Self::Dropped, Self::Expired, Self::Removed];

    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Bounced => "bounced",
            Self::Dropped => "dropped",
            Self::Expired => "expired",
            Self::Removed => "removed",
        }
    }
}

/// Why no mail could be sent on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionFailure {
    /// The server refuses connections, has refused the conversation, or has ended it.
    Refused,
    /// No connection was made in time, or the network says that none can be made.
    Unreachable,
    /// The server has accepted the connection, and said nothing for too long.
    Mute,
    /// TLS was needed, and did not come about.
    Tls,
    /// This machine could not make it.
    Local,
}

/// The facts about a TLS session that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TlsSession {
    /// The version of the protocol.
    pub version: TlsVersion,
    /// What it has proved of the server.
    pub proved: Proved,
    /// True if it continues an earlier session.
    pub is_resumed: bool,
}

/// How a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LookupResult {
    /// By what was known already, whether it was good or bad.
    Cached,
    /// By records.
    Answered,
    /// By a denial: there is no such name, or no such record.
    Negative,
    /// Not at all: name servers have failed, or could not be asked.
    Failed,
}

/// Counts by a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts<K>(BTreeMap<K, u64>);

/// How long mail was waited for in each phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delays {
    /// For each mail that a connection has got: from its submission to that.
    pub queue: Histogram,
    /// For each transaction: from the claim of its mail to MAIL.
    pub claim: Histogram,
    /// For each connection that was used: until mail could be sent.
    pub setup: Histogram,
    /// For each transaction: from MAIL to the last reply.
    pub transfer: Histogram,
}

/// Durations, counted by classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// The longest duration of each class but the last, which has no limit.
    bounds: &'static [Duration],
    counts: Box<[u64]>,
    sum: Duration,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The classes of the time in the queue: 5 s to 5 days.
static QUEUE_BOUNDS: [Duration; 10] = [
    seconds(5),
    seconds(30),
    seconds(60),
    seconds(5 * 60),
    seconds(20 * 60),
    seconds(3600),
    seconds(4 * 3600),
    seconds(12 * 3600),
    seconds(24 * 3600),
    seconds(5 * 24 * 3600),
];

/// The classes of what a conversation takes: 5 ms to 10 minutes.
pub static SHORT_BOUNDS: [Duration; 14] = [
    millis(5),
    millis(10),
    millis(25),
    millis(50),
    millis(100),
    millis(250),
    millis(500),
    millis(1000),
    millis(2500),
    seconds(5),
    seconds(10),
    seconds(30),
    seconds(120),
    seconds(600),
];

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Copy + Ord> Counts<K> {
    /// Returns the count of a key.
    pub fn of(&self, key: K) -> u64 {
        self.0.get(&key).copied().unwrap_or(0)
    }

    /// Returns the sum of all counts.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns the keys that have occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (K, u64)> {
        self.0.iter().map(|(&key, &count)| (key, count))
    }

    /// Counts one more of a key.
    pub fn add(&mut self, key: K) {
        let count = self.0.entry(key).or_insert(0);
        *count = count.saturating_add(1);
    }
}

impl Histogram {
    /// Returns an empty histogram with these classes, in ascending order.
    pub fn new(bounds: &'static [Duration]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1].into(), sum: Duration::ZERO }
    }

    /// Counts a duration.
    pub fn observe(&mut self, duration: Duration) {
        let class = self.bounds.partition_point(|bound| *bound < duration);
        if let Some(count) = self.counts.get_mut(class) {
            *count = count.saturating_add(1);
        }
        self.sum = self.sum.saturating_add(duration);
    }

    /// Returns the longest duration of each class and its count. The last class has no limit.
    pub fn classes(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(self.counts.iter().copied())
    }

    /// Returns how many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

impl Default for Delays {
    fn default() -> Self {
        let short = || Histogram::new(&SHORT_BOUNDS);
        Self { queue: Histogram::new(&QUEUE_BOUNDS), claim: short(), setup: short(), transfer: short() }
    }
}

impl ReportCounts {
    /// Counts bounces.
    pub(crate) fn count_bounces(&mut self, bounces: usize) {
        self.bounces = self.bounces.saturating_add(u64::try_from(bounces).unwrap_or(u64::MAX));
    }

    /// Counts a warning that mail is late.
    pub(crate) fn count_delay_warning(&mut self) {
        self.delay_warnings = self.delay_warnings.saturating_add(1);
    }

    /// Counts a report of a delivery.
    pub(crate) fn count_relay_report(&mut self) {
        self.relay_reports = self.relay_reports.saturating_add(1);
    }
}

impl ConnectionTally {
    /// Counts a connection on which mail can be sent. `wanted` is how it was to be protected, and `tls` what protects it.
    pub(crate) fn count_opened(&mut self, wanted: TlsMode, tls: Option<TlsSummary>) {
        self.opened.add(if tls.is_some() { wanted } else { TlsMode::Plain });
        if let Some(tls) = tls {
            let TlsSummary { version, is_resumed, proved, .. } = tls;
            self.tls_sessions.add(TlsSession { version, proved, is_resumed });
        }
    }

    /// Counts that a server has shown that it wants fewer connections.
    pub(crate) fn count_pushback(&mut self) {
        self.pushbacks = self.pushbacks.saturating_add(1);
    }
}

impl Tally {
    /// Counts an attempt.
    pub(crate) fn count_attempt(&mut self, attempt: &AttemptFacts<'_>) {
        let result = if attempt.kind == AttemptKind::Delivered {
            AttemptResult::Delivered
        } else if attempt.kind == AttemptKind::Uncertain {
            AttemptResult::Uncertain
        } else if attempt.is_fatal {
            AttemptResult::Failed
        } else {
            AttemptResult::Deferred
        };
        self.attempts.add(result);
        if result != AttemptResult::Delivered {
            let finality = if attempt.is_fatal { Finality::Permanent } else { Finality::Temporary };
            self.failures.add((attempt.kind, finality));
        }
    }

    /// Counts a mail that a connection has got.
    pub(crate) fn count_claimed(&mut self, row: &Row, now: UnixTime) {
        // Some programs do not say when they have submitted it.
        if row.submission > UnixTime(0) {
            let waited_s = now.0.saturating_sub(row.submission.0);
            self.delays.queue.observe(seconds(u64::try_from(waited_s).unwrap_or(0)));
        }
    }

    /// Counts a transaction that has ended. `is_delivered` is true if the server has taken its message.
    pub(crate) fn count_transaction(&mut self, course: Option<&Course>, is_delivered: bool) {
        self.transactions = self.transactions.saturating_add(1);
        let Some(course) = course else { return };
        let Some(transaction) = &course.transaction else { return };
        self.delays.claim.observe(transaction.claim);
        self.delays.transfer.observe(transaction.transfer);
        if transaction.number == 1 {
            self.delays.setup.observe(course.setup());
        }
        if is_delivered {
            self.delivered_octets = self.delivered_octets.saturating_add(transaction.data_octets);
        }
    }

    /// Counts a request that the database has refused.
    pub(crate) fn count_store_error(&mut self) {
        self.store_errors = self.store_errors.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_duration_is_counted_in_the_first_class_that_it_does_not_exceed() {
        static BOUNDS: [Duration; 2] = [millis(10), millis(20)];
        let mut histogram = Histogram::new(&BOUNDS);
        for duration in [0, 10, 11, 20, 21] {
            histogram.observe(millis(duration));
        }
        let classes: Vec<_> = histogram.classes().collect();
        assert_eq!(classes, [(Some(millis(10)), 2), (Some(millis(20)), 2), (None, 1)]);
        assert_eq!((histogram.count(), histogram.sum()), (5, millis(62)));
    }

    #[test]
    fn classes_are_in_order() {
        assert!(QUEUE_BOUNDS.is_sorted() && SHORT_BOUNDS.is_sorted());
    }
}
