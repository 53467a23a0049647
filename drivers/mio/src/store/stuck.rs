//! Mail that a server has taken, and that cannot be deleted: it stands in a table of ours, so that it is never sent again.
//!
//! The table is made when it is needed. A note goes with its mail; who wants such mail to be sent again deletes its note.

use cmail_delivery::outbox::MailId;
use rusqlite::{Connection, params};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS dispatch_stuck \
    (mail_id INTEGER PRIMARY KEY NOT NULL, since INTEGER NOT NULL, text TEXT)";

/// Whether there may be such mail.
pub(super) fn exists(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'dispatch_stuck'")?
        .exists([])
}

/// Notes a mail.
pub(super) fn note(connection: &Connection, id: MailId, text: &str) -> rusqlite::Result<()> {
    connection.execute_batch(CREATE)?;
    connection
        .prepare_cached(
            "INSERT INTO dispatch_stuck (mail_id, since, text) VALUES (?1, strftime('%s', 'now'), ?2) \
             ON CONFLICT (mail_id) DO UPDATE SET text = excluded.text",
        )?
        .execute(params![id.0, text])
        .map(drop)
}

/// Takes a note back.
pub(super) fn end(connection: &Connection, id: MailId) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM dispatch_stuck WHERE mail_id = ?1")?.execute([id.0]).map(drop)
}

/// Whether a mail is noted.
pub(super) fn contains(connection: &Connection, id: MailId) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM dispatch_stuck WHERE mail_id = ?1")?.exists([id.0])
}

/// The mail of a range of ids that is noted.
pub(super) fn between(connection: &Connection, first: MailId, last: MailId) -> rusqlite::Result<Vec<MailId>> {
    connection
        .prepare_cached("SELECT mail_id FROM dispatch_stuck WHERE mail_id BETWEEN ?1 AND ?2")?
        .query_map([first.0, last.0], |row| row.get(0).map(MailId))?
        .collect()
}
