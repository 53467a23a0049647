//! One transaction under way: the commands of its envelope that are sent and answered, and the decisions about its recipients.

use alloc::vec::Vec;

use super::context::SessionContext;
use super::extensions::Extensions;
use super::mail_data::MailData;
use super::message::Message;
use super::progress::Progress;
use super::refusal::{self, Objection};
use super::types::{Outcome, Recipient, RefusalKind, Transaction};
use crate::command::{Command, CommandName};
use crate::ending::Unfit;
use crate::outbox::MailId;
use crate::reply::{Reply, ReplyClass};

/// A transaction under way.
#[derive(Debug)]
pub(super) struct Transfer {
    message: Message,
    /// True if MAIL says that addresses are not ASCII.
    smtputf8: bool,
    /// Recipients that are not asked for in this transaction.
    left_out: Vec<(Recipient, Outcome)>,
    recipients: Vec<AskedRecipient>,
    progress: Progress,
    /// True if the server holds a transaction that its next MAIL would fall into.
    is_open: bool,
    /// A refusal that does not concern the mail. Recipients without a reply of their own stay undecided, and the conversation
    /// ends.
    objection: Option<Objection>,
    /// True if it ends after RCPT.
    is_probe: bool,
    /// The reply by which the recipient of a probe was accepted.
    acceptance: Option<Reply>,
}

/// A recipient that is asked for with RCPT.
#[derive(Debug)]
struct AskedRecipient {
    recipient: Recipient,
    state: RecipientState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum RecipientState {
    /// No reply has come.
    Open,
    /// The server would accept the message.
    Accepted,
    Decided(Outcome),
}

/// A command of the envelope. They are numbered in the order in which they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EnvelopeStep {
    Mail,
    /// RCPT for the recipient with this index.
    Rcpt(usize),
    Data,
}

impl Transfer {
    /// Returns a transaction in which everything is decided that this server need not be asked.
    pub(super) fn new(transaction: Transaction, extensions: &Extensions) -> Self {
        let Transaction { reverse_path, recipients, signatures, data_octets, head, is_probe } = transaction;
        let asked = |recipient| AskedRecipient { recipient, state: RecipientState::Open };
        let mut transfer = Self {
            message: Message::new(reverse_path, signatures, data_octets, head, is_probe),
            smtputf8: false,
            left_out: Vec::new(),
            recipients: recipients.into_iter().map(asked).collect(),
            progress: Progress::default(),
            is_open: false,
            objection: None,
            is_probe,
            acceptance: None,
        };
        transfer.keep_to_size_limit(extensions);
        transfer.keep_to_smtputf8(extensions);
        transfer
    }

    /// Leaves out a message that exceeds the limit (RFC 1870 section 6.1).
    fn keep_to_size_limit(&mut self, extensions: &Extensions) {
        let Some(size) = self.message.min_octets() else { return };
        if let Some(limit) = extensions.size_limit_octets.filter(|limit| *limit < size) {
            self.leave_out(Unfit::TooLong { octets: size, limit_octets: limit }, |_| true);
        }
    }

    /// Leaves out addresses that are not ASCII, unless the server offers SMTPUTF8 (RFC 6531 section 3.4).
    fn keep_to_smtputf8(&mut self, extensions: &Extensions) {
        let sender_needs_it = self.message.needs_smtputf8();
        let needs_it = |asked: &AskedRecipient| sender_needs_it || asked.recipient.mailbox.needs_smtputf8();
        if extensions.smtputf8 {
            self.smtputf8 = sender_needs_it || self.recipients.iter().any(needs_it);
            return;
        }
        self.leave_out(Unfit::NeedsSmtpUtf8, needs_it);
    }

    fn leave_out(&mut self, why: Unfit, concerns: impl Fn(&AskedRecipient) -> bool) {
        let left_out = self.recipients.extract_if(.., |asked| concerns(asked));
        self.left_out.extend(left_out.map(|asked| (asked.recipient, Outcome::Unfit(why))));
    }

    /// Returns MAIL with the parameters that the server offers.
    pub(super) fn mail(&self, extensions: &Extensions) -> Command<'_> {
        // RFC 3461 section 5.2.1; they are the same for all recipients.
        let wishes =
            self.recipients.first().filter(|_| extensions.dsn).map(|asked| &asked.recipient.wishes.message);
        self.message.mail(self.smtputf8, wishes, extensions)
    }

    /// Returns RCPT for the recipient with this index, with the parameters that the server offers.
    pub(super) fn rcpt(&self, index: usize, extensions: &Extensions) -> Option<Command<'_>> {
        let Recipient { mailbox, wishes, .. } = &self.recipients.get(index)?.recipient;
        Some(Command::Rcpt { forward_path: mailbox, wishes: extensions.dsn.then_some(wishes) })
    }

    /// Returns all mail of the transaction, including what the server is not asked for.
    pub(super) fn mails(&self) -> impl Iterator<Item = MailId> {
        let left_out = self.left_out.iter().map(|(recipient, _)| recipient.id);
        left_out.chain(self.recipients.iter().map(|asked| asked.recipient.id))
    }

    /// Returns the first mail that the server would accept.
    pub(super) fn first_accepted(&self) -> Option<MailId> {
        let accepted = self.recipients.iter().find(|asked| asked.state == RecipientState::Accepted);
        accepted.map(|asked| asked.recipient.id)
    }

    /// Returns the next command to send, if the replies so far allow one.
    pub(super) fn next_step(&self) -> Option<EnvelopeStep> {
        let step =
            self.progress.next().filter(|_| self.objection.is_none()).and_then(|number| self.step(number))?;
        let is_worth_it = match step {
            EnvelopeStep::Mail => !self.recipients.is_empty(),
            // After a refused MAIL every recipient is decided.
            EnvelopeStep::Rcpt(index) => {
                self.recipients.get(index).is_some_and(|recipient| recipient.state == RecipientState::Open)
            }
            // In a batch it is not yet known whether any recipient is accepted.
            EnvelopeStep::Data => !self.is_probe && (self.owes_replies() || self.has_accepted()),
        };
        is_worth_it.then_some(step)
    }

    /// Records that the command of [`Transfer::next_step`] is sent.
    pub(super) fn mark_sent(&mut self, is_batched: bool) {
        self.progress.mark_sent(is_batched);
    }

    /// Returns the command that is answered next, if the server owes a reply.
    pub(super) fn awaited_step(&self) -> Option<EnvelopeStep> {
        self.progress.awaited().and_then(|number| self.step(number))
    }

    /// Records that [`Transfer::awaited_step`] is answered.
    pub(super) fn mark_answered(&mut self) {
        self.progress.mark_answered();
    }

    /// Returns whether a command of the envelope is not answered.
    pub(super) fn owes_replies(&self) -> bool {
        self.progress.owes_replies()
    }

    /// Returns whether the server has answered anything.
    pub(super) fn is_answered(&self) -> bool {
        self.progress.is_answered()
    }

    /// Returns whether the commands are sent without waiting for replies.
    pub(super) fn is_batched(&self) -> bool {
        self.progress.is_batched()
    }

    /// Returns whether the server holds a transaction that its next MAIL would fall into.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Returns whether replies in a batch have decided recipients. Only a checkpoint shows that these replies are theirs.
    pub(super) fn needs_checkpoint(&self) -> bool {
        let is_decided = |recipient: &AskedRecipient| matches!(recipient.state, RecipientState::Decided(_));
        self.is_batched() && self.recipients.iter().any(is_decided)
    }

    /// Returns whether the server has accepted any recipient.
    pub(super) fn has_accepted(&self) -> bool {
        self.recipients.iter().any(|recipient| recipient.state == RecipientState::Accepted)
    }

    /// Processes the reply to MAIL. If MAIL is refused, no recipient gets the message.
    pub(super) fn take_mail_reply(&mut self, reply: &Reply, cx: &mut SessionContext) {
        if reply.class() == ReplyClass::Completed {
            self.is_open = true;
            return;
        }
        if self.take_objection(reply, CommandName::Mail) {
            return;
        }
        let outcome = self.judge(reply, CommandName::Mail, cx);
        for recipient in &mut self.recipients {
            recipient.state = RecipientState::Decided(outcome.clone());
        }
    }

    /// Processes the reply to the RCPT of the recipient with this index.
    pub(super) fn take_rcpt_reply(&mut self, index: usize, reply: &Reply, cx: &mut SessionContext) {
        let is_accepted = reply.class() == ReplyClass::Completed;
        // A success opens a transaction, whatever the reply to MAIL was.
        self.is_open |= is_accepted;
        let Some(RecipientState::Open) = self.recipients.get(index).map(|recipient| &recipient.state) else {
            return;
        };
        if !is_accepted && self.take_objection(reply, CommandName::Rcpt) {
            return;
        }
        if is_accepted && self.is_probe {
            self.acceptance = Some(reply.clone());
        }
        let state = if is_accepted {
            RecipientState::Accepted
        } else if self.leave_out_the_rest(reply) {
            RecipientState::Decided(Outcome::Undecided)
        } else {
            RecipientState::Decided(self.judge(reply, CommandName::Rcpt, cx))
        };
        if let Some(recipient) = self.recipients.get_mut(index) {
            recipient.state = state;
        }
    }

    /// Leaves this recipient and those not yet asked for to another transaction, after 452 to a recipient that follows an
    /// accepted one (RFC 5321 section 4.5.3.1.10). Returns whether that is the case.
    fn leave_out_the_rest(&mut self, reply: &Reply) -> bool {
        if !refusal::is_no_room(reply) || !self.has_accepted() {
            return false;
        }
        let asked = self.progress.sent().saturating_sub(1).min(self.recipients.len());
        let not_asked = self.recipients.split_off(asked);
        self.left_out.extend(not_asked.into_iter().map(|asked| (asked.recipient, Outcome::Undecided)));
        true
    }

    /// Processes a refusal of DATA.
    pub(super) fn take_data_refusal(&mut self, reply: &Reply, cx: &mut SessionContext) {
        if self.has_accepted() && !self.take_objection(reply, CommandName::Data) {
            let outcome = self.judge(reply, CommandName::Data, cx);
            self.decide_accepted(&outcome);
        }
    }

    /// Returns whether this refusal, or an earlier one, does not concern the mail. Everything after the first such refusal
    /// follows from it.
    fn take_objection(&mut self, reply: &Reply, command: CommandName) -> bool {
        if self.objection.is_none() {
            self.objection = Objection::find(reply, command);
        }
        self.objection.is_some()
    }

    /// Ends the conversation by this objection, after every command that was sent is answered.
    pub(super) fn object(&mut self, objection: Objection) {
        self.objection.get_or_insert(objection);
    }

    /// Returns the objection by which the conversation ends.
    pub(super) fn objection(&self) -> Option<&Objection> {
        self.objection.as_ref()
    }

    /// Returns whether the server has refused the connection during this transaction.
    pub(super) fn is_refused(&self) -> bool {
        self.recipients.iter().any(AskedRecipient::is_refused)
    }

    /// Returns whether the server has refused a recipient for lack of room in this transaction.
    pub(super) fn lacks_room(&self) -> bool {
        let has_no_room =
            |recipient: &AskedRecipient| recipient.state == RecipientState::Decided(Outcome::Undecided);
        self.recipients.iter().any(has_no_room)
    }

    /// Decides all recipients that no reply has decided.
    pub(super) fn decide_open(&mut self, outcome: &Outcome) {
        for recipient in &mut self.recipients {
            if matches!(recipient.state, RecipientState::Open | RecipientState::Accepted) {
                recipient.state = RecipientState::Decided(outcome.clone());
            }
        }
    }

    /// Decides all recipients that the server has accepted.
    pub(super) fn decide_accepted(&mut self, outcome: &Outcome) {
        for recipient in &mut self.recipients {
            if recipient.state == RecipientState::Accepted {
                recipient.state = RecipientState::Decided(outcome.clone());
            }
        }
    }

    /// Undoes what the replies to the envelope have decided: they may belong to other commands.
    pub(super) fn disbelieve(&mut self) {
        for recipient in &mut self.recipients {
            recipient.state = RecipientState::Open;
        }
    }

    /// Returns the message, to be sent now.
    pub(super) fn mail_data(&mut self) -> MailData {
        self.message.take_data()
    }

    /// Returns the outcome of each recipient. Those that are not decided stay undecided.
    pub(super) fn into_verdicts(self) -> Vec<(Recipient, Outcome)> {
        let acceptance = self.acceptance;
        let outcome = |asked: AskedRecipient| match (asked.state, &acceptance) {
            (RecipientState::Accepted, Some(reply)) => (asked.recipient, Outcome::Accepted(reply.clone())),
            (RecipientState::Open | RecipientState::Accepted, _) => (asked.recipient, Outcome::Undecided),
            (RecipientState::Decided(outcome), _) => (asked.recipient, outcome),
        };
        let mut verdicts = self.left_out;
        verdicts.extend(self.recipients.into_iter().map(outcome));
        verdicts
    }

    /// Returns the command with this number.
    fn step(&self, number: usize) -> Option<EnvelopeStep> {
        let Some(index) = number.checked_sub(1) else { return Some(EnvelopeStep::Mail) };
        match index.cmp(&self.recipients.len()) {
            core::cmp::Ordering::Less => Some(EnvelopeStep::Rcpt(index)),
            core::cmp::Ordering::Equal => Some(EnvelopeStep::Data),
            core::cmp::Ordering::Greater => None,
        }
    }

    /// Returns the outcome that a refusal means. In a batch, a refusal that only says that the server could not follow means
    /// nothing: from now on it gets one command at a time, and the transaction is repeated.
    fn judge(&mut self, reply: &Reply, command: CommandName, cx: &mut SessionContext) -> Outcome {
        let is_lost_in_batch = self.is_batched() && refusal::is_misunderstood(reply);
        if is_lost_in_batch {
            cx.conduct.note_no_pipelining();
        }
        if let Some(kind) = self.kind_of_refusal(reply, command, cx) {
            // On a connection that has taken mail before, the other recipients of the message would be refused as well.
            self.progress.set_cut(cx.conduct.has_taken() || kind == RefusalKind::OutOfStep);
            return refusal::of_connection(kind, reply, command);
        }
        if is_lost_in_batch {
            return Outcome::Undecided;
        }
        refusal::verdict(reply, command)
    }

    /// Returns the kind of refusal of the connection, if the reply is one.
    fn kind_of_refusal(
        &self,
        reply: &Reply,
        command: CommandName,
        cx: &SessionContext,
    ) -> Option<RefusalKind> {
        if refusal::is_out_of_step(reply, cx) {
            return Some(RefusalKind::OutOfStep);
        }
        let is_not_now = if command == CommandName::Rcpt {
            // After an accepted recipient it would concern the transaction.
            refusal::is_not_now_to_rcpt(reply) && !self.has_accepted()
        } else {
            refusal::is_not_now(reply)
        };
        is_not_now.then_some(RefusalKind::NotNow)
    }
}

impl AskedRecipient {
    /// Returns whether the connection was refused in reply to the RCPT of this recipient.
    fn is_refused(&self) -> bool {
        matches!(self.state, RecipientState::Decided(Outcome::Refused(_)))
    }
}
