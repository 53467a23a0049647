//! How many connections a destination bears, as it has made known by refusing.
//!
//! A destination that never pushes back has no window: its connections double while mail waits, up to the configured
//! limit. One that does is halved at once, and regains one connection after another with what it takes.

use crate::memory::Memory;
use crate::next_hop::NextHop;
use crate::time::{Duration, Instant};

/// Most destinations whose windows are remembered.
const WINDOWS_LIMIT: usize = 1024;
/// How long a window is remembered in which nothing changes.
const WINDOW_SPAN: Duration = Duration::from_secs(10 * 60);
/// So many mails for each connection that there may be earn one more.
const MAILS_PER_CONNECTION: u32 = 10;
/// The shortest time between two that are earned, however quickly mail is taken.
const GROWTH_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    /// Most connections.
    limit: u32,
    /// How many mails were taken since the limit last changed.
    taken: u32,
    /// When the limit last changed.
    changed_at: Instant,
    /// When it was last cut.
    cut_at: Instant,
}

/// The windows of all destinations that have pushed back lately.
#[derive(Debug)]
pub(super) struct Windows {
    windows: Memory<NextHop, Window>,
}

impl Windows {
    pub(super) const fn new() -> Self {
        Self { windows: Memory::new(WINDOWS_LIMIT) }
    }

    /// Most connections of a destination, as far as it is known.
    pub(super) fn limit(&self, next_hop: &NextHop, now: Instant) -> Option<u32> {
        // The usual case costs nothing.
        if self.windows.is_empty() {
            return None;
        }
        self.windows.recall(next_hop, now).map(|window| window.limit)
    }

    /// The destination has pushed back when there were `connections`, on one that was opened at `opened`.
    pub(super) fn cut(&mut self, next_hop: &NextHop, connections: u32, opened: Instant, now: Instant) {
        let before = self.windows.recall(next_hop, now);
        // Connections from before the last cut say nothing of what it has left.
        if before.is_some_and(|window| opened <= window.cut_at) {
            return;
        }
        let window = Window { limit: connections.div_ceil(2).max(1), taken: 0, changed_at: now, cut_at: now };
        self.windows.keep(next_hop.clone(), window, now + WINDOW_SPAN, now);
    }

    /// The destination has taken a mail.
    pub(super) fn widen(&mut self, next_hop: &NextHop, most: u32, now: Instant) {
        if self.windows.is_empty() {
            return;
        }
        let Some(window) = self.windows.recall(next_hop, now) else { return };
        let mut window = Window { taken: window.taken.saturating_add(1), ..*window };
        let is_earned = window.taken >= window.limit.saturating_mul(MAILS_PER_CONNECTION);
        if is_earned && now >= window.changed_at + GROWTH_INTERVAL {
            (window.limit, window.taken, window.changed_at) = (window.limit.saturating_add(1), 0, now);
        }
        if window.limit >= most {
            self.windows.forget(next_hop);
        } else {
            self.windows.keep(next_hop.clone(), window, now + WINDOW_SPAN, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn next_hop() -> NextHop {
        NextHop::Literal("192.0.2.1".parse().unwrap())
    }

    #[test]
    fn a_window_is_halved_once_by_connections_of_one_time() {
        let mut windows = Windows::new();
        assert_eq!(windows.limit(&next_hop(), at(0)), None);
        windows.cut(&next_hop(), 10, at(1), at(5));
        windows.cut(&next_hop(), 9, at(2), at(6));
        assert_eq!(windows.limit(&next_hop(), at(6)), Some(5));
        windows.cut(&next_hop(), 5, at(6), at(7));
        assert_eq!(windows.limit(&next_hop(), at(7)), Some(3));
        windows.cut(&next_hop(), 1, at(8), at(9));
        assert_eq!(windows.limit(&next_hop(), at(9)), Some(1), "one connection is always allowed");
        assert_eq!(windows.limit(&next_hop(), at(9 + 600)), None, "forgotten");
    }

    #[test]
    fn a_window_grows_by_one_at_a_time_until_it_is_none() {
        let mut windows = Windows::new();
        windows.cut(&next_hop(), 4, at(0), at(0));
        let mut taken = |count: u32, seconds: u64| {
            for _ in 0..count {
                windows.widen(&next_hop(), 4, at(seconds));
            }
            windows.limit(&next_hop(), at(seconds))
        };
        assert_eq!(taken(19, 10), Some(2));
        assert_eq!(taken(1, 10), Some(3));
        assert_eq!(taken(1000, 19), Some(3), "too soon");
        assert_eq!(taken(1, 20), None, "the configured limit is reached");
    }
}
