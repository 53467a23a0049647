//! Who gets a connection, who keeps one, and who has to give one up: the limits of all connections together, of those
//! of a destination, and of those to an address.

use alloc::string::String;
use core::net::SocketAddr;

use super::{Dispatcher, Mode};
use crate::delivery::Delivery;
use crate::event::Event;
use crate::io::ConnectionId;
use crate::queue::HopId;
use crate::reachability::Trouble;
use crate::route::Candidate;

/// After so many transactions a connection makes room, if somebody else has none.
const FAIR_SHARE_TRANSACTIONS: u32 = 100;

impl Dispatcher {
    /// Notes what a delivery that has said all it had to say now waits for.
    pub(super) fn settle_delivery(&mut self, hop: HopId) {
        self.wake_resting(hop);
        let ready = self.queue.ready_count(hop) > 0;
        // What looks like one message is asked for together, and comes back if it is none: it has waited all the time.
        let is_in_suspense = !ready && self.traffic.claims.contains_key(&hop);
        let is_wanted = (ready || is_in_suspense) && !self.is_draining() && !self.ledger.is_congested();
        let Some(delivery) = self.traffic.deliveries.get(&hop) else { return };
        if delivery.is_over() {
            return self.end_delivery(hop);
        }
        let limit = self.connection_limit(hop);
        let may_widen = is_wanted && delivery.may_widen(limit);
        let is_possible = self.has_free_connection() && self.traffic.waiting.is_empty();
        let candidate = delivery.candidate().filter(|_| may_widen);
        let crowded_host = candidate
            .filter(|candidate| !self.has_place_for_more(candidate))
            .map(|candidate| candidate.remote);
        // Nobody has to make room for mail that may be on its way already.
        if may_widen && ready {
            if !is_possible {
                self.traffic.crowded.insert(hop);
            } else if let Some(remote) = crowded_host {
                self.traffic.gates.crowd(remote, hop);
            }
        }
        let now = self.now.monotonic;
        let Some(delivery) = self.traffic.deliveries.get_mut(&hop) else { return };
        delivery.schedule_widening(now, may_widen && is_possible && crowded_host.is_none());
        self.traffic.deadlines.set(hop, delivery.poll_timeout());
        self.traffic.resting.set(hop, delivery.first_resting().map(|(until, _)| until));
        // What comes back may need the connection.
        let needs_lane = delivery.needs_lane(limit) && (delivery.has_mail_to_go_first() || !is_in_suspense);
        if needs_lane && !self.traffic.is_waiting(hop) {
            self.traffic.waiting.push(hop, self.queue.prospect(hop));
        }
    }

    /// Gives connections to deliveries that cannot go on without; whether to any.
    pub(super) fn grant_connections(&mut self) -> bool {
        let mut moved = self.let_in();
        while self.has_free_connection() {
            let Some(hop) = self.traffic.waiting.pop() else { break };
            self.grant(hop);
            // So that the connection counts before the next is given.
            self.drain_deliveries();
            moved = true;
        }
        if self.has_free_connection() && self.traffic.waiting.is_empty() {
            moved |= !self.traffic.crowded.is_empty();
            self.traffic.touched.append(&mut self.traffic.crowded);
        }
        moved | self.make_room()
    }

    /// Opens a further connection, if mail waits and there is one to be had.
    pub(super) fn widen(&mut self, hop: HopId) {
        let limit = self.connection_limit(hop);
        let is_worth_it = self.queue.ready_count(hop) > 0
            && self.traffic.waiting.is_empty()
            && self.has_free_connection()
            && !self.is_draining()
            && self.candidate_of(hop).is_some_and(|candidate| self.has_place_for_more(candidate));
        self.with_delivery(hop, |delivery, cx| {
            if delivery.take_widening(cx.now) && is_worth_it && delivery.may_widen(limit) {
                delivery.open_lane(cx);
            }
        });
        // So that the connection counts before another is opened.
        self.drain_deliveries();
    }

    /// Whether a connection that could take work has to end: it is one too many, or somebody else has none.
    pub(super) fn must_make_room(&self, hop: HopId, connection: ConnectionId) -> bool {
        let Some(delivery) = self.traffic.deliveries.get(&hop) else { return true };
        let had_its_share =
            delivery.lane_count() > 1 || delivery.transactions_of(connection) >= FAIR_SHARE_TRANSACTIONS;
        self.is_draining()
            || delivery.lane_count() > self.connection_limit(hop)
            || (had_its_share && self.is_needed_elsewhere(connection))
    }

    /// A connection has no work: it is kept for a while, unless somebody else needs it or the pass is all there is.
    pub(super) fn rest(&mut self, hop: HopId, connection: ConnectionId) {
        let mut is_idle = false;
        self.with_delivery(hop, |delivery, _| is_idle = delivery.handle_no_work(connection));
        if !is_idle {
            return;
        }
        self.traffic.weary.end_pass(hop);
        let is_kept = self.mode == Mode::Daemon
            && !self.is_needed_elsewhere(connection)
            && self.traffic.crowded.is_empty()
            && self.traffic.has_room_for_delivery();
        self.with_delivery(hop, |delivery, cx| {
            if is_kept {
                delivery.rest_lane(cx, connection);
            } else {
                delivery.quit_lane(cx, connection);
            }
        });
    }

    /// A connection takes mail.
    pub(super) fn note_established(&mut self, connection: ConnectionId) {
        if let Some(open) = self.traffic.gates.established(connection)
            && self.traffic.reachability.note_agreement(open.remote, open.tls)
        {
            self.traffic.gates.announce_news(open.remote);
        }
    }

    /// A server has said something, if only a refusal.
    pub(super) fn note_answer(&mut self, connection: ConnectionId) {
        let Some(open) = self.traffic.gates.connection(connection) else { return };
        let remote = open.remote;
        if self.traffic.reachability.note_answer(remote) {
            self.traffic.gates.announce_news(remote);
        }
    }

    /// A server does not answer a delivery that has no other connection to it.
    pub(super) fn is_unreachable(
        &mut self,
        hop: HopId,
        connection: ConnectionId,
        candidate: &Candidate,
        trouble: Trouble,
        text: String,
    ) {
        let Some(began) = self.traffic.gates.connection(connection).map(|open| open.since) else { return };
        if self.traffic.gates.is_established(candidate.remote) {
            // It serves other destinations, and bears no more connections.
            return self.note_push_back(hop, connection);
        }
        self.traffic.reachability.has_failed(candidate, began, trouble, text, self.now.monotonic);
        self.traffic.gates.announce_news(candidate.remote);
    }

    /// A destination wants fewer connections.
    pub(super) fn note_push_back(&mut self, hop: HopId, connection: ConnectionId) {
        let Some(delivery) = self.traffic.deliveries.get(&hop) else { return };
        let connections = u32::try_from(delivery.lane_count()).unwrap_or(u32::MAX).saturating_add(1);
        let opened = self.traffic.gates.connection(connection).map(|open| open.since);
        if let (Some(next_hop), Some(opened)) = (self.queue.next_hop(hop), opened) {
            self.traffic.windows.cut(next_hop, connections, opened, self.now.monotonic);
            let limit = self.connection_limit(hop);
            let text = alloc::format!("{next_hop} pushes back: at most {limit} connections for now");
            self.event(Event::debug(text));
        }
    }

    /// A destination has taken a mail.
    pub(super) fn note_taken_mail(&mut self, hop: HopId) {
        if let Some(next_hop) = self.queue.next_hop(hop) {
            let most = self.settings.destination_concurrency;
            self.traffic.windows.widen(next_hop, most, self.now.monotonic);
        }
    }

    /// Opens a connection for a delivery whose turn it is, or lets it wait for its host.
    fn grant(&mut self, hop: HopId) {
        let remote = self.candidate_of(hop).map(|candidate| candidate.remote);
        let limit = self.connection_limit(hop);
        let goes_first = self.traffic.deliveries.get(&hop).is_some_and(Delivery::has_mail_to_go_first);
        let has_mail = goes_first || self.queue.ready_count(hop) > 0;
        // Mail that the database is just being asked for comes back to this, if it does.
        if has_mail || !self.traffic.claims.contains_key(&hop) {
            self.with_delivery(hop, |delivery, cx| {
                if has_mail {
                    delivery.reconsider(cx);
                } else if delivery.needs_lane(limit) {
                    delivery.close(cx);
                }
            });
        }
        let is_needed = |delivery: &Delivery| has_mail && delivery.needs_lane(limit);
        let needs_lane = self.traffic.deliveries.get(&hop).is_some_and(is_needed);
        let goes_to = self.candidate_of(hop).filter(|_| needs_lane).map(|candidate| candidate.remote);
        if let Some(remote) = goes_to {
            self.open_or_wait(hop, remote);
        }
        // Who was let in and goes elsewhere leaves the place to the next.
        if let Some(remote) = remote.filter(|remote| goes_to != Some(*remote)) {
            self.traffic.gates.reconsider(remote);
        }
    }

    fn open_or_wait(&mut self, hop: HopId, remote: SocketAddr) {
        let is_last_resort =
            self.candidate_of(hop).is_some_and(|candidate| self.is_last_resort(hop, candidate));
        let has_place = self.candidate_of(hop).is_some_and(|candidate| self.has_place_for(candidate));
        if has_place && (!is_last_resort || self.may_be_patient()) {
            return self.with_delivery(hop, |delivery, cx| delivery.open_lane(cx));
        }
        let prospect = self.queue.prospect(hop);
        self.traffic.gates.wait(remote, hop, prospect, has_place);
        let is_resting = |other: &ConnectionId| {
            let delivery =
                self.traffic.connections.get(other).and_then(|hop| self.traffic.deliveries.get(hop));
            delivery.is_some_and(|delivery| delivery.is_resting(*other))
        };
        let resting = self.traffic.gates.connections_to(remote).find(is_resting);
        if let Some(resting) = resting {
            self.send_off(resting);
        }
    }

    /// Lets those go on that have waited for a host; whether anybody can.
    fn let_in(&mut self) -> bool {
        let room = self.patient_limit().saturating_sub(self.traffic.gates.patient_count());
        self.traffic.gates.admit_held_off(room);
        let (waiting, crowded) = self.traffic.gates.let_in(size(self.settings.host_concurrency));
        let moved = !waiting.is_empty() || !crowded.is_empty();
        // They have waited for longer than those who have not asked their host yet.
        for hop in waiting.into_iter().rev() {
            self.traffic.waiting.push_front(hop, self.queue.prospect(hop));
        }
        self.traffic.touched.extend(crowded);
        moved
    }

    /// Ends connections that have nothing to do, where somebody needs their place; whether any.
    fn make_room(&mut self) -> bool {
        let mut moved = self.part();
        let needs_delivery = self.deliveries_wanted() > 0;
        let wanted = if self.has_free_connection() {
            usize::from(needs_delivery)
        } else {
            self.traffic.waiting.len() + self.traffic.crowded.len()
        };
        while self.traffic.leaving.len() < wanted
            && let Some((_, hop)) = self.traffic.resting.first()
            && let Some((_, connection)) = self.traffic.deliveries.get(&hop).and_then(Delivery::first_resting)
        {
            self.send_off(connection);
            self.drain_deliveries();
            moved = true;
        }
        moved | self.end_silence()
    }

    /// Closes connections that have said QUIT and wait for no more than the reply to that, where somebody needs their place;
    /// whether any. RFC 5321 section 4.1.1.10 lets a client do that, if not without a reason. A conversation that is written
    /// down comes to its end, since it may be replayed where nobody needs its place.
    fn part(&mut self) -> bool {
        let mut moved = false;
        while !self.settings.trace
            && !self.has_free_connection()
            && !self.traffic.waiting.is_empty()
            && let Some(connection) = self.traffic.parting.pop_first()
        {
            self.with_connection(connection, |delivery, cx| delivery.part_with_lane(cx, connection));
            self.drain_deliveries();
            moved = true;
        }
        moved
    }

    /// Tells a connection to end because somebody needs its place.
    fn send_off(&mut self, connection: ConnectionId) {
        self.traffic.leaving.insert(connection);
        self.with_connection(connection, |delivery, cx| delivery.quit_lane(cx, connection));
    }

    /// Gives mail that has come to connections that wait for some.
    fn wake_resting(&mut self, hop: HopId) {
        let now = self.now.monotonic;
        while self.queue.ready_count(hop) > 0
            && !self.is_draining()
            && let Some(delivery) = self.traffic.deliveries.get_mut(&hop)
            && let Some(connection) = delivery.wake_lane(now)
        {
            self.want_work(hop, connection);
        }
    }

    /// Most connections that a destination may have at once.
    fn connection_limit(&self, hop: HopId) -> usize {
        let next_hop = self.queue.next_hop(hop);
        let window = next_hop.and_then(|next_hop| self.traffic.windows.limit(next_hop, self.now.monotonic));
        let most = self.settings.destination_concurrency;
        size(window.map_or(most, |window| window.min(most)))
    }

    pub(super) fn candidate_of(&self, hop: HopId) -> Option<&Candidate> {
        self.traffic.deliveries.get(&hop).and_then(Delivery::candidate)
    }

    /// Whether a delivery without connections may connect to its candidate.
    pub(super) fn has_place_for(&self, candidate: &Candidate) -> bool {
        let is_in_trouble = self.traffic.reachability.is_in_trouble(candidate, self.now.monotonic);
        self.traffic.gates.is_open(candidate.remote, size(self.settings.host_concurrency), is_in_trouble)
    }

    /// Whether a delivery may have a further connection to its candidate: those that have none come first.
    fn has_place_for_more(&self, candidate: &Candidate) -> bool {
        self.has_place_for(candidate) && !self.traffic.gates.is_awaited(candidate.remote)
    }

    /// Whether somebody who cannot go on without waits for a connection like this.
    fn is_needed_elsewhere(&self, connection: ConnectionId) -> bool {
        let is_scarce = !self.has_free_connection() && !self.traffic.waiting.is_empty();
        is_scarce || self.traffic.gates.is_needed(connection)
    }

    pub(super) fn has_free_connection(&self) -> bool {
        self.traffic.connections.len() < size(self.settings.concurrency)
    }
}

pub(super) fn size(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
