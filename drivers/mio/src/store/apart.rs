//! Records and reads items one at a time after doing it together has failed because of one of them, so that the others do
//! not suffer.

use std::time::{Duration, Instant};

use cmail_delivery::outbox::{Commit, Committed, MailId, Refused};
use rusqlite::{Connection, TransactionBehavior};

use super::database::Database;
use super::error::trouble;
use super::verdicts::{record_each, refuse, unreadable_mail, verdicts};

/// How long the search for the failing items may take if it needs a transaction for each. After that, the rest is not recorded
/// now, but tried again later.
const SEARCH_LIMIT: Duration = Duration::from_secs(2);

impl Database {
    /// Records what can be recorded. An error that appears only at the end of the transaction, or ends it early, does not tell
    /// which item caused it: then the halves are tried, and halves of these.
    pub(super) fn commit_apart(&mut self, commit: &Commit) -> rusqlite::Result<Committed> {
        let began = Instant::now();
        let (mut recorded, mut has_recorded) = (self.note_flights_apart(commit)?, false);
        // They are stored later.
        recorded.lacks_policies = !commit.policies.is_empty();
        let mut parts = vec![verdicts(commit)];
        while let Some(mut part) = parts.pop() {
            let error = match self.commit_part(&part) {
                Ok(more) => {
                    recorded.append(more);
                    has_recorded = true;
                    continue;
                }
                Err(error) => {
                    self.ledger.forget();
                    error
                }
            };
            let is_about_a_row = trouble(&self.connection, &error).is_about_a_row();
            if !is_about_a_row && !has_recorded {
                return Err(error);
            }
            if is_about_a_row
                && let [verdict] = &mut *part
                && verdict.warnings.take().is_some()
            {
                // A trigger may end the transaction because of a warning. The verdict does not depend on it.
                parts.push(part);
                continue;
            }
            if is_about_a_row && part.len() > 1 && began.elapsed() < SEARCH_LIMIT {
                parts.push(part.split_off(part.len() / 2));
                parts.push(part);
            } else {
                recorded.append(self.refuse_all(&part, &error));
            }
        }
        Ok(recorded)
    }

    /// Notes flights in a separate transaction. If they cannot be noted, that costs no verdict.
    fn note_flights_apart(&mut self, commit: &Commit) -> rusqlite::Result<Committed> {
        let flights = Commit { flights: commit.flights.clone(), ..Commit::default() };
        if flights.is_empty() {
            return Ok(Committed::default());
        }
        match self.commit_together(&flights) {
            Err(error) if trouble(&self.connection, &error).is_about_a_row() => {
                self.ledger.forget();
                Ok(Committed { is_unmarked: true, ..Committed::default() })
            }
            result => result,
        }
    }

    fn commit_part(&mut self, verdicts: &[Commit]) -> rusqlite::Result<Committed> {
        let version = self.version;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = version.within(&transaction)?;
        let recorded = record_each(&transaction, verdicts, &self.fingerprints, version, &mut self.ledger)?;
        transaction.commit()?;
        Ok(recorded)
    }

    /// Notes, in a separate transaction, that none of these outcomes can be recorded.
    fn refuse_all(&mut self, verdicts: &[Commit], error: &rusqlite::Error) -> Committed {
        let refuse = |connection: &Connection| {
            let mut recorded = Committed::default();
            verdicts.iter().for_each(|verdict| refuse(connection, verdict, error, &mut recorded));
            recorded
        };
        let noted = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(
            |transaction| {
                let recorded = refuse(&transaction);
                transaction.commit().map(|()| recorded)
            },
        );
        noted.unwrap_or_else(|_| {
            let mut recorded = refuse(&self.connection);
            recorded
                .not_noted
                .extend(verdicts.iter().flat_map(|verdict| verdict.delivered.iter().map(|mail| mail.id)));
            recorded
        })
    }

    /// Reads mail within a read transaction, and leaves out mail that cannot be read, which it finds by `try_one`. The answer is
    /// the same as if only readable mail had been requested.
    pub(super) fn read_apart<T>(
        &mut self,
        ids: &[MailId],
        try_one: impl Fn(&Self, MailId) -> rusqlite::Result<()>,
        read: impl Fn(&mut Self, &[MailId]) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<(T, Vec<Refused>)> {
        let error = match read(self, ids) {
            Ok(answer) => return Ok((answer, Vec::new())),
            Err(error) => error,
        };
        if !trouble(&self.connection, &error).is_about_a_row() {
            return Err(error);
        }
        let (mut readable, mut unreadable) = (Vec::with_capacity(ids.len()), Vec::new());
        for id in ids {
            match try_one(self, *id) {
                Ok(()) => readable.push(*id),
                Err(error) if trouble(&self.connection, &error).is_about_a_row() => {
                    unreadable.push(unreadable_mail(&self.connection, *id, &error));
                }
                Err(error) => return Err(error),
            }
        }
        if unreadable.is_empty() {
            return Err(error);
        }
        Ok((read(self, &readable)?, unreadable))
    }
}

#[cfg(test)]
mod tests;
