//! How many connections a destination bears, as it has made known by refusing.
//!
//! A destination that never pushes back has no window: its connections double while mail waits, up to the configured
//! limit. One that does is halved at once, and regains one connection after another with what it takes.

use crate::time::{Duration, Instant};

/// How long a window is remembered in which nothing changes.
const WINDOW_SPAN: Duration = Duration::from_secs(10 * 60);
/// So many mails for each connection that there may be earn one more.
const MAILS_PER_CONNECTION: u32 = 10;
/// The shortest time between two that are earned, however quickly mail is taken.
const GROWTH_INTERVAL: Duration = Duration::from_secs(10);

/// The window of a destination that has pushed back lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConcurrencyWindow {
    /// Most connections.
    limit: u32,
    /// How many mails were taken since the limit last changed.
    taken: u32,
    /// When the limit last changed.
    changed_at: Instant,
    /// When it was last cut.
    cut_at: Instant,
    /// Until when it counts.
    until: Instant,
}

impl ConcurrencyWindow {
    /// The destination has pushed back when there were `connections`, on one that was opened at `opened`. Returns the window that
    /// it has from then on.
    pub(super) fn cut(before: Option<Self>, connections: u32, opened: Instant, now: Instant) -> Self {
        match before.filter(|window| window.counts(now)) {
            // Connections from before the last cut say nothing of what it has left.
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

    /// Returns whether it still limits anything.
    pub(super) fn counts(&self, now: Instant) -> bool {
        self.until > now
    }

    /// Returns how many connections there may be at most.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// The destination has taken a mail. Returns the window that it has then, if it still has one below `most`.
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
