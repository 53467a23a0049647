//! Which deliveries get a connection, which keep one, and which must give one up.

use alloc::format;
use core::net::SocketAddr;

use super::Deliveries;
use super::admission::are_all;
use super::destination::{Destination, Waits};
use super::destinations::AtWork;
use super::host_slots::{SlotRefusal, SlotRequest, size};
use crate::attempt::Setback;
use crate::delivery::Delivery;
use crate::dispatcher::books::Books;
use crate::event::{Event, EventName};
use crate::fair_queue::Prospect;
use crate::io::ConnectionId;
use crate::next_hop::{Host, NextHop};
use crate::queue::{HopId, Queue};
use crate::reachability::Trouble;
use crate::route::Candidate;
use crate::tls::TlsSummary;

/// After this many transactions a connection gives up its slot, if another destination has none.
const FAIR_SHARE_TRANSACTIONS: u32 = 100;

/// The connections that a pass needs or wants.
#[derive(Clone, Copy, Debug)]
struct Wish {
    /// True if it cannot proceed without a connection.
    needs_one: bool,
    /// The further connection that it wants, if any.
    more: Option<More>,
    /// True if others should make room for the further one. False for mail that may be on its way already.
    is_urgent: bool,
}

/// When a further connection can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    /// After mail has waited a little longer.
    Soon,
    /// When any slot is free.
    Any,
    /// When a slot at this address is free.
    Of(SocketAddr),
}

impl Deliveries {
    /// Updates what a destination waits for, after all its outputs are processed.
    pub(super) fn settle(&mut self, books: &mut Books, hop: HopId) {
        self.use_idle_connections(books, hop);
        match self.destinations.delivery(hop) {
            Some(delivery) if delivery.is_over() => self.end_pass(books, hop),
            Some(_) => self.settle_pass(books, hop),
            None => {
                let hosts = &self.directory.hosts;
                let needs_answer = |queue: &Queue| match queue.next_hop(hop) {
                    Some(NextHop::Domain(_)) => true,
                    Some(NextHop::Relay(relay)) => match &relay.host {
                        Host::Name(name) => !hosts.contains_key(name),
                        Host::Address(_) => false,
                    },
                    Some(NextHop::Literal(_)) | None => false,
                };
                let Books { queue, config, now, .. } = books;
                self.destinations.settle(hop, queue, &config.policies, needs_answer, now.monotonic);
            }
        }
    }

    fn settle_pass(&mut self, books: &Books, hop: HopId) {
        let now = books.now.monotonic;
        let Some(wish) = self.wish_of(books, hop) else { return };
        match wish.more {
            Some(More::Any) if wish.is_urgent => self.slots.want_more(hop),
            Some(More::Of(remote)) if wish.is_urgent => self.slots.want_more_of_host(remote, hop),
            Some(More::Any | More::Of(_) | More::Soon) | None => {}
        }
        let is_possible = wish.more == Some(More::Soon);
        self.destinations.schedule(hop, |delivery| delivery.schedule_widening(now, is_possible));
        if wish.needs_one && self.destinations.pass(hop).is_some_and(|pass| pass.waits() == Waits::No) {
            self.wait_for(books, hop, Waits::ForConnection);
        }
    }

    fn wish_of(&self, books: &Books, hop: HopId) -> Option<Wish> {
        let delivery = self.destinations.delivery(hop)?;
        let is_ready = books.queue.ready_count(hop) > 0;
        // Mail that looks like one message is claimed together, and is returned if it turns out to be several messages. It counts
        // as waiting all the time.
        let is_in_suspense = !is_ready && self.has_open_claims(hop);
        let has_transactions =
            (is_ready || is_in_suspense) && !books.is_draining() && !books.commits.is_congested();
        let limit = self.connection_limit(books, hop);
        let more =
            delivery.candidate().filter(|_| has_transactions && delivery.may_widen(limit)).map(|candidate| {
                if !self.slots.has_spare_slot() {
                    More::Any
                } else if !self.has_slot_for_more(books, candidate) {
                    More::Of(candidate.remote)
                } else {
                    More::Soon
                }
            });
        Some(Wish {
            // Mail that is returned may need the connection.
            needs_one: delivery.needs_connection(limit)
                && (delivery.has_mail_to_go_first() || !is_in_suspense),
            more,
            is_urgent: is_ready,
        })
    }

    /// Opens connections for deliveries that cannot proceed without one. Returns whether anything changed.
    pub(in crate::dispatcher) fn grant_connections(&mut self, books: &mut Books) -> bool {
        let mut moved = self.admit(books);
        while let Some(hop) = self.slots.pop_waiting() {
            self.destinations.set_waits(hop, Waits::No);
            self.connect_or_wait(books, hop);
            // The connection counts before the next one is opened.
            self.drain_deliveries(books);
            moved = true;
        }
        let wanting_more = self.slots.take_wanting_more();
        moved |= !wanting_more.is_empty();
        self.destinations.touch_all(wanting_more);
        moved | self.free_slots(books)
    }

    /// Opens a further connection, if mail waits and a slot is free.
    pub(super) fn widen(&mut self, books: &mut Books, hop: HopId) {
        let limit = self.connection_limit(books, hop);
        let is_worth_it = books.queue.ready_count(hop) > 0
            && self.slots.has_spare_slot()
            && !books.is_draining()
            && self.candidate_of(hop).is_some_and(|candidate| self.has_slot_for_more(books, candidate));
        self.with_delivery(books, hop, |delivery, cx| {
            if delivery.take_widening(cx.now) && is_worth_it && delivery.may_widen(limit) {
                delivery.connect(cx);
            }
        });
        // The connection counts before another is opened.
        self.drain_deliveries(books);
    }

    /// Returns whether a connection that could take transactions must end: it is one too many, or another destination has none.
    pub(super) fn must_give_up_slot(&self, books: &Books, hop: HopId, connection: ConnectionId) -> bool {
        let Some(delivery) = self.destinations.delivery(hop) else { return true };
        let had_its_share = delivery.connection_count() > 1
            || delivery.transactions_of(connection) >= FAIR_SHARE_TRANSACTIONS;
        books.is_draining()
            || delivery.connection_count() > self.connection_limit(books, hop)
            || (had_its_share && self.slots.is_needed(connection))
    }

    /// Handles a connection without mail: keeps it for a while, unless another destination needs its slot or this is a one-shot
    /// pass.
    pub(super) fn keep_idle(&mut self, books: &Books, hop: HopId, connection: ConnectionId) {
        self.end_unclaimed(hop, connection, &[]);
        let mut is_idle = false;
        self.with_delivery(books, hop, |delivery, _| is_idle = delivery.handle_nothing_claimed(connection));
        if !is_idle {
            return;
        }
        self.destinations.update(hop, Destination::end_refusing);
        let is_kept = books.run.is_daemon()
            && !self.slots.is_needed(connection)
            && self.slots.wanting_more_count() == 0
            && self.has_room_for_delivery();
        self.with_delivery(books, hop, |delivery, cx| {
            if is_kept {
                delivery.keep_idle(cx, connection);
            } else {
                delivery.quit_connection(cx, connection);
            }
        });
    }

    /// Records that a connection accepts mail.
    pub(super) fn note_established(
        &mut self,
        books: &mut Books,
        connection: ConnectionId,
        tls: Option<TlsSummary>,
    ) {
        let Some(open) = self.slots.establish(connection) else { return };
        books.outlet.tally.connections.count_opened(open.tls, tls);
        if self.reachability.note_agreement(open.remote, open.tls) {
            self.slots.announce_news(open.remote);
        }
    }

    /// Records that a server has replied, if only by a refusal.
    pub(super) fn note_answer(&mut self, connection: ConnectionId) {
        let Some(open) = self.slots.connection(connection) else { return };
        let remote = open.remote;
        if self.reachability.note_answer(remote) {
            self.slots.announce_news(remote);
        }
    }

    /// Records that a server does not answer a delivery that has no other connection to it.
    pub(super) fn note_unreachable(
        &mut self,
        books: &mut Books,
        hop: HopId,
        connection: ConnectionId,
        candidate: &Candidate,
        trouble: Trouble,
        setback: Setback,
    ) {
        let Some(began) = self.slots.connection(connection).map(|open| open.since) else { return };
        if self.slots.is_established(candidate.remote) {
            // It serves other destinations, so it only wants fewer connections.
            return self.note_pushback(books, hop, connection);
        }
        self.reachability.record_failure(candidate, began, trouble, setback, books.now.monotonic);
        self.slots.announce_news(candidate.remote);
    }

    /// Reduces the number of connections of a destination that pushes back.
    pub(super) fn note_pushback(&mut self, books: &mut Books, hop: HopId, connection: ConnectionId) {
        books.outlet.tally.connections.count_pushback();
        let Some(delivery) = self.destinations.delivery(hop) else { return };
        let connections = u32::try_from(delivery.connection_count()).unwrap_or(u32::MAX).saturating_add(1);
        let opened = self.slots.connection(connection).map(|open| open.since);
        if let (Some(next_hop), Some(opened)) = (books.queue.next_hop(hop), opened) {
            let now = books.now.monotonic;
            self.destinations.update(hop, |destination| {
                destination.limits_mut().cut(connections, opened, now);
            });
            let limit = self.connection_limit(books, hop);
            let text = format!("{next_hop} pushes back: at most {limit} connections for now");
            books.event(Event::debug(EventName::Connection, text));
        }
    }

    /// Records that a destination has taken a mail.
    pub(super) fn note_taken_mail(&mut self, books: &mut Books, hop: HopId) {
        let now = books.now.monotonic;
        self.destinations.update(hop, |destination| {
            let most = destination.policy().concurrency;
            destination.end_stall();
            destination.limits_mut().widen(most, now);
        });
        self.note_verdict(hop);
        books.queue.note_attempt(hop, Prospect::Fresh);
    }

    /// Opens a connection for a delivery whose turn it is, or lets it wait for its host.
    fn connect_or_wait(&mut self, books: &Books, hop: HopId) {
        let remote = self.candidate_of(hop).map(|candidate| candidate.remote);
        let limit = self.connection_limit(books, hop);
        let goes_first = self.destinations.delivery(hop).is_some_and(Delivery::has_mail_to_go_first);
        let has_mail = goes_first || books.queue.ready_count(hop) > 0;
        // Mail that is being claimed may be returned, and then needs this delivery.
        if has_mail || !self.has_open_claims(hop) {
            self.with_delivery(books, hop, |delivery, cx| {
                if has_mail {
                    delivery.reconsider(cx);
                } else if delivery.needs_connection(limit) {
                    delivery.close(cx);
                }
            });
        }
        let is_needed = |delivery: &Delivery| has_mail && delivery.needs_connection(limit);
        let needs_connection = self.destinations.delivery(hop).is_some_and(is_needed);
        let goes_to = self.candidate_of(hop).filter(|_| needs_connection).map(|candidate| candidate.remote);
        if let Some(remote) = goes_to {
            self.open_or_wait(books, hop, remote);
        }
        // A delivery that was admitted but goes elsewhere leaves its slot to the next.
        if let Some(remote) = remote.filter(|remote| goes_to != Some(*remote)) {
            self.slots.reconsider(remote);
        }
    }

    fn open_or_wait(&mut self, books: &Books, hop: HopId, remote: SocketAddr) {
        let Some(refusal) = self.refusal_of_host(books, hop) else {
            return self.with_delivery(books, hop, |delivery, cx| delivery.connect(cx));
        };
        self.wait_for(books, hop, Waits::ForHost(remote));
        let host_limit = self.candidate_of(hop).map_or(0, |candidate| candidate.policy.host_concurrency);
        self.slots.wait_for_host(remote, hop, books.queue.prospect(hop), refusal, host_limit);
        let is_idle = |other: &ConnectionId| {
            self.of_connection(*other).is_some_and(|(_, delivery)| delivery.is_idle(*other))
        };
        let idle = self.slots.connections_to(remote).find(is_idle);
        if let Some(idle) = idle {
            self.send_off(books, idle);
        }
    }

    /// Returns the reason why a delivery may not connect to its candidate, if there is one.
    pub(super) fn refusal_of_host(&self, books: &Books, hop: HopId) -> Option<SlotRefusal> {
        let delivery = self.destinations.delivery(hop)?;
        let candidate = delivery.candidate()?;
        if are_all(self.probe_connections(delivery.next_hop()), candidate) {
            return Some(SlotRefusal::Probe);
        }
        let is_in_trouble = self.reachability.is_in_trouble(candidate, books.now.monotonic);
        let is_last_resort = delivery.is_at_last_resorts() || is_in_trouble;
        self.slots.check_host(SlotRequest { candidate, is_in_trouble, is_last_resort }).err()
    }

    /// Admits deliveries that have waited for their host. Returns whether it admitted any.
    fn admit(&mut self, books: &Books) -> bool {
        let (waiting, wanting_more) = self.slots.admit();
        let moved = !waiting.is_empty() || !wanting_more.is_empty();
        // They have waited longer than those that have not asked their host yet.
        for hop in waiting.into_iter().rev() {
            self.destinations.set_waits(hop, Waits::ForConnection);
            self.slots.wait_first(hop, books.queue.prospect(hop));
        }
        self.destinations.touch_all(wanting_more);
        moved
    }

    /// Ends idle connections whose slots are needed. Returns whether it ended any.
    fn free_slots(&mut self, books: &mut Books) -> bool {
        let mut moved = self.part(books);
        let wanted = if self.slots.has_slot() {
            usize::from(self.deliveries_wanted() > 0)
        } else {
            self.slots.in_the_way_of(self.slots.waiting_count() + self.slots.wanting_more_count())
        };
        while self.destinations.wait_lists().sent_off() < wanted
            && let Some(hop) = self.destinations.first_idle()
            && let Some((_, connection)) = self.destinations.delivery(hop).and_then(Delivery::first_idle)
        {
            self.send_off(books, connection);
            self.drain_deliveries(books);
            moved = true;
        }
        moved | self.close_silent_connections(books)
    }

    /// Closes connections that only wait for the reply to QUIT, if their slots are needed. Returns whether it closed any. RFC
    /// 5321 section 4.1.1.10 allows this, though not without a reason. A conversation that is being recorded runs to its end,
    /// because it may be replayed where the slots are not needed.
    fn part(&mut self, books: &mut Books) -> bool {
        let mut moved = false;
        while !books.config.settings.told.conversations
            && !self.slots.has_slot()
            && self.slots.waiting_count() > 0
            && let Some(connection) = self.destinations.wait_lists().first_parting()
        {
            self.with_connection(books, connection, |delivery, cx| delivery.leave_connection(cx, connection));
            self.drain_deliveries(books);
            moved = true;
        }
        moved
    }

    /// Ends a connection because its slot is needed.
    fn send_off(&mut self, books: &Books, connection: ConnectionId) {
        let Some(hop) = self.hop_of(connection) else { return };
        if let Some(AtWork { connections, wait_lists, .. }) = self.destinations.work_on(hop) {
            connections.send_off(connection, wait_lists);
        }
        self.with_delivery(books, hop, |delivery, cx| delivery.quit_connection(cx, connection));
    }

    /// Gives new mail to idle connections.
    fn use_idle_connections(&mut self, books: &mut Books, hop: HopId) {
        let now = books.now.monotonic;
        while books.queue.ready_count(hop) > 0
            && !books.is_draining()
            && let Some(connection) = self.destinations.reuse_idle_connection(hop, now)
        {
            self.want_transactions(books, hop, connection);
        }
    }

    /// Returns how many connections a destination may have at once.
    pub(super) fn connection_limit(&self, books: &Books, hop: HopId) -> usize {
        let Some(destination) = self.destinations.get(hop) else { return 0 };
        let most = destination.policy().concurrency;
        let limit = size(destination.limits().connections(most, books.now.monotonic));
        let of_probes = self.destinations.delivery(hop).map(|known| self.probe_connections(known.next_hop()));
        limit.saturating_sub(of_probes.unwrap_or_default())
    }

    /// Retires a connection that is one too many since a limit was lowered. Returns whether it is to end.
    pub(super) fn retire_surplus(&mut self, hop: HopId, connection: ConnectionId) -> bool {
        let limit = self.candidate_of(hop).map(|candidate| candidate.policy.host_concurrency);
        limit.is_some_and(|limit| self.slots.retire_surplus(connection, limit))
    }

    pub(super) fn candidate_of(&self, hop: HopId) -> Option<&Candidate> {
        self.destinations.delivery(hop).and_then(Delivery::candidate)
    }

    /// Returns whether a delivery may open a further connection to its candidate. Deliveries without a connection come first.
    fn has_slot_for_more(&self, books: &Books, candidate: &Candidate) -> bool {
        self.has_slot_for(books, candidate) && !self.slots.has_waiters(candidate.remote)
    }

    /// Returns whether a delivery without connections may connect to its candidate.
    pub(super) fn has_slot_for(&self, books: &Books, candidate: &Candidate) -> bool {
        let is_in_trouble = self.reachability.is_in_trouble(candidate, books.now.monotonic);
        self.slots.has_slot_at(candidate, is_in_trouble)
    }
}
