//! One pass over the ready mail of one next hop: lookup, candidates, connections, verdicts.
//!
//! A delivery first finds *one* candidate that connects and negotiates. Only then, and only while mail keeps waiting, does it
//! open further connections, all to that candidate. When the last connection to a candidate is gone, the pass goes on with the
//! next candidate. When no candidate is left, all mail that is still ready has failed.

mod candidate_search;
mod connection;
mod connection_end;
mod connection_ids;
mod connections;
mod context;
mod course_recorder;
mod dane_search;
mod domain_share;
mod idle_connections;
mod inspection;
mod observation;
mod output;
mod pass_record;
mod refusals;
mod route_origin;
mod scout;
mod search_notes;
mod transaction_queue;
mod tried_candidates;
mod verdicts;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use core::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use self::candidate_search::{CandidateSearch, DeadEnd};
use self::connection::{Allowed, Connection};
pub(crate) use self::connection_ids::ConnectionIds;
use self::connections::Connections;
pub(crate) use self::context::{Admission, DeliveryContext, Permission, Upcoming};
use self::course_recorder::CourseRecorder;
pub(crate) use self::inspection::Holder;
pub use self::observation::Owed;
pub(crate) use self::output::{DeliveryOutput, Postponement};
use self::pass_record::PassRecord;
use self::refusals::Refusals;
pub(crate) use self::scout::{Found, Scout, ScoutStep};
use self::search_notes::SearchNotes;
pub(crate) use self::tried_candidates::PassFailure;
use crate::attempt::{Failure, Setback};
use crate::event::{Event, EventName};
use crate::io::{CloseReason, ConnectError, ConnectionId, Tls};
use crate::next_hop::{NextHop, Relay};
use crate::outbox::MailId;
use crate::reachability::{Login, Trouble};
use crate::resolver::Answer;
use crate::rng::{Rng, Seed};
use crate::route::Candidate;
use crate::sasl::Mechanism;
use crate::session::Transaction;
use crate::sts::{Finding, LocalFindTrouble};
use crate::system_error::{Breakage, NetworkTrouble, SystemError};
use crate::tally::ConnectionFailure;
use crate::time::{Duration, Instant};
use crate::wording::ServerName;

/// Timeout of connecting to one candidate.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for which a pass that has delivered mail opens further connections by what it has looked up. TLSA records bind only as long as
/// they are published (RFC 7671 section 5.1), and a destination with mail all the time would never look again.
const ROUTE_SPAN: Duration = Duration::from_secs(60 * 60);

/// One pass over the mail of one next hop.
#[derive(Debug)]
pub(crate) struct Delivery {
    next_hop: NextHop,
    rng: Rng,
    search: CandidateSearch,
    /// What the search has met.
    notes: SearchNotes,
    stage: DeliveryStage,
    connections: Connections,
    /// When the lookup began that led to the connections.
    routed_at: Instant,
    /// What is known of the refusals of the candidate.
    refusals: Refusals,
    /// The record of the pass.
    pass: PassRecord,
    outputs: VecDeque<DeliveryOutput>,
}

#[derive(Debug)]
enum DeliveryStage {
    /// A lookup is under way.
    LookingUp,
    /// This candidate is being connected to, or has connections.
    Candidate(Candidate),
    /// Nothing new begins.
    Closing,
}

impl Delivery {
    /// Returns a pass that begins at this time. It must be [started](Self::start).
    /// `last_server` is the server of mail that may have arrived there already: it is tried first.
    pub(crate) fn new(next_hop: NextHop, rng: Rng, now: Instant, last_server: Option<SocketAddr>) -> Self {
        Self {
            search: CandidateSearch::new(&next_hop).preferring(last_server),
            notes: SearchNotes::default(),
            next_hop,
            rng,
            stage: DeliveryStage::LookingUp,
            connections: Connections::new(),
            routed_at: now,
            refusals: Refusals::default(),
            pass: PassRecord::new(now),
            outputs: VecDeque::new(),
        }
    }

    /// Takes the first step.
    pub(crate) fn start(&mut self, cx: &mut DeliveryContext<'_>) {
        self.advance(cx);
    }

    /// Returns whether the pass is over.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, DeliveryStage::Closing) && self.connections.is_empty() && self.outputs.is_empty()
    }

    /// Returns whether the pass cannot proceed without a connection, or without a further one within `limit`.
    pub(crate) fn needs_connection(&self, limit: usize) -> bool {
        matches!(self.stage, DeliveryStage::Candidate(_))
            && (self.connections.is_empty()
                || (self.has_mail_to_go_first() && self.connections.len() < limit))
    }

    /// Returns whether refused mail waits for a connection on which it goes first.
    pub(crate) fn has_mail_to_go_first(&self) -> bool {
        self.refusals.is_waiting() && !self.refusals.are_too_many()
    }

    /// Takes the mail that goes first on this connection.
    pub(crate) fn take_first(&mut self, connection: ConnectionId) -> Vec<MailId> {
        self.refusals.take_first(connection)
    }

    /// Returns the candidate that connections are made to.
    pub(crate) fn candidate(&self) -> Option<&Candidate> {
        if let DeliveryStage::Candidate(candidate) = &self.stage { Some(candidate) } else { None }
    }

    /// Returns whether a further connection to the candidate is possible within `limit`.
    pub(crate) fn may_widen(&self, limit: usize) -> bool {
        matches!(self.stage, DeliveryStage::Candidate(_))
            && !self.refusals.is_retrying()
            && !self.refusals.are_too_many()
            && self.connections.may_widen(limit)
    }

    /// Takes the timer for a further connection, if it has expired. Returns whether it had.
    pub(crate) fn take_widening(&mut self, now: Instant) -> bool {
        self.connections.take_widening(now)
    }

    /// Sets the timer for a further connection if one is worth it, and clears it otherwise.
    pub(crate) fn schedule_widening(&mut self, now: Instant, is_worth_it: bool) {
        self.connections.schedule_widening(now, is_worth_it);
    }

    /// Returns the next hop of this pass.
    pub(crate) fn next_hop(&self) -> &NextHop {
        &self.next_hop
    }

    /// Returns the connection that was opened first, which identifies the pass.
    pub(crate) fn first_connection(&self) -> Option<ConnectionId> {
        self.connections.first()
    }

    /// Returns the candidate of a connection, and the seed of its session once there is one.
    pub(crate) fn connection(&self, connection: ConnectionId) -> Option<(&Candidate, Option<&Seed>)> {
        let DeliveryStage::Candidate(candidate) = &self.stage else { return None };
        self.connections.get(connection).map(|conn| (candidate, conn.seed()))
    }

    /// Returns whether a lookup is under way.
    pub(crate) fn is_looking_up(&self) -> bool {
        matches!(self.stage, DeliveryStage::LookingUp)
    }

    /// Returns the mail that is neither decided nor returned.
    pub(crate) fn undecided(&self) -> Vec<MailId> {
        self.connections.undecided().chain(self.refusals.first().iter().copied()).collect()
    }

    /// Returns the mail of one connection that is neither decided nor returned.
    pub(crate) fn undecided_on(&self, connection: ConnectionId) -> Vec<MailId> {
        self.connections.get(connection).map_or(Vec::new(), Connection::undecided)
    }

    /// Connects to the candidate.
    pub(crate) fn connect(&mut self, cx: &mut DeliveryContext<'_>) {
        let DeliveryStage::Candidate(candidate) = &self.stage else { return };
        if self.pass.has_taken && cx.now >= self.routed_at + ROUTE_SPAN {
            return self.close(cx);
        }
        let connection = cx.admission.open(candidate, self.search.is_at_last_resorts());
        self.begin_connecting(cx, connection);
    }

    /// Connects to the next candidate, if a slot is free now. Outputs about the candidate before it that are not yet processed
    /// may concern this one too, so they are waited for.
    fn try_connect(&mut self, cx: &mut DeliveryContext<'_>) {
        let DeliveryStage::Candidate(candidate) = &self.stage else { return };
        if self.connections.is_empty()
            && self.outputs.is_empty()
            && let Some(connection) = cx.admission.try_open(candidate, self.search.is_at_last_resorts())
        {
            self.begin_connecting(cx, connection);
        }
    }

    fn begin_connecting(&mut self, cx: &DeliveryContext<'_>, connection: ConnectionId) {
        let DeliveryStage::Candidate(candidate) = &self.stage else { return };
        let text = format!("connecting to {}", ServerName(&candidate.host, candidate.remote));
        self.outputs.push_back(DeliveryOutput::Event(Event::debug(EventName::Connection, text)));
        let (remote, local) = (candidate.remote, candidate.policy.bind.facing(candidate.remote));
        self.outputs.push_back(DeliveryOutput::Connect { connection, remote, local });
        let searched_since = self.connections.first().is_none().then_some(self.routed_at);
        let top = self.notes.top(cx, self.pass.tried.iter());
        let recorder = CourseRecorder::new(cx, connection, &self.next_hop, searched_since, top);
        self.connections.insert(connection, Connection::connecting(cx.now + CONNECT_TIMEOUT, recorder));
        self.refusals.open(connection);
    }

    /// Processes the answer to the lookup that is under way.
    pub(crate) fn handle_answer(&mut self, cx: &mut DeliveryContext<'_>, answer: Answer) {
        if !matches!(self.stage, DeliveryStage::LookingUp) {
            return;
        }
        self.notes.note_answer(cx, &self.next_hop, self.search.host(), &answer);
        let announce = cx.announce;
        match self.search.handle_answer(answer, &self.next_hop, cx.policies, announce, &mut self.rng) {
            Ok(()) => self.advance(cx),
            Err(dead_end) => self.meet_dead_end(dead_end),
        }
    }

    /// Processes what was found of the MTA-STS policy of the domain.
    pub(crate) fn handle_policy(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        found: Result<Finding, LocalFindTrouble>,
    ) {
        if !matches!(self.stage, DeliveryStage::LookingUp) {
            return;
        }
        self.notes.note_policy(cx, &found);
        match self.search.handle_policy(found) {
            Ok(()) => self.advance(cx),
            Err(dead_end) => self.meet_dead_end(dead_end),
        }
    }

    fn meet_dead_end(&mut self, dead_end: DeadEnd) {
        match dead_end {
            DeadEnd::Unresolved(reason) => self.exhaust(Failure::Unresolved(reason).into()),
            DeadEnd::Local(error) => self.postpone(Postponement::Lookup(error)),
            DeadEnd::Policy(trouble) => self.postpone(Postponement::Policy(trouble)),
        }
    }

    pub(crate) fn handle_connected(&mut self, cx: &mut DeliveryContext<'_>, connection: ConnectionId) {
        let DeliveryStage::Candidate(candidate) = &self.stage else { return };
        let allowed = Allowed {
            padding: !self.pass.unpadded.contains(&candidate.remote),
            pipelining: self.may_batch(cx, candidate.remote),
            groups: self.groups(cx, candidate.remote),
        };
        let Some(conn) = self.connections.get_mut(connection).filter(|conn| conn.is_connecting()) else {
            return;
        };
        // Drawn in any case, so that a preset does not change later draws.
        let drawn = self.rng.seed();
        let seed = cx.admission.preset_seed().unwrap_or(drawn);
        conn.begin_session(cx, candidate, &self.next_hop, allowed, seed);
        self.drain_connection(cx, connection);
    }

    pub(crate) fn handle_connect_failed(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        error: ConnectError,
    ) {
        if !self.connections.is_connecting(connection) {
            return;
        }
        match error {
            ConnectError::Local(error) => {
                self.connections.remove(connection);
                self.refusals.end(connection);
                self.outputs.push_back(DeliveryOutput::NotOpened(ConnectionFailure::Local));
                self.outputs.push_back(DeliveryOutput::Close(connection));
                self.postpone(Postponement::Connect(error));
            }
            ConnectError::Remote(error) => {
                self.lose_connecting(cx, connection, Trouble::Refused, Setback::NotConnected(error));
            }
        }
    }

    pub(crate) fn handle_received(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        octets: &[u8],
    ) {
        self.with_connection(cx, connection, |conn, now| conn.handle_received(now, octets));
    }

    pub(crate) fn handle_tls_established(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        tls: Tls,
    ) {
        self.with_connection(cx, connection, |conn, now| conn.handle_tls_established(now, tls));
    }

    pub(crate) fn handle_tls_failed(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        reason: SystemError<Breakage>,
    ) {
        self.with_connection(cx, connection, |conn, now| conn.handle_tls_failed(now, reason));
    }

    pub(crate) fn handle_closed(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        reason: CloseReason,
    ) {
        if self.connections.is_connecting(connection) {
            let error = ConnectError::remote(NetworkTrouble::Reset, "the connection was closed");
            return self.handle_connect_failed(cx, connection, error);
        }
        self.with_connection(cx, connection, |conn, now| conn.handle_closed(now, reason));
    }

    /// Gives a connection transactions to send.
    pub(crate) fn handle_transactions(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        work: Vec<Transaction>,
    ) {
        let Some(conn) = self.connections.get_mut(connection) else { return };
        conn.take_transactions(cx.now, work);
        if conn.is_quitting() {
            return self.quit_connection(cx, connection);
        }
        self.drain_connection(cx, connection);
    }

    /// Takes out of transactions what the server of a connection would not accept there.
    pub(crate) fn take_unfit(
        &mut self,
        connection: ConnectionId,
        transactions: &mut Vec<Transaction>,
    ) -> Vec<MailId> {
        let conn = self.connections.get_mut(connection);
        conn.map_or(Vec::new(), |conn| conn.take_unfit(transactions))
    }

    /// Begins the next transaction of a connection, if it may.
    pub(crate) fn begin(&mut self, cx: &mut DeliveryContext<'_>, connection: ConnectionId) {
        let Some(conn) = self.connections.get_mut(connection) else { return };
        if !conn.has_transactions() {
            return;
        }
        let DeliveryStage::Candidate(candidate) = &self.stage else { return };
        let limit = candidate.policy.rate_limit;
        let Some(upcoming) = conn.upcoming(&self.next_hop) else { return };
        match cx.admission.permit_transaction(connection, limit, &upcoming) {
            Permission::Granted => conn.begin(cx.now),
            Permission::Later => return,
            Permission::ClaimAgain => {
                self.return_unstarted(connection);
                if let Some(conn) = self.connections.get_mut(connection) {
                    conn.ask_again();
                }
            }
            Permission::NotInThisPass => return self.close(cx),
        }
        self.drain_connection(cx, connection);
    }

    /// Gives a connection a piece of mail data. An empty piece means that the data is gone.
    pub(crate) fn handle_data(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        octets: Bytes,
    ) {
        self.with_connection(cx, connection, |conn, now| conn.supply_data(now, octets));
    }

    /// Answers a request for transactions with none. Returns whether the connection has nothing else to do, and so is to be kept
    /// idle or to quit. If it has, it asks again afterwards.
    pub(crate) fn handle_nothing_claimed(&mut self, connection: ConnectionId) -> bool {
        self.connections.get_mut(connection).is_some_and(Connection::nothing_claimed)
    }

    /// Returns whether a connection has transactions that have not begun.
    pub(crate) fn has_transactions(&self, connection: ConnectionId) -> bool {
        self.connections.get(connection).is_some_and(Connection::has_transactions)
    }

    /// Ends one connection as soon as its conversation allows it.
    pub(crate) fn quit_connection(&mut self, cx: &mut DeliveryContext<'_>, connection: ConnectionId) {
        self.connections.idle.end(connection);
        self.return_unstarted(connection);
        self.with_connection(cx, connection, Connection::quit);
    }

    /// Gives back the mail that a connection has not begun: first to the mail that waits to go first.
    fn return_unstarted(&mut self, connection: ConnectionId) {
        let Some(conn) = self.connections.get_mut(connection) else { return };
        let ids = conn.return_unstarted();
        let ids = self.refusals.return_first(connection, ids);
        self.release(ids, false);
    }

    /// Goes by other policies. A pass that would talk to others by them, or otherwise, ends as soon as its conversations allow it.
    pub(crate) fn reconfigure(&mut self, cx: &mut DeliveryContext<'_>) {
        let mut is_same = self.search.reconfigure(&self.next_hop, cx.policies);
        if let DeliveryStage::Candidate(candidate) = &mut self.stage {
            is_same &= candidate.reconfigure(&self.next_hop, cx.policies);
            self.connections.idle.shorten(cx.now + candidate.policy.idle);
        }
        if !is_same {
            self.close(cx);
        }
    }

    /// Returns the connections whose servers owe a reply, and since when.
    pub(crate) fn silent_connections(&self) -> impl Iterator<Item = (Instant, ConnectionId)> {
        self.connections.iter().filter_map(|(connection, conn)| Some((conn.silent_since()?, connection)))
    }

    /// Returns whether a connection has said QUIT, and only the reply to that is missing.
    pub(crate) fn has_said_quit(&self, connection: ConnectionId) -> bool {
        self.connections.get(connection).is_some_and(Connection::has_said_quit)
    }

    /// Returns whether the candidate was put off, and all others have been tried.
    pub(crate) fn is_at_last_resorts(&self) -> bool {
        self.search.is_at_last_resorts()
    }

    /// Considers a candidate again that has taken nothing in this pass: other deliveries may have found out about it meanwhile.
    pub(crate) fn reconsider(&mut self, cx: &mut DeliveryContext<'_>) {
        if let DeliveryStage::Candidate(candidate) = &self.stage
            && self.connections.is_empty()
            && !self.refusals.has_taken()
        {
            let candidate = candidate.clone();
            if self.consider(cx, candidate).is_none() {
                self.advance(cx);
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut DeliveryContext<'_>) {
        for connection in self.connections.timed_out(cx.now) {
            if self.connections.is_connecting(connection) {
                self.lose_connecting(cx, connection, Trouble::Unreachable, Setback::ConnectTimedOut);
            } else {
                self.with_connection(cx, connection, Connection::handle_timeout);
            }
        }
        for connection in self.connections.idle.due(cx.now) {
            self.quit_connection(cx, connection);
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<DeliveryOutput> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_transmit(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        limit: usize,
        octets: &mut BytesMut,
    ) -> bool {
        let Some(conn) = self.connections.get_mut(connection) else { return false };
        let more = conn.poll_transmit(cx.now, limit, octets);
        // Sending may have caused a request for more data.
        self.drain_connection(cx, connection);
        more
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.connections.poll_timeout(matches!(self.stage, DeliveryStage::Candidate(_)))
    }

    fn with_connection(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        act: impl FnOnce(&mut Connection, Instant),
    ) {
        if let Some(conn) = self.connections.get_mut(connection) {
            act(conn, cx.now);
            self.drain_connection(cx, connection);
        }
    }

    /// Records that a relay has accepted the credentials, or, without a mechanism, has not.
    fn take_login(&mut self, mechanism: Option<Mechanism>) {
        self.pass.refused_logins =
            if mechanism.is_some() { 0 } else { self.pass.refused_logins.saturating_add(1) };
        if let NextHop::Relay(Relay { credentials: Some(credentials), .. }) = &self.next_hop
            && let DeliveryStage::Candidate(candidate) = &self.stage
        {
            let login = Login::new(candidate, credentials);
            self.outputs.push_back(DeliveryOutput::Authenticated(login, mechanism));
        }
    }

    /// Requests transactions for a connection that could begin one.
    fn want_transactions(&mut self, cx: &DeliveryContext<'_>, connection: ConnectionId) {
        let Some(conn) = self.connections.get_mut(connection) else { return };
        if matches!(self.stage, DeliveryStage::Closing) || self.refusals.are_too_many() || conn.is_quitting()
        {
            conn.quit(cx.now);
            return self.return_unstarted(connection);
        }
        let tls = conn.server().and_then(|server| server.tls);
        self.tell_of_fallback();
        self.outputs.push_back(DeliveryOutput::WantTransactions(connection, tls));
    }

    fn release(&mut self, ids: Vec<MailId>, tried: bool) {
        if !ids.is_empty() {
            self.outputs.push_back(DeliveryOutput::Released { ids, tried });
        }
    }
}
