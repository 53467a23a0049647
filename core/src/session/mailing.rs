//! The transactions of a connection, one message at a time.
//!
//! The server is in one of two situations, and each determines what the next reply answers.
//!
//! *It owes replies to commands.* These concern at most two transactions. The first is *ending*: its end, the final dot or RSET,
//! was sent and is not confirmed. After it there may be the *envelope* of the next one: MAIL, RCPT and DATA. A server that offers
//! PIPELINING (RFC 2920) gets the envelope in one batch, directly after the end of the transaction before. Any other gets one
//! command at a time, and nothing directly after an end. So the next reply belongs to the transaction that is ending, or else to
//! the oldest command of the envelope.
//!
//! *It receives a message*, from its 354 to the final dot. The 354 answers the last command of the envelope, so every earlier
//! transaction is over, and no reply is owed. That makes it a checkpoint: if there had been one reply too many or too few before
//! it, another reply would be in its place. Hence a message is never sent while another is without its verdict.
//!
//! Replies about the recipients of an envelope are believed when the server reaches such a checkpoint, 354 to DATA or success to
//! RSET, or when the conversation ends without anything out of step. A reply that is impossible in its place ends the connection:
//! then the recipients of an envelope are undecided, whatever was said of them, and a message that awaits its verdict is
//! uncertain. Delivered messages stay delivered.
//!
//! One refusal of a message is *doubted*: 500 to 504 to the final dot, or 5yz before it, may answer a line of the message that
//! the server took for a command, and the verdict follows it. Then no further transaction begins and QUIT is sent, and a success
//! that comes before its reply is the verdict. If an envelope was already sent, QUIT must wait for the reply to its DATA: if that
//! is 354, the refusal was in its place; if the server has replied with success to something else meanwhile, the message is
//! uncertain.
//!
//! Some refusals concern the *connection* rather than the mail. Their consequence depends on other connections, so the
//! transaction ends like any other, and the parent learns the kind of refusal ([`Outcome::Refused`]). Nothing is sent after that
//! end, so that the parent can end the session instead.

use alloc::boxed::Box;
use core::mem;

use bytes::{Bytes, BytesMut};

use super::context::SessionContext;
use super::doubted::Doubted;
use super::mail_data::MailData;
use super::refusal::{self, Objection};
use super::transfer::{EnvelopeStep, Transfer};
use super::types::{Outcome, Phase, RefusalKind, SessionOutput, Transaction};
use crate::command::{Command, CommandName};
use crate::ending::{EndCause, LocalTrouble, Misbehaved, OutOfStep, Overdue};
use crate::reply::{Reply, ReplyClass};

/// The transactions that are under way.
#[derive(Debug)]
pub(super) struct Mailing {
    stage: Stage,
    /// The number of replies that were processed.
    replies: u64,
}

#[derive(Debug)]
enum Stage {
    /// The server owes replies to commands, or no transaction is under way.
    Asking { ending: Option<Ending>, envelope: Option<Transfer> },
    /// The server receives a message, and owes no reply.
    Sending(Sending),
}

/// A transaction whose end was sent.
#[derive(Debug)]
struct Ending {
    transfer: Transfer,
    end: End,
}

#[derive(Debug)]
enum End {
    /// By the final dot.
    Message,
    /// By RSET (RFC 5321 section 4.1.1.5).
    Rset,
    /// By the final dot, but the refusal of it is doubted. No reply is owed.
    Doubted(Outcome),
}

/// A message on its way, from 354 to the final dot.
#[derive(Debug)]
struct Sending {
    transfer: Transfer,
    data: MailData,
    /// A refusal that came before the message was sent whole.
    refusal: Option<Outcome>,
}

/// The consequence of a reply, or of the beginning of a transaction.
#[derive(Debug)]
pub(super) enum Turn {
    /// There is more to send or to wait for.
    GoOn,
    /// All transactions are over, and the server holds none open.
    Done,
    /// The session ends at once.
    Close(EndCause),
    /// The session ends with QUIT.
    Leave(EndCause),
    /// The session ends with QUIT. The replies before the one to QUIT decide this message.
    LeaveInDoubt(EndCause, Box<Doubted>),
}

impl Mailing {
    /// Returns an empty state.
    pub(super) fn new() -> Self {
        Self { stage: Stage::Asking { ending: None, envelope: None }, replies: 0 }
    }

    /// Adds a transaction.
    pub(super) fn begin(&mut self, transaction: Transaction, cx: &mut SessionContext) -> Turn {
        let Stage::Asking { envelope: envelope @ None, .. } = &mut self.stage else {
            debug_assert!(false, "a transaction begins where there is no room for one");
            cx.hand_back(transaction);
            return Turn::GoOn;
        };
        *envelope = Some(Transfer::new(transaction, &cx.extensions));
        self.advance(cx)
    }

    /// Returns whether a further transaction could be sent now.
    pub(super) fn has_room(&self, cx: &SessionContext) -> bool {
        let Stage::Asking { ending, envelope: None } = &self.stage else { return false };
        // A transaction that ends the conversation is followed by QUIT, and one that was refused may be.
        let ends_conversation = |transfer: &Transfer| transfer.objection().is_some() || transfer.is_refused();
        if ending.as_ref().is_some_and(|ending| ends_conversation(&ending.transfer)) {
            return false;
        }
        match ending.as_ref().map(|ending| &ending.end) {
            Some(End::Message | End::Rset) => cx.may_pipeline(),
            Some(End::Doubted(_)) => false,
            None => true,
        }
    }

    /// Processes a reply. `is_owed` is true if the server owed one.
    pub(super) fn on_reply(&mut self, reply: &Reply, is_owed: bool, cx: &mut SessionContext) -> Turn {
        let (ending, envelope) = match &mut self.stage {
            Stage::Sending(sending) => {
                debug_assert!(!is_owed, "a message is sent while a reply is owed");
                return sending.on_early_reply(reply);
            }
            Stage::Asking { ending, envelope } => (ending, envelope),
        };
        if !is_owed {
            return self.on_unasked_reply(reply, cx);
        }
        self.replies = self.replies.wrapping_add(1);
        let is_ending = matches!(ending, Some(Ending { end: End::Message | End::Rset, .. }));
        let turn = if is_ending {
            self.on_ending_reply(reply, cx)
        } else {
            let step = envelope.as_ref().and_then(Transfer::awaited_step);
            debug_assert!(step.is_some(), "a reply is owed to no command");
            match step {
                Some(step) => self.on_envelope_reply(step, reply, cx),
                None => Turn::Close(OutOfStep::SpokeUnasked(reply.clone()).into()),
            }
        };
        if let Turn::GoOn = turn { self.advance(cx) } else { turn }
    }

    /// Processes 421 (RFC 5321 section 3.8): the command that it answers is refused. Returns that command.
    pub(super) fn on_service_not_available(
        &mut self,
        reply: &Reply,
        is_owed: bool,
        cx: &mut SessionContext,
    ) -> CommandName {
        let command = if is_owed { self.command() } else { CommandName::Nothing };
        let refused = |kind, command| refusal::of_connection(kind, reply, command);
        match &mut self.stage {
            Stage::Sending(Sending { transfer, refusal, .. }) => {
                // An earlier refusal stays the verdict.
                if refusal.is_none() {
                    transfer.decide_accepted(&refused(RefusalKind::Closing, CommandName::MailData));
                }
                return CommandName::MailData;
            }
            Stage::Asking { ending: Some(Ending { transfer, end: End::Message }), .. } => {
                transfer.decide_accepted(&refused(RefusalKind::ClosingAtEnd, command));
            }
            Stage::Asking { ending: None, envelope: Some(envelope) } => {
                // It has counted recipients beyond its limit; asked one by one, it would not have received them.
                if envelope.is_batched() && envelope.lacks_room() {
                    cx.conduct.note_no_pipelining();
                }
                envelope.decide_open(&refused(RefusalKind::Closing, command));
            }
            Stage::Asking { .. } => {}
        }
        command
    }

    /// Ends the session because the time of the phase is over.
    pub(super) fn on_timeout(&self, cx: &mut SessionContext) -> EndCause {
        match &self.stage {
            Stage::Sending(sending) if sending.data.is_starved() => {
                return LocalTrouble::MailDataLate.into();
            }
            Stage::Sending(_) => {
                return EndCause::TimedOut(Overdue::MailData);
            }
            // A server that answers the first command of a batch and not the others may have dropped the others.
            Stage::Asking { ending: None, envelope: Some(envelope) }
                if envelope.is_batched() && envelope.is_answered() && cx.commands.owed() > 1 =>
            {
                cx.conduct.note_no_pipelining();
            }
            Stage::Asking { .. } => {}
        }
        EndCause::TimedOut(Overdue::Reply(self.command()))
    }

    /// Takes a piece of the message, or notes that it cannot come.
    pub(super) fn on_data_supplied(&mut self, octets: Bytes, cx: &mut SessionContext) -> Turn {
        let Stage::Sending(sending) = &mut self.stage else { return Turn::GoOn };
        if sending.data.supply(octets) {
            sending.request_data(cx);
            return Turn::GoOn;
        }
        // Without its final dot the server must drop what it has received (RFC 5321 section 4.1.1.4).
        Turn::Close(LocalTrouble::MailDataGone.into())
    }

    /// Appends about `limit` octets of the message, and with `may_finish` its end after everything else.
    pub(super) fn send_data(
        &mut self,
        limit: usize,
        may_finish: bool,
        out: &mut BytesMut,
        cx: &mut SessionContext,
    ) -> Turn {
        let Stage::Sending(sending) = &mut self.stage else { return Turn::GoOn };
        debug_assert_eq!(cx.commands.owed(), 0, "a message is sent while a reply is owed");
        let begin = out.len();
        sending.data.encode(limit, out);
        let is_finished = sending.data.is_complete() && may_finish;
        if is_finished {
            sending.data.finish(out);
            cx.commands.expect_final_reply();
        }
        cx.trace_data(out.get(begin..).unwrap_or_default());
        if !is_finished {
            sending.request_data(cx);
            return Turn::GoOn;
        }
        let stage = mem::replace(&mut self.stage, Stage::Asking { ending: None, envelope: None });
        let Stage::Sending(sending) = stage else { return Turn::GoOn };
        let Sending { transfer, refusal, .. } = sending;
        if let Some(refusal) = refusal {
            return leave_in_doubt(transfer, refusal);
        }
        self.stage = Stage::Asking { ending: Some(Ending { transfer, end: End::Message }), envelope: None };
        Turn::GoOn
    }

    /// Puts out the outcome of every recipient whose transaction is not over.
    pub(super) fn end(self, cause: &EndCause, cx: &mut SessionContext) {
        let is_out_of_step = cause.is_out_of_step();
        let mut is_batched = false;
        let mut tell = |transfer: Transfer, cx: &mut SessionContext| {
            is_batched |= transfer.is_batched() && transfer.is_answered();
            cx.output(SessionOutput::Verdicts(transfer.into_verdicts()));
        };
        match self.stage {
            Stage::Sending(mut sending) => {
                if let Some(refusal) = sending.refusal {
                    sending.transfer.decide_accepted(&refusal);
                }
                tell(sending.transfer, cx);
            }
            Stage::Asking { ending, envelope } => {
                if let Some(Ending { mut transfer, end }) = ending {
                    match end {
                        End::Message => transfer.decide_accepted(&Outcome::Uncertain(cause.clone())),
                        End::Rset if is_out_of_step => transfer.disbelieve(),
                        End::Rset => {}
                        End::Doubted(_) if envelope.as_ref().is_some_and(Transfer::is_open) => {
                            transfer.decide_accepted(&Outcome::Uncertain(cause.clone()));
                        }
                        End::Doubted(refusal) => transfer.decide_accepted(&refusal),
                    }
                    tell(transfer, cx);
                }
                if let Some(mut transfer) = envelope {
                    if is_out_of_step {
                        transfer.disbelieve();
                    }
                    tell(transfer, cx);
                }
            }
        }
        // Replies that do not match a batch may match if each command waits for its reply.
        if is_out_of_step && is_batched {
            cx.conduct.note_no_pipelining();
        }
    }

    /// Returns the phase that the next reply belongs to.
    pub(super) fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Sending(_) => Phase::MailData,
            Stage::Asking { ending: Some(Ending { end: End::Message, .. }), .. } => Phase::EndOfData,
            Stage::Asking { ending: Some(Ending { end: End::Rset, .. }), .. } => Phase::Rset,
            Stage::Asking { envelope, .. } => match envelope.as_ref().and_then(Transfer::awaited_step) {
                Some(EnvelopeStep::Mail) => Phase::Mail,
                Some(EnvelopeStep::Rcpt(_)) => Phase::Rcpt,
                Some(EnvelopeStep::Data) => Phase::Data,
                None => Phase::Ready,
            },
        }
    }

    /// Returns the command that the next reply answers.
    pub(super) fn command(&self) -> CommandName {
        match &self.stage {
            Stage::Sending(_) => CommandName::MailData,
            Stage::Asking { ending: Some(Ending { end: End::Message, .. }), .. } => CommandName::EndOfData,
            Stage::Asking { ending: Some(Ending { end: End::Rset, .. }), .. } => CommandName::Rset,
            Stage::Asking { envelope, .. } => match envelope.as_ref().and_then(Transfer::awaited_step) {
                Some(EnvelopeStep::Mail) => CommandName::Mail,
                Some(EnvelopeStep::Rcpt(_)) => CommandName::Rcpt,
                Some(EnvelopeStep::Data) => CommandName::Data,
                None => CommandName::Nothing,
            },
        }
    }

    /// Returns the number of replies processed: each has its own time (RFC 5321 section 4.5.3.2).
    pub(super) fn replies(&self) -> u64 {
        self.replies
    }

    /// Returns whether a message was sent whose verdict is unknown.
    pub(super) fn awaits_final_reply(&self) -> bool {
        matches!(self.stage, Stage::Asking { ending: Some(Ending { end: End::Message, .. }), .. })
    }

    /// Returns the transactions under way, the one that is ending first.
    pub(super) fn transfers(&self) -> impl Iterator<Item = &Transfer> {
        let (first, second) = match &self.stage {
            Stage::Sending(sending) => (Some(&sending.transfer), None),
            Stage::Asking { ending, envelope } => {
                (ending.as_ref().map(|ending| &ending.transfer), envelope.as_ref())
            }
        };
        first.into_iter().chain(second)
    }

    /// Returns the message, while it is being sent.
    pub(super) fn mail_data(&self) -> Option<&MailData> {
        if let Stage::Sending(sending) = &self.stage { Some(&sending.data) } else { None }
    }

    /// Processes a reply that answers no command. A server that is tired of refusing says so unasked. If each command was sent
    /// alone, that does not shift any reply before it.
    fn on_unasked_reply(&mut self, reply: &Reply, cx: &SessionContext) -> Turn {
        let Stage::Asking { ending, envelope } = &mut self.stage else { return Turn::GoOn };
        let ending = ending.as_ref().map(|ending| &ending.transfer);
        let is_batched = ending.into_iter().chain(envelope.as_ref()).any(Transfer::is_batched);
        if is_batched || !refusal::is_out_of_step(reply, cx) {
            return Turn::Close(OutOfStep::RepliedBeforeAsked(reply.clone()).into());
        }
        let (kind, command) = (RefusalKind::OutOfStep, CommandName::Nothing);
        if let Some(envelope) = envelope {
            envelope.decide_open(&refusal::of_connection(kind, reply, command));
        }
        Turn::Close(EndCause::Refused(reply.clone(), command))
    }

    /// Processes the reply to the final dot or to RSET.
    fn on_ending_reply(&mut self, reply: &Reply, cx: &mut SessionContext) -> Turn {
        let Stage::Asking { ending, envelope } = &mut self.stage else { return Turn::GoOn };
        let Some(Ending { mut transfer, end }) = ending.take() else { return Turn::GoOn };
        if let End::Rset = end {
            if reply.class() == ReplyClass::Completed {
                let objection = transfer.objection().cloned();
                cx.output(SessionOutput::Verdicts(transfer.into_verdicts()));
                return objection.map_or(Turn::GoOn, |objection| Turn::Leave(objection.into_cause()));
            }
            if let Some(objection) = transfer.objection().cloned() {
                // A server that requires TLS or AUTH first may refuse this too.
                transfer.disbelieve();
                *ending = Some(Ending { transfer, end });
                return Turn::Leave(objection.into_cause());
            }
            let is_batched = transfer.is_batched();
            *ending = Some(Ending { transfer, end });
            return refused_rset(reply, is_batched);
        }
        if transfer.has_accepted()
            && let Some(objection) = Objection::find(reply, CommandName::EndOfData)
        {
            cx.output(SessionOutput::Verdicts(transfer.into_verdicts()));
            let Some(envelope) = envelope else { return Turn::Leave(objection.into_cause()) };
            envelope.object(objection);
            return Turn::GoOn;
        }
        // RFC 5321 section 4.2.5: with 2yz, and only then, the server takes responsibility.
        let outcome = match reply.class() {
            ReplyClass::Completed => Outcome::Delivered(reply.clone()),
            ReplyClass::Transient | ReplyClass::Permanent | ReplyClass::Unknown => {
                refusal::verdict(reply, CommandName::EndOfData)
            }
            ReplyClass::Intermediate => {
                *ending = Some(Ending { transfer, end });
                return Turn::Close(cannot_answer(CommandName::EndOfData, reply));
            }
        };
        if Doubted::may_begin_by(reply) && transfer.has_accepted() {
            if envelope.is_none() {
                return leave_in_doubt(transfer, outcome);
            }
            *ending = Some(Ending { transfer, end: End::Doubted(outcome) });
            return Turn::GoOn;
        }
        if reply.class() == ReplyClass::Completed && transfer.has_accepted() {
            cx.conduct.note_taken();
        }
        transfer.decide_accepted(&outcome);
        cx.output(SessionOutput::Verdicts(transfer.into_verdicts()));
        Turn::GoOn
    }

    /// Processes the reply to the oldest command of the envelope.
    fn on_envelope_reply(&mut self, step: EnvelopeStep, reply: &Reply, cx: &mut SessionContext) -> Turn {
        let Stage::Asking { envelope: Some(envelope), .. } = &mut self.stage else { return Turn::GoOn };
        envelope.mark_answered();
        match (step, reply.class()) {
            (EnvelopeStep::Data, ReplyClass::Intermediate) => return self.on_data_accepted(cx),
            (EnvelopeStep::Data, ReplyClass::Completed) => {
                // There was one reply too many, or this server does not speak SMTP.
                return Turn::Close(cannot_answer(CommandName::Data, reply));
            }
            (EnvelopeStep::Mail, ReplyClass::Intermediate) => {
                return Turn::Close(cannot_answer(CommandName::Mail, reply));
            }
            (EnvelopeStep::Rcpt(_), ReplyClass::Intermediate) => {
                return Turn::Close(cannot_answer(CommandName::Rcpt, reply));
            }
            (EnvelopeStep::Mail, _) => envelope.take_mail_reply(reply, cx),
            (EnvelopeStep::Rcpt(index), _) => envelope.take_rcpt_reply(index, reply, cx),
            (EnvelopeStep::Data, _) => envelope.take_data_refusal(reply, cx),
        }
        Turn::GoOn
    }

    /// Begins to send the message.
    fn on_data_accepted(&mut self, cx: &mut SessionContext) -> Turn {
        debug_assert_eq!(cx.commands.owed(), 0, "a reply is owed behind that to DATA");
        let Stage::Asking { ending, envelope } = &mut self.stage else { return Turn::GoOn };
        if let Some(Ending { mut transfer, end: End::Doubted(refusal) }) = ending.take() {
            transfer.decide_accepted(&refusal);
            cx.output(SessionOutput::Verdicts(transfer.into_verdicts()));
            // QUIT would be a line of the message now.
            return Turn::Close(Misbehaved::DidNotFollow.into());
        }
        let Some(mut transfer) = envelope.take() else { return Turn::GoOn };
        if let Some(objection) = transfer.objection().cloned() {
            // QUIT would be a line of the message now.
            *envelope = Some(transfer);
            return Turn::Close(objection.into_cause());
        }
        if !transfer.has_accepted() {
            // RFC 2920 section 3.1: DATA was sent in advance, but no recipient was accepted.
            cx.send(&Command::EndOfData);
            *ending = Some(Ending { transfer, end: End::Message });
            return Turn::GoOn;
        }
        let data = transfer.mail_data();
        let mut sending = Sending { transfer, data, refusal: None };
        sending.request_data(cx);
        self.stage = Stage::Sending(sending);
        Turn::GoOn
    }

    /// Ends what is over and sends what may be sent, until nothing is left to do.
    fn advance(&mut self, cx: &mut SessionContext) -> Turn {
        loop {
            let Stage::Asking { ending, envelope } = &mut self.stage else { return Turn::GoOn };
            let Some(transfer) = envelope else {
                return if ending.is_none() { Turn::Done } else { Turn::GoOn };
            };
            let Some(step) = transfer.next_step() else {
                if transfer.owes_replies() {
                    return Turn::GoOn;
                }
                match self.conclude_envelope(cx) {
                    Turn::GoOn => continue,
                    turn @ (Turn::Done | Turn::Close(_) | Turn::Leave(_) | Turn::LeaveInDoubt(..)) => {
                        return turn;
                    }
                }
            };
            let is_batched = cx.may_pipeline();
            if !is_batched && (transfer.owes_replies() || ending.is_some()) {
                return Turn::GoOn;
            }
            let extensions = mem::take(&mut cx.extensions);
            let command = match step {
                EnvelopeStep::Mail => Some(transfer.mail(&extensions)),
                EnvelopeStep::Rcpt(index) => transfer.rcpt(index, &extensions),
                EnvelopeStep::Data => Some(Command::Data),
            };
            command.iter().for_each(|command| cx.send(command));
            cx.extensions = extensions;
            transfer.mark_sent(is_batched);
        }
    }

    /// Ends an envelope without a message: every command that was sent is answered.
    fn conclude_envelope(&mut self, cx: &mut SessionContext) -> Turn {
        let Stage::Asking { ending, envelope } = &mut self.stage else { return Turn::GoOn };
        if let Some(Ending { end: End::Doubted(_), .. }) = ending {
            let cause = OutOfStep::DidNotFollow.into();
            if envelope.as_ref().is_some_and(Transfer::is_open) {
                return Turn::Close(cause);
            }
            let Some(Ending { transfer, end: End::Doubted(refusal) }) = ending.take() else {
                return Turn::GoOn;
            };
            return Turn::LeaveInDoubt(cause, Box::new(Doubted::new(transfer, refusal)));
        }
        let Some(transfer) = envelope.take() else { return Turn::GoOn };
        let is_believed = !transfer.is_open() || !transfer.needs_checkpoint();
        if let Some(objection) = transfer.objection().filter(|_| is_believed).cloned() {
            // QUIT ends what is still open.
            *envelope = Some(transfer);
            return Turn::Leave(objection.into_cause());
        }
        if transfer.is_open() {
            debug_assert!(
                ending.is_none(),
                "an envelope is answered before the end of the transaction before"
            );
            // RFC 5321 section 4.1.1.5: the server still holds the transaction.
            cx.send(&Command::Rset);
            *ending = Some(Ending { transfer, end: End::Rset });
        } else {
            cx.output(SessionOutput::Verdicts(transfer.into_verdicts()));
        }
        Turn::GoOn
    }
}

impl Sending {
    /// Processes a reply that comes before the message is sent whole, so that it answers nothing. A temporary refusal is a
    /// verdict. After a permanent one the message is sent to its end, because the reply to the whole message counts more. Any
    /// other reply means nothing, because the server has not received the message.
    fn on_early_reply(&mut self, reply: &Reply) -> Turn {
        if let Some(objection) = Objection::find(reply, CommandName::MailData) {
            // Without its final dot the server must drop what it has received.
            return Turn::Close(objection.into_cause());
        }
        match reply.class() {
            ReplyClass::Permanent => {
                self.refusal.get_or_insert_with(|| refusal::verdict(reply, CommandName::MailData));
                Turn::GoOn
            }
            ReplyClass::Transient => {
                self.refusal.get_or_insert_with(|| refusal::verdict(reply, CommandName::MailData));
                Turn::Close(Misbehaved::RefusedDuringData(reply.clone()).into())
            }
            ReplyClass::Completed | ReplyClass::Intermediate | ReplyClass::Unknown => {
                Turn::Close(OutOfStep::RepliedDuringData(reply.clone()).into())
            }
        }
    }

    fn request_data(&mut self, cx: &mut SessionContext) {
        let Some(id) = self.transfer.first_accepted() else { return };
        if let Some((offset, limit)) = self.data.request() {
            cx.output(SessionOutput::NeedData { id, offset, limit });
        }
    }
}

fn leave_in_doubt(transfer: Transfer, refusal: Outcome) -> Turn {
    Turn::LeaveInDoubt(OutOfStep::DidNotFollow.into(), Box::new(Doubted::new(transfer, refusal)))
}

/// Handles a refused RSET. The next MAIL would fall into the old transaction. RSET is never refused (RFC 5321 section 4.1.1.5),
/// so in a batch the refusal probably answers another command, and no reply about the recipients can be believed.
fn refused_rset(reply: &Reply, is_batched: bool) -> Turn {
    if is_batched || reply.class() == ReplyClass::Intermediate {
        return Turn::Close(OutOfStep::RefusedRset(reply.clone()).into());
    }
    Turn::Leave(Misbehaved::RefusedRset(reply.clone()).into())
}

fn cannot_answer(command: CommandName, reply: &Reply) -> EndCause {
    OutOfStep::CannotAnswer(command, reply.clone()).into()
}
