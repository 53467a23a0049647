//! One connection of a delivery: its session, and the transactions that it still has to send.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::course_recorder::CourseRecorder;
use super::domain_share::DomainShare;
use super::transaction_queue::TransactionQueue;
use super::tried_candidates::server;
use super::{CONNECT_TIMEOUT, DeliveryContext, Owed, Upcoming};
use crate::attempt::{Protection, Server};
use crate::course::{Course, Transcripts};
use crate::io::{CloseReason, Tls};
use crate::next_hop::{NextHop, TlsMode};
use crate::outbox::MailId;
use crate::reachability::Login;
use crate::rng::{Rng, Seed};
use crate::route::Candidate;
use crate::session::{Outcome, Recipient, ServerLimits, Session, SessionConfig, SessionOutput, Transaction};
use crate::system_error::{Breakage, SystemError};
use crate::time::Instant;
use crate::tls::{Groups, TlsTerms};

/// A connection that is being made, or has a session.
#[derive(Debug)]
pub(super) struct Connection {
    link: Link,
    queue: TransactionQueue,
    /// The domains of the recipients that it was given.
    share: DomainShare,
    /// True if the session has negotiated.
    is_established: bool,
    has_decided: bool,
    /// The server, once there is a session.
    server: Option<Arc<Server>>,
    /// True if it was told to end: it takes no more transactions.
    is_quitting: bool,
    /// The seed of the session, once there is one.
    seed: Option<Seed>,
    /// The times of the connection, if attempts tell how they went.
    recorder: Option<Box<CourseRecorder>>,
    /// The first mail of each transaction that has begun and has no verdict yet: one, or two if the envelope of the next went ahead.
    talked_of: VecDeque<MailId>,
    /// True if the driver knows that there is something to send.
    transmit_is_announced: bool,
}

/// What may be sent to a server, as long as it has not shown that it cannot cope.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    pub(super) padding: bool,
    /// Commands in batches.
    pub(super) pipelining: bool,
    /// These groups of key exchange.
    pub(super) groups: Groups,
}

#[derive(Debug)]
enum Link {
    Connecting { deadline: Instant },
    Talking(Box<Talk>),
}

#[derive(Debug)]
struct Talk {
    session: Session,
    candidate: Candidate,
    /// The groups of key exchange that a TLS handshake has offered, or would offer.
    groups: Groups,
}

impl Connection {
    pub(super) fn connecting(deadline: Instant, recorder: Option<CourseRecorder>) -> Self {
        Self {
            link: Link::Connecting { deadline },
            queue: TransactionQueue::default(),
            share: DomainShare::default(),
            is_established: false,
            has_decided: false,
            server: None,
            is_quitting: false,
            seed: None,
            recorder: recorder.map(Box::new),
            talked_of: VecDeque::new(),
            transmit_is_announced: false,
        }
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.link, Link::Connecting { .. })
    }

    pub(super) fn is_established(&self) -> bool {
        self.is_established
    }

    /// Returns whether any mail was decided on this connection.
    pub(super) fn has_decided(&self) -> bool {
        self.has_decided
    }

    /// Returns whether it was told to end.
    pub(super) fn is_quitting(&self) -> bool {
        self.is_quitting
    }

    /// Records that a mail was decided.
    pub(super) fn note_decided(&mut self) {
        self.has_decided = true;
    }

    pub(super) fn begun(&self) -> u32 {
        self.queue.begun()
    }

    /// Returns how many more transactions there may be, if there may be so many on one connection.
    pub(super) fn room_for_transactions(&self, most: Option<u32>) -> usize {
        if self.share.is_used_up() {
            return 0;
        }
        let most = least(most, self.limits().transactions);
        most.map_or(usize::MAX, |most| {
            usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(self.queue.given())
        })
    }

    /// Returns whether the server is told what senders want to be told.
    pub(super) fn offers_dsn(&self) -> bool {
        match &self.link {
            Link::Talking(talk) => talk.session.extensions().dsn,
            Link::Connecting { .. } => false,
        }
    }

    /// Returns what the server says of its limits.
    pub(super) fn limits(&self) -> ServerLimits {
        match &self.link {
            Link::Talking(talk) => talk.session.extensions().limits,
            Link::Connecting { .. } => ServerLimits::default(),
        }
    }

    /// Takes out of transactions what the server would not accept on this connection.
    pub(super) fn take_unfit(&mut self, transactions: &mut Vec<Transaction>) -> Vec<MailId> {
        match self.limits().domains {
            Some(most) => self.share.take_unfit(most, transactions),
            None => Vec::new(),
        }
    }

    /// Returns since when the server has owed a reply, if nothing would be lost by closing the connection.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        match &self.link {
            Link::Connecting { .. } => None,
            Link::Talking(talk) => talk.session.silent_since().filter(|_| !self.has_decided),
        }
    }

    /// Returns what the server owes, and since when.
    pub(super) fn owed(&self) -> Option<(Owed, Instant)> {
        match &self.link {
            Link::Connecting { deadline } => Some((Owed::Connection, *deadline - CONNECT_TIMEOUT)),
            Link::Talking(talk) => Some((Owed::Step(talk.session.phase()), talk.session.owes_since()?)),
        }
    }

    /// Returns whether QUIT is sent, and only its reply is missing.
    pub(super) fn has_said_quit(&self) -> bool {
        if let Link::Talking(talk) = &self.link { talk.session.has_said_quit() } else { false }
    }

    /// Ends the session if it has said QUIT.
    pub(super) fn leave(&mut self, now: Instant) {
        self.with_session(|session| session.leave(now));
    }

    /// Returns whether the conversation is inside TLS.
    pub(super) fn is_tls(&self) -> bool {
        if let Link::Talking(talk) = &self.link { talk.session.is_tls() } else { false }
    }

    /// Returns the terms on which TLS begins.
    pub(super) fn terms(&self) -> Option<Arc<TlsTerms>> {
        if let Link::Talking(talk) = &self.link { Some(Arc::clone(&talk.candidate.plan.terms)) } else { None }
    }

    /// Returns the groups of key exchange that a TLS handshake offers.
    pub(super) fn groups(&self) -> Groups {
        if let Link::Talking(talk) = &self.link { talk.groups } else { Groups::default() }
    }

    /// Returns the seed of the session, once there is one.
    pub(super) fn seed(&self) -> Option<&Seed> {
        self.seed.as_ref()
    }

    /// Returns whether a session that should have used STARTTLS was negotiated without.
    pub(super) fn went_on_in_plain_text(&self) -> bool {
        match &self.link {
            Link::Talking(talk) => {
                self.is_established && talk.candidate.tls == TlsMode::StartTls && !talk.session.is_tls()
            }
            Link::Connecting { .. } => false,
        }
    }

    /// Returns how the conversation is protected.
    pub(super) fn protection(&self) -> Protection {
        if self.is_tls() {
            Protection::Tls
        } else if self.went_on_in_plain_text() {
            Protection::StartTlsNotOffered
        } else {
            Protection::None
        }
    }

    /// Returns the server, once there is a session.
    pub(super) fn server(&self) -> Option<Arc<Server>> {
        self.server.clone()
    }

    pub(super) fn begin_session(
        &mut self,
        cx: &DeliveryContext<'_>,
        candidate: &Candidate,
        next_hop: &NextHop,
        allowed: Allowed,
        seed: Seed,
    ) {
        let credentials = match next_hop {
            NextHop::Relay(relay) => relay.credentials.clone(),
            NextHop::Domain(_) | NextHop::Literal(_) => None,
        };
        let config = SessionConfig {
            announce: cx.announce.into(),
            tls: candidate.tls,
            need: candidate.plan.need,
            plain_fallback: candidate.plain_twin_follows,
            mechanism: credentials.as_ref().and_then(|credentials| {
                cx.reachability.mechanism(&Login::new(candidate, credentials), cx.now)
            }),
            credentials,
            auth_unprotected: cx.auth_insecure || candidate.remote.ip().to_canonical().is_loopback(),
            padding_limit: if allowed.padding { candidate.policy.padding } else { 0 },
            no_pipelining: !(allowed.pipelining && candidate.policy.pipelining),
            trace: cx.is_told(next_hop),
        };
        let mut session = Session::new(config, Rng::from_seed(seed.0), cx.now);
        if let Some(recorder) = &mut self.recorder {
            recorder.note_connected(cx.now, cx.wall);
            if cx.told.transcripts != Transcripts::Never {
                session.keep_transcript();
            }
        }
        self.seed = Some(seed);
        self.server = Some(server(candidate));
        self.link =
            Link::Talking(Box::new(Talk { session, candidate: candidate.clone(), groups: allowed.groups }));
    }

    pub(super) fn handle_received(&mut self, now: Instant, octets: &[u8]) {
        self.with_session(|session| session.handle_received(now, octets));
    }

    pub(super) fn handle_tls_established(&mut self, now: Instant, tls: Tls) {
        let Link::Talking(talk) = &mut self.link else { return };
        talk.session.handle_tls_established(now, &tls);
        if let Some(server) = &mut self.server {
            Arc::make_mut(server).tls = talk.session.proved().map(|proved| tls.summary(proved));
        }
    }

    pub(super) fn handle_tls_failed(&mut self, now: Instant, reason: SystemError<Breakage>) {
        self.with_session(|session| session.handle_tls_failed(now, reason));
    }

    pub(super) fn handle_closed(&mut self, now: Instant, reason: CloseReason) {
        self.with_session(|session| session.handle_closed(now, reason));
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.with_session(|session| session.handle_timeout(now));
    }

    /// Adds transactions to send.
    pub(super) fn take_transactions(&mut self, now: Instant, transactions: Vec<Transaction>) {
        self.queue.add(now, transactions, !self.is_quitting);
    }

    /// Ends a request for transactions without any. Returns whether the connection has nothing else to do. If it has, it asks
    /// again afterwards.
    pub(super) fn nothing_claimed(&mut self) -> bool {
        self.queue.nothing_claimed() && !self.is_busy()
    }

    /// Returns whether there are transactions that have not begun.
    pub(super) fn has_transactions(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Requests other transactions, because those that had not begun were returned.
    pub(super) fn ask_again(&mut self) {
        self.queue.ask_again();
    }

    /// Begins the next transaction.
    pub(super) fn begin(&mut self, now: Instant) {
        if let Some((claimed, transaction)) = self.queue.pop() {
            self.talked_of.extend(transaction.recipients.first().map(|recipient| recipient.id));
            if let Some(recorder) = &mut self.recorder {
                recorder.begin(now, self.queue.begun(), claimed, &transaction);
            }
            self.with_session(|session| session.begin(now, transaction));
        }
    }

    pub(super) fn supply_data(&mut self, now: Instant, octets: Bytes) {
        self.with_session(|session| session.supply_data(now, octets));
    }

    /// Ends the session as soon as the conversation allows it. The connection takes no more transactions.
    pub(super) fn quit(&mut self, now: Instant) {
        self.is_quitting = true;
        self.with_session(|session| session.quit(now));
    }

    /// Returns the mail of the transactions that have not begun, and drops them.
    pub(super) fn return_unstarted(&mut self) -> Vec<MailId> {
        self.queue.take_all()
    }

    /// Returns the transactions that have not begun, once there is a session.
    pub(super) fn upcoming<'a>(&'a self, next_hop: &'a NextHop) -> Option<Upcoming<'a>> {
        let Link::Talking(talk) = &self.link else { return None };
        Some(Upcoming {
            next_hop,
            remote: talk.candidate.remote,
            under_way: talk.session.transactions_under_way(),
            waiting: self.queue.waiting(),
        })
    }

    /// Returns the mail of messages that were sent whole, without a verdict.
    pub(super) fn uncertain(&self) -> Vec<MailId> {
        if let Link::Talking(talk) = &self.link { talk.session.uncertain().collect() } else { Vec::new() }
    }

    /// Returns all undecided mail: of the transactions under way, and of those that have not begun.
    pub(super) fn undecided(&self) -> Vec<MailId> {
        self.under_way().chain(self.queue.mails()).collect()
    }

    /// Returns whether the transaction of a mail has begun; `None` if the connection does not have it.
    pub(super) fn has(&self, id: MailId) -> Option<bool> {
        if self.under_way().any(|mail| mail == id) {
            return Some(true);
        }
        self.queue.mails().any(|mail| mail == id).then_some(false)
    }

    /// Returns the mail of the transactions that are under way.
    fn under_way(&self) -> impl Iterator<Item = MailId> {
        let session = if let Link::Talking(talk) = &self.link { Some(&talk.session) } else { None };
        session.into_iter().flat_map(Session::undecided)
    }

    /// Returns whether a transaction is under way.
    fn is_busy(&self) -> bool {
        self.under_way().next().is_some()
    }

    /// Takes the request for more transactions. Returns whether there was one.
    pub(super) fn take_request_for_transactions(&mut self) -> bool {
        self.queue.take_request_for_transactions()
    }

    /// Takes the request for permission to begin the next transaction. Returns whether there was one.
    pub(super) fn take_request_to_begin(&mut self) -> bool {
        self.queue.take_request_to_begin()
    }

    /// Returns whether the driver is to be told that there is something to send. Call it when the session has no output.
    pub(super) fn announce_transmit(&mut self) -> bool {
        let Link::Talking(talk) = &self.link else { return false };
        talk.session.wants_transmit() && !core::mem::replace(&mut self.transmit_is_announced, true)
    }

    /// Returns the next output of the session.
    pub(super) fn poll_session(&mut self) -> Option<SessionOutput> {
        if let Link::Talking(talk) = &mut self.link { talk.session.poll_output() } else { None }
    }

    /// Lets the session take a transaction.
    pub(super) fn handle_ready(&mut self) {
        self.is_established = true;
        self.queue.session_is_ready();
    }

    /// Ends a transaction after all its verdicts are processed. Requests mail again if there was none.
    pub(super) fn end_transaction(&mut self) {
        if !self.is_busy() && !self.is_quitting {
            self.queue.ask_if_waiting();
        }
    }

    /// Sets whether what is said is told.
    pub(super) fn tell(&mut self, is_told: bool) {
        self.with_session(|session| session.set_trace(is_told));
    }

    /// Returns the mail that commands are about: the first of the transaction that has begun last.
    pub(super) fn speaks_of(&self) -> Option<MailId> {
        self.talked_of.back().copied()
    }

    /// Returns the mail that replies and mail data are about: the first of the transaction that has begun first.
    pub(super) fn hears_of(&self) -> Option<MailId> {
        self.talked_of.front().copied()
    }

    /// Nothing more is said of the transaction of which these are the verdicts.
    pub(super) fn end_talk(&mut self, verdicts: &[(Recipient, Outcome)]) {
        self.talked_of.retain(|id| !verdicts.iter().any(|(recipient, _)| recipient.id == *id));
    }

    /// Returns how the transaction went of which these are the verdicts, if attempts tell that.
    pub(super) fn end_course(
        &mut self,
        cx: &DeliveryContext<'_>,
        verdicts: &[(Recipient, Outcome)],
    ) -> Option<Arc<Course>> {
        let (Some(recorder), Link::Talking(talk)) = (&mut self.recorder, &self.link) else { return None };
        recorder.end(talk.session.history(), verdicts, cx)
    }

    /// Returns how the conversation went that has come to its end without any transaction, if attempts tell that.
    pub(super) fn course_without_transaction(&mut self, cx: &DeliveryContext<'_>) -> Option<Arc<Course>> {
        let (Some(recorder), Link::Talking(talk)) = (&mut self.recorder, &self.link) else { return None };
        Some(recorder.end_without_transaction(talk.session.history(), cx))
    }

    pub(super) fn poll_transmit(&mut self, now: Instant, limit: usize, octets: &mut BytesMut) -> bool {
        let Link::Talking(talk) = &mut self.link else { return false };
        let more = talk.session.poll_transmit(now, limit, octets);
        if !more {
            self.transmit_is_announced = false;
        }
        more
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.link {
            Link::Connecting { deadline } => Some(*deadline),
            Link::Talking(talk) => talk.session.poll_timeout().map(|(at, _)| at),
        }
    }

    fn with_session(&mut self, act: impl FnOnce(&mut Session)) {
        if let Link::Talking(talk) = &mut self.link {
            act(&mut talk.session);
        }
    }
}

/// Returns the lesser of two limits of which each may be absent.
fn least(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    [one, other].into_iter().flatten().min()
}
