//! A transaction as it went over the wire, and its verdicts: each recipient has the verdict of the replies to the commands of its
//! own transaction.

use std::collections::BTreeSet;

use cmail_delivery::command::CommandName;
use cmail_delivery::reply::{Reply, ReplyClass};
use cmail_delivery::session::{Outcome, Refusal, RefusalKind};

use crate::command::Command;
use crate::conversation::is_misunderstood;

/// The commands that were sent and the replies.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) reverse_path: String,
    /// True if its commands could be sent without waiting for replies.
    pub(crate) is_batched: bool,
    mail: Option<Reply>,
    /// Forward-paths, each with its reply.
    pub(crate) recipients: Vec<(String, Option<Reply>)>,
    data: Option<Reply>,
    /// Octets of the message, with the final dot.
    pub(crate) message: Vec<u8>,
    pub(crate) is_sent: bool,
    /// The reply to the message as a whole, and the reply that came while it was being sent.
    pub(crate) end: Option<Reply>,
    pub(crate) early: Option<Reply>,
    /// True if RSET was sent after it.
    pub(crate) is_reset: bool,
    /// True if the server has confirmed that.
    pub(crate) is_confirmed: bool,
    /// Commands of its envelope that a server that had taken or refused something before did not understand.
    out_of_step: BTreeSet<CommandOfEnvelope>,
    /// True if the replies about its recipients may have answered something else.
    is_disbelieved: bool,
}

/// A command of the envelope, RCPT with the number of the recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CommandOfEnvelope {
    Mail,
    Rcpt(usize),
    Data,
}

/// The verdict that must be reported of one recipient.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict<'a> {
    Delivered(&'a Reply),
    Refused(&'a Reply, CommandName),
    /// By a refusal that may be about the connection.
    RefusedConnection(&'a Reply, CommandName, RefusalKind),
    /// The message may have been taken.
    Uncertain,
    Undecided,
}

impl Transaction {
    pub(crate) fn new(reverse_path: &str, is_batched: bool) -> Self {
        Self {
            reverse_path: reverse_path.to_owned(),
            is_batched,
            mail: None,
            recipients: Vec::new(),
            data: None,
            message: Vec::new(),
            is_sent: false,
            end: None,
            early: None,
            is_reset: false,
            is_confirmed: false,
            out_of_step: BTreeSet::new(),
            is_disbelieved: false,
        }
    }

    /// Takes the reply to one of its commands, of a server that `has_decided` something before; whether it shows that the server
    /// cannot follow.
    pub(crate) fn answer(&mut self, command: Command, reply: &Reply, has_decided: bool) -> bool {
        let is_misunderstood = is_misunderstood(reply);
        let of_envelope = match command {
            Command::Mail(_) => Some(CommandOfEnvelope::Mail),
            Command::Rcpt(_, recipient) => Some(CommandOfEnvelope::Rcpt(recipient)),
            Command::Data(_) => Some(CommandOfEnvelope::Data),
            _ => None,
        };
        let is_out_of_step = has_decided && is_misunderstood && reply.enhanced().is_none();
        self.out_of_step.extend(of_envelope.filter(|_| is_out_of_step));
        match command {
            Command::Mail(_) => {
                self.mail = Some(reply.clone());
                self.is_batched && is_misunderstood
            }
            Command::Rcpt(_, recipient) => {
                self.recipients[recipient].1 = Some(reply.clone());
                self.is_batched && is_misunderstood && self.is_mail_accepted()
            }
            Command::Data(_) => {
                self.data = Some(reply.clone());
                self.is_batched && is_misunderstood && self.accepted() > 0
            }
            Command::Message(_) => {
                self.end = Some(reply.clone());
                false
            }
            _ => false,
        }
    }

    /// What was said of the recipients counts only where the server has reached a checkpoint since.
    pub(crate) fn disbelieve(&mut self) {
        self.is_disbelieved |= !self.is_asked_for() && !self.is_confirmed;
    }

    /// Returns whether the server has asked for the message.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.data.as_ref().is_some_and(|data| data.class() == ReplyClass::Intermediate)
    }

    /// Returns whether the server has refused to.
    pub(crate) fn is_data_refused(&self) -> bool {
        self.data.is_some() && !self.is_asked_for()
    }

    /// Returns how many recipients the server accepts.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted_paths().count()
    }

    /// Returns who they are.
    pub(crate) fn accepted_paths(&self) -> impl Iterator<Item = &str> {
        let is_accepted = |(_, reply): &&(String, Option<Reply>)| is_completed(reply.as_ref());
        let named = if self.is_mail_accepted() { self.recipients.as_slice() } else { &[] };
        named.iter().filter(is_accepted).map(|(path, _)| path.as_str())
    }

    /// Returns whether a further recipient may be named, all replies being known: after 452 the rest goes in another transaction.
    pub(crate) fn has_room(&self) -> bool {
        self.is_mail_accepted() && !self.lacks_room()
    }

    /// Returns whether the server has said that it holds it: by success to MAIL, or to a recipient.
    pub(crate) fn is_open(&self) -> bool {
        self.is_mail_accepted() || self.recipients.iter().any(|(_, reply)| is_completed(reply.as_ref()))
    }

    /// Returns whether a final dot ended it (RFC 5321 section 4.1.1.4).
    pub(crate) fn is_ended(&self) -> bool {
        self.is_sent
    }

    /// The mail data as the server stores it, as lines.
    pub(crate) fn lines(&self) -> Vec<Vec<u8>> {
        if self.message.is_empty() {
            return Vec::new();
        }
        let text = self.message.strip_suffix(b"\r\n").expect("the last line has no end");
        let mut lines: Vec<Vec<u8>> = Vec::new();
        for line in text.split(|&octet| octet == b'\n') {
            lines.push(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
        }
        assert_eq!(lines.pop().as_deref(), Some(&b"."[..]));
        // RFC 5321 section 4.5.2
        for line in lines.iter_mut().filter(|line| line.starts_with(b".")) {
            line.remove(0);
        }
        lines
    }

    /// Returns what must be told of a recipient, by number; `is_uncertain` if what was said of the message may have been about
    /// something else.
    pub(crate) fn verdict(&self, recipient: usize, is_uncertain: bool) -> Verdict<'_> {
        if self.is_disbelieved {
            return Verdict::Undecided;
        }
        let lost = if self.is_sent { Verdict::Uncertain } else { Verdict::Undecided };
        let Some(mail) = &self.mail else { return lost };
        if !is_completed(Some(mail)) {
            return self.judge(mail, CommandOfEnvelope::Mail);
        }
        let Some((_, rcpt)) = self.recipients.get(recipient) else { return Verdict::Undecided };
        let Some(rcpt) = rcpt else { return lost };
        if self.is_without_room(recipient, rcpt) {
            return Verdict::Undecided;
        }
        if !is_completed(Some(rcpt)) {
            return self.judge(rcpt, CommandOfEnvelope::Rcpt(recipient));
        }
        if let Some(data) = self.data.as_ref().filter(|data| data.class() != ReplyClass::Intermediate) {
            return self.judge(data, CommandOfEnvelope::Data);
        }
        match (&self.end, &self.early) {
            _ if is_uncertain => Verdict::Uncertain,
            (Some(end), _) if is_completed(Some(end)) => Verdict::Delivered(end),
            (Some(end), _) if end.code().as_u16() == 421 => {
                Verdict::RefusedConnection(end, CommandName::EndOfData, RefusalKind::ClosingAtEnd)
            }
            (Some(end), _) => Verdict::Refused(end, CommandName::EndOfData),
            (None, Some(early)) => Verdict::Refused(early, CommandName::MailData),
            (None, None) => lost,
        }
    }

    fn judge<'a>(&self, reply: &'a Reply, asked: CommandOfEnvelope) -> Verdict<'a> {
        let command = match asked {
            CommandOfEnvelope::Mail => CommandName::Mail,
            CommandOfEnvelope::Rcpt(_) => CommandName::Rcpt,
            CommandOfEnvelope::Data => CommandName::Data,
        };
        if let Some(kind) = self.refusal(reply, asked) {
            return Verdict::RefusedConnection(reply, command, kind);
        }
        if self.is_batched && is_misunderstood(reply) {
            return Verdict::Undecided;
        }
        Verdict::Refused(reply, command)
    }

    /// Returns how the connection is refused by this reply, if it may be.
    fn refusal(&self, reply: &Reply, asked: CommandOfEnvelope) -> Option<RefusalKind> {
        if self.out_of_step.contains(&asked) {
            return Some(RefusalKind::OutOfStep);
        }
        let (subject, detail) = reply.enhanced().map_or((0, 0), |status| (status.subject, status.detail));
        // About an address, or a mailbox.
        if subject == 1 || subject == 2 {
            return None;
        }
        let is_transient = reply.class() == ReplyClass::Transient;
        let is_refused = match asked {
            CommandOfEnvelope::Mail | CommandOfEnvelope::Data => is_transient,
            CommandOfEnvelope::Rcpt(recipient) => {
                let speaks_of_load = [(3, 2), (4, 5), (5, 3)].contains(&(subject, detail));
                let mut before = self.recipients.iter().take(recipient);
                let is_first = !before.any(|(_, reply)| is_completed(reply.as_ref()));
                is_first && (is_lack_of_room(reply) || is_transient && speaks_of_load)
            }
        };
        is_refused.then_some(RefusalKind::NotNow)
    }

    /// Returns whether the server had no room for one of the recipients.
    pub(crate) fn lacks_room(&self) -> bool {
        self.recipients.iter().enumerate().any(|(number, (_, reply))| {
            reply.as_ref().is_some_and(|reply| self.is_without_room(number, reply))
        })
    }

    /// RFC 5321 section 4.5.3.1.10
    fn is_without_room(&self, recipient: usize, reply: &Reply) -> bool {
        let mut before = self.recipients.iter().take(recipient);
        is_lack_of_room(reply) && before.any(|(_, reply)| is_completed(reply.as_ref()))
    }

    fn is_mail_accepted(&self) -> bool {
        is_completed(self.mail.as_ref())
    }
}

/// 552 is the same as 452, unless it is about the mailbox (RFC 3463 section 3.3).
fn is_lack_of_room(reply: &Reply) -> bool {
    let code = reply.code().as_u16();
    code == 452 || code == 552 && reply.enhanced().is_none_or(|status| status.subject != 2)
}

impl Verdict<'_> {
    /// Returns whether an outcome is this verdict. With `is_masked`, the words of the server may differ.
    pub(crate) fn is(self, outcome: &Outcome, is_masked: bool) -> bool {
        let is_same = |told: &Reply, said: &Reply| told.code() == said.code() && (is_masked || told == said);
        match (self, outcome) {
            (Self::Delivered(said), Outcome::Delivered(reply)) => is_same(reply, said),
            (Self::Refused(said, asked), Outcome::Rejected { reply, command, fatal }) => {
                let is_no_room = asked == CommandName::Rcpt && is_lack_of_room(said);
                let is_fatal = said.class() == ReplyClass::Permanent && !is_no_room;
                is_same(reply, said) && *command == asked && *fatal == is_fatal
            }
            (Self::Uncertain, Outcome::Uncertain(_)) => true,
            (
                Self::RefusedConnection(said, asked, expected),
                Outcome::Refused(Refusal { kind, reply, command }),
            ) => is_same(reply, said) && *command == asked && *kind == expected,
            (Self::Undecided, Outcome::Undecided) => true,
            (Self::Undecided, Outcome::Refused(refusal)) => is_farewell(refusal),
            _ => false,
        }
    }
}

/// Returns whether the server has left without a reply of anybody's own: by 421, or by a refusal that it was not asked for.
pub(crate) fn is_farewell(refusal: &Refusal) -> bool {
    match refusal.kind {
        RefusalKind::Closing => refusal.reply.code().as_u16() == 421,
        RefusalKind::OutOfStep => refusal.command == CommandName::Nothing && is_misunderstood(&refusal.reply),
        RefusalKind::NotNow | RefusalKind::ClosingAtEnd => false,
    }
}

fn is_completed(reply: Option<&Reply>) -> bool {
    reply.is_some_and(|reply| reply.class() == ReplyClass::Completed)
}
