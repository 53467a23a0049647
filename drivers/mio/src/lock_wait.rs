//! A start while another program keeps the database locked.

use std::path::Path;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::daemonize::Launch;
use crate::signals::Signals;

/// How long a pass waits. Somebody waits for it, too.
const PASS_LIMIT: Duration = Duration::from_secs(5);

/// How long the daemon waits before it says so: most locks last for a moment.
const NOTICE: Duration = Duration::from_secs(1);

/// Decides how long the database is waited for.
///
/// The daemon waits for as long as it takes, or until a signal asks it to stop. Its start has not failed, so the process that has
/// started it is told of success: it must neither hang nor report a failure of a daemon that is there and will work.
#[derive(Debug)]
pub(crate) struct LockWait<'a> {
    database: &'a Path,
    is_daemon: bool,
    signals: &'a mut Signals,
    launch: &'a mut Launch,
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
    ) -> Self {
        Self { database, is_daemon, signals, launch, began: Instant::now(), stage: Stage::Quiet }
    }

    /// Decides whether to go on waiting. To be called a few times a second.
    pub(crate) fn wait_on(&mut self) -> bool {
        if self.signals.ask_for_end() {
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
        true
    }

    /// Says that the wait is over, if it was said that there is one.
    pub(crate) fn succeed(&self) {
        if self.stage == Stage::Told {
            info!("the database {} is not locked any more", self.database.display());
        }
    }

    /// Whether the wait ended because the program was asked to stop.
    pub(crate) fn is_asked_to_stop(&self) -> bool {
        self.stage == Stage::AskedToStop
    }
}
