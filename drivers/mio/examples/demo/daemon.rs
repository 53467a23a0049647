//! The daemon inside another program: the steps of `cmail_dispatchd::startup` without the command line, the background, the
//! pid file and the privileges.

use std::path::Path;
use std::thread::{self, JoinHandle};

use cmail_delivery::dispatcher::Mode;
use cmail_delivery::settings::Hosts;
use cmail_delivery::tally::Tally;
use cmail_dispatchd::config::{Config, Environment};
use cmail_dispatchd::engine::EngineParts;
use cmail_dispatchd::engine::{Engine, EngineError};
use cmail_dispatchd::logging::Log;
use cmail_dispatchd::signals::{Controller, Signal, Signals};
use cmail_dispatchd::system::System;

use crate::Result;

/// Decides everything that is random. A program that is no demonstration takes fresh randomness of the system.
const SEED: [u8; 32] = *b"every run of this demo is alike.";

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    controller: Controller,
    thread: JoinHandle<std::result::Result<Tally, EngineError>>,
}

impl Daemon {
    /// Starts the daemon with a configuration file.
    pub(crate) fn start(file: &Path) -> Result<Self> {
        // Nothing of this machine shall matter: there is no such resolv.conf, and `announce` stands in the file.
        let environment = Environment {
            host_name: Ok("localhost".to_owned()),
            resolv_conf: file.with_file_name("resolv.conf"),
            directory: Ok("/".into()),
            needs_log: true,
        };
        let config = Config::load(file, &environment).map_err(|rejection| {
            rejection.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        })?;
        let log = Log::install(config.logfile.as_deref(), config.verbosity, config.logformat, None)?;
        let system = System::new(&config, &file.with_file_name("hosts"));
        let engine = Engine::prepare(&config)?.lock(&config)?.open(&config, &mut || false)?;
        // The controller says what SIGHUP and SIGTERM say to the daemon proper.
        let (signals, controller) = Signals::controlled()?;
        let parts = EngineParts {
            config,
            environment,
            mode: Mode::Daemon,
            hosts: Hosts::new(),
            system,
            seed: SEED,
            signals,
            log,
            service_manager: None,
            pid_file: None,
        };
        let thread = thread::Builder::new().name("engine".to_owned()).spawn(move || engine.run(parts))?;
        Ok(Self { controller, thread })
    }

    /// Ends the daemon as SIGTERM does.
    pub(crate) fn stop(self) -> Result<()> {
        // If it has ended already there is nobody to tell, but a reason to return.
        let told = self.controller.send(Signal::Terminate);
        self.thread.join().map_err(|_| "the daemon has panicked")??;
        Ok(told?)
    }
}
