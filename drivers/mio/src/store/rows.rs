//! Reads rows of the outbox. Any column may hold a value of any type and length: if one is too long, only its beginning is read.
//!
//! SQLite knows the length of a value without reading it, but reads all of it for anything else, even for `substr`.

use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::hold::Hold;
use std::borrow::Cow;
use std::ffi::CStr;

use super::envelopes::{self, Unreadable};
use bytes::{Bytes, BytesMut};
use cmail_delivery::address::ADDRESS_LIMIT_OCTETS;
use cmail_delivery::next_hop::REMOTE_LIMIT_OCTETS;
use cmail_delivery::outbox::{MailId, Row, is_null_path};
use cmail_delivery::time::UnixTime;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, MAIN_DB, OptionalExtension, ToSql, params};

/// How much memory is allocated at once for texts of rows.
const TEXTS_OCTETS: usize = 16 * 1024;

/// SQL: a column that holds a number, possibly as text; NULL if it is longer than any number that a program writes.
macro_rules! number {
    ($column:literal) => {
        concat!("CASE WHEN octet_length(", $column, ") <= 64 THEN ", $column, " END")
    };
}

/// SQL: the time in a column, as the daemon reads it; 0 if there is none.
macro_rules! time {
    ($column:literal) => {
        concat!("coalesce(CAST(CAST(", number!($column), " AS NUMERIC) AS INTEGER), 0)")
    };
}

/// SQL: a column; if it is longer than the limit, zeros of one octet more than the limit.
macro_rules! limited {
    ($column:literal, $limit:literal) => {
        concat!(
            "CASE WHEN octet_length(",
            $column,
            ") > ",
            $limit,
            " THEN zeroblob(",
            $limit,
            " + 1) ELSE ",
            $column,
            " END"
        )
    };
}

/// SQL: the columns of `outbox` for a [`Row`]; `?3` is the limit of addresses, `?4` that of `mail_remote`.
macro_rules! row_columns {
    () => {
        concat!(
            "mail_id, ",
            limited!("mail_remote", "?4"),
            ", ",
            limited!("mail_envelopefrom", "?3"),
            ", ",
            limited!("mail_envelopeto", "?3"),
            ", coalesce(octet_length(mail_data), 0), ",
            time!("mail_submission")
        )
    };
}

pub(super) use {limited, number, row_columns, time};

/// Selects a row, with its data if that is short enough, which saves a statement for each small message.
pub(super) const SELECT_ROW: &str = concat!(
    "SELECT ",
    row_columns!(),
    ", ",
    number!("mail_submission"),
    ", CASE WHEN octet_length(mail_data) <= ?2 THEN mail_data END FROM outbox WHERE mail_id = ?1"
);

/// A row that exists.
pub(super) struct Found {
    pub(super) row: Row,
    pub(super) submission: Option<Bytes>,
    /// The data, if it was short enough.
    pub(super) data: Option<Bytes>,
    /// What its sender wants and cannot be read.
    pub(super) unreadable_wishes: Vec<Unreadable>,
}

/// Reads a row, if it exists, without its failures, and with its data if that has at most `data_limit` octets. To be called
/// within a transaction.
pub(super) fn row(
    connection: &Connection,
    id: MailId,
    data_limit: usize,
    texts: &mut BytesMut,
) -> rusqlite::Result<Option<Found>> {
    let mut statement = connection.prepare_cached(SELECT_ROW)?;
    let data_limit = i64::try_from(data_limit).unwrap_or(i64::MAX);
    let found = statement
        .query_row(
            params![id.0, data_limit, ADDRESS_LIMIT_OCTETS as i64, REMOTE_LIMIT_OCTETS as i64],
            |columns| {
                let data = octets(columns.get_ref(7)?).map(|data| Bytes::copy_from_slice(&data));
                let submission = octets(columns.get_ref(6)?).map(|octets| shared(&octets, texts));
                let row = outbox_row(connection, columns, texts)?;
                Ok(Found { row, submission, data, unreadable_wishes: Vec::new() })
            },
        )
        .optional()?;
    let Some(mut found) = found else { return Ok(None) };
    (found.row.wishes, found.unreadable_wishes) = envelopes::wishes(connection, id)?;
    Ok(Some(found))
}

/// Allocates the memory that the texts of rows read together share: allocating each text would take longer than reading it.
/// Holding one row keeps the whole buffer alive.
pub(super) fn texts() -> BytesMut {
    BytesMut::with_capacity(TEXTS_OCTETS)
}

/// Reads the beginning of a text or blob that is too long.
pub(super) fn beginning(
    connection: &Connection,
    table: &CStr,
    column: &CStr,
    row_id: i64,
    octets: usize,
) -> rusqlite::Result<Vec<u8>> {
    let mut beginning = vec![0; octets];
    connection.blob_open(MAIN_DB, table, column, row_id, true)?.read_at_exact(&mut beginning, 0)?;
    Ok(beginning)
}

/// Converts the columns of `row_columns`.
pub(super) fn outbox_row(
    connection: &Connection,
    row: &rusqlite::Row<'_>,
    texts: &mut BytesMut,
) -> rusqlite::Result<Row> {
    let id = row.get(0)?;
    let mut text = |index, column: &CStr, limit_octets| {
        let Some(octets) = octets(row.get_ref(index)?) else { return Ok(None) };
        if octets.len() > limit_octets {
            return beginning(connection, c"outbox", column, id, limit_octets + 1)
                .map(|text| Some(text.into()));
        }
        Ok::<_, rusqlite::Error>(Some(shared(&octets, texts)))
    };
    Ok(Row {
        id: MailId(id),
        remote: text(1, c"mail_remote", REMOTE_LIMIT_OCTETS)?,
        sender: text(2, c"mail_envelopefrom", ADDRESS_LIMIT_OCTETS)?.filter(|sender| !is_null_path(sender)),
        recipient: text(3, c"mail_envelopeto", ADDRESS_LIMIT_OCTETS)?.unwrap_or_default(),
        data_octets: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0),
        submission: UnixTime(row.get(5)?),
        fail_count: 0,
        last_try: UnixTime(0),
        fatal: false,
        last_failure: None,
        hold: Hold::default(),
        wishes: DsnWishes::default(),
    })
}

/// Returns the octets of a text or blob. A number, which no column should hold, is shown as SQLite would.
pub(super) fn octets(value: ValueRef<'_>) -> Option<Cow<'_, [u8]>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Text(octets) | ValueRef::Blob(octets) => Some(Cow::Borrowed(octets)),
        ValueRef::Integer(number) => Some(Cow::Owned(number.to_string().into_bytes())),
        ValueRef::Real(number) => Some(Cow::Owned(number.to_string().into_bytes())),
    }
}

fn shared(octets: &[u8], texts: &mut BytesMut) -> Bytes {
    texts.extend_from_slice(octets);
    texts.split().freeze()
}

/// Stores any octets as a text, which is the type that other programs expect.
pub(super) struct AsText<'a>(pub(super) &'a [u8]);

impl ToSql for AsText<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

#[cfg(test)]
mod tests;
