//! From the command line to a running daemon: the order of a start.
//!
//! 1. The command line and the configuration are read; all errors are reported.
//! 2. The daemon goes into the background, before there is any thread. From here on the process that was started waits.
//! 3. Signals are blocked. As root: the log file, the pid file (not yet written) and the trust file are opened.
//! 4. Privileges are dropped. The thread that writes the log starts.
//! 5. As the user: the database is locked, and the sockets for metrics and for the operator's tool are opened. Then the pid file is written, which only the holder of the lock may do.
//! 6. The database is opened, as the user, so that the files that SQLite makes beside it belong to the user. While another
//!    program keeps it locked the daemon waits, and already counts as started.
//! 7. The start is logged, and the waiting process exits with success. The work begins.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use cmail_delivery::dispatcher::Mode;
use cmail_delivery::tally::{AttemptResult, Fate, Tally};
use log::{debug, error, info, warn};
use thiserror::Error;

use crate::access;
use crate::args::{self, Action, Command, Invocation};
use crate::config::{Config, ERRORS_LIMIT, Environment, Rejection};
use crate::daemonize::{DaemonizeError, Launch};
use crate::descriptors;
use crate::engine::{self, Engine, EngineError, EngineParts, OpenEngine};
use crate::hosts;
use crate::lock_wait::LockWait;
use crate::logging::{self, Log, LogError, Owner, event};
use crate::pid_file::{PidFile, PidFileError};
use crate::privileges::{self, PrivilegeError};
use crate::service_manager::ServiceManager;
use crate::signals::{self, Signals};
use crate::system::System;

/// Runs the program with the words of its command line, without its own name.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    if let Err(error) = signals::survive_file_size_limit() {
        return fail(&StartError::Signals(error));
    }
    let invocation = match args::parse(words) {
        Ok(Command::Help) => return print(args::HELP),
        Ok(Command::Version) => return print(concat!("cmail-dispatchd ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Run(invocation)) => invocation,
        Err(error) => return fail(&error),
    };
    // A database is created before there may be a journal, as in an image.
    let needs_log = invocation.action != Action::InitDatabase;
    let environment = Environment { needs_log, ..Environment::of_this_host() };
    let loaded = Config::load(&invocation.config, &environment);
    if invocation.action == Action::Check {
        return check(&invocation, loaded);
    }
    let config = match loaded {
        Ok(config) => config,
        Err(rejection) => return fail_for(&rejection.errors),
    };
    match &invocation.action {
        Action::InitDatabase => create_database(&invocation, &config),
        Action::Work(mode) => {
            // By the process that was started, before it forks.
            let service_manager =
                invocation.action.is_daemon().then(ServiceManager::of_environment).flatten();
            work(&invocation, mode.clone(), Configured { config, environment, service_manager })
        }
        // Handled above.
        Action::Check => ExitCode::SUCCESS,
    }
}

/// The word `check`: prints what is wrong on standard error, or else the effective configuration on standard output.
fn check(invocation: &Invocation, loaded: Result<Config, Rejection>) -> ExitCode {
    let (config, rejection) = match loaded {
        Ok(config) => (Some(config), Rejection::default()),
        Err(rejection) => (None, rejection),
    };
    let mut errors: Vec<String> = rejection.errors.iter().map(ToString::to_string).collect();
    let warnings = config.as_ref().map_or(&rejection.warnings, |config| &config.warnings);
    for warning in warnings {
        complain(&format_args!("warning: {warning}"));
    }
    let owner = config.as_ref().and_then(|config| owner_of_files(invocation, config));
    if let Some(config) = &config {
        errors.extend(Engine::prepare(config).err().map(|error| error.to_string()));
        errors.extend(check_written_files(config));
        // The database is checked as the user who will use it: other users may have no right to read it, and the files that
        // SQLite creates beside it must not belong to root.
        errors.extend(drop_privileges(invocation, config).err().map(|error| error.to_string()));
        errors.extend(engine::check_metrics(config).err().map(|error| error.to_string()));
        errors.extend(engine::check_submit(config).err().map(|error| error.to_string()));
        errors.extend(engine::check_record(config).err().map(|error| error.to_string()));
        let foreign = owner.and_then(|_| warn_of_foreign_log(config)).into_iter();
        for warning in foreign.chain(warn_of_foreign_credentials(config)) {
            complain(&format_args!("warning: {warning}"));
        }
    }
    let database = config.as_ref().map(|config| &config.database).or(rejection.database.as_ref());
    if let Some(database) = database {
        match engine::check_database(database) {
            Ok(warning) => {
                // A start that may not use the database does not come to the socket beside it.
                let control = config.as_ref().and_then(engine::check_control);
                let warnings = warning.iter().map(ToString::to_string).chain(control);
                warnings.for_each(|warning| complain(&format_args!("warning: {warning}")));
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    match config {
        Some(config) if errors.is_empty() => print(&config.to_string()),
        Some(_) | None => fail_for(&errors),
    }
}

/// Checks the files that a start opens before privileges are dropped.
fn check_written_files(config: &Config) -> impl Iterator<Item = String> {
    let log = config.logfile.as_deref().and_then(|path| Log::check(path).err());
    let pid_file = config.pidfile.as_deref().and_then(|path| PidFile::check(path).err());
    log.map(|error| error.to_string()).into_iter().chain(pid_file.map(|error| error.to_string()))
}

/// Warns of a log file that root opens at the start but the user of the daemon, who runs this, cannot open.
fn warn_of_foreign_log(config: &Config) -> Option<String> {
    let path = config.logfile.as_deref()?;
    let error = access::could_write(path).err()?;
    Some(format!(
        "the user of the daemon could not open the log file {} ({error}), so that it cannot be reopened after a rotation; \
         give the file and its directory to that user",
        path.display()
    ))
}

/// Warns of files of credentials that root reads at the start but the user of the daemon, who runs this, cannot read.
fn warn_of_foreign_credentials(config: &Config) -> impl Iterator<Item = String> {
    config.credentials_files.iter().filter_map(|path| {
        let error = std::fs::File::open(path).err()?;
        Some(format!(
            "the user of the daemon cannot read the file of credentials {} ({error}), so that no reload will be taken; give it to the \
             group of that user, with mode 0640",
            path.display()
        ))
    })
}

/// Reports errors, up to a limit.
fn fail_for<E: Display>(errors: &[E]) -> ExitCode {
    errors.iter().take(ERRORS_LIMIT).for_each(complain);
    let more = errors.len().saturating_sub(ERRORS_LIMIT);
    if more > 0 {
        complain(&format_args!("and {more} more errors"));
    }
    ExitCode::FAILURE
}

/// The word `initdb`.
fn create_database(invocation: &Invocation, config: &Config) -> ExitCode {
    // First of all: otherwise a user who may write the directory could make root give away other files.
    if let Err(error) = drop_privileges(invocation, config) {
        return fail(&error);
    }
    match engine::create_database(&config.database, config.identity.group) {
        Ok(created) => print(&format!("{created}\n")),
        Err(error) => fail(&error),
    }
}

/// What a start begins with.
struct Configured {
    config: Config,
    /// What it was read by.
    environment: Environment,
    service_manager: Option<ServiceManager>,
}

/// Runs the daemon, or one pass.
fn work(invocation: &Invocation, mode: Mode, configured: Configured) -> ExitCode {
    // Without a log file a daemon in the background could not report anything.
    let detaches = invocation.action.is_daemon() && invocation.detach && configured.config.logfile.is_some();
    let launch = if detaches { Launch::in_background() } else { Ok(Launch::in_foreground()) };
    let mut launch = match launch {
        Ok(launch) => launch,
        Err(error) => return fail(&error),
    };
    match start(invocation, mode, configured, &mut launch) {
        Ok(Some(running)) => running.run(),
        Ok(None) => {
            launch.fail();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = fail(&error);
            launch.fail();
            code
        }
    }
}

/// Why a daemon or a pass did not start.
#[derive(Debug, Error)]
enum StartError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    #[error(transparent)]
    Daemonize(#[from] DaemonizeError),
    #[error("signals cannot be blocked: {0}")]
    Signals(io::Error),
    #[error("the system provides no random octets: {0}")]
    Entropy(getrandom::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A daemon or a pass that has started.
struct Started {
    engine: OpenEngine,
    parts: EngineParts,
}

fn start(
    invocation: &Invocation,
    mode: Mode,
    configured: Configured,
    launch: &mut Launch,
) -> Result<Option<Started>, StartError> {
    let config = &configured.config;
    // First of all, so that an early signal is kept for the event loop.
    let signals = Signals::take().map_err(StartError::Signals)?;
    let owner = owner_of_files(invocation, config);
    let log = Log::install(config.logfile.as_deref(), config.verbosity, config.logformat, owner)?;
    log.report_panics();
    let started = start_logged(invocation, mode, configured, signals, &log, launch);
    match &started {
        // Another process that holds the database may write to the same log file.
        Ok(_) | Err(StartError::Engine(EngineError::Lock(_))) => {}
        Err(error) if log.is_file() => error!("{error}"),
        Err(_) => {}
    }
    if !matches!(&started, Ok(Some(_))) {
        log.finish();
    }
    started
}

/// Does the rest of a start, whose errors are logged too. Returns `None` if the program was asked to stop meanwhile.
fn start_logged(
    invocation: &Invocation,
    mode: Mode,
    configured: Configured,
    mut signals: Signals,
    log: &Log,
    launch: &mut Launch,
) -> Result<Option<Started>, StartError> {
    let Configured { mut config, environment, mut service_manager } = configured;
    let pid_path = config.pidfile.as_deref().filter(|_| invocation.action.is_daemon());
    let mut pid_file = pid_path.map(PidFile::open).transpose()?;
    let system = System::new(&config, Path::new(hosts::PATH));
    let engine = Engine::prepare(&config)?;
    let hosts = system.hosts().unwrap_or_default();
    let seed = engine::seed().map_err(StartError::Entropy)?;
    drop_privileges(invocation, &config)?;
    log.start_thread()?;
    let mut engine = engine.lock(&config)?;
    if invocation.action.is_daemon() {
        engine.listen(&config)?;
    }
    if let Some(pid_file) = &mut pid_file {
        pid_file.write()?;
    }
    let is_daemon = invocation.action.is_daemon();
    let mut wait = LockWait::new(&config.database, is_daemon, &mut signals, launch, &mut service_manager);
    let opened = engine.open(&config, &mut || wait.keep_waiting());
    if wait.is_asked_to_stop() {
        info!(event = event::STOP; "asked to stop");
        return Ok(None);
    }
    let engine = opened?;
    wait.succeed();
    for warning in &config.warnings {
        warn!("{warning}");
    }
    config.settings.concurrency = descriptors::within_limit(config.settings.concurrency);
    let version = env!("CARGO_PKG_VERSION");
    let database = config.database.display();
    info!(event = event::START; "cmail-dispatchd {version} works on {database} as process {}", std::process::id());
    // Last, so that everything is done when the waiting process exits.
    service_manager.iter_mut().for_each(ServiceManager::ready);
    launch.succeed()?;
    let parts = EngineParts {
        config,
        environment,
        mode,
        hosts,
        system,
        seed,
        signals,
        log: log.clone(),
        service_manager,
        pid_file,
    };
    Ok(Some(Started { engine, parts }))
}

impl Started {
    fn run(self) -> ExitCode {
        let log = self.parts.log.clone();
        let _last = LastLine(&log);
        let mode = self.parts.mode.clone();
        match self.engine.run(self.parts) {
            Ok(tally) => {
                info!(event = event::STOP; "cmail-dispatchd ends");
                if let Some(done) = what_was_done(&mode, &tally) {
                    // The pass is over, even if its output is not read.
                    let _ = writeln!(io::stdout(), "{done}");
                }
                ExitCode::SUCCESS
            }
            Err(error) => {
                if log.is_file() {
                    error!("{error}");
                }
                fail(&error)
            }
        }
    }
}

/// Returns what a single pass prints at its end.
fn what_was_done(mode: &Mode, tally: &Tally) -> Option<String> {
    match mode {
        Mode::Daemon | Mode::CarryOutOrders => None,
        Mode::Deliver(_) => {
            let delivered = tally.attempts.of(AttemptResult::Delivered);
            let failed = tally.attempts.of(AttemptResult::Failed);
            let deferred = tally.attempts.total() - delivered - failed;
            Some(format!("delivered {delivered}, failed {failed}, deferred {deferred}"))
        }
        Mode::GenerateBounces => {
            let (bounced, dropped) = (tally.mails.of(Fate::Bounced), tally.mails.of(Fate::Dropped));
            let expired = match tally.mails.of(Fate::Expired) {
                0 => String::new(),
                expired => format!(", expired {expired}"),
            };
            Some(format!("bounced {bounced}, dropped {dropped}{expired}"))
        }
    }
}

/// Waits until the last line of the log is written, even after a panic.
struct LastLine<'a>(&'a Log);

impl Drop for LastLine<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Returns the owner of files that root creates: the user that root becomes.
fn owner_of_files(invocation: &Invocation, config: &Config) -> Option<Owner> {
    let (uid, gid) = config.identity.uid().zip(config.identity.gid())?;
    (invocation.drop_privileges && privileges::is_root()).then_some(Owner { uid, gid })
}

/// Becomes the user and group of the configuration, except with `nodrop` or without root's rights.
fn drop_privileges(invocation: &Invocation, config: &Config) -> Result<(), PrivilegeError> {
    let identity = &config.identity;
    if identity.uid().is_none() && identity.gid().is_none() {
        return Ok(());
    }
    if !invocation.drop_privileges {
        debug!("the privileges are kept, because the command line says nodrop");
        return Ok(());
    }
    if !privileges::is_root() {
        debug!("the directives user and group are ignored, because only root can become another user");
        return Ok(());
    }
    privileges::drop_to(identity)
}

/// Reports an error on standard error.
fn complain(what: &impl Display) {
    logging::say(&what.to_string());
}

fn fail(error: &impl Display) -> ExitCode {
    complain(error);
    ExitCode::FAILURE
}

/// Prints on standard output; fails if the output cannot be written.
fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format_args!("standard output cannot be written: {error}")),
    }
}
