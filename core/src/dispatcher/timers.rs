//! One timer for each next hop.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::queue::HopId;
use crate::time::Instant;

/// Times by next hop, and the same in their order.
#[derive(Debug, Default)]
pub(super) struct HopTimers {
    by_hop: BTreeMap<HopId, Instant>,
    by_time: BTreeSet<(Instant, HopId)>,
}

impl HopTimers {
    /// Sets the timer of a next hop, or takes it away.
    pub(super) fn set(&mut self, hop: HopId, at: Option<Instant>) {
        if let Some(old) = self.by_hop.remove(&hop) {
            self.by_time.remove(&(old, hop));
        }
        if let Some(at) = at {
            self.by_hop.insert(hop, at);
            self.by_time.insert((at, hop));
        }
    }

    pub(super) fn contains(&self, hop: HopId) -> bool {
        self.by_hop.contains_key(&hop)
    }

    /// The timer that comes first.
    pub(super) fn first(&self) -> Option<(Instant, HopId)> {
        self.by_time.first().copied()
    }

    /// Takes away a timer whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<HopId> {
        let (_, hop) = self.first().filter(|&(at, _)| at <= now)?;
        self.set(hop, None);
        Some(hop)
    }

    /// Takes away all timers.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = HopId> + use<> {
        self.by_time.clear();
        core::mem::take(&mut self.by_hop).into_keys()
    }
}
