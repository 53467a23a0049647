//! The value of a `destination` line: which destinations are meant, and what is said of them, as `KEY VALUE` pairs.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use cmail_delivery::destination_pattern::{DestinationPattern, DestinationPatternError};
use cmail_delivery::next_hop::{Relay, RelayError};
use cmail_delivery::outbox::TRANSACTION_RECIPIENT_LIMIT;
use cmail_delivery::policy::{Choice, Family, LocalAddresses, PolicyLine};
use cmail_delivery::time::{Duration, Span};
use thiserror::Error;

use super::values::{self, ValueError};
use crate::shown;
use crate::suggestion::nearest;

/// What may be said of a destination.
const KEYS: [&str; 14] = [
    "concurrency",
    "host_concurrency",
    "ratelimit",
    "recipients",
    "messages",
    "idle",
    "ports",
    "via",
    "credentials",
    "bind",
    "family",
    "padding",
    "pipelining",
    "chunking",
];

/// Most messages for one connection that a line can set.
const MESSAGES_MAX: u32 = 1_000_000;

/// A line as it stands in the file: what it names on this host has not been looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DestinationLine {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) destination: DestinationPattern,
    pub(super) sayings: Vec<Saying>,
}

/// One `KEY VALUE` pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Saying {
    /// It says all by itself.
    Choice(Choice),
    /// A relay, without its credentials.
    Via(Relay),
    /// The file that has the credentials of the relay.
    Credentials(Box<str>),
    /// The host whose addresses connections come from.
    Bind(Box<str>),
    /// Messages go by DATA, as they always do.
    NoChunking,
}

/// Why a `destination` line cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DestinationError {
    /// It does not say which destinations are meant.
    #[error("{}does not say which destinations are meant: {reason}", told(.text))]
    Pattern {
        /// The text, unless it may have a password.
        text: Option<Box<str>>,
        /// Why.
        reason: DestinationPatternError,
    },
    /// Nothing is said of them.
    #[error(
        "nothing is said of the destinations: it must go on with KEY VALUE …, as in \"gmail.com concurrency 5 ratelimit 10/s\""
    )]
    Nothing,
    /// A word that is no key.
    #[error("{}is not known here{}: it must be one of {}", told(.word), did_you_mean(*.meant), KEYS.join(", "))]
    Key {
        /// The word, unless it may be a password.
        word: Option<Box<str>>,
        /// A key with a similar name.
        meant: Option<&'static str>,
    },
    /// A key without a value.
    #[error("{0}: the value is missing")]
    MissingValue(&'static str),
    /// A key that is there twice.
    #[error("{0}: it is given twice on this line")]
    Twice(&'static str),
    /// A value that cannot be used.
    #[error("{key}: {error}")]
    Value {
        /// The key.
        key: &'static str,
        /// Why.
        error: Box<ValueError>,
    },
    /// A relay that cannot be used.
    #[error("via: it must be HOST, HOST:PORT, HOST:PORT/starttls or HOST:PORT/tls, or none; {0}")]
    Via(RelayError),
    /// A password in a file that everybody may read. The text is not told, since it is one.
    #[error(
        "via: credentials do not belong in this file: write name and password into a file, as USER:PASSWORD, and its path, \
         which has no colon, behind credentials: \"via HOST:PORT/MODE credentials PATH\""
    )]
    CredentialsInLine,
    /// A value with a colon where there cannot be one. It may be a password, so it is not told.
    #[error("{0}: this is no value of it; a word with a colon is not repeated, since it may be a password")]
    Colon(&'static str),
    /// Credentials for nobody.
    #[error("credentials: they are those of a relay, so \"via HOST:PORT/MODE\" must stand on this line too")]
    CredentialsAlone,
    /// Mail that goes to a host cannot go elsewhere.
    #[error(
        "via: it cannot stand on a line about {0}, because where mail goes is decided by its domain, before a host is known"
    )]
    ViaAtHost(DestinationPattern),
    /// Chunks, which the program does not know.
    #[error("chunking: it must be no: messages are always sent by DATA")]
    Chunking,
}

impl DestinationLine {
    /// Parses the value of a line.
    pub(super) fn parse(text: &str, line: usize) -> Result<Self, DestinationError> {
        let mut words = values::words(text);
        let pattern = words.next().unwrap_or_default();
        let destination = DestinationPattern::parse(pattern)
            .map_err(|reason| DestinationError::Pattern { text: tellable(pattern), reason })?;
        let mut parsed = Self { line, destination, sayings: Vec::new() };
        let mut seen: Vec<&'static str> = Vec::new();
        while let Some(word) = words.next() {
            let Some(&key) = KEYS.iter().find(|key| **key == word) else {
                return Err(unknown_key(word, &seen));
            };
            if seen.contains(&key) {
                return Err(DestinationError::Twice(key));
            }
            seen.push(key);
            let value = words.next().ok_or(DestinationError::MissingValue(key))?;
            parsed.sayings.push(Saying::parse(key, value)?);
        }
        parsed.check()?;
        Ok(parsed)
    }

    /// Returns the relay that it names.
    pub(super) fn via(&self) -> Option<&Relay> {
        self.sayings
            .iter()
            .find_map(|saying| if let Saying::Via(relay) = saying { Some(relay) } else { None })
    }

    /// Returns what it says of where mail goes, if it does, without credentials.
    pub(super) fn route(&self) -> Option<PolicyLine> {
        let via = self.sayings.iter().find_map(|saying| match saying {
            Saying::Via(relay) => Some(Choice::Via(Some(relay.clone()))),
            Saying::Choice(choice @ Choice::Via(_)) => Some(choice.clone()),
            Saying::Choice(_) | Saying::Credentials(_) | Saying::Bind(_) | Saying::NoChunking => None,
        })?;
        let line = u32::try_from(self.line).unwrap_or(u32::MAX);
        Some(PolicyLine { destination: self.destination.clone(), choices: vec![via], line })
    }

    /// Returns the file that has its credentials.
    pub(super) fn credentials(&self) -> Option<&str> {
        self.sayings
            .iter()
            .find_map(|saying| if let Saying::Credentials(path) = saying { Some(&**path) } else { None })
    }

    fn check(&self) -> Result<(), DestinationError> {
        if self.sayings.is_empty() {
            return Err(DestinationError::Nothing);
        }
        let is_decided_by_domain =
            !matches!(self.destination, DestinationPattern::Mx(_) | DestinationPattern::Remote(_));
        let says_via = |saying: &Saying| matches!(saying, Saying::Via(_) | Saying::Choice(Choice::Via(_)));
        if !is_decided_by_domain && self.sayings.iter().any(says_via) {
            return Err(DestinationError::ViaAtHost(self.destination.clone()));
        }
        if self.credentials().is_some() && self.via().is_none() {
            return Err(DestinationError::CredentialsAlone);
        }
        Ok(())
    }
}

impl Saying {
    fn parse(key: &'static str, value: &str) -> Result<Self, DestinationError> {
        let choice = Self::parse_choice(key, value).map_err(|error| match value.contains(':') {
            true => DestinationError::Colon(key),
            false => DestinationError::Value { key, error: Box::new(error) },
        })?;
        match (choice, key) {
            (Some(choice), _) => Ok(Self::Choice(choice)),
            (None, "via") => match Relay::parse(value.as_bytes()) {
                _ if value.contains('@') => Err(DestinationError::CredentialsInLine),
                Ok(relay) => Ok(Self::Via(relay)),
                Err(error) => Err(DestinationError::Via(error)),
            },
            (None, "credentials") if value.contains(':') => Err(DestinationError::CredentialsInLine),
            (None, "credentials") => values::path(value)
                .map(Self::Credentials)
                .map_err(|error| DestinationError::Value { key, error: Box::new(error) }),
            (None, "bind") if value.contains(':') && value.parse::<Ipv6Addr>().is_err() => {
                Err(DestinationError::Colon(key))
            }
            (None, "bind") => Ok(Self::Bind(value.into())),
            (None, _) if value == "no" => Ok(Self::NoChunking),
            (None, _) => Err(DestinationError::Chunking),
        }
    }

    /// Parses the value of a key that needs nothing of this host; `None` for the others.
    fn parse_choice(key: &str, value: &str) -> Result<Option<Choice>, ValueError> {
        let is_none = value == "none";
        let wrong = |words| ValueError::Word { text: value.into(), words };
        let choice = match key {
            "concurrency" => Choice::Concurrency(values::number(value, 1, values::CONCURRENCY_MAX)?),
            "host_concurrency" => {
                Choice::HostConcurrency(values::number(value, 1, values::HOST_CONCURRENCY_MAX)?)
            }
            "ratelimit" if is_none => Choice::RateLimit(None),
            "ratelimit" => match values::rate(value)? {
                None => return Err(ValueError::Rate(value.into())),
                limit => Choice::RateLimit(limit),
            },
            "recipients" => {
                let most = u32::try_from(TRANSACTION_RECIPIENT_LIMIT).unwrap_or(u32::MAX);
                Choice::Recipients(usize::try_from(values::number(value, 1, most)?).unwrap_or(1))
            }
            "messages" if is_none => Choice::Messages(None),
            "messages" => Choice::Messages(Some(values::number(value, 1, MESSAGES_MAX)?)),
            "idle" => {
                Choice::Idle(Duration::from_secs(values::seconds(value, 0, values::IDLE_MAX_S)?.into()))
            }
            "ports" => {
                Choice::Ports(value.split(',').map(values::port).collect::<Result<Vec<_>, _>>()?.into())
            }
            "via" if is_none => Choice::Via(None),
            "bind" if is_none => Choice::Bind(Default::default()),
            "family" => Choice::Family(family(value).ok_or_else(|| wrong("any, ipv4 or ipv6"))?),
            "padding" => {
                let limit = values::number(value, 0, values::PADDING_MAX.into())?;
                Choice::Padding(u16::try_from(limit).unwrap_or(values::PADDING_MAX))
            }
            "pipelining" => Choice::Pipelining(values::yes_no(value)?),
            _ => return Ok(None),
        };
        Ok(Some(choice))
    }
}

/// The names of the families.
const FAMILIES: [(Family, &str); 3] = [(Family::Any, "any"), (Family::Ipv4, "ipv4"), (Family::Ipv6, "ipv6")];

fn family(name: &str) -> Option<Family> {
    FAMILIES.iter().find(|(_, known)| *known == name).map(|(family, _)| *family)
}

impl fmt::Display for DestinationLine {
    /// Writes it in the form that [`parse`](Self::parse) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.destination.fmt(f)?;
        self.sayings.iter().try_for_each(|saying| write!(f, " {saying}"))
    }
}

impl fmt::Display for Saying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Choice(choice) => write!(f, "{} {}", key_of(choice), value_of(choice)),
            Self::Via(relay) => write!(f, "via {relay}"),
            Self::Credentials(path) => write!(f, "credentials {path}"),
            Self::Bind(host) => write!(f, "bind {host}"),
            Self::NoChunking => f.write_str("chunking no"),
        }
    }
}

/// Returns the key by which a line says this.
pub(crate) fn key_of(choice: &Choice) -> &'static str {
    match choice {
        Choice::Concurrency(_) => "concurrency",
        Choice::HostConcurrency(_) => "host_concurrency",
        Choice::RateLimit(_) => "ratelimit",
        Choice::Recipients(_) => "recipients",
        Choice::Messages(_) => "messages",
        Choice::Idle(_) => "idle",
        Choice::Ports(_) => "ports",
        Choice::Via(_) => "via",
        Choice::Bind(_) => "bind",
        Choice::Family(_) => "family",
        Choice::Padding(_) => "padding",
        Choice::Pipelining(_) => "pipelining",
        Choice::Tls(_) => "tls_policy",
    }
}

/// Returns a destination as lines of the directive write it that says this.
pub(crate) fn show_destination(choice: &Choice, destination: &DestinationPattern) -> String {
    if matches!(choice, Choice::Tls(_)) {
        super::tls_policy::show_destination(destination)
    } else {
        destination.to_string()
    }
}

/// Returns the value of a choice, as it stands on a line.
pub(crate) fn value_of(choice: &Choice) -> String {
    let none = || "none".to_owned();
    match choice {
        Choice::Concurrency(count) | Choice::HostConcurrency(count) => count.to_string(),
        Choice::RateLimit(limit) => limit.as_ref().map_or_else(none, values::show_rate),
        Choice::Recipients(count) => count.to_string(),
        Choice::Messages(limit) => limit.map_or_else(none, |count| count.to_string()),
        Choice::Idle(span) => Span(span.as_secs()).to_string(),
        Choice::Ports(ports) => ports.iter().map(values::show_port).collect::<Vec<_>>().join(","),
        Choice::Via(relay) => relay.as_ref().map_or_else(none, ToString::to_string),
        Choice::Bind(LocalAddresses { ipv4: None, ipv6: None }) => none(),
        Choice::Bind(LocalAddresses { ipv4, ipv6 }) => {
            let addresses = [ipv4.map(IpAddr::V4), ipv6.map(IpAddr::V6)];
            addresses.iter().flatten().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
        Choice::Family(family) => {
            FAMILIES.iter().find(|(known, _)| known == family).map_or("any", |(_, name)| name).to_owned()
        }
        Choice::Padding(limit) => limit.to_string(),
        Choice::Tls(policy) => super::tls_policy::show(policy),
        Choice::Pipelining(is_allowed) => if *is_allowed { "yes" } else { "no" }.to_owned(),
    }
}

/// Returns the error about a word that is no key. On a line about a relay it may be a password that stands at the wrong place.
fn unknown_key(word: &str, seen: &[&str]) -> DestinationError {
    if word.contains(':') {
        return DestinationError::CredentialsInLine;
    }
    let is_of_relay = seen.contains(&"via") || seen.contains(&"credentials");
    DestinationError::Key { word: (!is_of_relay).then(|| word.into()), meant: nearest(word, KEYS) }
}

/// Returns the text of a pattern, unless it may have a password.
fn tellable(pattern: &str) -> Option<Box<str>> {
    // These words before a colon are those of patterns.
    let rest = ["mx:", "remote:", "sender:"].iter().find_map(|word| pattern.strip_prefix(word));
    (!rest.unwrap_or(pattern).contains(':')).then(|| pattern.into())
}

/// Returns the beginning of an error about a word, which is told if it is there.
fn told(word: &Option<Box<str>>) -> String {
    match word {
        Some(word) => format!("\"{}\" ", shown::value(word)),
        None => "a word that is not repeated, since it may be a password, ".to_owned(),
    }
}

/// Returns the middle of an error about an unknown word.
fn did_you_mean(meant: Option<&str>) -> String {
    meant.map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
