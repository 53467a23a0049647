//! Mail that a server has taken, and that cannot be deleted. The table `dispatch_stuck` holds a note of it, so that it is not
//! sent again.
//!
//! The table is created when it is needed. A note is deleted with its mail; mail without a note is sent again.

use cmail_delivery::outbox::{MailId, Row};
use rusqlite::{Connection, params};

use super::error::trouble;
use super::failures::row_with_failures;
use super::rows;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS dispatch_stuck \
    (mail_id INTEGER PRIMARY KEY NOT NULL, since INTEGER NOT NULL, text TEXT)";

/// Returns whether the table exists, so that there may be such mail.
pub(super) fn exists(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'dispatch_stuck'")?
        .exists([])
}

/// Notes a mail. The note covers only mail submitted until now, so that another program may put other mail in its place.
pub(super) fn note(connection: &Connection, id: MailId, text: &str) -> rusqlite::Result<()> {
    connection.execute_batch(CREATE)?;
    connection
        .prepare_cached(
            "INSERT INTO dispatch_stuck (mail_id, since, text) VALUES (?1, max(CAST(strftime('%s', 'now') AS INTEGER), \
             ifnull((SELECT CAST(mail_submission AS INTEGER) FROM outbox WHERE mail_id = ?1), 0)), ?2) \
             ON CONFLICT (mail_id) DO UPDATE SET text = excluded.text, since = excluded.since",
        )?
        .execute(params![id.0, text])
        .map(drop)
}

/// Deletes a note.
pub(super) fn end(connection: &Connection, id: MailId) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM dispatch_stuck WHERE mail_id = ?1")?.execute([id.0]).map(drop)
}

/// Returns whether a mail is noted.
pub(super) fn contains(connection: &Connection, id: MailId) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM dispatch_stuck WHERE mail_id = ?1 AND NOT EXISTS (SELECT 1 FROM outbox \
             WHERE outbox.mail_id = ?1 AND CAST(mail_submission AS INTEGER) > since)",
        )?
        .exists([id.0])
}

/// Returns the mail that another program has put in the place of a noted one, if there is one.
pub(super) fn successor(connection: &Connection, id: MailId) -> rusqlite::Result<Option<Row>> {
    let is_noted =
        connection.prepare_cached("SELECT 1 FROM dispatch_stuck WHERE mail_id = ?1")?.exists([id.0])?;
    if !is_noted || contains(connection, id)? {
        return Ok(None);
    }
    row_with_failures(connection, id, &mut rows::texts())
}

/// Returns the noted mail in a range of ids. If a row cannot be read, its note counts.
pub(super) fn between(connection: &Connection, first: MailId, last: MailId) -> rusqlite::Result<Vec<MailId>> {
    let mut ids = connection
        .prepare_cached("SELECT mail_id FROM dispatch_stuck WHERE mail_id BETWEEN ?1 AND ?2")?
        .query_map([first.0, last.0], |row| row.get(0).map(MailId))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut failure = None;
    ids.retain(|id| {
        contains(connection, *id).unwrap_or_else(|error| {
            if !trouble(connection, &error).is_about_a_row() {
                failure = Some(error);
            }
            true
        })
    });
    failure.map_or(Ok(ids), Err)
}

#[cfg(test)]
mod tests;
