//! The transactions that are under way. They overlap where the server lets them.
//!
//! To a server that offers PIPELINING (RFC 2920) the commands of a transaction are sent in one batch, DATA last, and the
//! next transaction follows directly behind the final dot. If the server offers CHUNKING too (RFC 3030), a short message
//! goes into the batch with its envelope, and several transactions may wait for their replies. Any other server gets one
//! command at a time. Replies come in the order of the commands, so each is attributed to the oldest that has none; what
//! a refused command leads to is the same, however it was sent.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;

use bytes::{Bytes, BytesMut};

use super::context::Context;
use super::mail_data::MailData;
use super::running::{Next, Running, is_misunderstood, own_failure, refusal};
use super::types::{EndCause, Outcome, Phase, SessionOutput, Transaction};
use crate::command::{Command, CommandName};
use crate::reply::{Reply, ReplyClass};
use crate::status::EnhancedStatus;

/// Most transactions that overlap. When a connection is lost, each of which the message was sent is uncertain.
const OVERLAP_LIMIT: usize = 8;
/// How much of messages may be sent without a reply before no further transaction begins.
const OVERLAP_LIMIT_OCTETS: u64 = 256 * 1024;

/// Transactions, oldest first, and the replies that they wait for.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    /// All but the last are sent whole.
    transactions: VecDeque<Running>,
    /// The commands without a reply.
    expected: VecDeque<Expected>,
    /// The message of the last transaction, while it is being sent.
    sending: Option<Box<MailData>>,
    /// How many replies have been taken.
    replies: u64,
}

/// A command whose reply is to come.
#[derive(Clone, Copy, Debug)]
struct Expected {
    command: Sent,
    /// Where it ends in the stream of all octets to the server, if that is known yet.
    end: Option<u64>,
    /// Where the server has been told of it: for a message, the end of the command before it.
    announced: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Mail,
    Rcpt,
    Data,
    /// Mail data, to the final dot or as one chunk.
    Message,
    Rset,
}

/// What a reply, or the beginning of a transaction, leads to.
#[derive(Debug)]
pub(super) enum Turn {
    /// There is more to send or to wait for.
    GoOn,
    /// All transactions are over, and nothing is left open at the server.
    Done,
    /// The session ends at once.
    Close(EndCause),
    /// The session ends with QUIT.
    Leave(EndCause),
}

impl Pipeline {
    /// Takes in a further transaction.
    pub(super) fn begin(&mut self, transaction: Transaction, cx: &mut Context) -> Turn {
        self.transactions.push_back(Running::new(transaction, cx));
        self.advance(cx)
    }

    /// Whether a further transaction could be sent now.
    pub(super) fn has_room(&self, cx: &Context) -> bool {
        if !cx.may_pipeline() {
            return false;
        }
        let Some(last) = self.transactions.back() else { return true };
        // Behind a final dot the envelope of the next message adds nothing to what is uncertain; a whole message does.
        let overlapped = if last.is_chunked { cx.overlap } else { OVERLAP_LIMIT };
        let in_flight = self.transactions.iter().map(Running::size).fold(0, u64::saturating_add);
        last.is_sent && self.transactions.len() <= overlapped && in_flight <= OVERLAP_LIMIT_OCTETS
    }

    /// Takes a reply. It answers the oldest command that has none.
    pub(super) fn on_reply(&mut self, reply: &Reply, cx: &mut Context) -> Turn {
        let Some(expected) = self.expected.front().copied() else {
            return Turn::Close(EndCause::Lost("the server spoke without being asked".into()));
        };
        if !cx.is_handed_out(expected.end) {
            return self.on_early_reply(expected, reply, cx);
        }
        self.expected.pop_front();
        self.replies = self.replies.wrapping_add(1);
        let turn = match expected.command {
            Sent::Mail => self.on_mail(reply, cx),
            Sent::Rcpt => self.on_rcpt(reply, cx),
            Sent::Data => self.on_data(reply, cx),
            Sent::Message => self.on_message(reply, cx),
            Sent::Rset => self.on_rset(reply),
        };
        match turn {
            Turn::GoOn => self.advance(cx),
            Turn::Done | Turn::Close(_) | Turn::Leave(_) => turn,
        }
    }

    /// The server says 421: whose turn it was is refused if it is the message; nobody else is decided by that.
    pub(super) fn on_service_not_available(&mut self, reply: &Reply, cx: &Context) -> CommandName {
        let Some(expected) = self.expected.front().filter(|expected| cx.is_handed_out(expected.end)) else {
            return if self.sending.is_some() { CommandName::MailData } else { CommandName::Nothing };
        };
        let command = expected.command.name();
        if expected.command == Sent::Message
            && let Some(running) = self.transactions.front_mut()
        {
            running.decide_all(&refusal(reply, command));
        }
        command
    }

    /// The time of the phase is over.
    pub(super) fn on_timeout(&self, cx: &mut Context) -> EndCause {
        let is_being_sent = self.phase() == Phase::MailData;
        if is_being_sent && self.sending.as_ref().is_some_and(|data| data.is_starved()) {
            return EndCause::Local("the mail data was not read in time".into());
        }
        if is_being_sent {
            return EndCause::Lost("timed out while the mail data was being sent".into());
        }
        // A server that answers the first command of a batch and not the rest may have dropped the rest.
        if self.expected.len() > 1 && self.transactions.front().is_some_and(Running::is_answered) {
            cx.needs_caution = true;
        }
        EndCause::Lost(format!("timed out waiting for the reply to {}", self.command()))
    }

    /// A piece of the message has come, or cannot come.
    pub(super) fn on_data_supplied(&mut self, octets: Bytes, cx: &mut Context) -> Turn {
        let Some(data) = &mut self.sending else { return Turn::GoOn };
        if data.supply(octets) {
            self.request_data(cx);
            return Turn::GoOn;
        }
        // Without its final dot the server must drop what it has got (RFC 5321 section 4.1.1.4).
        Turn::Close(EndCause::Local("the rest of the mail cannot be had: it was deleted or changed while it was sent, or the database cannot be read".into()))
    }

    /// Hands out about `limit` octets of the message; with `may_finish` its end too, when all else is out.
    pub(super) fn send_data(&mut self, limit: usize, may_finish: bool, out: &mut BytesMut, cx: &mut Context) {
        let Some(data) = &mut self.sending else { return };
        let begin = out.len();
        data.encode(limit, out);
        let is_finished = data.is_complete() && may_finish;
        if is_finished {
            data.finish(out);
        }
        cx.handed_out(out.len() - begin);
        if !is_finished {
            return self.request_data(cx);
        }
        self.sending = None;
        if let Some(running) = self.transactions.back_mut() {
            running.is_sent = true;
        }
        if let Some(expected) = self.expected.back_mut() {
            expected.end = Some(cx.stream_end());
        }
    }

    /// Tells what became of everybody: who is not decided yet stays so, or is uncertain if the message was sent. It is not if the
    /// server has gone at the envelope that a chunk was sent with: it is as if the message had not been sent yet. One that is left,
    /// because it is silent or cannot be followed, may go on and take it.
    pub(super) fn end(self, cause: &EndCause, cx: &mut Context) {
        let uncertain = uncertain(cause);
        let sent = self.transactions.iter().filter(|running| running.is_sent).count();
        // RFC 5321 section 3.8: after 421 the server takes nothing more.
        let is_lost = !matches!(cause, EndCause::Refused(..));
        // What was too much at once for this server is not tried again.
        cx.needs_caution |= is_lost && sent > 1;
        for mut running in self.transactions {
            if running.is_sent && is_lost && (running.is_reached() || !cx.is_gone) {
                running.decide_all(&uncertain);
            }
            cx.output(SessionOutput::Verdicts(running.into_verdicts()));
        }
    }

    /// What the next reply is about.
    pub(super) fn phase(&self) -> Phase {
        match self.expected.front().map(|expected| expected.command) {
            Some(Sent::Mail) => Phase::Mail,
            Some(Sent::Rcpt) => Phase::Rcpt,
            Some(Sent::Data) => Phase::Data,
            Some(Sent::Message) if self.expected.front().is_some_and(|expected| expected.end.is_none()) => {
                Phase::MailData
            }
            Some(Sent::Message) => Phase::EndOfData,
            Some(Sent::Rset) => Phase::Rset,
            None => Phase::Ready,
        }
    }

    /// How many replies have been taken: each has its own time (RFC 5321 section 4.5.3.2).
    pub(super) fn replies(&self) -> u64 {
        self.replies
    }

    /// Whether the server has been asked for what it says next.
    pub(super) fn is_asked(&self, cx: &Context) -> bool {
        self.expected.front().is_some_and(|expected| cx.is_handed_out(expected.end))
    }

    /// Whether a message is sent of which is not known what became.
    pub(super) fn awaits_final_reply(&self) -> bool {
        self.transactions.iter().any(|running| running.is_sent)
    }

    /// Whether something of the message can be sent now; `is_listening` while a reply is coming in that was not asked for. No
    /// end of the message is sent then that it could be taken to answer, and of a chunk every octet may be the end.
    pub(super) fn has_data_to_send(&self, is_listening: bool) -> bool {
        let is_chunked = self.transactions.back().is_some_and(|running| running.is_chunked);
        let Some(data) = &self.sending else { return false };
        if is_listening { data.has_octets() && !is_chunked } else { !data.is_starved() }
    }

    /// The message, while it is being sent.
    pub(super) fn mail_data(&self) -> Option<&MailData> {
        self.sending.as_deref()
    }

    /// What the next reply answers.
    pub(super) fn command(&self) -> CommandName {
        match self.expected.front() {
            Some(Expected { command: Sent::Message, end: None, .. }) => CommandName::MailData,
            Some(expected) => expected.command.name(),
            None => CommandName::Nothing,
        }
    }

    fn on_mail(&mut self, reply: &Reply, cx: &mut Context) -> Turn {
        let Some(running) = self.transactions.front_mut() else { return Turn::GoOn };
        running.take_answer();
        if reply.class() == ReplyClass::Completed {
            running.is_open = true;
        } else {
            let outcome = running.judge(reply, CommandName::Mail, cx);
            running.refuse_envelope(&outcome);
        }
        Turn::GoOn
    }

    fn on_rcpt(&mut self, reply: &Reply, cx: &mut Context) -> Turn {
        if let Some(running) = self.transactions.front_mut() {
            running.take_answer();
            running.take_rcpt_reply(reply, cx);
        }
        Turn::GoOn
    }

    fn on_data(&mut self, reply: &Reply, cx: &mut Context) -> Turn {
        let Some(running) = self.transactions.front_mut() else { return Turn::GoOn };
        running.take_answer();
        let is_ready = reply.class() == ReplyClass::Intermediate;
        if running.has_accepted() && is_ready {
            self.begin_message(cx);
        } else if running.has_accepted() {
            let outcome = running.judge(reply, CommandName::Data, cx);
            running.decide_all(&outcome);
        } else if is_ready {
            // RFC 2920 section 3.1: DATA was sent in advance, but there is nobody to get the message.
            running.is_sent = true;
            running.expect_answer();
            self.send(&Command::EndOfData, Sent::Message, cx);
        }
        Turn::GoOn
    }

    fn on_message(&mut self, reply: &Reply, cx: &mut Context) -> Turn {
        let Some(running) = self.transactions.front_mut() else { return Turn::GoOn };
        running.take_answer();
        let is_taken = reply.class() == ReplyClass::Completed;
        // RFC 5321 section 4.1.1.4: the final dot ends the transaction, whatever the reply. A chunk that is refused may leave
        // it open (RFC 3030 section 2).
        running.is_open &= running.is_chunked && !is_taken;
        if running.has_accepted() && running.is_chunked && is_misunderstood(reply) {
            running.is_sent = false;
            return Self::on_misunderstood_chunk(running, reply, cx);
        }
        // RFC 5321 section 4.2.5: with 2yz, and only then, the server takes responsibility.
        let outcome =
            if is_taken { Outcome::Delivered(reply.clone()) } else { refusal(reply, CommandName::EndOfData) };
        running.decide_all(&outcome);
        if is_taken && running.is_chunked {
            cx.overlap = cx.overlap.saturating_add(1).min(OVERLAP_LIMIT);
        }
        Turn::GoOn
    }

    /// The server does not take BDAT: what it has made of the octets of the message is not known, so nothing more is said to it.
    fn on_misunderstood_chunk(running: &mut Running, reply: &Reply, cx: &mut Context) -> Turn {
        cx.needs_caution = true;
        running.decide_all(&Outcome::Undecided);
        Turn::Close(EndCause::Lost(format!("the server offers CHUNKING, but does not take BDAT: {reply}")))
    }

    fn on_rset(&self, reply: &Reply) -> Turn {
        if reply.class() == ReplyClass::Completed {
            return Turn::GoOn;
        }
        // The next MAIL would fall into the old transaction, or has done so already. Behind a message that was taken it would not;
        // but RSET is never refused (RFC 5321 section 4.1.1.5), so that it may as well be one reply too many to something else, and
        // then each of the next ones would be taken for that to the command before.
        let cause = EndCause::Lost(format!("the server refused RSET: {reply}"));
        // What is behind RSET may be sent in part only, and QUIT be read as octets of its chunk.
        if self.expected.is_empty() { Turn::Leave(cause) } else { Turn::Close(cause) }
    }

    /// A reply to what was not sent, or not to its end. A refusal of the message is a verdict; success is none, the server has
    /// not got it. Either way it cannot be ended without being taken for the message, so the connection is closed.
    fn on_early_reply(&mut self, expected: Expected, reply: &Reply, cx: &mut Context) -> Turn {
        if expected.command != Sent::Message || !cx.is_handed_out(Some(expected.announced)) {
            return Turn::Close(EndCause::Lost("the server replied before it was asked".into()));
        }
        if let Some(running) = self.transactions.front_mut() {
            if running.has_accepted() && running.is_chunked && is_misunderstood(reply) {
                return Self::on_misunderstood_chunk(running, reply, cx);
            }
            if matches!(reply.class(), ReplyClass::Transient | ReplyClass::Permanent) {
                running.decide_all(&refusal(reply, CommandName::MailData));
            }
        }
        Turn::Close(EndCause::Lost(format!("the server replied before the end of the data: {reply}")))
    }

    /// Ends what is over and sends what may be sent, until there is neither.
    fn advance(&mut self, cx: &mut Context) -> Turn {
        loop {
            self.conclude(cx);
            if !self.send_next(cx) {
                break;
            }
        }
        if self.transactions.is_empty() && self.expected.is_empty() { Turn::Done } else { Turn::GoOn }
    }

    /// Tells the verdicts of the oldest transactions, as far as they are over.
    fn conclude(&mut self, cx: &mut Context) {
        while self.transactions.front().is_some_and(Running::is_over)
            && let Some(running) = self.transactions.pop_front()
        {
            let is_open = running.is_open;
            cx.output(SessionOutput::Verdicts(running.into_verdicts()));
            // RFC 5321 section 4.1.1.5: the server still holds the transaction. Where another one was sent behind it, RSET
            // stands in between already.
            if is_open && self.expected.is_empty() {
                self.send(&Command::Rset, Sent::Rset, cx);
            }
        }
    }

    /// Sends the next command of the last transaction, if its turn has come.
    fn send_next(&mut self, cx: &mut Context) -> bool {
        if !self.expected.is_empty() && !cx.may_pipeline() {
            return false;
        }
        let behind_chunk = self.transactions.iter().rev().nth(1).is_some_and(|before| before.is_chunked);
        let Some(running) = self.transactions.back_mut() else { return false };
        match running.next {
            Next::Mail => {
                if behind_chunk {
                    // If none of its recipients is accepted, the transaction before is still open when this one comes.
                    self.send(&Command::Rset, Sent::Rset, cx);
                }
                self.send_mail(cx);
            }
            Next::Rcpt => self.send_rcpt(cx),
            Next::Message if self.expected.is_empty() && !running.has_accepted() => {
                running.next = Next::Nothing
            }
            Next::Message if running.is_chunked => {
                let size = running.size();
                cx.send(&Command::Bdat(size));
                self.begin_message(cx);
            }
            Next::Message => {
                running.next = Next::Nothing;
                running.expect_answer();
                self.send(&Command::Data, Sent::Data, cx);
            }
            Next::Nothing => return false,
        }
        true
    }

    fn send_mail(&mut self, cx: &mut Context) {
        let Some(running) = self.transactions.back_mut() else { return };
        running.next = Next::Rcpt;
        running.is_batched = cx.may_pipeline();
        running.expect_answer();
        let command = running.mail(&cx.extensions);
        cx.send(&command);
        self.expect(Sent::Mail, cx);
    }

    fn send_rcpt(&mut self, cx: &mut Context) {
        let Some(running) = self.transactions.back_mut() else { return };
        let Some(mailbox) = running.ask_next_recipient() else {
            running.next = Next::Message;
            return;
        };
        cx.send(&Command::Rcpt(mailbox));
        self.expect(Sent::Rcpt, cx);
    }

    /// Begins to send the message of the last transaction.
    fn begin_message(&mut self, cx: &mut Context) {
        let Some(running) = self.transactions.back_mut() else { return };
        running.next = Next::Nothing;
        running.expect_answer();
        self.sending = Some(Box::new(running.mail_data()));
        self.expected.push_back(Expected { command: Sent::Message, end: None, announced: cx.stream_end() });
        self.request_data(cx);
    }

    fn request_data(&mut self, cx: &mut Context) {
        if let Some((offset, limit)) = self.sending.as_mut().and_then(|data| data.request()) {
            cx.output(SessionOutput::NeedData { offset, limit });
        }
    }

    fn send(&mut self, command: &Command<'_>, sent: Sent, cx: &mut Context) {
        cx.send(command);
        self.expect(sent, cx);
    }

    fn expect(&mut self, command: Sent, cx: &Context) {
        let end = cx.stream_end();
        self.expected.push_back(Expected { command, end: Some(end), announced: end });
    }
}

impl Sent {
    fn name(self) -> CommandName {
        match self {
            Self::Mail => CommandName::Mail,
            Self::Rcpt => CommandName::Rcpt,
            Self::Data => CommandName::Data,
            Self::Message => CommandName::EndOfData,
            Self::Rset => CommandName::Rset,
        }
    }
}

/// RFC 5321 section 4.5.3.2.6: a server that is lost after the end of the message may have taken it.
fn uncertain(cause: &EndCause) -> Outcome {
    let detail = match cause {
        EndCause::Lost(text) | EndCause::Unsuitable(text) | EndCause::Local(text) => text.as_str(),
        EndCause::Quit | EndCause::Refused(..) => "no reply was awaited",
    };
    let text: String = format!("delivery uncertain, no reply to the end of data: {detail}");
    own_failure(EnhancedStatus::CONNECTION_LOST, text.into(), false)
}
