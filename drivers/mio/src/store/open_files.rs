//! The files that a connection uses, which other programs may remove or replace meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use super::database_file::DatabaseFile;
use super::error::OpenError;
use super::journal::{LogFiles, has_write_ahead_log, write_ahead_log};

/// The files of one connection.
#[derive(Debug)]
pub(super) struct OpenFiles {
    database: Arc<DatabaseFile>,
    /// The files of the write-ahead log, once the database is known to have one.
    log: Option<LogFiles>,
    must_reopen: bool,
}

impl OpenFiles {
    /// Returns the files of a new connection to `database`.
    pub(super) fn of(database: Arc<DatabaseFile>, connection: &Connection) -> rusqlite::Result<Self> {
        let log = has_write_ahead_log(connection)?.then(|| LogFiles::of(database.path())).flatten();
        Ok(Self { database, log, must_reopen: false })
    }

    /// Returns the canonical path of the database.
    pub(super) fn path(&self) -> &Path {
        self.database.path()
    }

    /// Returns whether there is a write-ahead log.
    pub(super) fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// Looks whether there is a write-ahead log by now: another program may switch to one at any time.
    pub(super) fn look_for_log(&mut self, connection: &Connection) {
        if self.log.is_none() && has_write_ahead_log(connection).is_ok_and(|has_log| has_log) {
            self.log = LogFiles::of(self.path());
        }
    }

    /// Returns the path of a file that was removed or replaced, if there is one.
    pub(super) fn loss(&self) -> Option<PathBuf> {
        let path = self.path();
        if !self.database.is_in_place() {
            return Some(path.to_path_buf());
        }
        self.log.and_then(|log| log.loss(path))
    }

    /// Returns whether another connection is needed.
    pub(super) fn must_reopen(&self) -> bool {
        self.must_reopen
    }

    /// Notes that another connection is needed.
    pub(super) fn require_reopening(&mut self) {
        self.must_reopen = true;
    }

    /// Returns the file that has the name now, for another connection, and locks it if it is another one.
    pub(super) fn find_again(&self) -> Result<Arc<DatabaseFile>, OpenError> {
        if self.database.is_in_place() {
            return Ok(Arc::clone(&self.database));
        }
        let path = self.path();
        // SQLite would play the log into the other database.
        if self.log.is_some_and(|log| log.has_content(path)) {
            return Err(OpenError::ForeignLog(write_ahead_log(path)));
        }
        let file = DatabaseFile::open(path)?;
        file.lock()?;
        Ok(Arc::new(file))
    }

    /// Returns the file of the database.
    #[cfg(test)]
    pub(super) fn database(&self) -> Arc<DatabaseFile> {
        Arc::clone(&self.database)
    }
}
