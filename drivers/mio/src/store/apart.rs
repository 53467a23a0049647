//! Records and reads items one at a time after doing it together has failed because of one of them, so that the others do
//! not suffer.

use std::time::{Duration, Instant};

use cmail_delivery::outbox::{
    Commit, DeliveredMail, FailState, MailId, Refused, Replacement, Row, StoreReply,
};
use cmail_delivery::shown::shortened_octets;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::database::{Database, octets, version};
use super::error::{advice, ids_are_used_up, trouble};
use super::requests::{compose_bounces, delete, record};
use super::stamps::Stamps;
use super::stuck;

/// How long the search for the failing items may take if it needs a transaction for each. After that, the rest is not recorded
/// now, but tried again later.
const SEARCH_LIMIT: Duration = Duration::from_secs(2);

/// What was recorded.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub(super) failed: Vec<FailState>,
    pub(super) not_replaced: Vec<MailId>,
    pub(super) changed: Vec<Row>,
    pub(super) bounces: Vec<Vec<MailId>>,
    pub(super) refused: Vec<Refused>,
    pub(super) not_noted: Vec<MailId>,
}

impl Recorded {
    fn append(&mut self, mut more: Self) {
        self.failed.append(&mut more.failed);
        self.not_replaced.append(&mut more.not_replaced);
        self.changed.append(&mut more.changed);
        self.bounces.append(&mut more.bounces);
        self.refused.append(&mut more.refused);
        self.not_noted.append(&mut more.not_noted);
    }
}

impl From<Recorded> for StoreReply {
    fn from(recorded: Recorded) -> Self {
        let Recorded { failed, not_replaced, changed, bounces, refused, not_noted } = recorded;
        Self::Committed { failed, not_replaced, changed, bounces, refused, not_noted }
    }
}

impl Database {
    /// Records what can be recorded. An error that appears only at the end of the transaction, or ends it early, does not tell
    /// which item caused it: then the halves are tried, and halves of these.
    pub(super) fn commit_apart(&mut self, commit: &Commit) -> rusqlite::Result<Recorded> {
        let began = Instant::now();
        let (mut recorded, mut has_recorded) = (Recorded::default(), false);
        let mut parts = vec![verdicts(commit)];
        while let Some(mut part) = parts.pop() {
            let error = match self.commit_part(&part) {
                Ok(more) => {
                    recorded.append(more);
                    has_recorded = true;
                    continue;
                }
                Err(error) => error,
            };
            let is_about_a_row = trouble(&self.connection, &error).is_about_a_row();
            if !is_about_a_row && !has_recorded {
                return Err(error);
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

    fn commit_part(&mut self, verdicts: &[Commit]) -> rusqlite::Result<Recorded> {
        let generation = self.generation;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = version(&transaction, generation)?;
        let recorded = record_each(&transaction, verdicts, &self.stamps, version)?;
        transaction.commit()?;
        Ok(recorded)
    }

    /// Notes, in a separate transaction, that none of these outcomes can be recorded.
    fn refuse_all(&mut self, verdicts: &[Commit], error: &rusqlite::Error) -> Recorded {
        let refuse = |connection: &Connection| {
            let mut recorded = Recorded::default();
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

/// Describes mail that cannot be read.
pub(super) fn unreadable_mail(connection: &Connection, id: MailId, error: &rusqlite::Error) -> Refused {
    let whom = recipient(connection, id);
    let advice = advice(connection, error);
    Refused { id, text: format!("mail {id}{whom} cannot be read: {error}; {advice}") }
}

/// Splits a commit into commits of one outcome each.
pub(super) fn verdicts(commit: &Commit) -> Vec<Commit> {
    let delivered =
        commit.delivered.iter().map(|mail| Commit { delivered: vec![mail.clone()], ..Commit::default() });
    let failed =
        commit.failed.iter().map(|attempt| Commit { failed: vec![attempt.clone()], ..Commit::default() });
    let replaced = commit
        .replaced
        .iter()
        .map(|replacement| Commit { replaced: vec![replacement.clone()], ..Commit::default() });
    delivered.chain(failed).chain(replaced).collect()
}

/// Records outcomes one by one, except those that cannot be recorded. Fails if one of them ends the whole transaction.
pub(super) fn record_each(
    transaction: &Transaction<'_>,
    verdicts: &[Commit],
    stamps: &Stamps,
    version: i64,
) -> rusqlite::Result<Recorded> {
    let mut recorded = Recorded::default();
    for verdict in verdicts {
        // Trying to insert a bounce would end the transaction.
        if verdict.replaced.iter().any(|replacement| replacement.bounce.is_some())
            && ids_are_used_up(transaction)
        {
            refuse(transaction, verdict, &used_up(), &mut recorded);
            continue;
        }
        match within_savepoint(transaction, || {
            record(transaction, verdict, compose_bounces(verdict), stamps, version)
        }) {
            Ok(more) => recorded.append(more),
            Err(error) if is_only_about_a_row(transaction, &error) => {
                refuse(transaction, verdict, &error, &mut recorded);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(recorded)
}

/// Returns the error by which SQLite reports that no id is left.
fn used_up() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None)
}

fn is_only_about_a_row(transaction: &Connection, error: &rusqlite::Error) -> bool {
    !transaction.is_autocommit() && trouble(transaction, error).is_about_a_row()
}

/// Does something completely or not at all.
fn within_savepoint<T>(
    connection: &Connection,
    act: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("SAVEPOINT verdict")?;
    let result = act();
    if connection.is_autocommit() {
        return result;
    }
    let end = if result.is_ok() { "RELEASE verdict" } else { "ROLLBACK TO verdict; RELEASE verdict" };
    connection.execute_batch(end)?;
    result
}

/// Adds an outcome that cannot be recorded to the result.
fn refuse(connection: &Connection, verdict: &Commit, error: &rusqlite::Error, recorded: &mut Recorded) {
    let advice = advice(connection, error);
    let text = |id: MailId, what: &str| {
        let whom = recipient(connection, id);
        Refused { id, text: format!("{what} mail {id}{whom} cannot be recorded: {error}; {advice}") }
    };
    for DeliveredMail { id, .. } in &verdict.delivered {
        let mut refused = text(*id, "the delivery of");
        if let Err(error) = within_savepoint(connection, || stuck::note(connection, *id, &error.to_string()))
        {
            recorded.not_noted.push(*id);
            refused.text = format!(
                "{}; it cannot be noted in the table dispatch_stuck either ({error}), so it is sent again after a restart",
                refused.text
            );
        } else {
            refused.text = format!("{}; it is not sent again", refused.text);
        }
        recorded.refused.push(refused);
    }
    let failed = verdict.failed.iter().map(|attempt| text(attempt.id, "a failed attempt of"));
    recorded.refused.extend(failed);
    for replacement in &verdict.replaced {
        let culprits = undeletable(connection, replacement);
        let (to_blame, others): (Vec<MailId>, Vec<MailId>) = replacement
            .originals
            .iter()
            .copied()
            .partition(|id| culprits.is_empty() || culprits.contains(id));
        recorded.refused.extend(to_blame.into_iter().map(|id| text(id, "the bounce of")));
        recorded.not_replaced.extend(others);
        recorded.bounces.push(Vec::new());
    }
}

/// Finds the originals that cannot be deleted, and so prevent a replacement.
fn undeletable(connection: &Connection, replacement: &Replacement) -> Vec<MailId> {
    if connection.is_autocommit() || replacement.originals.len() == 1 {
        return Vec::new();
    }
    let is_undeletable = |id: &&MailId| {
        let tried: rusqlite::Result<bool> = within_savepoint(connection, || {
            delete(connection, **id)?;
            // It was only an attempt: roll it back.
            Err(rusqlite::Error::StatementChangedRows(usize::MAX))
        });
        !matches!(tried, Err(rusqlite::Error::StatementChangedRows(usize::MAX)))
    };
    replacement.originals.iter().filter(is_undeletable).copied().collect()
}

/// Returns the recipient of a mail, to be shown after its id.
fn recipient(connection: &Connection, id: MailId) -> String {
    let found = connection
        .prepare_cached("SELECT substr(mail_envelopeto, 1, 200) FROM outbox WHERE mail_id = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([id.0], |row| Ok(octets(row.get_ref(0)?).map(|octets| octets.into_owned())))
                .optional()
        });
    match found {
        Ok(Some(Some(recipient))) => format!(" to <{}>", shortened_octets(&recipient)),
        Ok(_) | Err(_) => String::new(),
    }
}

#[cfg(test)]
#[path = "apart_tests.rs"]
mod tests;
