//! New settings while passes are under way.

use alloc::vec::Vec;

use super::{DELIVERY_LIMIT, Deliveries};
use crate::delivery::Delivery;
use crate::dispatcher::books::Books;
use crate::queue::HopId;
use crate::schedule::MIN_RETRY_INTERVAL;
use crate::settings::Settings;

impl Deliveries {
    /// Goes by the settings of the books, which were these before.
    pub(in crate::dispatcher) fn reconfigure(&mut self, books: &mut Books, before: &Settings) {
        let after = &books.settings;
        let now = books.now.monotonic;
        self.resolver.reconfigure(now, after.resolver.clone());
        self.slots.reconfigure(after, DELIVERY_LIMIT);
        let server_end = now + books.rules().interval().max(MIN_RETRY_INTERVAL);
        let rate_end = (after.rate_limit != before.rate_limit).then_some(now);
        self.destinations.shorten_pauses(server_end, rate_end);
        let is_another_talk = talk(before) != talk(after);
        let hops: Vec<HopId> = self.destinations.active().map(|(hop, _)| hop).collect();
        for hop in hops {
            if is_another_talk {
                self.with_delivery(books, hop, Delivery::close);
            } else {
                self.with_delivery(books, hop, Delivery::shorten_rest);
                self.end_surplus_idle(books, hop);
            }
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
            && (self.slots.retire_surplus(connection) || surplus > 0)
        {
            surplus = surplus.saturating_sub(1);
            self.with_delivery(books, hop, |delivery, cx| delivery.quit_connection(cx, connection));
        }
    }
}

/// Returns what the candidates of a pass depend on, and what is said to them.
fn talk(settings: &Settings) -> impl PartialEq + '_ {
    let Settings { announce, ports, ipv4, ipv6, tls_padding, auth_insecure, .. } = settings;
    (announce, ports, ipv4, ipv6, tls_padding, auth_insecure)
}
