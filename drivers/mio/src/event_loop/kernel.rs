//! The poll and the clocks: which sources are ready, and what time it is.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cmail_delivery::time::{Instant, Now, UnixTime};
use mio::event::Event;
use mio::{Events, Poll, Registry, Token, Waker};

/// Events that one poll takes from the kernel.
const EVENTS_PER_POLL: usize = 256;

/// Most polls in a row that are full or interrupted, before their events are handled.
const POLLS_PER_ITERATION: u32 = 64;

/// The token of the waker, by which other threads wake the loop.
pub(super) const WAKER: Token = Token(0);

/// The poll and the clocks.
#[derive(Debug)]
pub struct Kernel {
    pub(super) poll: Poll,
    pub(super) events: Events,
    waker: Arc<Waker>,
    pub(super) clock: Clock,
}

/// The result of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Polled {
    /// It returned all events.
    Everything,
    /// It returned as many events as fit; there may be more.
    AsMuchAsFits,
    /// It was interrupted.
    Nothing,
}

impl Kernel {
    /// Creates a poll that watches only its waker.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self { poll, events: Events::with_capacity(EVENTS_PER_POLL), waker, clock: Clock::new() })
    }

    /// Returns the waker, by which another thread wakes the loop.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Returns the time for the dispatcher.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Waits for the kernel, and reads all events that it has. Returns the time up to which all events have been read; `None`
    /// if that is not certain.
    ///
    /// The process may have been stopped for long at any moment. All events of that time must be handled before a deadline
    /// is judged. So the time that counts is read before a poll, and only if that poll was not interrupted and returned all
    /// events.
    pub(super) fn gather(
        &mut self,
        mut wait: Option<Duration>,
        mut take_in: impl FnMut(&Event),
    ) -> io::Result<Option<Now>> {
        for number in 1..=POLLS_PER_ITERATION {
            let asked_at = self.clock.now();
            let polled = self.poll_once(wait, &mut take_in)?;
            // If more events come than can be handled, deadlines count all the same.
            if polled == Polled::Everything
                || (polled == Polled::AsMuchAsFits && number == POLLS_PER_ITERATION)
            {
                return Ok(Some(asked_at));
            }
            wait = Some(Duration::ZERO);
        }
        Ok(None)
    }

    fn poll_once(&mut self, wait: Option<Duration>, take_in: &mut impl FnMut(&Event)) -> io::Result<Polled> {
        match self.poll.poll(&mut self.events, wait) {
            Ok(()) => {}
            // The process was stopped and continued.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Polled::Nothing),
            Err(error) => return Err(error),
        }
        let mut count = 0;
        for event in &self.events {
            count += 1;
            take_in(event);
        }
        Ok(if count < self.events.capacity() { Polled::Everything } else { Polled::AsMuchAsFits })
    }
}

/// The monotonic clock and the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) origin: std::time::Instant,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    pub(super) fn now(self) -> Now {
        let micros = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        // A clock before 1970 is no reason to fail.
        let (wall, nanos) = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
            Err(before) => {
                (i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds), 0)
            }
        };
        let since_second = Duration::from_nanos(nanos.into());
        Now { monotonic: Instant::from_micros(micros), wall: UnixTime(wall), since_second }
    }
}

#[cfg(test)]
mod tests;
