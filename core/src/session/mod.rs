//! One SMTP conversation, from the moment when TCP has connected to the moment when the connection is to be closed.
//!
//! ```text
//! [TLS] -> greeting -> EHLO or HELO -> [STARTTLS -> TLS -> EHLO] -> [padding] -> [AUTH] -> Ready
//! Ready -> MAIL -> RCPT... -> DATA -> message -> final dot -> Verdicts -> Ready ... -> QUIT -> Ended
//! ```
//!
//! The module `mailing` decides what is sent before replies arrive, and what the next reply answers.
//!
//! The owner of a [`Session`] passes events in (`handle_*`, [`Session::begin`], [`Session::supply_data`], [`Session::quit`]).
//! After each of these calls, and after each [`Session::poll_transmit`], it takes the outputs until there are none, sends what is
//! to be sent, and asks when to call [`Session::handle_timeout`]. Any order of calls is harmless, and so is whatever the peer
//! sends: at worst the session ends, and then stays ended. Each recipient of a transaction is returned exactly once.

mod authentication;
mod command_queue;
mod conduct;
mod context;
mod doubted;
mod extensions;
mod history;
mod mail_data;
mod mailing;
mod message;
mod output_queue;
mod progress;
mod refusal;
mod state;
mod timeouts;
mod transfer;
mod types;

#[cfg(test)]
mod tests;

use core::mem;

use bytes::{Bytes, BytesMut};

use self::context::SessionContext;
pub use self::extensions::{Extensions, ServerLimits};
pub(crate) use self::history::History;
use self::mail_data::MailData;
use self::state::State;
use self::timeouts::{MAIL_DATA_STALL_TIMEOUT, mail_data_allowance, timeout};
use self::transfer::Transfer;
pub use self::types::{
    Outcome, Phase, Recipient, Refusal, RefusalKind, SessionConfig, SessionEnd, SessionNote, SessionOutput,
    Transaction,
};
pub use crate::ending::EndCause;
use crate::ending::{Misbehaved, Unsuitable};
use crate::io::CloseReason;
use crate::outbox::MailId;
use crate::reply::ReplyParser;
use crate::rng::Rng;
use crate::system_error::{Breakage, SystemError};
use crate::time::{Duration, Instant};
use crate::tls::{Proved, Tls};

/// One SMTP conversation.
#[derive(Debug)]
pub struct Session {
    state: State,
    parser: ReplyParser,
    cx: SessionContext,
    /// What `deadline` bounds: the phase, and the number of replies before it in the transactions. Octets that change neither do
    /// not move the deadline, so a peer that sends them one by one cannot hold the connection.
    bounded: (Phase, u64),
    deadline: Option<Instant>,
    /// The time at which the peer has received none of the message for too long. Meaningless in other phases.
    stall_deadline: Instant,
    /// The pause before the end of a message, where there is one.
    pause: Pause,
}

/// The pause before the end of a message. Some servers recognize the end only if they read CRLF . CRLF in one piece, and it is
/// unknown where their reads end. So a server that does not offer PIPELINING receives the end alone, after it has had time to
/// read what comes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// More of the message comes before it.
    NotYet,
    Until(Instant),
    /// The end may be sent.
    Over,
}

/// The pause before the end of a message in plain text, in which a server reads everything before it. Longer than it takes to
/// wake a process, and too short to matter. Inside TLS the end is a record, which is read alone in any case.
const END_OF_DATA_PAUSE: Duration = Duration::from_millis(20);

impl Session {
    /// Returns a session over a connection that was just made. With implicit TLS it begins with [`SessionOutput::StartTls`].
    pub fn new(config: SessionConfig, rng: Rng, now: Instant) -> Self {
        let mut cx = SessionContext::new(config, rng, now);
        let state = State::new(&mut cx);
        let bounded = (state.phase(), 0);
        let deadline = timeout(bounded.0).map(|bound| now + bound);
        Self {
            state,
            parser: ReplyParser::default(),
            cx,
            bounded,
            deadline,
            stall_deadline: now,
            pause: Pause::NotYet,
        }
    }

    /// Sets whether what is said is put out, as [`SessionConfig::trace`] does at the beginning.
    pub(crate) fn set_trace(&mut self, trace: bool) {
        self.cx.set_trace(trace);
    }

    /// Keeps what is said from now on.
    pub(crate) fn keep_transcript(&mut self) {
        self.cx.history.keep_transcript();
    }

    /// Returns what is remembered of the conversation.
    pub(crate) fn history(&self) -> &History {
        &self.cx.history
    }

    /// Processes octets from the peer, in any portions, decrypted if TLS is on.
    pub fn handle_received(&mut self, now: Instant, octets: &[u8]) {
        self.cx.history.advance(now);
        let mut rest = octets;
        while !rest.is_empty() {
            match self.state.phase() {
                Phase::Ended => break,
                Phase::Tls => {
                    self.advance(State::on_plain_text_before_tls);
                    break;
                }
                Phase::Greeting
                | Phase::Ehlo
                | Phase::StartTls
                | Phase::Padding
                | Phase::Auth
                | Phase::Ready
                | Phase::Mail
                | Phase::Rcpt
                | Phase::Data
                | Phase::MailData
                | Phase::EndOfData
                | Phase::Rset
                | Phase::Quit => self.take_reply(&mut rest),
            }
        }
        self.bound_phase(now);
    }

    /// Handles the completion of the TLS handshake that [`SessionOutput::StartTls`] requested.
    pub fn handle_tls_established(&mut self, now: Instant, tls: &Tls) {
        self.cx.history.advance(now);
        self.advance(|state, cx| state.on_tls_established(tls, cx));
        self.bound_phase(now);
    }

    /// Returns what the server has proved inside TLS.
    pub(crate) fn proved(&self) -> Option<Proved> {
        self.cx.peer.map(|(proved, _)| proved)
    }

    /// Ends the session, because the TLS handshake has failed and the connection with it.
    pub fn handle_tls_failed(&mut self, now: Instant, reason: SystemError<Breakage>) {
        self.cx.history.advance(now);
        self.end(now, Unsuitable::TlsFailed(reason).into());
    }

    /// Ends the session, because the connection is closed or broken.
    pub fn handle_closed(&mut self, now: Instant, reason: CloseReason) {
        self.cx.history.advance(now);
        let cause = match reason {
            CloseReason::EndOfFile => EndCause::Closed,
            CloseReason::Broken(reason) => EndCause::Broken(reason),
        };
        self.end(now, cause);
    }

    /// Ends the pause before the end of a message, and ends the session if the time of its phase is over. An early call does
    /// nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.cx.history.advance(now);
        if let Pause::Until(end) = self.pause
            && end <= now
        {
            self.pause = Pause::Over;
        }
        if self.poll_timeout().is_some_and(|(deadline, _)| deadline <= now) {
            self.advance(State::on_timeout);
            self.bound_phase(now);
        }
    }

    /// Begins a transaction: one after each [`SessionOutput::Ready`]. At any other time all its recipients are returned
    /// undecided; after [`SessionOutput::Ended`] nothing is returned.
    pub fn begin(&mut self, now: Instant, transaction: Transaction) {
        self.cx.history.advance(now);
        self.advance(|state, cx| state.begin(transaction, cx));
        self.bound_phase(now);
    }

    /// Answers [`SessionOutput::NeedData`] with the requested octets or some of them. An empty answer means that the mail has
    /// vanished or shrunk: the session ends without the final dot, so that the server drops what it has received.
    pub fn supply_data(&mut self, now: Instant, octets: Bytes) {
        self.cx.history.advance(now);
        if self.is_starved() {
            // The peer is not to blame for the time until now.
            self.stall_deadline = now + MAIL_DATA_STALL_TIMEOUT;
        }
        self.advance(|state, cx| state.on_data_supplied(octets, cx));
        self.bound_phase(now);
    }

    /// Ends the session by QUIT and its reply, after the running transaction; at once if the negotiation is not finished.
    pub fn quit(&mut self, now: Instant) {
        self.cx.history.advance(now);
        self.advance(State::quit);
        self.bound_phase(now);
    }

    /// Returns whether only the reply to QUIT is missing.
    pub fn has_said_quit(&self) -> bool {
        self.phase() == Phase::Quit && !self.wants_transmit()
    }

    /// Ends a session that has said QUIT without waiting for the reply.
    pub fn leave(&mut self, now: Instant) {
        self.cx.history.advance(now);
        if self.has_said_quit() {
            self.end(now, EndCause::Quit);
        }
    }

    /// Returns the next output. Call it until it returns `None`.
    pub fn poll_output(&mut self) -> Option<SessionOutput> {
        self.cx.poll_output()
    }

    /// Appends up to about `limit` octets to `out`. Returns whether anything was appended. Call it when the connection can take
    /// more, until it returns false. Everything appended up to then must reach the connection before the next call, as a write of
    /// its own. Appended octets count as sent. There may be new outputs afterwards.
    pub fn poll_transmit(&mut self, now: Instant, limit: usize, out: &mut BytesMut) -> bool {
        self.cx.history.advance(now);
        if limit == 0 || !self.wants_transmit() {
            return false;
        }
        let begin = out.len();
        if !self.cx.commands.is_empty() {
            self.cx.commands.take(limit, out);
            return true;
        }
        let may_finish = !self.is_listening() && (self.pause == Pause::Over || !self.end_goes_apart());
        self.advance(|state, cx| state.send_data(limit, may_finish, out, cx));
        self.stall_deadline = now + MAIL_DATA_STALL_TIMEOUT;
        self.pause_before_end(now);
        self.bound_phase(now);
        out.len() > begin
    }

    /// Returns whether [`Session::poll_transmit`] has something to append.
    pub fn wants_transmit(&self) -> bool {
        if !self.cx.commands.is_empty() {
            return !self.is_listening();
        }
        let Some(data) = self.state.mail_data() else { return false };
        if data.is_complete() {
            return !self.is_listening() && !matches!(self.pause, Pause::Until(_));
        }
        data.has_octets()
    }

    /// Returns when to call [`Session::handle_timeout`], and the phase that will have taken too long.
    pub fn poll_timeout(&self) -> Option<(Instant, Phase)> {
        let (phase, _) = self.bounded;
        let deadline = self.deadline?;
        if let Pause::Until(end) = self.pause {
            return Some((deadline.min(end), phase));
        }
        if phase == Phase::MailData && !self.is_starved() {
            return Some((deadline.min(self.stall_deadline), phase));
        }
        Some((deadline, phase))
    }

    /// Returns since when the peer has owed something that it may be given up for. A peer that has a whole message is never given up
    /// for being slow.
    pub fn silent_since(&self) -> Option<Instant> {
        let (phase, _) = self.bounded;
        self.owes_since().filter(|_| phase != Phase::EndOfData && !self.awaits_final_reply())
    }

    /// Returns since when the peer has owed something. `None` if it owes nothing, for example while it waits for us.
    pub fn owes_since(&self) -> Option<Instant> {
        let (phase, _) = self.bounded;
        match phase {
            Phase::Ready | Phase::Quit | Phase::Ended => None,
            Phase::MailData if self.is_starved() => None,
            Phase::MailData => Some(self.stall_deadline - MAIL_DATA_STALL_TIMEOUT),
            Phase::Tls
            | Phase::Greeting
            | Phase::Ehlo
            | Phase::StartTls
            | Phase::Padding
            | Phase::Auth
            | Phase::Mail
            | Phase::Rcpt
            | Phase::Data
            | Phase::EndOfData
            | Phase::Rset => Some(self.deadline? - timeout(phase)?),
        }
    }

    /// Returns the phase of the conversation.
    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// Returns the extensions that the server has offered last.
    pub fn extensions(&self) -> &Extensions {
        &self.cx.extensions
    }

    /// Returns whether the conversation is protected by TLS.
    pub fn is_tls(&self) -> bool {
        self.cx.is_tls()
    }

    /// Returns whether a message was sent whole and its verdict is still unknown.
    pub fn awaits_final_reply(&self) -> bool {
        self.state.awaits_final_reply()
    }

    /// Returns the mail of the transactions under way, which has no verdict yet.
    pub fn undecided(&self) -> impl Iterator<Item = MailId> {
        self.state.transfers().flat_map(Transfer::mails)
    }

    /// Returns how many transactions are under way.
    pub(crate) fn transactions_under_way(&self) -> usize {
        self.state.transfers().count()
    }

    /// Returns the mail of messages that were sent whole, without a verdict.
    pub(crate) fn uncertain(&self) -> impl Iterator<Item = MailId> {
        let sent = usize::from(self.awaits_final_reply());
        self.state.transfers().take(sent).flat_map(Transfer::mails)
    }

    fn advance(&mut self, transition: impl FnOnce(State, &mut SessionContext) -> State) {
        let state = mem::replace(&mut self.state, State::Ended);
        self.state = transition(state, &mut self.cx);
    }

    fn end(&mut self, now: Instant, cause: EndCause) {
        self.advance(|state, cx| state.close(cause, cx));
        self.bound_phase(now);
    }

    fn take_reply(&mut self, rest: &mut &[u8]) {
        let received = *rest;
        let result = self.parser.parse(rest);
        let consumed =
            received.split_at_checked(received.len() - rest.len()).map_or(received, |(taken, _)| taken);
        match result {
            Ok(reply) => {
                self.cx.trace_received(consumed, reply.as_ref());
                if let Some(reply) = reply {
                    self.advance(|state, cx| state.on_reply(&reply, cx));
                }
            }
            Err(error) => {
                self.cx.trace_received(received, None);
                self.advance(|state, cx| state.close(Misbehaved::MalformedReply(error).into(), cx));
            }
        }
    }

    /// Returns whether part of an unasked reply has arrived. No command is sent meanwhile, because the reply could be taken to
    /// answer it.
    fn is_listening(&self) -> bool {
        !self.parser.is_empty() && self.cx.commands.owed() == 0
    }

    /// Returns whether the end of the message is sent separately.
    fn end_goes_apart(&self) -> bool {
        let is_empty = self.state.mail_data().is_some_and(|data| data.total() == 0);
        !self.cx.extensions.pipelining && !is_empty
    }

    /// Begins the pause when all of the message but its end is sent.
    fn pause_before_end(&mut self, now: Instant) {
        let is_at_end = self.state.mail_data().is_some_and(MailData::is_complete);
        if is_at_end && self.pause == Pause::NotYet && self.end_goes_apart() {
            self.pause = Pause::Until(if self.cx.is_tls() { now } else { now + END_OF_DATA_PAUSE });
        }
    }

    /// Returns whether sending must wait because more of the message is not yet supplied.
    fn is_starved(&self) -> bool {
        self.state.mail_data().is_some_and(MailData::is_starved)
    }

    /// Sets the deadline of a phase that has just begun.
    fn bound_phase(&mut self, now: Instant) {
        let bounded = self.state.bounded();
        if bounded == self.bounded {
            return;
        }
        self.bounded = bounded;
        self.pause = Pause::NotYet;
        self.deadline = timeout(bounded.0).map(|bound| now + bound);
        if let Some(data) = self.state.mail_data() {
            self.deadline = self.deadline.map(|deadline| deadline + mail_data_allowance(data.total()));
            self.stall_deadline = now + MAIL_DATA_STALL_TIMEOUT;
        }
    }
}
