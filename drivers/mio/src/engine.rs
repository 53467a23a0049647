//! The engine of the program: the database, the network and the dispatcher between them, put together.
//!
//! Another program can have it inside: it loads a [`Config`], goes through [`Engine::prepare`], [`Engine::lock`] and
//! [`LockedEngine::open`], and lets a thread call [`OpenEngine::run`] with a [`Shell`] whose signals are [`controlled`](crate::signals::Signals::controlled).
//! The example `demo` does.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cmail_delivery::dispatcher::{Dispatcher, Summary};
use mio::unix::SourceFd;
use nix::unistd::Gid;
use thiserror::Error;

use crate::config::Config;
use crate::event_loop::{Environment, EventLoop, LoopError, Registration};
use crate::logging::Log;
use crate::record::{RecordDirectory, RecordError, Recorder};
use crate::signals::{Signal, Signals};
use crate::sockets::LocalAddresses;
use crate::startup::Shell;
use crate::store::{
    self, Database, DatabaseFile, DatabaseLock, InitError, LockError, OpenError, StoreHandle, Watch,
};
use crate::system::System;
use crate::tls::{TlsContext, TrustError};

/// How long an attempt to open the database at the start waits for locks, until it is asked again whether to wait.
const LOCK_ATTEMPT: Duration = Duration::from_millis(200);

/// The least pause between two such attempts, should they fail at once.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How long after it was asked to stop the program waits for the database. The dispatcher has given up before, and the last
/// lines are to be written within the 5 s that an end may take.
const END_LIMIT: Duration = Duration::from_millis(4850);

/// Why the engine does not start, or why it stopped.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The database cannot be worked on.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be created.
    #[error(transparent)]
    Create(#[from] InitError),
    /// Another process works on the database.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Conversations cannot be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The trusted certificates cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A one-shot pass could not be brought to its end.
    #[error("the database keeps failing, so the pass is given up")]
    GaveUp,
    /// It could not go on.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// What was asked of the database is not done in time.
    #[error(
        "the database does not answer, so the program ends without waiting for it: see whether its disk hangs, and the \
         lines before this one for what may not be recorded"
    )]
    Hangs,
    /// The system refuses what every process needs.
    #[error("{what}: {source}")]
    System {
        /// What was to be done, as the beginning of a sentence.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

fn refused(what: &'static str) -> impl FnOnce(io::Error) -> EngineError {
    move |source| EngineError::System { what, source }
}

/// Whether the database can be worked on, and what is odd about it, as a sentence. Changes nothing.
pub fn check_database(path: &Path) -> Result<Option<String>, EngineError> {
    Ok(store::check(path)?.map(|warning| warning.to_string()))
}

/// Whether conversations can be recorded, if they are to be. Changes nothing.
pub fn check_record(config: &Config) -> Result<(), EngineError> {
    recorder(config)?;
    Ok(())
}

/// Creates the database, for `group` if there is one, and says what was created. Its owner is the user of this process.
pub fn create_database(path: &Path, group: Option<Gid>) -> Result<String, EngineError> {
    Ok(store::initdb(path, group)?.to_string())
}

/// What has to be read before privileges are dropped.
#[derive(Debug)]
pub struct Engine {
    tls: TlsContext,
}

/// An engine whose database no other process works on.
#[derive(Debug)]
pub struct LockedEngine {
    tls: TlsContext,
    recorder: Option<Recorder>,
    database: Arc<DatabaseFile>,
    lock: DatabaseLock,
}

/// An engine with its database and everything else that it needs of the system.
#[derive(Debug)]
pub struct OpenEngine {
    event_loop: EventLoop,
    watch: Option<Watch>,
    store: StoreHandle,
    recorder: Option<Recorder>,
    /// The last one, so that nobody else works on the database before the thread has let go of it.
    lock: DatabaseLock,
}

impl Engine {
    /// Reads the trusted certificates. Starts no thread.
    pub fn prepare(config: &Config) -> Result<Self, EngineError> {
        Ok(Self { tls: TlsContext::load(config.trust_file.as_deref())? })
    }

    /// Locks the database, as the user whom the daemon runs as. What is no database gets no lock file beside it.
    pub fn lock(self, config: &Config) -> Result<LockedEngine, EngineError> {
        let recorder = recorder(config)?;
        let database = DatabaseFile::open(&config.database)?;
        database.ensure_writable()?;
        let lock = DatabaseLock::acquire(&database)?;
        Ok(LockedEngine { tls: self.tls, recorder, database: Arc::new(database), lock })
    }
}

impl LockedEngine {
    /// Opens the database, and starts the thread that works on it. As long as another program keeps the database locked,
    /// `wait_on` is asked a few times a second whether to wait. After this nothing is missing that a start could fail for.
    pub fn open(self, config: &Config, wait_on: &mut dyn FnMut() -> bool) -> Result<OpenEngine, EngineError> {
        let Self { tls, recorder, database, lock } = self;
        let database = loop {
            match Database::open(Arc::clone(&database), LOCK_ATTEMPT) {
                Err(OpenError::Busy(_)) if wait_on() => std::thread::sleep(LOCK_PAUSE),
                opened => break opened?,
            }
        };
        let event_loop =
            EventLoop::new(tls, local_addresses(config)).map_err(refused("cannot poll for events"))?;
        let watch = Watch::new(database.path());
        if let Some(watch) = &watch {
            event_loop
                .register(&mut SourceFd(&watch.as_raw_fd()), Registration::Outbox)
                .map_err(refused("cannot wait for changes of the database"))?;
        }
        let store = StoreHandle::spawn(database, event_loop.waker())
            .map_err(refused("cannot start the thread that works on the database"))?;
        Ok(OpenEngine { event_loop, watch, store, recorder, lock })
    }
}

impl OpenEngine {
    /// Works until there is nothing more to do, or until a signal says so.
    pub fn run(self, shell: Shell) -> Result<Summary, EngineError> {
        let Shell { config, mode, hosts, mut system, seed, mut signals, log, pid_file } = shell;
        let mut event_loop = self.event_loop;
        event_loop.record(self.recorder);
        event_loop
            .register(&mut signals, Registration::Signals)
            .map_err(refused("cannot wait for signals"))?;
        let store = RefCell::new(self.store);
        let asked_to_stop = Cell::new(None);
        let drain_signals = |signals: &mut Signals| {
            let drained = signals.drain();
            if drained.contains(&Signal::Terminate) && asked_to_stop.get().is_none() {
                asked_to_stop.set(Some(Instant::now()));
            }
            drained
        };
        let mut dispatcher = Dispatcher::new(event_loop.now(), config.settings, hosts, mode, seed);
        let result = drive(
            &mut event_loop,
            &mut dispatcher,
            &store,
            self.watch,
            || drain_signals(&mut signals),
            &log,
            &mut system,
        );
        // What was submitted is done before anybody else may work on the database.
        let is_done = store.into_inner().shutdown(|| {
            // Nothing else is done on a signal any more.
            drain_signals(&mut signals);
            asked_to_stop.get().is_none_or(|at| at.elapsed() < END_LIMIT)
        });
        // The pid file goes first: whoever gets the lock next may write it.
        drop(pid_file);
        if is_done {
            drop(self.lock);
        } else {
            // The thread may still come back and write. The lock goes with the process.
            std::mem::forget(self.lock);
        }
        if let Err(error) = result {
            if let Some(loss) = dispatcher.unrecorded() {
                log::error!("{loss}");
            }
            return Err(error.into());
        }
        if !is_done {
            return Err(EngineError::Hangs);
        }
        if dispatcher.has_given_up() { Err(EngineError::GaveUp) } else { Ok(dispatcher.summary()) }
    }
}

/// Runs the loop; returns only after the last request to the database is done.
fn drive(
    event_loop: &mut EventLoop,
    dispatcher: &mut Dispatcher,
    store: &RefCell<StoreHandle>,
    mut watch: Option<Watch>,
    signals: impl FnMut() -> Vec<Signal>,
    log: &Log,
    system: &mut System,
) -> Result<(), LoopError> {
    let mut environment = Environment {
        submit: Box::new(|id, request| store.borrow_mut().submit(id, request)),
        poll_reply: Box::new(|| store.borrow_mut().poll_reply()),
        signals: Box::new(signals),
        outbox_touched: Box::new(move || {
            if watch.as_mut().is_some_and(Watch::drain) {
                store.borrow().look();
            }
        }),
        outbox_changed: Box::new(|| store.borrow().poll_changed()),
        outbox_has_ended: Box::new(|| store.borrow().has_ended()),
        reopen_log: Box::new(|| log.reopen()),
        system_interval: system.look_interval(),
        read_system: Box::new(|occasion| system.read(occasion)),
    };
    event_loop.run(dispatcher, &mut environment)
}

/// What records conversations, if something does.
fn recorder(config: &Config) -> Result<Option<Recorder>, RecordError> {
    let directory = config.record.as_deref().map(RecordDirectory::open).transpose()?;
    Ok(directory.map(|directory| Recorder::new(directory, &config.settings)))
}

/// Where mail is sent from.
fn local_addresses(config: &Config) -> LocalAddresses {
    let mut local = LocalAddresses::default();
    for address in &config.bind {
        match *address {
            IpAddr::V4(address) => local.ipv4 = local.ipv4.or(Some(address)),
            IpAddr::V6(address) => local.ipv6 = local.ipv6.or(Some(address)),
        }
    }
    local
}
