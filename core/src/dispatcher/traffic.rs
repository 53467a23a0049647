//! The deliveries, their connections and lookups, and the limits that they share.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use bytes::BytesMut;

use super::condemned::{Condemned, Recall};
use super::gates::Gates;
use super::lineup::Lineup;
use super::pace::Paces;
use super::timers::HopTimers;
use super::weary::Weary;
use super::windows::Windows;
use super::{Asked, Dispatcher};
use crate::delivery::{ConnectionIds, Context, Delivery, DeliveryOutput, describe};
use crate::event::Event;
use crate::io::{CloseReason, ConnectError, ConnectionId, Output, Purpose};
use crate::memory::Memory;
use crate::next_hop::{Host, NextHop};
use crate::outbox::{DATA_CHUNK_OCTETS, StoreRequest};
use crate::queue::{HopId, Order};
use crate::reachability::Reachability;
use crate::resolver::{Families, LookupId, Resolver, ResolverOutput};
use crate::rng::Rng;
use crate::route::Candidate;
use crate::settings::Settings;
use crate::shown::shortened;
use crate::time::{Duration, Instant};
use crate::turns::{Prospect, Turns};

/// Most next hops that are worked on at once, apart from those that can only wait.
pub(super) const DELIVERY_LIMIT: usize = 1000;
/// Most next hops that wait for name servers at once: several times as many as there are questions at once.
const ASKING_LIMIT: usize = 1000;
/// Most next hops that wait for a host that others are connected to.
const HOST_WAITING_LIMIT: usize = 10_000;
/// How often it is told that mail goes to a host in plain text, although TLS was wanted.
const PLAIN_TEXT_WARNING_SPAN: Duration = Duration::from_secs(3600);
/// Most hosts of which that is remembered. Of more it may be told more often.
const PLAIN_TEXT_HOSTS_LIMIT: usize = 1000;

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
    /// Next hops that may have ready mail and no delivery, and have no turn yet.
    pub(super) runnable: BTreeSet<HopId>,
    pub(super) lineup: Lineup,
    /// Deliveries that cannot go on without a connection.
    pub(super) waiting: Turns<HopId>,
    /// Deliveries that would like a further connection, if there were one to be had.
    pub(super) crowded: BTreeSet<HopId>,
    /// Deliveries that keep connections without work, by the time at which the first is not kept any more.
    pub(super) resting: HopTimers,
    /// Connections that were told to end because somebody needs their place.
    pub(super) leaving: BTreeSet<ConnectionId>,
    /// Connections that have said QUIT, and have not heard the reply to that.
    pub(super) parting: BTreeSet<ConnectionId>,
    /// When to look for connections that are silent, if somebody needs a place then.
    pub(super) next_silence_check: Instant,
    /// Whether somebody needs a place.
    pub(super) is_short: bool,
    pub(super) gates: Gates,
    pub(super) windows: Windows,
    pub(super) reachability: Reachability,
    /// Next hops that are left alone for a while.
    pub(super) paused: HopTimers,
    /// Next hops whose servers have had enough of us.
    pub(super) weary: Weary,
    /// Next hops of which mail has failed as a whole.
    pub(super) condemned: BTreeMap<HopId, Condemned>,
    /// What the database is asked of it.
    pub(super) recall: Recall,
    /// How often in a row mail of a next hop ended every connection, so that nothing was decided.
    pub(super) suspicions: BTreeMap<HopId, u32>,
    /// How many claims of a next hop the database has not answered.
    pub(super) claims: BTreeMap<HopId, u32>,
    /// How many claims of mail that leads nowhere the database has not answered.
    pub(super) unroutable_claims: u32,
    /// Connections that wait for the database to recover.
    pub(super) parked: Vec<(HopId, ConnectionId)>,
    /// Connections whose next transaction waits until what was taken is recorded.
    pub(super) stopped: Vec<(HopId, ConnectionId)>,
    /// As of which change of the outbox connections have claimed what they have not begun.
    pub(super) claimed_at: BTreeMap<ConnectionId, u64>,
    /// Connections that wait until the rate limit allows their next transaction.
    pub(super) held_back: BTreeSet<(Instant, HopId, ConnectionId)>,
    pub(super) paces: Paces,
    /// Hosts of which it was told that mail goes there in plain text, although TLS was wanted.
    told_of_plain_text: Memory<Host, ()>,
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
            lineup: Lineup::new(),
            waiting: Turns::new(),
            crowded: BTreeSet::new(),
            resting: HopTimers::default(),
            leaving: BTreeSet::new(),
            parting: BTreeSet::new(),
            next_silence_check: Instant::default(),
            is_short: false,
            gates: Gates::new(),
            windows: Windows::new(),
            reachability: Reachability::new(),
            paused: HopTimers::default(),
            weary: Weary::default(),
            condemned: BTreeMap::new(),
            recall: Recall::default(),
            suspicions: BTreeMap::new(),
            claims: BTreeMap::new(),
            unroutable_claims: 0,
            parked: Vec::new(),
            stopped: Vec::new(),
            claimed_at: BTreeMap::new(),
            held_back: BTreeSet::new(),
            paces: Paces::default(),
            told_of_plain_text: Memory::new(PLAIN_TEXT_HOSTS_LIMIT),
        }
    }

    /// Whether another next hop can be worked on. Those that only wait, for name servers or for a host, take no room from those
    /// that could go on.
    pub(super) fn has_room_for_delivery(&self) -> bool {
        self.at_work() < DELIVERY_LIMIT && self.gates.waiting_count() < HOST_WAITING_LIMIT
    }

    /// How many next hops are worked on that neither wait nor try a last resort: those have limits of their own.
    pub(super) fn at_work(&self) -> usize {
        let elsewhere = self.gates.waiting_count() + self.lookup_of.len() + self.gates.patient_count();
        self.deliveries.len().saturating_sub(elsewhere)
    }

    /// Whether another next hop may wait for name servers.
    pub(super) fn may_ask(&self) -> bool {
        self.lookup_of.len() < ASKING_LIMIT
    }

    /// Whether a delivery waits for a connection.
    pub(super) fn is_waiting(&self, hop: HopId) -> bool {
        self.waiting.contains(&hop) || self.gates.is_waiting(hop)
    }

    /// Whether no delivery is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// When the first delivery, or the first connection that is held back, wants to be called.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let held_back = self.held_back.first().map(|&(at, ..)| at);
        let silence = Some(self.next_silence_check).filter(|_| self.is_short);
        self.deadlines.first().map(|(at, _)| at).into_iter().chain(held_back).chain(silence).min()
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
        self.weary.clear();
        self.runnable.extend(self.paused.clear());
    }

    /// Somebody of this next hop has been decided, so its connections are of use.
    pub(super) fn note_use(&mut self, hop: HopId) {
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
            ("leaving", self.leaving.len() + self.parting.len()),
            ("places wanted", usize::from(self.is_short)),
            ("paused", usize::from(self.paused.first().is_some())),
            ("weary servers", self.weary.len()),
            ("condemned", self.condemned.len()),
            ("recalls", usize::from(!matches!(self.recall, Recall::Idle))),
            ("claims", self.claims.len()),
            ("unroutable claims", usize::try_from(self.unroutable_claims).unwrap()),
            ("parked", self.parked.len()),
            ("stopped", self.stopped.len()),
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
        if !more && self.has_said_quit(connection) {
            self.traffic.parting.insert(connection);
        }
        more
    }

    fn has_said_quit(&self, connection: ConnectionId) -> bool {
        let hop = self.traffic.connections.get(&connection);
        let delivery = hop.and_then(|hop| self.traffic.deliveries.get(hop));
        delivery.is_some_and(|delivery| delivery.has_said_quit(connection))
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
            self.end_pause(hop);
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
                ResolverOutput::Warning(text) => Output::Event(Event::warning(text)),
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
        self.line_up();
        while self.traffic.has_room_for_delivery() && !self.ledger.is_congested() {
            let may_ask = self.traffic.may_ask();
            let Some(hop) = self.traffic.lineup.pop(may_ask) else { break };
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
            // So that what it asks counts before the next begins.
            self.drain_deliveries();
            moved = true;
        }
        moved
    }

    /// Gives next hops that may have ready mail a turn.
    fn line_up(&mut self) {
        while let Some(hop) = self.traffic.runnable.pop_first() {
            let Some(next_hop) = self.queue.next_hop(hop) else { continue };
            let needs_answer = match next_hop {
                NextHop::Domain(_) => true,
                NextHop::Literal(_) => false,
                NextHop::Relay(relay) => match &relay.host {
                    Host::Name(name) => !self.hosts.contains_key(name),
                    Host::Address(_) => false,
                },
            };
            self.traffic.lineup.push(hop, needs_answer, self.queue.prospect(hop));
        }
    }

    /// Ends all deliveries as soon as their conversations allow it.
    pub(super) fn close_deliveries(&mut self) {
        let hops: Vec<HopId> = self.traffic.deliveries.keys().copied().collect();
        for hop in hops {
            self.with_delivery(hop, |delivery, cx| delivery.close(cx));
        }
        // What is held back, parked, stopped or paused would never be let go.
        self.traffic.paused = HopTimers::default();
        self.traffic.is_short = false;
        self.traffic.held_back.clear();
        self.traffic.parked.clear();
        self.traffic.stopped.clear();
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
                let prospect = self.queue.prospect(hop);
                let lookup = self.traffic.resolver.lookup_mx(now, &domain, prospect);
                self.begin_lookup(hop, lookup);
            }
            DeliveryOutput::LookupAddresses(name) => {
                // Both families are asked for, whichever can be used: a name with only the other one does exist.
                let families = Families { ipv4: true, ipv6: true };
                let prospect = self.queue.prospect(hop);
                let lookup = self.traffic.resolver.lookup_addresses(now, &name, families, prospect);
                self.begin_lookup(hop, lookup);
            }
            DeliveryOutput::Connect(connection, candidate) => {
                self.traffic.connections.insert(connection, hop);
                let is_patient = self.is_last_resort(hop, &candidate);
                self.traffic.gates.opened(connection, &candidate, is_patient, now);
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
                self.traffic.parting.remove(&connection);
                self.traffic.claimed_at.remove(&connection);
                self.outputs.push_back(Output::Close(connection));
            }
            DeliveryOutput::Unreachable { connection, candidate, trouble, text } => {
                self.is_unreachable(hop, connection, &candidate, trouble, text);
            }
            DeliveryOutput::Answered(connection) => self.note_answer(connection),
            DeliveryOutput::PushedBack(connection) => self.note_push_back(hop, connection),
            DeliveryOutput::NeedsCaution(remote) => self.traffic.reachability.note_confusion(remote, now),
            DeliveryOutput::Authenticated(login, mechanism) => {
                self.traffic.reachability.record_login(login, mechanism, now);
            }
            DeliveryOutput::WantWork(connection) => {
                self.note_established(connection);
                self.want_work(hop, connection);
            }
            DeliveryOutput::WantPermission(connection) => self.permit(hop, connection),
            DeliveryOutput::WantData { connection, id, offset, limit } => {
                let limit = limit.min(u32::try_from(DATA_CHUNK_OCTETS).unwrap_or(u32::MAX));
                self.ask(StoreRequest::ReadData { id, offset, limit }, Asked::Data { hop, connection, id });
            }
            DeliveryOutput::Delivered { id, recipient, event } => {
                self.event(event);
                self.traffic.note_use(hop);
                self.note_taken_mail(hop);
                self.note_verdict(hop);
                self.queue.note_attempt(hop, Prospect::Fresh);
                self.ledger.delivered(id, recipient);
            }
            DeliveryOutput::FellBack { candidate, reason } => self.tell_of_plain_text(&candidate, &reason),
            DeliveryOutput::Failed { id, recipient, failure } => {
                self.traffic.note_use(hop);
                self.note_verdict(hop);
                let recipient = shortened(recipient.as_str()).into();
                self.record_failure(id, recipient, None, &failure);
            }
            DeliveryOutput::Released { ids, tried } => {
                for id in ids {
                    self.release(id, tried);
                }
            }
            DeliveryOutput::Exhausted(failure) => {
                self.queue.note_attempt(hop, Prospect::Failed);
                let condemned = Condemned { failure, end: self.intake.frontier(), only_tried: None };
                self.traffic.condemned.insert(hop, condemned);
            }
            DeliveryOutput::HadEnough(text) => self.wait_for_server(hop, &text),
            DeliveryOutput::Postponed(text) => self.postpone(hop, &text),
            DeliveryOutput::Event(event) => self.event(event),
        }
    }

    /// Mail goes in plain text although TLS was wanted: worth a warning, but not for each mail.
    fn tell_of_plain_text(&mut self, candidate: &Candidate, reason: &str) {
        let now = self.now.monotonic;
        if self.traffic.told_of_plain_text.recall(&candidate.host, now).is_some() {
            return;
        }
        let until = now + PLAIN_TEXT_WARNING_SPAN;
        self.traffic.told_of_plain_text.keep(candidate.host.clone(), (), until, now);
        let server = describe(candidate);
        self.event(Event::warning(format!("{server}: mail goes in plain text: {reason}")));
    }

    fn begin_lookup(&mut self, hop: HopId, lookup: LookupId) {
        self.traffic.lookups.insert(lookup, hop);
        self.traffic.lookup_of.insert(hop, lookup);
    }

    pub(super) fn end_delivery(&mut self, hop: HopId) {
        self.traffic.deliveries.remove(&hop);
        self.traffic.weary.end_pass(hop);
        self.traffic.deadlines.set(hop, None);
        self.traffic.resting.set(hop, None);
        self.traffic.crowded.remove(&hop);
        self.traffic.gates.forget(hop);
        self.traffic.waiting.remove(&hop);
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
}
