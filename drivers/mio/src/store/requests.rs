//! Answers one request after the other; scans and commits.

use std::collections::HashSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use cmail_delivery::bounce::compose_ordered;
use cmail_delivery::outbox::{
    Commit, Cursor, DeliveredMail, FailedAttempt, MailId, Replacement, StoreError, StoreReply, StoreRequest,
};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, Transaction, TransactionBehavior, params};

use super::apart::Recorded;
use super::database::{Database, version};
use super::error::trouble;
use super::failures::failures_of_existing;
use super::messages;
use super::patience::{allow_interruption, forbid_interruption};
use super::read_ahead::{Order, Piece, Rest};
use super::scan::{self, Scan};
use super::stamps::{Compared, Stamps};
use super::stuck;

impl Database {
    /// Answers a request. If that fails, nothing has changed, and the next request may succeed.
    pub(crate) fn answer(&mut self, request: StoreRequest) -> Result<StoreReply, StoreError> {
        if !self.is_in_transaction() {
            self.ensure_open()?;
        }
        let (task, answer) = match request {
            StoreRequest::Scan { after, limit } => ("read the outbox of", self.scan(after, limit)),
            StoreRequest::Claim { ids, transactions } => ("read mail from", self.claim(&ids, transactions)),
            StoreRequest::ReadData { id, offset, limit } => {
                ("read mail data from", self.read_data(id, offset, limit))
            }
            StoreRequest::Commit(commit) => ("record deliveries in", self.commit(commit)),
            StoreRequest::Recall { ids } => ("read mail from", self.recall(&ids)),
            StoreRequest::ReadFailed { ids, original_limit_octets } => {
                ("read failed mail from", self.read_failed(&ids, original_limit_octets))
            }
        };
        answer.map_err(|error| self.failed(task, &error))
    }

    /// Reads mail data, and hands over all parts but the last one as soon as they are read. If that fails, the next attempt
    /// may succeed.
    pub(super) fn read_piece(
        &mut self,
        order: Order,
        hand_over: &mut dyn FnMut(Piece) -> ControlFlow<()>,
    ) -> Result<Piece, StoreError> {
        self.ensure_open()?;
        let piece = self.in_read_transaction(|database| {
            if database.has_other_data(order.id)? {
                return Ok(Piece { chunks: Vec::new(), rest: Rest::Nothing });
            }
            messages::read_piece(&database.connection, &database.pool, order, hand_over)
        });
        piece.map_err(|error| self.failed("read mail data from", &error))
    }

    fn scan(&mut self, after: Cursor, limit: u32) -> rusqlite::Result<StoreReply> {
        self.in_read_transaction(|database| {
            let (mut found, mut taken) = (Scan::default(), Vec::new());
            if let Some(first) = after.next_id() {
                found = scan::scan(&database.connection, first, limit, database.is_indexed)?;
                if stuck::exists(&database.connection)? {
                    let last = match found.next {
                        Some(Cursor::After(last)) => last,
                        Some(Cursor::BeforeFirst) | None => MailId(i64::MAX),
                    };
                    taken = stuck::between(&database.connection, first, last)?;
                }
            }
            let Scan { rows, unreadable, next } = found;
            Ok(StoreReply::Rows { rows, taken, unreadable, next, data_version: database.see_version()? })
        })
    }

    fn claim(&mut self, ids: &[MailId], limit: usize) -> rusqlite::Result<StoreReply> {
        self.in_read_transaction(|database| {
            let ids = database.untaken(ids)?;
            let version = database.version()?;
            database.digests.turn_to(version);
            let read = |database: &mut Self, ids: &[MailId]| {
                let Self { connection, pool, digests, .. } = database;
                messages::claim(connection, pool, digests, ids, limit)
            };
            let ((transactions, left_over, stamps), unreadable) =
                database.read_apart(&ids, Self::read_all, read)?;
            database.stamps.put_all(stamps, version);
            Ok(StoreReply::Claimed { transactions, left_over, unreadable })
        })
    }

    fn read_data(&mut self, id: MailId, offset: u64, limit: u32) -> rusqlite::Result<StoreReply> {
        self.in_read_transaction(|database| {
            let octets = match database.has_other_data(id)? {
                true => Bytes::new(),
                false => messages::read_data(&database.connection, &database.pool, id, offset, limit)?,
            };
            Ok(StoreReply::Data(octets))
        })
    }

    fn read_failed(&mut self, ids: &[MailId], original_limit_octets: u64) -> rusqlite::Result<StoreReply> {
        self.in_read_transaction(|database| {
            let version = database.version()?;
            database.digests.turn_to(version);
            let read = |database: &mut Self, ids: &[MailId]| {
                let Self { connection, pool, digests, .. } = database;
                messages::read_failed(connection, pool, digests, ids, original_limit_octets)
            };
            let ((messages, left_over, stamps), unreadable) =
                database.read_apart(ids, Self::read_all, read)?;
            database.stamps.put_all(stamps, version);
            Ok(StoreReply::Failed { messages, left_over, unreadable })
        })
    }

    fn recall(&mut self, ids: &[MailId]) -> rusqlite::Result<StoreReply> {
        self.in_read_transaction(|database| {
            let ids = database.untaken(ids)?;
            let version = database.version()?;
            let try_one = |database: &Self, id| messages::recall(&database.connection, &[id]).map(drop);
            let read = |database: &mut Self, ids: &[MailId]| messages::recall(&database.connection, ids);
            let ((rows, stamps), unreadable) = database.read_apart(&ids, try_one, read)?;
            database.stamps.put_all(stamps, version);
            Ok(StoreReply::Recalled { rows, unreadable })
        })
    }

    /// Reads everything of a mail, to find out whether it can be read.
    fn read_all(&self, id: MailId) -> rusqlite::Result<()> {
        messages::read_all(&self.connection, &self.pool, id)
    }

    /// Returns the ids without mail that a server has taken.
    fn untaken(&self, ids: &[MailId]) -> rusqlite::Result<Vec<MailId>> {
        if !stuck::exists(&self.connection)? {
            return Ok(ids.to_vec());
        }
        let untaken = |id: &MailId| match stuck::contains(&self.connection, *id) {
            Ok(true) => None,
            Ok(false) => Some(Ok(*id)),
            Err(error) => Some(Err(error)),
        };
        ids.iter().filter_map(untaken).collect()
    }

    /// Returns whether the row of a claimed message holds other data now.
    fn has_other_data(&self, id: MailId) -> rusqlite::Result<bool> {
        Ok(self.stamps.changed(&self.connection, id, Compared::Message, self.version()?)?.is_some())
    }

    /// Runs `read` on one state of the database. Cancelling the token interrupts it, because a read loses nothing.
    fn in_read_transaction<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if self.is_in_transaction() {
            return read(self);
        }
        let answer = self.begin_read().and_then(|()| read(self));
        let end = self.end_read();
        let answer = answer?;
        end.map(|()| answer)
    }

    /// Begins a transaction that all reads share until [`end_shared_read`](Self::end_shared_read). If that fails, each request
    /// reports its own error.
    pub(super) fn begin_shared_read(&mut self) {
        if self.ensure_open().is_ok() && self.begin_read().is_err() {
            self.end_shared_read();
        }
    }

    /// Ends the transaction of [`begin_shared_read`](Self::begin_shared_read), if it is still open.
    pub(super) fn end_shared_read(&mut self) {
        if let Err(error) = self.end_read() {
            log::warn!("cannot end a read of the database {}: {error}", self.path().display());
        }
    }

    fn begin_read(&mut self) -> rusqlite::Result<()> {
        let hurry = self.hurry();
        allow_interruption(&mut self.connection, &hurry)?;
        self.connection.execute_batch("BEGIN DEFERRED")
    }

    /// Rolls back, because a read transaction has nothing to lose. SQLite may have ended it already, after an error.
    fn end_read(&mut self) -> rusqlite::Result<()> {
        forbid_interruption(&mut self.connection)?;
        if self.is_in_transaction() { self.connection.execute_batch("ROLLBACK") } else { Ok(()) }
    }

    fn is_in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    fn commit(&mut self, mut commit: Commit) -> rusqlite::Result<StoreReply> {
        // The index only saves time; `prepare_index` has logged why it is missing.
        let _ = self.ensure_index();
        if commit.is_empty() {
            return Ok(Recorded::default().into());
        }
        let recorded = match self.commit_together(&commit) {
            Err(error) if trouble(&self.connection, &error).is_about_a_row() => self.commit_apart(&commit)?,
            recorded => recorded?,
        };
        let refused: HashSet<MailId> = recorded.refused.iter().map(|refused| refused.id).collect();
        commit.delivered.retain(|mail| !refused.contains(&mail.id));
        commit.failed.retain(|attempt| !refused.contains(&attempt.id));
        commit.replaced.retain(|replacement| !replacement.originals.iter().any(|id| refused.contains(id)));
        let stamps = self.stamps.take(&commit);
        self.remember(commit, stamps);
        Ok(recorded.into())
    }

    fn commit_together(&mut self, commit: &Commit) -> rusqlite::Result<Recorded> {
        // Before the database is locked, because large originals take time.
        let bounces = compose_bounces(commit);
        let generation = self.generation;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = version(&transaction, generation)?;
        let recorded = record(&transaction, commit, bounces, &self.stamps, version)?;
        transaction.commit()?;
        Ok(recorded)
    }
}

/// Composes the data of the bounces of a commit, in their order.
pub(super) fn compose_bounces(commit: &Commit) -> Vec<Option<Bytes>> {
    let bounces = commit.replaced.iter().map(|replacement| replacement.bounce.as_ref());
    bounces.map(|bounce| compose_ordered(&bounce?.order)).collect()
}

/// Records outcomes, with these [bounces](compose_bounces), except those of mail that has changed since it was read.
pub(super) fn record(
    transaction: &Transaction<'_>,
    commit: &Commit,
    bounces: Vec<Option<Bytes>>,
    stamps: &Stamps,
    version: i64,
) -> rusqlite::Result<Recorded> {
    let mut changed = Vec::new();
    let mut is_as_claimed = |id: MailId, part: Compared| {
        let now = stamps.changed(transaction, id, part, version)?;
        let is_as_claimed = now.is_none();
        changed.extend(now);
        Ok::<_, rusqlite::Error>(is_as_claimed)
    };
    let has_stuck = stuck::exists(transaction)?;
    let mut successors = Vec::new();
    // Deleted last: SQLite has to save a page in its journal if one transaction frees it and uses it again.
    let mut done_with = Vec::with_capacity(commit.delivered.len() + commit.replaced.len());
    for DeliveredMail { id, .. } in &commit.delivered {
        // Of what an earlier process has sent nothing is known but its note.
        let successor =
            if stamps.knows(*id) || !has_stuck { None } else { stuck::successor(transaction, *id)? };
        if successor.is_none() && is_as_claimed(*id, Compared::MessageAndRecipient)? {
            done_with.push(*id);
        }
        successors.extend(successor);
        if has_stuck {
            stuck::end(transaction, *id)?;
        }
    }
    let mut attempts = Vec::with_capacity(commit.failed.len());
    for attempt in &commit.failed {
        if is_as_claimed(attempt.id, Compared::WholeRow)? {
            record_failure(transaction, attempt)?;
            attempts.push(attempt.id);
        }
    }
    let mut not_replaced = Vec::new();
    let mut inserted = Vec::with_capacity(commit.replaced.len());
    for (replacement, bounce) in commit.replaced.iter().zip(bounces) {
        let mut remaining = Vec::with_capacity(replacement.originals.len());
        for id in &replacement.originals {
            if exists(transaction, *id)? && is_as_claimed(*id, Compared::WholeRow)? {
                remaining.push(*id);
            }
        }
        if remaining.len() == replacement.originals.len() {
            inserted.push(insert_bounce(transaction, replacement, bounce)?);
            done_with.append(&mut remaining);
        } else {
            inserted.push(Vec::new());
            not_replaced.append(&mut remaining);
        }
    }
    done_with.into_iter().try_for_each(|id| delete(transaction, id))?;
    changed.append(&mut successors);
    let mut failed = Vec::with_capacity(attempts.len());
    for id in attempts {
        failed.extend(failures_of_existing(transaction, id)?);
    }
    Ok(Recorded { failed, not_replaced, changed, bounces: inserted, ..Recorded::default() })
}

/// Deletes a mail, and with it its faillog rows.
pub(super) fn delete(connection: &Connection, id: MailId) -> rusqlite::Result<()> {
    let count = connection.prepare_cached("DELETE FROM outbox WHERE mail_id = ?1")?.execute([id.0])?;
    // A trigger of another program may suppress the statement without an error.
    if count == 0 && exists(connection, id)? { Err(rusqlite::Error::StatementChangedRows(0)) } else { Ok(()) }
}

/// Adds a faillog row for a mail, if it still exists.
fn record_failure(transaction: &Transaction<'_>, failed: &FailedAttempt) -> rusqlite::Result<()> {
    let attempt = &failed.attempt;
    let mut statement = transaction.prepare_cached(
        "INSERT INTO faillog (fail_mail, fail_message, fail_time, fail_fatal) \
         SELECT ?1, ?2, CAST(?3 AS TEXT), ?4 WHERE EXISTS (SELECT 1 FROM outbox WHERE mail_id = ?1)",
    )?;
    let count = statement.execute(params![failed.id.0, failed.text(), attempt.at.0, attempt.is_fatal()])?;
    if count == 0 && exists(transaction, failed.id)? {
        return Err(rusqlite::Error::StatementChangedRows(0));
    }
    Ok(())
}

fn exists(transaction: &Connection, id: MailId) -> rusqlite::Result<bool> {
    transaction.prepare_cached("SELECT 1 FROM outbox WHERE mail_id = ?1")?.exists([id.0])
}

/// Inserts the bounce of some originals, and returns its rows.
fn insert_bounce(
    transaction: &Transaction<'_>,
    replacement: &Replacement,
    data: Option<Bytes>,
) -> rusqlite::Result<Vec<MailId>> {
    let (Some(bounce), Some(data)) = (&replacement.bounce, data) else { return Ok(Vec::new()) };
    let mut insert = transaction.prepare_cached(
        "INSERT INTO outbox (mail_remote, mail_envelopefrom, mail_envelopeto, mail_data) VALUES (NULL, NULL, ?1, ?2)",
    )?;
    insert.raw_bind_parameter(2, AsText(&data))?;
    // SQLite has its own copy now, and makes another one for each row.
    drop(data);
    let mut inserted = Vec::with_capacity(bounce.recipients.len());
    for recipient in &bounce.recipients {
        insert.raw_bind_parameter(1, AsText(recipient))?;
        match insert.raw_execute()? {
            1 => inserted.push(MailId(transaction.last_insert_rowid())),
            count => return Err(rusqlite::Error::StatementChangedRows(count)),
        }
    }
    Ok(inserted)
}

/// Stores any octets as a text, which is the type that other programs expect.
struct AsText<'a>(&'a [u8]);

impl ToSql for AsText<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
