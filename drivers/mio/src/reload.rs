//! Reads the configuration again while the daemon runs.
//!
//! A thread of its own reads and checks the file, because the names of users and hosts that stand in it may be looked up for
//! long. The loop goes on meanwhile, and takes the result when the thread wakes it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use log::{error, info, warn};
use mio::Waker;

use crate::config::{Changes, Config, ConfigWarning, ERRORS_LIMIT, Environment};
use crate::descriptors;
use crate::shown;
use crate::tls::TlsContext;

/// The configuration in force, and what it is read from.
#[derive(Debug)]
pub struct Reloader {
    in_force: Config,
    environment: Arc<Environment>,
    waker: Arc<Waker>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Reading {
        result: Receiver<Result<Read, Vec<String>>>,
        /// Whether the file is to be read once more, since it may have changed after it was read.
        again: bool,
    },
}

/// A configuration without errors.
#[derive(Debug)]
struct Read {
    config: Box<Config>,
    /// The trusted certificates, if they stand in another file now.
    tls: Option<TlsContext>,
}

/// What has come of reading the file.
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
        Self { in_force, environment: Arc::new(environment), waker, stage: Stage::Idle }
    }

    /// Begins to read the file. If that is under way already, it is read once more after that.
    pub fn request(&mut self) {
        if let Stage::Reading { again, .. } = &mut self.stage {
            *again = true;
            return;
        }
        match self.begin() {
            Ok(stage) => self.stage = stage,
            Err(error) => {
                error!("the configuration cannot be read again, because no thread can be started: {error}")
            }
        }
    }

    /// Returns whether the file is being read.
    pub fn is_reading(&self) -> bool {
        matches!(self.stage, Stage::Reading { .. })
    }

    /// Takes what has come of it, if it has; logs what has changed, or what is wrong. `now` holds what the system's files say.
    pub fn poll(&mut self, now: &cmail_delivery::settings::ResolverSettings) -> Option<Reloaded> {
        let Stage::Reading { result, again } = &self.stage else { return None };
        let again = *again;
        let read = match result.try_recv() {
            Ok(read) => read,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(vec!["the thread that reads it has ended".to_owned()]),
        };
        self.stage = Stage::Idle;
        if again {
            self.request();
        }
        Some(match read {
            Ok(read) => self.take(read, now),
            Err(errors) => {
                self.refuse(&errors);
                Reloaded::Refused
            }
        })
    }

    fn begin(&self) -> io::Result<Stage> {
        let (sender, result) = channel();
        let (file, environment) = (self.in_force.file.clone(), Arc::clone(&self.environment));
        let (waker, trust_file) = (Arc::clone(&self.waker), self.in_force.trust_file.clone());
        let thread = thread::Builder::new().name("reload".to_owned());
        thread.spawn(move || {
            let read = Config::load(&file, &environment.refreshed())
                .map_err(|rejection| rejection.errors.iter().map(ToString::to_string).collect());
            let read = read.and_then(|config: Config| {
                // Those of the same file are read again by the loop, as after each change of the file.
                let is_other = config.trust_file != trust_file;
                let tls = is_other.then(|| TlsContext::load(config.trust_file.as_deref())).transpose();
                let tls = tls.map_err(|error| vec![error.to_string()])?;
                Ok(Read { config: Box::new(config), tls })
            });
            // The loop may have ended.
            let _ = sender.send(read);
            let _ = waker.wake();
        })?;
        Ok(Stage::Reading { result, again: false })
    }

    fn refuse(&self, errors: &[String]) {
        errors.iter().take(ERRORS_LIMIT).for_each(|error| error!("{error}"));
        let (count, file) = (errors.len(), shown::path(&self.in_force.file));
        error!("the configuration {file} is not taken (errors: {count}); the one from before stays in force");
    }

    fn take(
        &mut self,
        Read { config, tls }: Read,
        now: &cmail_delivery::settings::ResolverSettings,
    ) -> Reloaded {
        let mut next = *config;
        let keeps_resolver = next.resolver.given == self.in_force.resolver.given;
        // What is wrong with resolv.conf is told where that is read again.
        let is_told =
            |warning: &&ConfigWarning| !keeps_resolver || warning.line.is_some() && warning.file == next.file;
        next.warnings.iter().filter(is_told).for_each(|warning| warn!("{warning}"));
        next.settings.concurrency = descriptors::within_limit(next.settings.concurrency);
        if keeps_resolver {
            next.settings.resolver = now.clone();
        }
        self.in_force.settings.resolver = now.clone();
        let bind = (next.bind != self.in_force.bind).then(|| next.bind.clone());
        let changes = self.in_force.replace(next);
        let Changes { taken, after_restart } = &changes;
        after_restart.iter().for_each(|warning| warn!("{warning}"));
        taken.iter().for_each(|change| info!("{change}"));
        let (count, file) = (taken.len(), shown::path(&self.in_force.file));
        if let Some(bind) = &bind {
            // A name may have got other addresses.
            let addresses: Vec<String> = bind.iter().map(ToString::to_string).collect();
            info!(
                "mail is sent from {} now",
                if addresses.is_empty() { "any address".into() } else { addresses.join(", ") }
            );
        }
        if taken.is_empty() && bind.is_none() {
            info!("the configuration {file} was read again, and nothing changes");
            return Reloaded::Unchanged;
        }
        info!("the configuration {file} was read again: directives that have changed: {count}");
        Reloaded::Changed { config: Box::new(self.in_force.clone()), tls }
    }
}
