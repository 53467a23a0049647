//! How the connections and the destinations stand, for monitoring.

use core::net::SocketAddr;

use super::Deliveries;
use super::destination::Waits;
use crate::attempt::Setback;
use crate::dispatcher::{ConnectionCounts, DestinationCounts};
use crate::queue::Queue;
use crate::time::{Duration, Instant};

impl Deliveries {
    /// Returns how many connections there are.
    pub(in crate::dispatcher) fn connection_counts(&self) -> ConnectionCounts {
        let resting = self.destinations.active().map(|(_, pass)| pass.delivery().idle_count()).sum();
        let (connecting, open) = (self.slots.on_trial_count(), self.slots.open_count());
        let busy = open.saturating_sub(connecting + resting);
        ConnectionCounts { connecting, busy, resting, limit: self.slots.limit() }
    }

    /// Returns how many destinations there are.
    pub(in crate::dispatcher) fn destination_counts(&self, queue: &Queue) -> DestinationCounts {
        let (queued, paused) = self.destinations.at_rest();
        let passes = self.destinations.active_count();
        let at_work = self.destinations.active().filter(|(_, pass)| pass.waits() == Waits::No).count();
        let waiting = queued + passes - at_work;
        DestinationCounts { active: at_work, waiting, paused, troubled: queue.failed_hops() }
    }

    /// Returns some addresses that do not answer, with what happened there, and for how long it counts.
    pub(in crate::dispatcher) fn troubles(
        &self,
        now: Instant,
        limit: usize,
    ) -> impl Iterator<Item = (SocketAddr, &Setback, Duration)> {
        self.reachability.troubles(now, limit)
    }
}
