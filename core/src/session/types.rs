//! What a session is told and what it tells.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::address::Mailbox;
use crate::command::CommandName;
use crate::ending::{EndCause, Unfit};
use crate::next_hop::{Credentials, TlsMode};
use crate::one_line::OneLine;
use crate::outbox::MailId;
use crate::reply::Reply;
use crate::sasl::Mechanism;

/// How one conversation is to be led.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The argument of EHLO and HELO.
    pub announce: Box<str>,
    /// How the connection is to be protected.
    pub tls: TlsMode,
    /// True if the conversation may go on in plain text where STARTTLS is wanted but not offered: the next port to try differs
    /// only in that.
    pub plain_fallback: bool,
    /// What to authenticate with. The session is not used without success, if there is something.
    pub credentials: Option<Credentials>,
    /// By which mechanism the server has taken these credentials before: it is tried first, if it is offered.
    pub mechanism: Option<Mechanism>,
    /// True if credentials may be sent without TLS, or to a server whose certificate is not valid: over loopback, or because the
    /// administrator wants it.
    pub auth_unprotected: bool,
    /// Most NOOP and RSET that are sent as padding inside TLS; 0 for none.
    pub padding_limit: u16,
    /// True if the server gets one command at a time, whatever it offers: it was found to bear nothing else.
    pub no_pipelining: bool,
    /// True if [`SessionOutput::Sent`], [`SessionOutput::SentData`] and [`SessionOutput::Received`] are wanted.
    pub trace: bool,
}

/// A recipient of a message. A session owns those of its transactions, and gives each back with its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The mail: the row of the outbox.
    pub id: MailId,
    /// The address.
    pub mailbox: Mailbox,
}

/// One message for some recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Who gets a bounce; nothing for the null reverse-path.
    pub reverse_path: Option<Mailbox>,
    /// Who gets the message.
    pub recipients: Vec<Recipient>,
    /// Length of the stored message in octets.
    pub data_octets: u64,
    /// Its beginning, or all of it. What is missing is asked for by [`SessionOutput::NeedData`].
    pub head: Bytes,
}

/// What a session wants done, or has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Begin TLS on the connection, once all that is to be transmitted is.
    StartTls,
    /// A transaction may begin: after the negotiation, and after each transaction. A server that offers PIPELINING (RFC 2920)
    /// gets its envelope directly behind the end of the one before.
    Ready,
    /// More of the running message is needed: `limit` octets of the stored data from `offset` on. To be answered by
    /// [`Session::supply_data`](super::Session::supply_data).
    NeedData {
        /// A mail whose message it is: one that the server has accepted.
        id: MailId,
        /// Where to begin, in octets.
        offset: u64,
        /// How many octets; fewer do as well, none end the session.
        limit: u32,
    },
    /// What has become of the recipients of a transaction, all at once, before the next [`SessionOutput::Ready`] or
    /// [`SessionOutput::Ended`].
    Verdicts(Vec<(Recipient, Outcome)>),
    /// A command line that is being sent, with secrets masked. Only with [`SessionConfig::trace`].
    Sent(Bytes),
    /// Mail data that is being sent. Only with [`SessionConfig::trace`].
    SentData(Bytes),
    /// What the server has said, with secrets masked. Only with [`SessionConfig::trace`].
    Received(Bytes),
    /// The server has taken the credentials by this mechanism; or, with nothing, an exchange has failed.
    Authenticated(Option<Mechanism>),
    /// Something that the administrator may want to know.
    Note(SessionNote),
    /// The connection is to be closed. Nothing comes after this.
    Ended(SessionEnd),
}

/// What has become of one recipient in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has taken responsibility (RFC 5321 section 4.2.5).
    Delivered(Reply),
    /// The server refuses the mail.
    Rejected {
        /// With these words.
        reply: Reply,
        /// In reply to this.
        command: CommandName,
        /// True if trying again is pointless.
        fatal: bool,
    },
    /// The server is not asked, as it would refuse for good.
    Unfit(Unfit),
    /// The message was sent whole, and then the session ended without its verdict: the server may have taken it (RFC 5321
    /// section 4.5.3.2.6).
    Uncertain(EndCause),
    /// The server refuses the connection rather than the recipient, as far as the reply tells. Whether it does is known where all
    /// connections are: it may be a verdict all the same.
    Refused(Refusal),
    /// Nothing is decided: the recipient belongs into another transaction, on this or another connection.
    Undecided,
}

/// A refusal of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How it was said.
    pub kind: RefusalKind,
    /// By these words.
    pub reply: Reply,
    /// In reply to this.
    pub command: CommandName,
}

/// How a server refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// It takes no mail for now: 4yz to MAIL, to DATA, or, if it speaks of room or load, to RCPT before any is accepted.
    NotNow,
    /// It does not understand any more, on a connection on which it has taken or refused something before: 500, 502 or 503
    /// without an enhanced code.
    OutOfStep,
    /// It closes the connection before the end of the message: 421.
    Closing,
    /// It closes the connection in reply to the end of the message: 421.
    ClosingAtEnd,
}

/// Something that the administrator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionNote {
    /// The port is one for STARTTLS, but the server does not offer it; the next port to try is plain anyway.
    StartTlsNotOffered,
    /// The server answers padding with an error; it gets no more.
    PaddingRefused(Reply),
    /// The server did not take an authentication mechanism that it offers; the next one is tried.
    MechanismRefused(Reply),
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
        }
    }
}

/// How a session came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// Where it was when that became clear; what followed was at most QUIT.
    pub phase: Phase,
    /// Why.
    pub cause: EndCause,
    /// True if the server answered padding with an error, or was lost while it was padded.
    pub padding_failed: bool,
    /// True if the server cannot cope with commands in batches, although it offers that.
    pub no_pipelining: bool,
}

/// What a conversation is about at a time. Each phase has one timeout as a whole; MAIL, DATA and each RCPT is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The TLS handshake.
    Tls,
    /// The greeting is awaited.
    Greeting,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// NOOP or RSET as padding.
    Padding,
    /// AUTH.
    Auth,
    /// Nothing: a transaction may begin.
    Ready,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, until the server asks for the message.
    Data,
    /// The message, until its final dot.
    MailData,
    /// The final dot is sent: whether the server has taken the message is not known until it says so.
    EndOfData,
    /// RSET, after a transaction that was left open.
    Rset,
    /// QUIT.
    Quit,
    /// It is over.
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
