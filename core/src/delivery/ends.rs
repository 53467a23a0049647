//! How connections end, what that says of the candidate, and how the pass goes on.

use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::itinerary::{Itinerary, Step};
use super::lane::Lane;
use super::refusals::{Refusals, Ruling};
use super::rest::Wakefulness;
use super::tally::{Tally, server};
use super::verdicts::RefusedMail;
use super::{Context, Delivery, DeliveryOutput, Stage};
use crate::attempt::{Failure, Setback};
use crate::event::Event;
use crate::io::ConnectionId;
use crate::next_hop::TlsMode;
use crate::outbox::MailId;
use crate::reachability::{KnownTrouble, Trouble};
use crate::reply::{Reply, ReplyClass, ReplyCode};
use crate::route::Candidate;
use crate::session::{EndCause, Phase, RefusalKind, SessionEnd};

/// After so many exchanges in which a relay did not take the credentials it is left alone for the pass: some lock out who
/// tries more often.
const REFUSED_LOGINS_LIMIT: u32 = 2;

impl Delivery {
    pub(super) fn end_lane(&mut self, cx: &mut Context<'_>, connection: ConnectionId, end: SessionEnd) {
        let Some(lane) = self.lanes.remove(&connection) else { return };
        self.release(lane.undecided(), false);
        let wakefulness = self.rest.end(connection);
        self.refusals.end(connection);
        self.report(connection, &lane, &end, wakefulness);
        self.outputs.push_back(DeliveryOutput::Close(connection));
        if !lane.is_established() {
            self.note_tls_failure(&end);
        }
        let Stage::Candidate(candidate) = &self.stage else { return };
        if lane.is_established() {
            self.tally.useful();
        }
        let was_padded = !self.unpadded.contains(&candidate.remote);
        if end.padding_failed && was_padded {
            self.unpadded.push(candidate.remote);
        }
        let was_batched = !cx.reachability.needs_caution(candidate.remote, cx.now);
        if end.needs_caution {
            self.outputs.push_back(DeliveryOutput::NeedsCaution(candidate.remote));
        }
        let has_dropped = has_dropped(&end.cause);
        let server = lane.server().unwrap_or_else(|| server(candidate));
        match end.cause {
            EndCause::Local(trouble) => self.postpone(trouble.to_string()),
            _ if self.refusals.are_too_many() => {
                self.leave_candidate_if_alone(cx, lane.went_on_in_plain_text());
            }
            EndCause::Quit => self.close_if_alone(),
            // RFC 5321 section 4.5.3.2.7: a server need not wait for ever, and cannot know that we are just about to go on.
            // That is no failure of any mail, nor of the server.
            _ if wakefulness == Wakefulness::Resting => self.close_if_alone(),
            _ if wakefulness == Wakefulness::JustWoken => self.begin_again_if_alone(cx),
            // A server that dropped because of the padding, at once or after an error that it gave for it, is connected to
            // once more without.
            _ if end.padding_failed && was_padded && has_dropped => {}
            // The same for one that could not follow.
            _ if end.needs_caution && was_batched && has_dropped => {}
            // Another connection would be no more fit for the mail.
            EndCause::Refused(reply, command) if reply.is_about_the_channel() => {
                let setback = Setback::WantsMore { reply, command, protection: lane.protection() };
                self.lose_candidate(cx, lane.went_on_in_plain_text(), |tally| tally.note(server, setback));
                if !self.lanes.is_empty() {
                    self.lane_limit = self.lanes.len();
                }
            }
            // One that has decided something on this connection is worth another.
            _ if lane.has_decided() => {}
            EndCause::Refused(reply, command) => {
                let for_good = is_greeting(end.phase) && reply.class() == ReplyClass::Permanent;
                let note = |tally: &mut Tally| tally.refused(server, reply, command, for_good);
                if for_good {
                    self.lose_candidate(cx, lane.went_on_in_plain_text(), note);
                } else {
                    self.lose_connection(cx, lane.went_on_in_plain_text(), note);
                }
            }
            cause @ EndCause::Unsuitable(_) => {
                let setback = Setback::Ended(cause);
                self.lose_candidate(cx, lane.went_on_in_plain_text(), |tally| tally.note(server, setback));
            }
            cause @ (EndCause::Closed
            | EndCause::Broken(_)
            | EndCause::TimedOut(_)
            | EndCause::Misbehaved(_)) => {
                let setback = Setback::Ended(cause);
                self.lose_connection(cx, lane.went_on_in_plain_text(), |tally| tally.note(server, setback));
            }
        }
    }

    /// Gives up a connection whose server is silent, because others need its place: nothing is decided by that, and the
    /// candidate is tried again after all others.
    pub(crate) fn yield_lane(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        let Some(lane) = self.lanes.remove(&connection) else { return };
        self.rest.end(connection);
        self.refusals.end(connection);
        self.release(lane.undecided(), false);
        self.outputs.push_back(DeliveryOutput::Close(connection));
        if !self.lanes.is_empty() {
            return self.release_first();
        }
        if let Stage::Candidate(candidate) = &self.stage {
            self.itinerary.put_off(candidate.clone());
            self.advance(cx);
        }
    }

    /// Closes a connection that has said QUIT without waiting for the reply.
    pub(crate) fn part_with_lane(&mut self, cx: &mut Context<'_>, connection: ConnectionId) {
        self.with_lane(cx, connection, Lane::leave);
    }

    /// Says what the end of a connection tells about the server, for other connections and other deliveries.
    fn report(&mut self, connection: ConnectionId, lane: &Lane, end: &SessionEnd, wakefulness: Wakefulness) {
        let Stage::Candidate(candidate) = &self.stage else { return };
        let is_about_tls = matches!(end.phase, Phase::Tls | Phase::StartTls) || lane.is_tls();
        let trouble = if is_about_tls { Trouble::MuteInTls } else { Trouble::Mute };
        let (is_alone, has_spoken) = (
            self.lanes.is_empty(),
            !matches!(end.phase, Phase::Tls | Phase::Greeting | Phase::Ehlo | Phase::StartTls),
        );
        let output = match &end.cause {
            EndCause::Quit | EndCause::Local(_) => return,
            _ if wakefulness != Wakefulness::Awake => return,
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
            | EndCause::Unsuitable(_) => {
                if lane.is_established() || is_alone {
                    DeliveryOutput::Answered(connection)
                } else {
                    DeliveryOutput::PushedBack(connection)
                }
            }
        };
        self.outputs.push_back(output);
    }

    /// A connection could not be made.
    pub(super) fn lose_connecting(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        trouble: Trouble,
        setback: Setback,
    ) {
        self.lanes.remove(&connection);
        self.refusals.end(connection);
        let Stage::Candidate(candidate) = &self.stage else {
            return self.outputs.push_back(DeliveryOutput::Close(connection));
        };
        self.outputs.push_back(if self.lanes.is_empty() {
            let (candidate, setback) = (candidate.clone(), setback.clone());
            DeliveryOutput::Unreachable { connection, candidate, trouble, setback }
        } else {
            DeliveryOutput::PushedBack(connection)
        });
        let server = server(candidate);
        self.outputs.push_back(DeliveryOutput::Close(connection));
        self.lose_candidate(cx, false, |tally| tally.note(server, setback));
    }

    /// A connection to the candidate was lost that had decided nothing. A candidate that has taken mail in this pass is worth
    /// another, but not for ever.
    fn lose_connection(
        &mut self,
        cx: &mut Context<'_>,
        plain_twin_is_used_up: bool,
        note: impl FnOnce(&mut Tally),
    ) {
        if !self.lanes.is_empty() || !self.refusals.has_taken() || self.is_locked_out() {
            return self.lose_candidate(cx, plain_twin_is_used_up, note);
        }
        self.refusals.lose();
        if self.refusals.are_too_many() {
            note(&mut self.tally);
            self.leave_candidate_if_alone(cx, plain_twin_is_used_up);
        }
    }

    /// A connection to the candidate ended or was not made, and had decided nothing.
    fn lose_candidate(
        &mut self,
        cx: &mut Context<'_>,
        plain_twin_is_used_up: bool,
        note: impl FnOnce(&mut Tally),
    ) {
        if !self.lanes.is_empty() {
            // It serves others: it merely bears no more connections than these.
            if self.is_locked_out() {
                self.lane_limit = self.lanes.len();
            }
            return self.release_first();
        }
        let Stage::Candidate(candidate) = &self.stage else { return };
        note(&mut self.tally);
        self.itinerary.count_tried();
        if self.is_locked_out() {
            self.itinerary.abandon();
            // Not even to begin again with the lookup.
            self.is_continued = false;
        }
        if plain_twin_is_used_up {
            self.itinerary.skip_plain_twin(candidate);
        }
        self.advance(cx);
    }

    /// Whether a relay has refused the credentials so often that it is not connected to again in this pass.
    fn is_locked_out(&self) -> bool {
        self.refused_logins >= REFUSED_LOGINS_LIMIT
    }

    /// A server has refused the connection, to these mails.
    pub(super) fn take_refusal(
        &mut self,
        cx: &mut Context<'_>,
        connection: ConnectionId,
        kind: RefusalKind,
        refused: Vec<RefusedMail>,
        undecided: Vec<MailId>,
    ) {
        let Some(RefusedMail { recipient, refusal, server }) = refused.first() else { return };
        let ruling = self.refusals.refuse(connection, recipient.id, kind);
        let is_working = matches!(self.stage, Stage::Candidate(_));
        if is_working && self.refusals.are_too_many() {
            self.tally.refused(Arc::clone(server), refusal.reply.clone(), refusal.command, false);
        }
        match ruling {
            Ruling::Verdict => self.decide_refused(connection, refused, undecided),
            Ruling::Leave => {
                let ids = refused.iter().map(|mail| mail.recipient.id).chain(undecided).collect();
                let ids = if is_working { self.refusals.put_first(ids) } else { ids };
                self.release(ids, true);
                self.quit_lane(cx, connection);
            }
        }
        if is_working && self.refusals.are_too_many() {
            self.release_first();
            self.dismiss_lanes(cx);
        }
        // The last connection may have ended by that.
        if self.refusals.are_too_many() {
            self.leave_candidate_if_alone(cx, false);
        }
    }

    /// Ends the pass if there is no connection left, and none is to be made.
    fn close_if_alone(&mut self) {
        if self.lanes.is_empty() && !self.refusals.is_waiting() {
            self.begin_closing();
        }
    }

    /// Nothing new is begun.
    pub(super) fn begin_closing(&mut self) {
        self.stage = Stage::Closing;
        self.release_first();
    }

    /// Ends all connections as soon as their conversations allow it.
    pub(super) fn dismiss_lanes(&mut self, cx: &mut Context<'_>) {
        let connections: Vec<ConnectionId> = self.lanes.keys().copied().collect();
        for connection in connections {
            if self.lanes.get(&connection).is_some_and(Lane::is_connecting) {
                self.lanes.remove(&connection);
                self.refusals.end(connection);
                self.outputs.push_back(DeliveryOutput::Close(connection));
            } else {
                self.quit_lane(cx, connection);
            }
        }
    }

    /// No mail goes before others any more.
    fn release_first(&mut self) {
        let ids = self.refusals.take_back();
        self.release(ids, true);
    }

    /// The candidate refuses too much: when the last connection to it has ended, what is left waits if this pass has taken mail, and
    /// otherwise goes on with the next candidate.
    fn leave_candidate_if_alone(&mut self, cx: &mut Context<'_>, plain_twin_is_used_up: bool) {
        let Stage::Candidate(candidate) = &self.stage else { return };
        if !self.lanes.is_empty() {
            return;
        }
        if self.has_taken {
            let failure = self.tally.conclude(&self.next_hop, self.itinerary.host_trouble());
            self.begin_closing();
            self.outputs.push_back(DeliveryOutput::HadEnough(failure));
        } else {
            self.itinerary.count_tried();
            if plain_twin_is_used_up {
                self.itinerary.skip_plain_twin(candidate);
            }
            self.advance(cx);
        }
    }

    /// A connection from an earlier pass is lost: if it was the last one, this pass makes connections of its own.
    fn begin_again_if_alone(&mut self, cx: &mut Context<'_>) {
        // Within one pass the candidate has decided mail, and is worth another connection.
        if self.lanes.is_empty() && self.is_continued {
            self.begin_again(cx);
        }
    }

    /// Begins with the lookup, as a pass does that has no connections from an earlier one.
    fn begin_again(&mut self, cx: &mut Context<'_>) {
        self.is_continued = false;
        self.routed_at = cx.now;
        self.itinerary = Itinerary::new(&self.next_hop, cx.settings);
        self.unpadded.clear();
        self.tls_failures.clear();
        self.tally = Tally::default();
        self.advance(cx);
    }

    /// Goes on to the next candidate.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) {
        self.lane_limit = usize::MAX;
        self.widen_at = None;
        self.release_first();
        self.refusals = Refusals::default();
        self.stage = loop {
            match self.itinerary.next(cx.settings, cx.hosts) {
                Step::LookupMx(domain) => {
                    self.outputs.push_back(DeliveryOutput::LookupMx(domain));
                    break Stage::LookingUp;
                }
                Step::LookupAddresses(name) => {
                    self.outputs.push_back(DeliveryOutput::LookupAddresses(name));
                    break Stage::LookingUp;
                }
                Step::Try(candidate) => {
                    if let Some(candidate) = self.consider(cx, candidate) {
                        break Stage::Candidate(candidate);
                    }
                }
                // What an earlier pass has tried does not count for the mail of this one.
                Step::Exhausted if self.is_continued => return self.begin_again(cx),
                Step::Exhausted => {
                    let failure = self.tally.conclude(&self.next_hop, self.itinerary.host_trouble());
                    return self.exhaust(failure);
                }
            }
        };
        self.try_open_lane(cx);
    }

    /// Passes over a candidate that others have tried in vain since this pass began, and puts one off that is known
    /// not to answer. Nothing has failed before each has been tried by somebody within the time of this pass.
    pub(super) fn consider(&mut self, cx: &Context<'_>, candidate: Candidate) -> Option<Candidate> {
        if let Some(KnownTrouble { trouble, setback, .. }) =
            cx.reachability.failure_since(&candidate, self.began, cx.now)
        {
            if *trouble == Trouble::MuteInTls
                && candidate.tls != TlsMode::Plain
                && let Setback::Ended(cause) = setback
            {
                self.tls_failures.push((candidate.host.clone(), cause.clone()));
            }
            self.tally.note(server(&candidate), setback.clone());
            return None;
        }
        if !self.itinerary.is_at_last_resorts() && cx.reachability.is_in_trouble(&candidate, cx.now) {
            self.itinerary.put_off(candidate);
            return None;
        }
        Some(candidate)
    }

    /// Keeps in mind that TLS was wanted of this host and did not come about.
    fn note_tls_failure(&mut self, end: &SessionEnd) {
        let Stage::Candidate(candidate) = &self.stage else { return };
        if candidate.tls == TlsMode::Plain || !matches!(end.phase, Phase::Tls | Phase::StartTls) {
            return;
        }
        if matches!(end.cause, EndCause::Quit | EndCause::Local(_)) {
            return;
        }
        let host = candidate.host.clone();
        self.tls_failures.retain(|(failed, _)| *failed != host);
        self.tls_failures.push((host, end.cause.clone()));
    }

    /// Says, once in a pass, that mail goes in plain text to a host where TLS has failed.
    pub(super) fn tell_of_fallback(&mut self) {
        let Stage::Candidate(candidate) = &self.stage else { return };
        if candidate.tls != TlsMode::Plain {
            return;
        }
        let failed = self.tls_failures.iter().position(|(host, _)| *host == candidate.host);
        if let Some(position) = failed {
            let (_, reason) = self.tls_failures.swap_remove(position);
            self.outputs.push_back(DeliveryOutput::FellBack { candidate: candidate.clone(), reason });
        }
    }

    pub(super) fn exhaust(&mut self, failure: Failure) {
        self.begin_closing();
        self.outputs.push_back(DeliveryOutput::Exhausted(failure));
    }

    pub(super) fn postpone(&mut self, text: String) {
        if self.lanes.is_empty() {
            self.begin_closing();
            self.outputs.push_back(DeliveryOutput::Postponed(text));
        } else {
            self.lane_limit = self.lanes.len();
            self.outputs.push_back(DeliveryOutput::Event(Event::warning(text)));
        }
    }
}

/// Whether a server has left the conversation, in one way or another.
fn has_dropped(cause: &EndCause) -> bool {
    let is_closing = |reply: &Reply| reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE;
    cause.is_loss() || matches!(cause, EndCause::Refused(reply, _) if is_closing(reply))
}

/// Whether a server says in this phase whether it wants to serve us at all.
fn is_greeting(phase: Phase) -> bool {
    matches!(phase, Phase::Greeting | Phase::Ehlo)
}
