//! The number of connections that a destination tolerates, as its refusals have shown.
//!
//! A destination that never pushes back has no window: its connections double while mail waits, up to the configured limit. One
//! that does is halved at once, and regains one connection after another as it takes mail.

use crate::time::{Duration, Instant};

/// Time after which an unchanged window is forgotten.
const WINDOW_SPAN: Duration = Duration::from_secs(10 * 60);
/// This many mails for each allowed connection earn one more.
const MAILS_PER_CONNECTION: u32 = 10;
/// Shortest time between two earned connections, however quickly mail is taken.
const GROWTH_INTERVAL: Duration = Duration::from_secs(10);

/// The window of a destination that has pushed back lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConcurrencyWindow {
    /// Most connections.
    limit: u32,
    /// The number of mails taken since the limit last changed.
    taken: u32,
    /// The time at which the limit last changed.
    changed_at: Instant,
    /// The time of the last cut.
    cut_at: Instant,
    /// The time until which the window counts.
    until: Instant,
}

impl ConcurrencyWindow {
    /// Halves the window, because the destination pushed back when there were `connections`, on one that was opened at `opened`.
    /// Returns the new window.
    pub(super) fn cut(before: Option<Self>, connections: u32, opened: Instant, now: Instant) -> Self {
        match before.filter(|window| window.counts(now)) {
            // Connections from before the last cut do not tell what the destination tolerates now.
            Some(window) if opened <= window.cut_at => window,
            Some(_) | None => Self {
                limit: connections.div_ceil(2).max(1),
                taken: 0,
                changed_at: now,
                cut_at: now,
                until: now + WINDOW_SPAN,
            },
        }
    }

    /// Returns whether the window still limits anything.
    pub(super) fn counts(&self, now: Instant) -> bool {
        self.until > now
    }

    /// Returns the most connections that there may be.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Counts a mail that the destination has taken. Returns the new window, if it is still below `most`.
    pub(super) fn widen(mut self, most: u32, now: Instant) -> Option<Self> {
        if !self.counts(now) {
            return None;
        }
        self.taken = self.taken.saturating_add(1);
        let is_earned = self.taken >= self.limit.saturating_mul(MAILS_PER_CONNECTION);
        if is_earned && now >= self.changed_at + GROWTH_INTERVAL {
            (self.limit, self.taken, self.changed_at) = (self.limit.saturating_add(1), 0, now);
        }
        self.until = now + WINDOW_SPAN;
        Some(self).filter(|window| window.limit < most)
    }
}
