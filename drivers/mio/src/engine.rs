//! Puts the database, the network and the dispatcher between them together.
//!
//! Another program can embed the engine: it loads a [`Config`], calls [`Engine::prepare`], [`Engine::lock`] and
//! [`LockedEngine::open`], and lets a thread call [`OpenEngine::run`] with [`EngineParts`] whose signals are
//! [`controlled`](crate::signals::Signals::controlled), as the example `demo` does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cmail_delivery::dispatcher::{Dispatcher, Mode};
use cmail_delivery::explanation::{Answer, Inquiry};
use cmail_delivery::flight::Uncertain;
use cmail_delivery::settings::Hosts;
use cmail_delivery::tally::Tally;
use cmail_delivery::time::Now;
use nix::unistd::Gid;
use thiserror::Error;

use crate::config::{Config, Environment};
use crate::event_loop::{EventLoop, InMemory, Kernel, Listeners, LoopError};
use crate::hosts;
use crate::logging::Log;
use crate::monitor::{MetricsAddress, MetricsError};
use crate::pid_file::PidFile;
use crate::reception::{Reception, ReceptionError};
use crate::record::{RecordDirectory, RecordError, Recorder};
use crate::reload::Reloader;
use crate::service_manager::ServiceManager;
use crate::signals::Signals;
use crate::store::{
    self, Database, DatabaseFile, DatabaseLock, InitError, LockError, OpenError, StoreHandle,
};
use crate::system::System;
use crate::tls::{TlsContext, TlsFiles, TrustError};

/// How long one attempt to open the database at the start waits for locks.
const LOCK_ATTEMPT: Duration = Duration::from_millis(200);

/// The pause between two such attempts, in case they fail at once.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why the engine does not start, or why it stopped.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be created.
    #[error(transparent)]
    Create(#[from] InitError),
    /// Another process works on the database.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Nobody can ask for metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Nobody can hand over messages.
    #[error(transparent)]
    Submit(#[from] ReceptionError),
    /// Conversations cannot be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The trusted certificates cannot be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A single pass could not be completed.
    #[error(
        "the database keeps failing, so the pass ends; correct what the lines before this one name, and repeat it"
    )]
    GaveUp,
    /// The event loop failed.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// The database did not finish its work in time.
    #[error(
        "the database does not answer, so the program ends without waiting for it: check whether its disk hangs; the \
         lines before this one name what may not be recorded"
    )]
    Hangs,
    /// The system refuses what every process needs.
    #[error("{what}: {source}")]
    System {
        /// What failed, as the beginning of a sentence.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

fn refused(what: &'static str) -> impl FnOnce(io::Error) -> EngineError {
    move |source| EngineError::System { what, source }
}

/// Checks that the database can be worked on, and returns a warning about it, if there is one. Changes nothing.
pub fn check_database(path: &Path) -> Result<Option<String>, EngineError> {
    Ok(store::check(path)?.map(|warning| warning.to_string()))
}

/// Checks that conversations can be recorded, if the configuration asks for that. Changes nothing.
pub fn check_record(config: &Config) -> Result<(), EngineError> {
    recorder(config)?;
    Ok(())
}

/// Checks that clients could connect to ask for metrics, if the configuration says so. Changes nothing.
pub fn check_metrics(config: &Config) -> Result<(), EngineError> {
    config.metrics.as_ref().map_or(Ok(()), MetricsAddress::check)?;
    Ok(())
}

/// Checks that users could hand over messages, if the configuration says so. Changes nothing.
pub fn check_submit(config: &Config) -> Result<(), EngineError> {
    config.submit.as_deref().map_or(Ok(()), Reception::check)?;
    Ok(())
}

/// Returns what would keep the operator's tool from asking the daemon, as a sentence. Changes nothing.
pub fn check_control(config: &Config) -> Option<String> {
    // What is wrong with the database is told otherwise.
    config.control.check(&std::fs::canonicalize(&config.database).ok()?)
}

/// Creates the database, for `group` if it is given, and returns a description of it. Its owner is the user of this process.
pub fn create_database(path: &Path, group: Option<Gid>) -> Result<String, EngineError> {
    Ok(store::initdb(path, group)?.to_string())
}

/// Lets an engine of this process answer an inquiry, without a database and without a daemon. It remembers nothing of earlier
/// conversations. Gives each answer to `take`.
pub(crate) fn inquire(
    config: &Config,
    inquiry: Inquiry,
    take: impl FnMut(&Answer, Now) -> io::Result<()>,
) -> Result<(), EngineError> {
    let tls = TlsContext::load(&TlsFiles::of(config.trust_file.as_deref(), &config.settings))?;
    let kernel = Kernel::new().map_err(refused("cannot poll for events"))?;
    // Nobody sends any: a signal ends the process.
    let (signals, _controller) = Signals::controlled().map_err(refused("cannot wait for signals"))?;
    let log = Log::of_standard_error().map_err(|error| refused("cannot log")(io::Error::other(error)))?;
    let system = System::new(config, Path::new(hosts::PATH));
    let hosts = system.hosts().unwrap_or_default();
    let seed = seed().map_err(|error| refused("no random octets")(io::Error::other(error)))?;
    let settings = config.settings.clone();
    let mut dispatcher = Dispatcher::new(kernel.now(), settings, hosts, Mode::Daemon, seed);
    let mut event_loop = EventLoop::new(kernel, tls, InMemory::default(), signals, log, system)
        .map_err(refused("cannot wait for signals"))?;
    Ok(event_loop.inquire(&mut dispatcher, inquiry, take)?)
}

/// Draws a seed from the system's random numbers.
pub(crate) fn seed() -> Result<[u8; 32], getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(seed)
}

/// An engine that has read what must be read before privileges are dropped.
#[derive(Debug)]
pub struct Engine {
    tls: TlsContext,
}

/// An engine that has locked its database, so that no other process works on it.
#[derive(Debug)]
pub struct LockedEngine {
    tls: TlsContext,
    recorder: Option<Recorder>,
    listeners: Listeners,
    database: Arc<DatabaseFile>,
    lock: DatabaseLock,
}

/// An engine that has opened its database, and has everything else that it needs from the system.
#[derive(Debug)]
pub struct OpenEngine {
    kernel: Kernel,
    tls: TlsContext,
    store: StoreHandle,
    recorder: Option<Recorder>,
    listeners: Listeners,
    /// The path of the database.
    path: PathBuf,
    /// The last field, so that the lock is released after the thread has closed the database.
    lock: DatabaseLock,
}

/// Everything else that an engine needs to run.
#[derive(Debug)]
pub struct EngineParts {
    /// The configuration.
    pub config: Config,
    /// What it was read by, and is read by again on request.
    pub environment: Environment,
    /// Whether to run as a daemon, or for one pass.
    pub mode: Mode,
    /// The content of `/etc/hosts` at the start.
    pub hosts: Hosts,
    /// The system's files, to be reread after changes.
    pub system: System,
    /// The seed of everything random.
    pub seed: [u8; 32],
    /// The signals, already blocked.
    pub signals: Signals,
    /// The log.
    pub log: Log,
    /// Who has started the daemon and wants to know how it stands, if there is somebody.
    pub service_manager: Option<ServiceManager>,
    /// The pid file. Dropping it removes the file, which must happen while the database is still locked: after that, the
    /// file may be another daemon's.
    pub pid_file: Option<PidFile>,
}

impl Engine {
    /// Reads the trusted certificates. Starts no thread.
    pub fn prepare(config: &Config) -> Result<Self, EngineError> {
        Ok(Self { tls: TlsContext::load(&TlsFiles::of(config.trust_file.as_deref(), &config.settings))? })
    }

    /// Locks the database, as the user that the daemon runs as. A file that is not a database gets no lock file.
    pub fn lock(self, config: &Config) -> Result<LockedEngine, EngineError> {
        let recorder = recorder(config)?;
        let database = DatabaseFile::open(&config.database)?;
        database.ensure_writable()?;
        let lock = DatabaseLock::acquire(&database)?;
        let (listeners, database) = (Listeners::default(), Arc::new(database));
        Ok(LockedEngine { tls: self.tls, recorder, listeners, database, lock })
    }
}

impl LockedEngine {
    /// Lets clients connect as the configuration says: to ask for metrics, by the operator's tool, and to hand over messages. They are answered once the engine
    /// runs.
    pub fn listen(&mut self, config: &Config) -> Result<(), EngineError> {
        let monitor = config.metrics.as_ref().map(MetricsAddress::listen).transpose()?;
        let submit = config.submit.as_deref();
        let submit = submit.map(|path| Reception::open(path, config.submit_size_octets)).transpose()?;
        let control = config.control.listen(self.database.path());
        self.listeners = Listeners { monitor, control, submit };
        Ok(())
    }

    /// Opens the database, and starts the thread that works on it. While another program keeps the database locked, calls
    /// `keep_waiting` a few times a second to decide whether to wait. No later step of a start can fail.
    pub fn open(
        self,
        config: &Config,
        keep_waiting: &mut dyn FnMut() -> bool,
    ) -> Result<OpenEngine, EngineError> {
        let Self { tls, recorder, listeners, database: file, lock } = self;
        let mut database = loop {
            match Database::open(Arc::clone(&file), LOCK_ATTEMPT) {
                Err(OpenError::Busy(_)) if keep_waiting() => std::thread::sleep(LOCK_PAUSE),
                opened => break opened?,
            }
        };
        database.keep_ledger(config.ledger);
        database.keep_hold_lines();
        if config.settings.uncertain == Uncertain::Off {
            database.tell_doubts();
        }
        let path = file.path().to_owned();
        let kernel = Kernel::new().map_err(refused("cannot poll for events"))?;
        let store = StoreHandle::spawn(database, kernel.waker())
            .map_err(refused("cannot start the thread that works on the database"))?;
        Ok(OpenEngine { kernel, tls, store, recorder, listeners, path, lock })
    }
}

impl OpenEngine {
    /// Runs until a single pass is over, or until a signal asks to stop.
    pub fn run(self, parts: EngineParts) -> Result<Tally, EngineError> {
        let Self { kernel, tls, store, recorder, listeners, path, lock } = self;
        let EngineParts {
            config,
            environment,
            mode,
            hosts,
            system,
            seed,
            signals,
            log,
            service_manager,
            pid_file,
        } = parts;
        let is_daemon = mode == Mode::Daemon;
        let mut dispatcher = Dispatcher::new(kernel.now(), config.settings.clone(), hosts, mode, seed);
        let destinations = config.metrics_destinations.clone();
        let keys = config.keys.clone();
        let reloader = is_daemon.then(|| Reloader::new(config, environment, kernel.waker()));
        let mut event_loop = EventLoop::new(kernel, tls, store, signals, log, system)
            .map_err(refused("cannot wait for signals and for changes of the database"))?;
        event_loop.sign_with(keys);
        event_loop.record(recorder);
        event_loop.reload_with(reloader);
        event_loop.tell(service_manager);
        event_loop
            .serve(listeners, path, &destinations)
            .map_err(refused("cannot wait for those who ask the daemon"))?;
        let result = event_loop.run(&mut dispatcher);
        // The database finishes what was submitted before another process may work on it.
        let is_done = event_loop.finish();
        // The pid file goes first: the next holder of the lock may write it.
        drop(pid_file);
        if is_done {
            drop(lock);
        } else {
            // The thread may still write later, so the lock is kept until the process ends.
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
        if dispatcher.has_given_up() { Err(EngineError::GaveUp) } else { Ok(dispatcher.tally()) }
    }
}

/// Returns the recorder of conversations, if the configuration asks for one.
fn recorder(config: &Config) -> Result<Option<Recorder>, RecordError> {
    let directory = config.record.as_deref().map(RecordDirectory::open).transpose()?;
    Ok(directory.map(|directory| Recorder::new(directory, &config.settings)))
}
