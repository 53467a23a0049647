//! What SQLite keeps beside a database, as far as its administrator has to know.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Uid};
use rusqlite::Connection;

use super::paths::{access, directory_of, with_suffix};

/// What is odd about a database that can be worked on. Displayed, a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DatabaseWarning {
    /// A program was killed in the middle of a transaction.
    HotJournal {
        /// The database.
        path: PathBuf,
    },
    /// The suite's programs lose mail on it.
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
                "a program was killed while it wrote to the database {}, and has left a hot journal: the daemon rolls \
                 back what was half written when it starts, and only then its tables can be looked at",
                path.display()
            ),
            Self::WriteAheadLog { path } => write!(
                f,
                "the database {0} keeps a write-ahead log (WAL), on which programs of the suite that go into the \
                 background lose mail: they open it before they fork, and the parent deletes the log when it exits; stop \
                 all programs that use the database, and run: sqlite3 {0} 'PRAGMA journal_mode=DELETE'",
                path.display()
            ),
        }
    }
}

/// The rollback journal of a database, whether it exists or not.
pub(super) fn rollback_journal(database: &Path) -> PathBuf {
    with_suffix(database, "-journal")
}

/// Whether a connection has found a write-ahead log. To be called after it has read.
pub(super) fn has_write_ahead_log(connection: &Connection) -> rusqlite::Result<bool> {
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    Ok(mode == "wal")
}

/// Whether this process may roll a journal back, which ends with its deletion. A journal that does not exist is no obstacle.
pub(super) fn may_roll_back(journal: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(journal) else { return true };
    access(journal, AccessFlags::R_OK | AccessFlags::W_OK).is_ok() && may_delete(metadata.uid(), journal)
}

/// Whether this process may delete a file of that owner. In a sticky directory, not everyone who may write it may.
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
