//! One connection to the master database.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cmail_delivery::outbox::{Commit, StoreError, StoreTrouble};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::busy::{BUSY_TIMEOUT, CancelToken, interruptibly, wait_for_locks};
use super::data_version::DataVersion;
use super::database_file::DatabaseFile;
use super::digests::Digests;
use super::envelopes;
use super::error::{OpenError, needs_new_connection, store_error};
use super::fingerprints::{FingerprintList, Fingerprints};
use super::flights::FlightTable;
use super::holds;
use super::journal::{DatabaseWarning, has_write_ahead_log, may_roll_back, rollback_journal};
use super::ledger::{Ledger, LedgerSettings};
use super::line_notes::LineNotes;
use super::lock::DatabaseLock;
use super::open_files::OpenFiles;
use super::orders;
use super::policies::PolicyTable;
use super::pool::Pool;
use super::pruner::Pruner;
use super::schema::verify;
use super::signing::Bodies;
use super::uncheckpointed::Uncheckpointed;

/// The pause before another attempt to open files that another process is about to make accessible.
const ACCESS_PAUSE: Duration = Duration::from_millis(5);

/// How long such attempts go on: the other process needs only a few system calls.
const ACCESS_LIMIT: Duration = Duration::from_secs(1);

/// How long `check` waits for locks: the user waits for its answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Most prepared statements that are kept: more than there are different ones.
const STATEMENT_CACHE_CAPACITY: usize = 64;

/// Without this index, finding the failures of a mail means reading the whole faillog, which SQLite itself also does
/// whenever a mail is deleted.
const CREATE_INDEX: &str = "CREATE INDEX IF NOT EXISTS dispatch_faillog_mail ON faillog (fail_mail)";

/// A master database of schema 9 that is open for reading and writing. No transaction is open between two calls.
#[derive(Debug)]
pub(crate) struct Database {
    /// Declared before the file, because it must be closed first.
    pub(super) connection: Connection,
    files: OpenFiles,
    pub(super) large: LargeMessages,
    pub(super) additions: Additions,
    pub(super) uncheckpointed: Uncheckpointed,
    pub(super) ledger: Ledger,
    pub(super) pruner: Pruner,
    pub(super) notes: Notes,
    pub(super) line_notes: LineNotes,
    /// The rows that are being worked on, as they were when they were read.
    pub(super) fingerprints: Fingerprints,
    pub(super) version: DataVersion,
    patience: Patience,
}

/// The tables that commits write besides verdicts.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) flights: FlightTable,
    pub(super) policies: PolicyTable,
}

/// What is kept of large messages.
#[derive(Debug, Default)]
pub(super) struct LargeMessages {
    pub(super) pool: Pool,
    /// The digests of those that were compared.
    pub(super) digests: Digests,
    /// What is known of those that were to be signed.
    pub(super) bodies: Bodies,
}

impl LargeMessages {
    /// Switches to a version of the database, and forgets what is known of another one.
    pub(super) fn turn_to(&mut self, version: i64) {
        self.digests.turn_to(version);
        self.bodies.turn_to(version);
    }
}

/// What the daemon adds to the schema, as far as it is known to exist.
#[derive(Clone, Copy, Debug)]
pub(super) struct Additions {
    /// The index of the faillog.
    pub(super) is_indexed: bool,
    /// The tables of orders, and of what senders want.
    pub(super) has_order_tables: bool,
    /// No id of a mail is used again, as in every outbox of the suite: only then a mark is surely that of its mail.
    pub(super) has_unique_ids: bool,
    /// It was told that marks do not count.
    pub(super) has_told_of_marks: bool,
}

impl Additions {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let has_order_tables = has_order_tables(connection)? && envelopes::exists(connection)?;
        // Of a view nothing is known.
        let has_unique_ids =
            connection.column_metadata(None, "outbox", "mail_id").is_ok_and(|(.., is_auto)| is_auto);
        Ok(Self {
            is_indexed: has_index(connection)?,
            has_order_tables,
            has_unique_ids,
            has_told_of_marks: false,
        })
    }
}

/// How long, and until which request to end, a connection waits for locks.
#[derive(Clone, Debug)]
struct Patience {
    busy_timeout: Duration,
    cancel: CancelToken,
}

impl Database {
    /// Opens a database whose file this process has [locked](super::DatabaseLock), and rolls back what a killed program has
    /// left half written. Gives up after `patience` if another program keeps it locked. To be called after the process has
    /// become a daemon, because a connection must not be used on both sides of a fork.
    pub(crate) fn open(file: Arc<DatabaseFile>, patience: Duration) -> Result<Self, OpenError> {
        let mut database = Self::open_with(file, patience, CancelToken::default())?;
        database.warn_of_log();
        database.patience.busy_timeout = BUSY_TIMEOUT;
        wait_for_locks(&mut database.connection, BUSY_TIMEOUT, database.patience.cancel.clone())
            .map_err(|error| OpenError::from_sqlite(database.path(), &error))?;
        Ok(database)
    }

    /// Opens a database that waits at most `busy_timeout` for locks of other processes, now and later.
    pub(super) fn open_with(
        file: Arc<DatabaseFile>,
        busy_timeout: Duration,
        cancel: CancelToken,
    ) -> Result<Self, OpenError> {
        let path = file.path();
        file.ensure_writable()?;
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, busy_timeout, cancel.clone())?;
        let failed = |error: rusqlite::Error| OpenError::from_sqlite(path, &error);
        if connection.is_readonly(rusqlite::MAIN_DB).map_err(failed)? {
            return Err(OpenError::ReadOnly(path.to_path_buf()));
        }
        let additions = Additions::of(&connection).map_err(failed)?;
        let version = DataVersion::of(&connection).map_err(failed)?;
        let files = OpenFiles::of(Arc::clone(&file), &connection).map_err(failed)?;
        Ok(Self {
            connection,
            files,
            large: LargeMessages::default(),
            additions,
            uncheckpointed: Uncheckpointed::default(),
            ledger: Ledger::default(),
            pruner: Pruner::default(),
            notes: Notes::default(),
            line_notes: LineNotes::default(),
            fingerprints: Fingerprints::default(),
            version,
            patience: Patience { busy_timeout, cancel },
        })
    }

    fn warn_of_log(&self) {
        if self.files.has_log() {
            log::warn!("{}", DatabaseWarning::WriteAheadLog { path: self.path().to_path_buf() });
        }
    }

    /// Does something without waiting for locks of others.
    pub(super) fn without_waiting<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        wait_for_locks(&mut self.connection, Duration::ZERO, self.patience.cancel.clone())?;
        let result = act(self);
        wait_for_locks(&mut self.connection, self.patience.busy_timeout, self.patience.cancel.clone())?;
        result
    }

    /// Returns the token that ends all waits of this connection for locks.
    pub(super) fn cancel_token(&self) -> CancelToken {
        self.patience.cancel.clone()
    }

    /// Notes from now on which lines of the configuration hold mail, so that what they have held is released once they are gone.
    pub(crate) fn keep_hold_lines(&mut self) {
        self.line_notes.keep();
    }

    /// Records attempts too from now on.
    pub(crate) fn keep_ledger(&mut self, settings: LedgerSettings) {
        self.ledger = Ledger::new(settings);
    }

    /// Returns the canonical path of the file.
    pub(crate) fn path(&self) -> &Path {
        self.files.path()
    }

    /// Makes sure that the connection uses the files that have the names now. Files that were moved away are not written to
    /// any more, because other programs no longer see them.
    pub(super) fn ensure_open(&mut self) -> Result<(), StoreError> {
        if let Some(lost) = self.files.loss() {
            if !self.files.must_reopen() {
                log::error!(
                    "{} was removed or replaced while the daemon used it, so the daemon reopens the database {}; restart \
                     all other programs that use it",
                    lost.display(),
                    self.path().display()
                );
            }
            self.files.require_reopening();
            self.uncheckpointed.note_loss();
        }
        if self.files.must_reopen() {
            self.reopen()
                .map_err(|error| StoreError { trouble: StoreTrouble::Other, text: error.to_string() })?;
        }
        if self.uncheckpointed.is_lost() {
            self.replay().map_err(|error| self.failed("record again what was recorded in", &error))?;
        }
        self.files.look_for_log(&self.connection);
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        self.let_go()?;
        let file = self.files.find_again()?;
        let Patience { busy_timeout, cancel } = self.patience.clone();
        let mut fresh = Self::open_with(file, busy_timeout, cancel)?;
        fresh.warn_of_log();
        fresh.version = fresh.version.reopened(self.version);
        fresh.fingerprints = std::mem::take(&mut self.fingerprints);
        fresh.uncheckpointed = std::mem::take(&mut self.uncheckpointed);
        fresh.large.pool = self.large.pool.clone();
        fresh.ledger = self.ledger.renewed();
        *self = fresh;
        Ok(())
    }

    /// Closes the connection before the next one is opened: within a process, SQLite lets connections to one file share the
    /// index of its log. A connection to an empty database in memory takes its place until then.
    fn let_go(&mut self) -> Result<(), OpenError> {
        let failed = |error: rusqlite::Error| OpenError::from_sqlite(self.files.path(), &error);
        let nothing = Connection::open_in_memory().map_err(failed)?;
        self.keep_lost_log_out();
        drop(std::mem::replace(&mut self.connection, nothing));
        Ok(())
    }

    /// Keeps SQLite from copying a lost log into the database when the connection is closed: other programs may have written
    /// to the database since, and to a new log, which SQLite would delete.
    fn keep_lost_log_out(&self) {
        if self.files.loss().is_some()
            && let Err(error) =
                self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            log::warn!(
                "cannot keep the lost write-ahead log out of the database {}: {error}",
                self.path().display()
            );
        }
    }

    /// Records again what was only in a lost log.
    fn replay(&mut self) -> rusqlite::Result<()> {
        let version = self.version;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version = version.within(&transaction)?;
        self.uncheckpointed.replay(&transaction, version)?;
        transaction.commit()?;
        self.uncheckpointed.note_replay(self.files.has_log());
        Ok(())
    }

    /// Remembers what was recorded, until the log is copied into the database.
    pub(super) fn remember(&mut self, commit: Commit, fingerprints: FingerprintList) {
        if !self.files.has_log() {
            return;
        }
        self.uncheckpointed.push(commit, fingerprints, self.version.seen());
        if let Err(error) = self.uncheckpointed.checkpoint(&self.connection) {
            log::debug!(
                "cannot copy the write-ahead log into the database {}: {error}",
                self.path().display()
            );
        }
    }

    /// Translates an error of a request; `task` completes "cannot …".
    pub(super) fn failed(&mut self, task: &str, error: &rusqlite::Error) -> StoreError {
        if needs_new_connection(error) {
            self.files.require_reopening();
        }
        store_error(&self.connection, self.files.path(), task, error)
    }

    /// Creates the index of the faillog if it is missing, or warns that it will be created later. The index only saves time.
    pub(super) fn prepare_index(&mut self) {
        if !self.additions.is_indexed {
            log::info!("creating an index of the faillog in the database {}", self.path().display());
        }
        if let Err(error) = self.ensure_index()
            && !self.patience.cancel.is_cancelled()
        {
            let path = self.path().display();
            log::warn!("cannot create an index in the database {path}, trying again later: {error}");
        }
    }

    /// Creates the index of the faillog if it is missing. With a long faillog this takes long, so it stops, and changes
    /// nothing, as soon as the [token](Self::cancel_token) is cancelled.
    pub(super) fn ensure_index(&mut self) -> rusqlite::Result<()> {
        if !self.additions.is_indexed {
            interruptibly(&mut self.connection, &self.patience.cancel, |connection| {
                connection.execute_batch(CREATE_INDEX)
            })?;
            self.additions.is_indexed = true;
        }
        Ok(())
    }

    /// Creates the tables of orders if they are missing, or warns that it cannot.
    pub(super) fn prepare_orders(&mut self) {
        let created = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(
            |transaction| {
                transaction.execute_batch(orders::CREATE)?;
                transaction.execute_batch(holds::CREATE)?;
                transaction.execute_batch(envelopes::CREATE)?;
                transaction.commit()
            },
        );
        match created {
            Ok(()) => self.additions.has_order_tables = true,
            Err(error) if self.patience.cancel.is_cancelled() => drop(error),
            Err(error) => log::warn!(
                "cannot create the tables that people and programs write (dispatch_orders, dispatch_holds, dispatch_state, dispatch_envelope) \
                 in the database {}, trying again later: {error}; until then no order can be given",
                self.path().display()
            ),
        }
    }

    /// Returns the data version for the core, and notes it as seen. Within an open read transaction, it is that of the
    /// transaction.
    pub(super) fn see_version(&mut self) -> rusqlite::Result<i64> {
        self.version.see(&self.connection)?;
        self.version()
    }

    /// Returns the data version, within an open transaction.
    pub(super) fn version(&self) -> rusqlite::Result<i64> {
        self.version.within(&self.connection)
    }

    /// Looks whether another connection has written since the last look.
    pub(super) fn look_for_change(&mut self) -> bool {
        let before = self.version;
        if self.ensure_open().is_err() {
            return false;
        }
        self.see_version().is_ok() && self.version != before
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.keep_lost_log_out();
    }
}

/// Checks that a start would succeed on the database `path`, and returns a warning about it, if there is one. Creates and
/// changes nothing, except what SQLite keeps beside a database in WAL mode.
pub(crate) fn check(path: &Path) -> Result<Option<DatabaseWarning>, OpenError> {
    let file = DatabaseFile::open(path)?;
    file.ensure_writable()?;
    let path = file.path().to_path_buf();
    // Closed before SQLite opens it.
    drop(file);
    DatabaseLock::check(&path)?;
    match connect(&path, OpenFlags::SQLITE_OPEN_READ_ONLY, CHECK_TIMEOUT, CancelToken::default()) {
        Ok(connection) => {
            let found = has_write_ahead_log(&connection);
            let has_log = found.map_err(|error| OpenError::from_sqlite(&path, &error))?;
            Ok(has_log.then_some(DatabaseWarning::WriteAheadLog { path }))
        }
        Err(OpenError::HotJournal(_)) if may_roll_back(&rollback_journal(&path)) => {
            Ok(Some(DatabaseWarning::HotJournal { path }))
        }
        Err(error) => Err(error),
    }
}

/// Connects to a database and makes sure that it is one of schema 9.
///
/// If a process of root opens the database, it first creates the files beside it, and then gives them to the owner of the
/// database. In between, other users cannot open them, and have to try again.
pub(super) fn connect(
    path: &Path,
    mode: OpenFlags,
    busy_timeout: Duration,
    cancel: CancelToken,
) -> Result<Connection, OpenError> {
    let began = Instant::now();
    loop {
        match connect_once(path, mode, busy_timeout, cancel.clone()) {
            Err(OpenError::Inaccessible { .. }) if began.elapsed() < ACCESS_LIMIT => {
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
    cancel: CancelToken,
) -> Result<Connection, OpenError> {
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(path, &error);
    let mut connection =
        Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    wait_for_locks(&mut connection, busy_timeout, cancel).map_err(failed)?;
    verify(&connection, path)?;
    // Otherwise SQLite recompiles statements for other parameters, which costs more than running most of them. All of them
    // look for an id, for which the plan is always the same.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    // An outcome is on the disk when its commit is answered, also in WAL mode (RFC 5321 section 6.1).
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    Ok(connection)
}

pub(super) fn has_index(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = 'dispatch_faillog_mail'")?
        .exists([])
}

/// Returns whether orders can be given.
pub(super) fn has_order_tables(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare(
            "SELECT 1 FROM sqlite_schema WHERE name IN ('dispatch_orders', 'dispatch_orders_open', 'dispatch_holds', 'dispatch_state') \
             LIMIT 1 OFFSET 3",
        )?
        .exists([])
}

#[cfg(test)]
mod tests;
