//! Reads the configuration again while the daemon runs.
//!
//! A thread of its own reads and checks the file, because the names of users and hosts that stand in it may be looked up for
//! long. The loop goes on meanwhile, and takes the result when the thread wakes it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use cmail_delivery::destination_pattern::DestinationPattern;
use cmail_delivery::policy::{Choice, LocalAddresses};
use cmail_delivery::settings::{ResolverSettings, Settings};
use log::{error, info, warn};
use mio::Waker;
use serde::Serialize;

use crate::config::{Change, Changes, Config, ConfigWarning, ERRORS_LIMIT, Environment};
use crate::descriptors;
use crate::logging::event;
use crate::shown;
use crate::tls::{TlsContext, TlsFiles};

/// The configuration in force, and what it is read from.
#[derive(Debug)]
pub struct Reloader {
    in_force: Config,
    environment: Arc<Environment>,
    waker: Arc<Waker>,
    stage: Stage,
    /// How many readings have begun.
    begun: u64,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Reading {
        result: Receiver<Result<Read, Vec<String>>>,
        /// Whether the file is to be read once more, since it may have changed after it was read.
        again: bool,
    },
    /// No thread could be started for it.
    Failed(String),
}

/// A configuration without errors.
#[derive(Debug)]
struct Read {
    config: Box<Config>,
    /// The trusted certificates, if they stand in another file now.
    tls: Option<TlsContext>,
}

/// What has come of a reading of the file.
#[derive(Debug)]
pub struct Outcome {
    /// The number of the reading.
    pub number: u64,
    /// What holds from now on.
    pub reloaded: Reloaded,
    /// The same for those who have asked for it.
    pub report: Report,
}

/// What is told of a reading of the file: the fields of the record `reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file.
    pub file: String,
    /// Whether it holds from now on.
    pub taken: bool,
    /// What has changed.
    pub changes: Vec<Change>,
    /// What the administrator should know although it is not an error.
    pub warnings: Vec<String>,
    /// What is wrong with it, up to a limit.
    pub errors: Vec<String>,
    /// The number of errors.
    pub error_count: usize,
}

/// What holds after the file was read.
#[derive(Debug)]
pub enum Reloaded {
    /// The configuration in force is this from now on.
    Changed {
        /// All of it.
        config: Box<Config>,
        /// The trusted certificates, if they stand in another file now.
        tls: Option<TlsContext>,
    },
    /// Nothing has changed.
    Unchanged,
    /// The file cannot be used: the configuration in force stays.
    Refused,
}

impl Reloader {
    /// Returns a reloader of the configuration that the daemon was started with. `waker` wakes the loop.
    pub fn new(in_force: Config, environment: Environment, waker: Arc<Waker>) -> Self {
        Self { in_force, environment: Arc::new(environment), waker, stage: Stage::Idle, begun: 0 }
    }

    /// Begins to read the file. If that is under way already, it is read once more after that. Returns the number of the reading.
    pub fn request(&mut self) -> u64 {
        if let Stage::Reading { again, .. } = &mut self.stage {
            *again = true;
            return self.begun + 1;
        }
        self.begun += 1;
        self.stage = self.begin().unwrap_or_else(|error| {
            // If it cannot be woken, the loop finds it at its next turn.
            let _ = self.waker.wake();
            Stage::Failed(format!("no thread can be started to read it: {error}"))
        });
        self.begun
    }

    /// Returns whether a reading has not been told of yet.
    pub fn is_reading(&self) -> bool {
        !matches!(self.stage, Stage::Idle)
    }

    /// Takes what has come of a reading, if it has ended; logs what has changed, or what is wrong. `now` holds what the system's files
    /// say.
    pub fn poll(&mut self, now: &ResolverSettings) -> Option<Outcome> {
        let (read, again) = match &self.stage {
            Stage::Idle => return None,
            Stage::Failed(error) => (Err(vec![error.clone()]), false),
            Stage::Reading { result, again } => match result.try_recv() {
                Ok(read) => (read, *again),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => {
                    (Err(vec!["the thread that reads it has ended".to_owned()]), *again)
                }
            },
        };
        let number = self.begun;
        self.stage = Stage::Idle;
        if again {
            self.request();
        }
        let (reloaded, report) = match read {
            Ok(read) => self.take(read, now),
            Err(errors) => (Reloaded::Refused, self.refuse(errors)),
        };
        Some(Outcome { number, reloaded, report })
    }

    fn begin(&self) -> io::Result<Stage> {
        let (sender, result) = channel();
        let (file, environment) = (self.in_force.file.clone(), Arc::clone(&self.environment));
        let in_force = TlsFiles::of(self.in_force.trust_file.as_deref(), &self.in_force.settings);
        let waker = Arc::clone(&self.waker);
        let thread = thread::Builder::new().name("reload".to_owned());
        thread.spawn(move || {
            let read = Config::load(&file, &environment.refreshed())
                .map_err(|rejection| rejection.errors.iter().map(ToString::to_string).collect());
            let read = read.and_then(|config: Config| {
                // Certificates of the same trust file are read again by the loop, as after each change of the file.
                let files = TlsFiles::of(config.trust_file.as_deref(), &config.settings);
                let is_other = files != in_force || !files.identities.is_empty();
                let tls = is_other.then(|| TlsContext::load(&files)).transpose();
                let tls = tls.map_err(|error| vec![error.to_string()])?;
                Ok(Read { config: Box::new(config), tls })
            });
            // The loop may have ended.
            let _ = sender.send(read);
            let _ = waker.wake();
        })?;
        Ok(Stage::Reading { result, again: false })
    }

    fn refuse(&self, mut errors: Vec<String>) -> Report {
        let (error_count, file) = (errors.len(), shown::path(&self.in_force.file).to_string());
        errors.truncate(ERRORS_LIMIT);
        errors.iter().for_each(|error| error!(event = event::RELOAD; "{error}"));
        error!(
            event = event::RELOAD; "the configuration {file} is not taken (errors: {error_count}); the one from before stays in force"
        );
        Report { file, errors, error_count, ..Report::default() }
    }

    fn take(&mut self, Read { config, tls }: Read, now: &ResolverSettings) -> (Reloaded, Report) {
        let mut next = *config;
        let keeps_resolver = next.resolver == self.in_force.resolver;
        // What is wrong with resolv.conf is told where that is read again.
        let is_told =
            |warning: &&ConfigWarning| !keeps_resolver || warning.line.is_some() && warning.file == next.file;
        let mut warnings: Vec<String> =
            next.warnings.iter().filter(is_told).map(ConfigWarning::to_string).collect();
        next.settings.concurrency = descriptors::within_limit(next.settings.concurrency);
        if keeps_resolver {
            next.settings.resolver = now.clone();
        }
        self.in_force.settings.resolver = now.clone();
        let (before, after) = (&self.in_force.settings, &next.settings);
        let bind = (after.policy.bind != before.policy.bind).then_some(before.policy.bind);
        let says_other = said_of_destinations(after).ne(said_of_destinations(before));
        let signs_otherwise = after.signing != before.signing;
        let Changes { taken: mut changes, after_restart } = self.in_force.replace(next);
        warnings.extend(after_restart.iter().map(ConfigWarning::to_string));
        let is_told = |changes: &[Change], name| changes.iter().any(|change| change.directive == name);
        // A name may be the same, and have got other addresses; a file, other credentials.
        if let Some(before) = bind
            && !is_told(&changes, "bind")
        {
            let now = addresses(self.in_force.settings.policy.bind);
            changes.push(Change::new("bind", addresses(before), now));
        }
        if says_other && !is_told(&changes, "destination") {
            let before = "that with other addresses or credentials".to_owned();
            changes.push(Change::new("destination", before, self.in_force.shown("destination")));
        }
        if signs_otherwise && !is_told(&changes, "dkim_key") && !is_told(&changes, "dkim_sign") {
            let before = "that with other keys in the files".to_owned();
            changes.push(Change::new("dkim_key", before, self.in_force.shown("dkim_key")));
        }
        warnings.iter().for_each(|warning| warn!(event = event::RELOAD; "{warning}"));
        changes.iter().for_each(|change| info!(event = event::RELOAD; "{change}"));
        let (count, file) = (changes.len(), shown::path(&self.in_force.file).to_string());
        let reloaded = if changes.is_empty() {
            info!(event = event::RELOAD; "the configuration {file} was read again, and nothing changes");
            Reloaded::Unchanged
        } else {
            info!(event = event::RELOAD; "the configuration {file} was read again: directives that have changed: {count}");
            Reloaded::Changed { config: Box::new(self.in_force.clone()), tls }
        };
        (reloaded, Report { file, taken: true, changes, warnings, ..Report::default() })
    }
}

fn addresses(local: LocalAddresses) -> String {
    let addresses = [local.ipv4.map(IpAddr::V4), local.ipv6.map(IpAddr::V6)].into_iter().flatten();
    let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
    if addresses.is_empty() { "any address".to_owned() } else { addresses.join(", ") }
}

/// Returns what is said of destinations, with what the lines of the file name only: addresses and credentials.
fn said_of_destinations(settings: &Settings) -> impl Iterator<Item = (&DestinationPattern, &[Choice])> {
    settings.destinations.iter().map(|line| (&line.destination, &*line.choices))
}
