//! Which mail an operator means. One definition for the words of the command line and for the JSON of `dispatch_orders`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use cmail_delivery::address::{Domain, MailDomain, Mailbox};
use cmail_delivery::mail_pattern::{MailPattern, MailPatternError};
use cmail_delivery::next_hop::{Host, Relay, TlsMode};
use cmail_delivery::outbox::{Row, is_null_path};
use cmail_delivery::status::EnhancedStatus;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config;

/// Mail that fits everything that is given. Nothing given means all mail.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Which mail")]
pub(crate) struct Selection {
    /// Only the mails with these ids
    #[arg(value_name = "ID")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ids: Vec<i64>,
    /// Only mail to recipients of this domain
    #[arg(long, value_name = "DOMAIN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<DomainPattern>,
    /// Only mail that goes by this relay: HOST, HOST:PORT or HOST:PORT/MODE, without its password
    #[arg(long, value_name = "REMOTE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remote: Option<RemotePattern>,
    /// Only mail from this address, or from a domain (@example.org), or with a null sender (<>)
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sender: Option<AddressPattern>,
    /// Only mail to this address, or to a domain (@example.org)
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipient: Option<AddressPattern>,
    /// Only the message with this Message-ID
    #[arg(long, value_name = "ID")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message_id: Option<MessageId>,
    /// Only mail that was submitted longer ago than this: a number of seconds, or 15m, 2h, 5d
    #[arg(long = "older", value_name = "SPAN", value_parser = span)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) older_s: Option<u32>,
    /// Only mail in this state
    #[arg(long, value_name = "PLACE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<Place>,
    /// Only mail whose last failure has this status or reply code, or one that begins so: 4.7, 5.1.1, 421, 4
    #[arg(long, value_name = "STATUS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<StatusPattern>,
}

impl Selection {
    /// Returns whether the addresses and the relay of a mail are meant, however they are written.
    pub(crate) fn fits_envelope(&self, row: &Row) -> bool {
        let recipient = Some(&*row.recipient).filter(|recipient| !is_null_path(recipient));
        self.domain.as_ref().is_none_or(|domain| domain.fits(&row.recipient))
            && self.recipient.as_ref().is_none_or(|pattern| pattern.fits(recipient))
            && self.sender.as_ref().is_none_or(|pattern| pattern.fits(row.sender.as_deref()))
            && self
                .remote
                .as_ref()
                .is_none_or(|pattern| row.remote.as_deref().is_some_and(|remote| pattern.fits(remote)))
    }
}

/// The state of a mail, as far as the database knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Place {
    /// To be tried now
    Ready,
    /// To be tried later
    Waiting,
    /// To be bounced
    #[value(alias = "given-up")]
    GivenUp,
    /// Taken by a server, and not to be sent again; it cannot be deleted
    Taken,
    /// Held until it is released
    Held,
    /// Held because it may have arrived already; also found as held
    Uncertain,
}

impl Place {
    /// Returns its name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Waiting => "waiting",
            Self::GivenUp => "given_up",
            Self::Taken => "taken",
            Self::Held => "held",
            Self::Uncertain => "uncertain",
        }
    }
}

/// Why a word does not select mail.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum PatternError {
    #[error("it is no domain: {0}")]
    Domain(String),
    #[error("it must be an address, @DOMAIN, or <> for the null sender")]
    Address,
    #[error("it must be HOST, HOST:PORT or HOST:PORT/MODE, without a password")]
    Remote,
    #[error(transparent)]
    Line(#[from] MailPatternError),
    #[error("it is empty")]
    Empty,
    #[error("it must be the beginning of a status (4, 4.7, 5.1.1) or of a reply code (42, 421)")]
    Status,
}

/// A domain of recipients, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct DomainPattern(String);

impl DomainPattern {
    /// Returns the forms in which an ASCII text may have it, in some case: as it was written, and in A-labels. None for an address literal,
    /// which has too many.
    pub(crate) fn ascii_forms(&self) -> Option<Vec<String>> {
        if self.0.starts_with('[') {
            return None;
        }
        let mut forms = vec![self.0.clone()];
        if let Ok(domain) = Domain::parse(&self.0)
            && domain.as_str() != self.0
        {
            forms.push(domain.as_str().to_owned());
        }
        Some(forms)
    }

    /// Returns whether an address has this domain, however it is written.
    pub(crate) fn fits(&self, address: &[u8]) -> bool {
        let domain = address.rsplit(|octet| *octet == b'@').next().unwrap_or_default();
        let Ok(domain) = std::str::from_utf8(domain) else { return false };
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        match (MailDomain::parse(domain), MailDomain::parse(&self.0)) {
            (Ok(domain), Ok(wanted)) => domain == wanted,
            _ => domain.eq_ignore_ascii_case(&self.0),
        }
    }
}

impl FromStr for DomainPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('@').unwrap_or(text);
        let bare = bare.strip_suffix('.').unwrap_or(bare);
        MailDomain::parse(bare).map_err(|error| PatternError::Domain(error.to_string()))?;
        Ok(Self(bare.to_owned()))
    }
}

/// An address, all addresses of a domain, or the null sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum AddressPattern {
    /// The null reverse-path.
    Null,
    /// All of a domain.
    Domain(DomainPattern),
    /// This one, in any case.
    Exact(String),
}

impl AddressPattern {
    /// Returns whether an address is meant; `None` is the null reverse-path.
    pub(crate) fn fits(&self, address: Option<&[u8]>) -> bool {
        match (self, address) {
            (Self::Null, address) => address.is_none(),
            (_, None) => false,
            (Self::Domain(domain), Some(address)) => domain.fits(address),
            (Self::Exact(wanted), Some(address)) => {
                let wanted = wanted.as_bytes();
                wanted.eq_ignore_ascii_case(address)
                    || match (Mailbox::parse(wanted), Mailbox::parse(address)) {
                        (Ok(wanted), Ok(address)) => {
                            wanted.canonical().eq_ignore_ascii_case(&address.canonical())
                        }
                        _ => false,
                    }
            }
        }
    }

    /// Returns the domain that every address has which is meant, if there is one.
    pub(crate) fn domain(&self) -> Option<DomainPattern> {
        match self {
            Self::Null => None,
            Self::Domain(domain) => Some(domain.clone()),
            Self::Exact(address) => address.rsplit_once('@').and_then(|(_, domain)| domain.parse().ok()),
        }
    }
}

impl FromStr for AddressPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
        match bare.strip_prefix('@') {
            Some(domain) => domain.parse().map(Self::Domain),
            None if bare.is_empty() && text == "<>" => Ok(Self::Null),
            None if bare.is_empty() => Err(PatternError::Address),
            None => Ok(Self::Exact(bare.to_owned())),
        }
    }
}

/// A relay, without credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct RemotePattern(Relay);

impl RemotePattern {
    /// Returns whether a value of `mail_remote` is meant: one with this host, this port if one is given, and this mode if one is given.
    pub(crate) fn fits(&self, remote: &[u8]) -> bool {
        let Ok(Relay { host, port, credentials: _ }) = Relay::parse(remote) else { return false };
        let fits_port = match self.0.port {
            None => true,
            Some(wanted) if wanted.tls == TlsMode::Plain => {
                port.is_some_and(|port| port.number == wanted.number)
            }
            wanted => port == wanted,
        };
        host == self.0.host && fits_port
    }

    /// Returns a text that every remote in ASCII contains which fits, in some case.
    pub(crate) fn ascii_part(&self) -> String {
        match &self.0.host {
            Host::Address(IpAddr::V6(_)) => "[".to_owned(),
            host @ (Host::Name(_) | Host::Address(IpAddr::V4(_))) => host.to_string(),
        }
    }
}

impl FromStr for RemotePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let relay = Relay::parse(text.as_bytes()).map_err(|_| PatternError::Remote)?;
        if relay.credentials.is_some() { Err(PatternError::Remote) } else { Ok(Self(relay)) }
    }
}

/// Where mail goes: to the hosts of a domain, or to a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Destination {
    /// By the MX of this domain; or by the relay of this name, whatever its port.
    Domain(DomainPattern, Option<RemotePattern>),
    /// By this relay.
    Remote(RemotePattern),
}

impl Destination {
    /// Returns whether the mail of a row goes there.
    pub(crate) fn fits(&self, row: &Row) -> bool {
        match (self, row.remote.as_deref()) {
            (Self::Domain(domain, _), None) => domain.fits(&row.recipient),
            (Self::Domain(_, Some(pattern)) | Self::Remote(pattern), Some(remote)) => pattern.fits(remote),
            (Self::Domain(_, None), Some(_)) | (Self::Remote(_), None) => false,
        }
    }
}

impl FromStr for Destination {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(domain) => Ok(Self::Domain(domain, text.parse().ok())),
            Err(_) => text.parse().map(Self::Remote),
        }
    }
}

/// The mail that a line of the configuration is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct LinePattern(MailPattern);

impl LinePattern {
    /// Returns whether the mail of a row is meant.
    pub(crate) fn fits(&self, row: &Row) -> bool {
        self.0.fits(row)
    }
}

impl FromStr for LinePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(MailPattern::parse(text)?))
    }
}

/// A Message-ID, without angle brackets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct MessageId(String);

impl MessageId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MessageId {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.trim().trim_start_matches('<').trim_end_matches('>');
        if bare.is_empty() { Err(PatternError::Empty) } else { Ok(Self(bare.to_owned())) }
    }
}

/// The beginning of an enhanced status, or of a reply code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum StatusPattern {
    /// `4`: the class of a status, or of a code where there is no status.
    Class(u8),
    /// `4.7` or `4.7.1`.
    Status(String),
    /// `42` or `421`.
    Code(String),
}

impl StatusPattern {
    /// Returns whether a failure with this reply code and status is meant.
    pub(crate) fn fits(&self, code: Option<u16>, status: Option<EnhancedStatus>) -> bool {
        match self {
            Self::Class(class) => {
                let of_code = code.map(|code| code / 100);
                status.map(|status| status.class.into()).or(of_code) == Some(u16::from(*class))
            }
            Self::Status(pattern) => status.is_some_and(|status| {
                let text = status.to_string();
                text.strip_prefix(pattern.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }),
            Self::Code(pattern) => code.is_some_and(|code| code.to_string().starts_with(pattern.as_str())),
        }
    }
}

impl FromStr for StatusPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers: Vec<&str> = text.split('.').collect();
        let is_number =
            |text: &&str| (1..=3).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
        if !numbers.iter().all(is_number) {
            return Err(PatternError::Status);
        }
        match *numbers {
            [class @ ("2" | "4" | "5")] => class.parse().map(Self::Class).map_err(|_| PatternError::Status),
            [code] if code.len() > 1 && code.starts_with(['2', '3', '4', '5']) => {
                Ok(Self::Code(text.to_owned()))
            }
            ["2" | "4" | "5", _] | ["2" | "4" | "5", _, _] => Ok(Self::Status(text.to_owned())),
            _ => Err(PatternError::Status),
        }
    }
}

/// Displays each pattern as it is read, which is also its form in JSON.
macro_rules! as_text {
    ($($name:ty: |$value:ident, $f:ident| $write:expr;)*) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, $f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $value = self;
                $write
            }
        }

        impl From<$name> for String {
            fn from(pattern: $name) -> Self {
                pattern.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = PatternError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
    )* };
}

as_text! {
    DomainPattern: |domain, f| f.write_str(&domain.0);
    AddressPattern: |address, f| match address {
        Self::Null => f.write_str("<>"),
        Self::Domain(domain) => write!(f, "@{domain}"),
        Self::Exact(address) => f.write_str(address),
    };
    RemotePattern: |remote, f| remote.0.fmt(f);
    Destination: |destination, f| match destination {
        Self::Domain(domain, _) => domain.fmt(f),
        Self::Remote(remote) => remote.fmt(f),
    };
    LinePattern: |pattern, f| pattern.0.fmt(f);
    MessageId: |id, f| f.write_str(&id.0);
    StatusPattern: |status, f| match status {
        Self::Class(class) => write!(f, "{class}"),
        Self::Status(text) | Self::Code(text) => f.write_str(text),
    };
}

/// Parses a span of time, to seconds.
pub(crate) fn span(text: &str) -> Result<u32, config::ValueError> {
    config::seconds(text, 0, u32::MAX)
}

#[cfg(test)]
mod tests;
