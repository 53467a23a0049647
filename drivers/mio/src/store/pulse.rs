//! How long the thread of the database has worked on its job.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Says since when a job is worked on. All clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    origin: Instant,
    /// When the job began, in milliseconds since the origin and one more; 0 if there is none.
    began_ms: Arc<AtomicU64>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), began_ms: Arc::default() }
    }

    /// Notes that a job begins.
    pub(super) fn begin(&self) {
        let began_ms = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.began_ms.store(began_ms.saturating_add(1), Ordering::Release);
    }

    /// Notes that there is no job.
    pub(super) fn rest(&self) {
        self.began_ms.store(0, Ordering::Release);
    }

    /// Returns for how long the job is worked on; zero if there is none.
    pub(super) fn age(&self) -> Duration {
        match self.began_ms.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            began_ms => self.origin.elapsed().saturating_sub(Duration::from_millis(began_ms - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_ages_until_the_next_one_or_a_rest() {
        let pulse = Pulse::new();
        assert_eq!(pulse.age(), Duration::ZERO);
        pulse.begin();
        let began = Instant::now();
        while pulse.age() < Duration::from_millis(5) {
            assert!(began.elapsed() < Duration::from_secs(10), "it does not age");
        }
        pulse.begin();
        let again = pulse.age();
        pulse.rest();
        assert!(again < Duration::from_secs(10) && pulse.clone().age() == Duration::ZERO);
    }
}
