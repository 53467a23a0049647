//! What the kernel has to say: which sources are ready, and what time it is.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cmail_delivery::time::{Instant, Now, UnixTime};
use mio::event::Event;
use mio::{Events, Poll, Registry, Token, Waker};

/// Events that are taken from the kernel at a time.
const EVENTS_PER_POLL: usize = 256;

/// Most polls in a row that bring as many events as fit, or are interrupted, before what they brought is looked at.
const POLLS_PER_ITERATION: u32 = 64;

/// What other threads wake the loop by.
pub(super) const WAKER: Token = Token(0);

/// The poll and the clocks.
#[derive(Debug)]
pub struct Kernel {
    pub(super) poll: Poll,
    pub(super) events: Events,
    waker: Arc<Waker>,
    pub(super) clock: Clock,
}

/// What a poll has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Polled {
    /// All that there was.
    Everything,
    /// There may be more.
    AsMuchAsFits,
    /// It was interrupted.
    Nothing,
}

impl Kernel {
    /// A poll that watches nothing but its waker.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self { poll, events: Events::with_capacity(EVENTS_PER_POLL), waker, clock: Clock::new() })
    }

    /// Wakes the loop from another thread.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// The time as the dispatcher is to see it.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Takes in everything that the kernel has, after it was waited for. Returns the time up to which that is known to be
    /// everything, if it is.
    ///
    /// The process may have been stopped for long, at any moment. What came in meanwhile must be known before a deadline is
    /// judged, however much it is. So the clock that counts is read before a poll, and only if that poll was not
    /// interrupted and brought all there was.
    pub(super) fn gather(
        &mut self,
        mut wait: Option<Duration>,
        mut take_in: impl FnMut(&Event),
    ) -> io::Result<Option<Now>> {
        for number in 1..=POLLS_PER_ITERATION {
            let asked_at = self.clock.now();
            let polled = self.poll_once(wait, &mut take_in)?;
            // Where more comes in than is ever taken in, deadlines count all the same.
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
            // The process was stopped.
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

/// Both clocks.
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
        // A clock that stands before 1970 is nothing to die of.
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
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_back_and_the_other_is_the_systems() {
        let clock = Clock::new();
        let (first, second) = (clock.now(), clock.now());
        assert!(first.monotonic <= second.monotonic);
        let system = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert!(second.wall.0.abs_diff(i64::try_from(system).unwrap()) <= 1);
    }
}
