//! How a conversation with a server ends: one value for each way, so that decisions need not read texts.
//!
//! [`wording`](crate::wording) turns these values into text, where a faillog row, a log line or a bounce needs it.

use alloc::boxed::Box;

use crate::command::CommandName;
use crate::reply::{Reply, ReplyError};
use crate::sasl::SaslError;
use crate::status::EnhancedStatus;

/// Why a session came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// It was asked to end.
    Quit,
    /// The peer has closed the connection.
    Closed,
    /// The connection broke: reset, a TLS error, or the like.
    Broken(SystemText),
    /// The server did not do this in time.
    TimedOut(Overdue),
    /// The server refused, in the negotiation by any error reply, later by 421, or by a refusal that came without being asked for.
    Refused(Reply, CommandName),
    /// The server cannot be used as it must be.
    Unsuitable(Unsuitable),
    /// The server broke the protocol: the connection is given up.
    Misbehaved(Misbehaved),
    /// Something on this side failed.
    Local(LocalTrouble),
}

impl EndCause {
    /// Returns whether the connection is lost: closed, broken, timed out, or given up because of what the peer does.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Closed | Self::Broken(_) | Self::TimedOut(_) | Self::Misbehaved(_))
    }

    /// Returns whether replies and commands do not match any more, so that nothing that was said can be believed without a
    /// checkpoint.
    pub fn is_out_of_step(&self) -> bool {
        matches!(self, Self::Misbehaved(Misbehaved::OutOfStep(_)))
    }
}

/// Words of the operating system or of the TLS library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemText(pub Box<str>);

impl<T: Into<Box<str>>> From<T> for SystemText {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

/// What a server has not done within the time of its phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// The TLS handshake.
    TlsHandshake,
    /// The reply to a command.
    Reply(CommandName),
    /// Taking the message.
    MailData,
}

/// Why a server cannot be used as it must be, though it has done nothing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsuitable {
    /// The port is one for STARTTLS, and the server does not offer it.
    StartTlsNotOffered,
    /// The TLS handshake failed.
    TlsFailed(SystemText),
    /// There are credentials to send, and the certificate is not valid.
    CertificateInvalid,
    /// There are credentials to send, and the connection is not protected.
    NoTls,
    /// There are credentials to send, and the server offers no mechanism of AUTH that is known here.
    NoMechanism,
    /// The authentication exchange failed. What the server has said in it is without secrets and control characters.
    NotAuthenticated(SaslError),
}

/// What a server has done that breaks the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misbehaved {
    /// It sent what is no reply.
    MalformedReply(ReplyError),
    /// It sent plain text where TLS was to begin (RFC 3207 section 6): somebody may have slipped it in.
    PlainTextBeforeTls,
    /// Its reply to EHLO is too long to be read to its end.
    EhloReplyTooLong,
    /// It refused the message for now before it had all of it.
    RefusedDuringData(Reply),
    /// It refused RSET, which never may be (RFC 5321 section 4.1.1.5).
    RefusedRset(Reply),
    /// It took lines of the message for commands.
    DidNotFollow,
    /// Its replies do not match the commands: nothing that it said before is believed without a checkpoint.
    OutOfStep(OutOfStep),
}

/// How it shows that a server's replies do not match the commands that it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutOfStep {
    /// It replied to nothing.
    SpokeUnasked(Reply),
    /// It replied before the command was sent.
    RepliedBeforeAsked(Reply),
    /// It replied, other than by a refusal, before it had all of the message.
    RepliedDuringData(Reply),
    /// This cannot be the reply to that command.
    CannotAnswer(CommandName, Reply),
    /// It refused RSET in a batch of commands, so that this may be the reply to something else.
    RefusedRset(Reply),
    /// It took lines of the message for commands, and has replied to them.
    DidNotFollow,
}

/// What failed on this side. No server is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalTrouble {
    /// The database did not give the rest of the mail data in time.
    MailDataLate,
    /// The database does not have the rest of the mail data any more, or cannot read it.
    MailDataGone,
}

impl Unfit {
    /// Returns what a bounce says of it.
    pub const fn status(self) -> EnhancedStatus {
        match self {
            Self::TooLong { .. } => EnhancedStatus::MESSAGE_TOO_LONG,
            Self::NeedsSmtpUtf8 => EnhancedStatus::NEEDS_SMTPUTF8,
        }
    }
}

impl From<Misbehaved> for EndCause {
    fn from(crime: Misbehaved) -> Self {
        Self::Misbehaved(crime)
    }
}

impl From<OutOfStep> for EndCause {
    fn from(crime: OutOfStep) -> Self {
        Self::Misbehaved(Misbehaved::OutOfStep(crime))
    }
}

impl From<Unsuitable> for EndCause {
    fn from(reason: Unsuitable) -> Self {
        Self::Unsuitable(reason)
    }
}

impl From<LocalTrouble> for EndCause {
    fn from(trouble: LocalTrouble) -> Self {
        Self::Local(trouble)
    }
}

/// Why a message is not offered to a server for a recipient: it would be refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The message is longer than the server takes (RFC 1870 section 6.1).
    TooLong {
        /// How long it is as it would be sent, in octets.
        octets: u64,
        /// How much the server takes, in octets.
        limit_octets: u64,
    },
    /// An address is not ASCII, and the server does not offer SMTPUTF8 (RFC 6531 section 3.4).
    NeedsSmtpUtf8,
}
