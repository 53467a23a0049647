//! One connection to the master database.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cmail_delivery::outbox::StoreError;
use nix::unistd::AccessFlags;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::error::{OpenError, needs_new_connection, store_error};
use super::paths::{FileId, access, directory_of};
use super::patience::{BUSY_TIMEOUT, Hurry, wait_for_locks};
use super::pool::Pool;
use super::schema::verify;
use super::stamps::Stamps;

/// How soon files are tried again that another process is about to make accessible.
const ACCESS_PAUSE: Duration = Duration::from_millis(5);

/// Prepared statements to keep: more than there are different ones.
const STATEMENT_CACHE_CAPACITY: usize = 32;

/// Without this index, the failures of a mail are found by reading the whole faillog, also by SQLite itself whenever
/// a mail is deleted.
const CREATE_INDEX: &str = "CREATE INDEX IF NOT EXISTS dispatch_faillog_mail ON faillog (fail_mail)";

/// A master database of schema 9 that is open for reading and writing. No transaction is open between two calls.
#[derive(Debug)]
pub(crate) struct Database {
    pub(super) connection: Connection,
    /// For large messages.
    pub(super) pool: Pool,
    path: PathBuf,
    file: FileId,
    /// Whether the index of the faillog is known to exist.
    is_indexed: bool,
    must_reopen: bool,
    /// What the mail was that is being worked on.
    pub(super) stamps: Stamps,
    /// How often the database was opened anew: data versions of different connections cannot be compared.
    pub(super) generation: i64,
    /// The data version that was seen last.
    seen_version: i64,
    busy_timeout: Duration,
    hurry: Hurry,
}

impl Database {
    /// Opens an existing database; never creates one. The caller holds its [lock](super::DatabaseLock), and has
    /// become a daemon already, because a connection must not be used on both sides of a fork.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with_timeout(path, BUSY_TIMEOUT)
    }

    /// Opens a database, and waits so long for locks of other processes.
    pub(super) fn open_with_timeout(path: &Path, busy_timeout: Duration) -> Result<Self, OpenError> {
        Self::open_with_patience(path, busy_timeout, Hurry::default())
    }

    fn open_with_patience(path: &Path, busy_timeout: Duration, hurry: Hurry) -> Result<Self, OpenError> {
        let path = locate(path)?;
        if access(&path, AccessFlags::W_OK).is_err() {
            return Err(OpenError::ReadOnly(path));
        }
        if access(directory_of(&path), AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
            return Err(OpenError::DirectoryReadOnly(directory_of(&path).to_path_buf()));
        }
        let file =
            FileId::of(&path).map_err(|source| OpenError::Unreadable { path: path.clone(), source })?;
        let connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, busy_timeout, hurry.clone())?;
        let failed = |error: rusqlite::Error| OpenError::from_sqlite(&path, &error);
        if connection.is_readonly(rusqlite::MAIN_DB).map_err(failed)? {
            return Err(OpenError::ReadOnly(path));
        }
        let is_indexed = match has_index(&connection).map_err(failed)? {
            true => true,
            // An index spares time, nothing else: whoever keeps the database locked now may go on.
            false => connection
                .execute_batch(CREATE_INDEX)
                .inspect_err(|error| {
                    log::warn!(
                        "cannot create an index in the database {}, trying again later: {error}",
                        path.display()
                    );
                })
                .is_ok(),
        };
        let seen_version = data_version(&connection).map_err(failed)?;
        Ok(Self {
            connection,
            pool: Pool::default(),
            path,
            file,
            is_indexed,
            must_reopen: false,
            stamps: Stamps::default(),
            generation: 0,
            seen_version,
            busy_timeout,
            hurry,
        })
    }

    /// What makes this connection wait for locks no longer.
    pub(super) fn hurry(&self) -> Hurry {
        self.hurry.clone()
    }

    /// The canonical name of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes sure that the connection is one to the file that has the name now. A file that was moved away is not
    /// written to any more: nobody would ever see it.
    pub(super) fn ensure_open(&mut self) -> Result<(), StoreError> {
        let is_same = FileId::of(&self.path).is_ok_and(|file| file == self.file);
        if is_same && !self.must_reopen {
            return Ok(());
        }
        let mut fresh = Self::open_with_patience(&self.path, self.busy_timeout, self.hurry.clone())
            .map_err(|error| StoreError { text: error.to_string() })?;
        fresh.generation = self.generation.wrapping_add(1);
        fresh.stamps = std::mem::take(&mut self.stamps);
        fresh.pool = self.pool.clone();
        *self = fresh;
        Ok(())
    }

    /// The sentence for an error of a request; `task` completes "cannot …".
    pub(super) fn failed(&mut self, task: &str, error: &rusqlite::Error) -> StoreError {
        self.must_reopen |= needs_new_connection(error);
        store_error(&self.path, task, error)
    }

    /// Tries again to create an index that is missing, when something is to be written anyway. It spares time, and
    /// nothing else depends on it.
    pub(super) fn ensure_index(&mut self) {
        if !self.is_indexed {
            self.is_indexed = self.connection.execute_batch(CREATE_INDEX).is_ok();
        }
    }

    /// The data version as the core sees it, within the read transaction that is open, or now. What has changed before it
    /// counts as seen.
    pub(super) fn see_version(&mut self) -> rusqlite::Result<i64> {
        self.seen_version = data_version(&self.connection)?;
        self.version()
    }

    /// The data version, within the transaction that is open.
    pub(super) fn version(&self) -> rusqlite::Result<i64> {
        version(&self.connection, self.generation)
    }

    /// Whether another connection has written since this one looked last.
    pub(super) fn changed_elsewhere(&mut self) -> bool {
        let (before, generation) = (self.seen_version, self.generation);
        if self.ensure_open().is_err() {
            return false;
        }
        self.see_version().is_ok() && (self.seen_version != before || self.generation != generation)
    }
}

/// Whether [`Database::open`] would succeed on `path`, as far as reading tells. Creates and changes nothing, but for
/// what SQLite keeps beside a database in WAL mode.
pub(crate) fn check(path: &Path) -> Result<(), OpenError> {
    connect(&locate(path)?, OpenFlags::SQLITE_OPEN_READ_ONLY, BUSY_TIMEOUT, Hurry::default()).map(drop)
}

/// The octets of a text or blob; a number, which no column should hold, as SQLite would show it.
pub(super) fn octets(value: ValueRef<'_>) -> Option<Cow<'_, [u8]>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Text(octets) | ValueRef::Blob(octets) => Some(Cow::Borrowed(octets)),
        ValueRef::Integer(number) => Some(Cow::Owned(number.to_string().into_bytes())),
        ValueRef::Real(number) => Some(Cow::Owned(number.to_string().into_bytes())),
    }
}

/// The canonical name of an existing, readable file.
pub(super) fn locate(path: &Path) -> Result<PathBuf, OpenError> {
    let unreadable = |source: io::Error| {
        if source.kind() == io::ErrorKind::NotFound {
            OpenError::Missing(path.to_path_buf())
        } else {
            OpenError::Unreadable { path: path.to_path_buf(), source }
        }
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(OpenError::NotAFile(path.to_path_buf()));
    }
    // The file itself is never opened here: closing it would drop the locks that SQLite holds on it.
    access(path, AccessFlags::R_OK).map_err(|errno| unreadable(errno.into()))?;
    if metadata.len() == 0 {
        return Err(OpenError::WrongSchema {
            path: path.to_path_buf(),
            found: "it is an empty file".to_owned(),
        });
    }
    fs::canonicalize(path).map_err(unreadable)
}

/// Connects to a database and makes sure that it is one of schema 9.
///
/// A process of root that opens the database makes the files beside it, and only then gives them to the owner of the
/// database. Whoever comes in between cannot open them, and has to try again.
fn connect(
    path: &Path,
    mode: OpenFlags,
    busy_timeout: Duration,
    hurry: Hurry,
) -> Result<Connection, OpenError> {
    let began = Instant::now();
    loop {
        match connect_once(path, mode, busy_timeout, hurry.clone()) {
            Err(OpenError::Inaccessible { .. }) if began.elapsed() < busy_timeout => {
                std::thread::sleep(ACCESS_PAUSE);
            }
            result => return result,
        }
    }
}

fn connect_once(
    path: &Path,
    mode: OpenFlags,
    busy_timeout: Duration,
    hurry: Hurry,
) -> Result<Connection, OpenError> {
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(path, &error);
    let mut connection =
        Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    wait_for_locks(&mut connection, busy_timeout, hurry).map_err(failed)?;
    verify(&connection, path)?;
    // Otherwise statements are compiled anew for other parameters, which costs more than most of them do. What all of them
    // look for is an id, and that has one best way.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    // A verdict is on the disk when its commit is answered, also in WAL mode (RFC 5321 section 6.1).
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    Ok(connection)
}

fn has_index(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = 'dispatch_faillog_mail'")?
        .exists([])
}

/// Changes whenever another connection has written, or the database was opened anew.
pub(super) fn version(connection: &Connection, generation: i64) -> rusqlite::Result<i64> {
    Ok((generation << 32) ^ data_version(connection)?)
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
