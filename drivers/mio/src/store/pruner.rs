//! Deletes what was kept for long enough: orders that are done, and what was known of mail that has left.

use cmail_delivery::time::UnixMillis;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::own_table::if_present;

/// Most rows of a table that are looked at or deleted at a time. That takes some milliseconds.
const LIMIT_ROWS: i64 = 1000;

/// How far it has come.
#[derive(Debug)]
pub(super) struct Pruner {
    /// The first mail whose row of `dispatch_state` is looked at next.
    next_mail: i64,
}

impl Default for Pruner {
    fn default() -> Self {
        Self { next_mail: i64::MIN }
    }
}

impl Pruner {
    /// Deletes orders that were done before this time, except those of holds that go on, and rows about mail that is gone; a limited
    /// number of them. To be called within a transaction.
    pub(super) fn prune(&mut self, connection: &Connection, oldest: UnixMillis) -> rusqlite::Result<()> {
        if_present(|| prune_orders(connection, oldest))?;
        if_present(|| self.prune_states(connection)).map(drop)
    }

    fn prune_states(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let last: Option<i64> = connection
            .prepare_cached(
                "SELECT max(mail_id) FROM (SELECT mail_id FROM dispatch_state WHERE mail_id >= ?1 ORDER BY mail_id LIMIT ?2)",
            )?
            .query_row(params![self.next_mail, LIMIT_ROWS], |row| row.get(0))
            .optional()?
            .flatten();
        let Some(last) = last else {
            self.next_mail = i64::MIN;
            return Ok(());
        };
        connection
            .prepare_cached(
                "DELETE FROM dispatch_state WHERE mail_id BETWEEN ?1 AND ?2 \
                 AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.mail_id = dispatch_state.mail_id)",
            )?
            .execute(params![self.next_mail, last])?;
        self.next_mail = last.checked_add(1).unwrap_or(i64::MIN);
        Ok(())
    }
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
