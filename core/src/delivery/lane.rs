//! One connection of a delivery: its session, and the transactions that it still has to do.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::Context;
use super::tally::server;
use crate::address::Mailbox;
use crate::attempt::{Acceptance, Failure, Protection, Server};
use crate::io::{CloseReason, Tls};
use crate::next_hop::{Host, NextHop, TlsMode};
use crate::outbox::MailId;
use crate::reachability::Login;
use crate::rng::{Rng, Seed};
use crate::route::Candidate;
use crate::sasl::Mechanism;
use crate::session::{
    Outcome, Refusal, RefusalKind, Session, SessionConfig, SessionEnd, SessionOutput, Transaction,
};
use crate::shown::shortened;
use crate::time::Instant;
use crate::wording::Place;

/// When only this part of the work that it was given last is left, a connection asks for more, so that it need not wait for
/// the database in between. With little work there is nothing to gain by that, and other connections may take it.
const LAST_PART_OF_WORK: usize = 4;

/// What a lane tells its delivery.
#[derive(Debug)]
pub(super) enum LaneOutput {
    StartTls(Host),
    Transmit,
    WantWork,
    WantPermission,
    WantData {
        id: MailId,
        offset: u64,
        limit: u32,
    },
    Delivered {
        id: MailId,
        recipient: Box<str>,
        acceptance: Acceptance,
    },
    Failed {
        id: MailId,
        recipient: Mailbox,
        failure: Failure,
    },
    /// The connection is refused, to these with these words. The others of the transaction are undecided.
    Refused {
        kind: RefusalKind,
        refused: Vec<RefusedMail>,
        undecided: Vec<MailId>,
    },
    Released {
        ids: Vec<MailId>,
        tried: bool,
    },
    Sent(Bytes),
    SentData(Bytes),
    Received(Bytes),
    Authenticated(Option<Mechanism>),
    Note(String),
    Ended(SessionEnd),
}

/// A mail for which a server has refused the connection.
#[derive(Debug)]
pub(super) struct RefusedMail {
    pub(super) id: MailId,
    pub(super) recipient: Mailbox,
    pub(super) server: Arc<Server>,
    pub(super) refusal: Refusal,
}

impl RefusedMail {
    /// What is recorded if the refusal is the verdict.
    pub(super) fn into_failure(self) -> Failure {
        let Refusal { reply, command, .. } = self.refusal;
        Failure::Refused { server: self.server, reply, command, fatal: false }
    }
}

/// A connection that is being made, or that talks.
#[derive(Debug)]
pub(super) struct Lane {
    state: State,
    /// Transactions that have not begun.
    work: VecDeque<Transaction>,
    /// How many transactions it was given last.
    share: usize,
    /// Whether it has asked for more transactions and got no answer.
    has_asked: bool,
    /// Whether the session waits for a transaction, and there was none.
    is_hungry: bool,
    /// The recipients of the transactions that run, undecided.
    running: Vec<(MailId, Mailbox)>,
    /// A mail of the transaction that began last.
    newest: Option<MailId>,
    /// Whether the session has negotiated.
    is_established: bool,
    has_decided: bool,
    /// Whom it talks with, once it does.
    server: Option<Arc<Server>>,
    /// Whether it was told to end: it takes no more work.
    is_quitting: bool,
    transactions: u32,
    /// What the session draws from, once there is one.
    seed: Option<Seed>,
    /// Whether the driver knows that there is something to send.
    transmit_is_announced: bool,
    outputs: VecDeque<LaneOutput>,
}

/// What a server is believed to bear, as long as it has not shown that it does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bears {
    pub(super) padding: bool,
    /// Commands in batches.
    pub(super) batches: bool,
}

#[derive(Debug)]
enum State {
    Connecting { deadline: Instant },
    Talking(Box<Talk>),
}

#[derive(Debug)]
struct Talk {
    session: Session,
    candidate: Candidate,
}

impl Lane {
    pub(super) fn connecting(deadline: Instant) -> Self {
        Self {
            state: State::Connecting { deadline },
            work: VecDeque::new(),
            share: 0,
            has_asked: false,
            is_hungry: false,
            running: Vec::new(),
            newest: None,
            is_established: false,
            has_decided: false,
            server: None,
            is_quitting: false,
            transactions: 0,
            seed: None,
            transmit_is_announced: false,
            outputs: VecDeque::new(),
        }
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.state, State::Connecting { .. })
    }

    pub(super) fn is_established(&self) -> bool {
        self.is_established
    }

    /// Whether any mail was decided on this connection.
    pub(super) fn has_decided(&self) -> bool {
        self.has_decided
    }

    /// Whether it was told to end.
    pub(super) fn is_quitting(&self) -> bool {
        self.is_quitting
    }

    /// A refusal has turned out to be a verdict.
    pub(super) fn note_decided(&mut self) {
        self.has_decided = true;
    }

    pub(super) fn transactions(&self) -> u32 {
        self.transactions
    }

    /// Since when the server has owed a word, if nothing would be lost by giving it up.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        match &self.state {
            State::Connecting { .. } => None,
            State::Talking(talk) => talk.session.silent_since().filter(|_| !self.has_decided),
        }
    }

    /// Whether QUIT is on its way, and nothing but its reply is missing.
    pub(super) fn has_said_quit(&self) -> bool {
        if let State::Talking(talk) = &self.state { talk.session.has_said_quit() } else { false }
    }

    /// Ends the session if it has said QUIT.
    pub(super) fn leave(&mut self, now: Instant) {
        self.with_session(|session| session.leave(now));
    }

    /// Whether the conversation is inside TLS.
    pub(super) fn is_tls(&self) -> bool {
        if let State::Talking(talk) = &self.state { talk.session.is_tls() } else { false }
    }

    /// What the session draws from, once there is one.
    pub(super) fn seed(&self) -> Option<&Seed> {
        self.seed.as_ref()
    }

    /// Whether a session that should have had STARTTLS was negotiated without.
    pub(super) fn went_on_in_plain_text(&self) -> bool {
        match &self.state {
            State::Talking(talk) => {
                self.is_established && talk.candidate.tls == TlsMode::StartTls && !talk.session.is_tls()
            }
            State::Connecting { .. } => false,
        }
    }

    /// How the conversation is protected.
    pub(super) fn protection(&self) -> Protection {
        if self.is_tls() {
            Protection::Tls
        } else if self.went_on_in_plain_text() {
            Protection::StartTlsNotOffered
        } else {
            Protection::None
        }
    }

    /// Whom it talks with, once it does.
    pub(super) fn server(&self) -> Option<Arc<Server>> {
        self.server.clone()
    }

    pub(super) fn begin_session(
        &mut self,
        cx: &Context<'_>,
        candidate: &Candidate,
        next_hop: &NextHop,
        bears: Bears,
        seed: Seed,
    ) {
        let credentials = match next_hop {
            NextHop::Relay(relay) => relay.credentials.clone(),
            NextHop::Domain(_) | NextHop::Literal(_) => None,
        };
        let config = SessionConfig {
            announce: cx.settings.announce.clone(),
            tls: candidate.tls,
            plain_fallback: candidate.plain_twin_follows,
            mechanism: credentials.as_ref().and_then(|credentials| {
                cx.reachability.mechanism(&Login::new(candidate, credentials), cx.now)
            }),
            credentials,
            auth_unprotected: cx.settings.auth_insecure || candidate.remote.ip().to_canonical().is_loopback(),
            padding_limit: if bears.padding { cx.settings.tls_padding } else { 0 },
            cautious: !bears.batches,
            trace: cx.settings.trace,
        };
        let session = Session::new(config, Rng::from_seed(seed.0), cx.now);
        self.seed = Some(seed);
        self.server = Some(server(candidate));
        self.state = State::Talking(Box::new(Talk { session, candidate: candidate.clone() }));
    }

    pub(super) fn handle_received(&mut self, now: Instant, octets: &[u8]) {
        self.with_session(|session| session.handle_received(now, octets));
    }

    pub(super) fn handle_tls_established(&mut self, now: Instant, tls: Tls) {
        if let Some(server) = &mut self.server {
            Arc::make_mut(server).tls = Some(tls);
        }
        self.with_session(|session| session.handle_tls_established(now, tls.certificate_is_valid));
    }

    pub(super) fn handle_tls_failed(&mut self, now: Instant, reason: String) {
        self.with_session(|session| session.handle_tls_failed(now, reason));
    }

    pub(super) fn handle_closed(&mut self, now: Instant, reason: CloseReason) {
        self.with_session(|session| session.handle_closed(now, reason));
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.with_session(|session| session.handle_timeout(now));
    }

    /// Takes transactions to do.
    pub(super) fn take_work(&mut self, now: Instant, work: Vec<Transaction>) {
        self.has_asked = false;
        self.share = work.len();
        self.work.extend(work);
        if self.is_quitting {
            self.quit(now);
        } else if !self.work.is_empty() && core::mem::take(&mut self.is_hungry) {
            self.outputs.push_back(LaneOutput::WantPermission);
        }
    }

    /// There is no more work. Says whether the connection has nothing else to do; otherwise it asks again then.
    pub(super) fn take_no_work(&mut self) -> bool {
        self.has_asked = false;
        self.is_hungry && self.running.is_empty()
    }

    /// Whether there are transactions that have not begun.
    pub(super) fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    /// Gives back what has not begun, and asks for work instead.
    pub(super) fn exchange_work(&mut self) {
        let ids = self.give_back_work();
        self.outputs.push_back(LaneOutput::Released { ids, tried: false });
        self.is_hungry = true;
        self.ask();
    }

    /// Begins the next transaction.
    pub(super) fn begin(&mut self, now: Instant) {
        let Some(transaction) = self.work.pop_front() else { return };
        self.transactions = self.transactions.saturating_add(1);
        self.newest = transaction.recipients.first().map(|&(id, _)| id);
        self.running.extend(transaction.recipients.iter().cloned());
        if self.work.len() < self.share / LAST_PART_OF_WORK {
            self.ask();
        }
        self.with_session(|session| session.begin(now, transaction));
    }

    fn ask(&mut self) {
        if !core::mem::replace(&mut self.has_asked, true) {
            self.outputs.push_back(LaneOutput::WantWork);
        }
    }

    pub(super) fn supply_data(&mut self, now: Instant, octets: Bytes) {
        self.with_session(|session| session.supply_data(now, octets));
    }

    /// Ends the session as soon as the conversation allows it; what has not begun is released.
    pub(super) fn quit(&mut self, now: Instant) {
        self.is_quitting = true;
        let ids = self.give_back_work();
        if !ids.is_empty() {
            self.outputs.push_back(LaneOutput::Released { ids, tried: false });
        }
        self.with_session(|session| session.quit(now));
    }

    fn give_back_work(&mut self) -> Vec<MailId> {
        self.work.drain(..).flat_map(|transaction| ids_of(&transaction.recipients)).collect()
    }

    /// Returns everything that is not decided.
    pub(super) fn undecided(&self) -> Vec<MailId> {
        let work = self.work.iter().flat_map(|transaction| ids_of(&transaction.recipients));
        ids_of(&self.running).into_iter().chain(work).collect()
    }

    /// Gives everything back that is not decided.
    pub(super) fn abandon(&mut self) -> Vec<MailId> {
        let running = core::mem::take(&mut self.running);
        let work = core::mem::take(&mut self.work);
        ids_of(&running)
            .into_iter()
            .chain(work.iter().flat_map(|transaction| ids_of(&transaction.recipients)))
            .collect()
    }

    pub(super) fn poll_output(&mut self) -> Option<LaneOutput> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            let State::Talking(talk) = &mut self.state else { return None };
            let Some(output) = talk.session.poll_output() else {
                if talk.session.wants_transmit() && !self.transmit_is_announced {
                    self.transmit_is_announced = true;
                    return Some(LaneOutput::Transmit);
                }
                return None;
            };
            self.translate(output);
        }
    }

    pub(super) fn poll_transmit(&mut self, now: Instant, limit: usize, octets: &mut BytesMut) -> bool {
        let State::Talking(talk) = &mut self.state else { return false };
        let more = talk.session.poll_transmit(now, limit, octets);
        if !more {
            self.transmit_is_announced = false;
        }
        more
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Connecting { deadline } => Some(*deadline),
            State::Talking(talk) => talk.session.poll_timeout().map(|(at, _)| at),
        }
    }

    fn with_session(&mut self, act: impl FnOnce(&mut Session)) {
        if let State::Talking(talk) = &mut self.state {
            act(&mut talk.session);
        }
    }

    fn translate(&mut self, output: SessionOutput) {
        let State::Talking(talk) = &self.state else { return };
        let output = match output {
            SessionOutput::StartTls => LaneOutput::StartTls(talk.candidate.host.clone()),
            SessionOutput::Ready => {
                self.is_established = true;
                if self.work.is_empty() {
                    self.is_hungry = true;
                    return self.ask();
                }
                LaneOutput::WantPermission
            }
            SessionOutput::NeedData { offset, limit } => match self.newest {
                Some(id) => LaneOutput::WantData { id, offset, limit },
                None => return,
            },
            SessionOutput::Verdicts(verdicts) => return self.take_verdicts(verdicts),
            SessionOutput::Sent(octets) => LaneOutput::Sent(octets),
            SessionOutput::SentData(octets) => LaneOutput::SentData(octets),
            SessionOutput::Received(octets) => LaneOutput::Received(octets),
            SessionOutput::Authenticated(mechanism) => LaneOutput::Authenticated(mechanism),
            SessionOutput::Note(note) => {
                LaneOutput::Note(format!("{}: {note}", Place(&talk.candidate.host, talk.candidate.remote)))
            }
            SessionOutput::Ended(end) => LaneOutput::Ended(end),
        };
        self.outputs.push_back(output);
    }

    /// Passes on what has become of a transaction: first what was refused, as what was taken came after that.
    fn take_verdicts(&mut self, verdicts: Vec<(MailId, Outcome)>) {
        let Some(server) = self.server() else { return };
        let (mut delivered, mut undecided) = (Vec::new(), Vec::new());
        let mut refused: BTreeMap<RefusalKind, Vec<RefusedMail>> = BTreeMap::new();
        for (id, outcome) in verdicts {
            let Some(position) = self.running.iter().position(|&(running, _)| running == id) else {
                continue;
            };
            let (_, recipient) = self.running.swap_remove(position);
            let server = Arc::clone(&server);
            let failure = match outcome {
                Outcome::Delivered(reply) => {
                    let (recipient, acceptance) =
                        (shortened(recipient.as_str()).into(), Acceptance { server, reply });
                    delivered.push(LaneOutput::Delivered { id, recipient, acceptance });
                    continue;
                }
                Outcome::Rejected { reply, command, fatal } => {
                    Failure::Refused { server, reply, command, fatal }
                }
                Outcome::Unfit(reason) => Failure::Unfit(server, reason),
                Outcome::Uncertain(cause) => Failure::Uncertain(server, cause),
                Outcome::Refused(refusal) => {
                    let mail = RefusedMail { id, recipient, server, refusal };
                    refused.entry(mail.refusal.kind).or_default().push(mail);
                    continue;
                }
                Outcome::Undecided => {
                    undecided.push(id);
                    continue;
                }
            };
            self.has_decided = true;
            self.outputs.push_back(LaneOutput::Failed { id, recipient, failure });
        }
        for (kind, refused) in refused {
            let undecided = core::mem::take(&mut undecided);
            self.outputs.push_back(LaneOutput::Refused { kind, refused, undecided });
        }
        if !undecided.is_empty() {
            self.outputs.push_back(LaneOutput::Released { ids: undecided, tried: true });
        }
        self.has_decided |= !delivered.is_empty();
        self.outputs.extend(delivered);
        if self.is_hungry && self.running.is_empty() && !self.is_quitting {
            self.ask();
        }
    }
}

fn ids_of(recipients: &[(MailId, Mailbox)]) -> Vec<MailId> {
    recipients.iter().map(|&(id, _)| id).collect()
}
