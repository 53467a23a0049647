//! Errors of a database, in sentences for its administrator.

use std::io;
use std::path::{Path, PathBuf};

use cmail_delivery::outbox::{StoreError, StoreTrouble};
use nix::unistd::{AccessFlags, Uid, User};
use rusqlite::ffi::{
    SQLITE_ERROR, SQLITE_IOERR_CORRUPTFS, SQLITE_IOERR_DATA, SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ,
    SQLITE_READONLY_ROLLBACK,
};
use rusqlite::{Connection, ErrorCode};
use thiserror::Error;

use super::journal::{log_index, may_roll_back, rollback_journal};
use super::lock_holder::{described, range_lock_holder};
use super::paths::{FileId, access, directory_of};

/// Why a database cannot be worked on.
#[derive(Debug, Error)]
pub enum OpenError {
    /// No file has this name.
    #[error("there is no database {}; create it with the word initdb, or correct the directive `database`", .0.display())]
    Missing(PathBuf),
    /// It is a directory, a device, a socket or the like.
    #[error("{} is not a regular file; correct the directive `database`", .0.display())]
    NotAFile(PathBuf),
    /// The file or a directory on the way to it cannot be read.
    #[error("the database {} cannot be read: {source}", .path.display())]
    Unreadable {
        /// The database.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file may be read, but not written.
    #[error("the database {} cannot be written; give the user of this program the right to write it", .0.display())]
    ReadOnly(PathBuf),
    /// SQLite has to create its journal beside the database.
    #[error(
        "the directory {} of the database cannot be written, but SQLite keeps its journal there; \
         give the user of this program the right to write it", .0.display()
    )]
    DirectoryReadOnly(PathBuf),
    /// It is not an SQLite file.
    #[error("{} is not an SQLite database; correct the directive `database`, or create one under a new name with the word initdb", .0.display())]
    NotADatabase(PathBuf),
    /// SQLite says that it is corrupt.
    #[error("the database {} is damaged ({text}); restore it from a backup", .path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        text: String,
    },
    /// It is a database, but not a master database of schema 9.
    #[error(
        "the database {} is not a master database of schema version 9: {found}; \
         correct the directive `database`, or create one under a new name with the word initdb", .path.display()
    )]
    WrongSchema {
        /// The database.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// A program was killed while it wrote, and this connection must not roll back its journal.
    #[error("a program was killed while it wrote to the database, and left the hot journal {}", .0.display())]
    HotJournal(PathBuf),
    /// A program was killed while it wrote, and this process has no right to roll back its journal.
    #[error(
        "the journal {} cannot be rolled back: {text}; a program that was killed while it wrote to the database left it; \
         give the user of this program the right to read, write and delete it", .journal.display()
    )]
    StuckJournal {
        /// The journal.
        journal: PathBuf,
        /// What SQLite says.
        text: String,
    },
    /// Another file has taken the name of a database whose write-ahead log is still there.
    #[error(
        "the write-ahead log {} belongs to another file than the present database, and would damage it; \
         stop all programs that use the database, and then remove the log", .0.display()
    )]
    ForeignLog(PathBuf),
    /// Another process works on it, or the lock file cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another process keeps it locked.
    #[error(
        "the database {path} is locked by another process; `fuser -v {path}` names the processes that use it",
        path = .0.display()
    )]
    Busy(PathBuf),
    /// The file, or one that SQLite keeps beside it, cannot be opened.
    #[error(
        "the database {} cannot be opened, or a file that SQLite keeps beside it: {text}; \
         check who owns these files", .path.display()
    )]
    Inaccessible {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        text: String,
    },
    /// Anything else.
    #[error("the database {} cannot be opened: {text}", .path.display())]
    Other {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        text: String,
    },
}

impl OpenError {
    /// Translates an error of SQLite in opening the database.
    pub(super) fn from_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        let journal = rollback_journal(path);
        let path = path.to_path_buf();
        let text = error.to_string();
        let extended = error.sqlite_error().map(|error| error.extended_code);
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotADatabase(path),
            Some(
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed,
            ) => Self::Busy(path),
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::SystemIoFailure)
                if !may_roll_back(&journal) =>
            {
                Self::StuckJournal { journal, text }
            }
            Some(ErrorCode::ReadOnly) if extended == Some(SQLITE_READONLY_ROLLBACK) => {
                Self::HotJournal(journal)
            }
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { path, text },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen)
                if access(directory_of(&path), AccessFlags::W_OK).is_err() =>
            {
                Self::DirectoryReadOnly(directory_of(&path).to_path_buf())
            }
            Some(ErrorCode::ReadOnly) => Self::ReadOnly(path),
            Some(ErrorCode::CannotOpen) => Self::Inaccessible { path, text },
            // If SQLite cannot create a file beside the database on a full disk, it reports an input and output error.
            Some(ErrorCode::SystemIoFailure | ErrorCode::DiskFull) => {
                Self::Other { path, text: format!("its disk is full or fails ({text})") }
            }
            _ => Self::Other { path, text },
        }
    }
}

/// Why the operator's tool cannot read a database.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    /// Another process has kept it locked for as long as this one waits.
    #[error("the database {} is locked by {holder}; try again", .path.display())]
    Locked {
        /// The database.
        path: PathBuf,
        /// The process, if the system shows it.
        holder: String,
    },
    /// A program was killed while it wrote.
    #[error(
        "a program was killed while it wrote to the database, and left the hot journal {}; the daemon rolls it back when it starts",
        .0.display()
    )]
    HotJournal(PathBuf),
    /// It cannot be opened.
    #[error(transparent)]
    Open(OpenError),
    /// It was opened, and cannot be read.
    #[error("the database {} cannot be read: {text}; {advice}", .path.display())]
    Failed {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        text: String,
        /// What to do.
        advice: &'static str,
    },
}

/// Why an order cannot be given, or not be carried out.
#[derive(Debug, Error)]
pub(crate) enum OrderError {
    /// The database cannot be opened, read or written.
    #[error(transparent)]
    Database(#[from] ReadError),
    /// Another process may have the lock, but that cannot be found out.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// This user may only read.
    #[error("the database {} cannot be written; orders can be given by root and by who may write it", .0.display())]
    ReadOnly(PathBuf),
    /// The daemon that runs has not made the tables.
    #[error(
        "the database {} has no tables for orders, and the daemon that runs has not made them; its log says why, or it is too old",
        .0.display()
    )]
    NoTables(PathBuf),
    /// The database has failed several times.
    #[error("the database {} keeps failing, so the order stands; it is carried out when the daemon starts", .0.display())]
    GaveUp(PathBuf),
}

impl ReadError {
    fn locked(path: PathBuf) -> Self {
        let files = [path.clone(), log_index(&path)];
        let mut ids = files.iter().filter_map(|file| FileId::of(file).ok());
        let holder = ids.find_map(range_lock_holder).map_or("another process".to_owned(), described);
        Self::Locked { path, holder }
    }

    /// Translates an error of SQLite in reading.
    pub(super) fn from_sqlite(connection: &Connection, path: &Path, error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::locked(path.to_path_buf()),
            _ => Self::Failed {
                path: path.to_path_buf(),
                text: error.to_string(),
                advice: advice(connection, error),
            },
        }
    }
}

impl From<OpenError> for ReadError {
    fn from(error: OpenError) -> Self {
        if let OpenError::Busy(path) = error {
            Self::locked(path)
        } else if let OpenError::HotJournal(journal) = error {
            Self::HotJournal(journal)
        } else {
            Self::Open(error)
        }
    }
}

/// Why the lock was not taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error("process {pid} works on the database {} already; stop it first", .path.display())]
    Held {
        /// The database.
        path: PathBuf,
        /// The process.
        pid: i32,
    },
    /// Another process has it, whose id cannot be found out.
    #[error("another process works on the database {} already; stop it first", .path.display())]
    HeldByUnknown {
        /// The database.
        path: PathBuf,
    },
    /// The lock file is not a regular file with a single name.
    #[error("{} should be the lock file of the database, but is not a regular file with a single name; remove it", .0.display())]
    NotALockFile(PathBuf),
    /// The lock file cannot be used.
    #[error(
        "cannot lock the database: {}: {source}; the user of this program must be able to write this file and its directory",
        .path.display()
    )]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LockError {
    /// Another process has the lock.
    pub(super) fn held(database: &Path, holder: Option<i32>) -> Self {
        let path = database.to_path_buf();
        match holder {
            Some(pid) => Self::Held { path, pid },
            None => Self::HeldByUnknown { path },
        }
    }
}

/// Why no database was created.
#[derive(Debug, Error)]
pub enum InitError {
    /// A file of this name exists already, and stays unchanged.
    #[error("{} already exists and stays unchanged; remove it, or name another database", .0.display())]
    Exists(PathBuf),
    /// There is a journal without its database, which SQLite would play into the new one.
    #[error("{} was left behind by an earlier database; remove it first", .0.display())]
    Leftover(PathBuf),
    /// The user of this process may not create it.
    #[error(
        "the database {} cannot be created: the user {user} may not write its directory, where SQLite keeps the \
         journal too; give the directory to that user", .path.display()
    )]
    DirectoryReadOnly {
        /// The database to be.
        path: PathBuf,
        /// The user that the daemon will run as.
        user: String,
    },
    /// A file operation failed.
    #[error("the database {} cannot be created: cannot {action}: {source}", .path.display())]
    Io {
        /// The database to be.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// SQLite failed.
    #[error("the database {} cannot be created: {text}", .path.display())]
    Sqlite {
        /// The database to be.
        path: PathBuf,
        /// What SQLite says.
        text: String,
    },
}

impl InitError {
    /// Translates an error of the system in creating a database.
    pub(super) fn from_io(path: &Path, action: &'static str, source: io::Error) -> Self {
        let path = path.to_path_buf();
        if source.kind() == io::ErrorKind::AlreadyExists {
            Self::Exists(path)
        } else if source.kind() == io::ErrorKind::PermissionDenied {
            let user = Uid::effective();
            let user = User::from_uid(user).ok().flatten().map_or(user.to_string(), |user| user.name);
            Self::DirectoryReadOnly { path, user }
        } else {
            Self::Io { path, action, source }
        }
    }
}

/// Classifies an error of SQLite.
pub(super) fn trouble(connection: &Connection, error: &rusqlite::Error) -> StoreTrouble {
    let extended = error.sqlite_error().map_or(0, |error| error.extended_code);
    match error.sqlite_error_code() {
        // Values of an unexpected type or length, and statements that did not change what they should.
        None => StoreTrouble::Impossible,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreTrouble::Busy,
        // SQLite says the same when it has no id left for a new row.
        Some(ErrorCode::DiskFull) if ids_are_used_up(connection) => StoreTrouble::Impossible,
        Some(ErrorCode::DiskFull) => StoreTrouble::Full,
        Some(ErrorCode::DatabaseCorrupt) => StoreTrouble::Damaged,
        Some(ErrorCode::SystemIoFailure)
            if matches!(
                extended,
                SQLITE_IOERR_READ | SQLITE_IOERR_SHORT_READ | SQLITE_IOERR_CORRUPTFS | SQLITE_IOERR_DATA
            ) =>
        {
            StoreTrouble::Damaged
        }
        Some(
            ErrorCode::ConstraintViolation
            | ErrorCode::TooBig
            | ErrorCode::TypeMismatch
            | ErrorCode::ParameterOutOfRange,
        ) => StoreTrouble::Impossible,
        // The statement itself fails: for example, a trigger names a missing table, or a number overflows.
        _ if extended & 0xff == SQLITE_ERROR => StoreTrouble::Impossible,
        _ => StoreTrouble::Other,
    }
}

/// Returns whether no new row can get an id above all others, as `AUTOINCREMENT` requires.
pub(super) fn ids_are_used_up(connection: &Connection) -> bool {
    // Without `AUTOINCREMENT` the table `sqlite_sequence` may not exist, and then ids are never used up.
    let last: rusqlite::Result<i64> = connection
        .prepare_cached(
            "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0), \
             coalesce((SELECT max(mail_id) FROM outbox), 0))",
        )
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)));
    last.is_ok_and(|last| last == i64::MAX)
}

/// Says what to do if the database refuses a change of one row.
pub(super) fn advice(connection: &Connection, error: &rusqlite::Error) -> &'static str {
    match (trouble(connection, error), error.sqlite_error_code()) {
        (StoreTrouble::Impossible, Some(ErrorCode::DiskFull)) => {
            "the ids of the table outbox are used up: give the mail with the highest mail_id a lower one, and set seq of outbox \
             in the table sqlite_sequence to the highest that is left"
        }
        (StoreTrouble::Impossible, _) => {
            "check what other programs have added to the database: triggers, checks, tables that refer to the outbox"
        }
        (StoreTrouble::Damaged, _) => {
            "stop all programs that use the database and run PRAGMA integrity_check in the sqlite3 shell: REINDEX repairs an \
             index, .recover saves what can be read of a table, anything else needs a backup"
        }
        (StoreTrouble::Busy | StoreTrouble::Full | StoreTrouble::Other, _) => {
            "check the database and its disk"
        }
    }
}

/// Translates an error of SQLite in answering a request; `task` completes "cannot …".
pub(super) fn store_error(
    connection: &Connection,
    path: &Path,
    task: &str,
    error: &rusqlite::Error,
) -> StoreError {
    let reason = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process keeps it locked".to_owned()
        }
        Some(ErrorCode::DiskFull) => "its disk is full; make room".to_owned(),
        Some(ErrorCode::ReadOnly) => {
            "it cannot be written; give the user of this program the right to write it".to_owned()
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            format!("it is damaged ({error}); stop the daemon and restore it from a backup")
        }
        Some(ErrorCode::SystemIoFailure) => {
            format!("its disk is full or fails ({error}); check the system's log")
        }
        _ => error.to_string(),
    };
    let text = format!("cannot {task} the database {}: {reason}", path.display());
    StoreError { trouble: trouble(connection, error), text }
}

/// Returns whether the connection should be reopened after this error.
pub(super) fn needs_new_connection(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::ApiMisuse
        )
    )
}
