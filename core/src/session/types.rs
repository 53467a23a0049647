//! The values that pass between a session and its owner.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::address::Mailbox;
use crate::command::CommandName;
use crate::dsn::DsnWishes;
use crate::ending::{EndCause, Unfit};
use crate::next_hop::{Credentials, TlsMode};
use crate::one_line::OneLine;
use crate::outbox::MailId;
use crate::reply::Reply;
use crate::sasl::Mechanism;
use crate::tls::{Need, Shortfall};

/// The configuration of one conversation.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The argument of EHLO and HELO.
    pub announce: Box<str>,
    /// The protection of the connection.
    pub tls: TlsMode,
    /// What must hold of the connection before anything else is said than what leads to TLS.
    pub need: Need,
    /// True if the conversation may go on in plain text where STARTTLS is wanted but not offered: the next port to try differs
    /// only in that.
    pub plain_fallback: bool,
    /// The credentials. If set, no mail is sent unless authentication succeeds.
    pub credentials: Option<Credentials>,
    /// The mechanism by which the server has accepted these credentials before. It is tried first, if it is offered.
    pub mechanism: Option<Mechanism>,
    /// True if credentials may be sent without TLS, or to a server whose certificate is not valid: to a loopback address, or
    /// because the administrator allows it.
    pub auth_unprotected: bool,
    /// Most NOOP and RSET that are sent as padding inside TLS; 0 for none.
    pub padding_limit: u16,
    /// True if the server gets one command at a time, whatever it offers, because it cannot cope with batches.
    pub no_pipelining: bool,
    /// True if [`SessionOutput::Sent`], [`SessionOutput::SentData`] and [`SessionOutput::Received`] are wanted.
    pub trace: bool,
}

/// A recipient of a message. A session owns those of its transactions, and returns each with its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The mail: the row of the outbox.
    pub id: MailId,
    /// The address.
    pub mailbox: Mailbox,
    /// What its sender wants to be told of it.
    pub wishes: DsnWishes,
}

impl Recipient {
    /// Returns a recipient of whom its sender has said nothing.
    pub fn new(id: MailId, mailbox: Mailbox) -> Self {
        Self { id, mailbox, wishes: DsnWishes::default() }
    }
}

/// One message for some recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The address for bounces; `None` is the null reverse-path.
    pub reverse_path: Option<Mailbox>,
    /// The recipients. Their senders want the same [of the message](crate::dsn::MessageWishes).
    pub recipients: Vec<Recipient>,
    /// Header fields that go before the message, with their CRLF: its signatures.
    pub signatures: Bytes,
    /// Length of the stored message in octets.
    pub data_octets: u64,
    /// Its beginning, or all of it. The rest is requested by [`SessionOutput::NeedData`].
    pub head: Bytes,
    /// True if the server is only asked whether it would take the message: the transaction ends after RCPT, and there is no message.
    pub is_probe: bool,
}

/// A request or report of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Begin TLS on the connection, after everything appended so far is sent.
    StartTls,
    /// A transaction may begin: after the negotiation, and after each transaction. If the server offers PIPELINING (RFC 2920),
    /// its envelope is sent directly after the end of the one before.
    Ready,
    /// More of the running message is needed: `limit` octets of the stored data from `offset` on. Answer with
    /// [`Session::supply_data`](super::Session::supply_data).
    NeedData {
        /// A mail that has this message: one that the server has accepted.
        id: MailId,
        /// The first octet.
        offset: u64,
        /// The most octets. Fewer are enough, but an empty answer ends the session.
        limit: u32,
    },
    /// The outcomes of the recipients of a transaction, all at once, before the next [`SessionOutput::Ready`] or
    /// [`SessionOutput::Ended`].
    Verdicts(Vec<(Recipient, Outcome)>),
    /// A command line that is being sent, with secrets masked. Only with [`SessionConfig::trace`].
    Sent(Bytes),
    /// Mail data that is being sent. Only with [`SessionConfig::trace`].
    SentData(Bytes),
    /// A reply of the server, with secrets masked. Only with [`SessionConfig::trace`].
    Received(Bytes),
    /// The server has accepted the credentials by this mechanism, or, with `None`, an exchange has failed.
    Authenticated(Option<Mechanism>),
    /// A note for the administrator.
    Note(SessionNote),
    /// Close the connection. No output follows.
    Ended(SessionEnd),
}

/// The outcome of one recipient in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has taken responsibility (RFC 5321 section 4.2.5).
    Delivered(Reply),
    /// The server refuses the mail.
    Rejected {
        /// Its reply.
        reply: Reply,
        /// The command that it replied to.
        command: CommandName,
        /// True if a retry is pointless.
        fatal: bool,
    },
    /// The server would take a message for the recipient of a [probe](Transaction::is_probe): its reply to RCPT.
    Accepted(Reply),
    /// The server was not asked, because it would refuse permanently.
    Unfit(Unfit),
    /// The message was sent whole, and then the session ended without a verdict, so the server may have taken it (RFC 5321
    /// section 4.5.3.2.6).
    Uncertain(EndCause),
    /// The server refuses the connection rather than the recipient, as far as the reply tells. Other connections show whether
    /// that is so: it may be a verdict all the same.
    Refused(Refusal),
    /// The recipient is undecided, and belongs into another transaction, on this or another connection.
    Undecided,
}

/// A refusal of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of refusal.
    pub kind: RefusalKind,
    /// The reply.
    pub reply: Reply,
    /// The command that it answers.
    pub command: CommandName,
}

/// The way in which a server refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// It accepts no mail for now: 4yz to MAIL, to DATA, or, if the reply is about room or load, to RCPT before any is accepted.
    NotNow,
    /// It is out of step, on a connection on which it has taken or refused something before: 500, 502 or 503 without an enhanced
    /// code.
    OutOfStep,
    /// It closes the connection before the end of the message: 421.
    Closing,
    /// It closes the connection in reply to the end of the message: 421.
    ClosingAtEnd,
}

/// A note for the administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionNote {
    /// The port requires STARTTLS, but the server does not offer it. The next port to try is plain anyway.
    StartTlsNotOffered,
    /// The server answers padding with an error, and gets no more.
    PaddingRefused(Reply),
    /// The server refused an authentication mechanism that it offers. The next one is tried.
    MechanismRefused(Reply),
    /// The connection falls short of what is only judged.
    FallsShort(Shortfall),
}

impl fmt::Display for SessionNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartTlsNotOffered => f.write_str("STARTTLS is not offered, going on in plain text"),
            Self::PaddingRefused(reply) => {
                write!(f, "padding is refused, going on without: {}", OneLine(reply.text()))
            }
            Self::MechanismRefused(reply) => {
                write!(f, "an offered mechanism is refused, trying another: {}", OneLine(reply.text()))
            }
            Self::FallsShort(shortfall) => {
                write!(f, "{shortfall}; mail goes all the same, as this is not enforced")
            }
        }
    }
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// The phase in which the cause occurred. Only QUIT may have followed.
    pub phase: Phase,
    /// The cause.
    pub cause: EndCause,
    /// True if the server answered padding with an error, or the connection was lost during padding.
    pub padding_failed: bool,
    /// True if the server cannot cope with commands in batches, although it offers PIPELINING.
    pub no_pipelining: bool,
}

/// A phase of a conversation. Each has one timeout as a whole; MAIL, DATA and each RCPT is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The TLS handshake.
    Tls,
    /// The wait for the greeting.
    Greeting,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// NOOP or RSET as padding.
    Padding,
    /// AUTH.
    Auth,
    /// No command; a transaction may begin.
    Ready,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, until the server asks for the message.
    Data,
    /// The message, until its final dot.
    MailData,
    /// The wait for the verdict after the final dot. Until it arrives, it is unknown whether the server has taken the message.
    EndOfData,
    /// RSET, after a transaction that was left open.
    Rset,
    /// QUIT.
    Quit,
    /// The session is over.
    Ended,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "TLS handshake",
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Padding => "padding",
            Self::Auth => "AUTH",
            Self::Ready => "idle",
            Self::Mail => "MAIL FROM",
            Self::Rcpt => "RCPT TO",
            Self::Data => "DATA",
            Self::MailData => "mail data",
            Self::EndOfData => "end of data",
            Self::Rset => "RSET",
            Self::Quit => "QUIT",
            Self::Ended => "end of the session",
        })
    }
}
