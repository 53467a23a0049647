//! An attempt to deliver a mail, as a value: the server, the result, and the time.
//!
//! It is made where the verdict is made, and travels unchanged to the database and to the log. [`wording`](crate::wording) turns
//! it into text where text is needed.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::address::{AddressError, Domain};
use crate::command::CommandName;
use crate::course::Course;
use crate::dkim::SignTrouble;
use crate::ending::{EndCause, Unfit, Unsuitable};
use crate::next_hop::{Host, RelayError};
use crate::reply::Reply;
use crate::resolver::DnsFailure;
use crate::shown::ShownAddress;
use crate::status::EnhancedStatus;
use crate::system_error::{NetworkTrouble, SystemError};
use crate::time::UnixTime;
use crate::tls::{Basis, Lack, TlsSummary};

/// One attempt to deliver one mail, which ended in an [`Acceptance`] or a [`Failure`]. The type tells which, so that delivered mail
/// cannot hold a failure, nor a faillog row an acceptance. [`AttemptFacts`] is what both have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt<R> {
    /// The time of the verdict.
    pub at: UnixTime,
    /// The recipient.
    pub recipient: ShownAddress,
    /// How it went, if [that is told](crate::settings::Told::courses) and a server was spoken with.
    pub course: Option<Arc<Course>>,
    /// The result.
    pub result: R,
}

/// The facts of an attempt, whatever its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptFacts<'a> {
    /// The time at which it was decided.
    pub at: UnixTime,
    /// The recipient.
    pub recipient: &'a ShownAddress,
    /// How it went, as far as that is told: in which conversation, and how long it took.
    pub course: Option<&'a Course>,
    /// The server that decided it, if one did: its name, address and port, and what protected the conversation.
    pub server: Option<&'a Server>,
    /// The reply that decided it, with all its lines, and the command that it answered.
    pub reply: Option<(&'a Reply, CommandName)>,
    /// The enhanced status: the server's, if it gave one, or ours if no server replied.
    pub status: Option<EnhancedStatus>,
    /// The subject of the attempt.
    pub kind: AttemptKind,
    /// True if it has failed permanently, so that a retry is pointless.
    pub is_fatal: bool,
}

/// The acceptance of a mail: the server has taken responsibility for it (RFC 5321 section 4.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// The server.
    pub server: Arc<Server>,
    /// Its reply to the end of data. It often contains the queue id of the mail at the server.
    pub reply: Reply,
}

/// A server of a conversation, or one that was to be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The name or address under which it was found.
    pub host: Host,
    /// Address and port.
    pub address: SocketAddr,
    /// The TLS of the conversation; `None` while it is in plain text.
    pub tls: Option<TlsSummary>,
}

/// The reason why an attempt has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A server has refused the mail, one of its recipients, or, as the last of all candidates, the conversation.
    Refused {
        /// The server.
        server: Arc<Server>,
        /// Its reply.
        reply: Reply,
        /// The command that it replied to.
        command: CommandName,
        /// True if a retry is pointless.
        fatal: bool,
    },
    /// A server would refuse the mail permanently, so it was not asked.
    Unfit(Arc<Server>, Unfit),
    /// The message was sent whole, and then the conversation ended without a verdict, by this cause.
    Uncertain(Arc<Server>, EndCause),
    /// No candidate of the next hop is left. Shared by all mail that fails for this reason.
    Unreached(Arc<Unreached>),
    /// The domain of the recipient leads nowhere.
    Unresolved(Unresolved),
    /// The mail cannot be sent anywhere.
    Unsendable(Unsendable),
    /// `mail_remote` cannot be understood.
    MalformedRelay(RelayError),
    /// The mail is to be signed, and could not be.
    NotSigned(SignTrouble),
}

/// The candidates of a next hop, all of which have failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// True if the next hop is a relay, and not the domain of the recipient.
    pub is_relay: bool,
    /// The first candidates that were tried, in their order, without repetitions.
    pub tried: Vec<Tried>,
    /// The trouble with the last host that gave no candidate.
    pub host: Option<HostTrouble>,
    /// The enhanced status of the failure.
    pub status: EnhancedStatus,
}

/// A candidate that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The candidate.
    pub server: Arc<Server>,
    /// The reason.
    pub setback: Setback,
}

/// The reason why a candidate could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setback {
    /// TCP did not connect: refused, unreachable, or the like.
    NotConnected(SystemError<NetworkTrouble>),
    /// TCP did not connect in time.
    ConnectTimedOut,
    /// The session ended before it could be used.
    Ended(EndCause),
    /// The server requires TLS or AUTH first, or more of it than the conversation had.
    WantsMore {
        /// Its reply.
        reply: Reply,
        /// The command that it replied to.
        command: CommandName,
        /// The protection that the conversation had.
        protection: Protection,
    },
}

/// The protection of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// TLS.
    Tls,
    /// No protection, because the server does not offer the STARTTLS that was wanted.
    StartTlsNotOffered,
    /// No protection.
    None,
}

/// The reason why a host gives no candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostTrouble {
    /// This host is not among those of the MTA-STS policy of this domain, which is enforced.
    NotInPolicy(Domain, Domain),
    /// None of the MX records of this domain names a usable host.
    NoUsableMx(Domain),
    /// The host does not exist.
    NoSuchHost(Domain),
    /// The host has no address that mail can be sent to.
    NoAddress(Domain),
    /// The host has no address of a usable family.
    NoUsableFamily(Host),
    /// None of the ports to try is protected as this needs it.
    NoUsablePort(Host, Basis),
    /// DNSSEC does not vouch for the MX records of this domain, and DANE is needed.
    RouteNotSecure(Domain),
    /// DNSSEC vouches for no TLSA records of the host that can be used, and DANE is needed.
    NoTlsa(Host),
    /// The name servers failed, in this way.
    DnsFailed(Box<DnsFailure>),
}

/// The reason why the domain of a recipient leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// The part after the last `@` is not a domain.
    BadDomain(AddressError),
    /// The domain does not exist.
    NoSuchDomain(Domain),
    /// The domain takes no mail at all (RFC 7505).
    NullMx(Domain),
    /// The domain has neither MX records nor addresses that mail can be sent to.
    NoRoute(Domain),
    /// The name servers failed, in this way.
    DnsFailed(Box<DnsFailure>),
}

/// The reason why a mail cannot be sent anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// The recipient is not a valid address.
    Recipient(AddressError),
    /// The sender is not a valid address.
    Sender(AddressError),
}

/// The subject of an attempt or of its failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttemptKind {
    /// The mail was delivered.
    Delivered,
    /// An address or the relay specification is unusable, or the mail cannot be signed.
    Address,
    /// The name servers, or their answers.
    Dns,
    /// No connection was made.
    Connect,
    /// The TLS handshake failed, or the server requires TLS.
    Tls,
    /// Authentication.
    Auth,
    /// The server refused the conversation: by its greeting, or by its reply to EHLO or HELO.
    Greeting,
    /// The server refused the sender.
    Sender,
    /// The server refused the recipient.
    Recipient,
    /// The server refused the message, or would have.
    Content,
    /// The connection was lost, or the server closed it.
    Lost,
    /// The message was sent whole, without a verdict.
    Uncertain,
}

impl Attempt<Acceptance> {
    /// Returns its facts.
    pub fn facts(&self) -> AttemptFacts<'_> {
        let Acceptance { server, reply } = &self.result;
        AttemptFacts {
            at: self.at,
            server: Some(server),
            reply: Some((reply, CommandName::EndOfData)),
            status: reply.enhanced(),
            recipient: &self.recipient,
            course: self.course.as_deref(),
            kind: AttemptKind::Delivered,
            is_fatal: false,
        }
    }
}

impl Attempt<Failure> {
    /// Returns its facts.
    pub fn facts(&self) -> AttemptFacts<'_> {
        let failure = &self.result;
        let (server, reply) = match failure {
            Failure::Refused { server, reply, command, .. } => (Some(&**server), Some((reply, *command))),
            Failure::Unfit(server, _) | Failure::Uncertain(server, _) => (Some(&**server), None),
            Failure::Unreached(_)
            | Failure::Unresolved(_)
            | Failure::Unsendable(_)
            | Failure::MalformedRelay(_)
            | Failure::NotSigned(_) => (None, None),
        };
        let (status, kind, is_fatal) = (failure.status(), failure.kind(), failure.is_fatal());
        AttemptFacts {
            at: self.at,
            recipient: &self.recipient,
            course: self.course.as_deref(),
            server,
            reply,
            status,
            kind,
            is_fatal,
        }
    }

    /// Returns whether it has failed permanently, so that a retry is pointless.
    pub fn is_fatal(&self) -> bool {
        self.result.is_fatal()
    }
}

impl AttemptFacts<'_> {
    /// Returns the approximate memory that it takes, in octets.
    pub fn octets(&self) -> usize {
        let reply = self.reply.map_or(0, |(reply, _)| reply.octets());
        size_of::<Attempt<Failure>>() + reply + self.course.map_or(0, Course::octets)
    }
}

impl Failure {
    /// Returns whether a retry is pointless.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Refused { fatal, .. } => *fatal,
            Self::Unfit(..) | Self::Unsendable(_) => true,
            Self::Uncertain(..) | Self::Unreached(_) | Self::MalformedRelay(_) | Self::NotSigned(_) => false,
            Self::Unresolved(reason) => !matches!(reason, Unresolved::DnsFailed(_)),
        }
    }

    /// Returns the enhanced status: the server's, if it gave one, or ours if no server replied.
    pub fn status(&self) -> Option<EnhancedStatus> {
        Some(match self {
            Self::Refused { reply, .. } => return reply.enhanced(),
            Self::Unfit(_, reason) => reason.status(),
            Self::Uncertain(..) => EnhancedStatus::CONNECTION_LOST,
            Self::Unreached(unreached) => unreached.status,
            Self::Unresolved(reason) => reason.status(),
            Self::Unsendable(reason) => reason.status(),
            Self::MalformedRelay(_) => EnhancedStatus::BAD_CONFIGURATION,
            Self::NotSigned(_) => EnhancedStatus::CRYPTOGRAPHY,
        })
    }

    /// Returns the subject of the failure.
    pub fn kind(&self) -> AttemptKind {
        match self {
            Self::Refused { command, .. } => AttemptKind::of_refusal(*command),
            Self::Unfit(_, Unfit::TooLong { .. }) => AttemptKind::Content,
            Self::Unfit(_, Unfit::NeedsSmtpUtf8)
            | Self::Unsendable(_)
            | Self::MalformedRelay(_)
            | Self::NotSigned(_)
            | Self::Unresolved(Unresolved::BadDomain(_)) => AttemptKind::Address,
            Self::Uncertain(..) => AttemptKind::Uncertain,
            Self::Unreached(unreached) => match (unreached.tried.last(), &unreached.host) {
                (Some(tried), _) => tried.setback.kind(),
                (
                    None,
                    Some(
                        HostTrouble::NoUsablePort(..)
                        | HostTrouble::RouteNotSecure(_)
                        | HostTrouble::NoTlsa(_)
                        | HostTrouble::NotInPolicy(..),
                    ),
                ) => AttemptKind::Tls,
                (None, _) => AttemptKind::Dns,
            },
            Self::Unresolved(_) => AttemptKind::Dns,
        }
    }
}

impl Unsendable {
    /// Returns the status that a bounce gives.
    pub fn status(&self) -> EnhancedStatus {
        match self {
            Self::Recipient(_) => EnhancedStatus::BAD_RECIPIENT_SYNTAX,
            Self::Sender(_) => EnhancedStatus::BAD_SENDER_SYNTAX,
        }
    }
}

impl Unresolved {
    /// Returns the status that a bounce gives.
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
    /// Returns the subject of the failure.
    fn kind(&self) -> AttemptKind {
        match self {
            Self::NotConnected(_) | Self::ConnectTimedOut => AttemptKind::Connect,
            Self::Ended(EndCause::Refused(_, command)) => AttemptKind::of_refusal(*command),
            Self::Ended(EndCause::Unsuitable(reason)) => match reason {
                Unsuitable::StartTlsNotOffered
                | Unsuitable::TlsFailed(_)
                | Unsuitable::CertificateInvalid(_)
                | Unsuitable::NoTls => AttemptKind::Tls,
                Unsuitable::NoMechanism | Unsuitable::NotAuthenticated(_) => AttemptKind::Auth,
            },
            Self::Ended(EndCause::Untrusted(_)) => AttemptKind::Tls,
            Self::Ended(_) => AttemptKind::Lost,
            Self::WantsMore { protection: Protection::Tls, .. } => AttemptKind::Auth,
            Self::WantsMore { .. } => AttemptKind::Tls,
        }
    }

    /// Returns the status of a failure in which no server has had the last word.
    pub(crate) fn status(&self) -> EnhancedStatus {
        match self {
            Self::NotConnected(_) | Self::ConnectTimedOut => EnhancedStatus::NO_ANSWER,
            Self::Ended(EndCause::Untrusted(shortfall)) => match shortfall.lack {
                Lack::Tls | Lack::Version(_) => EnhancedStatus::NO_SECURITY,
                Lack::Proof(..) => EnhancedStatus::NO_PROOF,
            },
            Self::Ended(EndCause::Unsuitable(_)) | Self::WantsMore { .. } => EnhancedStatus::POLICY,
            Self::Ended(_) => EnhancedStatus::CONNECTION_LOST,
        }
    }
}

impl AttemptKind {
    /// Those of failures.
    pub const FAILURES: [Self; 11] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Auth,
        Self::Greeting,
        Self::Sender,
        Self::Recipient,
        Self::Content,
        Self::Lost,
        Self::Uncertain,
        Self::Address,
    ];

    /// Returns the subject of a refusal in reply to this command.
    pub fn of_refusal(command: CommandName) -> Self {
        match command {
            CommandName::Greeting | CommandName::Ehlo | CommandName::Helo => AttemptKind::Greeting,
            CommandName::StartTls => AttemptKind::Tls,
            CommandName::Auth => AttemptKind::Auth,
            CommandName::Mail => AttemptKind::Sender,
            CommandName::Rcpt => AttemptKind::Recipient,
            CommandName::Data | CommandName::MailData | CommandName::EndOfData => AttemptKind::Content,
            CommandName::Noop | CommandName::Rset | CommandName::Quit | CommandName::Nothing => {
                AttemptKind::Lost
            }
        }
    }
}

#[cfg(test)]
mod tests;
