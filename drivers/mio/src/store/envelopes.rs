//! What senders want to be told of their mail: the table `dispatch_envelope`, which is written by the program that submits the mail, in
//! the same transaction.
//!
//! A row goes with its mail: where other programs delete mail without foreign keys, it is deleted later. A value that cannot be read counts as absent. Without the table nothing is wanted.

use cmail_delivery::dkim::SignMark;
use cmail_delivery::dsn::{
    DsnError, DsnWishes, EnvelopeId, MessageWishes, Notify, OriginalRecipient, ReturnExtent,
};
use cmail_delivery::outbox::{MailId, Row};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::own_table::{if_present, or_created};
use super::rows::{limited, octets};

/// The table. Further columns may join it. Tables that others have made may lack [`ADD_SIGN`].
pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS dispatch_envelope (
    mail_id INTEGER PRIMARY KEY NOT NULL REFERENCES outbox (mail_id) ON DELETE CASCADE ON UPDATE CASCADE,
    notify TEXT,
    orcpt TEXT,
    ret TEXT,
    envid TEXT,
    sign INTEGER
);
";

/// Adds what a table may lack that was made before mail could be signed.
const ADD_SIGN: &str = "ALTER TABLE dispatch_envelope ADD COLUMN sign INTEGER";

/// More octets than any value has that is sent.
const VALUE_LIMIT_OCTETS: i64 = 1000;

/// SQL: the columns of a value for each; `?3` is the limit of their length.
macro_rules! wishes_columns {
    () => {
        concat!(
            "mail_id, ",
            limited!("notify", "?3"),
            ", ",
            limited!("orcpt", "?3"),
            ", ",
            limited!("ret", "?3"),
            ", ",
            limited!("envid", "?3"),
            // Where the table has no such column, the name is that of the other one.
            ", (SELECT CASE WHEN typeof(sign) = 'integer' THEN sign END FROM dispatch_envelope AS one \
              WHERE one.mail_id = dispatch_envelope.mail_id)"
        )
    };
}

const SELECT: &str = concat!(
    "SELECT ",
    wishes_columns!(),
    " FROM dispatch_envelope, (SELECT NULL AS sign) WHERE mail_id BETWEEN ?1 AND ?2 ORDER BY mail_id"
);

/// Returns whether the table exists.
pub(super) fn exists(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'dispatch_envelope'")?
        .exists([])
}

/// A value that cannot be read: its column, and why.
pub(super) type Unreadable = (&'static str, DsnError);

/// Returns what the sender of a mail wants, and the values that cannot be read. To be called within a transaction.
pub(super) fn wishes(connection: &Connection, id: MailId) -> rusqlite::Result<(DsnWishes, Vec<Unreadable>)> {
    let found = if_present(|| {
        let mut statement = connection.prepare_cached(SELECT)?;
        statement.query_row(params![id.0, id.0, VALUE_LIMIT_OCTETS], read).optional()
    })?;
    Ok(found.flatten().unwrap_or_default())
}

/// Adds what senders want to rows, which are in the order of their ids. To be called within a transaction.
pub(super) fn add_wishes(connection: &Connection, rows: &mut [Row]) -> rusqlite::Result<()> {
    let ([Row { id: first, .. }, ..], [.., Row { id: last, .. }]) = (&*rows, &*rows) else { return Ok(()) };
    let (first, last) = (first.0, last.0);
    let add = || {
        let mut statement = connection.prepare_cached(SELECT)?;
        let mut found = statement.query(params![first, last, VALUE_LIMIT_OCTETS])?;
        let mut wishes = Vec::new();
        while let Some(row) = found.next()? {
            wishes.push((row.get(0).map(MailId)?, read(row)?.0));
        }
        Ok(wishes)
    };
    let mut rows = rows.iter_mut().peekable();
    for (id, wishes) in if_present(add)?.unwrap_or_default() {
        while rows.next_if(|row| row.id < id).is_some() {}
        if let Some(row) = rows.next_if(|row| row.id == id) {
            row.wishes = wishes;
        }
    }
    Ok(())
}

/// Stores what the sender of a mail wants, in the transaction that inserts the mail; without its mark.
pub(super) fn insert(connection: &Connection, id: MailId, wishes: &DsnWishes) -> rusqlite::Result<()> {
    let DsnWishes { notify, original_recipient, message: MessageWishes { extent, envelope_id, sign: _ } } =
        wishes;
    // What stands there is of another mail that had this id, and was deleted by a program that does not enforce foreign keys.
    let delete = "DELETE FROM dispatch_envelope WHERE mail_id = ?1";
    if_present(|| connection.prepare_cached(delete)?.execute([id.0]))?;
    let values = params![
        id.0,
        notify.map(|notify| notify.to_string()),
        original_recipient.as_ref().map(OriginalRecipient::as_str),
        extent.map(|extent| extent.to_string()),
        envelope_id.as_ref().map(EnvelopeId::as_str)
    ];
    let insert =
        "INSERT INTO dispatch_envelope (mail_id, notify, orcpt, ret, envid) VALUES (?1, ?2, ?3, ?4, ?5)";
    or_created(connection, CREATE, || connection.prepare_cached(insert)?.execute(values)).map(drop)
}

/// Marks a mail to be signed whose wishes were stored.
pub(super) fn mark(connection: &Connection, id: MailId, sign: SignMark) -> rusqlite::Result<()> {
    let number = match sign {
        SignMark::Unmarked => 0,
        SignMark::Wanted => 1,
        SignMark::IfPossible => 2,
    };
    // The table may be one that others have made, without this column or without a key.
    if !connection.column_exists(None, "dispatch_envelope", "sign")? {
        connection.execute_batch(ADD_SIGN)?;
    }
    let update = "UPDATE dispatch_envelope SET sign = ?2 WHERE mail_id = ?1";
    match connection.prepare_cached(update)?.execute(params![id.0, number])? {
        0 => Err(rusqlite::Error::StatementChangedRows(0)),
        _ => Ok(()),
    }
}

/// Converts a row.
fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<(DsnWishes, Vec<Unreadable>)> {
    let mut unreadable = Vec::new();
    let wishes = DsnWishes {
        notify: value(row, 1, "notify", Notify::parse, &mut unreadable)?,
        original_recipient: value(row, 2, "orcpt", OriginalRecipient::parse, &mut unreadable)?,
        message: MessageWishes {
            extent: value(row, 3, "ret", ReturnExtent::parse, &mut unreadable)?,
            envelope_id: value(row, 4, "envid", EnvelopeId::parse, &mut unreadable)?,
            sign: match row.get::<_, Option<i64>>(5)? {
                None | Some(0) => SignMark::Unmarked,
                Some(2) => SignMark::IfPossible,
                Some(_) => SignMark::Wanted,
            },
        },
    };
    Ok((wishes, unreadable))
}

/// Converts a column, if it holds anything.
fn value<T>(
    row: &rusqlite::Row<'_>,
    index: usize,
    column: &'static str,
    parse: impl FnOnce(&str) -> Result<T, DsnError>,
    unreadable: &mut Vec<Unreadable>,
) -> rusqlite::Result<Option<T>> {
    let Some(octets) = octets(row.get_ref(index)?).filter(|octets| !octets.is_empty()) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&octets).map_err(|_| DsnError::NotPrintable);
    match text.and_then(parse) {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            unreadable.push((column, error));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
