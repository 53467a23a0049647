//! Says which destinations a line of the administrator is about.

use core::fmt;
use core::net::IpAddr;

use thiserror::Error;

use crate::address::{Domain, MailDomain};
use crate::mail_pattern::{DomainPattern, MailPattern, MailPatternError};
use crate::next_hop::{Host, NextHop};

/// The destinations that a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationPattern {
    /// `*`: all of them.
    All,
    /// `example.com` or `.example.com`: a domain, by its MX records.
    To(DomainPattern),
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`: an address literal.
    Literal(IpAddr),
    /// `remote:HOST`: a relay, whichever line or `mail_remote` names it.
    Remote(Host),
    /// `mx:mail.example.com` or `mx:*.example.com`: all domains, while their mail goes to this host.
    Mx(MxPattern),
}

/// A host that the MX records of a domain name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MxPattern {
    /// `mail.example.com`: this host.
    Exactly(Domain),
    /// `*.example.com`: all hosts below this domain.
    Below(Domain),
}

/// The reason why a text is not a pattern.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DestinationPatternError {
    /// Neither of the forms that a pattern has.
    #[error(
        "it must be \"*\", a domain, a domain with a dot before it, an address in brackets, \"remote:HOST\", \"mx:HOST\" or \"mx:*.DOMAIN\""
    )]
    Form,
    /// What follows `remote:` is not a host.
    #[error(transparent)]
    Remote(MailPatternError),
    /// What follows `mx:` is neither a host nor all hosts below a domain.
    #[error("after \"mx:\" must come the name of a host, or \"*.\" and the domain that the hosts are in")]
    Mx,
    /// It begins with `sender:`, but a destination cannot be chosen by the sender.
    #[error(
        "\"sender:\" is not known here, because mail of all senders shares the connections to a destination"
    )]
    Sender,
}

impl DestinationPattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, DestinationPatternError> {
        if let Some(host) = text.strip_prefix("mx:") {
            return MxPattern::parse(host).map(Self::Mx).ok_or(DestinationPatternError::Mx);
        }
        if text.starts_with("sender:") {
            return Err(DestinationPatternError::Sender);
        }
        if text.starts_with('[') {
            return match MailDomain::parse(text) {
                Ok(MailDomain::Literal(address)) => Ok(Self::Literal(address)),
                Ok(MailDomain::Name(_)) | Err(_) => Err(DestinationPatternError::Form),
            };
        }
        match MailPattern::parse(text) {
            Ok(MailPattern::All) => Ok(Self::All),
            Ok(MailPattern::To(domain)) => Ok(Self::To(domain)),
            Ok(MailPattern::Remote(host)) => Ok(Self::Remote(host)),
            Err(error @ MailPatternError::Remote) => Err(DestinationPatternError::Remote(error)),
            Ok(MailPattern::FromDomain(_) | MailPattern::From(_) | MailPattern::FromNull) | Err(_) => {
                Err(DestinationPatternError::Form)
            }
        }
    }

    /// Returns whether this next hop is meant, whichever host its mail goes to.
    pub fn matches(&self, next_hop: &NextHop) -> bool {
        match self {
            Self::All => true,
            Self::To(pattern) => matches!(next_hop, NextHop::Domain(domain) if pattern.matches(domain)),
            Self::Literal(address) => matches!(next_hop, NextHop::Literal(found) if found == address),
            Self::Remote(host) => matches!(next_hop, NextHop::Relay(relay) if relay.host == *host),
            Self::Mx(_) => false,
        }
    }

    /// Returns whether this next hop is meant while its mail goes to this host.
    pub fn matches_at(&self, next_hop: &NextHop, host: &Host) -> bool {
        match (self, next_hop, host) {
            (Self::Mx(pattern), NextHop::Domain(_), Host::Name(name)) => pattern.matches(name),
            (Self::Mx(_), ..) => false,
            (Self::All | Self::To(_) | Self::Literal(_) | Self::Remote(_), ..) => self.matches(next_hop),
        }
    }

    /// Returns how closely it names a destination; of two that are about the same, the one that names it more closely is the greater.
    /// A domain counts more than a host that it shares with other domains, a name more than a group of names, and a smaller group more
    /// than a larger one.
    pub fn specificity(&self) -> Specificity {
        let labels = |domain: &Domain| domain.as_str().split('.').count();
        Specificity(match self {
            Self::All => (0, 0),
            Self::Mx(MxPattern::Below(domain)) => (1, labels(domain)),
            Self::Mx(MxPattern::Exactly(_)) => (2, 0),
            Self::To(DomainPattern::Tree(domain)) => (3, labels(domain)),
            Self::To(DomainPattern::Exactly(_)) | Self::Literal(_) => (4, 0),
            // A line that names a relay says more of it than one that sends mail there.
            Self::Remote(_) => (5, 0),
        })
    }
}

/// How closely a pattern names a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity((u8, usize));

impl MxPattern {
    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("*.") {
            Some(above) => Domain::parse(above).ok().map(Self::Below),
            None => Domain::parse(text).ok().map(Self::Exactly),
        }
    }

    fn matches(&self, host: &Domain) -> bool {
        match self {
            Self::Exactly(wanted) => host == wanted,
            Self::Below(above) => {
                let rest = host.as_str().strip_suffix(above.as_str());
                rest.is_some_and(|rest| rest.ends_with('.'))
            }
        }
    }
}

impl fmt::Display for DestinationPattern {
    /// Writes it in the form that [`parse`](Self::parse) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::To(domain) => domain.fmt(f),
            Self::Literal(IpAddr::V4(address)) => write!(f, "[{address}]"),
            Self::Literal(IpAddr::V6(address)) => write!(f, "[IPv6:{address}]"),
            Self::Remote(host) => write!(f, "remote:{host}"),
            Self::Mx(MxPattern::Exactly(host)) => write!(f, "mx:{host}"),
            Self::Mx(MxPattern::Below(domain)) => write!(f, "mx:*.{domain}"),
        }
    }
}

#[cfg(test)]
mod tests;
