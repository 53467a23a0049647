//! Signals that can be polled: they are blocked, and read from a descriptor instead.
//!
//! No signal ends the daemon silently, except SIGKILL and those of a broken program (SIGSEGV and the like). Signals without a
//! meaning here are logged and ignored. Job control (SIGTSTP, SIGCONT) works as usual.
//!
//! The runtime of Rust ignores SIGPIPE before `main` begins. SIGXFSZ is blocked and never read: a write that exceeds the
//! limit of file sizes fails like one to a full disk.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;

use mio::event::Source;
use mio::unix::{SourceFd, pipe};
use mio::{Interest, Registry, Token};
use nix::sys::signal::{self, SigSet};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};

/// An order of the administrator to a running program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: reopen the log file, and reread the system's files.
    Hangup,
    /// SIGUSR1: reopen the log file.
    ReopenLog,
    /// SIGUSR2: try all mail now that has not been given up.
    TryNow,
    /// SIGTERM or SIGINT: stop.
    Terminate,
    /// A signal that has no meaning here.
    Meaningless {
        /// Its number.
        number: i32,
        /// The process that sent it; 0 if that is the kernel, or unknown.
        sender: u32,
    },
}

/// Signals that keep their default: those of a broken program, job control, and those that are ignored by default.
const LEFT_ALONE: [signal::Signal; 13] = [
    signal::SIGILL,
    signal::SIGABRT,
    signal::SIGBUS,
    signal::SIGFPE,
    signal::SIGSEGV,
    signal::SIGPIPE,
    signal::SIGCHLD,
    signal::SIGCONT,
    signal::SIGTSTP,
    signal::SIGTTIN,
    signal::SIGTTOU,
    signal::SIGURG,
    signal::SIGWINCH,
];

/// The source of signals. It is readable when a signal has come.
#[derive(Debug)]
pub struct Signals {
    origin: Origin,
    /// Signals that were read, and not drained yet.
    kept: Vec<Signal>,
}

#[derive(Debug)]
enum Origin {
    Process(SignalFd),
    Controller(pipe::Receiver),
}

/// Sends signals to an engine that is embedded in another program. Dropping it sends [`Signal::Terminate`], because the
/// engine could not be stopped otherwise.
#[derive(Debug)]
pub struct Controller {
    pipe: pipe::Sender,
}

impl Controller {
    /// Sends a signal to the engine. Fails if the engine has ended.
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        (&self.pipe).write_all(&[octet(signal)])
    }
}

/// Encodes a signal for the pipe of a [`Controller`].
const fn octet(signal: Signal) -> u8 {
    match signal {
        Signal::Hangup => b'H',
        Signal::ReopenLog => b'L',
        Signal::TryNow => b'N',
        Signal::Terminate => b'T',
        Signal::Meaningless { .. } => b'?',
    }
}

const fn from_octet(octet: u8) -> Signal {
    match octet {
        b'H' => Signal::Hangup,
        b'L' => Signal::ReopenLog,
        b'N' => Signal::TryNow,
        b'T' => Signal::Terminate,
        _ => Signal::Meaningless { number: 0, sender: 0 },
    }
}

/// Makes a write that exceeds the limit of file sizes (`ulimit -f`) fail instead of ending the process, in this thread and
/// those that it starts from now on.
pub fn survive_file_size_limit() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(signal::SIGXFSZ);
    Ok(signals.thread_block()?)
}

impl Signals {
    /// Blocks all signals that the program reads, for this thread and those that it starts from now on.
    pub fn take() -> io::Result<Self> {
        let mut signals = SigSet::all();
        for signal in LEFT_ALONE {
            signals.remove(signal);
        }
        signals.thread_block()?;
        signals.remove(signal::SIGXFSZ);
        let descriptor = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { origin: Origin::Process(descriptor), kept: Vec::new() })
    }

    /// Returns a source of signals for an embedded engine, and the controller that sends them. The signals of the process
    /// keep their defaults.
    pub fn controlled() -> io::Result<(Self, Controller)> {
        let (sender, receiver) = pipe::new()?;
        Ok((Self { origin: Origin::Controller(receiver), kept: Vec::new() }, Controller { pipe: sender }))
    }

    /// Returns the signals that came since the last call, in no particular order. A signal that came more than once may be
    /// there only once.
    pub fn drain(&mut self) -> Vec<Signal> {
        self.take_in();
        std::mem::take(&mut self.kept)
    }

    /// Reads new signals, and returns whether one asks to stop. All of them stay to be drained.
    pub fn check_for_terminate(&mut self) -> bool {
        self.take_in();
        self.kept.contains(&Signal::Terminate)
    }

    fn take_in(&mut self) {
        let found = match &mut self.origin {
            Origin::Process(descriptor) => drain_process(descriptor),
            Origin::Controller(pipe) => drain_controller(pipe),
        };
        for signal in found {
            if !self.kept.contains(&signal) {
                self.kept.push(signal);
            }
        }
    }
}

fn drain_process(descriptor: &SignalFd) -> Vec<Signal> {
    let mut signals = Vec::new();
    // After an error the descriptor stays readable, and the next call reads the rest.
    while let Ok(Some(info)) = descriptor.read_signal() {
        signals.push(meaning(&info));
    }
    signals
}

fn meaning(info: &siginfo) -> Signal {
    let number = i32::try_from(info.ssi_signo).unwrap_or_default();
    match signal::Signal::try_from(number) {
        Ok(signal::SIGHUP) => Signal::Hangup,
        Ok(signal::SIGUSR1) => Signal::ReopenLog,
        Ok(signal::SIGUSR2) => Signal::TryNow,
        Ok(signal::SIGTERM | signal::SIGINT) => Signal::Terminate,
        Ok(_) | Err(_) => Signal::Meaningless { number, sender: info.ssi_pid },
    }
}

/// Returns the name of a signal; the numbers above the named ones have none.
pub fn name(number: i32) -> String {
    match signal::Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => format!("signal {number}"),
    }
}

fn drain_controller(pipe: &mut pipe::Receiver) -> Vec<Signal> {
    let mut octets = Vec::new();
    let is_closed = pipe.read_to_end(&mut octets).is_ok();
    let mut signals: Vec<Signal> = octets.into_iter().map(from_octet).collect();
    signals.extend(is_closed.then_some(Signal::Terminate));
    signals
}

impl Source for Signals {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match &mut self.origin {
            Origin::Process(descriptor) => {
                SourceFd(&descriptor.as_raw_fd()).register(registry, token, interests)
            }
            Origin::Controller(pipe) => pipe.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match &mut self.origin {
            Origin::Process(descriptor) => {
                SourceFd(&descriptor.as_raw_fd()).reregister(registry, token, interests)
            }
            Origin::Controller(pipe) => pipe.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match &mut self.origin {
            Origin::Process(descriptor) => SourceFd(&descriptor.as_raw_fd()).deregister(registry),
            Origin::Controller(pipe) => pipe.deregister(registry),
        }
    }
}

#[cfg(test)]
mod tests;
