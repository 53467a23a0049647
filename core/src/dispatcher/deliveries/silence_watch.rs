//! Closes connections to silent servers when others need their slots.
//!
//! A conversation may take minutes without a word from the server (RFC 5321 section 4.5.3.2), and there may be more such servers
//! than slots. So if slots are short, the connection that has been silent for the longest time is closed. That is not a failure:
//! its mail goes on to other candidates, and returns to the server when all others were tried, over one connection that may take
//! all the time that the timeouts allow. Such last resorts never take all slots.

use alloc::vec::Vec;

use super::{DELIVERY_LIMIT, Deliveries};
use crate::dispatcher::books::Books;
use crate::event::Event;
use crate::fair_queue::Prospect;
use crate::io::ConnectionId;
use crate::queue::HopId;
use crate::time::{Duration, Instant};

/// Shortest silence after which a connection is closed for others: as long as a server has to accept the connection. Servers that
/// delay clients on purpose mostly do so for less.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// Shortest time between two searches for silent connections, because each looks at all of them.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The timer of the search for silent connections.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SilenceWatch {
    next_check: Instant,
    /// True if a slot is needed.
    slots_are_short: bool,
}

impl SilenceWatch {
    /// Returns when to search, if a slot is needed.
    pub(super) fn next_check(self) -> Option<Instant> {
        self.slots_are_short.then_some(self.next_check)
    }

    /// Stops searching: no more slots are given.
    pub(super) fn end(&mut self) {
        self.slots_are_short = false;
    }
}

impl Deliveries {
    /// Closes a connection as if others needed its slot, if its server owes a reply.
    pub(in crate::dispatcher) fn give_up(&mut self, books: &mut Books, connection: ConnectionId) {
        let silent = self.silent_connections().into_iter().find(|&(_, _, silent)| silent == connection);
        let Some((since, hop, _)) = silent else { return };
        let silence = books.now.monotonic.saturating_duration_since(since);
        self.give_up_silent(books, hop, connection, silence);
    }

    /// Closes the connections that have been silent for the longest time, as many as slots are needed. Returns whether it closed
    /// any.
    pub(super) fn close_silent_connections(&mut self, books: &mut Books) -> bool {
        let now = books.now.monotonic;
        let mut wanted = self.connections_wanted().max(self.deliveries_wanted());
        self.silence_watch.slots_are_short = wanted > 0 || self.slots.waiting_for_hosts_count() > 0;
        if self.silence_watch.next_check().is_none_or(|at| now < at) {
            return false;
        }
        let silent = self.silent_connections();
        let overdue =
            silent.iter().position(|&(since, ..)| since + SILENCE_LIMIT > now).unwrap_or(silent.len());
        let mut given_up = 0;
        for &(since, hop, connection) in silent.iter().take(overdue) {
            if wanted > 0 || self.is_needed_at_host(books, connection) {
                wanted = wanted.saturating_sub(1);
                given_up += 1;
                self.give_up_silent(books, hop, connection, now.saturating_duration_since(since));
            }
        }
        let next = match silent.get(overdue) {
            // One of these may be needed at any time.
            _ if given_up < overdue => now,
            Some(&(since, ..)) => since + SILENCE_LIMIT,
            None => now + SILENCE_LIMIT,
        };
        let (probes, next_probe) = self.end_silent_probes(books, wanted > 0, SILENCE_LIMIT);
        let next = next_probe.map_or(next, |at| next.min(at));
        self.silence_watch.next_check = next.max(now + CHECK_INTERVAL);
        given_up + probes > 0
    }

    /// Returns how many deliveries cannot proceed because no slot is free.
    fn connections_wanted(&self) -> usize {
        let waiting = self.slots.waiting_count();
        let is_short = !self.slots.has_slot() && waiting > 0;
        let wanted = if is_short { self.slots.in_the_way_of(waiting) } else { 0 };
        wanted.saturating_sub(self.destinations.wait_lists().sent_off())
    }

    /// Returns how many next hops cannot be worked on because of the limit of deliveries.
    pub(super) fn deliveries_wanted(&self) -> usize {
        let waiting = self.destinations.queued(self.may_ask());
        if waiting == 0 || self.has_room_for_delivery() {
            return 0;
        }
        (self.at_work() + waiting).saturating_sub(DELIVERY_LIMIT)
    }

    /// Records that the server of a delivery has decided mail.
    pub(super) fn note_verdict(&mut self, hop: HopId) {
        // The usual case costs nothing.
        if !self.reachability.knows_slow_ones() && self.slots.unproven_last_resorts() == 0 {
            return;
        }
        let Some(remote) = self.candidate_of(hop).map(|candidate| candidate.remote) else { return };
        self.slots.prove_useful(remote);
        if self.reachability.note_verdict(remote) {
            self.slots.announce_news(remote);
        }
    }

    /// Returns the connections whose servers owe a reply and have decided nothing, the longest silence first.
    fn silent_connections(&self) -> Vec<(Instant, HopId, ConnectionId)> {
        // Of the last resorts only those that are too many since the limit was lowered.
        let mut surplus = self.slots.surplus_last_resorts();
        let mut may_yield = |connection| match self.slots.connection(connection) {
            Some(open) if !open.is_last_resort => true,
            Some(open) if open.is_unproven_last_resort() && surplus > 0 => {
                surplus -= 1;
                true
            }
            Some(_) | None => false,
        };
        let mut silent: Vec<_> = self
            .destinations
            .active()
            .flat_map(|(hop, pass)| {
                pass.delivery().silent_connections().map(move |(since, connection)| (since, hop, connection))
            })
            .collect();
        silent.sort_unstable();
        silent.retain(|&(_, _, connection)| may_yield(connection));
        silent
    }

    /// Returns whether a delivery waits for the address of this connection, and cannot connect because of the connections that
    /// exist.
    fn is_needed_at_host(&self, books: &Books, connection: ConnectionId) -> bool {
        let Some(open) = self.slots.connection(connection) else { return false };
        self.slots.has_waiters(open.remote)
            && open
                .hop()
                .and_then(|hop| self.candidate_of(hop))
                .is_some_and(|candidate| !self.has_slot_for(books, candidate))
    }

    fn give_up_silent(&mut self, books: &mut Books, hop: HopId, connection: ConnectionId, silence: Duration) {
        let Some(remote) = self.slots.connection(connection).map(|open| open.remote) else { return };
        books.event(Event::Yielded { connection, remote, silence });
        self.reachability.note_slowness(remote, books.now.monotonic);
        self.slots.announce_news(remote);
        books.queue.note_attempt(hop, Prospect::Failed);
        self.with_delivery(books, hop, |delivery, cx| delivery.yield_connection(cx, connection));
        self.drain_deliveries(books);
    }
}
