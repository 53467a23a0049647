//! The rate limit of one destination.

use crate::policy::RateLimit;
use crate::time::{Duration, Instant};

/// A token bucket. Its capacity is what one second brings, and at least one token.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateLimiter {
    /// When the bucket is full again.
    full_at: Instant,
}

impl RateLimiter {
    /// Returns whether the bucket is full.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }

    /// Takes a token. Fails with the time at which there will be one.
    pub(super) fn take(&mut self, limit: RateLimit, now: Instant) -> Result<(), Instant> {
        // What was spent under a lower limit counts no more than a whole burst under this one.
        self.full_at = self.full_at.min(now + burst(limit));
        self.full_at = self.check(limit, now)?;
        Ok(())
    }

    /// Returns when the bucket would be full if a token were taken now. Fails with the time at which there will be one.
    pub(super) fn check(&self, limit: RateLimit, now: Instant) -> Result<Instant, Instant> {
        let (spacing, burst) = (spacing(limit), burst(limit));
        let base = self.full_at.min(now + burst).max(now);
        // With all tokens there, the bucket could be full `burst` ago and still be full now.
        let next_full = base + spacing;
        if next_full > now + burst {
            let wait = next_full.saturating_duration_since(now + burst);
            return Err(now + wait);
        }
        Ok(next_full)
    }
}

/// Returns the time that brings one token.
fn spacing(limit: RateLimit) -> Duration {
    limit.per.checked_div(limit.transactions).unwrap_or(limit.per)
}

/// Returns the time that fills the bucket.
fn burst(limit: RateLimit) -> Duration {
    spacing(limit).max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests;
