//! The policy of a domain (RFC 8461 section 3.2).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;
use core::str;
use core::time::Duration;

use thiserror::Error;

use crate::address::Domain;
use crate::tls::NamePattern;

/// Largest policy in octets (RFC 8461 section 3.3).
pub const POLICY_LIMIT_OCTETS: usize = 64 * 1024;

/// Longest time that a policy holds in seconds, about a year (RFC 8461 section 3.2).
pub const MAX_AGE_LIMIT_SECONDS: u64 = 31_557_600;

/// Most digits of `max_age` (RFC 8461 section 3.2).
const MAX_AGE_LIMIT_DIGITS: usize = 10;

/// The policy of a domain: which hosts take its mail, and what is to become of mail that no such host can be proved to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StsPolicy {
    /// What is to become of mail.
    pub mode: Mode,
    /// How long the policy holds after it was fetched.
    pub max_age: Duration,
    /// The hosts. At least one unless the mode is [`Mode::None`].
    pub hosts: Arc<[NamePattern]>,
    /// How many values of `mx` name no host. They do not count.
    pub unreadable_hosts: usize,
}

/// What a policy wants of mail that cannot be delivered as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// It must not be delivered.
    Enforce,
    /// It may be delivered.
    Testing,
    /// Nothing: there is no policy any more.
    None,
}

/// Why octets are no policy.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PolicyTrouble {
    /// There are more than [`POLICY_LIMIT_OCTETS`].
    #[error("it is longer than {POLICY_LIMIT_OCTETS} octets")]
    TooLong,
    /// They are no text.
    #[error("it is not UTF-8 text")]
    NotUtf8,
    /// The version is missing, or another one.
    #[error("it has no line \"version: STSv1\"")]
    Version,
    /// The mode is missing, or unknown.
    #[error("its mode is missing or unknown")]
    Mode,
    /// `max_age` is missing, or no number of at most ten digits.
    #[error("its max_age is missing or no number of seconds")]
    MaxAge,
    /// It names no host, and its mode is not `none`.
    #[error("it names no mail host")]
    NoHost,
}

impl StsPolicy {
    /// Parses a policy as it was fetched. Lines end by LF or CRLF. Of a key that is there more than once, `mx` excepted, the first one
    /// counts. Unknown keys, and lines that have none, are ignored.
    pub fn parse(octets: &[u8]) -> Result<Self, PolicyTrouble> {
        if octets.len() > POLICY_LIMIT_OCTETS {
            return Err(PolicyTrouble::TooLong);
        }
        let text = str::from_utf8(octets).map_err(|_| PolicyTrouble::NotUtf8)?;
        let (mut version, mut mode, mut max_age) = (None, None, None);
        let (mut hosts, mut unreadable_hosts) = (Vec::new(), 0);
        for line in text.split('\n') {
            let Some((key, value)) = line.strip_suffix('\r').unwrap_or(line).split_once(':') else {
                continue;
            };
            let value = value.trim_matches([' ', '\t']);
            match key {
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => max_age = max_age.or(Some(value)),
                "mx" => match host(value) {
                    Some(host) => hosts.push(host),
                    None => unreadable_hosts += 1,
                },
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err(PolicyTrouble::Version);
        }
        let mode = mode.and_then(Mode::parse).ok_or(PolicyTrouble::Mode)?;
        let max_age = max_age.and_then(seconds).ok_or(PolicyTrouble::MaxAge)?;
        if hosts.is_empty() && mode != Mode::None {
            return Err(PolicyTrouble::NoHost);
        }
        Ok(Self { mode, max_age, hosts: hosts.into(), unreadable_hosts })
    }

    /// Returns whether a mail host, by its name in the MX record, is one of those of the policy (RFC 8461 section 4.1).
    pub fn permits(&self, host: &Domain) -> bool {
        self.hosts.iter().any(|pattern| pattern.accepts(host.as_str()))
    }
}

impl Mode {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "enforce" => Some(Self::Enforce),
            "testing" => Some(Self::Testing),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

impl fmt::Display for Mode {
    /// Writes the word of the policy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        })
    }
}

/// Returns whether a Content-Type is that of a policy (RFC 8461 section 3.2). Its parameters do not count.
pub fn is_plain_text(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim_matches([' ', '\t']).eq_ignore_ascii_case("text/plain")
}

/// Parses the name of a host, or `*.` before the name that it is below of. Addresses are no names.
fn host(text: &str) -> Option<NamePattern> {
    let (pattern, name): (fn(Domain) -> NamePattern, _) = match text.strip_prefix("*.") {
        Some(above) => (NamePattern::Below, above),
        None => (NamePattern::Exactly, text),
    };
    let name = Domain::parse(name).ok()?;
    name.as_str().parse::<Ipv4Addr>().is_err().then(|| pattern(name))
}

/// Parses a number of seconds. More than the longest time is that.
fn seconds(text: &str) -> Option<Duration> {
    let is_number =
        (1..=MAX_AGE_LIMIT_DIGITS).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
    let seconds: u64 = is_number.then(|| text.parse().ok())??;
    Some(Duration::from_secs(seconds.min(MAX_AGE_LIMIT_SECONDS)))
}

#[cfg(test)]
mod tests;
