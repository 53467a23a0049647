//! Reads what was tried: the ledger, and the faillog.
//!
//! The tables of the ledger are for people too, and another version may have made them. What is missing in them is unknown, and no error.

use std::collections::BTreeSet;

use cmail_delivery::failure::StoredFailure;
use cmail_delivery::one_line::Octets;
use cmail_delivery::outbox::MailId;
use cmail_delivery::time::{UnixMillis, UnixTime};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, Row, ToSql};
use serde::Serialize;

use super::error::ReadError;
use super::reader::Reader;
use super::rows::octets;
use super::selected::{Conditions, escaped, read_message_id};
use crate::selection::{AddressPattern, DomainPattern, RemotePattern, Selection, StatusPattern};

/// Most entries that one transaction looks at.
const BATCH_ENTRIES: i64 = 10_000;

/// How many parameters the statements have before those of the conditions: the first and the last id.
const PARAMETERS: usize = 2;

/// Defines a record with the columns that it is read from.
macro_rules! record {
    ($(#[$about:meta])* $name:ident from $table:literal { $($field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub(crate) struct $name { $(pub(crate) $field: Option<$kind>,)* }

        impl $name {
            const TABLE: &str = $table;
            const COLUMNS: &[&str] = &[$(stringify!($field)),*];

            /// Reads the columns in their order.
            fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
                let mut columns = 0_usize..;
                Ok(Self { $($field: <$kind>::from_column(row.get_ref(columns.next().unwrap_or_default())?),)* })
            }
        }
    };
}

record! {
    /// An attempt on a mail, or an end of a mail that is no attempt, with the connection on which it happened.
    AttemptRow from "dispatch_history" {
        attempt_id: i64,
        mail_id: i64,
        at_ms: i64,
        result: String,
        failure: String,
        sender: String,
        recipient: String,
        message_id: String,
        octets: i64,
        submitted: i64,
        code: i64,
        status: String,
        command: String,
        text: String,
        remote_id: String,
        a_ms: i64,
        b_ms: i64,
        c_ms: i64,
        d_ms: i64,
        why: String,
        connection_id: i64,
        transaction_no: i64,
        next_hop: String,
        host: String,
        address: String,
        port: i64,
        tls_version: String,
        tls_cipher: String,
        tls_peer: String,
        auth: String,
    }
}

record! {
    /// A conversation.
    ConnectionRow from "dispatch_connections" {
        connection_id: i64,
        opened_ms: i64,
        next_hop: String,
        host: String,
        address: String,
        port: i64,
        tls_version: String,
        tls_cipher: String,
        tls_group: String,
        tls_peer: String,
        auth: String,
        greeting: String,
        extensions: String,
        lookup_ms: i64,
        connect_ms: i64,
        tls_ms: i64,
        negotiate_ms: i64,
        transcript: String,
    }
}

/// A value that a column may hold. One of another type is shown if a text is wanted, and else unknown.
trait FromColumn: Sized {
    fn from_column(value: ValueRef<'_>) -> Option<Self>;
}

impl FromColumn for i64 {
    fn from_column(value: ValueRef<'_>) -> Option<Self> {
        value.as_i64().ok()
    }
}

impl FromColumn for String {
    fn from_column(value: ValueRef<'_>) -> Option<Self> {
        octets(value).map(|octets| Octets(&octets).to_string())
    }
}

/// A row of the faillog.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FaillogRow {
    /// `fail_time`, if it is a number.
    pub(crate) at: Option<UnixTime>,
    /// True if `fail_fatal` is set.
    pub(crate) is_fatal: bool,
    /// `fail_message`.
    pub(crate) failure: StoredFailure,
}

/// Which part of the ledger is meant.
#[derive(Clone, Debug)]
pub(crate) struct HistoryQuery {
    /// The mail. Its place is that of mail in the outbox, and is not looked at.
    pub(crate) selection: Selection,
    /// Only what was decided at this time or later.
    pub(crate) since: Option<UnixMillis>,
    /// Only entries with this result.
    pub(crate) result: Option<String>,
    /// Only what a server has taken under this queue id.
    pub(crate) remote_id: Option<String>,
    /// The time from which the age of mail counts.
    pub(crate) now: UnixTime,
}

/// From which end the ledger is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    OldestFirst,
    NewestFirst,
}

/// AttemptBatch that were read in one transaction, in the order in which they are read.
#[derive(Debug, Default)]
pub(crate) struct AttemptBatch {
    pub(crate) attempts: Vec<AttemptRow>,
    /// The id from which the next batch begins, in the same direction; `None` at the end.
    pub(crate) next: Option<i64>,
}

impl Reader {
    /// Reads the entries that are meant, from the id `from` on, or from the end of the ledger. Looks at a limited number of entries.
    pub(crate) fn history(
        &self,
        query: &HistoryQuery,
        direction: Direction,
        from: Option<i64>,
    ) -> Result<AttemptBatch, ReadError> {
        self.read(|connection| history(connection, query, direction, from))
    }

    /// Reads the conversations with these ids, in the order of ids.
    pub(crate) fn conversations(&self, ids: &BTreeSet<i64>) -> Result<Vec<ConnectionRow>, ReadError> {
        self.read(|connection| {
            let columns = columns_of(connection, ConnectionRow::TABLE, ConnectionRow::COLUMNS)?;
            let Some(columns) = columns else { return Ok(Vec::new()) };
            let mut statement = connection.prepare(&format!(
                "SELECT {columns} FROM {} WHERE connection_id IN (SELECT value FROM json_each(?1)) ORDER BY connection_id",
                ConnectionRow::TABLE
            ))?;
            let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
            let found = statement.query_map([format!("[{}]", ids.join(","))], ConnectionRow::read)?;
            found.collect()
        })
    }

    /// Reads the failures of a mail, in the order in which they were recorded.
    pub(crate) fn faillog(&self, id: MailId) -> Result<Vec<FaillogRow>, ReadError> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT fail_time, fail_fatal, fail_message FROM faillog WHERE fail_mail = ?1 ORDER BY rowid",
            )?;
            let found = statement.query_map([id.0], |row| {
                let time = octets(row.get_ref(0)?).unwrap_or_default();
                let fatal = octets(row.get_ref(1)?).unwrap_or_default();
                let number =
                    |text: &[u8]| str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
                Ok(FaillogRow {
                    at: number(&time).map(UnixTime),
                    is_fatal: number(&fatal).is_some_and(|fatal| fatal > 0),
                    failure: StoredFailure::parse(&octets(row.get_ref(2)?).unwrap_or_default()),
                })
            })?;
            found.collect()
        })
    }

    /// Reads the Message-ID of a mail of the outbox, if it stands in the beginning of its data.
    pub(crate) fn message_id(&self, id: MailId) -> Result<Option<String>, ReadError> {
        self.read(|connection| read_message_id(connection, id))
    }
}

/// Returns the list of columns, with NULL for those that the table does not have; `None` if there is no such table.
fn columns_of(connection: &Connection, table: &str, wanted: &[&str]) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare_cached("SELECT name FROM pragma_table_info(?1)")?;
    let found: rusqlite::Result<BTreeSet<String>> = statement.query_map([table], |row| row.get(0))?.collect();
    let found = match found {
        Ok(found) => found,
        // A view of tables that are gone.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
            log::warn!(
                "the ledger cannot be read, so nothing of it is shown ({error}); the daemon makes its tables anew when it starts"
            );
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if found.is_empty() {
        return Ok(None);
    }
    let columns = wanted.iter().map(|&name| {
        // A record calls itself a kind already.
        let column = if name == "failure" { "kind" } else { name };
        if found.contains(column) { column } else { "NULL" }
    });
    Ok(Some(columns.collect::<Vec<_>>().join(", ")))
}

fn history(
    connection: &Connection,
    query: &HistoryQuery,
    direction: Direction,
    from: Option<i64>,
) -> rusqlite::Result<AttemptBatch> {
    let Some(columns) = columns_of(connection, AttemptRow::TABLE, AttemptRow::COLUMNS)? else {
        return Ok(AttemptBatch::default());
    };
    let Some((first, last, next)) = range(connection, &query.selection, direction, from)? else {
        return Ok(AttemptBatch::default());
    };
    let mut conditions = Conditions::new(PARAMETERS);
    conditions.of_history(query);
    let (id, order) = match (query.selection.ids.is_empty(), direction) {
        (true, Direction::OldestFirst) => ("attempt_id", "ASC"),
        (true, Direction::NewestFirst) => ("attempt_id", "DESC"),
        // So that the entries of a mail are found by their index.
        (false, Direction::OldestFirst) => ("+attempt_id", "ASC"),
        (false, Direction::NewestFirst) => ("+attempt_id", "DESC"),
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {columns} FROM {} WHERE {id} >= ?1 AND {id} <= ?2{} ORDER BY attempt_id {order}",
        AttemptRow::TABLE,
        conditions.sql
    ))?;
    let fixed: [&dyn ToSql; PARAMETERS] = [&first, &last];
    let values: Vec<&dyn ToSql> =
        fixed.into_iter().chain(conditions.values.iter().map(|value| value as &dyn ToSql)).collect();
    let mut attempts = statement.query_map(&values[..], AttemptRow::read)?.collect::<Result<Vec<_>, _>>()?;
    attempts.retain(|attempt| attempt.fits(&query.selection));
    Ok(AttemptBatch { attempts, next })
}

impl AttemptRow {
    /// Decides what the statement cannot: whether addresses and relay are meant, however they are written. The ledger may have only the domain
    /// of an address.
    fn fits(&self, selection: &Selection) -> bool {
        let is_meant = |pattern: &Option<AddressPattern>, address: &Option<String>| match pattern {
            None | Some(AddressPattern::Null) => true,
            Some(pattern) => pattern.fits(address.as_deref().map(str::as_bytes)),
        };
        let has_domain = |domain: &DomainPattern| {
            self.recipient.as_deref().is_some_and(|recipient| domain.fits(recipient.as_bytes()))
        };
        let goes_by = |remote: &RemotePattern| {
            let relay = self.next_hop.as_deref().and_then(|next_hop| next_hop.strip_prefix("relay "));
            relay.is_some_and(|relay| remote.fits(relay.as_bytes()))
        };
        selection.domain.as_ref().is_none_or(has_domain)
            && is_meant(&selection.recipient, &self.recipient)
            && is_meant(&selection.sender, &self.sender)
            && selection.remote.as_ref().is_none_or(goes_by)
    }
}

/// Returns the first and the last id that a batch looks at, and the id from which the next one goes on.
fn range(
    connection: &Connection,
    selection: &Selection,
    direction: Direction,
    from: Option<i64>,
) -> rusqlite::Result<Option<(i64, i64, Option<i64>)>> {
    if !selection.ids.is_empty() {
        return Ok(Some((i64::MIN, i64::MAX, None)));
    }
    let (sql, from) = match direction {
        Direction::OldestFirst => {
            ("SELECT min(attempt_id) FROM dispatch_attempts WHERE attempt_id >= ?1", from.unwrap_or(i64::MIN))
        }
        Direction::NewestFirst => {
            ("SELECT max(attempt_id) FROM dispatch_attempts WHERE attempt_id <= ?1", from.unwrap_or(i64::MAX))
        }
    };
    let begin: Option<i64> = connection.prepare_cached(sql)?.query_row([from], |row| row.get(0))?;
    Ok(begin.map(|begin| match direction {
        Direction::OldestFirst => {
            let last = begin.saturating_add(BATCH_ENTRIES - 1);
            (begin, last, last.checked_add(1))
        }
        Direction::NewestFirst => {
            let first = begin.saturating_sub(BATCH_ENTRIES - 1);
            (first, begin, first.checked_sub(1))
        }
    }))
}

impl Conditions {
    /// Adds the conditions on an entry of the ledger.
    fn of_history(&mut self, query: &HistoryQuery) {
        let HistoryQuery { selection, since, result, remote_id, now } = query;
        if !selection.ids.is_empty() {
            self.ids(&selection.ids);
        }
        if let Some(domain) = &selection.domain {
            self.domain("recipient", domain);
        }
        if let Some(recipient) = &selection.recipient {
            self.address("recipient", recipient);
        }
        if let Some(sender) = &selection.sender {
            self.address("sender", sender);
        }
        if let Some(remote) = &selection.remote {
            self.relay(remote);
        }
        if let Some(wanted) = &selection.message_id {
            let id = self.value(wanted.as_str().to_owned());
            self.add(&format!("message_id = {id}"));
        }
        if let Some(older_s) = selection.older_s {
            let limit = self.value(now.0.saturating_sub(older_s.into()));
            self.add(&format!("submitted > 0 AND submitted < {limit}"));
        }
        if let Some(status) = &selection.status {
            self.status(status);
        }
        if let Some(since) = since {
            let since = self.value(since.0);
            self.add(&format!("at_ms >= {since}"));
        }
        if let Some(result) = result {
            let result = self.value(result.clone());
            self.add(&format!("result = {result}"));
        }
        if let Some(remote_id) = remote_id {
            let remote_id = self.value(remote_id.clone());
            self.add(&format!("remote_id = {remote_id}"));
        }
    }

    fn relay(&mut self, remote: &RemotePattern) {
        // The ledger holds a relay as it is displayed.
        let host = self.value(format!("relay {}%", escaped(&remote.ascii_part())));
        self.add(&format!("next_hop LIKE {host} ESCAPE '\\'"));
    }

    fn status(&mut self, pattern: &StatusPattern) {
        let condition = match pattern {
            StatusPattern::Class(class) => {
                let (status, code) = (self.value(format!("{class}.%")), self.value(format!("{class}__")));
                format!("status LIKE {status} OR (status IS NULL AND code LIKE {code})")
            }
            StatusPattern::Status(status) => {
                let (exact, begin) = (self.value(status.clone()), self.value(format!("{status}.%")));
                format!("status = {exact} OR status LIKE {begin}")
            }
            StatusPattern::Code(code) => {
                let begin = self.value(format!("{code}%"));
                format!("code LIKE {begin}")
            }
        };
        self.add(&condition);
    }
}

#[cfg(test)]
mod tests;
