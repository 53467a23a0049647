//! Assertions about destinations and connections.

use alloc::collections::BTreeMap;

use super::Deliveries;
use super::destination::{Pass, Waits};
use super::policy_desk::Asker;
use crate::delivery::Delivery;
use crate::dispatcher::books::Books;
use crate::dispatcher::check::OpenRequests;
use crate::io::ConnectionId;
use crate::outbox::MailId;
use crate::queue::HopId;

impl Deliveries {
    /// Returns the number of destinations to check.
    pub(in crate::dispatcher) fn size(&self) -> usize {
        self.destinations.len()
    }

    /// Returns the mail that connections work on, or that waits for one.
    pub(in crate::dispatcher) fn undecided(&self) -> impl Iterator<Item = MailId> {
        self.destinations.active().flat_map(|(_, pass)| pass.delivery().undecided())
    }

    /// Returns whether nothing is left of any destination.
    #[cfg(test)]
    pub(in crate::dispatcher) fn is_at_rest(&self) -> bool {
        self.destinations.len() == 0
            && self.slots.is_at_rest()
            && self.recall.is_idle()
            && self.silence_watch.next_check().is_none()
            && self.resolver.is_idle()
            && self.directory.policies.is_idle()
    }

    #[track_caller]
    pub(in crate::dispatcher) fn check(&self, books: &Books, open: &OpenRequests) {
        self.destinations.check(&books.queue, &open.claims);
        self.slots.check();
        self.flights.check();
        let in_passes: BTreeMap<ConnectionId, HopId> = self
            .destinations
            .active()
            .flat_map(|(hop, pass)| pass.connections().ids().map(move |connection| (connection, hop)))
            .collect();
        let slots: BTreeMap<ConnectionId, HopId> = self.slots.connections().collect();
        assert_eq!(in_passes, slots, "each connection belongs to a pass, and has its place");
        let of_probes = self.slots.open_count() - slots.len();
        assert_eq!(of_probes, self.probe_connection_count(), "connections of probes");
        let mut waiting = [0, 0];
        for (hop, pass) in self.destinations.active() {
            self.check_pass(hop, pass);
            waiting[0] += usize::from(pass.waits() == Waits::ForConnection);
            waiting[1] += usize::from(matches!(pass.waits(), Waits::ForHost(_)));
        }
        let wait_lists = [self.slots.waiting_count(), self.slots.waiting_for_hosts_count()];
        assert_eq!(waiting, wait_lists, "who waits is in one line");
        assert_eq!(self.recall.is_asked(), open.recalls == 1, "mail that fails is read once");
        assert!(open.recalls <= 1, "mail that fails is read in one part at a time");
    }

    #[track_caller]
    fn check_pass(&self, hop: HopId, pass: &Pass) {
        let waits = pass.waits();
        assert_eq!(waits == Waits::ForConnection, self.slots.is_waiting(hop), "{hop:?} waits: {waits:?}");
        if let Waits::ForHost(remote) = waits {
            assert!(self.slots.is_waiting_for_host(remote, hop), "{hop:?} waits: {waits:?}");
        }
        let delivery: &Delivery = pass.delivery();
        assert!(!delivery.is_over(), "{hop:?} is over");
        let is_asking = matches!(waits, Waits::ForDns(_) | Waits::ForPolicy);
        assert_eq!(delivery.is_looking_up(), is_asking, "{hop:?} waits for name servers, or for a policy");
        let is_asker = self.directory.policies.is_waiting(Asker::Destination(hop));
        assert_eq!(is_asker, waits == Waits::ForPolicy, "{hop:?} waits: {waits:?}");
        assert_eq!(delivery.connection_count(), pass.connections().ids().count(), "connections of {hop:?}");
    }
}
