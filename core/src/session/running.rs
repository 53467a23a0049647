//! The bookkeeping of a transaction: who still waits, whom the server accepts, what is decided.

use alloc::borrow::Cow;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

use super::context::Context;
use super::extensions::Extensions;
use super::mail_data::MailData;
use super::types::{FailureReason, Outcome, Transaction};
use crate::address::Mailbox;
use crate::command::{Command, CommandName};
use crate::outbox::MailId;
use crate::reply::{Reply, ReplyClass, ReplyCode};
use crate::status::EnhancedStatus;
use crate::transparency::{MailDataEncoder, has_command_lines, transmitted_octets};

/// What of a transaction is to be sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Mail,
    Rcpt,
    /// DATA, or the message as a chunk.
    Message,
    Nothing,
}

/// A transaction that is under way. Every recipient is in exactly one of its three lists.
#[derive(Debug)]
pub(super) struct Running {
    reverse_path: Option<Mailbox>,
    data_octets: u64,
    head: Bytes,
    /// Size as it is declared, with CRLF line ends if the whole message is known.
    size: u64,
    body_8bit: bool,
    smtputf8: bool,
    /// What is to be sent next.
    pub(super) next: Next,
    /// Whether the message goes as one chunk (RFC 3030) instead of behind DATA.
    pub(super) is_chunked: bool,
    /// Whether its commands are sent without waiting for replies.
    pub(super) is_batched: bool,
    /// Whether the message is sent to its end.
    pub(super) is_sent: bool,
    /// Whether the server holds a transaction that its next MAIL would fall into.
    pub(super) is_open: bool,
    /// How many of its commands have no reply.
    unanswered: usize,
    /// Whether any of them has one.
    is_answered: bool,
    /// Not yet decided and not yet accepted; the first of them have been asked about.
    waiting: VecDeque<(MailId, Mailbox)>,
    /// How many of `waiting` have been asked about.
    asked: usize,
    /// Accepted by RCPT.
    accepted: Vec<MailId>,
    verdicts: Vec<(MailId, Outcome)>,
}

impl Running {
    /// Begins with all that need not be asked of this server decided.
    pub(super) fn new(transaction: Transaction, cx: &Context) -> Self {
        let Transaction { reverse_path, recipients, data_octets, head } = transaction;
        let is_whole = head.len() as u64 >= data_octets;
        let mut running = Self {
            size: if is_whole { transmitted_octets(&head) } else { data_octets },
            // RFC 6152 section 3. Of a message that is not here as a whole it is not known what follows.
            body_8bit: !is_whole || !head.is_ascii(),
            smtputf8: false,
            next: Next::Mail,
            is_chunked: is_whole && cx.may_chunk() && fits_a_chunk(&head),
            is_batched: false,
            is_sent: false,
            is_open: false,
            unanswered: 0,
            is_answered: false,
            waiting: recipients.into(),
            asked: 0,
            accepted: Vec::new(),
            verdicts: Vec::new(),
            reverse_path,
            data_octets,
            head,
        };
        running.keep_to_size_limit(&cx.extensions);
        running.keep_to_smtputf8(&cx.extensions);
        if running.waiting.is_empty() {
            running.next = Next::Nothing;
        }
        running
    }

    /// RFC 1870 section 6.1: what exceeds the limit is not sent.
    fn keep_to_size_limit(&mut self, extensions: &Extensions) {
        if let Some(limit) = extensions.size_limit_octets.filter(|limit| *limit < self.size) {
            let text = alloc::format!(
                "the message has {} octets, more than the {limit} that the server takes",
                self.size
            );
            let outcome = own_failure(EnhancedStatus::MESSAGE_TOO_LONG, text.into(), true);
            self.decide_all(&outcome);
        }
    }

    /// RFC 6531 section 3.4: addresses that are not ASCII go only to a server that offers SMTPUTF8.
    fn keep_to_smtputf8(&mut self, extensions: &Extensions) {
        let sender_needs_it = self.reverse_path.as_ref().is_some_and(Mailbox::needs_smtputf8);
        if extensions.smtputf8 {
            self.smtputf8 =
                sender_needs_it || self.waiting.iter().any(|(_, mailbox)| mailbox.needs_smtputf8());
            return;
        }
        let text = "the address is not ASCII, and the server does not offer SMTPUTF8";
        let outcome = own_failure(EnhancedStatus::NEEDS_SMTPUTF8, text.into(), true);
        for (id, mailbox) in mem::take(&mut self.waiting) {
            if sender_needs_it || mailbox.needs_smtputf8() {
                self.verdicts.push((id, outcome.clone()));
            } else {
                self.waiting.push_back((id, mailbox));
            }
        }
    }

    /// MAIL with what the server offers.
    pub(super) fn mail(&self, extensions: &Extensions) -> Command<'_> {
        Command::Mail {
            reverse_path: self.reverse_path.as_ref(),
            size: extensions.size.then_some(self.size),
            body_8bit: self.body_8bit && extensions.eight_bit_mime,
            smtputf8: self.smtputf8,
        }
    }

    /// The size of the message as it is sent, in octets.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The next recipient to ask about, who counts as asked about from now on.
    pub(super) fn ask_next_recipient(&mut self) -> Option<&Mailbox> {
        let (_, mailbox) = self.waiting.get(self.asked)?;
        self.asked += 1;
        self.unanswered += 1;
        Some(mailbox)
    }

    /// A command of this transaction is sent.
    pub(super) fn expect_answer(&mut self) {
        self.unanswered += 1;
    }

    /// The reply to a command of this transaction has come.
    pub(super) fn take_answer(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.is_answered = true;
    }

    /// Whether nothing but the message is without an answer.
    pub(super) fn is_reached(&self) -> bool {
        self.unanswered <= 1
    }

    /// Whether the server has answered anything.
    pub(super) fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Whether there is nothing more to send or to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.next == Next::Nothing && self.unanswered == 0
    }

    /// Whether there is somebody to send the data to.
    pub(super) fn has_accepted(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// MAIL is refused: nobody gets the message, and what of the transaction is not sent never will be.
    pub(super) fn refuse_envelope(&mut self, outcome: &Outcome) {
        self.decide_all(outcome);
        self.next = Next::Nothing;
    }

    /// Takes the reply to the oldest RCPT that has none.
    pub(super) fn take_rcpt_reply(&mut self, reply: &Reply, cx: &mut Context) {
        self.asked = self.asked.saturating_sub(1);
        // After a refused MAIL nobody waits any more.
        let Some((id, _)) = self.waiting.pop_front() else { return };
        // RFC 5321 section 4.5.3.1.10: the server takes no more in this transaction; the rest goes in another.
        let has_no_room =
            matches!(reply.code(), ReplyCode::INSUFFICIENT_STORAGE | ReplyCode::EXCEEDED_STORAGE);
        if reply.class() == ReplyClass::Completed {
            self.is_open = true;
            self.accepted.push(id);
        } else if has_no_room && self.has_accepted() {
            let not_asked = self.waiting.split_off(self.asked.min(self.waiting.len()));
            let rest = core::iter::once(id).chain(not_asked.into_iter().map(|(id, _)| id));
            self.verdicts.extend(rest.map(|id| (id, Outcome::Undecided)));
        } else {
            let outcome = self.judge(reply, CommandName::Rcpt, cx);
            self.verdicts.push((id, outcome));
        }
    }

    /// The verdict of a refusal. One that only says that the server cannot follow is none for a batch: from now on it gets
    /// one command at a time, and the transaction is repeated.
    pub(super) fn judge(&self, reply: &Reply, command: CommandName, cx: &mut Context) -> Outcome {
        if self.is_batched && is_misunderstood(reply) {
            cx.needs_caution = true;
            return Outcome::Undecided;
        }
        refusal(reply, command)
    }

    /// The message, to be sent now.
    pub(super) fn mail_data(&mut self) -> MailData {
        let encoder = if self.is_chunked { MailDataEncoder::for_chunk() } else { MailDataEncoder::default() };
        MailData::new(mem::take(&mut self.head), self.data_octets, encoder)
    }

    /// Decides all who are not decided yet.
    pub(super) fn decide_all(&mut self, outcome: &Outcome) {
        self.asked = 0;
        let waiting = mem::take(&mut self.waiting).into_iter().map(|(id, _)| id);
        let undecided = mem::take(&mut self.accepted).into_iter().chain(waiting);
        self.verdicts.extend(undecided.map(|id| (id, outcome.clone())));
    }

    /// What has become of each recipient; who is not decided stays undecided.
    pub(super) fn into_verdicts(mut self) -> Vec<(MailId, Outcome)> {
        self.decide_all(&Outcome::Undecided);
        self.verdicts
    }
}

/// Whether a message may be sent as a chunk. Some servers that refuse BDAT go on to read the octets of the chunk as commands,
/// so none of its lines may be one. And an empty chunk would be complete before anything of it is sent.
fn fits_a_chunk(message: &[u8]) -> bool {
    !message.is_empty() && !has_command_lines(message)
}

/// The verdict of a reply that is no success: by its first digit (RFC 5321 section 4.2), except that no room for
/// more recipients is never final, whichever code says so (section 4.5.3.1.10).
pub(super) fn refusal(reply: &Reply, command: CommandName) -> Outcome {
    let is_no_room = command == CommandName::Rcpt && reply.code() == ReplyCode::EXCEEDED_STORAGE;
    let fatal = reply.class() == ReplyClass::Permanent && !is_no_room;
    Outcome::Failed { reason: FailureReason::Reply { reply: reply.clone(), command }, fatal }
}

/// Whether a reply says that the server did not know or expect the command (RFC 5321 section 4.2.2), rather than what it
/// thinks of the mail, which an enhanced code of another subject than the protocol tells (RFC 3463 section 3.6).
pub(super) fn is_misunderstood(reply: &Reply) -> bool {
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
