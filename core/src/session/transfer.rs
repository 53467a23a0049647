//! One transaction that is under way: which commands of its envelope are sent and answered, whom the server accepts, what is
//! decided.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

use super::context::Context;
use super::extensions::Extensions;
use super::mail_data::MailData;
use super::types::{EndCause, FailureReason, Outcome, Transaction};
use crate::address::Mailbox;
use crate::command::{Command, CommandName};
use crate::outbox::MailId;
use crate::reply::{Reply, ReplyClass, ReplyCode};
use crate::status::EnhancedStatus;
use crate::transparency::transmitted_octets;

/// A transaction that is under way.
#[derive(Debug)]
pub(super) struct Transfer {
    reverse_path: Option<Mailbox>,
    data_octets: u64,
    head: Bytes,
    size: Size,
    /// Whether 8-bit octets are known to be in it.
    body_8bit: bool,
    smtputf8: bool,
    /// Recipients whom the server is not asked about in this transaction.
    left_out: Vec<(MailId, Outcome)>,
    recipients: Vec<Recipient>,
    /// How many commands of the envelope are sent.
    sent: usize,
    /// How many of those are answered.
    answered: usize,
    /// Whether the commands are sent without waiting for replies.
    is_batched: bool,
    /// Whether the server holds a transaction that its next MAIL would fall into.
    is_open: bool,
    /// A refusal that is not about the mail: whom no other reply has decided stays undecided, and the conversation ends.
    objection: Option<Objection>,
}

/// How large a message is with CRLF line ends, without doubled dots (RFC 1870 section 3).
#[derive(Clone, Copy, Debug)]
enum Size {
    Exactly(u64),
    /// The whole message is not here, and its line ends may have to be changed.
    AtLeast(u64),
}

/// A refusal that is about something else than the mail, and what it answers.
#[derive(Clone, Debug)]
pub(super) struct Objection {
    pub(super) reply: Reply,
    pub(super) command: CommandName,
}

/// Whom the server is asked about.
#[derive(Debug)]
struct Recipient {
    id: MailId,
    mailbox: Mailbox,
    standing: Standing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// There is no reply.
    Open,
    /// The server would take the message.
    Accepted,
    Decided(Outcome),
}

/// A command of the envelope. They are numbered in the order in which they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Mail,
    /// RCPT for the recipient with this index.
    Rcpt(usize),
    Data,
}

impl Transfer {
    /// Begins with all that need not be asked of this server decided.
    pub(super) fn new(transaction: Transaction, extensions: &Extensions) -> Self {
        let Transaction { reverse_path, recipients, data_octets, head } = transaction;
        let is_whole = head.len() as u64 >= data_octets;
        let recipient = |(id, mailbox)| Recipient { id, mailbox, standing: Standing::Open };
        let mut transfer = Self {
            size: match is_whole {
                true => Size::Exactly(transmitted_octets(&head)),
                false => Size::AtLeast(data_octets),
            },
            // RFC 6152 section 3.
            body_8bit: !head.is_ascii(),
            smtputf8: false,
            left_out: Vec::new(),
            recipients: recipients.into_iter().map(recipient).collect(),
            sent: 0,
            answered: 0,
            is_batched: false,
            is_open: false,
            objection: None,
            reverse_path,
            data_octets,
            head,
        };
        transfer.keep_to_size_limit(extensions);
        transfer.keep_to_smtputf8(extensions);
        transfer
    }

    /// RFC 1870 section 6.1: what exceeds the limit is not sent.
    fn keep_to_size_limit(&mut self, extensions: &Extensions) {
        let (Size::Exactly(size) | Size::AtLeast(size)) = self.size;
        if let Some(limit) = extensions.size_limit_octets.filter(|limit| *limit < size) {
            let text =
                alloc::format!("the message has {size} octets, more than the {limit} that the server takes");
            self.leave_out(own_failure(EnhancedStatus::MESSAGE_TOO_LONG, text.into(), true), |_| true);
        }
    }

    /// RFC 6531 section 3.4: addresses that are not ASCII go only to a server that offers SMTPUTF8.
    fn keep_to_smtputf8(&mut self, extensions: &Extensions) {
        let sender_needs_it = self.reverse_path.as_ref().is_some_and(Mailbox::needs_smtputf8);
        let needs_it = |recipient: &Recipient| sender_needs_it || recipient.mailbox.needs_smtputf8();
        if extensions.smtputf8 {
            self.smtputf8 = sender_needs_it || self.recipients.iter().any(needs_it);
            return;
        }
        let text = "the address is not ASCII, and the server does not offer SMTPUTF8";
        self.leave_out(own_failure(EnhancedStatus::NEEDS_SMTPUTF8, text.into(), true), needs_it);
    }

    fn leave_out(&mut self, outcome: Outcome, concerns: impl Fn(&Recipient) -> bool) {
        let left_out = self.recipients.extract_if(.., |recipient| concerns(recipient));
        self.left_out.extend(left_out.map(|recipient| (recipient.id, outcome.clone())));
    }

    /// MAIL with what the server offers.
    pub(super) fn mail(&self, extensions: &Extensions) -> Command<'_> {
        Command::Mail {
            reverse_path: self.reverse_path.as_ref(),
            size: match self.size {
                Size::Exactly(size) if extensions.size => Some(size),
                Size::Exactly(_) | Size::AtLeast(_) => None,
            },
            body_8bit: self.body_8bit && extensions.eight_bit_mime,
            smtputf8: self.smtputf8,
        }
    }

    /// The recipient with this index, for RCPT.
    pub(super) fn mailbox(&self, index: usize) -> Option<&Mailbox> {
        self.recipients.get(index).map(|recipient| &recipient.mailbox)
    }

    /// The command to send next, if there is one for as much as is known.
    pub(super) fn next_step(&self) -> Option<Step> {
        let step = self.step(self.sent).filter(|_| self.objection.is_none())?;
        let is_worth_it = match step {
            Step::Mail => !self.recipients.is_empty(),
            // After a refused MAIL everybody is decided.
            Step::Rcpt(index) => {
                self.recipients.get(index).is_some_and(|recipient| recipient.standing == Standing::Open)
            }
            // In a batch, whether anybody is accepted is not known yet.
            Step::Data => self.owes_replies() || self.has_accepted(),
        };
        is_worth_it.then_some(step)
    }

    /// The command that [`Transfer::next_step`] named is sent.
    pub(super) fn mark_sent(&mut self, is_batched: bool) {
        self.sent += 1;
        self.is_batched |= is_batched;
    }

    /// The command that is to be answered next, if the server owes a reply.
    pub(super) fn awaited_step(&self) -> Option<Step> {
        if self.owes_replies() { self.step(self.answered) } else { None }
    }

    /// Takes note of the reply to [`Transfer::awaited_step`].
    pub(super) fn mark_answered(&mut self) {
        debug_assert!(self.answered < self.sent, "a reply that nobody waits for");
        self.answered += 1;
    }

    /// Whether a command of the envelope is not answered.
    pub(super) fn owes_replies(&self) -> bool {
        self.answered < self.sent
    }

    /// Whether the server has answered anything.
    pub(super) fn is_answered(&self) -> bool {
        self.answered > 0
    }

    /// Whether the commands are sent without waiting for replies.
    pub(super) fn is_batched(&self) -> bool {
        self.is_batched
    }

    /// Whether the server holds a transaction that its next MAIL would fall into.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether replies in a batch have decided recipients, which only a checkpoint shows to be theirs.
    pub(super) fn needs_checkpoint(&self) -> bool {
        let is_decided = |recipient: &Recipient| matches!(recipient.standing, Standing::Decided(_));
        self.is_batched && self.recipients.iter().any(is_decided)
    }

    /// Whether there is somebody to send the message to.
    pub(super) fn has_accepted(&self) -> bool {
        self.recipients.iter().any(|recipient| recipient.standing == Standing::Accepted)
    }

    /// Takes the reply to MAIL. If it is refused, nobody gets the message.
    pub(super) fn take_mail_reply(&mut self, reply: &Reply, cx: &mut Context) {
        if reply.class() == ReplyClass::Completed {
            self.is_open = true;
            return;
        }
        if self.take_objection(reply, CommandName::Mail) {
            return;
        }
        let outcome = self.judge(reply, CommandName::Mail, cx);
        for recipient in &mut self.recipients {
            recipient.standing = Standing::Decided(outcome.clone());
        }
    }

    /// Takes the reply to the RCPT of the recipient with this index.
    pub(super) fn take_rcpt_reply(&mut self, index: usize, reply: &Reply, cx: &mut Context) {
        let is_accepted = reply.class() == ReplyClass::Completed;
        // A success opens a transaction, whatever was said of MAIL.
        self.is_open |= is_accepted;
        let Some(Standing::Open) = self.recipients.get(index).map(|recipient| &recipient.standing) else {
            return;
        };
        if !is_accepted && self.take_objection(reply, CommandName::Rcpt) {
            return;
        }
        let standing = if is_accepted {
            Standing::Accepted
        } else if self.has_no_room(reply) {
            Standing::Decided(Outcome::Undecided)
        } else {
            Standing::Decided(self.judge(reply, CommandName::Rcpt, cx))
        };
        if let Some(recipient) = self.recipients.get_mut(index) {
            recipient.standing = standing;
        }
    }

    /// RFC 5321 section 4.5.3.1.10: after 452 to a recipient that follows an accepted one, this one and those that were not asked
    /// about go in another transaction.
    fn has_no_room(&mut self, reply: &Reply) -> bool {
        if !is_no_room(reply) || !self.has_accepted() {
            return false;
        }
        let asked = self.sent.saturating_sub(1).min(self.recipients.len());
        let not_asked = self.recipients.split_off(asked);
        self.left_out.extend(not_asked.into_iter().map(|recipient| (recipient.id, Outcome::Undecided)));
        true
    }

    /// Takes a refusal of DATA.
    pub(super) fn take_data_refusal(&mut self, reply: &Reply, cx: &mut Context) {
        if self.has_accepted() && !self.take_objection(reply, CommandName::Data) {
            let outcome = self.judge(reply, CommandName::Data, cx);
            self.decide_accepted(&outcome);
        }
    }

    /// Whether this refusal, or one before it, is not about the mail; everything behind the first follows from it.
    fn take_objection(&mut self, reply: &Reply, command: CommandName) -> bool {
        if self.objection.is_none() {
            self.objection = Objection::find(reply, command);
        }
        self.objection.is_some()
    }

    /// The conversation is to end when every command that was sent is answered.
    pub(super) fn object(&mut self, objection: Objection) {
        self.objection.get_or_insert(objection);
    }

    /// What the conversation is to end by.
    pub(super) fn objection(&self) -> Option<&Objection> {
        self.objection.as_ref()
    }

    /// Decides all whom the server has accepted.
    pub(super) fn decide_accepted(&mut self, outcome: &Outcome) {
        for recipient in &mut self.recipients {
            if recipient.standing == Standing::Accepted {
                recipient.standing = Standing::Decided(outcome.clone());
            }
        }
    }

    /// Takes back what the replies to the envelope have decided: they may belong to other commands.
    pub(super) fn disbelieve(&mut self) {
        for recipient in &mut self.recipients {
            recipient.standing = Standing::Open;
        }
    }

    /// The message, to be sent now.
    pub(super) fn mail_data(&mut self) -> MailData {
        MailData::new(mem::take(&mut self.head), self.data_octets)
    }

    /// What has become of each recipient; who is not decided stays undecided.
    pub(super) fn into_verdicts(self) -> Vec<(MailId, Outcome)> {
        let outcome = |recipient: Recipient| match recipient.standing {
            Standing::Open | Standing::Accepted => (recipient.id, Outcome::Undecided),
            Standing::Decided(outcome) => (recipient.id, outcome),
        };
        let mut verdicts = self.left_out;
        verdicts.extend(self.recipients.into_iter().map(outcome));
        verdicts
    }

    /// The command with this number.
    fn step(&self, number: usize) -> Option<Step> {
        let Some(index) = number.checked_sub(1) else { return Some(Step::Mail) };
        match index.cmp(&self.recipients.len()) {
            core::cmp::Ordering::Less => Some(Step::Rcpt(index)),
            core::cmp::Ordering::Equal => Some(Step::Data),
            core::cmp::Ordering::Greater => None,
        }
    }

    /// The verdict of a refusal. One that only says that the server cannot follow is none for a batch: from now on it gets
    /// one command at a time, and the transaction is repeated.
    fn judge(&self, reply: &Reply, command: CommandName, cx: &mut Context) -> Outcome {
        if self.is_batched && is_misunderstood(reply) {
            cx.needs_caution = true;
            return Outcome::Undecided;
        }
        refusal(reply, command)
    }
}

impl Objection {
    /// A refusal that says that the connection is not fit for any mail.
    pub(super) fn find(reply: &Reply, command: CommandName) -> Option<Self> {
        reply.is_about_the_channel().then(|| Self { reply: reply.clone(), command })
    }

    /// How the conversation ends.
    pub(super) fn into_cause(self) -> EndCause {
        EndCause::Refused(self.reply, self.command)
    }
}

/// The verdict of a reply that is no success: by its first digit (RFC 5321 section 4.2), except that no room for
/// more recipients is never final, whichever code says so (section 4.5.3.1.10).
pub(super) fn refusal(reply: &Reply, command: CommandName) -> Outcome {
    let fatal =
        reply.class() == ReplyClass::Permanent && !(command == CommandName::Rcpt && is_no_room(reply));
    Outcome::Failed { reason: FailureReason::Reply { reply: reply.clone(), command }, fatal }
}

/// Whether a reply to RCPT says that the transaction has no room for more recipients. 552 says the same as 452 (RFC 5321
/// section 4.5.3.1.10), unless its enhanced code is about this very mailbox (RFC 3463 section 3.3): that one is full.
fn is_no_room(reply: &Reply) -> bool {
    const MAILBOX: u16 = 2;
    let is_about_the_mailbox = reply.enhanced().is_some_and(|code| code.subject == MAILBOX);
    match reply.code() {
        ReplyCode::INSUFFICIENT_STORAGE => true,
        ReplyCode::EXCEEDED_STORAGE => !is_about_the_mailbox,
        _ => false,
    }
}

/// Whether a reply says that the server did not know or expect the command (RFC 5321 section 4.2.2), rather than what it
/// thinks of the mail, which an enhanced code of another subject than the protocol tells (RFC 3463 section 3.6).
fn is_misunderstood(reply: &Reply) -> bool {
    const SUBJECTS: [u16; 2] = [0, 5];
    let is_about_the_protocol = reply.enhanced().is_none_or(|code| SUBJECTS.contains(&code.subject));
    let is_confused = matches!(
        reply.code(),
        ReplyCode::SYNTAX_ERROR | ReplyCode::COMMAND_NOT_IMPLEMENTED | ReplyCode::BAD_SEQUENCE_OF_COMMANDS
    );
    is_confused && is_about_the_protocol
}

/// The verdict where there is no reply.
pub(super) fn own_failure(status: EnhancedStatus, text: Cow<'static, str>, fatal: bool) -> Outcome {
    Outcome::Failed { reason: FailureReason::Own { status, text }, fatal }
}
