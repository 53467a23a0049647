//! Remembers what was recorded in a write-ahead log and may not be in the database itself yet.
//!
//! If another program deletes the log while the daemon runs, everything that is only there is lost, and delivered mail would be
//! sent again. So the daemon remembers it until SQLite has copied the log into the database, and records it again if the log
//! is lost.

use std::collections::VecDeque;

use cmail_delivery::outbox::{Charge, Commit, FailedAttempt};
use rusqlite::{Connection, Transaction, params};

use super::fingerprints::{FingerprintList, Fingerprints};
use super::ledger::Ledger;
use super::verdicts::{record_each, verdicts};

/// When this much is remembered, SQLite is asked to copy its log into the database.
const CHECKPOINT_OCTETS: usize = 256 * 1024;

/// The most that is remembered if a reader that never ends keeps SQLite from copying. The oldest is forgotten first.
const LIMIT_OCTETS: usize = 8 * 1024 * 1024;

/// The memory for a row besides its texts, roughly.
const ROW_OCTETS: usize = 128;

/// The remembered commits in their order, each with its size, and the fingerprints of their mail.
#[derive(Debug, Default)]
pub(super) struct Uncheckpointed {
    commits: VecDeque<(Commit, usize)>,
    octets: usize,
    fingerprints: Fingerprints,
    /// Whether the log is lost, and the commits were not recorded again yet.
    is_lost: bool,
}

impl Uncheckpointed {
    /// Remembers what was recorded.
    pub(super) fn push(&mut self, commit: Commit, fingerprints: FingerprintList, version: i64) {
        let octets = octets(&commit);
        self.fingerprints.put_all(fingerprints, version);
        self.commits.push_back((commit, octets));
        self.octets += octets;
        while self.octets > LIMIT_OCTETS
            && let Some((_, octets)) = self.commits.pop_front()
        {
            self.octets -= octets;
        }
    }

    /// Notes that the log is lost.
    pub(super) fn note_loss(&mut self) {
        self.is_lost = !self.commits.is_empty();
    }

    /// Returns whether commits have to be recorded again.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Lets SQLite copy its log into the database once enough is remembered, and then forgets it.
    pub(super) fn checkpoint(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.octets < CHECKPOINT_OCTETS {
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

    /// Records everything again for the present rows that are known to be the same mail. To be called within a transaction on
    /// this version of the database.
    pub(super) fn replay(&self, transaction: &Transaction<'_>, version: i64) -> rusqlite::Result<()> {
        for (commit, _) in &self.commits {
            let mut commit = commit.clone();
            let is_known = |id| self.fingerprints.knows(id);
            commit.delivered.retain(|mail| is_known(mail.id));
            commit.replaced.retain(|replacement| replacement.originals.iter().all(|id| is_known(*id)));
            let mut failed = Vec::with_capacity(commit.failed.len());
            for attempt in commit.failed {
                if attempt.charge != Charge::Early
                    && is_known(attempt.id)
                    && !is_recorded(transaction, &attempt)?
                {
                    failed.push(attempt);
                }
            }
            commit.failed = failed;
            let recorded = record_each(
                transaction,
                &verdicts(&commit),
                &self.fingerprints,
                version,
                &mut Ledger::default(),
            )?;
            for refused in recorded.refused {
                log::error!("{}", refused.text);
            }
        }
        Ok(())
    }

    /// Notes that everything was recorded again, in a log if `has_log`.
    pub(super) fn note_replay(&mut self, has_log: bool) {
        self.is_lost = false;
        if !has_log {
            *self = Self::default();
        }
    }
}

/// Returns whether an attempt was copied into the database before the log was lost.
fn is_recorded(transaction: &Transaction<'_>, failed: &FailedAttempt) -> rusqlite::Result<bool> {
    let mut statement = transaction.prepare_cached(
        "SELECT 1 FROM faillog WHERE fail_mail = ?1 AND fail_time = CAST(?2 AS TEXT) AND fail_message = ?3",
    )?;
    statement.exists(params![failed.id.0, failed.attempt.at.0, failed.text()])
}

/// Returns the memory for a commit, roughly.
fn octets(commit: &Commit) -> usize {
    let attempts: usize = commit.attempts().map(|attempt| attempt.octets()).sum();
    let mails = commit.delivered.len() + commit.failed.len();
    let replaced = commit.replaced.iter().map(|replacement| {
        let bounce = replacement.bounce.as_ref().map_or(0, |bounce| bounce.order.message.original.len());
        bounce + replacement.originals.len() * ROW_OCTETS
    });
    mails * ROW_OCTETS + attempts + replaced.sum::<usize>()
}

#[cfg(test)]
mod tests;
