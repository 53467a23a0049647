//! Parses the values of directives.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use cmail_delivery::address::{AddressError, MailDomain, Mailbox};
use cmail_delivery::course::Transcripts;
use cmail_delivery::failure_pattern::{FailurePattern, FailurePatternError};
use cmail_delivery::flight::Uncertain;
use cmail_delivery::hold::HoldLine;
use cmail_delivery::mail_pattern::{MailPattern, MailPatternError};
use cmail_delivery::next_hop::{Port, TlsMode};
use cmail_delivery::one_line::OneLine;
use cmail_delivery::policy::RateLimit;
use cmail_delivery::retry_rule::{RetryRule, Waits};
use cmail_delivery::time::{Duration, Span};
use cmail_delivery::watch::{WatchedDestination, WatchedDestinationError};
use thiserror::Error;

use super::destination::DestinationError;
use super::tls_policy::TlsPolicyError;
use crate::control::ControlPlace;
use crate::logging::LogFormat;
use crate::monitor::MetricsAddress;
use crate::overview::{CountedDestination, OTHERS};
use crate::resolv_conf::DNS_PORT;
use crate::resolv_conf::Dnssec;
use crate::shown;
use crate::store::{Addresses, Entries, Retention, SUBMISSION_LIMIT_OCTETS};

/// Most connections at once that can be set, in total or for one destination.
pub(super) const CONCURRENCY_MAX: u32 = 1_000_000;

/// Most connections at once to one host that can be set: twice as many, as its default is twice that of a destination.
pub(super) const HOST_CONCURRENCY_MAX: u32 = 2_000_000;

/// The longest time for which an idle connection can be kept, in seconds.
pub(super) const IDLE_MAX_S: u32 = 3600;

/// Most commands of padding that can be set: about as much as a server bears in one connection.
pub(super) const PADDING_MAX: u16 = 1000;

/// Most transactions per second, minute or hour that `ratelimit` accepts.
pub(super) const RATE_LIMIT_MAX: u32 = 1_000_000;

/// Why the value of a directive cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ValueError {
    /// Anything but decimal digits.
    #[error("\"{}\" is not a decimal number", shown::value(.0))]
    NotANumber(Box<str>),
    /// A number that is too small or too large.
    #[error("{} is out of range: it must be from {min} to {max}", shown::value(.text))]
    OutOfRange {
        /// The number as it was written.
        text: Box<str>,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// Neither a number of seconds nor a number with a unit.
    #[error("\"{}\" is not a span of time: it must be a number of seconds, or a number followed by s, m, h or d", shown::value(.0))]
    Span(Box<str>),
    /// Not a domain, a selector and a path.
    #[error("\"{}\" is no key to sign with: it must be DOMAIN SELECTOR PATH", shown::value(.0))]
    DkimKey(Box<str>),
    /// Two keys cannot be published under one name.
    #[error(
        "line {line} has another key for the same domain and selector; give each key a selector of its own"
    )]
    DkimKeyTwice {
        /// The line that has it.
        line: usize,
    },
    /// Neither of the two words.
    #[error("\"{}\" does not say which mail is signed: it must be marked or from", shown::value(.0))]
    DkimSign(Box<str>),
    /// A path that no system call accepts.
    #[error("the path contains a NUL character")]
    NulInPath,
    /// Neither a domain nor an address literal.
    #[error("\"{}\" cannot be announced: it must be a domain name or an address literal", shown::value(.0))]
    Announce(Box<str>),
    /// No mail address.
    #[error("\"{}\" is not a mail address: {}", shown::value(.text), .reason)]
    Address {
        /// The text.
        text: Box<str>,
        /// Why.
        reason: AddressError,
    },
    /// A port entry without a valid number.
    #[error("\"{}\" is not a port: it must be a number from 1 to 65535, with \"@tls\", \"@starttls\" or nothing after it", shown::value(.0))]
    Port(Box<str>),
    /// A port entry with an unknown suffix.
    #[error("\"{}\" has an unknown suffix: it must be \"@tls\", \"@starttls\" or nothing", shown::value(.0))]
    PortSuffix(Box<str>),
    /// No rate.
    #[error("\"{}\" is not a rate: it must be a number from 1 to {max} followed by \"/s\", \"/min\" or \"/h\"", shown::value(.0), max = RATE_LIMIT_MAX)]
    Rate(Box<str>),
    /// No address of a DNS server.
    #[error("\"{}\" is not the address of a DNS server: it must be like 192.0.2.1, 192.0.2.1:53, 2001:db8::1 or [2001:db8::1]:53", shown::value(.0))]
    Resolver(Box<str>),
    /// Nothing that clients could connect to.
    #[error("\"{}\" is nothing to listen at: it must be an address and port like 127.0.0.1:9125 or [::1]:9125, the path of a socket, which has a slash, or off", shown::value(.0))]
    Metrics(Box<str>),
    /// No path of a socket.
    #[error("\"{}\" is no path of a socket: it must have a slash, or be off", shown::value(.0))]
    Socket(Box<str>),
    /// None of a few words.
    #[error("\"{}\" is not known here: it must be {words}", shown::value(.text))]
    Word {
        /// The text.
        text: Box<str>,
        /// The words, as in "a, b or c".
        words: &'static str,
    },
    /// No age and number.
    #[error("\"{}\" is not an age and a number: it must be like \"7d 500000\"", shown::value(.0))]
    Retention(Box<str>),
    /// Not the parts of a retry rule.
    #[error("a retry rule is MAIL FAILURE WAIT … until AGE, as in \"* * 15m 1h 4h until 5d\"")]
    RetryRule,
    /// Not the mail that a rule can be about.
    #[error("\"{}\" does not say which mail is meant: {reason}", shown::value(.text))]
    MailPattern {
        /// The text.
        text: Box<str>,
        /// Why.
        reason: MailPatternError,
    },
    /// Not the parts of a line that holds mail.
    #[error(
        "a hold line is MAIL REASON, as in \"example.org moved house, ask first\": say why in the rest of the line"
    )]
    HoldLine,
    /// Not the failures that a rule can be about.
    #[error("\"{}\" does not say which failures are meant: {reason}", shown::value(.text))]
    FailurePattern {
        /// The text.
        text: Box<str>,
        /// Why.
        reason: FailurePatternError,
    },
    /// Not what can be said of destinations.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// A `tls_policy` line.
    #[error(transparent)]
    TlsPolicy(#[from] TlsPolicyError),
    /// Not a destination that can be counted.
    #[error("this is no destination: {0}")]
    NoDestination(WatchedDestinationError),
    /// Neither yes nor no.
    #[error("\"{}\" is neither \"yes\" nor \"no\"", shown::value(.0))]
    YesNo(Box<str>),
}

/// The most octets of a message that is handed over: as many as any submission may write at once.
pub(super) const SUBMIT_SIZE_MAX_OCTETS: u32 = SUBMISSION_LIMIT_OCTETS as u32;

/// Returns whether a character separates words, as `isspace` of C does in the C locale.
pub(super) fn is_white_space(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}

/// The words of a value.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_white_space).filter(|word| !word.is_empty())
}

/// A decimal number from `min` to `max`, without a sign.
pub(super) fn number(text: &str, min: u32, max: u32) -> Result<u32, ValueError> {
    if text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(ValueError::NotANumber(text.into()));
    }
    // Digits that do not parse are a number beyond any range.
    let in_range = text.parse().ok().filter(|number| (min..=max).contains(number));
    in_range.ok_or_else(|| ValueError::OutOfRange { text: text.into(), min, max })
}

/// The units of a span of time, and their seconds.
const SPAN_UNITS: [(char, u32); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];

/// A number of seconds from `min` to `max`, or one of the units: `90s`, `15m`, `1h`, `5d`.
pub(crate) fn seconds(text: &str, min: u32, max: u32) -> Result<u32, ValueError> {
    let unit = SPAN_UNITS.iter().find_map(|&(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let (digits, unit_s) = unit.unwrap_or((text, 1));
    if digits.is_empty() || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(ValueError::Span(text.into()));
    }
    // Digits that do not parse are a number beyond any range.
    let seconds = digits.parse::<u32>().ok().and_then(|count| count.checked_mul(unit_s));
    let in_range = seconds.filter(|seconds| (min..=max).contains(seconds));
    in_range.ok_or_else(|| ValueError::OutOfRange { text: text.into(), min, max })
}

/// The longest time of a retry rule: a year.
const RETRY_MAX_S: u32 = 365 * 86_400;

/// An age at which a sender is told that mail is late.
pub(super) fn warning_age(text: &str) -> Result<Duration, ValueError> {
    Ok(Duration::from_secs(seconds(text, 1, RETRY_MAX_S)?.into()))
}

/// A mail, a failure, waiting times, and the age at which mail is given up: `* * 15m 1h 4h until 5d`.
pub(super) fn retry_rule(text: &str, line: u32) -> Result<RetryRule, ValueError> {
    let words: Vec<&str> = words(text).collect();
    let [mail, failure, waits @ .., "until", until] = &*words else { return Err(ValueError::RetryRule) };
    let mail = MailPattern::parse(mail)
        .map_err(|reason| ValueError::MailPattern { text: (*mail).into(), reason })?;
    let failure = FailurePattern::parse(failure)
        .map_err(|reason| ValueError::FailurePattern { text: (*failure).into(), reason })?;
    let waits = waits.iter().map(|wait| seconds(wait, 1, RETRY_MAX_S)).collect::<Result<Vec<_>, _>>()?;
    let waits = Waits::new(&waits).ok_or(ValueError::RetryRule)?;
    let until = Duration::from_secs(seconds(until, 1, RETRY_MAX_S)?.into());
    Ok(RetryRule { mail, failure, waits, until, line })
}

/// Mail, and the rest of the line as the reason.
pub(super) fn hold_line(text: &str, line: u32) -> Result<HoldLine, ValueError> {
    let mut words = words(text);
    let mail = words.next().ok_or(ValueError::HoldLine)?;
    let mail =
        MailPattern::parse(mail).map_err(|reason| ValueError::MailPattern { text: mail.into(), reason })?;
    let reason = words.collect::<Vec<_>>().join(" ");
    if reason.is_empty() {
        return Err(ValueError::HoldLine);
    }
    Ok(HoldLine { mail, reason: OneLine(&reason).to_string().into(), line })
}

/// `all`, `failures` or `off`.
pub(super) fn ledger_entries(text: &str) -> Result<Entries, ValueError> {
    match text {
        "all" => Ok(Entries::All),
        "failures" => Ok(Entries::Failures),
        "off" => Ok(Entries::Off),
        _ => Err(ValueError::Word { text: text.into(), words: "all, failures or off" }),
    }
}

/// `full`, `domain` or `none`.
pub(super) fn ledger_addresses(text: &str) -> Result<Addresses, ValueError> {
    match text {
        "full" => Ok(Addresses::Full),
        "domain" => Ok(Addresses::Domain),
        "none" => Ok(Addresses::None),
        _ => Err(ValueError::Word { text: text.into(), words: "full, domain or none" }),
    }
}

/// `failed`, `all` or `none`.
pub(super) fn transcripts(text: &str) -> Result<Transcripts, ValueError> {
    match text {
        "failed" => Ok(Transcripts::OfFailures),
        "all" => Ok(Transcripts::Always),
        "none" => Ok(Transcripts::Never),
        _ => Err(ValueError::Word { text: text.into(), words: "failed, all or none" }),
    }
}

/// `auto`, `trust` or `off`.
pub(super) fn dnssec(text: &str) -> Result<Dnssec, ValueError> {
    let known = [Dnssec::Auto, Dnssec::Trust, Dnssec::Off];
    let found = known.into_iter().find(|dnssec| show_dnssec(*dnssec) == text);
    found.ok_or_else(|| ValueError::Word { text: text.into(), words: "auto, trust or off" })
}

pub(super) const fn show_dnssec(dnssec: Dnssec) -> &'static str {
    match dnssec {
        Dnssec::Auto => "auto",
        Dnssec::Trust => "trust",
        Dnssec::Off => "off",
    }
}

/// `retry`, `hold` or `off`.
pub(super) fn uncertain(text: &str) -> Result<Uncertain, ValueError> {
    let known = [Uncertain::Retry, Uncertain::Hold, Uncertain::Off];
    let found = known.into_iter().find(|uncertain| show_uncertain(*uncertain) == text);
    found.ok_or_else(|| ValueError::Word { text: text.into(), words: "retry, hold or off" })
}

pub(super) const fn show_uncertain(uncertain: Uncertain) -> &'static str {
    match uncertain {
        Uncertain::Retry => "retry",
        Uncertain::Hold => "hold",
        Uncertain::Off => "off",
    }
}

/// The longest age that `ledger_keep` accepts: ten years.
const RETENTION_MAX_S: u32 = 3650 * 86_400;

/// The largest number that `ledger_keep` accepts.
const RETENTION_MAX_ROWS: u32 = 1_000_000_000;

/// An age and a number, like `7d 500000`.
pub(super) fn retention(text: &str) -> Result<Retention, ValueError> {
    let mut words = words(text);
    let (Some(age), Some(rows), None) = (words.next(), words.next(), words.next()) else {
        return Err(ValueError::Retention(text.into()));
    };
    let age = Duration::from_secs(seconds(age, 60, RETENTION_MAX_S)?.into());
    Ok(Retention { age, rows: number(rows, 1, RETENTION_MAX_ROWS)? })
}

/// Shows a [`retention`].
pub(super) fn show_retention(retention: Retention) -> String {
    format!("{} {}", Span(retention.age.as_secs()), retention.rows)
}

/// An address and port, the path of a socket, or `off`.
pub(super) fn metrics(text: &str) -> Result<Option<MetricsAddress>, ValueError> {
    if text == "off" {
        return Ok(None);
    }
    if let Ok(address) = text.parse::<SocketAddr>()
        && address.port() != 0
    {
        return Ok(Some(MetricsAddress::Tcp(address)));
    }
    if text.contains('/') {
        return Ok(Some(MetricsAddress::Unix(path(text)?.into_string().into())));
    }
    Err(ValueError::Metrics(text.into()))
}

/// A destination that is counted by itself.
pub(super) fn counted_destination(text: &str) -> Result<CountedDestination, ValueError> {
    // It may hold a password, which is not repeated.
    let destination = WatchedDestination::parse(text).map_err(ValueError::NoDestination)?;
    if text == OTHERS {
        return Err(ValueError::Word {
            text: text.into(),
            words: "another name: all destinations without one are called so",
        });
    }
    Ok(CountedDestination { name: text.into(), destination })
}

/// The path of a socket, or `off`.
pub(super) fn control(text: &str) -> Result<ControlPlace, ValueError> {
    Ok(socket(text)?.map_or(ControlPlace::Off, |path| ControlPlace::At(path.into_string().into())))
}

/// The path of a socket; nothing for `off`.
pub(super) fn socket(text: &str) -> Result<Option<Box<str>>, ValueError> {
    match text {
        "off" => Ok(None),
        path if path.contains('/') => self::path(path).map(Some),
        other => Err(ValueError::Socket(other.into())),
    }
}

/// The name of a format.
pub(super) fn log_format(text: &str) -> Result<LogFormat, ValueError> {
    let found = LogFormat::ALL.into_iter().find(|format| format.to_string() == text);
    found.ok_or_else(|| ValueError::Word { text: text.into(), words: "text, logfmt, json or journal" })
}

/// A path, not yet looked at.
pub(super) fn path(text: &str) -> Result<Box<str>, ValueError> {
    if text.contains('\0') { Err(ValueError::NulInPath) } else { Ok(text.into()) }
}

/// The argument of EHLO: a domain or an address literal (RFC 5321 section 4.1.1.1), without a trailing dot. Its case is
/// kept, U-labels become A-labels (RFC 5890).
pub(super) fn announce(text: &str) -> Result<Box<str>, ValueError> {
    let invalid = |_| ValueError::Announce(text.into());
    match MailDomain::parse(text).map_err(invalid)? {
        MailDomain::Name(name) if !text.is_ascii() => Ok(name.as_str().into()),
        MailDomain::Name(_) => Ok(text.strip_suffix('.').unwrap_or(text).into()),
        MailDomain::Literal(_) => Ok(text.into()),
    }
}

/// The warning about a name without a dot.
pub(super) const WITHOUT_DOT: &str =
    "has no dot, so many servers will refuse it; announce the full name of this host";

/// Returns whether an announced name cannot be the full name of a host.
pub(super) fn lacks_dot(announce: &str) -> bool {
    !announce.contains('.') && !announce.starts_with('[')
}

/// Parses a mail address without angle brackets. Any other text gets a warning only, because the C program accepted it.
pub(super) fn address(text: &str) -> Result<(Box<str>, Option<String>), ValueError> {
    let parsed = Mailbox::parse(text.as_bytes());
    let reason = match &parsed {
        Ok(mailbox) => mailbox.domain().err(),
        Err(reason) => Some(reason.clone()),
    };
    let text = parsed.as_ref().map_or(text, Mailbox::as_str);
    let wrong = reason.map(|reason| ValueError::Address { text: text.into(), reason });
    match wrong {
        Some(wrong) if text.contains(char::is_control) => Err(wrong),
        wrong => Ok((text.into(), wrong.map(|wrong| format!("{wrong}; it is used unchanged")))),
    }
}

/// `PORT`, `PORT@tls` or `PORT@starttls`.
pub(super) fn port(text: &str) -> Result<Port, ValueError> {
    let (port, suffix) = match text.split_once('@') {
        None => (text, None),
        Some((port, suffix)) => (port, Some(suffix)),
    };
    let invalid = |_| ValueError::Port(text.into());
    let port = number(port, 1, u16::MAX.into()).map_err(invalid)?;
    let tls = match suffix {
        None => TlsMode::Plain,
        Some(suffix) => TlsMode::parse(suffix).ok_or_else(|| ValueError::PortSuffix(text.into()))?,
    };
    Ok(Port { number: u16::try_from(port).map_err(|_| ValueError::Port(text.into()))?, tls })
}

/// Writes a port in the form that [`port`] reads.
pub(crate) fn show_port(port: &Port) -> String {
    let suffix = match port.tls {
        TlsMode::Plain => "",
        TlsMode::StartTls => "@starttls",
        TlsMode::Implicit => "@tls",
    };
    format!("{}{suffix}", port.number)
}

/// The units of a rate.
const RATE_UNITS: [(&str, Duration); 3] =
    [("s", Duration::from_secs(1)), ("min", Duration::from_secs(60)), ("h", Duration::from_secs(3600))];

/// `N/s`, `N/min` or `N/h`; nothing for a plain number, which the C program accepted and ignored.
pub(super) fn rate(text: &str) -> Result<Option<RateLimit>, ValueError> {
    let invalid = || ValueError::Rate(text.into());
    let Some((count, unit)) = text.split_once('/') else {
        return if text.bytes().all(|octet| octet.is_ascii_digit()) { Ok(None) } else { Err(invalid()) };
    };
    let transactions = number(count, 1, RATE_LIMIT_MAX).map_err(|_| invalid())?;
    let per = RATE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, per)| *per).ok_or_else(invalid)?;
    Ok(Some(RateLimit { transactions, per }))
}

/// Writes a rate in the form that [`rate`] reads.
pub(super) fn show_rate(rate: &RateLimit) -> String {
    let unit = RATE_UNITS.iter().find(|(_, per)| *per == rate.per).map_or("s", |(name, _)| name);
    format!("{}/{unit}", rate.transactions)
}

/// The address of a DNS server, with or without a port.
pub(super) fn resolver(text: &str) -> Result<SocketAddr, ValueError> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let without_port = text.parse::<IpAddr>().ok().or_else(bracketed).map(|ip| SocketAddr::new(ip, DNS_PORT));
    let server = without_port.or_else(|| text.parse().ok()).filter(|server| server.port() != 0);
    server.ok_or_else(|| ValueError::Resolver(text.into()))
}

/// `yes` or `no`.
pub(super) fn yes_no(text: &str) -> Result<bool, ValueError> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(ValueError::YesNo(text.into())),
    }
}

#[cfg(test)]
mod tests;
