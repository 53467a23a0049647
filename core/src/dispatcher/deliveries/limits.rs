//! What a destination bears, and what is left to it of the rate limit. It outlasts the mail of the destination, or mail that comes
//! one by one would be limited by nothing.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use super::rate_limiter::RateLimiter;
use super::window::ConcurrencyWindow;
use crate::next_hop::NextHop;
use crate::settings::RateLimit;
use crate::time::Instant;

/// So many are kept without looking for what can be forgotten.
const SWEEP_LEAST: usize = 1000;
/// Most destinations without mail whose windows are remembered.
const WINDOWS_LIMIT: usize = 1024;

/// The limits of one destination.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Few have one, and there may be many destinations.
    window: Option<Box<ConcurrencyWindow>>,
    rate: RateLimiter,
}

impl Limits {
    /// Returns how many connections there may be, where the configuration allows `most`.
    pub(super) fn connections(&self, most: u32, now: Instant) -> u32 {
        let window = self.window.as_deref().filter(|window| window.counts(now));
        window.map_or(most, |window| window.limit().min(most))
    }

    /// The destination has pushed back when there were `connections`, on one that was opened at `opened`.
    pub(super) fn cut(&mut self, connections: u32, opened: Instant, now: Instant) {
        let window = ConcurrencyWindow::cut(self.window.as_deref().copied(), connections, opened, now);
        self.window = Some(Box::new(window));
    }

    /// The destination has taken a mail.
    pub(super) fn widen(&mut self, most: u32, now: Instant) {
        if let Some(mut window) = self.window.take()
            && let Some(wider) = window.widen(most, now)
        {
            *window = wider;
            self.window = Some(window);
        }
    }

    /// Lets a transaction begin, or says when one may.
    pub(super) fn take_transaction(&mut self, limit: RateLimit, now: Instant) -> Result<(), Instant> {
        self.rate.take(limit, now)
    }

    /// Whether nothing would be lost by forgetting them.
    fn are_at_rest(&self, now: Instant) -> bool {
        self.rate.is_full(now) && !self.window.as_deref().is_some_and(|window| window.counts(now))
    }
}

/// The limits of destinations that have no mail for now.
#[derive(Debug, Default)]
pub(super) struct RememberedLimits {
    limits: BTreeMap<NextHop, Limits>,
    /// With so many, those that are at rest are forgotten.
    sweep_at: usize,
}

impl RememberedLimits {
    /// Takes what is known of a destination that has mail again.
    pub(super) fn take(&mut self, next_hop: &NextHop) -> Limits {
        // The usual case costs nothing.
        if self.limits.is_empty() {
            return Limits::default();
        }
        self.limits.remove(next_hop).unwrap_or_default()
    }

    /// Remembers the limits of a destination for as long as they count. A window is no promise: if there are too many, it goes.
    pub(super) fn keep(&mut self, next_hop: &NextHop, limits: Limits, now: Instant) {
        if limits.are_at_rest(now) {
            return;
        }
        if self.limits.len() >= self.sweep_at {
            self.limits.retain(|_, limits| !limits.are_at_rest(now));
            // The next sweep is due when there are twice as many, so that sweeping costs little for each.
            self.sweep_at = self.limits.len().saturating_mul(2).max(SWEEP_LEAST);
        }
        if self.limits.len() < WINDOWS_LIMIT || !limits.rate.is_full(now) {
            self.limits.insert(next_hop.clone(), limits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn next_hop(number: usize) -> NextHop {
        NextHop::Literal([192, 0, (number >> 8) as u8, number as u8].into())
    }

    #[test]
    fn a_window_is_halved_once_by_connections_of_one_time() {
        let mut limits = Limits::default();
        assert_eq!(limits.connections(99, at(0)), 99);
        limits.cut(10, at(1), at(5));
        limits.cut(9, at(2), at(6));
        assert_eq!(limits.connections(99, at(6)), 5);
        assert_eq!(limits.connections(3, at(6)), 3, "no more than the configuration allows");
        limits.cut(5, at(6), at(7));
        assert_eq!(limits.connections(99, at(7)), 3);
        limits.cut(1, at(8), at(9));
        assert_eq!(limits.connections(99, at(9)), 1, "one connection is always allowed");
        assert_eq!(limits.connections(99, at(9 + 600)), 99, "forgotten");
    }

    #[test]
    fn a_window_grows_by_one_at_a_time_until_there_is_none() {
        let mut limits = Limits::default();
        limits.cut(4, at(0), at(0));
        let mut taken = |count: u32, seconds: u64| {
            for _ in 0..count {
                limits.widen(4, at(seconds));
            }
            limits.connections(4, at(seconds))
        };
        assert_eq!(taken(19, 10), 2);
        assert_eq!(taken(1, 10), 3);
        assert_eq!(taken(1000, 19), 3, "too soon");
        assert_eq!(taken(1, 20), 4, "the configured limit is reached");
        assert!(limits.window.is_none());
    }

    #[test]
    fn what_a_destination_has_used_up_outlasts_its_mail_until_it_does_not_count() {
        let limit = RateLimit { transactions: 1, per: Duration::from_secs(60) };
        let mut remembered = RememberedLimits::default();
        let mut limits = remembered.take(&next_hop(1));
        limits.take_transaction(limit, at(0)).unwrap();
        remembered.keep(&next_hop(1), limits, at(1));
        let mut limits = remembered.take(&next_hop(1));
        assert_eq!(limits.take_transaction(limit, at(1)), Err(at(60)));
        remembered.keep(&next_hop(1), limits, at(61));
        assert!(remembered.limits.is_empty());
    }

    #[test]
    fn windows_are_remembered_up_to_a_limit_and_rates_without_one() {
        let limit = RateLimit { transactions: 1, per: Duration::from_secs(3600) };
        let mut remembered = RememberedLimits::default();
        let mut keep = |number: usize, is_rate: bool| {
            let mut limits = Limits::default();
            if is_rate {
                limits.take_transaction(limit, at(0)).unwrap();
            } else {
                limits.cut(2, at(0), at(0));
            }
            remembered.keep(&next_hop(number), limits, at(1));
            remembered.limits.len()
        };
        let kept = (0..2 * WINDOWS_LIMIT).map(|number| keep(number, false)).max();
        assert_eq!(kept, Some(WINDOWS_LIMIT));
        assert_eq!(keep(usize::from(u16::MAX), true), WINDOWS_LIMIT + 1);
    }
}
