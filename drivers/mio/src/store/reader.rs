//! A database that is open for reading, beside the daemon or without it.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::busy::{BUSY_TIMEOUT, CancelToken};
use super::database::{connect, has_index};
use super::database_file::DatabaseFile;
use super::error::ReadError;

/// How many failures one transaction copies: some ten milliseconds, for which a writer may have to wait.
const COPIED_FAILURES: usize = 10_000;

const BEGIN_COPY: &str = "
DROP TABLE IF EXISTS temp.copied;
CREATE TEMP TABLE copied (id INTEGER PRIMARY KEY, fail_mail, fail_message, fail_time, fail_fatal);
";

const COPY_PART: &str = "
INSERT INTO temp.copied
    SELECT rowid, fail_mail, fail_message, fail_time, fail_fatal FROM main.faillog WHERE rowid >= ?1 ORDER BY rowid LIMIT ?2
";

/// Only reads what was copied. A temporary table hides the one of the same name.
const END_COPY: &str = "
CREATE TEMP TABLE faillog AS
    SELECT fail_mail, fail_message, fail_time, fail_fatal FROM temp.copied ORDER BY fail_mail, id;
CREATE INDEX temp.dispatch_faillog_mail ON faillog (fail_mail);
DROP TABLE temp.copied;
";

/// A master database that is only looked at. It needs no lock, and creates and changes nothing except what SQLite keeps beside a database
/// in WAL mode. Each call reads in a transaction of its own, so that no writer waits long.
#[derive(Debug)]
pub(crate) struct Reader {
    connection: Connection,
    path: PathBuf,
    /// Whether the failures of a mail are found by an index. An older database has none.
    pub(super) is_faillog_indexed: Cell<bool>,
}

impl Reader {
    /// Opens a database. Waits at most 5 s for the locks of other processes, now and later.
    pub(crate) fn open(path: &Path) -> Result<Self, ReadError> {
        let file = DatabaseFile::open(path)?;
        let path = file.path().to_path_buf();
        // Closed before SQLite opens it: that would drop SQLite's locks.
        drop(file);
        let connection =
            connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY, BUSY_TIMEOUT, CancelToken::default())?;
        let is_faillog_indexed =
            has_index(&connection).map_err(|error| ReadError::from_sqlite(&connection, &path, &error))?;
        Ok(Self { connection, path, is_faillog_indexed: Cell::new(is_faillog_indexed) })
    }

    /// Makes sure that the failures of many mails are found quickly. Where the database has no index of them, a copy of the faillog with an
    /// index takes its place for this connection, in a temporary file. What fails later is not in it.
    pub(super) fn prepare_faillog(&self) -> Result<(), ReadError> {
        if !self.is_faillog_indexed.get() {
            self.copy_faillog()
                .map_err(|error| ReadError::from_sqlite(&self.connection, &self.path, &error))?;
            self.is_faillog_indexed.set(true);
        }
        Ok(())
    }

    /// Copies the faillog in parts, each in a transaction of its own.
    fn copy_faillog(&self) -> rusqlite::Result<()> {
        self.connection.execute_batch(BEGIN_COPY)?;
        let mut first = Some(i64::MIN);
        while let Some(id) = first {
            let limit = i64::try_from(COPIED_FAILURES).unwrap_or(i64::MAX);
            let count = self.connection.prepare_cached(COPY_PART)?.execute([id, limit])?;
            let is_full = count == COPIED_FAILURES;
            first = is_full.then(|| self.connection.last_insert_rowid().checked_add(1)).flatten();
        }
        self.connection.execute_batch(END_COPY)
    }

    /// Reads in one transaction.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        // It ends by a rollback: a commit would fail where a damaged page was met.
        let read = self.connection.unchecked_transaction().and_then(|transaction| work(&transaction));
        read.map_err(|error| ReadError::from_sqlite(&self.connection, &self.path, &error))
    }
}

#[cfg(test)]
mod tests;
