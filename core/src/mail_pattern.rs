//! Says which mail a rule of the administrator is about.

use core::fmt;

use thiserror::Error;

use crate::address::{Domain, MailDomain, Mailbox};
use crate::envelope::Envelope;
use crate::next_hop::{Host, NextHop, Relay};
use crate::one_line::OneLine;
use crate::outbox::Row;

/// The mail that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailPattern {
    /// `*`: all mail.
    All,
    /// `example.com` or `.example.com`: mail that goes to this domain by its MX records.
    To(DomainPattern),
    /// `remote:HOST`: mail whose `mail_remote` names this host.
    Remote(Host),
    /// `sender:example.com`, `sender:.example.com`: mail of senders in this domain.
    FromDomain(DomainPattern),
    /// `sender:user@example.com`: mail of this sender.
    From(Mailbox),
    /// `sender:<>`: bounces, and all other mail with the null reverse-path.
    FromNull,
}

/// A domain, with or without those below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainPattern {
    /// `example.com`: this domain alone.
    Exactly(Domain),
    /// `.example.com`: this domain and all below it.
    Tree(Domain),
}

/// The reason why a text is not a pattern.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MailPatternError {
    /// Neither of the forms that a pattern has.
    #[error(
        "it must be \"*\", a domain, a domain with a dot before it, \"remote:HOST\", or \"sender:\" with a domain, an address or <>"
    )]
    Form,
    /// What follows `remote:` is not a host.
    #[error("after \"remote:\" must come a host: a name, an IPv4 address, or an IPv6 address in brackets")]
    Remote,
    /// What follows `sender:` is neither a domain nor an address.
    #[error("after \"sender:\" must come a domain, a domain with a dot before it, an address, or <>")]
    Sender,
    /// `mx:` asks for what is known only after a lookup.
    #[error(
        "\"mx:\" is not known here, because the hosts of a domain are looked up only when its mail is tried"
    )]
    Mx,
}

impl MailPattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, MailPatternError> {
        if text == "*" {
            return Ok(Self::All);
        }
        if let Some(remote) = text.strip_prefix("remote:") {
            return match Relay::parse(remote.as_bytes()) {
                Ok(Relay { host, port: None, credentials: None }) => Ok(Self::Remote(host)),
                Ok(_) | Err(_) => Err(MailPatternError::Remote),
            };
        }
        if let Some(sender) = text.strip_prefix("sender:") {
            return Self::parse_sender(sender).ok_or(MailPatternError::Sender);
        }
        if text.starts_with("mx:") {
            return Err(MailPatternError::Mx);
        }
        DomainPattern::parse(text).map(Self::To).ok_or(MailPatternError::Form)
    }

    /// Returns whether the mail of a row is meant.
    pub fn fits(&self, row: &Row) -> bool {
        self.matches(named_hop(row).as_ref(), row.sender.as_deref())
    }

    fn parse_sender(text: &str) -> Option<Self> {
        if text == "<>" {
            Some(Self::FromNull)
        } else if text.contains('@') {
            Mailbox::parse(text.as_bytes()).ok().map(Self::From)
        } else {
            DomainPattern::parse(text).map(Self::FromDomain)
        }
    }

    /// Returns whether mail of this sender, on its way to this next hop, is meant. `next_hop` is `None` where the mail can be sent
    /// nowhere, and `sender` where it is the null reverse-path.
    pub fn matches(&self, next_hop: Option<&NextHop>, sender: Option<&[u8]>) -> bool {
        match self {
            Self::All => true,
            Self::To(pattern) => {
                matches!(next_hop, Some(NextHop::Domain(domain)) if pattern.matches(domain))
            }
            Self::Remote(host) => matches!(next_hop, Some(NextHop::Relay(relay)) if relay.host == *host),
            Self::FromNull => sender.is_none(),
            Self::FromDomain(pattern) => match mailbox(sender).map(|sender| sender.domain()) {
                Some(Ok(MailDomain::Name(domain))) => pattern.matches(&domain),
                Some(Ok(MailDomain::Literal(_)) | Err(_)) | None => false,
            },
            Self::From(wanted) => {
                mailbox(sender).is_some_and(|sender| sender.canonical() == wanted.canonical())
            }
        }
    }
}

/// Returns the next hop that a mail names itself, if it names any.
pub(crate) fn named_hop(row: &Row) -> Option<NextHop> {
    Envelope::parse(row).ok().map(|envelope| envelope.next_hop)
}

fn mailbox(sender: Option<&[u8]>) -> Option<Mailbox> {
    Mailbox::parse(sender?).ok()
}

impl DomainPattern {
    /// Parses `example.com` or `.example.com`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('.') {
            Some(above) => Domain::parse(above).ok().map(Self::Tree),
            None => Domain::parse(text).ok().map(Self::Exactly),
        }
    }

    /// Returns whether a domain is meant.
    pub fn matches(&self, domain: &Domain) -> bool {
        match self {
            Self::Exactly(wanted) => domain == wanted,
            Self::Tree(above) => {
                let rest = domain.as_str().strip_suffix(above.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        }
    }
}

impl fmt::Display for MailPattern {
    /// Writes it in the form that [`parse`](Self::parse) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::To(domain) => domain.fmt(f),
            Self::Remote(host) => write!(f, "remote:{host}"),
            Self::FromDomain(domain) => write!(f, "sender:{domain}"),
            Self::From(address) => write!(f, "sender:{}", OneLine(address)),
            Self::FromNull => f.write_str("sender:<>"),
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(domain) => domain.fmt(f),
            Self::Tree(domain) => write!(f, ".{domain}"),
        }
    }
}

#[cfg(test)]
mod tests;
