//! The rate limit: how many transactions may begin for one destination.

use alloc::collections::BTreeMap;

use crate::next_hop::NextHop;
use crate::settings::RateLimit;
use crate::time::{Duration, Instant};

/// So many paces are kept without looking for what can be forgotten.
const PACES_LEAST: usize = 1000;

/// A token bucket that holds at most what one second brings, and at least one token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// What is spent refills until then.
    full_at: Instant,
}

impl Pace {
    /// A full bucket.
    pub(super) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Whether nothing is spent.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }

    /// Takes a token, or says when there will be one.
    pub(super) fn take(&mut self, limit: RateLimit, now: Instant) -> Result<(), Instant> {
        let spacing = limit.per.checked_div(limit.transactions).unwrap_or(limit.per);
        let burst = spacing.max(Duration::from_secs(1));
        let base = self.full_at.max(now);
        // With all tokens there, the bucket could be full `burst` ago and still be full now.
        let next_full = base + spacing;
        if next_full > now + burst {
            let wait = next_full.saturating_duration_since(now + burst);
            return Err(now + wait);
        }
        self.full_at = next_full;
        Ok(())
    }
}

/// The paces of all destinations that are not at rest.
#[derive(Debug, Default)]
pub(super) struct Paces {
    paces: BTreeMap<NextHop, Pace>,
    /// With so many, those that are at rest are forgotten.
    sweep_at: usize,
}

impl Paces {
    /// Takes a token of a destination, or says when there will be one.
    pub(super) fn take(&mut self, next_hop: &NextHop, limit: RateLimit, now: Instant) -> Result<(), Instant> {
        if let Some(pace) = self.paces.get_mut(next_hop) {
            return pace.take(limit, now);
        }
        if self.paces.len() >= self.sweep_at {
            self.paces.retain(|_, pace| !pace.is_full(now));
            // The next sweep is due when there are twice as many, so that sweeping costs little for each.
            self.sweep_at = self.paces.len().saturating_mul(2).max(PACES_LEAST);
        }
        self.paces.entry(next_hop.clone()).or_insert_with(|| Pace::full(now)).take(limit, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    fn taken(limit: RateLimit, pace: &mut Pace, now: Instant) -> u32 {
        let mut taken = 0;
        while pace.take(limit, now).is_ok() {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_burst_is_one_seconds_worth() {
        let limit = RateLimit { transactions: 5, per: Duration::from_secs(1) };
        let mut pace = Pace::full(at(0));
        assert_eq!(taken(limit, &mut pace, at(0)), 5);
        assert_eq!(pace.take(limit, at(0)), Err(at(200)));
        assert_eq!(taken(limit, &mut pace, at(400)), 2);
        assert_eq!(taken(limit, &mut pace, at(60_000)), 5);
    }

    #[test]
    fn a_slow_rate_lets_one_through_at_a_time() {
        let limit = RateLimit { transactions: 2, per: Duration::from_secs(60) };
        let mut pace = Pace::full(at(0));
        assert_eq!(taken(limit, &mut pace, at(0)), 1);
        assert_eq!(pace.take(limit, at(10_000)), Err(at(30_000)));
        assert_eq!(taken(limit, &mut pace, at(30_000)), 1);
    }
}
