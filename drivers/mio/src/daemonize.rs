//! Goes into the background, such that the caller learns whether the daemon has started.
//!
//! The process that was started waits until the daemon tells it, through a pipe, whether the start succeeded: only then it
//! exits, with status 0 or 1. The daemon's messages until then go to the same standard error.

// `fork` is the only unsafe call in the program.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait;
use nix::unistd::{self, ForkResult};
use thiserror::Error;

/// Reports that the daemon has started.
const STARTED: u8 = b'S';
/// Reports that the daemon could not start, and has already printed the reason.
const FAILED: u8 = b'F';

/// Why the daemon could not go into the background.
#[derive(Debug, Error)]
pub enum DaemonizeError {
    /// A system call failed.
    #[error("the daemon cannot go into the background: {call} failed: {errno}")]
    Call {
        /// Its name.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// `/dev/null`, which replaces the standard streams, cannot be opened.
    #[error("the daemon cannot go into the background: /dev/null cannot be opened: {0}")]
    Null(io::Error),
}

/// A daemon that is about to start, in the background or not.
#[derive(Debug)]
pub struct Launch {
    /// The pipe to the process that waits for the daemon to start; `None` in the foreground.
    waiting: Option<File>,
}

impl Launch {
    /// Starts in the foreground.
    pub fn in_foreground() -> Self {
        Self { waiting: None }
    }

    /// Goes into the background: returns in the daemon's process only, which has no controlling terminal any more and
    /// the root directory as its working directory.
    ///
    /// The process must not have any other thread.
    pub fn in_background() -> Result<Self, DaemonizeError> {
        let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe2"))?;
        if let ForkResult::Parent { child } = fork()? {
            drop(writer);
            // The first child exits at once; waiting for it leaves no zombie behind.
            let _ = wait::waitpid(child, None);
            process::exit(wait_for_start(reader));
        }
        drop(reader);
        unistd::setsid().map_err(failed("setsid"))?;
        // A process that does not lead its session never gets a controlling terminal again.
        if let ForkResult::Parent { .. } = fork()? {
            process::exit(0);
        }
        unistd::chdir("/").map_err(failed("chdir"))?;
        Ok(Self { waiting: Some(writer.into()) })
    }

    /// The daemon has started: gives up the standard streams, and lets the waiting process exit with status 0.
    pub fn succeed(&mut self) -> Result<(), DaemonizeError> {
        if self.waiting.is_none() {
            return Ok(());
        }
        let null =
            OpenOptions::new().read(true).write(true).open("/dev/null").map_err(DaemonizeError::Null)?;
        unistd::dup2_stdin(&null).map_err(failed("dup2"))?;
        unistd::dup2_stdout(&null).map_err(failed("dup2"))?;
        unistd::dup2_stderr(&null).map_err(failed("dup2"))?;
        self.tell(STARTED);
        Ok(())
    }

    /// The daemon could not start, and has said why: lets the waiting process exit with status 1.
    pub fn fail(&mut self) {
        self.tell(FAILED);
    }

    fn tell(&mut self, report: u8) {
        if let Some(mut waiting) = self.waiting.take() {
            // The waiting process may have been killed; the daemon goes on.
            let _ = waiting.write_all(&[report]);
        }
    }
}

/// Duplicates the process.
fn fork() -> Result<ForkResult, DaemonizeError> {
    // SAFETY: the process has no other thread, as `Launch::in_background` demands, so that no lock is held by a thread
    // that does not exist in the child.
    unsafe { unistd::fork() }.map_err(failed("fork"))
}

/// Waits for the report of the daemon, and returns the exit status.
fn wait_for_start(reader: OwnedFd) -> i32 {
    let mut report = Vec::new();
    let _ = File::from(reader).read_to_end(&mut report);
    match report.first() {
        Some(&STARTED) => 0,
        Some(_) => 1,
        None => {
            let _ = writeln!(io::stderr(), "cmail-dispatchd: the daemon ended before it had started");
            1
        }
    }
}

fn failed(call: &'static str) -> impl FnOnce(Errno) -> DaemonizeError {
    move |errno| DaemonizeError::Call { call, errno }
}

#[cfg(test)]
mod tests;
