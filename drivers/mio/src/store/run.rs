//! The number of the present run of the daemon, in the table `dispatch_meta`. It makes connections and flights unique across restarts.

use cmail_delivery::io::ConnectionId;
use rusqlite::Connection;

/// The table.
pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS dispatch_meta (key TEXT PRIMARY KEY NOT NULL, value TEXT);
INSERT OR IGNORE INTO dispatch_meta (key, value) VALUES ('dispatch_version', '1');
";

/// The present run.
#[derive(Debug, Default)]
pub(super) struct Run {
    number: Option<i64>,
    /// True if it is known to stand in the database.
    is_counted: bool,
}

impl Run {
    /// Returns its number, and counts it if that was not done.
    pub(super) fn count(&mut self, connection: &Connection) -> rusqlite::Result<i64> {
        if let Some(number) = self.number.filter(|_| self.is_counted) {
            return Ok(number);
        }
        connection.execute_batch(CREATE)?;
        let number = connection.query_row(
            "INSERT INTO dispatch_meta (key, value) VALUES ('run', CAST(ifnull(?1, 1) AS TEXT)) ON CONFLICT (key) DO UPDATE \
             SET value = CAST(ifnull(?1, value + 1) AS TEXT) RETURNING CAST(value AS INTEGER)",
            [self.number],
            |row| row.get(0),
        )?;
        (self.number, self.is_counted) = (Some(number), true);
        Ok(number)
    }

    /// Forgets that it stands in the database: a transaction was rolled back.
    pub(super) fn forget(&mut self) {
        self.is_counted = false;
    }

    /// Returns the same run for another connection to the database.
    pub(super) fn renewed(&self) -> Self {
        Self { number: self.number, is_counted: false }
    }
}

/// Returns the key of a connection of a run.
pub(super) fn connection_key(run: i64, connection: ConnectionId) -> i64 {
    key(run, u32::try_from(connection.0 & u64::from(u32::MAX)).unwrap_or(0))
}

/// Returns the key of what a run has counted.
pub(super) fn key(run: i64, count: u32) -> i64 {
    (run << 32) | i64::from(count)
}
