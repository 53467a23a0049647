//! Which next hop is worked on next.

use crate::fair_queue::{FairQueue, Prospect};
use crate::queue::HopId;

/// Next hops with ready mail that wait for their turn.
#[derive(Debug)]
pub(super) struct StartQueue {
    /// Those whose delivery begins with a question of DNS, and all others. They take turns, so that what needs no answer never
    /// waits for one.
    dns: FairQueue<HopId>,
    no_dns: FairQueue<HopId>,
    dns_is_next: bool,
}

impl StartQueue {
    pub(super) const fn new() -> Self {
        Self { dns: FairQueue::new(), no_dns: FairQueue::new(), dns_is_next: false }
    }

    /// Gives a next hop a place; one that has a place keeps it, or gets a better one.
    pub(super) fn push(&mut self, hop: HopId, needs_answer: bool, prospect: Prospect) {
        let (queue, other) =
            if needs_answer { (&mut self.dns, &mut self.no_dns) } else { (&mut self.no_dns, &mut self.dns) };
        other.remove(&hop);
        queue.push(hop, prospect);
    }

    /// Takes whose turn it is, without those that begin with a question unless `may_ask_dns`.
    pub(super) fn pop(&mut self, may_ask_dns: bool) -> Option<HopId> {
        self.dns_is_next = may_ask_dns && !self.dns.is_empty() && !self.dns_is_next;
        let first = if self.dns_is_next { self.dns.pop() } else { self.no_dns.pop() };
        first.or_else(|| if may_ask_dns { self.dns.pop() } else { None })
    }

    /// Takes a next hop out.
    pub(super) fn remove(&mut self, hop: HopId) {
        self.dns.remove(&hop);
        self.no_dns.remove(&hop);
    }

    /// Returns how many wait that could be worked on, if there were room.
    pub(super) fn len(&self, may_ask_dns: bool) -> usize {
        self.no_dns.len() + if may_ask_dns { self.dns.len() } else { 0 }
    }

    /// Returns whether a next hop has a place.
    pub(super) fn contains(&self, hop: HopId) -> bool {
        self.dns.contains(&hop) || self.no_dns.contains(&hop)
    }
}
