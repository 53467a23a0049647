//! A number that changes whenever another connection has written, or the database was reopened.

use rusqlite::Connection;

/// The data version of a connection. Those of different connections cannot be compared, so how often it was reopened is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataVersion {
    /// How often the database was reopened.
    generation: i64,
    /// What SQLite said last.
    seen: i64,
}

impl DataVersion {
    /// Returns that of a first connection.
    pub(super) fn of(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self { generation: 0, seen: data_version(connection)? })
    }

    /// Returns that of a connection which takes the place of the one with the version `before`.
    pub(super) fn reopened(self, before: Self) -> Self {
        Self { generation: before.generation.wrapping_add(1), ..self }
    }

    /// Looks at the version, and notes it as seen.
    pub(super) fn see(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.seen = data_version(connection)?;
        Ok(())
    }

    /// Returns the number that was seen last.
    pub(super) fn seen(self) -> i64 {
        self.seen ^ (self.generation << 32)
    }

    /// Returns the number within an open transaction.
    pub(super) fn within(self, transaction: &Connection) -> rusqlite::Result<i64> {
        Ok((self.generation << 32) ^ data_version(transaction)?)
    }
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}
