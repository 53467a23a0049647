//! Signals as something to poll: they are blocked, and read from a descriptor instead.
//!
//! SIGPIPE needs nothing: the runtime of Rust ignores it before `main` begins.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;

use mio::event::Source;
use mio::unix::{SourceFd, pipe};
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
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Process(SignalFd),
    Controller(pipe::Receiver),
}

/// What tells an engine inside another program the same as signals tell the daemon. Dropping it means
/// [`Signal::Terminate`], because nobody could ever say that any more.
#[derive(Debug)]
pub struct Controller {
    pipe: pipe::Sender,
}

impl Controller {
    /// Tells the engine. Fails if the engine has ended.
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        (&self.pipe).write_all(&[octet(signal)])
    }
}

/// How a signal travels from a [`Controller`].
const fn octet(signal: Signal) -> u8 {
    match signal {
        Signal::Hangup => b'H',
        Signal::Terminate => b'T',
    }
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
        Ok(Self { origin: Origin::Process(descriptor) })
    }

    /// Signals of an engine inside another program, which come from the controller. Those of the process stay as they
    /// are.
    pub fn controlled() -> io::Result<(Self, Controller)> {
        let (sender, receiver) = pipe::new()?;
        Ok((Self { origin: Origin::Controller(receiver) }, Controller { pipe: sender }))
    }

    /// The signals that came in since the last call, in no certain order. A signal that came more than once may be
    /// there only once.
    pub fn drain(&mut self) -> Vec<Signal> {
        match &mut self.origin {
            Origin::Process(descriptor) => drain_process(descriptor),
            Origin::Controller(pipe) => drain_controller(pipe),
        }
    }
}

fn drain_process(descriptor: &SignalFd) -> Vec<Signal> {
    let mut signals = Vec::new();
    // An error leaves what there is for the next time; the descriptor stays readable then.
    while let Ok(Some(info)) = descriptor.read_signal() {
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        signals.push(if number == signal::SIGHUP as i32 { Signal::Hangup } else { Signal::Terminate });
    }
    signals
}

fn drain_controller(pipe: &mut pipe::Receiver) -> Vec<Signal> {
    let mut octets = Vec::new();
    let is_closed = pipe.read_to_end(&mut octets).is_ok();
    let mut signals: Vec<Signal> = octets
        .into_iter()
        .map(|sent| if sent == octet(Signal::Hangup) { Signal::Hangup } else { Signal::Terminate })
        .collect();
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
    fn a_controller_wakes_the_poll_and_says_terminate_when_it_is_dropped() {
        let (mut signals, controller) = Signals::controlled().unwrap();
        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut signals, Token(7), Interest::READABLE).unwrap();
        let mut events = Events::with_capacity(4);
        let mut woken = || {
            poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
            events.iter().any(|event| event.token() == Token(7))
        };
        assert_eq!(signals.drain(), []);
        controller.send(Signal::Hangup).unwrap();
        assert!(woken());
        assert_eq!(signals.drain(), [Signal::Hangup]);
        assert_eq!(signals.drain(), []);
        drop(controller);
        assert!(woken());
        assert_eq!(signals.drain(), [Signal::Terminate]);
    }

    #[test]
    fn a_controller_learns_that_the_engine_has_ended() {
        let (signals, controller) = Signals::controlled().unwrap();
        drop(signals);
        assert!(controller.send(Signal::Hangup).is_err());
    }

    #[test]
    fn a_broken_pipe_does_not_end_the_program() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
        assert_ne!(ignored & 1 << (signal::SIGPIPE as u32 - 1), 0);
    }
}
