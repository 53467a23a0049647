//! A start while another program keeps the database locked.

use std::path::Path;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::daemonize::Launch;
use crate::service_manager::ServiceManager;
use crate::signals::Signals;

/// How long a single pass waits: the user waits for its end.
const PASS_LIMIT: Duration = Duration::from_secs(5);

/// How long the daemon waits before it logs that it waits: most locks are short.
const NOTICE: Duration = Duration::from_secs(1);

/// Decides how long to wait for a locked database.
///
/// The daemon waits for as long as it takes, or until a signal asks it to stop. It reports success to the process that
/// started it, because that must neither hang nor report a failure of a daemon that is running.
#[derive(Debug)]
pub(crate) struct LockWait<'a> {
    database: &'a Path,
    is_daemon: bool,
    signals: &'a mut Signals,
    launch: &'a mut Launch,
    service_manager: &'a mut Option<ServiceManager>,
    began: Instant,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Quiet,
    Told,
    AskedToStop,
}

impl<'a> LockWait<'a> {
    pub(crate) fn new(
        database: &'a Path,
        is_daemon: bool,
        signals: &'a mut Signals,
        launch: &'a mut Launch,
        service_manager: &'a mut Option<ServiceManager>,
    ) -> Self {
        Self {
            database,
            is_daemon,
            signals,
            launch,
            service_manager,
            began: Instant::now(),
            stage: Stage::Quiet,
        }
    }

    /// Decides whether to go on waiting. To be called a few times a second.
    pub(crate) fn keep_waiting(&mut self) -> bool {
        if self.signals.check_for_terminate() {
            self.stage = Stage::AskedToStop;
            return false;
        }
        let waited = self.began.elapsed();
        if !self.is_daemon {
            return waited < PASS_LIMIT;
        }
        if self.stage == Stage::Quiet && waited >= NOTICE {
            self.stage = Stage::Told;
            let database = self.database.display();
            warn!(
                "the database {database} is locked by another program, so the daemon waits for it; \
                 `fuser -v {database}` names the programs that use it"
            );
            if let Err(error) = self.launch.succeed() {
                warn!("{error}");
            }
        }
        if let Some(service_manager) = self.service_manager.as_mut().filter(|_| self.stage == Stage::Told) {
            service_manager.extend_start("waits for the database, which another program has locked");
        }
        true
    }

    /// Logs that the wait is over, if its beginning was logged.
    pub(crate) fn succeed(&self) {
        if self.stage == Stage::Told {
            info!("the database {} is not locked any more", self.database.display());
        }
    }

    /// Returns whether the wait ended because the program was asked to stop.
    pub(crate) fn is_asked_to_stop(&self) -> bool {
        self.stage == Stage::AskedToStop
    }
}
