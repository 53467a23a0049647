//! Servers that say nothing hold no place that somebody else needs.
//!
//! A conversation may take minutes without a word from the server (RFC 5321 section 4.5.3.2), and there may be more such
//! servers than places. So where places are short, the connection that has been silent for the longest time is closed.
//! Nothing has failed by that: its mail goes on, and comes back to the server when all others were tried, over one
//! connection that gets all the time there is. There are never so many of those that they take all places.

use alloc::vec::Vec;

use super::{DELIVERY_LIMIT, Deliveries};
use crate::dispatcher::books::Books;
use crate::event::Event;
use crate::fair_queue::Prospect;
use crate::io::ConnectionId;
use crate::queue::HopId;
use crate::time::{Duration, Instant};

/// How long a server may be silent at least while others wait for the place of its connection: as long as it has for taking
/// the connection. Servers that let clients wait on purpose mostly do so for less.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// How often it is scanned for silent connections at most: all of them are scanned at.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// When to look for connections that are silent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SilenceWatch {
    next_check: Instant,
    /// True if somebody needs a place.
    slots_are_short: bool,
}

impl SilenceWatch {
    /// Returns when to look, if somebody needs a place.
    pub(super) fn next_check(self) -> Option<Instant> {
        self.slots_are_short.then_some(self.next_check)
    }

    /// Nobody gets a place any more.
    pub(super) fn end(&mut self) {
        self.slots_are_short = false;
    }
}

impl Deliveries {
    /// Gives up a connection as if others needed its place, unless its server owes no word.
    pub(in crate::dispatcher) fn give_up(&mut self, books: &mut Books, connection: ConnectionId) {
        let silent = self.silent_connections().into_iter().find(|&(_, _, silent)| silent == connection);
        let Some((since, hop, _)) = silent else { return };
        let silence = books.now.monotonic.saturating_duration_since(since);
        self.give_up_silent(books, hop, connection, silence);
    }

    /// Closes connections that have been silent for the longest time, as many as there are places wanted; returns whether any.
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
            // Somebody may come who needs one of these.
            _ if given_up < overdue => now,
            Some(&(since, ..)) => since + SILENCE_LIMIT,
            None => now + SILENCE_LIMIT,
        };
        self.silence_watch.next_check = next.max(now + CHECK_INTERVAL);
        given_up > 0
    }

    /// Returns how many deliveries cannot go on because there are no more connections to be had.
    fn connections_wanted(&self) -> usize {
        let wanted = if self.slots.has_slot() { 0 } else { self.slots.waiting_count() };
        wanted.saturating_sub(self.destinations.wait_lists().sent_off())
    }

    /// Returns how many next hops cannot be worked on because so many others are.
    pub(super) fn deliveries_wanted(&self) -> usize {
        let waiting = self.destinations.queued(self.may_ask());
        if waiting == 0 || self.has_room_for_delivery() {
            return 0;
        }
        (self.at_work() + waiting).saturating_sub(DELIVERY_LIMIT)
    }

    /// The server that a delivery is connected to has decided mail.
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

    /// Returns the connections whose servers owe a word and have decided nothing, those first that have been silent for longest.
    fn silent_connections(&self) -> Vec<(Instant, HopId, ConnectionId)> {
        let may_yield = |connection| {
            let open = self.slots.connection(connection);
            open.is_some_and(|open| !open.is_last_resort)
        };
        let mut silent: Vec<_> = self
            .destinations
            .active()
            .flat_map(|(hop, pass)| {
                pass.delivery().silent_connections().map(move |(since, connection)| (since, hop, connection))
            })
            .filter(|&(_, _, connection)| may_yield(connection))
            .collect();
        silent.sort_unstable();
        silent
    }

    /// Returns whether somebody waits for the address that a connection leads to, and cannot connect because of those that there
    /// are.
    fn is_needed_at_host(&self, books: &Books, connection: ConnectionId) -> bool {
        let Some(open) = self.slots.connection(connection) else { return false };
        self.slots.has_waiters(open.remote)
            && self.candidate_of(open.hop).is_some_and(|candidate| !self.has_slot_for(books, candidate))
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
