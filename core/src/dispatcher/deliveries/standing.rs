//! How the connections and the destinations stand, for monitoring.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::SocketAddr;

use super::Deliveries;
use super::destination::Waits;
use crate::attempt::Setback;
use crate::dispatcher::{ConnectionCounts, DestinationCounts, SlowHost};
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

    /// Returns the servers that have been waited for the longest time, at least as long as `least`: how many connections wait for each,
    /// and what the slowest of them waits for.
    pub(in crate::dispatcher) fn slow_hosts(
        &self,
        now: Instant,
        least: Duration,
        limit: usize,
    ) -> Vec<SlowHost> {
        let mut slow: BTreeMap<SocketAddr, SlowHost> = BTreeMap::new();
        let debts = self.destinations.active().flat_map(|(_, pass)| pass.delivery().debts());
        for (candidate, owed, since) in debts {
            let waiting = now.saturating_duration_since(since);
            if waiting < least {
                continue;
            }
            let host = slow.entry(candidate.remote).or_insert_with(|| SlowHost {
                remote: candidate.remote,
                host: candidate.host.clone(),
                connections: 0,
                owed,
                waiting: Duration::ZERO,
            });
            host.connections += 1;
            if waiting > host.waiting {
                (host.owed, host.waiting) = (owed, waiting);
            }
        }
        let mut slow: Vec<SlowHost> = slow.into_values().collect();
        slow.sort_by_key(|host| Reverse(host.waiting));
        slow.truncate(limit);
        slow
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
