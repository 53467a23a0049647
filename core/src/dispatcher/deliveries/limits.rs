//! The limits of a destination: its concurrency window, and what is left of its rate limit. They outlast the mail of the
//! destination, since otherwise mail that arrives one by one would not be limited at all.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use super::rate_limiter::RateLimiter;
use super::window::ConcurrencyWindow;
use crate::next_hop::NextHop;
use crate::policy::RateLimit;
use crate::time::Instant;

/// With fewer than this, expired limits are not looked for.
const SWEEP_LEAST: usize = 1000;
/// Most destinations without mail whose windows are remembered.
const WINDOWS_LIMIT: usize = 1024;

/// The limits of one destination.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Boxed, because few of many destinations have one.
    window: Option<Box<ConcurrencyWindow>>,
    rate: RateLimiter,
}

impl Limits {
    /// Returns the most connections that there may be, where the configuration allows `most`.
    pub(super) fn connections(&self, most: u32, now: Instant) -> u32 {
        let window = self.window.as_deref().filter(|window| window.counts(now));
        window.map_or(most, |window| window.limit().min(most))
    }

    /// Narrows the window, because the destination pushed back when there were `connections`, on one that was opened at `opened`.
    pub(super) fn cut(&mut self, connections: u32, opened: Instant, now: Instant) {
        let window = ConcurrencyWindow::cut(self.window.as_deref().copied(), connections, opened, now);
        self.window = Some(Box::new(window));
    }

    /// Widens the window, because the destination has taken a mail.
    pub(super) fn widen(&mut self, most: u32, now: Instant) {
        if let Some(mut window) = self.window.take()
            && let Some(wider) = window.widen(most, now)
        {
            *window = wider;
            self.window = Some(window);
        }
    }

    /// Takes permission for one transaction. Fails with the time at which the next may begin.
    pub(super) fn take_transaction(&mut self, limit: RateLimit, now: Instant) -> Result<(), Instant> {
        self.rate.take(limit, now)
    }

    /// Returns when the next transaction may begin, if that is not now.
    pub(super) fn next_transaction(&self, limit: RateLimit, now: Instant) -> Option<Instant> {
        self.rate.check(limit, now).err()
    }

    /// Returns whether forgetting them would lose nothing.
    fn are_at_rest(&self, now: Instant) -> bool {
        self.rate.is_full(now) && !self.window.as_deref().is_some_and(|window| window.counts(now))
    }
}

/// The limits of destinations that have no mail for now.
#[derive(Debug, Default)]
pub(super) struct RememberedLimits {
    limits: BTreeMap<NextHop, Limits>,
    /// The number at which expired limits are looked for.
    sweep_at: usize,
}

impl RememberedLimits {
    /// Takes the limits of a destination that has mail again.
    pub(super) fn take(&mut self, next_hop: &NextHop) -> Limits {
        // The usual case costs nothing.
        if self.limits.is_empty() {
            return Limits::default();
        }
        self.limits.remove(next_hop).unwrap_or_default()
    }

    /// Returns the limits of a destination without mail.
    pub(super) fn find(&self, next_hop: &NextHop) -> Option<&Limits> {
        self.limits.get(next_hop)
    }

    /// Remembers the limits of a destination for as long as they count. If there are too many, a window is forgotten.
    pub(super) fn keep(&mut self, next_hop: &NextHop, limits: Limits, now: Instant) {
        if limits.are_at_rest(now) {
            return;
        }
        if self.limits.len() >= self.sweep_at {
            self.limits.retain(|_, limits| !limits.are_at_rest(now));
            // The next sweep is due when the number has doubled, so that the cost of sweeping stays small for each.
            self.sweep_at = self.limits.len().saturating_mul(2).max(SWEEP_LEAST);
        }
        if self.limits.len() < WINDOWS_LIMIT || !limits.rate.is_full(now) {
            self.limits.insert(next_hop.clone(), limits);
        }
    }
}

#[cfg(test)]
mod tests;
