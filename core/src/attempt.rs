//! An attempt to deliver a mail, as a value: with which server, what came of it, and when.
//!
//! It is made where a verdict falls, and travels unchanged to the database and to the log.
//! [`wording`](crate::wording) says it in words, for those of them that need words.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::address::{AddressError, Domain};
use crate::command::CommandName;
use crate::ending::{EndCause, SystemText, Unfit, Unsuitable};
use crate::next_hop::{Host, RelayError};
use crate::reply::Reply;
use crate::status::EnhancedStatus;
use crate::time::UnixTime;
use crate::tls::Tls;

/// One attempt to deliver one mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it was decided.
    pub at: UnixTime,
    /// What came of it.
    pub result: Result<Acceptance, Failure>,
}

/// A server has taken responsibility for a mail (RFC 5321 section 4.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// Which one.
    pub server: Arc<Server>,
    /// By these words, in reply to the end of data. They often name the mail's queue id at the server.
    pub reply: Reply,
}

/// A server that was spoken with, or that a connection was to be made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The name or address it was found under.
    pub host: Host,
    /// Address and port.
    pub address: SocketAddr,
    /// What protects the conversation; nothing as long as it is in plain text.
    pub tls: Option<Tls>,
}

/// Why an attempt has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A server has refused: the mail, one of its recipients, or, as the last of all candidates, the conversation.
    Refused {
        /// Which one.
        server: Arc<Server>,
        /// By these words.
        reply: Reply,
        /// In reply to this.
        command: CommandName,
        /// True if trying again is pointless.
        fatal: bool,
    },
    /// A server would refuse for good, so it was not asked.
    Unfit(Arc<Server>, Unfit),
    /// The message was sent whole, and then the conversation ended so, without a verdict.
    Uncertain(Arc<Server>, EndCause),
    /// No candidate of the next hop is left. Shared by all mail that fails by it.
    Unreached(Arc<Unreached>),
    /// The domain of the recipient leads nowhere.
    Unresolved(Unresolved),
    /// The mail cannot be sent to anybody.
    Unsendable(Unsendable),
    /// `mail_remote` cannot be understood.
    MalformedRelay(RelayError),
}

/// What became of the candidates of a next hop, of which none is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// True if the next hop is a relay, and not the domain of the recipient.
    pub is_relay: bool,
    /// The first that were tried, in their order, as far as they differ.
    pub tried: Vec<Tried>,
    /// What was wrong with the last host that gave no candidate.
    pub host: Option<HostTrouble>,
    /// What it comes to.
    pub status: EnhancedStatus,
}

/// A candidate that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Which one.
    pub server: Arc<Server>,
    /// Why.
    pub setback: Setback,
}

/// Why a candidate came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setback {
    /// TCP did not connect: refused, unreachable, or the like.
    NotConnected(SystemText),
    /// TCP did not connect in time.
    ConnectTimedOut,
    /// The session ended before it was of use.
    Ended(EndCause),
    /// The server wants TLS or AUTH first, or more of that than the conversation had.
    WantsMore {
        /// It says so by these words.
        reply: Reply,
        /// In reply to this.
        command: CommandName,
        /// What the conversation had.
        protection: Protection,
    },
}

/// How a conversation is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// By TLS.
    Tls,
    /// Not at all, as the server does not offer the STARTTLS that was wanted.
    StartTlsNotOffered,
    /// Not at all.
    None,
}

/// Why a host gives no candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostTrouble {
    /// None of the MX records of this domain names a host to use.
    NoUsableMx(Domain),
    /// The host does not exist.
    NoSuchHost(Domain),
    /// The host has no address that mail can be sent to.
    NoAddress(Domain),
    /// The host has no address of a family that can be used.
    NoUsableFamily(Host),
    /// The name servers failed, as the resolver says.
    DnsFailed(Box<str>),
}

/// Why the domain of a recipient leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// What stands after the last `@` is no domain.
    BadDomain(AddressError),
    /// The domain does not exist.
    NoSuchDomain(Domain),
    /// The domain takes no mail at all (RFC 7505).
    NullMx(Domain),
    /// The domain has neither MX records nor addresses that mail can be sent to.
    NoRoute(Domain),
    /// The name servers failed, as the resolver says.
    DnsFailed(Box<str>),
}

/// Why a mail cannot be sent to anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// Its recipient is no address.
    Recipient(AddressError),
    /// Its sender is no address.
    Sender(AddressError),
}

/// What an attempt, or its failure, is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttemptKind {
    /// The mail was delivered.
    Delivered,
    /// An address, or the relay specification, cannot be used.
    Address,
    /// The name servers, or what they say.
    Dns,
    /// No connection was made.
    Connect,
    /// TLS did not come about, or the server wants more of it.
    Tls,
    /// Authentication.
    Auth,
    /// The server does not want the conversation: its greeting, or its reply to EHLO or HELO.
    Greeting,
    /// The server refused the sender.
    Sender,
    /// The server refused the recipient.
    Recipient,
    /// The server refused the message, or would have.
    Content,
    /// The connection was lost, or the server left it.
    Lost,
    /// The message was sent whole, without a verdict.
    Uncertain,
}

impl Attempt {
    /// The server that decided it, if one did.
    pub fn server(&self) -> Option<&Server> {
        match &self.result {
            Ok(Acceptance { server, .. })
            | Err(
                Failure::Refused { server, .. } | Failure::Unfit(server, _) | Failure::Uncertain(server, _),
            ) => Some(server),
            Err(
                Failure::Unreached(_)
                | Failure::Unresolved(_)
                | Failure::Unsendable(_)
                | Failure::MalformedRelay(_),
            ) => None,
        }
    }

    /// The reply that decided it, with all its lines, and what it answered.
    pub fn reply(&self) -> Option<(&Reply, CommandName)> {
        match &self.result {
            Ok(Acceptance { reply, .. }) => Some((reply, CommandName::EndOfData)),
            Err(Failure::Refused { reply, command, .. }) => Some((reply, *command)),
            Err(
                Failure::Unfit(..)
                | Failure::Uncertain(..)
                | Failure::Unreached(_)
                | Failure::Unresolved(_)
                | Failure::Unsendable(_)
                | Failure::MalformedRelay(_),
            ) => None,
        }
    }

    /// The enhanced status: the server's, if it gave one, or ours where no server spoke.
    pub fn status(&self) -> Option<EnhancedStatus> {
        match &self.result {
            Ok(acceptance) => acceptance.reply.enhanced(),
            Err(failure) => failure.status(),
        }
    }

    /// Returns what it is about.
    pub fn kind(&self) -> AttemptKind {
        self.result.as_ref().map_or_else(Failure::kind, |_| AttemptKind::Delivered)
    }

    /// Returns whether trying again is pointless, because it has failed for good.
    pub fn is_fatal(&self) -> bool {
        self.result.as_ref().is_err_and(Failure::is_fatal)
    }

    /// Returns how much memory it takes, roughly, in octets.
    pub fn octets(&self) -> usize {
        let reply = self.reply().map_or(0, |(reply, _)| reply.octets());
        size_of::<Self>() + reply
    }
}

impl Failure {
    /// Returns whether trying again is pointless.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Refused { fatal, .. } => *fatal,
            Self::Unfit(..) | Self::Unsendable(_) => true,
            Self::Uncertain(..) | Self::Unreached(_) | Self::MalformedRelay(_) => false,
            Self::Unresolved(reason) => !matches!(reason, Unresolved::DnsFailed(_)),
        }
    }

    /// The enhanced status: the server's, if it gave one, or ours where no server spoke.
    pub fn status(&self) -> Option<EnhancedStatus> {
        Some(match self {
            Self::Refused { reply, .. } => return reply.enhanced(),
            Self::Unfit(_, reason) => reason.status(),
            Self::Uncertain(..) => EnhancedStatus::CONNECTION_LOST,
            Self::Unreached(unreached) => unreached.status,
            Self::Unresolved(reason) => reason.status(),
            Self::Unsendable(reason) => reason.status(),
            Self::MalformedRelay(_) => EnhancedStatus::BAD_CONFIGURATION,
        })
    }

    /// Returns what it is about.
    pub fn kind(&self) -> AttemptKind {
        match self {
            Self::Refused { command, .. } => refused_kind(*command),
            Self::Unfit(_, Unfit::TooLong { .. }) => AttemptKind::Content,
            Self::Unfit(_, Unfit::NeedsSmtpUtf8)
            | Self::Unsendable(_)
            | Self::MalformedRelay(_)
            | Self::Unresolved(Unresolved::BadDomain(_)) => AttemptKind::Address,
            Self::Uncertain(..) => AttemptKind::Uncertain,
            Self::Unreached(unreached) => {
                unreached.tried.last().map_or(AttemptKind::Dns, |tried| tried.setback.kind())
            }
            Self::Unresolved(_) => AttemptKind::Dns,
        }
    }
}

impl Unsendable {
    /// Returns what a bounce says of it.
    pub fn status(&self) -> EnhancedStatus {
        match self {
            Self::Recipient(_) => EnhancedStatus::BAD_RECIPIENT_SYNTAX,
            Self::Sender(_) => EnhancedStatus::BAD_SENDER_SYNTAX,
        }
    }
}

impl Unresolved {
    /// Returns what a bounce says of it.
    pub fn status(&self) -> EnhancedStatus {
        match self {
            Self::BadDomain(_) | Self::NoSuchDomain(_) => EnhancedStatus::BAD_DOMAIN,
            Self::NullMx(_) => EnhancedStatus::NULL_MX,
            Self::NoRoute(_) => EnhancedStatus::NO_ROUTE,
            Self::DnsFailed(_) => EnhancedStatus::DNS_FAILURE,
        }
    }
}

impl Setback {
    /// Returns what it is about.
    fn kind(&self) -> AttemptKind {
        match self {
            Self::NotConnected(_) | Self::ConnectTimedOut => AttemptKind::Connect,
            Self::Ended(EndCause::Refused(_, command)) => refused_kind(*command),
            Self::Ended(EndCause::Unsuitable(reason)) => match reason {
                Unsuitable::StartTlsNotOffered
                | Unsuitable::TlsFailed(_)
                | Unsuitable::CertificateInvalid
                | Unsuitable::NoTls => AttemptKind::Tls,
                Unsuitable::NoMechanism | Unsuitable::NotAuthenticated(_) => AttemptKind::Auth,
            },
            Self::Ended(_) => AttemptKind::Lost,
            Self::WantsMore { protection: Protection::Tls, .. } => AttemptKind::Auth,
            Self::WantsMore { .. } => AttemptKind::Tls,
        }
    }

    /// Returns what it comes to, where no server has had the last word.
    pub(crate) fn status(&self) -> EnhancedStatus {
        match self {
            Self::NotConnected(_) | Self::ConnectTimedOut => EnhancedStatus::NO_ANSWER,
            Self::Ended(EndCause::Unsuitable(_)) | Self::WantsMore { .. } => EnhancedStatus::POLICY,
            Self::Ended(_) => EnhancedStatus::CONNECTION_LOST,
        }
    }
}

/// Returns what a refusal is about that answers this.
fn refused_kind(command: CommandName) -> AttemptKind {
    match command {
        CommandName::Greeting | CommandName::Ehlo | CommandName::Helo => AttemptKind::Greeting,
        CommandName::StartTls => AttemptKind::Tls,
        CommandName::Auth => AttemptKind::Auth,
        CommandName::Mail => AttemptKind::Sender,
        CommandName::Rcpt => AttemptKind::Recipient,
        CommandName::Data | CommandName::MailData | CommandName::EndOfData => AttemptKind::Content,
        CommandName::Noop | CommandName::Rset | CommandName::Quit | CommandName::Nothing => AttemptKind::Lost,
    }
}

#[cfg(test)]
mod tests;
