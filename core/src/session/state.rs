//! The states of a conversation and all transitions between them. No other file changes a session's state, except that `mailing`
//! handles the transactions, and `authentication` handles AUTH.

use alloc::boxed::Box;

use bytes::{Bytes, BytesMut};

use super::authentication::Authentication;
use super::context::SessionContext;
use super::doubted::Doubted;
use super::extensions::Extensions;
use super::mail_data::MailData;
use super::mailing::{Mailing, Turn};
use super::transfer::Transfer;
use super::types::{Phase, SessionEnd, SessionNote, SessionOutput, Transaction};
use crate::command::{Command, CommandName};
use crate::ending::{EndCause, Misbehaved, OutOfStep, Overdue, Unsuitable};
use crate::next_hop::TlsMode;
use crate::reply::{Reply, ReplyClass, ReplyCode};
use crate::tls::Tls;

/// What the session expects next.
#[derive(Debug)]
pub(super) enum State {
    ExpectTls,
    ExpectGreeting,
    ExpectEhlo,
    ExpectHelo,
    ExpectStartTls,
    /// The reply to this command of padding, with the number of commands that follow.
    ExpectPadding(CommandName, u64),
    ExpectAuth(Box<Authentication>),
    /// The end of an exchange that is given up for this reason.
    ExpectAuthEnd(Unsuitable),
    /// A transaction, from the parent.
    Ready,
    /// The replies to the transactions that are under way.
    Mailing(Box<Mailing>),
    /// The farewell of the server.
    ExpectQuit(Box<Farewell>),
    Ended,
}

/// A session that has sent QUIT.
#[derive(Debug)]
pub(super) struct Farewell {
    /// The end of the session.
    end: SessionEnd,
    /// A message that the replies before the one to QUIT decide.
    doubted: Option<Box<Doubted>>,
}

impl State {
    /// Returns the first state: TCP has just connected.
    pub(super) fn new(cx: &mut SessionContext) -> Self {
        match cx.config.tls {
            TlsMode::Implicit => {
                cx.output(SessionOutput::StartTls);
                Self::ExpectTls
            }
            // RFC 5321 section 3.1: the greeting is awaited.
            TlsMode::Plain | TlsMode::StartTls => Self::ExpectGreeting,
        }
    }

    /// Returns the state after a reply.
    pub(super) fn on_reply(self, reply: &Reply, cx: &mut SessionContext) -> Self {
        let state = self.follow(reply, cx);
        // A later reply may concern this refusal, and not the command that it answers.
        cx.conduct.note_reply(reply);
        state
    }

    /// Returns the state after a reply: this is the transition table.
    fn follow(self, received: &Reply, cx: &mut SessionContext) -> Self {
        let reply = &cx.masked(received);
        let is_owed = cx.commands.take_reply();
        if let Self::ExpectQuit(farewell) = self {
            return farewell.on_reply(reply, cx);
        }
        // RFC 5321 section 3.8: 421 may be said at any time; the server closes the connection then.
        if reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE {
            return self.on_service_not_available(reply, is_owed, cx);
        }
        if let Self::Mailing(mut mailing) = self {
            let turn = mailing.on_reply(reply, is_owed, cx);
            return Self::Mailing(mailing).turn(turn, cx);
        }
        if !is_owed {
            let crime = if !cx.commands.is_empty() {
                OutOfStep::RepliedBeforeAsked(reply.clone())
            } else {
                OutOfStep::SpokeUnasked(reply.clone())
            };
            return self.close(crime.into(), cx);
        }
        let is_authenticating = matches!(self, Self::ExpectAuth(_) | Self::ExpectAuthEnd(_));
        if reply.class() == ReplyClass::Intermediate && !is_authenticating {
            let crime = OutOfStep::CannotAnswer(self.command(), reply.clone());
            return self.close(crime.into(), cx);
        }
        match self {
            Self::ExpectGreeting => self.on_greeting(reply, cx),
            Self::ExpectEhlo => self.on_ehlo(reply, cx),
            Self::ExpectHelo => self.on_helo(reply, cx),
            Self::ExpectStartTls => self.on_starttls(reply, cx),
            Self::ExpectPadding(_, left) => Self::on_padding(left, reply, cx),
            Self::ExpectAuth(authentication) => authentication.on_reply(received, cx),
            Self::ExpectAuthEnd(reason) => Self::leave_unauthenticated(reason, cx),
            Self::ExpectTls | Self::Ready | Self::Mailing(_) | Self::ExpectQuit(_) | Self::Ended => {
                self.close(OutOfStep::SpokeUnasked(reply.clone()).into(), cx)
            }
        }
    }

    /// Returns the state after the TLS handshake.
    pub(super) fn on_tls_established(self, tls: &Tls, cx: &mut SessionContext) -> Self {
        let Self::ExpectTls = self else { return self };
        let verdict = cx.config.need.judge(tls);
        let proved = verdict.unwrap_or_else(|_| tls.proves());
        cx.peer = Some((proved, tls.verification));
        cx.history.end_tls();
        cx.history.remark(tls.summary(proved));
        if let Err(shortfall) = verdict {
            if cx.config.need.enforces(shortfall.lack) {
                return Self::ExpectTls.close(shortfall.into(), cx);
            }
            cx.output(SessionOutput::Note(SessionNote::FallsShort(shortfall)));
        }
        match cx.config.tls {
            TlsMode::Implicit => Self::ExpectGreeting,
            // RFC 3207 section 4.2: earlier replies no longer count, and EHLO is sent again.
            TlsMode::Plain | TlsMode::StartTls => Self::greet(cx),
        }
    }

    /// Ends the session, because octets were received while TLS was being begun: an attacker may insert plain text (RFC 3207
    /// section 6).
    pub(super) fn on_plain_text_before_tls(self, cx: &mut SessionContext) -> Self {
        self.close(Misbehaved::PlainTextBeforeTls.into(), cx)
    }

    /// Returns the state when the time of the phase is over.
    pub(super) fn on_timeout(self, cx: &mut SessionContext) -> Self {
        let cause = if let Self::Mailing(mailing) = &self {
            mailing.on_timeout(cx)
        } else if let Self::ExpectTls = self {
            EndCause::TimedOut(Overdue::TlsHandshake)
        } else {
            EndCause::TimedOut(Overdue::Reply(self.command()))
        };
        self.close(cause, cx)
    }

    /// Begins a transaction if possible; otherwise returns its recipients undecided.
    pub(super) fn begin(self, transaction: Transaction, cx: &mut SessionContext) -> Self {
        if cx.quits || !cx.is_announced {
            cx.hand_back(transaction);
            return self;
        }
        cx.is_announced = false;
        let mut mailing = if let Self::Mailing(mailing) = self { mailing } else { Box::new(Mailing::new()) };
        let turn = mailing.begin(transaction, cx);
        Self::Mailing(mailing).turn(turn, cx)
    }

    /// Ends the session, because the parent no longer needs it.
    pub(super) fn quit(self, cx: &mut SessionContext) -> Self {
        match self {
            Self::Ready => self.leave(EndCause::Quit, cx),
            Self::ExpectTls
            | Self::ExpectGreeting
            | Self::ExpectEhlo
            | Self::ExpectHelo
            | Self::ExpectStartTls
            | Self::ExpectPadding(..)
            | Self::ExpectAuth(_)
            | Self::ExpectAuthEnd(_) => self.close(EndCause::Quit, cx),
            Self::Mailing(_) | Self::ExpectQuit(_) | Self::Ended => {
                cx.quits = true;
                self
            }
        }
    }

    /// Takes a piece of the message, or notes that it cannot come.
    pub(super) fn on_data_supplied(self, octets: Bytes, cx: &mut SessionContext) -> Self {
        let Self::Mailing(mut mailing) = self else { return self };
        let turn = mailing.on_data_supplied(octets, cx);
        Self::Mailing(mailing).turn(turn, cx)
    }

    /// Appends about `limit` octets of the message, and with `may_finish` its end after everything else.
    pub(super) fn send_data(
        self,
        limit: usize,
        may_finish: bool,
        out: &mut BytesMut,
        cx: &mut SessionContext,
    ) -> Self {
        let Self::Mailing(mut mailing) = self else { return self };
        let turn = mailing.send_data(limit, may_finish, out, cx);
        Self::Mailing(mailing).turn(turn, cx)
    }

    /// Ends the session at once. Recipients that are not decided stay undecided, or are uncertain after the final dot.
    pub(super) fn close(self, cause: EndCause, cx: &mut SessionContext) -> Self {
        if let Self::Ended = self {
            return self;
        }
        let end = self.end(cause, cx);
        cx.commands.clear();
        cx.output(SessionOutput::Ended(end));
        Self::Ended
    }

    /// Ends the session with QUIT and its reply (RFC 5321 section 4.1.1.10).
    fn leave(self, cause: EndCause, cx: &mut SessionContext) -> Self {
        self.leave_in_doubt(cause, None, cx)
    }

    /// Does the same while a message may still be decided.
    fn leave_in_doubt(self, cause: EndCause, doubted: Option<Box<Doubted>>, cx: &mut SessionContext) -> Self {
        let end = self.end(cause, cx);
        cx.send(&Command::Quit);
        Self::ExpectQuit(Box::new(Farewell { end, doubted }))
    }

    /// Puts the verdicts out, and returns the end that is put out later.
    fn end(self, cause: EndCause, cx: &mut SessionContext) -> SessionEnd {
        let phase = self.phase();
        cx.is_announced = false;
        match self {
            Self::ExpectQuit(farewell) => return farewell.end(cx),
            Self::Mailing(mailing) => mailing.end(&cause, cx),
            Self::ExpectPadding(..) if cause != EndCause::Quit => cx.conduct.note_padding_failed(),
            Self::ExpectTls
            | Self::ExpectGreeting
            | Self::ExpectEhlo
            | Self::ExpectHelo
            | Self::ExpectStartTls
            | Self::ExpectPadding(..)
            | Self::ExpectAuth(_)
            | Self::ExpectAuthEnd(_)
            | Self::Ready
            | Self::Ended => {}
        }
        let (padding_failed, no_pipelining) = (cx.conduct.padding_failed(), cx.conduct.no_pipelining());
        SessionEnd { phase, cause, padding_failed, no_pipelining }
    }

    fn on_service_not_available(mut self, reply: &Reply, is_owed: bool, cx: &mut SessionContext) -> Self {
        let command = if let Self::Mailing(mailing) = &mut self {
            mailing.on_service_not_available(reply, is_owed, cx)
        } else if is_owed {
            self.command()
        } else {
            CommandName::Nothing
        };
        self.close(EndCause::Refused(reply.clone(), command), cx)
    }

    fn greet(cx: &mut SessionContext) -> Self {
        cx.extensions = Extensions::default();
        let announce = cx.config.announce.clone();
        cx.send(&Command::Ehlo(&announce));
        Self::ExpectEhlo
    }

    fn on_greeting(self, reply: &Reply, cx: &mut SessionContext) -> Self {
        cx.history.note_greeting(reply);
        if reply.class() == ReplyClass::Completed {
            return Self::greet(cx);
        }
        // RFC 5321 section 3.1: after a 554 the client still says QUIT.
        self.refused(reply, cx)
    }

    fn on_ehlo(self, reply: &Reply, cx: &mut SessionContext) -> Self {
        if reply.is_cut() {
            return self.close(Misbehaved::EhloReplyTooLong.into(), cx);
        }
        match reply.class() {
            ReplyClass::Completed => {
                cx.extensions = Extensions::parse(reply);
                cx.history.note_ehlo(reply);
                self.protect(cx)
            }
            // RFC 5321 section 3.2: a server that does not know EHLO gets HELO.
            ReplyClass::Permanent => {
                let announce = cx.config.announce.clone();
                cx.send(&Command::Helo(&announce));
                Self::ExpectHelo
            }
            ReplyClass::Intermediate | ReplyClass::Transient | ReplyClass::Unknown => self.refused(reply, cx),
        }
    }

    fn on_helo(self, reply: &Reply, cx: &mut SessionContext) -> Self {
        if reply.class() == ReplyClass::Completed { self.protect(cx) } else { self.refused(reply, cx) }
    }

    /// Continues after an accepted greeting: STARTTLS if it is still wanted.
    fn protect(self, cx: &mut SessionContext) -> Self {
        if cx.config.tls == TlsMode::StartTls && !cx.is_tls() {
            // RFC 3207 section 4: only if it is offered.
            if cx.extensions.starttls {
                cx.send(&Command::StartTls);
                return Self::ExpectStartTls;
            }
            if let Some(shortfall) = cx.lacks_tls() {
                return self.leave(shortfall.into(), cx);
            }
            if !cx.config.plain_fallback {
                return self.leave(Unsuitable::StartTlsNotOffered.into(), cx);
            }
            cx.output(SessionOutput::Note(SessionNote::StartTlsNotOffered));
        }
        if let Some(shortfall) = cx.lacks_tls() {
            return self.leave(shortfall.into(), cx);
        }
        cx.tell_plain_text();
        let count = if cx.is_tls() { cx.rng.below(u64::from(cx.config.padding_limit) + 1) } else { 0 };
        Self::pad(count, cx)
    }

    fn on_starttls(self, reply: &Reply, cx: &mut SessionContext) -> Self {
        if reply.class() != ReplyClass::Completed {
            return self.refused(reply, cx);
        }
        cx.output(SessionOutput::StartTls);
        Self::ExpectTls
    }

    /// Sends `count` more commands of padding, so that the lengths of what follows reveal less.
    fn pad(count: u64, cx: &mut SessionContext) -> Self {
        let Some(left) = count.checked_sub(1) else { return Authentication::begin(cx) };
        let command = if cx.rng.below(2) == 0 { Command::Noop } else { Command::Rset };
        cx.send(&command);
        Self::ExpectPadding(command.name(), left)
    }

    fn on_padding(left: u64, reply: &Reply, cx: &mut SessionContext) -> Self {
        if reply.class() == ReplyClass::Completed {
            return Self::pad(left, cx);
        }
        cx.conduct.note_padding_failed();
        cx.output(SessionOutput::Note(SessionNote::PaddingRefused(reply.clone())));
        Authentication::begin(cx)
    }

    /// Continues after the negotiation or a transaction.
    pub(super) fn ready(cx: &mut SessionContext) -> Self {
        if cx.quits {
            return Self::Ready.leave(EndCause::Quit, cx);
        }
        cx.announce();
        Self::Ready
    }

    /// Returns the state after a step of the transactions.
    fn turn(self, turn: Turn, cx: &mut SessionContext) -> Self {
        match turn {
            Turn::Done => return Self::ready(cx),
            Turn::Close(cause) => return self.close(cause, cx),
            Turn::Leave(cause) => return self.leave(cause, cx),
            Turn::LeaveInDoubt(cause, doubted) => return self.leave_in_doubt(cause, Some(doubted), cx),
            Turn::GoOn => {}
        }
        if let Self::Mailing(mailing) = &self
            && !cx.quits
            && mailing.has_room(cx)
        {
            cx.announce();
        }
        self
    }

    pub(super) fn refused(self, reply: &Reply, cx: &mut SessionContext) -> Self {
        let cause = EndCause::Refused(reply.clone(), self.command());
        self.leave(cause, cx)
    }

    /// Ends the session: a server that does not authenticate us is not used.
    pub(super) fn leave_unauthenticated(reason: Unsuitable, cx: &mut SessionContext) -> Self {
        Self::ExpectAuthEnd(reason.clone()).leave(reason.into(), cx)
    }

    /// Returns the phase of the session.
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::ExpectTls => Phase::Tls,
            Self::ExpectGreeting => Phase::Greeting,
            Self::ExpectEhlo | Self::ExpectHelo => Phase::Ehlo,
            Self::ExpectStartTls => Phase::StartTls,
            Self::ExpectPadding(..) => Phase::Padding,
            Self::ExpectAuth(_) | Self::ExpectAuthEnd(_) => Phase::Auth,
            Self::Ready => Phase::Ready,
            Self::Mailing(mailing) => mailing.phase(),
            Self::ExpectQuit(farewell) if farewell.doubted.is_some() => Phase::EndOfData,
            Self::ExpectQuit(_) => Phase::Quit,
            Self::Ended => Phase::Ended,
        }
    }

    /// Returns what one timeout bounds: the phase, or the part of it that one command takes (RFC 5321 section 4.5.3.2).
    pub(super) fn bounded(&self) -> (Phase, u64) {
        let replies = if let Self::Mailing(mailing) = self { mailing.replies() } else { 0 };
        (self.phase(), replies)
    }

    /// Returns whether a message was sent whose verdict is unknown.
    pub(super) fn awaits_final_reply(&self) -> bool {
        match self {
            Self::Mailing(mailing) => mailing.awaits_final_reply(),
            Self::ExpectQuit(farewell) => farewell.doubted.is_some(),
            Self::ExpectTls
            | Self::ExpectGreeting
            | Self::ExpectEhlo
            | Self::ExpectHelo
            | Self::ExpectStartTls
            | Self::ExpectPadding(..)
            | Self::ExpectAuth(_)
            | Self::ExpectAuthEnd(_)
            | Self::Ready
            | Self::Ended => false,
        }
    }

    /// Returns the transactions under way.
    pub(super) fn transfers(&self) -> impl Iterator<Item = &Transfer> {
        let mailing = if let Self::Mailing(mailing) = self { Some(mailing.transfers()) } else { None };
        let doubted = if let Self::ExpectQuit(farewell) = self { farewell.doubted.as_deref() } else { None };
        mailing.into_iter().flatten().chain(doubted.map(Doubted::transfer))
    }

    /// Returns the message, while it is being sent.
    pub(super) fn mail_data(&self) -> Option<&MailData> {
        if let Self::Mailing(mailing) = self { mailing.mail_data() } else { None }
    }

    /// Returns the command that the next reply answers.
    fn command(&self) -> CommandName {
        match self {
            Self::ExpectGreeting => CommandName::Greeting,
            Self::ExpectEhlo => CommandName::Ehlo,
            Self::ExpectHelo => CommandName::Helo,
            Self::ExpectStartTls => CommandName::StartTls,
            Self::ExpectPadding(command, _) => *command,
            Self::ExpectAuth(_) | Self::ExpectAuthEnd(_) => CommandName::Auth,
            Self::Mailing(mailing) => mailing.command(),
            Self::ExpectQuit(_) => CommandName::Quit,
            Self::ExpectTls | Self::Ready | Self::Ended => CommandName::Nothing,
        }
    }
}

impl Farewell {
    /// Processes a reply after QUIT: the server may still decide a message before it replies to QUIT.
    fn on_reply(mut self: Box<Self>, reply: &Reply, cx: &mut SessionContext) -> State {
        if reply.code() != ReplyCode::SERVICE_CLOSING && self.doubted.is_some() {
            if let Some(outcome) = Doubted::outcome(reply)
                && let Some(doubted) = self.doubted.take()
            {
                cx.output(SessionOutput::Verdicts(doubted.decide(&outcome).into_verdicts()));
            }
            if reply.code() != ReplyCode::SERVICE_NOT_AVAILABLE {
                return State::ExpectQuit(self);
            }
        }
        State::ExpectQuit(self).close(EndCause::Quit, cx)
    }

    /// Ends the conversation.
    fn end(self, cx: &mut SessionContext) -> SessionEnd {
        if let Some(doubted) = self.doubted {
            cx.output(SessionOutput::Verdicts(doubted.stand().into_verdicts()));
        }
        self.end
    }
}
