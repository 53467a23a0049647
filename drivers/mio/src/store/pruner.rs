//! Deletes what was kept for long enough: orders that are done, and what was known of mail that has left.

use cmail_delivery::time::UnixMillis;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::own_table::if_present;

/// Most rows of a table that are looked at or deleted at a time. That takes some milliseconds.
const LIMIT_ROWS: i64 = 1000;

/// SQL: looks at the next rows of a table, and deletes those of them whose mail is gone.
macro_rules! statements {
    ($table:literal) => {
        [
            concat!(
                "SELECT max(mail_id) FROM (SELECT mail_id FROM ",
                $table,
                " WHERE mail_id >= ?1 ORDER BY mail_id LIMIT ?2)"
            ),
            concat!(
                "DELETE FROM ",
                $table,
                " WHERE mail_id BETWEEN ?1 AND ?2 AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.mail_id = ",
                $table,
                ".mail_id)"
            ),
        ]
    };
}

/// How far it has come.
#[derive(Debug)]
pub(super) struct Pruner {
    /// The first mail whose row is looked at next: of `dispatch_state` and of `dispatch_envelope`.
    next_mails: [i64; 2],
}

impl Default for Pruner {
    fn default() -> Self {
        Self { next_mails: [i64::MIN; 2] }
    }
}

impl Pruner {
    /// Deletes orders that were done before this time, except those of holds that go on, and rows about mail that is gone; a limited
    /// number of them. To be called within a transaction.
    pub(super) fn prune(&mut self, connection: &Connection, oldest: UnixMillis) -> rusqlite::Result<()> {
        if_present(|| prune_orders(connection, oldest))?;
        // Rows of both go with their mail, unless the program that deletes it does not enforce foreign keys, or has made the table.
        let tables = [statements!("dispatch_state"), statements!("dispatch_envelope")];
        for (statements, next_mail) in tables.into_iter().zip(&mut self.next_mails) {
            if_present(|| prune_rows(connection, statements, next_mail))?;
        }
        Ok(())
    }
}

/// Deletes some of the rows whose mail is gone, from this mail on.
fn prune_rows(
    connection: &Connection,
    [look, delete]: [&'static str; 2],
    next_mail: &mut i64,
) -> rusqlite::Result<()> {
    let last: Option<i64> = connection
        .prepare_cached(look)?
        .query_row(params![*next_mail, LIMIT_ROWS], |row| row.get(0))
        .optional()?
        .flatten();
    let Some(last) = last else {
        *next_mail = i64::MIN;
        return Ok(());
    };
    connection.prepare_cached(delete)?.execute(params![*next_mail, last])?;
    *next_mail = last.checked_add(1).unwrap_or(i64::MIN);
    Ok(())
}

fn prune_orders(connection: &Connection, oldest: UnixMillis) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM dispatch_orders WHERE order_id IN (SELECT order_id FROM dispatch_orders WHERE done_ms < ?1 \
             AND order_id NOT IN (SELECT hold_id FROM dispatch_holds) LIMIT ?2)",
        )?
        .execute(params![oldest.0, LIMIT_ROWS])
        .map(drop)
}

#[cfg(test)]
mod tests;
