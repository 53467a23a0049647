//! The engine of the program: the database, the network and the dispatcher between them, put together.
//!
//! Another program can have it inside: it loads a [`Config`], goes through [`Engine::prepare`], [`Engine::lock`] and
//! [`LockedEngine::open`], and lets a thread call [`OpenEngine::run`] with a [`Shell`] whose signals are [`controlled`](crate::signals::Signals::controlled).
//! The example `demo` does.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cmail_delivery::dispatcher::{Dispatcher, Mode, Summary};
use cmail_delivery::settings::Hosts;
use nix::unistd::Gid;
use thiserror::Error;

use crate::config::Config;
use crate::event_loop::{EventLoop, Kernel, LoopError};
use crate::logging::Log;
use crate::pid_file::PidFile;
use crate::record::{RecordDirectory, RecordError, Recorder};
use crate::signals::Signals;
use crate::sockets::LocalAddresses;
use crate::store::{
    self, Database, DatabaseFile, DatabaseLock, InitError, LockError, OpenError, StoreHandle,
};
use crate::system::System;
use crate::tls::{TlsContext, TrustError};

/// How long an attempt to open the database at the start waits for locks, until it is asked again whether to wait.
const LOCK_ATTEMPT: Duration = Duration::from_millis(200);

/// The least pause between two such attempts, should they fail at once.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

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
    #[error(
        "the database keeps failing, so the pass ends; correct what the lines before this one name, and repeat it"
    )]
    GaveUp,
    /// It could not go on.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// What was asked of the database is not done in time.
    #[error(
        "the database does not answer, so the program ends without waiting for it: check whether its disk hangs; the \
         lines before this one name what may not be recorded"
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
    kernel: Kernel,
    tls: TlsContext,
    local: LocalAddresses,
    store: StoreHandle,
    recorder: Option<Recorder>,
    /// The last one, so that nobody else works on the database before the thread has let go of it.
    lock: DatabaseLock,
}

/// What a running engine is given.
#[derive(Debug)]
pub struct Shell {
    /// The configuration.
    pub config: Config,
    /// What is to be done.
    pub mode: Mode,
    /// `/etc/hosts`, as it was at the start.
    pub hosts: Hosts,
    /// What the system says.
    pub system: System,
    /// What decides everything that is random.
    pub seed: [u8; 32],
    /// The signals, already taken.
    pub signals: Signals,
    /// The log.
    pub log: Log,
    /// The pid file, which is removed when this is dropped: to be done while the database is still locked, because
    /// after that the file may be another daemon's.
    pub pid_file: Option<PidFile>,
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
        let kernel = Kernel::new().map_err(refused("cannot poll for events"))?;
        let store = StoreHandle::spawn(database, kernel.waker())
            .map_err(refused("cannot start the thread that works on the database"))?;
        Ok(OpenEngine { kernel, tls, local: local_addresses(config), store, recorder, lock })
    }
}

impl OpenEngine {
    /// Works until there is nothing more to do, or until a signal says so.
    pub fn run(self, shell: Shell) -> Result<Summary, EngineError> {
        let Self { kernel, tls, local, store, recorder, lock } = self;
        let Shell { config, mode, hosts, system, seed, signals, log, pid_file } = shell;
        let mut dispatcher = Dispatcher::new(kernel.now(), config.settings, hosts, mode, seed);
        let mut event_loop = EventLoop::new(kernel, (tls, local), store, signals, log, system)
            .map_err(refused("cannot wait for signals and for changes of the database"))?;
        event_loop.record(recorder);
        let result = event_loop.run(&mut dispatcher);
        // What was submitted is done before anybody else may work on the database.
        let is_done = event_loop.finish();
        // The pid file goes first: whoever gets the lock next may write it.
        drop(pid_file);
        if is_done {
            drop(lock);
        } else {
            // The thread may still come back and write. The lock goes with the process.
            std::mem::forget(lock);
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
