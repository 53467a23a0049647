//! The files that SQLite keeps beside a database, and warnings about them.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Uid};
use rusqlite::Connection;

use super::paths::{FileId, access, directory_of, with_suffix};

/// A warning about a usable database. It displays as a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DatabaseWarning {
    /// A program was killed in the middle of a transaction.
    HotJournal {
        /// The database.
        path: PathBuf,
    },
    /// It has a write-ahead log, with which the suite's programs lose mail.
    WriteAheadLog {
        /// The database.
        path: PathBuf,
    },
}

impl fmt::Display for DatabaseWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HotJournal { path } => write!(
                f,
                "a program was killed while it wrote to the database {}, and left a hot journal: the daemon rolls it back \
                 when it starts; the tables cannot be checked before that",
                path.display()
            ),
            Self::WriteAheadLog { path } => write!(
                f,
                "the database {0} keeps a write-ahead log (WAL), with which programs of the suite that go into the \
                 background lose mail: the parent deletes the log when it exits, and the child still writes to it; stop \
                 all programs that use the database, and run: sqlite3 {0} 'PRAGMA journal_mode=DELETE'",
                path.display()
            ),
        }
    }
}

/// The files of a write-ahead log, as a connection has opened them. SQLite keeps them while a connection is open, so if they
/// are gone, another program has removed or replaced them.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogFiles {
    log: FileId,
    index: FileId,
}

impl LogFiles {
    /// Returns the files that are beside the database now; `None` if one is missing.
    pub(super) fn of(database: &Path) -> Option<Self> {
        let log = FileId::of(&write_ahead_log(database)).ok()?;
        Some(Self { log, index: FileId::of(&log_index(database)).ok()? })
    }

    /// Returns the path of one that is no longer beside the database, if there is one.
    pub(super) fn loss(&self, database: &Path) -> Option<PathBuf> {
        let files = [(self.log, write_ahead_log(database)), (self.index, log_index(database))];
        files.into_iter().find(|(id, path)| FileId::of(path).ok() != Some(*id)).map(|(_, path)| path)
    }

    /// Returns whether the log is still beside the database and not empty.
    pub(super) fn has_content(&self, database: &Path) -> bool {
        let found = fs::metadata(write_ahead_log(database));
        found.is_ok_and(|found| FileId::from(&found) == self.log && found.len() > 0)
    }
}

/// Returns the path of a database's write-ahead log.
pub(super) fn write_ahead_log(database: &Path) -> PathBuf {
    with_suffix(database, "-wal")
}

/// Returns the path of the index of a database's write-ahead log, which connections share as memory.
pub(super) fn log_index(database: &Path) -> PathBuf {
    with_suffix(database, "-shm")
}

/// Returns the path of a database's rollback journal.
pub(super) fn rollback_journal(database: &Path) -> PathBuf {
    with_suffix(database, "-journal")
}

/// Returns whether a connection uses a write-ahead log. Valid after it has read.
pub(super) fn has_write_ahead_log(connection: &Connection) -> rusqlite::Result<bool> {
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    Ok(mode == "wal")
}

/// Returns whether this process may roll back a journal, which ends with its deletion. True if there is no journal.
pub(super) fn may_roll_back(journal: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(journal) else { return true };
    access(journal, AccessFlags::R_OK | AccessFlags::W_OK).is_ok() && may_delete(metadata.uid(), journal)
}

/// Returns whether this process may delete a file of `owner`. In a sticky directory, the right to write is not enough.
fn may_delete(owner: u32, path: &Path) -> bool {
    const STICKY: u32 = 0o1000;
    let directory = directory_of(path);
    let Ok(metadata) = fs::metadata(directory) else { return false };
    let user = Uid::effective();
    access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
        && (metadata.mode() & STICKY == 0
            || user.is_root()
            || [owner, metadata.uid()].contains(&user.as_raw()))
}
