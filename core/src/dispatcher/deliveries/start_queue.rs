//! The order in which next hops begin their passes.

use crate::fair_queue::{FairQueue, Prospect};
use crate::queue::HopId;

/// Next hops with ready mail that wait for their turn.
#[derive(Debug)]
pub(super) struct StartQueue {
    /// Next hops whose delivery begins with a DNS lookup, and all others. They take turns, so that a next hop that needs no
    /// answer never waits for one.
    dns: FairQueue<HopId>,
    no_dns: FairQueue<HopId>,
    dns_is_next: bool,
}

impl StartQueue {
    pub(super) const fn new() -> Self {
        Self { dns: FairQueue::new(), no_dns: FairQueue::new(), dns_is_next: false }
    }

    /// Adds a next hop. One that is queued already keeps its position, or gets a better one.
    pub(super) fn push(&mut self, hop: HopId, needs_answer: bool, prospect: Prospect) {
        let (queue, other) =
            if needs_answer { (&mut self.dns, &mut self.no_dns) } else { (&mut self.no_dns, &mut self.dns) };
        other.remove(&hop);
        queue.push(hop, prospect);
    }

    /// Takes the next one, without those that begin with a lookup unless `may_ask_dns`.
    pub(super) fn pop(&mut self, may_ask_dns: bool) -> Option<HopId> {
        self.dns_is_next = may_ask_dns && !self.dns.is_empty() && !self.dns_is_next;
        let first = if self.dns_is_next { self.dns.pop() } else { self.no_dns.pop() };
        first.or_else(|| if may_ask_dns { self.dns.pop() } else { None })
    }

    /// Removes a next hop.
    pub(super) fn remove(&mut self, hop: HopId) {
        self.dns.remove(&hop);
        self.no_dns.remove(&hop);
    }

    /// Returns how many next hops could begin.
    pub(super) fn len(&self, may_ask_dns: bool) -> usize {
        self.no_dns.len() + if may_ask_dns { self.dns.len() } else { 0 }
    }

    /// Returns whether a next hop is queued.
    pub(super) fn contains(&self, hop: HopId) -> bool {
        self.dns.contains(&hop) || self.no_dns.contains(&hop)
    }
}
