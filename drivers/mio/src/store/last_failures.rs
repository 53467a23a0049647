//! The last failure of each mail as a value, in the table `dispatch_failures`: retry rules ask for its kind, which the text of a faillog
//! row does not always tell.
//!
//! The table is created when it is needed. A row counts only as long as it is about the latest row of the faillog; without one, the
//! text is read. So nothing is lost if another program deletes the table, or changes the faillog.

use std::collections::BTreeMap;
use std::sync::Once;

use cmail_delivery::attempt::AttemptKind;
use cmail_delivery::failure_pattern::LastFailure;
use cmail_delivery::outbox::MailId;
use cmail_delivery::status::EnhancedStatus;
use cmail_delivery::time::UnixTime;
use rusqlite::{Connection, Row, params};

use super::error::advice;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS dispatch_failures (
    mail_id INTEGER PRIMARY KEY NOT NULL REFERENCES outbox (mail_id) ON DELETE CASCADE ON UPDATE CASCADE,
    fail_time INTEGER NOT NULL, kind TEXT NOT NULL, code INTEGER, status TEXT)";

const RECORD: &str = "INSERT OR REPLACE INTO dispatch_failures (mail_id, fail_time, kind, code, status) \
    VALUES (?1, ?2, ?3, ?4, ?5)";

/// The recorded failures of some mail, each with its time.
pub(super) type Recorded = BTreeMap<MailId, (UnixTime, LastFailure)>;

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
    let mut statement = match connection.prepare_cached(RECORD) {
        Ok(statement) => statement,
        Err(_) => {
            connection.execute_batch(CREATE)?;
            connection.prepare_cached(RECORD)?
        }
    };
    let status = failure.status.map(|status| status.to_string());
    statement.execute(params![id.0, at.0, failure.kind.name(), failure.code, status]).map(drop)
}

/// Reads what is recorded of the mail from `first` to `last`. What cannot be read counts as not recorded.
pub(super) fn between(connection: &Connection, first: MailId, last: MailId) -> Recorded {
    let read = || -> rusqlite::Result<Recorded> {
        let mut statement = connection.prepare_cached(
            "SELECT mail_id, fail_time, kind, code, status FROM dispatch_failures WHERE mail_id BETWEEN ?1 AND ?2",
        )?;
        let found = statement.query_map([first.0, last.0], |row| Ok(recorded(row)))?;
        Ok(found.filter_map(|row| row.ok().flatten()).collect())
    };
    read().unwrap_or_default()
}

/// Converts a row; `None` if it is none of ours.
fn recorded(row: &Row<'_>) -> Option<(MailId, (UnixTime, LastFailure))> {
    let kind = AttemptKind::of_failure(row.get_ref(2).ok()?.as_str().ok()?)?;
    let status = row.get_ref(4).ok()?.as_str_or_null().ok()?;
    let status = status.and_then(|status| EnhancedStatus::parse_prefix(status.as_bytes()));
    let code = row.get::<_, Option<u16>>(3).ok()?;
    let failure = LastFailure { kind, code, status: status.map(|(status, _)| status) };
    Some((MailId(row.get(0).ok()?), (UnixTime(row.get(1).ok()?), failure)))
}

#[cfg(test)]
mod tests;
