//! The deliveries, their connections and lookups, and the limits that they share.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use bytes::BytesMut;

use super::gates::Gates;
use super::pace::Paces;
use super::timers::HopTimers;
use super::waiting_line::WaitingLine;
use super::windows::Windows;
use super::{Asked, Dispatcher, Mode};
use crate::delivery::{ConnectionIds, Context, Delivery, DeliveryOutput, Failure};
use crate::event::Event;
use crate::io::{CloseReason, ConnectError, ConnectionId, Output, Purpose};
use crate::outbox::{Cursor, DATA_CHUNK_OCTETS, MailId, StoreRequest};
use crate::queue::{HopId, Order, Place};
use crate::reachability::Reachability;
use crate::resolver::{Families, LookupId, Resolver, ResolverOutput};
use crate::rng::Rng;
use crate::settings::Settings;
use crate::shown::shortened;
use crate::time::{Duration, Instant};

/// Most next hops that are worked on at once, most of them waiting for name servers.
const DELIVERY_LIMIT: usize = 1000;
/// Most next hops that are worked on at once, with those that wait for a host that others are connected to.
const DELIVERY_LIMIT_WITH_WAITING: usize = 10_000;
/// How long a next hop is left alone after trouble of our own.
pub(super) const LOCAL_PAUSE: Duration = Duration::from_secs(2);
/// So many mails in a row that ended every connection put the blame on themselves; with the next it is on the next hop.
const SUSPICION_LIMIT: u32 = 3;
/// How much mail of a next hop that has failed as a whole is recorded at once.
const CONDEMN_LIMIT: usize = 1000;

/// Everything that is under way.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) resolver: Resolver,
    rng: Rng,
    pub(super) ids: ConnectionIds,
    pub(super) deliveries: BTreeMap<HopId, Delivery>,
    /// When each delivery wants to be called.
    pub(super) deadlines: HopTimers,
    pub(super) connections: BTreeMap<ConnectionId, HopId>,
    lookups: BTreeMap<LookupId, HopId>,
    /// The lookup that a delivery waits for.
    lookup_of: BTreeMap<HopId, LookupId>,
    /// Deliveries that may have something to say.
    pub(super) touched: BTreeSet<HopId>,
    /// Next hops that may have ready mail, and no delivery.
    pub(super) runnable: BTreeSet<HopId>,
    /// After which next hop to go on, so that all get their turn.
    last_started: HopId,
    /// Deliveries that cannot go on without a connection, in the order in which they came.
    pub(super) waiting: WaitingLine,
    /// Deliveries that would like a further connection, if there were one to be had.
    pub(super) crowded: BTreeSet<HopId>,
    /// Deliveries that keep connections without work, by the time at which the first is not kept any more.
    pub(super) resting: HopTimers,
    /// Connections that were told to end because somebody needs their place.
    pub(super) leaving: BTreeSet<ConnectionId>,
    pub(super) gates: Gates,
    pub(super) windows: Windows,
    pub(super) reachability: Reachability,
    /// Next hops that are left alone for a while.
    pub(super) paused: HopTimers,
    /// Next hops of which mail has failed as a whole.
    condemned: BTreeMap<HopId, Condemned>,
    /// How often in a row mail of a next hop ended every connection, so that nothing was decided.
    suspicions: BTreeMap<HopId, u32>,
    /// How many claims of a next hop the database has not answered.
    pub(super) claims: BTreeMap<HopId, u32>,
    /// How many claims of mail that leads nowhere the database has not answered.
    pub(super) unroutable_claims: u32,
    /// Connections that wait for the database to recover.
    pub(super) parked: Vec<(HopId, ConnectionId)>,
    /// As of which change of the outbox connections have claimed what they have not begun.
    pub(super) claimed_at: BTreeMap<ConnectionId, u64>,
    /// Connections that wait until the rate limit allows their next transaction.
    pub(super) held_back: BTreeSet<(Instant, HopId, ConnectionId)>,
    pub(super) paces: Paces,
}

/// Mail that has failed as a whole.
#[derive(Debug)]
struct Condemned {
    failure: Failure,
    /// Where the mail ends that is concerned.
    end: Cursor,
    /// Whether it is only about mail that was tried; not known before all mail of the pass is back.
    only_tried: Option<bool>,
}

impl Traffic {
    pub(super) fn new(settings: &Settings, mut rng: Rng) -> Self {
        Self {
            resolver: Resolver::new(settings.resolver.clone(), rng.fork()),
            rng,
            ids: ConnectionIds::default(),
            deliveries: BTreeMap::new(),
            deadlines: HopTimers::default(),
            connections: BTreeMap::new(),
            lookups: BTreeMap::new(),
            lookup_of: BTreeMap::new(),
            touched: BTreeSet::new(),
            runnable: BTreeSet::new(),
            last_started: HopId::NOWHERE,
            waiting: WaitingLine::default(),
            crowded: BTreeSet::new(),
            resting: HopTimers::default(),
            leaving: BTreeSet::new(),
            gates: Gates::default(),
            windows: Windows::new(),
            reachability: Reachability::new(),
            paused: HopTimers::default(),
            condemned: BTreeMap::new(),
            suspicions: BTreeMap::new(),
            claims: BTreeMap::new(),
            unroutable_claims: 0,
            parked: Vec::new(),
            claimed_at: BTreeMap::new(),
            held_back: BTreeSet::new(),
            paces: Paces::default(),
        }
    }

    /// Whether another next hop can be worked on.
    pub(super) fn has_room_for_delivery(&self) -> bool {
        let at_work = self.deliveries.len().saturating_sub(self.gates.waiting_count());
        at_work < DELIVERY_LIMIT && self.deliveries.len() < DELIVERY_LIMIT_WITH_WAITING
    }

    /// Whether no delivery is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// When the first delivery, or the first connection that is held back, wants to be called.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let held_back = self.held_back.first().map(|&(at, ..)| at);
        self.deadlines.first().map(|(at, _)| at).into_iter().chain(held_back).min()
    }

    /// When the first next hop that is left alone may be tried again.
    pub(super) fn next_pause_end(&self) -> Option<Instant> {
        self.paused.first().map(|(at, _)| at)
    }

    pub(super) fn mail_is_ready(&mut self, hop: HopId) {
        if self.deliveries.contains_key(&hop) {
            // A further connection may be worth it.
            self.touched.insert(hop);
        } else {
            self.runnable.insert(hop);
        }
    }

    /// What went wrong before does not count any more.
    pub(super) fn forgive(&mut self) {
        self.reachability.clear();
        self.gates.all_have_news();
        self.runnable.extend(self.paused.clear());
    }

    /// Somebody of this next hop has been decided, so its connections are of use.
    pub(super) fn is_of_use(&mut self, hop: HopId) {
        self.suspicions.remove(&hop);
    }

    /// Whether mail that ended every connection makes it wise not to begin with the oldest.
    pub(super) fn order_for(&self, hop: HopId) -> Order {
        if self.suspicions.contains_key(&hop) { Order::NewestFirst } else { Order::OldestFirst }
    }

    /// What is left although nothing is under way.
    #[cfg(test)]
    pub(super) fn leftovers(&self) -> Vec<alloc::string::String> {
        let sizes = [
            ("deliveries", self.deliveries.len()),
            ("deadlines", usize::from(self.deadlines.first().is_some())),
            ("connections", self.connections.len()),
            ("lookups", self.lookups.len() + self.lookup_of.len()),
            ("touched", self.touched.len()),
            ("waiting", self.waiting.len() + self.gates.waiting_count()),
            ("resting", usize::from(self.resting.first().is_some())),
            ("leaving", self.leaving.len()),
            ("paused", usize::from(self.paused.first().is_some())),
            ("condemned", self.condemned.len()),
            ("claims", self.claims.len()),
            ("unroutable claims", usize::try_from(self.unroutable_claims).unwrap()),
            ("parked", self.parked.len()),
            ("held back", self.held_back.len()),
            ("lookups of the resolver", usize::from(!self.resolver.is_idle())),
        ];
        sizes.iter().filter(|(_, size)| *size > 0).map(|(what, size)| format!("{size} {what}")).collect()
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
        while let Some(hop) = self.traffic.deadlines.pop_due(now) {
            self.with_delivery(hop, |delivery, cx| delivery.handle_timeout(cx));
            self.widen(hop);
        }
        while let Some(entry) = self.traffic.held_back.first().copied().filter(|&(at, ..)| at <= now) {
            self.traffic.held_back.remove(&entry);
            self.permit(entry.1, entry.2);
        }
        while let Some(hop) = self.traffic.paused.pop_due(now) {
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
                        self.traffic.lookup_of.remove(&hop);
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
            self.settle_delivery(hop);
        }
        moved
    }

    /// Begins to work on next hops that have ready mail; whether on any.
    pub(super) fn start_deliveries(&mut self) -> bool {
        let mut moved = false;
        while self.traffic.has_room_for_delivery() && !self.ledger.is_congested() {
            let after = self.traffic.last_started;
            let turn = self.traffic.runnable.range(after..).find(|&&hop| hop > after);
            let Some(&hop) = turn.or_else(|| self.traffic.runnable.first()) else { break };
            self.traffic.runnable.remove(&hop);
            self.traffic.last_started = hop;
            let is_held_up = self.traffic.paused.contains(hop)
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
                reachability: &self.traffic.reachability,
                ids: &mut self.traffic.ids,
            };
            let delivery = Delivery::new(next_hop, self.traffic.rng.fork(), &mut cx);
            self.traffic.deliveries.insert(hop, delivery);
            self.traffic.touched.insert(hop);
            moved = true;
        }
        moved
    }

    /// Records the failure of mail whose next hop has failed as a whole, a part of it at a time.
    ///
    /// Where a connection ended in the middle of a mail, the mail may be to blame: then only what was tried has failed,
    /// and the rest begins a pass of its own. But a next hop that ends every connection is not asked for each mail.
    pub(super) fn condemn(&mut self) {
        while self.ledger.pending_count() < CONDEMN_LIMIT && !self.ledger.is_congested() {
            let claims = &self.traffic.claims;
            let next = self.traffic.condemned.iter_mut().find(|(hop, _)| !claims.contains_key(*hop));
            let Some((&hop, condemned)) = next else { return };
            let only_tried = *condemned.only_tried.get_or_insert_with(|| {
                let suspicion = self.traffic.suspicions.entry(hop).or_default();
                *suspicion += 1;
                *suspicion <= SUSPICION_LIMIT && self.queue.is_partly_tried(hop)
            });
            let failure = condemned.failure.clone();
            let ids = if only_tried {
                self.queue.claim_tried(hop, CONDEMN_LIMIT)
            } else {
                self.traffic.suspicions.remove(&hop);
                self.queue.claim_up_to(hop, condemned.end, CONDEMN_LIMIT)
            };
            if ids.is_empty() {
                self.traffic.condemned.remove(&hop);
                self.traffic.runnable.insert(hop);
            }
            let whom = self.queue.next_hop(hop).map(|next_hop| format!("for {next_hop}")).unwrap_or_default();
            for id in ids {
                self.record_failure(id, &whom, &failure);
            }
        }
    }

    /// Ends all deliveries as soon as their conversations allow it.
    pub(super) fn close_deliveries(&mut self) {
        let hops: Vec<HopId> = self.traffic.deliveries.keys().copied().collect();
        for hop in hops {
            self.with_delivery(hop, |delivery, cx| delivery.close(cx));
        }
        // What is held back, parked or paused would never be let go.
        self.traffic.paused = HopTimers::default();
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

    pub(super) fn with_delivery(&mut self, hop: HopId, act: impl FnOnce(&mut Delivery, &mut Context<'_>)) {
        let Some(delivery) = self.traffic.deliveries.get_mut(&hop) else { return };
        let mut cx = Context {
            now: self.now.monotonic,
            settings: &self.settings,
            hosts: &self.hosts,
            reachability: &self.traffic.reachability,
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
                self.begin_lookup(hop, lookup);
            }
            DeliveryOutput::LookupAddresses(name) => {
                // Both families are asked for, whichever can be used: a name with only the other one does exist.
                let families = Families { ipv4: true, ipv6: true };
                let lookup = self.traffic.resolver.lookup_addresses(now, &name, families);
                self.begin_lookup(hop, lookup);
            }
            DeliveryOutput::Connect(connection, candidate) => {
                self.traffic.connections.insert(connection, hop);
                self.traffic.gates.opened(connection, &candidate, now);
                let remote = candidate.remote;
                self.outputs.push_back(Output::Connect { connection, remote, purpose: Purpose::Smtp });
            }
            DeliveryOutput::StartTls(connection, server) => {
                self.outputs.push_back(Output::StartTls { connection, server });
            }
            DeliveryOutput::Transmit(connection) => self.outputs.push_back(Output::Transmit(connection)),
            DeliveryOutput::Close(connection) => {
                self.traffic.connections.remove(&connection);
                self.traffic.gates.closed(connection);
                self.traffic.leaving.remove(&connection);
                self.traffic.claimed_at.remove(&connection);
                self.outputs.push_back(Output::Close(connection));
            }
            DeliveryOutput::Unreachable { connection, candidate, trouble, text } => {
                self.is_unreachable(hop, connection, &candidate, trouble, text);
            }
            DeliveryOutput::Answered(connection) => self.has_answered(connection),
            DeliveryOutput::PushedBack(connection) => self.has_pushed_back(hop, connection),
            DeliveryOutput::NeedsCaution(remote) => self.traffic.reachability.is_confused(remote, now),
            DeliveryOutput::Authenticated(login, mechanism) => {
                self.traffic.reachability.record_login(login, mechanism, now);
            }
            DeliveryOutput::WantWork(connection) => {
                self.is_established(connection);
                self.want_work(hop, connection);
            }
            DeliveryOutput::WantPermission(connection) => self.permit(hop, connection),
            DeliveryOutput::WantData { connection, id, offset, limit } => {
                let limit = limit.min(u32::try_from(DATA_CHUNK_OCTETS).unwrap_or(u32::MAX));
                self.ask(StoreRequest::ReadData { id, offset, limit }, Asked::Data { hop, connection });
            }
            DeliveryOutput::Delivered { id, event } => {
                self.event(event);
                self.traffic.is_of_use(hop);
                self.has_taken_mail(hop);
                self.ledger.delivered(id);
            }
            DeliveryOutput::Failed { id, recipient, failure } => {
                self.traffic.is_of_use(hop);
                self.record_failure(id, &format!("to <{}>", shortened(recipient.as_str())), &failure);
            }
            DeliveryOutput::Released { ids, tried } => {
                for id in ids {
                    self.put(id, if tried { Place::ReadyAgain } else { Place::Ready });
                }
            }
            DeliveryOutput::Exhausted(failure) => {
                let condemned = Condemned { failure, end: self.intake.frontier(), only_tried: None };
                self.traffic.condemned.insert(hop, condemned);
            }
            DeliveryOutput::Postponed(text) => self.postpone(hop, &text),
            DeliveryOutput::Event(event) => self.event(event),
        }
    }

    fn begin_lookup(&mut self, hop: HopId, lookup: LookupId) {
        self.traffic.lookups.insert(lookup, hop);
        self.traffic.lookup_of.insert(hop, lookup);
    }

    pub(super) fn end_delivery(&mut self, hop: HopId) {
        self.traffic.deliveries.remove(&hop);
        self.traffic.deadlines.set(hop, None);
        self.traffic.resting.set(hop, None);
        self.traffic.crowded.remove(&hop);
        self.traffic.gates.forget(hop);
        self.traffic.waiting.remove(hop);
        if let Some(lookup) = self.traffic.lookup_of.remove(&hop) {
            self.traffic.lookups.remove(&lookup);
            self.traffic.resolver.cancel(lookup);
        }
        if self.queue.ready_count(hop) > 0 {
            self.traffic.runnable.insert(hop);
        } else if !self.traffic.claims.contains_key(&hop) && !self.traffic.condemned.contains_key(&hop) {
            self.traffic.suspicions.remove(&hop);
        }
        self.queue.release_hop(hop);
    }

    /// This machine is in trouble with a next hop: no mail has failed, and it is left alone for a moment.
    fn postpone(&mut self, hop: HopId, text: &str) {
        let next_hop = self.queue.next_hop(hop).map(|next_hop| format!("{next_hop}")).unwrap_or_default();
        self.event(Event::warning(format!(
            "mail to {next_hop} has to wait, without a failed attempt: {text}"
        )));
        if self.mode == Mode::Daemon {
            self.traffic.paused.set(hop, Some(self.now.monotonic + LOCAL_PAUSE));
            return;
        }
        for id in self.queue.claim_up_to(hop, Cursor::After(MailId(i64::MAX)), usize::MAX) {
            self.forget(id);
        }
    }
}
