//! The last failure of each mail as a value, in the table `dispatch_failures`: retry rules ask for its kind, which the text of a faillog
//! row does not always tell.
//!
//! The table is created when it is needed. A row counts only as long as its time is the latest one of the faillog; without one, the
//! text is read. So nothing is lost if another program deletes the table, or changes the faillog.

use std::sync::Once;

use cmail_delivery::attempt::AttemptKind;
use cmail_delivery::failure_pattern::LastFailure;
use cmail_delivery::outbox::MailId;
use cmail_delivery::status::EnhancedStatus;
use cmail_delivery::time::UnixTime;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::advice;
use super::own_table::or_created;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS dispatch_failures (
    mail_id INTEGER PRIMARY KEY NOT NULL REFERENCES outbox (mail_id) ON DELETE CASCADE ON UPDATE CASCADE,
    fail_time INTEGER NOT NULL, kind TEXT NOT NULL, code INTEGER, status TEXT)";

const RECORD: &str = "INSERT OR REPLACE INTO dispatch_failures (mail_id, fail_time, kind, code, status) \
    VALUES (?1, ?2, ?3, ?4, ?5)";

/// Records the failure of a mail that exists. Fails only if the transaction is lost.
pub(super) fn record(
    connection: &Connection,
    id: MailId,
    at: UnixTime,
    failure: LastFailure,
) -> rusqlite::Result<()> {
    let Err(error) = try_to_record(connection, id, at, failure) else { return Ok(()) };
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!(
            "cannot write the table dispatch_failures: {error}; the kind of a failure is guessed from its text; {}",
            advice(connection, &error)
        );
    });
    // SQLite ends the transaction after some errors: without it, nothing may be written.
    if connection.is_autocommit() { Err(error) } else { Ok(()) }
}

fn try_to_record(
    connection: &Connection,
    id: MailId,
    at: UnixTime,
    failure: LastFailure,
) -> rusqlite::Result<()> {
    let status = failure.status.map(|status| status.to_string());
    or_created(connection, CREATE, || {
        connection
            .prepare_cached(RECORD)?
            .execute(params![id.0, at.0, failure.kind.name(), failure.code, status])
            .map(drop)
    })
}

/// Returns what is recorded of the failure of a mail at this time. What cannot be read counts as not recorded.
pub(super) fn recorded(connection: &Connection, id: MailId, at: UnixTime) -> Option<LastFailure> {
    let read = || -> rusqlite::Result<Option<LastFailure>> {
        let mut statement = connection.prepare_cached(
            "SELECT kind, code, status FROM dispatch_failures WHERE mail_id = ?1 AND fail_time = ?2",
        )?;
        statement.query_row([id.0, at.0], |row| Ok(failure(row))).optional().map(Option::flatten)
    };
    read().ok().flatten()
}

/// Converts a row; `None` if it is none of ours.
fn failure(row: &Row<'_>) -> Option<LastFailure> {
    let kind = AttemptKind::of_failure(row.get_ref(0).ok()?.as_str().ok()?)?;
    let status = row.get_ref(2).ok()?.as_str_or_null().ok()?;
    let status = status.and_then(|status| EnhancedStatus::parse_prefix(status.as_bytes()));
    let code = row.get::<_, Option<u16>>(1).ok()?;
    Some(LastFailure { kind, code, status: status.map(|(status, _)| status) })
}

#[cfg(test)]
mod tests;
