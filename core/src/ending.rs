//! The ways in which a conversation with a server ends, as values, so that decisions need not read texts.
//!
//! [`wording`](crate::wording) turns these values into text for faillog rows, log lines and bounces.

use crate::command::CommandName;
use crate::reply::{Reply, ReplyError};
use crate::sasl::SaslError;
use crate::status::EnhancedStatus;
use crate::system_error::{Breakage, SystemError};
use crate::tally::ConnectionFailure;
use crate::tls::{CertificateTrouble, Shortfall};

/// The reason why a session has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// It was asked to end.
    Quit,
    /// The peer has closed the connection.
    Closed,
    /// The connection broke: reset, a TLS error, or the like.
    Broken(SystemError<Breakage>),
    /// The server did not do this in time.
    TimedOut(Overdue),
    /// The server refused: in the negotiation by any error reply, later by 421 or by a refusal that answers no command.
    Refused(Reply, CommandName),
    /// The server is unsuitable.
    Unsuitable(Unsuitable),
    /// The connection falls short of what is needed of TLS.
    Untrusted(Shortfall),
    /// The server broke the protocol.
    Misbehaved(Misbehaved),
    /// This side has trouble.
    Local(LocalTrouble),
}

impl EndCause {
    /// Returns whether the connection is lost: closed, broken, timed out, or closed because the peer broke the protocol.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Closed | Self::Broken(_) | Self::TimedOut(_) | Self::Misbehaved(_))
    }

    /// Returns the reason that is counted if no mail could be sent before this end; nothing if it was wanted.
    pub(crate) fn connection_failure(&self) -> Option<ConnectionFailure> {
        Some(match self {
            Self::Quit => return None,
            Self::TimedOut(_) => ConnectionFailure::Mute,
            Self::Unsuitable(
                Unsuitable::StartTlsNotOffered
                | Unsuitable::TlsFailed(_)
                | Unsuitable::CertificateInvalid(_)
                | Unsuitable::NoTls,
            )
            | Self::Untrusted(_) => ConnectionFailure::Tls,
            Self::Local(_) => ConnectionFailure::Local,
            Self::Closed
            | Self::Broken(_)
            | Self::Refused(..)
            | Self::Unsuitable(Unsuitable::NoMechanism | Unsuitable::NotAuthenticated(_))
            | Self::Misbehaved(_) => ConnectionFailure::Refused,
        })
    }

    /// Returns whether replies and commands no longer match, so that no earlier reply can be believed without a checkpoint.
    pub fn is_out_of_step(&self) -> bool {
        matches!(self, Self::Misbehaved(Misbehaved::OutOfStep(_)))
    }
}

/// What a server has not done within the time of its phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// The TLS handshake.
    TlsHandshake,
    /// The reply to a command.
    Reply(CommandName),
    /// Receiving the message.
    MailData,
}

/// The reason why a server cannot be used although it has done nothing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsuitable {
    /// The port requires STARTTLS, and the server does not offer it.
    StartTlsNotOffered,
    /// The TLS handshake failed.
    TlsFailed(SystemError<Breakage>),
    /// There are credentials to send, but the certificate is not valid.
    CertificateInvalid(CertificateTrouble),
    /// There are credentials to send, but the connection is not protected.
    NoTls,
    /// There are credentials to send, but the server offers no known mechanism of AUTH.
    NoMechanism,
    /// The authentication exchange failed. The error contains no secrets and no control characters.
    NotAuthenticated(SaslError),
}

/// A breach of the protocol by a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misbehaved {
    /// It sent something that is not a reply.
    MalformedReply(ReplyError),
    /// It sent plain text where TLS was to begin (RFC 3207 section 6). An attacker may have inserted it.
    PlainTextBeforeTls,
    /// Its reply to EHLO is too long to be read to its end.
    EhloReplyTooLong,
    /// It refused the message temporarily before it had all of it.
    RefusedDuringData(Reply),
    /// It refused RSET, which the protocol does not allow (RFC 5321 section 4.1.1.5).
    RefusedRset(Reply),
    /// It took lines of the message for commands.
    DidNotFollow,
    /// Its replies do not match the commands, so no earlier reply is believed without a checkpoint.
    OutOfStep(OutOfStep),
}

/// The sign that a server's replies do not match the commands that it received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutOfStep {
    /// It sent a reply although it owed none.
    SpokeUnasked(Reply),
    /// It replied before the command was sent.
    RepliedBeforeAsked(Reply),
    /// It sent a reply, other than a refusal, before it had all of the message.
    RepliedDuringData(Reply),
    /// The reply is impossible for that command.
    CannotAnswer(CommandName, Reply),
    /// It refused RSET in a batch of commands, so this may be the reply to another command.
    RefusedRset(Reply),
    /// It took lines of the message for commands, and has replied to them.
    DidNotFollow,
}

/// Trouble on this side, for which the server is not to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalTrouble {
    /// The database did not deliver the rest of the mail data in time.
    MailDataLate,
    /// The database no longer has the rest of the mail data, or cannot read it.
    MailDataGone,
}

impl Unfit {
    /// Returns the status that a bounce gives.
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

impl From<Shortfall> for EndCause {
    fn from(shortfall: Shortfall) -> Self {
        Self::Untrusted(shortfall)
    }
}

impl From<LocalTrouble> for EndCause {
    fn from(trouble: LocalTrouble) -> Self {
        Self::Local(trouble)
    }
}

/// The reason why a message is not offered to a server for a recipient: the server would refuse it permanently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The message is larger than the server accepts (RFC 1870 section 6.1).
    TooLong {
        /// The size of the message as it would be sent, in octets.
        octets: u64,
        /// The most octets that the server accepts.
        limit_octets: u64,
    },
    /// An address is not ASCII, and the server does not offer SMTPUTF8 (RFC 6531 section 3.4).
    NeedsSmtpUtf8,
}
