//! Signals as something to poll: they are blocked, and read from a descriptor instead.
//!
//! SIGPIPE needs nothing: the runtime of Rust ignores it before `main` begins.

use std::io;
use std::os::fd::AsRawFd as _;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::signal::{self, SigSet};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What the administrator tells a running program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: try everything now, and reopen the log file.
    Hangup,
    /// SIGTERM or SIGINT: come to an end.
    Terminate,
}

/// The signals that came in. Readable when there are some.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Takes SIGHUP, SIGTERM and SIGINT away from their defaults, for this thread and those that it starts from now on.
    pub fn take() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [signal::SIGHUP, signal::SIGTERM, signal::SIGINT] {
            signals.add(signal);
        }
        signals.thread_block()?;
        let descriptor = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { descriptor })
    }

    /// The signals that came in since the last call, in no certain order. A signal that came more than once may be
    /// there only once.
    pub fn drain(&mut self) -> Vec<Signal> {
        let mut signals = Vec::new();
        // An error leaves what there is for the next time; the descriptor stays readable then.
        while let Ok(Some(info)) = self.descriptor.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            signals.push(if number == signal::SIGHUP as i32 { Signal::Hangup } else { Signal::Terminate });
        }
        signals
    }
}

impl Source for Signals {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.descriptor.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.descriptor.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.descriptor.as_raw_fd()).deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::time::Duration;

    #[test]
    fn a_signal_wakes_the_poll_and_is_drained_once() {
        let mut signals = Signals::take().unwrap();
        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut signals, Token(7), Interest::READABLE).unwrap();
        assert_eq!(signals.drain(), []);
        // A signal for this thread alone cannot reach the other tests of the process.
        signal::raise(signal::SIGHUP).unwrap();
        signal::raise(signal::SIGTERM).unwrap();
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
        assert!(events.iter().any(|event| event.token() == Token(7)));
        let drained = signals.drain();
        assert!(drained.contains(&Signal::Hangup) && drained.contains(&Signal::Terminate), "{drained:?}");
        assert_eq!(signals.drain(), []);
    }

    #[test]
    fn a_broken_pipe_does_not_end_the_program() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
        assert_ne!(ignored & 1 << (signal::SIGPIPE as u32 - 1), 0);
    }
}
