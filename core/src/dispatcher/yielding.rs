//! Servers that say nothing hold no place that somebody else needs.
//!
//! A conversation may take minutes without a word from the server (RFC 5321 section 4.5.3.2), and there may be more such
//! servers than places. So where places are short, the connection that has been silent for the longest time is closed.
//! Nothing has failed by that: its mail goes on, and comes back to the server when all others were tried, over one
//! connection that gets all the time there is. There are never so many of those that they take all places.

use alloc::format;
use alloc::vec::Vec;

use super::Dispatcher;
use super::slots::size;
use super::traffic::DELIVERY_LIMIT;
use crate::delivery::Delivery;
use crate::event::Event;
use crate::io::ConnectionId;
use crate::queue::HopId;
use crate::route::Candidate;
use crate::time::{Duration, Instant};
use crate::turns::Prospect;

/// How long a server may be silent at least while others wait for the place of its connection: as long as it has for taking
/// the connection. Servers that let clients wait on purpose mostly do so for less.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked for silent connections at most: all of them are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The part of all places that last resorts may have: one in so many.
const PATIENT_PART: usize = 2;

impl Dispatcher {
    /// Closes connections that have been silent for the longest time, as many as there are places wanted; whether any.
    pub(super) fn end_silence(&mut self) -> bool {
        let now = self.now.monotonic;
        let mut wanted = self.connections_wanted().max(self.deliveries_wanted());
        self.traffic.is_short = wanted > 0 || self.traffic.gates.waiting_count() > 0;
        if !self.traffic.is_short || now < self.traffic.next_silence_check {
            return false;
        }
        let silent = self.silent_connections();
        let overdue = silent.iter().position(|&(since, ..)| since + PATIENCE > now).unwrap_or(silent.len());
        let mut given_up = 0;
        for &(since, hop, connection) in silent.iter().take(overdue) {
            if wanted > 0 || self.is_needed_at_host(connection) {
                wanted = wanted.saturating_sub(1);
                given_up += 1;
                self.give_up_silent(hop, connection, now.saturating_duration_since(since));
            }
        }
        let next = match silent.get(overdue) {
            // Somebody may come who needs one of these.
            _ if given_up < overdue => now,
            Some(&(since, ..)) => since + PATIENCE,
            None => now + PATIENCE,
        };
        self.traffic.next_silence_check = next.max(now + CHECK_INTERVAL);
        given_up > 0
    }

    /// How many deliveries cannot go on because there are no more connections to be had.
    fn connections_wanted(&self) -> usize {
        let wanted = if self.has_free_connection() { 0 } else { self.traffic.waiting.len() };
        wanted.saturating_sub(self.traffic.leaving.len())
    }

    /// How many next hops cannot be worked on because so many others are.
    pub(super) fn deliveries_wanted(&self) -> usize {
        let waiting = self.traffic.lineup.len(self.traffic.may_ask());
        if waiting == 0 || self.traffic.has_room_for_delivery() {
            return 0;
        }
        (self.traffic.at_work() + waiting).saturating_sub(DELIVERY_LIMIT)
    }

    /// Whether a connection is a last resort: it gets all the time there is, and is never asked to yield.
    pub(super) fn is_last_resort(&self, hop: HopId, candidate: &Candidate) -> bool {
        self.traffic.deliveries.get(&hop).is_some_and(Delivery::is_at_last_resorts)
            || self.traffic.reachability.is_in_trouble(candidate, self.now.monotonic)
    }

    /// Whether there may be one more last resort.
    pub(super) fn may_be_patient(&self) -> bool {
        self.traffic.gates.patient_count() < self.patient_limit()
    }

    /// Most last resorts at once: not all places may be theirs.
    pub(super) fn patient_limit(&self) -> usize {
        size(self.settings.concurrency).min(DELIVERY_LIMIT).div_ceil(PATIENT_PART)
    }

    /// The server that a delivery is connected to has decided mail.
    pub(super) fn note_verdict(&mut self, hop: HopId) {
        // The usual case costs nothing.
        if !self.traffic.reachability.knows_slow_ones() && self.traffic.gates.patient_count() == 0 {
            return;
        }
        let Some(remote) = self.candidate_of(hop).map(|candidate| candidate.remote) else { return };
        self.traffic.gates.prove_useful(remote);
        if self.traffic.reachability.note_verdict(remote) {
            self.traffic.gates.announce_news(remote);
        }
    }

    /// The connections whose servers owe a word and have decided nothing, those first that have been silent for longest.
    fn silent_connections(&self) -> Vec<(Instant, HopId, ConnectionId)> {
        let may_yield = |connection| {
            let open = self.traffic.gates.connection(connection);
            open.is_some_and(|open| !open.is_patient)
        };
        let mut silent: Vec<_> = self
            .traffic
            .deliveries
            .iter()
            .flat_map(|(&hop, delivery)| {
                delivery.silent_lanes().map(move |(since, connection)| (since, hop, connection))
            })
            .filter(|&(_, _, connection)| may_yield(connection))
            .collect();
        silent.sort_unstable();
        silent
    }

    /// Whether somebody waits for the address that a connection leads to, and cannot connect because of those that there are.
    fn is_needed_at_host(&self, connection: ConnectionId) -> bool {
        let Some(open) = self.traffic.gates.connection(connection) else { return false };
        let hop = self.traffic.connections.get(&connection);
        let candidate = hop.and_then(|&hop| self.candidate_of(hop));
        self.traffic.gates.is_awaited(open.remote)
            && candidate.is_some_and(|candidate| !self.has_place_for(candidate))
    }

    fn give_up_silent(&mut self, hop: HopId, connection: ConnectionId, silence: Duration) {
        let Some(remote) = self.traffic.gates.connection(connection).map(|open| open.remote) else { return };
        self.event(Event::debug(format!(
            "{remote} has been silent for {} s, and others wait: its mail goes on, and it is tried again after all others",
            silence.as_secs()
        )));
        self.traffic.reachability.note_slowness(remote, self.now.monotonic);
        self.traffic.gates.announce_news(remote);
        self.queue.note_attempt(hop, Prospect::Failed);
        self.with_delivery(hop, |delivery, cx| delivery.yield_lane(cx, connection));
        self.drain_deliveries();
    }
}
