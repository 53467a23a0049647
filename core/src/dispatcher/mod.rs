//! The facade that an executor drives: groups the outbox by next hop, owns the deliveries, and keeps the limits.
//!
//! `Dispatcher::pump` drains all children until none has anything to say; only then does the executor see the outputs.

mod books;
mod bounces;
mod check;
mod commits;
mod configuration;
mod deliveries;
mod explain;
mod held;
mod hold_news;
mod inspect;
mod orders;
mod outbox_scan;
mod outlet;
mod recent_attempts;
mod requests;
mod rescan;
mod run;
mod set_aside;
mod signing;
mod store_side;
mod survey;
mod suspects;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use self::books::Books;
use self::deliveries::Deliveries;
pub use self::inspect::{
    ConnectionCounts, ConnectionFacts, DestinationCounts, Load, Owed, PassId, SlowHost, Standing,
    TroubledHost,
};
use self::requests::{Asked, wrong_kind};
use self::run::Progress;
use self::signing::NotSigned;
pub use self::survey::{Survey, SurveyRow};
use crate::dkim::SignTrouble;
use crate::event::Level;
use crate::io::{ConnectionId, Input, Output};
use crate::next_hop::NextHop;
use crate::outbox::{RequestId, StoreError, StoreReply};
pub use crate::queue::MailPlaces;
use crate::rng::Rng;
use crate::settings::{Hosts, Settings};
use crate::tally::Tally;
use crate::time::{Duration, Instant, Now};

/// Time that sessions get to finish after a drain was requested. Less than the 5 s after which everything must be over, so that
/// the last verdicts can still be committed.
const DRAIN_SESSIONS: Duration = Duration::from_secs(4);
/// Time after which a drain ends, whatever is still open. The driver needs the rest of the 5 s to close everything.
const DRAIN_LIMIT: Duration = Duration::from_millis(4750);
/// Consecutive failures of the database after which a one-shot pass gives up.
const ONE_SHOT_STORE_FAILURES: u32 = 5;

/// The task of a dispatcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Deliver and bounce until a drain is asked for.
    Daemon,
    /// One pass over some of the due mail, without bounces.
    Deliver(Selection),
    /// One pass that makes bounces and delivers nothing.
    GenerateBounces,
    /// Carry out the [orders](crate::order) of the administrator and deliver nothing. Orders to try mail now stand until a daemon runs.
    CarryOutOrders,
}

/// The mail that a one-shot pass delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Mail without `mail_remote` whose recipient's domain leads to this next hop.
    Domain(NextHop),
    /// Mail whose `mail_remote` is exactly this.
    Remote(Box<[u8]>),
}

/// The reason for which a timer is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutReason {
    /// The outbox is to be scanned, or rows that a scan found are to be indexed.
    Scan,
    /// Mail becomes due.
    MailDue,
    /// A lookup waits for a name server.
    Lookup,
    /// A policy is to be fetched again, or has waited too long for its turn.
    Policy,
    /// A delivery waits for a peer.
    Delivery,
    /// A next hop may be tried again after trouble of our own, or because the rate allows it.
    Pause,
    /// A request to the database is to be repeated.
    Store,
    /// The drain ends.
    Drain,
}

/// Delivers the outbox.
///
/// # Order of calls
///
/// After [`new`](Self::new), and after each [`handle_input`](Self::handle_input), [`handle_timeout`](Self::handle_timeout) and
/// [`poll_transmit`](Self::poll_transmit), call [`poll_output`](Self::poll_output) until it returns `None`, and act on the
/// outputs in their order. Then wait for an input, but not longer than [`poll_timeout`](Self::poll_timeout) says. Any other order
/// of calls is harmless, but may cause delay: an input for a connection, query or request that is over does nothing, nor does a
/// timeout that comes too early.
///
/// Answer each [`Output::Store`] exactly once, with success or failure. Answers come in the order of the requests; only those to
/// requests for pieces of mail data may come in any order. Carry out an [`Output::Release`] before any request that follows it.
///
/// Input that was received before a deadline counts if it is passed in before [`handle_timeout`](Self::handle_timeout) is called
/// with a later time. So read the clock, then the sockets, and use that reading of the clock for both. Nothing is left to do after
/// [`Output::Drained`].
///
/// # Time
///
/// Each call takes [`Now`], the readings of two clocks. The monotonic clock must not go back; if it does, deadlines come late,
/// and nothing else happens. It may leap forward, as it does after a machine was suspended. The wall clock may jump in either
/// direction: it only decides which mail is due and which times are recorded.
///
/// # What is bounded
///
/// Outputs wait in memory until they are taken. Nothing is requested twice, so at most a few outputs wait for each connection,
/// DNS query and request; but each further input may add an event. So an executor that cannot go on stops passing inputs in, and
/// reads no sockets meanwhile. There are at most [`concurrency`](Settings::concurrency) connections for mail. Each holds at most
/// the mail data that one claim brings, and one piece. One scan for new rows, one rescan of a slice and one commit are under way
/// at a time. A waiting mail costs less than 100 octets.
///
/// # Transmission
///
/// [`poll_transmit`](Self::poll_transmit) returns whether it has appended octets. Call it when [`Output::Transmit`] says so, and
/// again each time the socket has taken what it appended, until it returns false. So a connection never buffers more than about
/// `limit` octets for a peer that does not read.
#[derive(Debug)]
pub struct Dispatcher {
    books: Books,
    deliveries: Deliveries,
    has_given_up: bool,
}

impl Dispatcher {
    /// Returns a dispatcher that has done nothing yet. All randomness comes from `seed`, including values that others must not
    /// guess, so take it from the operating system. `hosts` are the entries of `/etc/hosts`; it may be empty.
    pub fn new(now: Now, settings: Settings, hosts: Hosts, mode: Mode, seed: [u8; 32]) -> Self {
        let mut rng = Rng::from_seed(seed);
        let key_basis = rng.next_u64();
        let mut deliveries = Deliveries::new(&settings, hosts, rng.fork());
        deliveries.resolver().check_validation(now.monotonic);
        let mut books = Books::new(now, settings, mode, key_basis, rng.fork());
        deliveries.reconfigure_policies(&books);
        books.recover();
        books.orders.look();
        books.carry_out_orders();
        books.scan_new();
        Self { books, deliveries, has_given_up: false }
    }

    /// Processes one input.
    pub fn handle_input(&mut self, now: Now, input: Input<'_>) {
        self.books.now = now;
        let Self { books, deliveries, .. } = self;
        match input {
            Input::Connected(connection) => deliveries.connected(books, connection),
            Input::ConnectFailed(connection, error) => deliveries.connect_failed(books, connection, error),
            Input::Received(connection, octets) => deliveries.received(books, connection, octets),
            Input::TlsEstablished { connection, tls } => {
                deliveries.tell_probe_of_tls(books, connection, tls);
                deliveries.with_connection(books, connection, |delivery, cx| {
                    delivery.handle_tls_established(cx, connection, tls);
                });
            }
            Input::TlsFailed(connection, reason) => {
                deliveries.with_connection(books, connection, |delivery, cx| {
                    delivery.handle_tls_failed(cx, connection, reason);
                });
            }
            Input::Closed(connection, reason) => deliveries.closed(books, connection, reason),
            Input::Datagram { query, from, octets } => {
                deliveries.resolver().handle_datagram(now.monotonic, query, from, octets);
            }
            Input::DatagramFailed(query, error) => {
                deliveries.resolver().handle_datagram_failed(now.monotonic, query, error);
            }
            Input::Store(request, result) => self.answered(request, result),
            Input::Signed(request, signatures) => self.signed(request, signatures),
            Input::Https(id, answer) => deliveries.https_answered(books, id, answer),
            Input::OutboxChanged => {
                books.scan.note_foreign_write();
                books.orders.look();
                books.scan_new();
            }
            Input::TryNow => self.try_now(),
            Input::Watch(watch) => deliveries.watch(books, watch),
            Input::Hosts(hosts) => deliveries.set_hosts(hosts),
            Input::Resolver(settings) => deliveries.resolver().reconfigure(now.monotonic, settings),
            Input::Settings(settings) => {
                let before = books.reconfigure(*settings);
                deliveries.reconfigure(books, &before);
            }
            Input::Inquiry(id, inquiry) => self.inquire(id, inquiry),
            Input::EndInquiry(id) => self.end_inquiry(id),
            Input::Drain => self.drain(),
        }
        self.pump();
    }

    /// Does what is due. An early call does nothing.
    pub fn handle_timeout(&mut self, now: Now) {
        self.books.now = now;
        self.books.handle_timeout();
        self.deliveries.handle_timeout(&mut self.books);
        self.pump();
    }

    /// Returns the next thing to do. Call it until it returns `None`, after each input, timeout and transmission.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.books.outlet.pop()
    }

    /// Appends up to about `limit` octets that are to be sent on a connection. Returns whether anything was appended. Call it
    /// when [`Output::Transmit`] says so, and then whenever the socket can take more, until it returns false. Everything appended
    /// up to then goes out before anything that follows the next [`Output::Transmit`], and separate from it, as a write and a TLS
    /// record of its own: some servers recognize the end of a message only then.
    pub fn poll_transmit(
        &mut self,
        now: Now,
        connection: ConnectionId,
        limit: usize,
        octets: &mut BytesMut,
    ) -> bool {
        self.books.now = now;
        let more = self.deliveries.transmit(&self.books, connection, limit, octets);
        self.pump();
        more
    }

    /// Returns when to call [`Dispatcher::handle_timeout`], and why. `None` if only an input can change anything.
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        let drain = match self.books.run.progress() {
            Progress::Working => None,
            Progress::Draining(since) if self.deliveries.is_idle() => Some(since + DRAIN_LIMIT),
            Progress::Draining(since) => Some(since + DRAIN_SESSIONS),
            Progress::Drained => return None,
        };
        let of_deliveries = [
            (self.deliveries.next_lookup(), TimeoutReason::Lookup),
            (self.deliveries.next_deadline(), TimeoutReason::Delivery),
            (self.deliveries.next_policy_time(&self.books), TimeoutReason::Policy),
            (self.deliveries.next_pause_end(), TimeoutReason::Pause),
            (self.deliveries.next_recall(&self.books), TimeoutReason::Store),
            (drain, TimeoutReason::Drain),
        ];
        self.books
            .timeouts()
            .into_iter()
            .chain(of_deliveries)
            .filter_map(|(at, reason)| at.map(|at| (at, reason)))
            .min_by_key(|&(at, _)| at)
    }

    /// Returns whether a one-shot pass ended because the database kept failing.
    pub fn has_given_up(&self) -> bool {
        self.has_given_up
    }

    /// Returns the counts of what has happened so far.
    pub fn tally(&self) -> Tally {
        Tally { lookups: self.deliveries.lookups().clone(), ..self.books.outlet.tally.clone() }
    }

    /// Returns the number of mails in the index, for tests and measurements.
    pub fn indexed(&self) -> usize {
        self.books.queue.len()
    }

    /// Drains all children until none has anything to say.
    fn pump(&mut self) {
        if self.books.is_draining() {
            self.end_signing();
        }
        let Self { books, deliveries, .. } = self;
        if books.run.is_drained() {
            return;
        }
        loop {
            if deliveries.drain(books) {
                continue;
            }
            if books.is_draining() {
                break;
            }
            books.carry_out_orders();
            if books.orders.come_first() {
                break;
            }
            books.generate_bounces();
            if !deliveries.recall(books) && !deliveries.start(books) && !deliveries.grant_connections(books) {
                break;
            }
        }
        books.tell_holds();
        books.release();
        books.commit(deliveries.flights());
        deliveries.answer_inquiries(books);
        self.finish_if_done();
        if cfg!(debug_assertions) {
            self.check_often();
        }
    }

    /// Matches an answer of the database with its request. This is the only place that does.
    fn answered(&mut self, request: RequestId, result: Result<StoreReply, StoreError>) {
        let Some(asked) = self.books.store.requests.close(request) else { return };
        let Self { books, deliveries, .. } = self;
        let now = books.now.wall;
        // They were read before, and would be lost if further ones took their place.
        books.index_arrived();
        if let Asked::Bounce { messages, .. } = &asked {
            books.end_reading(*messages);
        }
        match (&asked, result) {
            (Asked::Scan, Ok(StoreReply::Scanned(answer))) => books.scanned(answer),
            (&Asked::Rescan { after, frontier }, Ok(StoreReply::Scanned(answer))) => {
                books.rescanned(after, frontier, answer);
            }
            (Asked::Claim(claim), Ok(StoreReply::Claimed(answer))) => {
                books.store.requests.succeeded();
                books.note_unsigned(&answer.transactions);
                if answer.is_to_be_signed() {
                    return books.sign(claim.clone(), answer);
                }
                books.store.held.begin(answer.rows(), now);
                deliveries.claimed(books, claim, answer, Vec::new());
            }
            (&Asked::Data { hop, connection, .. }, Ok(StoreReply::Data(octets))) => {
                books.store.requests.succeeded();
                deliveries.data_read(books, hop, connection, octets);
            }
            (Asked::Bounce { ids, .. }, Ok(StoreReply::Failed { messages, left_over, unreadable })) => {
                books.store.requests.succeeded();
                messages.iter().for_each(|message| books.store.held.begin_failed(message, now));
                books.failed_read(ids, messages, left_over, unreadable);
            }
            (Asked::Recall { ids, reason }, Ok(StoreReply::Recalled { rows, unreadable })) => {
                books.store.requests.succeeded();
                books.store.held.begin(&rows, now);
                deliveries.recalled(books, ids, reason, rows, unreadable);
            }
            (Asked::Commit, Ok(StoreReply::Committed(answer))) => {
                books.store.requests.succeeded();
                let flights = deliveries.flights();
                flights.recorded();
                if !answer.lacks_policies {
                    deliveries.policies_stored(&books.commits.policies_in_flight());
                }
                books.committed(answer);
                deliveries.resume(books);
            }
            (Asked::Recover, Ok(StoreReply::Recovered(found))) => {
                books.store.requests.succeeded();
                books.recovered(found);
            }
            (Asked::Orders, Ok(StoreReply::Orders(part))) => {
                if books.order_read(part) {
                    deliveries.forget_troubles();
                }
            }
            (Asked::CarryOut(step), Ok(StoreReply::CarriedOut(answer))) => {
                books.store.requests.succeeded();
                books.order_carried_out(step, answer);
            }
            (Asked::Policy(domain), Ok(StoreReply::Policy(stored))) => {
                deliveries.policy_read(books, domain, Ok(stored));
            }
            (Asked::StalePolicies, Ok(StoreReply::StalePolicies(stale))) => {
                deliveries.stale_policies_read(books, stale);
            }
            (_, Ok(_)) => self.store_failed(asked, wrong_kind()),
            (_, Err(error)) => self.store_failed(asked, error),
        }
    }

    /// Handles a failure of the database.
    fn store_failed(&mut self, asked: Asked, error: StoreError) {
        let Self { books, deliveries, .. } = self;
        books.outlet.tally.count_store_error();
        let failures = books.store.requests.failed();
        match asked {
            Asked::Scan => books.scan_failed(&error),
            Asked::Rescan { after, .. } => books.rescan_failed(after),
            Asked::Claim(claim) => deliveries.claim_failed(books, &claim, &error),
            // Nobody but the database answers so, and it was not asked.
            Asked::Sign(claim, answer) => {
                let unsigned = |_| Err(NotSigned::Trouble(SignTrouble::NoAnswer));
                let signed = answer.transactions.iter().map(unsigned).collect();
                books.store.held.begin(answer.rows(), books.now.wall);
                deliveries.claimed(books, &claim, answer, signed);
            }
            Asked::Data { hop, connection, id } => {
                books.data_failed(id, error);
                deliveries.data_read(books, hop, connection, Bytes::new());
            }
            Asked::Bounce { ids, .. } => books.failed_not_read(&ids, &error),
            Asked::Recall { ids, reason } => deliveries.recall_failed(books, &ids, &reason, &error),
            Asked::Commit => {
                deliveries.flights().not_recorded();
                books.commit_failed(&error);
            }
            Asked::Recover => books.recovery_failed(&error),
            Asked::Orders | Asked::CarryOut(_) => books.order_failed(&error),
            Asked::Policy(domain) => deliveries.policy_read(books, &domain, Err(error)),
            // They are asked for again and again.
            Asked::StalePolicies => deliveries.stale_policies_read(books, Vec::new()),
        }
        let is_one_shot = !books.run.is_daemon();
        if is_one_shot && failures >= ONE_SHOT_STORE_FAILURES && !books.is_draining() {
            self.has_given_up = true;
            self.drain();
        }
    }

    /// Makes all waiting mail ready, as the administrator orders.
    fn try_now(&mut self) {
        if !self.books.is_draining() && self.books.run.is_daemon() {
            self.deliveries.forget_troubles();
            self.books.try_now();
        }
    }

    fn drain(&mut self) {
        if self.books.run.drain(self.books.now.monotonic) {
            self.deliveries.close_all(&mut self.books);
        }
    }

    fn finish_if_done(&mut self) {
        let Self { books, deliveries, .. } = self;
        let now = books.now.monotonic;
        let passed = |since: Instant, span: Duration| now >= since + span;
        let is_done = match books.run.progress() {
            Progress::Working => {
                !books.run.is_daemon()
                    && deliveries.is_idle()
                    && !deliveries.flights().has_marks()
                    && books.have_nothing_to_do()
            }
            Progress::Draining(since) => {
                if passed(since, DRAIN_SESSIONS) && !deliveries.is_idle() {
                    deliveries.abort_all(books);
                    books.release();
                    books.commit(deliveries.flights());
                }
                // What the database is about to hold must be released.
                let is_recorded = books.commits.is_empty() && !deliveries.flights().has_marks();
                let is_over = deliveries.is_idle() && is_recorded && !books.store.requests.ask_for_mail();
                is_over || passed(since, DRAIN_LIMIT)
            }
            Progress::Drained => false,
        };
        if is_done {
            if let Some(loss) = books.unrecorded() {
                books.note(Level::Error, loss);
            }
            books.release_set_aside();
            books.run.end();
            books.output(Output::Drained);
        }
    }
}
