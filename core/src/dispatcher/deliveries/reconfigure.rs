//! New settings, and new watchers, while passes are under way.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{DELIVERY_LIMIT, Deliveries};
use crate::delivery::Delivery;
use crate::dispatcher::books::Books;
use crate::policy::Policies;
use crate::queue::HopId;
use crate::route::Candidate;
use crate::schedule::MIN_RETRY_INTERVAL;
use crate::settings::Settings;
use crate::watch::Watch;

impl Deliveries {
    /// Goes by the settings of the books, which were these before.
    pub(in crate::dispatcher) fn reconfigure(&mut self, books: &mut Books, before: &Settings) {
        let after = &books.config.settings;
        let now = books.now.monotonic;
        self.resolver.reconfigure(now, after.resolver.clone());
        self.slots.reconfigure(after.concurrency, DELIVERY_LIMIT);
        self.reconfigure_policies(books);
        let server_end = now + books.rules().interval().max(MIN_RETRY_INTERVAL);
        let rate_end =
            (Policies::new(&before.policy, &before.destinations) != books.config.policies).then_some(now);
        self.destinations.shorten_pauses(server_end, rate_end);
        self.destinations.reconfigure(&books.queue, &books.config.policies);
        let is_another_talk = talk(before) != talk(after);
        let hops: Vec<HopId> = self.destinations.active().map(|(hop, _)| hop).collect();
        for &hop in &hops {
            if is_another_talk {
                self.with_delivery(books, hop, Delivery::close);
            } else {
                self.with_delivery(books, hop, Delivery::reconfigure);
            }
            if let Some(Candidate { remote, policy, .. }) =
                self.destinations.delivery(hop).and_then(Delivery::candidate)
            {
                self.slots.note_limit(*remote, policy.host_concurrency);
            }
        }
        hops.into_iter().for_each(|hop| self.end_surplus_idle(books, hop));
        self.end_outdated_probes(books);
    }

    /// Tells the conversations that this covers.
    pub(in crate::dispatcher) fn watch(&mut self, books: &Books, watch: Watch) {
        self.watch = watch;
        let hops: Vec<HopId> = self.destinations.active().map(|(hop, _)| hop).collect();
        for hop in hops {
            self.with_delivery(books, hop, Delivery::update_told);
        }
    }

    /// Ends connections without work that are above a limit. One that has work ends when it asks for more.
    fn end_surplus_idle(&mut self, books: &Books, hop: HopId) {
        let limit = self.connection_limit(books, hop);
        let mut surplus = self
            .destinations
            .delivery(hop)
            .map_or(0, |delivery| delivery.connection_count().saturating_sub(limit));
        while let Some((_, connection)) = self.destinations.delivery(hop).and_then(Delivery::first_idle)
            // A connection that ends for its destination counts for the other limits too.
            && (self.retire_surplus(hop, connection) || surplus > 0)
        {
            surplus = surplus.saturating_sub(1);
            self.with_delivery(books, hop, |delivery, cx| delivery.quit_connection(cx, connection));
        }
    }
}

/// Returns what is said to all candidates, and whom it is believed who they are.
fn talk(settings: &Settings) -> impl PartialEq + '_ {
    let servers = settings.resolver.servers.iter();
    let believed: Vec<SocketAddr> =
        servers.filter(|server| server.is_believed).map(|server| server.address).collect();
    (&settings.announce, settings.auth_insecure, believed)
}
