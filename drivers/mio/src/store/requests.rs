//! Answers one request after the other; scans and commits.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use cmail_delivery::outbox::{
    Commit, Cursor, FailedAttempt, MailId, Replacement, Row, StoreError, StoreReply, StoreRequest,
};
use cmail_delivery::time::UnixTime;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::database::{Database, octets, version};
use super::failures::{add_failures, apply, failures, failures_of_existing};
use super::messages;
use super::read_ahead::{Order, Piece, Rest};
use super::stamps::Part;

/// How much memory is taken at once for texts of rows.
const TEXTS_OCTETS: usize = 16 * 1024;

/// The columns of a [`Row`] that stand in `outbox`. SQLite knows the length of a value without reading it.
macro_rules! row_columns {
    () => {
        "mail_id, mail_remote, mail_envelopefrom, mail_envelopeto, coalesce(octet_length(mail_data), 0)"
    };
}

/// A row, and its data if they are short enough: that spares a statement for each small message. SQLite does not read
/// what is too long.
const SELECT_ROW: &str = concat!(
    "SELECT ",
    row_columns!(),
    ", mail_submission, CASE WHEN octet_length(mail_data) <= ?2 THEN mail_data END FROM outbox WHERE mail_id = ?1"
);

/// A row that exists.
pub(super) struct Found {
    pub(super) row: Row,
    pub(super) submission: Option<Bytes>,
    /// Its data, if they were short enough.
    pub(super) data: Option<Bytes>,
}

impl Database {
    /// Does what is asked. If it fails, nothing of it is done, and the next request may succeed.
    pub(crate) fn answer(&mut self, request: StoreRequest) -> Result<StoreReply, StoreError> {
        self.ensure_open()?;
        let (task, answer) = match request {
            StoreRequest::Scan { after, limit } => ("read the outbox of", self.scan(after, limit)),
            StoreRequest::Claim { ids, transactions } => ("read mail from", self.claim(&ids, transactions)),
            StoreRequest::ReadData { id, offset, limit } => {
                ("read mail data from", self.read_data(id, offset, limit))
            }
            StoreRequest::Commit(commit) => ("record deliveries in", self.commit(&commit)),
            StoreRequest::ReadFailed { ids, original_limit_octets } => {
                ("read failed mail from", self.read_failed(&ids, original_limit_octets))
            }
        };
        answer.map_err(|error| self.failed(task, &error))
    }

    /// Reads a piece of mail data, and hands over parts of it before its last one. If that fails, the next attempt may
    /// succeed.
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
            let (mut rows, more) = match after.next_id() {
                Some(first) => scan_outbox(&database.connection, first, limit)?,
                None => (Vec::new(), false),
            };
            add_failures(&database.connection, &mut rows)?;
            Ok(StoreReply::Rows { rows, more, data_version: database.see_version()? })
        })
    }

    fn claim(&mut self, ids: &[MailId], limit: usize) -> rusqlite::Result<StoreReply> {
        self.in_read_transaction(|database| {
            let (reply, stamps) = messages::claim(&database.connection, ids, limit)?;
            let version = database.version()?;
            database.stamps.put_all(stamps, version);
            Ok(reply)
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
            let (reply, stamps) = messages::read_failed(&database.connection, ids, original_limit_octets)?;
            let version = database.version()?;
            database.stamps.put_all(stamps, version);
            Ok(reply)
        })
    }

    /// Whether other data stand now where a message was claimed.
    fn has_other_data(&self, id: MailId) -> rusqlite::Result<bool> {
        Ok(self.stamps.changed(&self.connection, id, Part::Data, self.version()?)?.is_some())
    }

    /// Runs `read` on one state of the database.
    fn in_read_transaction<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.connection.execute_batch("BEGIN DEFERRED")?;
        let answer = read(self);
        // A read transaction has nothing to lose. SQLite may have ended it already, after an error.
        let end =
            if self.connection.is_autocommit() { Ok(()) } else { self.connection.execute_batch("ROLLBACK") };
        let answer = answer?;
        end.map(|()| answer)
    }

    fn commit(&mut self, commit: &Commit) -> rusqlite::Result<StoreReply> {
        self.ensure_index();
        if commit.is_empty() {
            let (failed, not_replaced, changed) = (Vec::new(), Vec::new(), Vec::new());
            return Ok(StoreReply::Committed { failed, not_replaced, changed });
        }
        let generation = self.generation;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = version(&transaction, generation)?;
        let mut changed = Vec::new();
        let mut is_as_claimed = |id: MailId, part: Part| {
            let now = self.stamps.changed(&transaction, id, part, version)?;
            let is_as_claimed = now.is_none();
            changed.extend(now);
            Ok::<_, rusqlite::Error>(is_as_claimed)
        };
        for id in &commit.delivered {
            if is_as_claimed(*id, Part::DataAndRecipient)? {
                delete(&transaction, *id)?;
            }
        }
        let mut attempts = Vec::with_capacity(commit.failed.len());
        for attempt in &commit.failed {
            if is_as_claimed(attempt.id, Part::Everything)? {
                record_failure(&transaction, attempt)?;
                attempts.push(attempt.id);
            }
        }
        let mut not_replaced = Vec::new();
        for replacement in &commit.replaced {
            let mut remaining = Vec::with_capacity(replacement.originals.len());
            for id in &replacement.originals {
                if exists(&transaction, *id)? && is_as_claimed(*id, Part::Everything)? {
                    remaining.push(*id);
                }
            }
            if remaining.len() == replacement.originals.len() {
                replace(&transaction, replacement)?;
            } else {
                not_replaced.append(&mut remaining);
            }
        }
        let mut failed = Vec::with_capacity(attempts.len());
        for id in attempts {
            failed.extend(failures_of_existing(&transaction, id)?);
        }
        transaction.commit()?;
        self.stamps.forget(commit);
        Ok(StoreReply::Committed { failed, not_replaced, changed })
    }
}

/// At most `limit` rows from the id `first` on, as if they had never failed, and whether there are more.
fn scan_outbox(connection: &Connection, first: MailId, limit: u32) -> rusqlite::Result<(Vec<Row>, bool)> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        row_columns!(),
        " FROM outbox WHERE mail_id >= ?1 ORDER BY mail_id LIMIT ?2"
    ))?;
    let mut found = statement.query(params![first.0, i64::from(limit) + 1])?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut rows, mut texts) = (Vec::new(), texts());
    while let Some(row) = found.next()? {
        if rows.len() == limit {
            return Ok((rows, true));
        }
        rows.push(outbox_row(row, &mut texts)?);
    }
    Ok((rows, false))
}

/// A row as it is now, if it exists, but as if it had never failed, and with it its data, if they are no more than `data_limit`
/// octets. To be called within a transaction.
pub(super) fn row(
    connection: &Connection,
    id: MailId,
    data_limit: usize,
    texts: &mut BytesMut,
) -> rusqlite::Result<Option<Found>> {
    let mut statement = connection.prepare_cached(SELECT_ROW)?;
    statement
        .query_row(params![id.0, i64::try_from(data_limit).unwrap_or(i64::MAX)], |columns| {
            let data = octets(columns.get_ref(6)?).map(|data| Bytes::copy_from_slice(&data));
            let row = outbox_row(columns, texts)?;
            Ok(Found { row, submission: text(columns, 5, texts)?, data })
        })
        .optional()
}

/// Lets a row tell how it has failed.
pub(super) fn add_own_failures(connection: &Connection, row: &mut Row) -> rusqlite::Result<()> {
    apply(row, failures(connection, row.id)?);
    Ok(())
}

/// Memory that the texts of rows share which are read together: memory of its own for each would cost more time than
/// reading it does. Whoever keeps a row for long keeps all of it.
pub(super) fn texts() -> BytesMut {
    BytesMut::with_capacity(TEXTS_OCTETS)
}

/// `row_columns`.
fn outbox_row(row: &rusqlite::Row<'_>, texts: &mut BytesMut) -> rusqlite::Result<Row> {
    Ok(Row {
        id: MailId(row.get(0)?),
        remote: text(row, 1, texts)?,
        sender: text(row, 2, texts)?.filter(|sender| !sender.is_empty()),
        recipient: text(row, 3, texts)?.unwrap_or_default(),
        data_octets: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
        fail_count: 0,
        last_try: UnixTime(0),
        fatal: false,
    })
}

/// The octets of a column.
fn text(row: &rusqlite::Row<'_>, index: usize, texts: &mut BytesMut) -> rusqlite::Result<Option<Bytes>> {
    let octets = octets(row.get_ref(index)?);
    Ok(octets.map(|octets| {
        texts.extend_from_slice(&octets);
        texts.split().freeze()
    }))
}

/// Deletes a mail; its faillog rows go with it.
fn delete(transaction: &Transaction<'_>, id: MailId) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM outbox WHERE mail_id = ?1")?.execute([id.0]).map(drop)
}

/// Adds a faillog row for a mail, if it still exists.
fn record_failure(transaction: &Transaction<'_>, attempt: &FailedAttempt) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO faillog (fail_mail, fail_message, fail_time, fail_fatal) \
         SELECT ?1, ?2, CAST(?3 AS TEXT), ?4 WHERE EXISTS (SELECT 1 FROM outbox WHERE mail_id = ?1)",
    )?;
    statement.execute(params![attempt.id.0, attempt.text, attempt.time.0, attempt.fatal]).map(drop)
}

fn exists(transaction: &Transaction<'_>, id: MailId) -> rusqlite::Result<bool> {
    transaction.prepare_cached("SELECT 1 FROM outbox WHERE mail_id = ?1")?.exists([id.0])
}

/// Puts the bounce in the place of its originals.
fn replace(transaction: &Transaction<'_>, replacement: &Replacement) -> rusqlite::Result<()> {
    replacement.originals.iter().try_for_each(|id| delete(transaction, *id))?;
    let Some(bounce) = &replacement.bounce else { return Ok(()) };
    // The cast makes a text of any octets, which is what the column holds for all other programs.
    let mut insert = transaction.prepare_cached(
        "INSERT INTO outbox (mail_remote, mail_envelopefrom, mail_envelopeto, mail_data) \
         VALUES (NULL, NULL, CAST(?1 AS TEXT), CAST(?2 AS TEXT))",
    )?;
    bounce
        .recipients
        .iter()
        .try_for_each(|recipient| insert.execute(params![&recipient[..], &bounce.data[..]]).map(drop))
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
