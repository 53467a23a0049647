//! What was recorded in a write-ahead log, and may not be in the database itself yet.
//!
//! Whoever deletes the log of a running daemon takes back what stands only there: mail that was delivered would be sent again.
//! So it is remembered until SQLite has copied the log into the database, and recorded anew where the log is lost.

use std::collections::VecDeque;

use cmail_delivery::attempt::Attempt;
use cmail_delivery::outbox::{Commit, FailedAttempt};
use rusqlite::{Connection, Transaction, params};

use super::apart::{record_each, verdicts};
use super::stamps::{StampList, Stamps};

/// When so much is remembered, SQLite is asked to copy its log, of which these are a part.
const SETTLE_OCTETS: usize = 256 * 1024;

/// Not more is remembered, although somebody who reads without end keeps SQLite from copying. The oldest goes first.
const LIMIT_OCTETS: usize = 8 * 1024 * 1024;

/// What a row costs besides its texts, roughly.
const ROW_OCTETS: usize = 128;

/// Commits in their order, each with what it costs, and what the mail was that they are about.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    commits: VecDeque<(Commit, usize)>,
    octets: usize,
    stamps: Stamps,
    /// The log is lost, and nothing was recorded anew yet.
    is_lost: bool,
}

impl Unsettled {
    /// Remembers what was recorded.
    pub(super) fn push(&mut self, commit: Commit, stamps: StampList, version: i64) {
        let octets = octets(&commit);
        self.stamps.put_all(stamps, version);
        self.commits.push_back((commit, octets));
        self.octets += octets;
        while self.octets > LIMIT_OCTETS
            && let Some((_, octets)) = self.commits.pop_front()
        {
            self.octets -= octets;
        }
    }

    /// Takes note that the log is lost.
    pub(super) fn lose(&mut self) {
        self.is_lost = !self.commits.is_empty();
    }

    /// Whether there is something to be recorded anew.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Lets SQLite copy its log into the database once enough is remembered, and forgets it then.
    pub(super) fn settle(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.octets < SETTLE_OCTETS {
            return Ok(());
        }
        let (frames, copied): (i64, i64) =
            connection
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))?;
        if frames == copied {
            *self = Self::default();
        }
        Ok(())
    }

    /// Records everything anew, as far as it applies to the rows that are there now: only to those of which it is known that they
    /// are the same mail. To be called within a transaction, of which this is the version.
    pub(super) fn replay(&self, transaction: &Transaction<'_>, version: i64) -> rusqlite::Result<()> {
        for (commit, _) in &self.commits {
            let mut commit = commit.clone();
            let is_known = |id| self.stamps.knows(id);
            commit.delivered.retain(|mail| is_known(mail.id));
            commit.replaced.retain(|replacement| replacement.originals.iter().all(|id| is_known(*id)));
            let mut failed = Vec::with_capacity(commit.failed.len());
            for attempt in commit.failed {
                if is_known(attempt.id) && !is_recorded(transaction, &attempt)? {
                    failed.push(attempt);
                }
            }
            commit.failed = failed;
            let recorded = record_each(transaction, &verdicts(&commit), &self.stamps, version)?;
            for refused in recorded.refused {
                log::error!("{}", refused.text);
            }
        }
        Ok(())
    }

    /// Takes note that everything was recorded anew, in a log again or not.
    pub(super) fn replayed(&mut self, has_log: bool) {
        self.is_lost = false;
        if !has_log {
            *self = Self::default();
        }
    }
}

/// Whether an attempt was copied into the database before the log was lost.
fn is_recorded(transaction: &Transaction<'_>, failed: &FailedAttempt) -> rusqlite::Result<bool> {
    let mut statement = transaction.prepare_cached(
        "SELECT 1 FROM faillog WHERE fail_mail = ?1 AND fail_time = CAST(?2 AS TEXT) AND fail_message = ?3",
    )?;
    statement.exists(params![failed.id.0, failed.attempt.at.0, failed.text()])
}

/// How much memory a commit costs, roughly.
fn octets(commit: &Commit) -> usize {
    let delivered = commit.delivered.iter().filter_map(|mail| mail.attempt.as_ref());
    let attempts = delivered.chain(commit.failed.iter().map(|failed| &failed.attempt));
    let attempts: usize = attempts.map(Attempt::octets).sum();
    let mails = commit.delivered.len() + commit.failed.len();
    let replaced = commit.replaced.iter().map(|replacement| {
        let bounce = replacement.bounce.as_ref().map_or(0, |bounce| bounce.order.message.original.len());
        bounce + replacement.originals.len() * ROW_OCTETS
    });
    mails * ROW_OCTETS + attempts + replaced.sum::<usize>()
}

#[cfg(test)]
#[path = "unsettled_tests.rs"]
mod tests;
