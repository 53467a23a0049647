//! The bookkeeping of a transaction: who still waits, whom the server accepts, what is decided.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

use super::extensions::Extensions;
use super::mail_data::MailData;
use super::types::{FailureReason, Outcome, Transaction};
use crate::address::Mailbox;
use crate::command::{Command, CommandName};
use crate::outbox::MailId;
use crate::reply::{Reply, ReplyClass, ReplyCode};
use crate::status::EnhancedStatus;
use crate::transparency::transmitted_octets;

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
    /// Not yet decided and not yet accepted; the first is the one whose RCPT is or will be sent next.
    waiting: VecDeque<(MailId, Mailbox)>,
    /// Accepted by RCPT.
    accepted: Vec<MailId>,
    verdicts: Vec<(MailId, Outcome)>,
}

impl Running {
    /// Begins with all that need not be asked of this server decided.
    pub(super) fn new(transaction: Transaction, extensions: &Extensions) -> Box<Self> {
        let Transaction { reverse_path, recipients, data_octets, head } = transaction;
        let is_whole = head.len() as u64 >= data_octets;
        let sender_needs_smtputf8 = reverse_path.as_ref().is_some_and(Mailbox::needs_smtputf8);
        let mut running = Box::new(Self {
            size: if is_whole { transmitted_octets(&head) } else { data_octets },
            // RFC 6152 section 3. Of a message that is not here as a whole it is not known what follows.
            body_8bit: !is_whole || !head.is_ascii(),
            smtputf8: false,
            waiting: recipients.into(),
            accepted: Vec::new(),
            verdicts: Vec::new(),
            reverse_path,
            data_octets,
            head,
        });
        // RFC 1870 section 6.1: what exceeds the limit is not sent.
        if let Some(limit) = extensions.size_limit_octets.filter(|limit| *limit < running.size) {
            let text = alloc::format!(
                "the message has {} octets, more than the {limit} that the server takes",
                running.size
            );
            let outcome = own_failure(EnhancedStatus::MESSAGE_TOO_LONG, text.into(), true);
            running.decide_all(&outcome);
        }
        // RFC 6531 section 3.4: such addresses go only to a server that offers SMTPUTF8.
        if extensions.smtputf8 {
            running.smtputf8 =
                sender_needs_smtputf8 || running.waiting.iter().any(|(_, mailbox)| mailbox.needs_smtputf8());
        } else {
            let text = "the address is not ASCII, and the server does not offer SMTPUTF8";
            let outcome = own_failure(EnhancedStatus::NEEDS_SMTPUTF8, text.into(), true);
            for (id, mailbox) in mem::take(&mut running.waiting) {
                if sender_needs_smtputf8 || mailbox.needs_smtputf8() {
                    running.verdicts.push((id, outcome.clone()));
                } else {
                    running.waiting.push_back((id, mailbox));
                }
            }
        }
        running
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

    /// The recipient whose turn it is.
    pub(super) fn next_recipient(&self) -> Option<&Mailbox> {
        self.waiting.front().map(|(_, mailbox)| mailbox)
    }

    /// How many recipients the server has not been asked about or has not answered for.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is somebody to send the data to.
    pub(super) fn has_accepted(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// Takes the reply to the RCPT of the recipient whose turn it was.
    pub(super) fn take_rcpt_reply(&mut self, reply: &Reply) {
        // RFC 5321 section 4.5.3.1.10: the server takes no more in this transaction; the rest goes in another.
        let has_no_room =
            matches!(reply.code(), ReplyCode::INSUFFICIENT_STORAGE | ReplyCode::EXCEEDED_STORAGE);
        if has_no_room && self.has_accepted() {
            let rest = mem::take(&mut self.waiting);
            self.verdicts.extend(rest.into_iter().map(|(id, _)| (id, Outcome::Undecided)));
        } else if let Some((id, _)) = self.waiting.pop_front() {
            if reply.class() == ReplyClass::Completed {
                self.accepted.push(id);
            } else {
                self.verdicts.push((id, refusal(reply, CommandName::Rcpt)));
            }
        }
    }

    /// The message, to be sent now.
    pub(super) fn mail_data(&mut self) -> MailData {
        MailData::new(mem::take(&mut self.head), self.data_octets)
    }

    /// Decides all who are not decided yet.
    pub(super) fn decide_all(&mut self, outcome: &Outcome) {
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

/// The verdict of a reply that is no success: by its first digit (RFC 5321 section 4.2), except that no room for
/// more recipients is never final, whichever code says so (section 4.5.3.1.10).
pub(super) fn refusal(reply: &Reply, command: CommandName) -> Outcome {
    let is_no_room = command == CommandName::Rcpt && reply.code() == ReplyCode::EXCEEDED_STORAGE;
    let fatal = reply.class() == ReplyClass::Permanent && !is_no_room;
    Outcome::Failed { reason: FailureReason::Reply { reply: reply.clone(), command }, fatal }
}

/// The verdict where there is no reply.
pub(super) fn own_failure(status: EnhancedStatus, text: Cow<'static, str>, fatal: bool) -> Outcome {
    Outcome::Failed { reason: FailureReason::Own { status, text }, fatal }
}
