//! The deliveries, their connections and lookups, and the limits that they share.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::intake::destination;
use super::pace::Pace;
use super::{Asked, Dispatcher, Mode};
use crate::address::Mailbox;
use crate::delivery::{ConnectionIds, Context, Delivery, DeliveryOutput, Failure};
use crate::event::{Event, Level};
use crate::io::{CloseReason, ConnectError, ConnectionId, Output, Purpose};
use crate::next_hop::NextHop;
use crate::outbox::{
    ClaimedTransaction, DATA_CHUNK_OCTETS, MailId, StoreError, StoreReply, StoreRequest,
    TRANSACTION_RECIPIENT_LIMIT,
};
use crate::queue::{HopId, Place};
use crate::resolver::{Families, LookupId, Resolver, ResolverOutput};
use crate::rng::Rng;
use crate::schedule::Standing;
use crate::session::Transaction;
use crate::settings::Settings;
use crate::time::{Duration, Instant};

/// Most next hops that are worked on at once, most of them waiting for name servers.
const DELIVERY_LIMIT: usize = 1000;
/// Most messages that are claimed for a connection at once.
const CLAIM_LIMIT_MESSAGES: usize = 50;
/// After so many transactions a connection makes room, if another next hop has none.
const FAIR_SHARE_TRANSACTIONS: u32 = 100;
/// How long a next hop is left alone after trouble of our own.
const LOCAL_PAUSE: Duration = Duration::from_secs(2);
/// How long a connection is kept open without work, because the rate limit forbids the next transaction.
const IDLE_LIMIT: Duration = Duration::from_secs(2);
/// How much mail of a next hop that has failed as a whole is recorded at once.
const CONDEMN_LIMIT: usize = 1000;

/// Everything that is under way.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) resolver: Resolver,
    rng: Rng,
    ids: ConnectionIds,
    deliveries: BTreeMap<HopId, Delivery>,
    /// When each delivery wants to be called, and the same in order of time.
    deadlines: BTreeMap<HopId, Instant>,
    timeline: BTreeSet<(Instant, HopId)>,
    connections: BTreeMap<ConnectionId, HopId>,
    lookups: BTreeMap<LookupId, HopId>,
    /// Deliveries that may have something to say.
    touched: BTreeSet<HopId>,
    /// Next hops that may have ready mail, and no delivery.
    runnable: BTreeSet<HopId>,
    /// After which next hop to go on, so that all get their turn.
    last_started: HopId,
    /// Deliveries that cannot go on without a connection.
    waiting: VecDeque<HopId>,
    /// Next hops that are left alone for a while.
    paused: BTreeMap<HopId, Instant>,
    /// Next hops of which all mail up to an id has failed.
    condemned: BTreeMap<HopId, (Failure, MailId)>,
    /// Connections that wait for the database to recover.
    parked: Vec<(HopId, ConnectionId)>,
    /// Connections that wait until the rate limit allows their next transaction.
    held_back: BTreeSet<(Instant, HopId, ConnectionId)>,
    paces: BTreeMap<NextHop, Pace>,
}

impl Traffic {
    pub(super) fn new(settings: &Settings, mut rng: Rng) -> Self {
        Self {
            resolver: Resolver::new(settings.resolver.clone(), rng.fork()),
            rng,
            ids: ConnectionIds::default(),
            deliveries: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            timeline: BTreeSet::new(),
            connections: BTreeMap::new(),
            lookups: BTreeMap::new(),
            touched: BTreeSet::new(),
            runnable: BTreeSet::new(),
            last_started: HopId::NOWHERE,
            waiting: VecDeque::new(),
            paused: BTreeMap::new(),
            condemned: BTreeMap::new(),
            parked: Vec::new(),
            held_back: BTreeSet::new(),
            paces: BTreeMap::new(),
        }
    }

    /// Whether no delivery is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// When the first delivery, or the first connection that is held back, wants to be called.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let held_back = self.held_back.first().map(|&(at, ..)| at);
        self.timeline.first().map(|&(at, _)| at).into_iter().chain(held_back).min()
    }

    /// When the first next hop that is left alone may be tried again.
    pub(super) fn next_pause_end(&self) -> Option<Instant> {
        self.paused.values().min().copied()
    }

    pub(super) fn mail_is_ready(&mut self, hop: HopId) {
        if !self.deliveries.contains_key(&hop) {
            self.runnable.insert(hop);
        }
    }

    pub(super) fn end_pauses(&mut self) {
        self.runnable.extend(core::mem::take(&mut self.paused).into_keys());
    }

    fn set_deadline(&mut self, hop: HopId, at: Option<Instant>) {
        if let Some(old) = self.deadlines.remove(&hop) {
            self.timeline.remove(&(old, hop));
        }
        if let Some(at) = at {
            self.deadlines.insert(hop, at);
            self.timeline.insert((at, hop));
        }
    }
}

impl Dispatcher {
    pub(super) fn connected(&mut self, connection: ConnectionId) {
        if self.traffic.resolver.owns_connection(connection) {
            self.traffic.resolver.handle_connected(self.now.monotonic, connection);
        } else {
            self.with_connection(connection, |delivery, cx| delivery.handle_connected(cx, connection));
        }
    }

    pub(super) fn connect_failed(&mut self, connection: ConnectionId, error: ConnectError) {
        if self.traffic.resolver.owns_connection(connection) {
            self.traffic.resolver.handle_connect_failed(self.now.monotonic, connection, error);
        } else {
            self.with_connection(connection, |delivery, cx| {
                delivery.handle_connect_failed(cx, connection, error)
            });
            self.traffic.connections.remove(&connection);
        }
    }

    pub(super) fn received(&mut self, connection: ConnectionId, octets: &[u8]) {
        if self.traffic.resolver.owns_connection(connection) {
            self.traffic.resolver.handle_received(self.now.monotonic, connection, octets);
        } else {
            self.with_connection(connection, |delivery, cx| delivery.handle_received(cx, connection, octets));
        }
    }

    pub(super) fn closed(&mut self, connection: ConnectionId, reason: CloseReason) {
        if self.traffic.resolver.owns_connection(connection) {
            self.traffic.resolver.handle_closed(self.now.monotonic, connection, reason);
        } else {
            self.with_connection(connection, |delivery, cx| delivery.handle_closed(cx, connection, reason));
        }
    }

    pub(super) fn with_connection(
        &mut self,
        connection: ConnectionId,
        act: impl FnOnce(&mut Delivery, &mut Context<'_>),
    ) {
        if let Some(&hop) = self.traffic.connections.get(&connection) {
            self.with_delivery(hop, act);
        }
    }

    pub(super) fn transmit(&mut self, connection: ConnectionId, limit: usize, octets: &mut BytesMut) -> bool {
        let mut more = false;
        self.with_connection(connection, |delivery, cx| {
            more = delivery.poll_transmit(cx, connection, limit, octets)
        });
        more
    }

    /// Calls the deliveries whose time has come.
    pub(super) fn wake_traffic(&mut self) {
        let now = self.now.monotonic;
        while let Some((_, hop)) = self.traffic.timeline.first().copied().filter(|&(at, _)| at <= now) {
            self.traffic.set_deadline(hop, None);
            self.with_delivery(hop, |delivery, cx| delivery.handle_timeout(cx));
            self.widen(hop);
        }
        while let Some(entry) = self.traffic.held_back.first().copied().filter(|&(at, ..)| at <= now) {
            self.traffic.held_back.remove(&entry);
            self.permit(entry.1, entry.2);
        }
        let over: Vec<HopId> =
            self.traffic.paused.iter().filter(|&(_, &at)| at <= now).map(|(&hop, _)| hop).collect();
        for hop in over {
            self.traffic.paused.remove(&hop);
            self.traffic.runnable.insert(hop);
        }
    }

    /// Passes on what the resolver has to say; whether it had anything.
    pub(super) fn drain_resolver(&mut self) -> bool {
        let mut moved = false;
        while let Some(output) = self.traffic.resolver.poll_output() {
            moved = true;
            let output = match output {
                ResolverOutput::Datagram { query, to, octets } => Output::Datagram { query, to, octets },
                ResolverOutput::CloseDatagram(query) => Output::CloseDatagram(query),
                ResolverOutput::Connect { connection, to } => {
                    Output::Connect { connection, remote: to, purpose: Purpose::Dns }
                }
                ResolverOutput::Transmit(connection) => Output::Transmit(connection),
                ResolverOutput::Close(connection) => Output::Close(connection),
                ResolverOutput::Answer(lookup, answer) => {
                    if let Some(hop) = self.traffic.lookups.remove(&lookup) {
                        self.with_delivery(hop, |delivery, cx| delivery.handle_answer(cx, answer));
                    }
                    continue;
                }
            };
            self.outputs.push_back(output);
        }
        moved
    }

    /// The one place where what deliveries have to say is taken in; whether one had anything.
    pub(super) fn drain_deliveries(&mut self) -> bool {
        let mut moved = false;
        while let Some(hop) = self.traffic.touched.pop_first() {
            moved = true;
            while let Some(output) = self.traffic.deliveries.get_mut(&hop).and_then(Delivery::poll_output) {
                self.take_in_delivery_output(hop, output);
            }
            let Some(delivery) = self.traffic.deliveries.get(&hop) else { continue };
            if delivery.is_over() {
                self.end_delivery(hop);
                continue;
            }
            let (at, needs_lane) = (delivery.poll_timeout(), delivery.needs_lane());
            self.traffic.set_deadline(hop, at);
            if needs_lane && !self.traffic.waiting.contains(&hop) {
                self.traffic.waiting.push_back(hop);
            }
        }
        moved
    }

    /// Begins to work on next hops that have ready mail; whether on any.
    pub(super) fn start_deliveries(&mut self) -> bool {
        let mut moved = false;
        while self.traffic.deliveries.len() < DELIVERY_LIMIT && !self.ledger.is_congested() {
            let after = self.traffic.last_started;
            let turn = self.traffic.runnable.range(after..).find(|&&hop| hop > after);
            let Some(&hop) = turn.or_else(|| self.traffic.runnable.first()) else { break };
            self.traffic.runnable.remove(&hop);
            self.traffic.last_started = hop;
            let is_held_up = self.traffic.paused.contains_key(&hop)
                || self.traffic.condemned.contains_key(&hop)
                || self.traffic.deliveries.contains_key(&hop);
            if is_held_up || self.queue.ready_count(hop) == 0 {
                continue;
            }
            let Some(next_hop) = self.queue.next_hop(hop).cloned() else { continue };
            self.queue.retain_hop(hop);
            let mut cx = Context {
                now: self.now.monotonic,
                settings: &self.settings,
                hosts: &self.hosts,
                ids: &mut self.traffic.ids,
            };
            let delivery = Delivery::new(next_hop, self.traffic.rng.fork(), &mut cx);
            self.traffic.deliveries.insert(hop, delivery);
            self.traffic.touched.insert(hop);
            moved = true;
        }
        moved
    }

    /// Gives connections to deliveries that cannot go on without; whether to any.
    pub(super) fn grant_connections(&mut self) -> bool {
        let mut moved = false;
        while self.has_free_connection() {
            let Some(hop) = self.traffic.waiting.pop_front() else { break };
            let has_mail = self.queue.ready_count(hop) > 0;
            self.with_delivery(hop, |delivery, cx| {
                if has_mail && delivery.needs_lane() {
                    delivery.open_lane(cx);
                } else if delivery.needs_lane() {
                    delivery.close(cx);
                }
            });
            moved = true;
        }
        moved
    }

    /// Records the failure of mail whose next hop has failed as a whole, a part of it at a time.
    pub(super) fn condemn(&mut self) {
        while self.ledger.pending_count() < CONDEMN_LIMIT && !self.ledger.is_congested() {
            let Some((&hop, (failure, last))) = self.traffic.condemned.first_key_value() else { return };
            let (failure, last) = (failure.clone(), *last);
            let ids = self.queue.claim_up_to(hop, last, CONDEMN_LIMIT);
            if ids.is_empty() {
                self.traffic.condemned.remove(&hop);
                self.traffic.runnable.insert(hop);
            }
            for id in ids {
                self.record_failure(id, &failure);
            }
        }
    }

    /// Records the failure of mail that has no next hop, after a last look at its row.
    pub(super) fn send_back_unroutable(&mut self) {
        if self.ledger.is_congested() || self.traffic.paused.contains_key(&HopId::NOWHERE) {
            return;
        }
        loop {
            let ids = self.queue.claim_up_to(HopId::NOWHERE, MailId(i64::MAX), TRANSACTION_RECIPIENT_LIMIT);
            if ids.is_empty() {
                return;
            }
            self.ask(StoreRequest::Claim { ids: ids.clone() }, Asked::Nowhere { ids });
        }
    }

    pub(super) fn unroutable_read(&mut self, ids: &[MailId], result: Result<StoreReply, StoreError>) {
        let Some((transactions, left_over)) = self.claimed(HopId::NOWHERE, ids, result) else { return };
        for row in transactions.into_iter().flat_map(|transaction| transaction.rows) {
            match destination(&row) {
                Err(failure) if self.standing_of(&row) != Standing::GivenUp => {
                    self.record_failure(row.id, &failure)
                }
                Ok(_) | Err(_) => {
                    self.queue.place(row.id, Place::Ready);
                    self.take_in(&row);
                }
            }
        }
        for id in left_over {
            self.put(id, Place::Ready);
        }
    }

    pub(super) fn work_claimed(
        &mut self,
        hop: HopId,
        connection: ConnectionId,
        ids: &[MailId],
        result: Result<StoreReply, StoreError>,
    ) {
        let Some((claimed, left_over)) = self.claimed(hop, ids, result) else {
            return self.with_delivery(hop, |delivery, cx| delivery.close(cx));
        };
        for id in left_over {
            self.put(id, Place::Ready);
        }
        let work: Vec<Transaction> =
            claimed.into_iter().filter_map(|transaction| self.prepare(hop, transaction)).collect();
        let is_there = self.traffic.connections.get(&connection) == Some(&hop);
        if !is_there {
            for (id, _) in work.iter().flat_map(|transaction| &transaction.recipients) {
                self.put(*id, Place::Ready);
            }
        } else if work.is_empty() {
            self.want_work(hop, connection);
        } else {
            self.with_delivery(hop, |delivery, cx| delivery.handle_work(cx, connection, work));
        }
    }

    pub(super) fn data_read(
        &mut self,
        hop: HopId,
        connection: ConnectionId,
        result: Result<StoreReply, StoreError>,
    ) {
        let octets = match result {
            Ok(StoreReply::Data(octets)) => octets,
            Ok(_) => Bytes::new(),
            Err(error) => {
                self.note(Level::Error, format!("cannot read mail data: {error}"));
                Bytes::new()
            }
        };
        self.with_delivery(hop, |delivery, cx| delivery.handle_data(cx, connection, octets));
    }

    /// Ends all deliveries as soon as their conversations allow it.
    pub(super) fn close_deliveries(&mut self) {
        let hops: Vec<HopId> = self.traffic.deliveries.keys().copied().collect();
        for hop in hops {
            self.with_delivery(hop, |delivery, cx| delivery.close(cx));
        }
        // What is held back or parked would never be let go.
        self.traffic.held_back.clear();
        self.traffic.parked.clear();
    }

    /// Ends all deliveries at once.
    pub(super) fn abort_deliveries(&mut self) {
        let hops: Vec<HopId> = self.traffic.deliveries.keys().copied().collect();
        for hop in hops {
            self.with_delivery(hop, |delivery, _| delivery.abort());
        }
        self.drain_deliveries();
    }

    /// Goes on with what waited for the database.
    pub(super) fn resume_parked(&mut self) {
        if !self.ledger.is_congested() {
            for (hop, connection) in core::mem::take(&mut self.traffic.parked) {
                self.want_work(hop, connection);
            }
        }
    }

    fn with_delivery(&mut self, hop: HopId, act: impl FnOnce(&mut Delivery, &mut Context<'_>)) {
        let Some(delivery) = self.traffic.deliveries.get_mut(&hop) else { return };
        let mut cx = Context {
            now: self.now.monotonic,
            settings: &self.settings,
            hosts: &self.hosts,
            ids: &mut self.traffic.ids,
        };
        act(delivery, &mut cx);
        self.traffic.touched.insert(hop);
    }

    fn take_in_delivery_output(&mut self, hop: HopId, output: DeliveryOutput) {
        let now = self.now.monotonic;
        match output {
            DeliveryOutput::LookupMx(domain) => {
                let lookup = self.traffic.resolver.lookup_mx(now, &domain);
                self.traffic.lookups.insert(lookup, hop);
            }
            DeliveryOutput::LookupAddresses(name) => {
                // Both families are asked for, whichever can be used: a name with only the other one does exist.
                let families = Families { ipv4: true, ipv6: true };
                let lookup = self.traffic.resolver.lookup_addresses(now, &name, families);
                self.traffic.lookups.insert(lookup, hop);
            }
            DeliveryOutput::Connect(connection, remote) => {
                self.traffic.connections.insert(connection, hop);
                self.outputs.push_back(Output::Connect { connection, remote, purpose: Purpose::Smtp });
            }
            DeliveryOutput::StartTls(connection, server) => {
                self.outputs.push_back(Output::StartTls { connection, server });
            }
            DeliveryOutput::Transmit(connection) => self.outputs.push_back(Output::Transmit(connection)),
            DeliveryOutput::Close(connection) => {
                self.traffic.connections.remove(&connection);
                self.outputs.push_back(Output::Close(connection));
            }
            DeliveryOutput::WantWork(connection) => self.want_work(hop, connection),
            DeliveryOutput::WantPermission(connection) => self.permit(hop, connection),
            DeliveryOutput::WantData { connection, id, offset, limit } => {
                let limit = limit.min(u32::try_from(DATA_CHUNK_OCTETS).unwrap_or(u32::MAX));
                self.ask(StoreRequest::ReadData { id, offset, limit }, Asked::Data { hop, connection });
            }
            DeliveryOutput::Delivered { id, event } => {
                self.event(event);
                self.ledger.delivered(id);
            }
            DeliveryOutput::Failed { id, failure } => self.record_failure(id, &failure),
            DeliveryOutput::Released { ids, tried } => {
                for id in ids {
                    self.put(id, if tried { Place::ReadyAgain } else { Place::Ready });
                }
            }
            DeliveryOutput::Exhausted(failure) => {
                self.traffic.condemned.insert(hop, (failure, self.intake.frontier()));
            }
            DeliveryOutput::Postponed(text) => self.postpone(hop, &text),
            DeliveryOutput::Event(event) => self.event(event),
        }
    }

    fn end_delivery(&mut self, hop: HopId) {
        self.traffic.deliveries.remove(&hop);
        self.traffic.set_deadline(hop, None);
        let lookups: Vec<LookupId> =
            self.traffic.lookups.iter().filter(|&(_, &of)| of == hop).map(|(&lookup, _)| lookup).collect();
        for lookup in lookups {
            self.traffic.lookups.remove(&lookup);
            self.traffic.resolver.cancel(lookup);
        }
        if self.queue.ready_count(hop) > 0 {
            self.traffic.runnable.insert(hop);
        }
        self.queue.release_hop(hop);
    }

    /// A connection can take transactions.
    fn want_work(&mut self, hop: HopId, connection: ConnectionId) {
        if self.ledger.is_congested() && !self.is_draining() {
            self.traffic.parked.push((hop, connection));
            return;
        }
        let Some(delivery) = self.traffic.deliveries.get(&hop) else { return };
        let others_wait = !self.has_free_connection() && !self.traffic.waiting.is_empty();
        let had_its_share =
            delivery.lane_count() > 1 || delivery.transactions_of(connection) >= FAIR_SHARE_TRANSACTIONS;
        let must_quit = self.is_draining() || (others_wait && had_its_share);
        let ids = if must_quit { Vec::new() } else { self.claim_for(hop) };
        if ids.is_empty() {
            return self.with_delivery(hop, |delivery, cx| delivery.quit_lane(cx, connection));
        }
        self.ask(StoreRequest::Claim { ids: ids.clone() }, Asked::Work { hop, connection, ids });
    }

    /// Takes a fair share of the ready mail of a next hop, so that further connections find something to do.
    fn claim_for(&mut self, hop: HopId) -> Vec<MailId> {
        let ready = usize::try_from(self.queue.ready_count(hop)).unwrap_or(usize::MAX);
        let connections = usize::try_from(self.settings.destination_concurrency).unwrap_or(usize::MAX).max(1);
        let messages = ready.div_ceil(connections).clamp(1, CLAIM_LIMIT_MESSAGES);
        self.queue.claim(hop, messages, TRANSACTION_RECIPIENT_LIMIT)
    }

    /// A connection is about to begin a transaction: now, or when the rate limit allows it.
    fn permit(&mut self, hop: HopId, connection: ConnectionId) {
        let now = self.now.monotonic;
        let allowed = match (self.settings.rate_limit, self.queue.next_hop(hop)) {
            (Some(limit), Some(next_hop)) => {
                let pace = self.traffic.paces.entry(next_hop.clone()).or_insert_with(|| Pace::full(now));
                let allowed = pace.take(limit, now);
                if self.traffic.paces.len() > DELIVERY_LIMIT {
                    self.traffic.paces.retain(|_, pace| !pace.is_full(now));
                }
                allowed
            }
            _ => Ok(()),
        };
        match allowed {
            Ok(()) => self.with_delivery(hop, |delivery, cx| delivery.begin(cx, connection)),
            Err(at) if at <= now + IDLE_LIMIT => {
                self.traffic.held_back.insert((at, hop, connection));
            }
            Err(at) => {
                self.traffic.paused.insert(hop, at);
                self.with_delivery(hop, |delivery, cx| delivery.close(cx));
            }
        }
    }

    /// Opens a further connection, if mail waits and there is one to be had.
    fn widen(&mut self, hop: HopId) {
        let is_worth_it = self.queue.ready_count(hop) > 0
            && self.traffic.waiting.is_empty()
            && self.has_free_connection()
            && !self.is_draining();
        self.with_delivery(hop, |delivery, cx| {
            if is_worth_it && delivery.may_widen(cx) {
                delivery.open_lane(cx);
            } else {
                delivery.widen_later(cx);
            }
        });
    }

    fn has_free_connection(&self) -> bool {
        let limit = usize::try_from(self.settings.concurrency).unwrap_or(usize::MAX);
        self.traffic.connections.len() < limit
    }

    /// This machine is in trouble with a next hop: no mail has failed, and it is left alone for a moment.
    fn postpone(&mut self, hop: HopId, text: &str) {
        let next_hop = self.queue.next_hop(hop).map(|next_hop| format!("{next_hop}")).unwrap_or_default();
        self.event(Event::warning(format!(
            "mail to {next_hop} has to wait, without a failed attempt: {text}"
        )));
        if self.mode == Mode::Daemon {
            self.traffic.paused.insert(hop, self.now.monotonic + LOCAL_PAUSE);
            return;
        }
        for id in self.queue.claim_up_to(hop, MailId(i64::MAX), usize::MAX) {
            self.forget(id);
        }
    }

    /// Takes the answer to a claim; rows that do not exist any more are forgotten.
    fn claimed(
        &mut self,
        hop: HopId,
        ids: &[MailId],
        result: Result<StoreReply, StoreError>,
    ) -> Option<(Vec<ClaimedTransaction>, Vec<MailId>)> {
        let (transactions, left_over) = match result {
            Ok(StoreReply::Claimed { transactions, left_over }) => (transactions, left_over),
            Ok(_) => return None,
            Err(error) => {
                self.note(Level::Error, format!("cannot read mail, trying again: {error}"));
                self.traffic.paused.insert(hop, self.now.monotonic + LOCAL_PAUSE);
                for &id in ids {
                    self.put(id, Place::Ready);
                }
                return None;
            }
        };
        let mut found: BTreeSet<MailId> = left_over.iter().copied().collect();
        found.extend(transactions.iter().flat_map(|transaction| transaction.rows.iter().map(|row| row.id)));
        for &id in ids {
            if !found.contains(&id) {
                self.forget(id);
            }
        }
        Some((transactions, left_over))
    }

    /// Makes a transaction of those rows that still have this next hop and are still to be tried.
    fn prepare(&mut self, hop: HopId, claimed: ClaimedTransaction) -> Option<Transaction> {
        let mut recipients = Vec::new();
        let mut reverse_path = None;
        for row in claimed.rows {
            let is_as_known = self.standing_of(&row) != Standing::GivenUp
                && destination(&row).ok().as_ref() == self.queue.next_hop(hop);
            let sender = row.sender.as_deref().map(Mailbox::parse).transpose();
            match (sender, Mailbox::parse(&row.recipient)) {
                (Ok(sender), Ok(recipient)) if is_as_known => {
                    reverse_path = sender;
                    recipients.push((row.id, recipient));
                }
                _ => {
                    self.queue.place(row.id, Place::Ready);
                    self.take_in(&row);
                }
            }
        }
        if recipients.is_empty() {
            return None;
        }
        Some(Transaction { reverse_path, recipients, data_octets: claimed.data_octets, head: claimed.head })
    }
}
