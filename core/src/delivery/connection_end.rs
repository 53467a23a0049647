//! How connections end, what that reveals about the candidate, and how the pass goes on.

use alloc::format;
use alloc::string::ToString as _;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::candidate_search::{CandidateSearch, SearchStep};
use super::connection::Connection;
use super::idle_connections::IdleState;
use super::refusals::{Refusals, Ruling};
use super::search_notes::SearchNotes;
use super::tried_candidates::{PassFailure, TriedCandidates, server};
use super::verdicts::RefusedMail;
use super::{Delivery, DeliveryContext, DeliveryOutput, DeliveryStage, Postponement};
use crate::attempt::Setback;
use crate::ending::Unsuitable;
use crate::event::{Event, EventName, Level};
use crate::io::ConnectionId;
use crate::next_hop::{Host, TlsMode};
use crate::outbox::MailId;
use crate::reachability::{KnownTrouble, Trouble};
use crate::reply::{Reply, ReplyClass, ReplyCode};
use crate::route::Candidate;
use crate::session::{EndCause, Phase, RefusalKind, SessionEnd};
use crate::sts::{Finding, Mode};
use crate::system_error::{Breakage, NetworkTrouble, TlsTrouble};
use crate::tally::ConnectionFailure;
use crate::tls::{Groups, Lack, Proof, Shortfall};

/// After this many authentication exchanges without success, a relay is left alone for the pass: some lock out clients that try
/// more often.
const REFUSED_LOGINS_LIMIT: u32 = 2;

impl Delivery {
    pub(super) fn end_connection(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        end: SessionEnd,
    ) {
        let Some(mut conn) = self.connections.remove(connection) else { return };
        if !conn.has_decided() && !matches!(end.cause, EndCause::Quit | EndCause::Local(_)) {
            self.pass.tried.note_course(conn.course_without_transaction(cx));
        }
        self.release(conn.undecided(), false);
        let idle_state = self.connections.idle.end(connection);
        self.refusals.end(connection);
        let needs_classic_groups = conn.groups() == Groups::All && self.note_large_hello(&end);
        if needs_classic_groups {
            self.outputs.push_back(DeliveryOutput::Answered(connection));
        } else {
            self.report(connection, &conn, &end, idle_state);
        }
        self.outputs.push_back(DeliveryOutput::Close(connection));
        if !conn.is_established() {
            self.note_tls_failure(&end);
            let failure = end.cause.connection_failure();
            self.outputs.extend(failure.map(DeliveryOutput::NotOpened));
        }
        let DeliveryStage::Candidate(candidate) = &self.stage else { return };
        if conn.is_established() {
            self.pass.tried.note_useful();
        }
        let server = conn.server().unwrap_or_else(|| server(candidate));
        // Where a policy needs TLS, anybody may have said what is said in plain text: it must not make mail fail for good.
        let is_believed = conn.is_tls() || !candidate.plan.need.enforces(Lack::Tls);
        let is_excused = self.note_weakness(cx, &end);
        let used_plain_text = conn.went_on_in_plain_text();
        match end.cause {
            EndCause::Local(trouble) => self.postpone(Postponement::Session(trouble)),
            _ if self.refusals.are_too_many() => self.leave_candidate_if_alone(cx, used_plain_text),
            EndCause::Quit => self.close_if_alone(),
            // RFC 5321 section 4.5.3.2.7: a server need not wait for ever, and cannot know that we are just about to go on.
            // Neither the mail nor the server has failed.
            _ if idle_state == IdleState::Idle => self.close_if_alone(),
            _ if idle_state == IdleState::Reused => self.begin_again_if_alone(cx),
            _ if is_excused || needs_classic_groups => {}
            // Another connection would be no better for the mail.
            EndCause::Refused(reply, command) if reply.is_about_the_channel() => {
                let setback = Setback::WantsMore { reply, command, protection: conn.protection() };
                self.lose_candidate(cx, used_plain_text, |tried| tried.note(server, setback));
                if !self.connections.is_empty() {
                    self.connections.limit_to_these();
                }
            }
            // A candidate that has decided mail on this connection is worth another.
            _ if conn.has_decided() => {}
            EndCause::Refused(reply, command) => {
                let for_good =
                    is_greeting(end.phase) && reply.class() == ReplyClass::Permanent && is_believed;
                let note = |tried: &mut TriedCandidates| tried.note_refused(server, reply, command, for_good);
                if for_good {
                    self.lose_candidate(cx, used_plain_text, note);
                } else {
                    self.lose_connection(cx, used_plain_text, note);
                }
            }
            cause @ (EndCause::Unsuitable(_) | EndCause::Untrusted(_)) => {
                self.forget_tlsa_after(&cause);
                let setback = Setback::Ended(cause);
                self.lose_candidate(cx, used_plain_text, |tried| tried.note(server, setback));
            }
            cause @ (EndCause::Closed
            | EndCause::Broken(_)
            | EndCause::TimedOut(_)
            | EndCause::Misbehaved(_)) => {
                let setback = Setback::Ended(cause);
                self.lose_connection(cx, used_plain_text, |tried| tried.note(server, setback));
            }
        }
    }

    /// Lets the TLSA records of a server be forgotten that has not proved itself by them: they may have changed with its certificate.
    fn forget_tlsa_after(&mut self, cause: &EndCause) {
        if matches!(cause, EndCause::Untrusted(Shortfall { lack: Lack::Proof(Proof::Dane, _), .. }))
            && let DeliveryStage::Candidate(Candidate { plan, remote, .. }) = &self.stage
            && let Host::Name(base) = &plan.terms.server
        {
            self.outputs.push_back(DeliveryOutput::ForgetTlsa(base.clone(), remote.port()));
        }
    }

    /// Records that a server cannot cope with padding or batches. Returns whether that excuses the end of the connection: a server
    /// that dropped it because of them, at once or after an error reply, is connected to once more without.
    fn note_weakness(&mut self, cx: &DeliveryContext<'_>, end: &SessionEnd) -> bool {
        let DeliveryStage::Candidate(candidate) = &self.stage else { return false };
        let was_padded = !self.pass.unpadded.contains(&candidate.remote);
        if end.padding_failed && was_padded {
            self.pass.unpadded.push(candidate.remote);
        }
        let was_batched = self.may_batch(cx, candidate.remote);
        if end.no_pipelining {
            self.pass.unbatched.push(candidate.remote);
            self.outputs.push_back(DeliveryOutput::NoPipelining(candidate.remote));
        }
        let is_new = (end.padding_failed && was_padded) || (end.no_pipelining && was_batched);
        is_new && has_dropped(&end.cause)
    }

    /// Records that a server did not answer the first message of the TLS handshake with all groups of key exchange. Returns whether that
    /// is so: the server is connected to once more, before anything else, and is offered classic groups alone, whose message is smaller.
    fn note_large_hello(&mut self, end: &SessionEnd) -> bool {
        let DeliveryStage::Candidate(candidate) = &self.stage else { return false };
        let is_unanswered = match &end.cause {
            EndCause::Closed | EndCause::TimedOut(_) => true,
            EndCause::Broken(error) | EndCause::Unsuitable(Unsuitable::TlsFailed(error)) => {
                matches!(error.kind, Breakage::Network(_) | Breakage::Tls(TlsTrouble::Truncated))
            }
            EndCause::Quit
            | EndCause::Local(_)
            | EndCause::Refused(..)
            | EndCause::Misbehaved(_)
            | EndCause::Unsuitable(_)
            | EndCause::Untrusted(_) => false,
        };
        if end.phase != Phase::Tls || !is_unanswered {
            return false;
        }
        if !self.pass.classic_groups.contains(&candidate.remote) {
            self.pass.classic_groups.push(candidate.remote);
        }
        self.outputs.push_back(DeliveryOutput::ClassicGroups(candidate.remote));
        true
    }

    /// Returns whether a server may get commands in batches, as far as is known. What this pass has found out counts where it teaches others
    /// nothing.
    pub(super) fn may_batch(&self, cx: &DeliveryContext<'_>, remote: SocketAddr) -> bool {
        !self.pass.unbatched.contains(&remote) && !cx.reachability.no_pipelining(remote, cx.now)
    }

    /// Returns the groups of key exchange that a server is offered.
    pub(super) fn groups(&self, cx: &DeliveryContext<'_>, remote: SocketAddr) -> Groups {
        let by_policy =
            matches!(&self.stage, DeliveryStage::Candidate(it) if it.policy.tls.groups == Groups::Classic);
        if by_policy || self.pass.classic_groups.contains(&remote) {
            return Groups::Classic;
        }
        cx.reachability.groups(remote, cx.now)
    }

    /// Closes a connection to a silent server, because others need its slot. Nothing is decided by that, and the candidate is
    /// tried again after all others.
    pub(crate) fn yield_connection(&mut self, cx: &mut DeliveryContext<'_>, connection: ConnectionId) {
        let Some(conn) = self.connections.remove(connection) else { return };
        self.connections.idle.end(connection);
        self.refusals.end(connection);
        self.release(conn.undecided(), false);
        if !conn.is_established() {
            self.outputs.push_back(DeliveryOutput::NotOpened(ConnectionFailure::Mute));
        }
        self.outputs.push_back(DeliveryOutput::Close(connection));
        if !self.connections.is_empty() {
            return self.release_first();
        }
        if let DeliveryStage::Candidate(candidate) = &self.stage {
            self.search.put_off(candidate.clone());
            self.advance(cx);
        }
    }

    /// Closes a connection that has said QUIT, without waiting for the reply.
    pub(crate) fn leave_connection(&mut self, cx: &mut DeliveryContext<'_>, connection: ConnectionId) {
        self.with_connection(cx, connection, Connection::leave);
    }

    /// Reports what the end of a connection reveals about the server, for other connections and other deliveries.
    fn report(
        &mut self,
        connection: ConnectionId,
        conn: &Connection,
        end: &SessionEnd,
        idle_state: IdleState,
    ) {
        let DeliveryStage::Candidate(candidate) = &self.stage else { return };
        let is_about_tls = matches!(end.phase, Phase::Tls | Phase::StartTls) || conn.is_tls();
        let trouble = if is_about_tls { Trouble::TlsStalled } else { Trouble::NoGreeting };
        let (is_alone, has_spoken) = (
            self.connections.is_empty(),
            !matches!(end.phase, Phase::Tls | Phase::Greeting | Phase::Ehlo | Phase::StartTls),
        );
        let output = match &end.cause {
            EndCause::Quit | EndCause::Local(_) => return,
            _ if idle_state != IdleState::Busy => return,
            cause @ EndCause::TimedOut(_) if !has_spoken && is_alone => {
                let (candidate, setback) = (candidate.clone(), Setback::Ended(cause.clone()));
                DeliveryOutput::Unreachable { connection, candidate, trouble, setback }
            }
            EndCause::Refused(reply, _)
                if reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE || is_greeting(end.phase) =>
            {
                self.outputs.push_back(DeliveryOutput::Answered(connection));
                DeliveryOutput::PushedBack(connection)
            }
            EndCause::Refused(..) => DeliveryOutput::Answered(connection),
            EndCause::Closed
            | EndCause::Broken(_)
            | EndCause::TimedOut(_)
            | EndCause::Misbehaved(_)
            | EndCause::Unsuitable(_)
            | EndCause::Untrusted(_) => {
                if conn.is_established() || is_alone {
                    DeliveryOutput::Answered(connection)
                } else {
                    DeliveryOutput::PushedBack(connection)
                }
            }
        };
        self.outputs.push_back(output);
    }

    /// Handles a connection that could not be made.
    pub(super) fn lose_connecting(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        trouble: Trouble,
        setback: Setback,
    ) {
        self.connections.remove(connection);
        self.refusals.end(connection);
        self.outputs.push_back(DeliveryOutput::NotOpened(match &setback {
            Setback::NotConnected(error) if error.kind == NetworkTrouble::Refused => {
                ConnectionFailure::Refused
            }
            Setback::NotConnected(_)
            | Setback::ConnectTimedOut
            | Setback::Ended(_)
            | Setback::WantsMore { .. } => ConnectionFailure::Unreachable,
        }));
        let DeliveryStage::Candidate(candidate) = &self.stage else {
            return self.outputs.push_back(DeliveryOutput::Close(connection));
        };
        self.outputs.push_back(if self.connections.is_empty() {
            let (candidate, setback) = (candidate.clone(), setback.clone());
            DeliveryOutput::Unreachable { connection, candidate, trouble, setback }
        } else {
            DeliveryOutput::PushedBack(connection)
        });
        let server = server(candidate);
        self.outputs.push_back(DeliveryOutput::Close(connection));
        self.lose_candidate(cx, false, |tried| tried.note(server, setback));
    }

    /// Handles the loss of a connection that had decided nothing. A candidate that has taken mail in this pass is worth another
    /// connection, but not for ever.
    fn lose_connection(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        plain_twin_is_used_up: bool,
        note: impl FnOnce(&mut TriedCandidates),
    ) {
        if !self.connections.is_empty() || !self.refusals.has_taken() || self.is_locked_out() {
            return self.lose_candidate(cx, plain_twin_is_used_up, note);
        }
        self.refusals.lose();
        if self.refusals.are_too_many() {
            note(&mut self.pass.tried);
            self.leave_candidate_if_alone(cx, plain_twin_is_used_up);
        }
    }

    /// Handles a connection that ended or was not made, and had decided nothing.
    fn lose_candidate(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        plain_twin_is_used_up: bool,
        note: impl FnOnce(&mut TriedCandidates),
    ) {
        if !self.connections.is_empty() {
            // It serves other connections, so it only tolerates no more than these.
            if self.is_locked_out() {
                self.connections.limit_to_these();
            }
            return self.release_first();
        }
        let DeliveryStage::Candidate(candidate) = &self.stage else { return };
        note(&mut self.pass.tried);
        self.search.count_tried();
        if self.is_locked_out() {
            self.search.abandon();
            // The pass does not even begin again with the lookup.
            self.pass.is_continued = false;
        }
        if plain_twin_is_used_up {
            self.search.skip_plain_twin(candidate);
        }
        self.advance(cx);
    }

    /// Returns whether a relay has refused the credentials so often that it is not connected to again in this pass.
    fn is_locked_out(&self) -> bool {
        self.pass.refused_logins >= REFUSED_LOGINS_LIMIT
    }

    /// Processes a refusal of the connection, given to these mails.
    pub(super) fn take_refusal(
        &mut self,
        cx: &mut DeliveryContext<'_>,
        connection: ConnectionId,
        kind: RefusalKind,
        refused: Vec<RefusedMail>,
        undecided: Vec<MailId>,
    ) {
        let Some(RefusedMail { recipient, refusal, server, .. }) = refused.first() else { return };
        let ruling = self.refusals.refuse(connection, recipient.id, kind);
        let is_working = matches!(self.stage, DeliveryStage::Candidate(_));
        if is_working && self.refusals.are_too_many() {
            self.pass.tried.note_refused(Arc::clone(server), refusal.reply.clone(), refusal.command, false);
        }
        match ruling {
            Ruling::Verdict => self.decide_refused(connection, refused, undecided),
            Ruling::Leave => {
                let ids = refused.iter().map(|mail| mail.recipient.id).chain(undecided).collect();
                let ids = if is_working { self.refusals.put_first(ids) } else { ids };
                self.release(ids, true);
                self.quit_connection(cx, connection);
            }
        }
        if is_working && self.refusals.are_too_many() {
            self.release_first();
            self.quit_all(cx);
        }
        // The last connection may have ended by that.
        if self.refusals.are_too_many() {
            self.leave_candidate_if_alone(cx, false);
        }
    }

    /// Ends the pass if its last connection is gone and it makes no other.
    fn close_if_alone(&mut self) {
        if self.connections.is_empty() && !self.refusals.is_waiting() {
            self.begin_closing();
        }
    }

    /// Begins nothing new from now on.
    pub(super) fn begin_closing(&mut self) {
        self.stage = DeliveryStage::Closing;
        self.release_first();
    }

    /// Ends all connections as soon as their conversations allow it.
    pub(super) fn quit_all(&mut self, cx: &mut DeliveryContext<'_>) {
        let connections: Vec<ConnectionId> = self.connections.ids().collect();
        for connection in connections {
            if self.connections.is_connecting(connection) {
                self.connections.remove(connection);
                self.refusals.end(connection);
                self.outputs.push_back(DeliveryOutput::Close(connection));
            } else {
                self.quit_connection(cx, connection);
            }
        }
    }

    /// Releases the mail that was to go first.
    fn release_first(&mut self) {
        let ids = self.refusals.take_back();
        self.release(ids, true);
    }

    /// Ends the pass without a failure. Transactions under way may finish; those that have not begun are released.
    pub(crate) fn close(&mut self, cx: &mut DeliveryContext<'_>) {
        self.begin_closing();
        self.quit_all(cx);
    }

    /// Closes all connections at once.
    pub(crate) fn abort(&mut self) {
        self.begin_closing();
        for (connection, conn) in self.connections.take_all() {
            let uncertain = conn.uncertain();
            if !uncertain.is_empty() {
                self.outputs.push_back(DeliveryOutput::Abandoned(connection, uncertain));
            }
            self.outputs.push_back(DeliveryOutput::Released { ids: conn.undecided(), tried: true });
            self.outputs.push_back(DeliveryOutput::Close(connection));
        }
    }

    /// Leaves a candidate that refuses too much, once the last connection to it has ended. If this pass has taken mail, the rest
    /// waits; otherwise it goes on with the next candidate.
    fn leave_candidate_if_alone(&mut self, cx: &mut DeliveryContext<'_>, plain_twin_is_used_up: bool) {
        let DeliveryStage::Candidate(candidate) = &self.stage else { return };
        if !self.connections.is_empty() {
            return;
        }
        if self.pass.has_taken {
            let failure = self.pass.tried.conclude(&self.next_hop, &self.search);
            self.begin_closing();
            self.outputs.push_back(DeliveryOutput::HadEnough(failure));
        } else {
            self.search.count_tried();
            if plain_twin_is_used_up {
                self.search.skip_plain_twin(candidate);
            }
            self.advance(cx);
        }
    }

    /// Handles the loss of a connection from an earlier pass. If it was the last one, this pass opens its own.
    fn begin_again_if_alone(&mut self, cx: &mut DeliveryContext<'_>) {
        // Within one pass the candidate has decided mail, and is worth another connection.
        if self.connections.is_empty() && self.pass.is_continued {
            self.begin_again(cx);
        }
    }

    /// Begins with the lookup, as a pass without connections from an earlier one does.
    fn begin_again(&mut self, cx: &mut DeliveryContext<'_>) {
        self.pass.begin_again();
        self.routed_at = cx.now;
        self.search = CandidateSearch::new(&self.next_hop);
        self.notes = SearchNotes::default();
        self.advance(cx);
    }

    /// Goes on to the next candidate.
    pub(super) fn advance(&mut self, cx: &mut DeliveryContext<'_>) {
        self.connections.begin_candidate();
        self.release_first();
        self.refusals = Refusals::default();
        self.stage = loop {
            let step = self.search.next(&self.next_hop, cx.policies, cx.hosts);
            self.tell_of_unnamed();
            match step {
                SearchStep::Lookup(request) => {
                    self.outputs.push_back(DeliveryOutput::Lookup(request));
                    break DeliveryStage::LookingUp;
                }
                SearchStep::FindPolicy(domain) => {
                    self.outputs.push_back(DeliveryOutput::FindPolicy(domain));
                    break DeliveryStage::LookingUp;
                }
                SearchStep::Try(candidate) => {
                    if let Some(candidate) = self.consider(cx, candidate) {
                        break DeliveryStage::Candidate(candidate);
                    }
                }
                // Attempts of an earlier pass do not count for the mail of this one.
                SearchStep::Exhausted if self.pass.is_continued => return self.begin_again(cx),
                SearchStep::Exhausted => {
                    self.forget_policy_record();
                    let failure = self.pass.tried.conclude(&self.next_hop, &self.search);
                    return self.exhaust(PassFailure { failure, course: self.pass.tried.last_course() });
                }
            }
        };
        self.try_connect(cx);
    }

    /// Tells of a host that the MTA-STS policy of the domain does not name, if mail goes there all the same.
    fn tell_of_unnamed(&mut self) {
        if let Some(host) = self.search.take_unnamed() {
            let text = format!(
                "{host} is not among the hosts of the MTA-STS policy of {}; mail goes all the same, as the policy is in testing mode",
                self.next_hop
            );
            let (about, level) = (EventName::Tls, Level::Info);
            self.outputs.push_back(DeliveryOutput::Event(Event::Note { about, level, text }));
        }
    }

    /// Lets the record of an MTA-STS policy be forgotten that may be to blame, so that the next pass sees whether there is a newer one
    /// (RFC 8461 section 5).
    fn forget_policy_record(&mut self) {
        let in_force = self.search.sts().and_then(Finding::in_force);
        if let Some(known) = in_force.filter(|known| known.policy.mode == Mode::Enforce) {
            self.outputs.push_back(DeliveryOutput::ForgetPolicyRecord(known.domain.clone()));
        }
    }

    /// Skips a candidate that others have tried in vain since this pass began, and puts off one that is known not to answer. The
    /// mail fails only after each candidate was tried within the time of this pass, by whichever delivery.
    pub(super) fn consider(&mut self, cx: &DeliveryContext<'_>, candidate: Candidate) -> Option<Candidate> {
        if let Some(KnownTrouble { trouble, setback, .. }) =
            cx.reachability.failure_since(&candidate, self.pass.began, cx.now)
        {
            if *trouble == Trouble::TlsStalled
                && candidate.tls != TlsMode::Plain
                && let Setback::Ended(cause) = setback
            {
                self.pass.tls_failures.push((candidate.host.clone(), cause.clone()));
            }
            self.pass.tried.note(server(&candidate), setback.clone());
            return None;
        }
        if self.search.must_wait(&candidate, cx.reachability, cx.now) {
            self.notes.note_put_off(cx, &candidate);
            self.search.put_off(candidate);
            return None;
        }
        Some(candidate)
    }

    /// Records that TLS was wanted for this host and failed.
    fn note_tls_failure(&mut self, end: &SessionEnd) {
        let DeliveryStage::Candidate(candidate) = &self.stage else { return };
        if candidate.tls == TlsMode::Plain || !matches!(end.phase, Phase::Tls | Phase::StartTls) {
            return;
        }
        if matches!(end.cause, EndCause::Quit | EndCause::Local(_)) {
            return;
        }
        let host = candidate.host.clone();
        self.pass.tls_failures.retain(|(failed, _)| *failed != host);
        self.pass.tls_failures.push((host, end.cause.clone()));
    }

    /// Reports, once in a pass, that mail goes in plain text to a host where TLS has failed.
    pub(super) fn tell_of_fallback(&mut self) {
        let DeliveryStage::Candidate(candidate) = &self.stage else { return };
        if candidate.tls != TlsMode::Plain {
            return;
        }
        let failed = self.pass.tls_failures.iter().position(|(host, _)| *host == candidate.host);
        if let Some(position) = failed {
            let (_, reason) = self.pass.tls_failures.swap_remove(position);
            self.outputs.push_back(DeliveryOutput::FellBack { candidate: candidate.clone(), reason });
        }
    }

    pub(super) fn exhaust(&mut self, failure: PassFailure) {
        self.begin_closing();
        self.outputs.push_back(DeliveryOutput::Exhausted(failure));
    }

    pub(super) fn postpone(&mut self, reason: Postponement) {
        if self.connections.is_empty() {
            self.begin_closing();
            self.outputs.push_back(DeliveryOutput::Postponed(reason));
        } else {
            self.connections.limit_to_these();
            self.outputs.push_back(DeliveryOutput::Event(Event::warning(EventName::Tls, reason.to_string())));
        }
    }
}

/// Returns whether a server has left the conversation, by whichever means.
fn has_dropped(cause: &EndCause) -> bool {
    let is_closing = |reply: &Reply| reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE;
    cause.is_loss() || matches!(cause, EndCause::Refused(reply, _) if is_closing(reply))
}

/// Returns whether a server decides in this phase whether to serve us at all.
fn is_greeting(phase: Phase) -> bool {
    matches!(phase, Phase::Greeting | Phase::Ehlo)
}
