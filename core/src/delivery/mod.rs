//! One pass over the ready mail of one next hop: lookup, candidates, connections, verdicts.
//!
//! A delivery first finds *one* candidate that connects and negotiates. Only then, and only while mail keeps waiting,
//! does it open further connections, all to that candidate. When the last connection to a candidate is gone, the pass
//! goes on with the next candidate; when none is left, everything that is still ready has failed.

mod itinerary;
mod lane;
mod verdict;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use self::itinerary::{DeadEnd, Itinerary, Step};
use self::lane::{Bears, Lane, LaneOutput};
pub(crate) use self::verdict::Failure;
use self::verdict::Tally;
use crate::address::{Domain, Mailbox};
use crate::event::Event;
use crate::io::{CloseReason, ConnectError, ConnectionId};
use crate::next_hop::{Host, NextHop};
use crate::outbox::MailId;
use crate::reply::ReplyClass;
use crate::resolver::Answer;
use crate::rng::{Rng, Seed};
use crate::route::Candidate;
use crate::session::{EndCause, Phase, SessionEnd, Transaction};
use crate::settings::{Hosts, Settings};
use crate::time::{Duration, Instant};

/// How long one candidate is waited for (CONTRACT: connect 30 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long mail has to keep waiting before a further connection is opened. A server that answers quickly gets
/// everything over one connection within this time.
const WIDEN_INTERVAL: Duration = Duration::from_millis(100);

/// What a delivery works with, but does not own.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) settings: &'a Settings,
    pub(crate) hosts: &'a Hosts,
    pub(crate) ids: &'a mut ConnectionIds,
}

/// What the connections of all deliveries are begun with.
#[derive(Debug, Default)]
pub(crate) struct ConnectionIds {
    /// The next id: an even one, because the resolver uses the odd ones.
    next: u64,
    /// What the next sessions draw from, in place of what their deliveries would give them.
    preset_seeds: VecDeque<Seed>,
}

impl ConnectionIds {
    pub(crate) fn preset_seeds(&mut self, seeds: impl IntoIterator<Item = Seed>) {
        self.preset_seeds.extend(seeds);
    }

    fn next(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next);
        self.next = self.next.wrapping_add(2);
        id
    }
}

/// What a delivery asks its dispatcher to do, or tells it.
#[derive(Debug)]
pub(crate) enum DeliveryOutput {
    /// Answered by [`Delivery::handle_answer`].
    LookupMx(Domain),
    /// Answered by [`Delivery::handle_answer`].
    LookupAddresses(Domain),
    Connect(ConnectionId, SocketAddr),
    StartTls(ConnectionId, Host),
    Transmit(ConnectionId),
    /// The connection is done with.
    Close(ConnectionId),
    /// The connection can take transactions: answered by [`Delivery::handle_work`] or [`Delivery::handle_no_work`].
    WantWork(ConnectionId),
    /// A transaction is about to begin: answered by [`Delivery::begin`] or, later, when the rate allows it.
    WantPermission(ConnectionId),
    /// Answered by [`Delivery::handle_data`].
    WantData {
        connection: ConnectionId,
        id: MailId,
        offset: u64,
        limit: u32,
    },
    Delivered {
        id: MailId,
        event: Event,
    },
    Failed {
        id: MailId,
        recipient: Mailbox,
        failure: Failure,
    },
    /// Nothing was decided about these. `tried` if their transaction had begun.
    Released {
        ids: Vec<MailId>,
        tried: bool,
    },
    /// No candidate is left: all mail that is ready now has failed.
    Exhausted(Failure),
    /// This machine is in trouble: try again a little later. No mail has failed.
    Postponed(String),
    Event(Event),
}

/// One pass over the mail of one next hop.
#[derive(Debug)]
pub(crate) struct Delivery {
    next_hop: NextHop,
    rng: Rng,
    itinerary: Itinerary,
    stage: Stage,
    lanes: BTreeMap<ConnectionId, Lane>,
    /// Most connections that the candidate is believed to bear.
    lane_limit: usize,
    /// The connection that was opened first.
    first_connection: Option<ConnectionId>,
    /// When to look whether a further connection is worth it.
    widen_at: Option<Instant>,
    /// Servers that are not padded again in this pass.
    unpadded: Vec<SocketAddr>,
    /// Servers that cannot cope with batches of commands or with chunks, although they offer that.
    unbatched: Vec<SocketAddr>,
    tally: Tally,
    outputs: VecDeque<DeliveryOutput>,
}

#[derive(Debug)]
enum Stage {
    /// A lookup is under way.
    LookingUp,
    /// This candidate is to be connected to, or is being talked to.
    Candidate(Candidate),
    /// Nothing new is begun.
    Closing,
}

impl Delivery {
    /// Begins a pass.
    pub(crate) fn new(next_hop: NextHop, rng: Rng, cx: &mut Context<'_>) -> Self {
        let mut delivery = Self {
            itinerary: Itinerary::new(&next_hop, cx.settings),
            next_hop,
            rng,
            stage: Stage::LookingUp,
            lanes: BTreeMap::new(),
            lane_limit: usize::MAX,
            first_connection: None,
            widen_at: None,
            unpadded: Vec::new(),
            unbatched: Vec::new(),
            tally: Tally::default(),
            outputs: VecDeque::new(),
        };
        delivery.advance(cx);
        delivery
    }

    /// Whether the pass is over.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Closing) && self.lanes.is_empty() && self.outputs.is_empty()
    }

    /// Whether the pass cannot go on without a connection.
    pub(crate) fn needs_lane(&self) -> bool {
        matches!(self.stage, Stage::Candidate(_)) && self.lanes.is_empty()
    }

    /// Whether a further connection could be made to the candidate.
    pub(crate) fn may_widen(&self, cx: &Context<'_>) -> bool {
        let established = self.lanes.values().filter(|lane| lane.is_established()).count();
        let limit = usize::try_from(cx.settings.destination_concurrency).unwrap_or(usize::MAX);
        matches!(self.stage, Stage::Candidate(_))
            // Never more on trial than have been a success.
            && self.lanes.len() < established.saturating_mul(2)
            && self.lanes.len() < self.lane_limit.min(limit)
    }

    /// Whether mail has kept waiting for so long that a further connection is worth it; asking begins a new wait.
    pub(crate) fn take_widening(&mut self, now: Instant) -> bool {
        self.widen_at.take_if(|at| *at <= now).is_some()
    }

    /// Sets the timer for a further connection if one is wanted and can be made, and stops it otherwise.
    pub(crate) fn schedule_widening(&mut self, cx: &Context<'_>, is_wanted: bool) {
        if is_wanted && self.may_widen(cx) {
            self.widen_at.get_or_insert(cx.now + WIDEN_INTERVAL);
        } else {
            self.widen_at = None;
        }
    }

    /// Where this pass goes to.
    pub(crate) fn next_hop(&self) -> &NextHop {
        &self.next_hop
    }

    /// The connection that was opened first, by which a pass can be known.
    pub(crate) fn first_connection(&self) -> Option<ConnectionId> {
        self.first_connection
    }

    /// What a connection goes to, and what its session draws from, once there is one.
    pub(crate) fn connection(&self, connection: ConnectionId) -> Option<(&Candidate, Option<&Seed>)> {
        let Stage::Candidate(candidate) = &self.stage else { return None };
        self.lanes.get(&connection).map(|lane| (candidate, lane.seed()))
    }

    /// How many connections there are.
    pub(crate) fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// How many transactions a connection has been given so far.
    pub(crate) fn transactions_of(&self, connection: ConnectionId) -> u32 {
        self.lanes.get(&connection).map_or(0, Lane::transactions)
    }

    /// Connects to the candidate.
    pub(crate) fn open_lane(&mut self, cx: &mut Context<'_>) {
        let Stage::Candidate(candidate) = &self.stage else { return };
        let connection = cx.ids.next();
        self.first_connection.get_or_insert(connection);
        let text = format!("connecting to {}", verdict::describe(candidate));
        self.outputs.push_back(DeliveryOutput::Event(Event::debug(text)));
        self.outputs.push_back(DeliveryOutput::Connect(connection, candidate.remote));
        self.lanes.insert(connection, Lane::connecting(cx.now + CONNECT_TIMEOUT));
        self.widen_at = None;
    }

    /// Takes the answer to the lookup that is under way.
    pub(crate) fn handle_answer(&mut self, cx: &mut Context<'_>, answer: Answer) {
        if !matches!(self.stage, Stage::LookingUp) {
            return;
        }
        let result = match answer {
            Answer::Mx(answer) => self.itinerary.handle_exchanges(answer, cx.settings, &mut self.rng),
            Answer::Addresses(answer) => self.itinerary.handle_addresses(answer, cx.settings),
        };
        match result {
            Ok(()) => self.advance(cx),
            Err(DeadEnd::Failed(failure)) => self.exhaust(failure),
            Err(DeadEnd::Local(text)) => self.postpone(text),
        }
    }

    pub(crate) fn handle_connected(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        let Stage::Candidate(candidate) = &self.stage else { return };
        let Some(lane) = self.lanes.get_mut(&connection).filter(|lane| lane.is_connecting()) else { return };
        let bears = Bears {
            padding: !self.unpadded.contains(&candidate.remote),
            batches: !self.unbatched.contains(&candidate.remote),
        };
        // Drawn in any case, so that a preset does not shift what is drawn later.
        let drawn = self.rng.seed();
        let seed = cx.ids.preset_seeds.pop_front().unwrap_or(drawn);
        lane.begin_session(cx, candidate, &self.next_hop, bears, seed);
        self.drain_lane(cx, connection);
    }

    pub(crate) fn handle_connect_failed(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        error: ConnectError,
    ) {
        if !self.lanes.get(&connection).is_some_and(Lane::is_connecting) {
            return;
        }
        self.lanes.remove(&connection);
        self.outputs.push_back(DeliveryOutput::Close(connection));
        match error {
            ConnectError::Local(text) => self.postpone(text),
            ConnectError::Remote(text) => self.lose_candidate(cx, false, |tally, candidate| {
                tally.unreachable(candidate, &text);
            }),
        }
    }

    pub(crate) fn handle_received(&mut self, cx: &mut Context<'_>, connection: ConnectionId, octets: &[u8]) {
        self.with_lane(cx, connection, |lane, now| lane.handle_received(now, octets));
    }

    pub(crate) fn handle_tls_established(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        valid: bool,
    ) {
        self.with_lane(cx, connection, |lane, now| lane.handle_tls_established(now, valid));
    }

    pub(crate) fn handle_tls_failed(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        reason: String,
    ) {
        self.with_lane(cx, connection, |lane, now| lane.handle_tls_failed(now, reason));
    }

    pub(crate) fn handle_closed(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        reason: CloseReason,
    ) {
        if self.lanes.get(&connection).is_some_and(Lane::is_connecting) {
            let error = ConnectError::Remote("the connection was closed".into());
            return self.handle_connect_failed(cx, connection, error);
        }
        self.with_lane(cx, connection, |lane, now| lane.handle_closed(now, reason));
    }

    /// Gives a connection transactions to do.
    pub(crate) fn handle_work(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        work: Vec<Transaction>,
    ) {
        if self.lanes.contains_key(&connection) {
            self.with_lane(cx, connection, |lane, now| lane.take_work(now, work));
        } else {
            let ids = work
                .iter()
                .flat_map(|transaction| transaction.recipients.iter().map(|(id, _)| *id))
                .collect();
            self.outputs.push_back(DeliveryOutput::Released { ids, tried: false });
        }
    }

    /// Begins the next transaction of a connection.
    pub(crate) fn begin(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        self.with_lane(cx, connection, Lane::begin);
    }

    /// Gives a connection a piece of mail data; an empty one says that there is no such data any more.
    pub(crate) fn handle_data(&mut self, cx: &mut Context<'_>, connection: ConnectionId, octets: Bytes) {
        self.with_lane(cx, connection, |lane, now| lane.supply_data(now, octets));
    }

    /// There is no work for a connection that has asked for some.
    pub(crate) fn handle_no_work(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        self.with_lane(cx, connection, Lane::take_no_work);
    }

    /// Whether a connection has work that has not begun.
    pub(crate) fn has_work(&self, connection: ConnectionId) -> bool {
        self.lanes.get(&connection).is_some_and(Lane::has_work)
    }

    /// Takes back what a connection has not begun, which then asks for work again.
    pub(crate) fn exchange_work(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        self.with_lane(cx, connection, |lane, _| lane.exchange_work());
    }

    /// Ends one connection as soon as its conversation allows it.
    pub(crate) fn quit_lane(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        self.with_lane(cx, connection, Lane::quit);
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let due: Vec<ConnectionId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.poll_timeout().is_some_and(|at| at <= cx.now))
            .map(|(&connection, _)| connection)
            .collect();
        for connection in due {
            if self.lanes.get(&connection).is_some_and(Lane::is_connecting) {
                self.lanes.remove(&connection);
                self.outputs.push_back(DeliveryOutput::Close(connection));
                self.lose_candidate(cx, false, |tally, candidate| {
                    tally.unreachable(candidate, "connection timed out");
                });
            } else {
                self.with_lane(cx, connection, Lane::handle_timeout);
            }
        }
    }

    /// Ends the pass without a failure of anything: what runs may finish, what has not begun is released.
    pub(crate) fn close(&mut self, cx: &mut Context<'_>) {
        self.stage = Stage::Closing;
        let connections: Vec<ConnectionId> = self.lanes.keys().copied().collect();
        for connection in connections {
            if self.lanes.get(&connection).is_some_and(Lane::is_connecting) {
                self.lanes.remove(&connection);
                self.outputs.push_back(DeliveryOutput::Close(connection));
            } else {
                self.quit_lane(cx, connection);
            }
        }
    }

    /// Gives up all connections at once.
    pub(crate) fn abort(&mut self) {
        self.stage = Stage::Closing;
        for (connection, mut lane) in core::mem::take(&mut self.lanes) {
            self.outputs.push_back(DeliveryOutput::Released { ids: lane.abandon(), tried: true });
            self.outputs.push_back(DeliveryOutput::Close(connection));
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<DeliveryOutput> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        limit: usize,
        octets: &mut BytesMut,
    ) -> bool {
        let Some(lane) = self.lanes.get_mut(&connection) else { return false };
        let more = lane.poll_transmit(cx.now, limit, octets);
        // What was sent may have set off a request for more data.
        self.drain_lane(cx, connection);
        more
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let widen =
            self.widen_at.filter(|_| !self.lanes.is_empty() && matches!(self.stage, Stage::Candidate(_)));
        self.lanes.values().filter_map(Lane::poll_timeout).chain(widen).min()
    }

    fn with_lane(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        act: impl FnOnce(&mut Lane, Instant),
    ) {
        if let Some(lane) = self.lanes.get_mut(&connection) {
            act(lane, cx.now);
            self.drain_lane(cx, connection);
        }
    }

    /// The one place where what a lane has to say is taken in.
    fn drain_lane(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        while let Some(output) = self.lanes.get_mut(&connection).and_then(Lane::poll_output) {
            match output {
                LaneOutput::StartTls(host) => {
                    self.outputs.push_back(DeliveryOutput::StartTls(connection, host))
                }
                LaneOutput::Transmit => self.outputs.push_back(DeliveryOutput::Transmit(connection)),
                LaneOutput::WantWork => {
                    if matches!(self.stage, Stage::Closing) {
                        if let Some(lane) = self.lanes.get_mut(&connection) {
                            lane.quit(cx.now);
                        }
                    } else {
                        self.outputs.push_back(DeliveryOutput::WantWork(connection));
                    }
                }
                LaneOutput::WantPermission => {
                    self.outputs.push_back(DeliveryOutput::WantPermission(connection))
                }
                LaneOutput::WantData { id, offset, limit } => {
                    self.outputs.push_back(DeliveryOutput::WantData { connection, id, offset, limit });
                }
                LaneOutput::Delivered { id, event } => {
                    self.outputs.push_back(DeliveryOutput::Delivered { id, event });
                }
                LaneOutput::Failed { id, recipient, failure } => {
                    self.outputs.push_back(DeliveryOutput::Failed { id, recipient, failure })
                }
                LaneOutput::Released { ids, tried } => {
                    self.outputs.push_back(DeliveryOutput::Released { ids, tried });
                }
                LaneOutput::Sent(octets) => {
                    self.outputs.push_back(DeliveryOutput::Event(Event::Sent(connection, octets)));
                }
                LaneOutput::SentData(octets) => {
                    self.outputs.push_back(DeliveryOutput::Event(Event::SentData(connection, octets)));
                }
                LaneOutput::Received(octets) => {
                    self.outputs.push_back(DeliveryOutput::Event(Event::Received(connection, octets)));
                }
                LaneOutput::Note(text) => self.outputs.push_back(DeliveryOutput::Event(Event::debug(text))),
                LaneOutput::Ended(end) => self.end_lane(cx, connection, end),
            }
        }
    }

    fn end_lane(&mut self, cx: &mut Context<'_>, connection: ConnectionId, end: SessionEnd) {
        let Some(mut lane) = self.lanes.remove(&connection) else { return };
        let ids = lane.abandon();
        if !ids.is_empty() {
            self.outputs.push_back(DeliveryOutput::Released { ids, tried: false });
        }
        self.outputs.push_back(DeliveryOutput::Close(connection));
        let Stage::Candidate(candidate) = &self.stage else { return };
        if lane.is_established() {
            self.tally.useful();
        }
        let was_padded = !self.unpadded.contains(&candidate.remote);
        if end.padding_failed && was_padded {
            self.unpadded.push(candidate.remote);
        }
        let was_batched = !self.unbatched.contains(&candidate.remote);
        if end.needs_caution && was_batched {
            self.unbatched.push(candidate.remote);
        }
        match end.cause {
            EndCause::Quit => {
                if self.lanes.is_empty() {
                    self.stage = Stage::Closing;
                }
            }
            EndCause::Local(text) => self.postpone(text),
            // A server that dropped because of the padding is connected to once more without.
            EndCause::Lost(_) | EndCause::Refused(..) if end.phase == Phase::Padding && was_padded => {}
            // The same for one that could not follow.
            EndCause::Lost(_) if end.needs_caution && was_batched => {}
            // One that has decided something on this connection is worth another.
            EndCause::Refused(..) | EndCause::Unsuitable(_) | EndCause::Lost(_) if lane.has_decided() => {}
            EndCause::Refused(reply, command) => {
                let for_good = matches!(end.phase, Phase::Greeting | Phase::Ehlo)
                    && reply.class() == ReplyClass::Permanent;
                self.lose_candidate(cx, lane.went_on_in_plain_text(), |tally, candidate| {
                    tally.refused(candidate, &reply, command, for_good);
                });
            }
            EndCause::Unsuitable(text) => {
                self.lose_candidate(cx, lane.went_on_in_plain_text(), |tally, candidate| {
                    tally.unsuitable(candidate, &text);
                });
            }
            EndCause::Lost(text) => {
                self.lose_candidate(cx, lane.went_on_in_plain_text(), |tally, candidate| {
                    tally.lost(candidate, &text);
                });
            }
        }
    }

    /// A connection to the candidate ended or was not made, and had decided nothing.
    fn lose_candidate(
        &mut self,
        cx: &mut Context<'_>,
        plain_twin_is_used_up: bool,
        note: impl FnOnce(&mut Tally, &Candidate),
    ) {
        if !self.lanes.is_empty() {
            // It serves others: it merely bears no more connections than these.
            self.lane_limit = self.lanes.len();
            return;
        }
        let Stage::Candidate(candidate) = &self.stage else { return };
        note(&mut self.tally, candidate);
        if plain_twin_is_used_up {
            self.itinerary.skip_plain_twin(candidate);
        }
        self.advance(cx);
    }

    /// Goes on to the next candidate.
    fn advance(&mut self, cx: &mut Context<'_>) {
        self.lane_limit = usize::MAX;
        self.widen_at = None;
        self.stage = match self.itinerary.next(cx.settings, cx.hosts) {
            Step::LookupMx(domain) => {
                self.outputs.push_back(DeliveryOutput::LookupMx(domain));
                Stage::LookingUp
            }
            Step::LookupAddresses(name) => {
                self.outputs.push_back(DeliveryOutput::LookupAddresses(name));
                Stage::LookingUp
            }
            Step::Try(candidate) => Stage::Candidate(candidate),
            Step::Exhausted => {
                let failure = self.tally.conclude(&self.next_hop, self.itinerary.detail());
                return self.exhaust(failure);
            }
        };
    }

    fn exhaust(&mut self, failure: Failure) {
        self.stage = Stage::Closing;
        self.outputs.push_back(DeliveryOutput::Exhausted(failure));
    }

    fn postpone(&mut self, text: String) {
        if self.lanes.is_empty() {
            self.stage = Stage::Closing;
            self.outputs.push_back(DeliveryOutput::Postponed(text));
        } else {
            self.lane_limit = self.lanes.len();
            self.outputs.push_back(DeliveryOutput::Event(Event::warning(text)));
        }
    }
}
