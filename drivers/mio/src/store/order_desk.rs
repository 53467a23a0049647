//! Takes orders from the operator's tool: writes them into the database, tells what has come of them, and carries them out if no daemon
//! runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cmail_delivery::dispatcher::{Dispatcher, Mode};
use cmail_delivery::event::{Event, Level};
use cmail_delivery::io::{Input, Output};
use cmail_delivery::order::OrderId;
use cmail_delivery::settings::{Hosts, Settings};
use cmail_delivery::time::{Instant as CoreInstant, Now, UnixMillis, UnixTime};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::busy::{BUSY_TIMEOUT, CancelToken};
use super::database::{Database, connect, has_order_tables};
use super::database_file::DatabaseFile;
use super::error::{LockError, OrderError, ReadError};
use super::ledger::LedgerSettings;
use super::lock::DatabaseLock;
use super::order_task::{Act, Scope};

/// The pause between two looks for what has come of an order.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// An order that is to be given.
#[derive(Debug)]
pub(crate) struct NewOrder {
    pub(crate) act: Act,
    pub(crate) scope: Scope,
    pub(crate) reason: Option<String>,
    /// The user who gives it.
    pub(crate) who: String,
    pub(crate) at: UnixMillis,
    /// The highest id that was there when its mail was counted.
    pub(crate) last_mail: i64,
}

/// What has come of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderResult {
    /// How many mails it has changed.
    pub(crate) mails: u64,
    /// How many were gone before it came to them.
    pub(crate) gone: u64,
    /// A sentence.
    pub(crate) text: String,
}

/// A database that orders are given to, without the lock of the daemon.
#[derive(Debug)]
pub(crate) struct OrderDesk {
    connection: Connection,
    path: PathBuf,
}

impl OrderDesk {
    /// Opens a database. Waits at most 5 s for the locks of other processes, now and later.
    pub(crate) fn open(path: &Path) -> Result<Self, OrderError> {
        let file = DatabaseFile::open(path).map_err(ReadError::from)?;
        let path = file.path().to_path_buf();
        // Closed before SQLite opens it: that would drop SQLite's locks.
        drop(file);
        let connection =
            connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, BUSY_TIMEOUT, CancelToken::default())
                .map_err(ReadError::from)?;
        Ok(Self { connection, path })
    }

    /// Returns the highest id of a mail.
    pub(crate) fn last_mail(&self) -> Result<i64, OrderError> {
        self.asked(|connection| {
            connection.query_row("SELECT coalesce(max(mail_id), 0) FROM outbox", [], |row| row.get(0))
        })
    }

    /// Writes an order.
    pub(crate) fn give(&self, order: &NewOrder) -> Result<OrderId, OrderError> {
        if !self.asked(has_order_tables)? {
            return Err(OrderError::NoTables(self.path.clone()));
        }
        let (verb, argument) = order.act.columns();
        let scope = order.scope.to_json();
        self.asked(|connection| {
            connection
                .prepare(
                    "INSERT INTO dispatch_orders (at_ms, who, verb, scope, argument, reason, last_mail) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .insert(params![order.at.0, order.who, verb, scope, argument, order.reason, order.last_mail])
                .map(OrderId)
        })
    }

    /// Waits for what comes of an order, but not longer than `patience`. Returns `None` if it still stands.
    pub(crate) fn wait_for(
        &self,
        order: OrderId,
        patience: Duration,
    ) -> Result<Option<OrderResult>, OrderError> {
        let began = Instant::now();
        loop {
            let result = self.result(order)?;
            if result.is_some() || began.elapsed() >= patience {
                return Ok(result);
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    fn result(&self, order: OrderId) -> Result<Option<OrderResult>, OrderError> {
        self.asked(|connection| {
            connection
                .prepare_cached(
                    "SELECT mails, gone, result FROM dispatch_orders WHERE order_id = ?1 AND done_ms IS NOT NULL",
                )?
                .query_row([order.0], |row| {
                    Ok(OrderResult {
                        mails: row.get::<_, i64>(0)?.try_into().unwrap_or(0),
                        gone: row.get::<_, i64>(1)?.try_into().unwrap_or(0),
                        text: row.get::<_, Option<String>>(2)?.unwrap_or_default(),
                    })
                })
                .optional()
        })
    }

    fn asked<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, OrderError> {
        ask(&self.connection).map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::ReadOnly) => OrderError::ReadOnly(self.path.clone()),
            _ => ReadError::from_sqlite(&self.connection, &self.path, &error).into(),
        })
    }
}

/// The right to carry out orders, because no daemon runs.
#[derive(Debug)]
pub(crate) struct Deputy {
    database: Database,
    /// The last field, so that the lock is released after the database is closed.
    _lock: DatabaseLock,
}

impl Deputy {
    /// Takes the lock of the daemon, and makes what orders need. Returns `None` if a daemon runs.
    pub(crate) fn take_over(path: &Path, ledger: LedgerSettings) -> Result<Option<Self>, OrderError> {
        let file = DatabaseFile::open(path).map_err(ReadError::from)?;
        let lock = match DatabaseLock::acquire(&file) {
            Ok(lock) => lock,
            Err(LockError::Held { .. } | LockError::HeldByUnknown { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut database = Database::open_with(Arc::new(file), BUSY_TIMEOUT, CancelToken::default())
            .map_err(ReadError::from)?;
        database.keep_ledger(ledger);
        if !database.additions.has_order_tables {
            database.prepare_orders();
        }
        Ok(Some(Self { database, _lock: lock }))
    }

    /// Carries out all orders but those to try mail now, as the daemon does, and delivers nothing.
    pub(crate) fn carry_out(mut self, settings: Settings, now: UnixTime) -> Result<(), OrderError> {
        let began = Instant::now();
        let clock = || {
            let since = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            Now::new(CoreInstant::from_micros(since), now)
        };
        // Nothing random happens.
        let mut dispatcher = Dispatcher::new(clock(), settings, Hosts::new(), Mode::CarryOutOrders, [0; 32]);
        dispatcher.handle_timeout(clock());
        while let Some(output) = dispatcher.poll_output() {
            match output {
                Output::Store(id, request) => {
                    let answer = self.database.answer(request);
                    dispatcher.handle_input(clock(), Input::Store(id, answer));
                }
                Output::Event(Event::Note { level: Level::Error, text, .. }) => log::error!("{text}"),
                Output::Drained => break,
                // It has no connection, and tells nothing else.
                Output::Connect { .. }
                | Output::StartTls { .. }
                | Output::Transmit(_)
                | Output::Close(_)
                | Output::Datagram { .. }
                | Output::CloseDatagram(_)
                | Output::Release(_)
                | Output::Sign(..)
                | Output::Https(..)
                | Output::Answer(..)
                | Output::Event(_) => {}
            }
        }
        if dispatcher.has_given_up() {
            Err(OrderError::GaveUp(self.database.path().to_path_buf()))
        } else {
            Ok(())
        }
    }
}
