//! The value of a `tls_policy` line: which destinations are meant, what is needed of TLS there, and options as `KEY=VALUE`.

use std::path::Path;
use std::sync::Arc;

use cmail_delivery::address::Domain;
use cmail_delivery::destination_pattern::{DestinationPattern, DestinationPatternError};
use cmail_delivery::io::{Groups, TlsVersion};
use cmail_delivery::policy::{Choice, PolicyLine};
use cmail_delivery::tls::{Client, Fallback, Identity, InsecureMx, Level, NamePattern, Pin, TlsPolicy};
use thiserror::Error;

use super::directive::Located;
use super::errors::Reason;
use super::{Completion, values};
use crate::shown;
use crate::suggestion::nearest;
use crate::tls;

/// The name of the directive.
pub(super) const DIRECTIVE: &str = "tls_policy";

/// The names of the levels.
const LEVELS: [&str; 9] = ["none", "may", "encrypt", "verify", "pin", "dane", "dane-only", "sts", "auto"];

/// The options, and the levels that use them.
const OPTIONS: [(&str, &[&str]); 9] = [
    ("min", &["encrypt", "verify", "pin", "dane", "dane-only", "sts", "auto"]),
    ("names", &["verify"]),
    ("sni", &["may", "encrypt", "verify", "pin"]),
    ("spki", &["pin"]),
    ("else", &["dane", "sts", "auto"]),
    ("insecure_mx", &["dane", "auto"]),
    ("cert", &["may", "encrypt", "verify", "pin", "dane", "dane-only", "sts", "auto"]),
    ("key", &["may", "encrypt", "verify", "pin", "dane", "dane-only", "sts", "auto"]),
    ("groups", &["may", "encrypt", "verify", "pin", "dane", "dane-only", "sts", "auto"]),
];

/// A line as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TlsPolicyLine {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) destination: DestinationPattern,
    pub(super) policy: TlsPolicy,
}

/// Why a `tls_policy` line cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TlsPolicyError {
    /// It does not say which destinations are meant.
    #[error("\"{}\" does not say which destinations are meant: {reason}; a relay may be written as \"relay:HOST\" too", shown::value(.text))]
    Pattern {
        /// The text.
        text: Box<str>,
        /// Why.
        reason: DestinationPatternError,
    },
    /// No level follows.
    #[error("it must go on with what is needed of TLS: {}", LEVELS.join(", "))]
    NoLevel,
    /// A word that is no level.
    #[error(
        "\"{}\" is no level{}: it must be one of {}", shown::value(.word), did_you_mean(*.meant), LEVELS.join(", ")
    )]
    Level {
        /// The word.
        word: Box<str>,
        /// A level with a similar name.
        meant: Option<&'static str>,
    },
    /// A word that is no option.
    #[error("\"{}\" is no option{}: it must be KEY=VALUE with one of {}", shown::value(.word), did_you_mean(*.meant), option_names())]
    Option {
        /// The word.
        word: Box<str>,
        /// An option with a similar name.
        meant: Option<&'static str>,
    },
    /// An option that the level does not use.
    #[error("{option}: the level {level} does not use it")]
    Unused {
        /// The option.
        option: &'static str,
        /// The level.
        level: &'static str,
    },
    /// An option that is there twice.
    #[error("{0}: it is given twice on this line")]
    Twice(&'static str),
    /// A value that cannot be used.
    #[error("{option}: it must be {shape}, not \"{}\"", shown::value(.text))]
    Value {
        /// The option.
        option: &'static str,
        /// What it must be.
        shape: &'static str,
        /// What it is.
        text: Box<str>,
    },
    /// No key is named.
    #[error("the level pin needs at least one spki=SHA256, the digest of the public key of the server")]
    NoPin,
    /// A certificate without its key, or a key without its certificate.
    #[error("cert and key must both be given")]
    Half,
    /// Where mail goes to a host is too late for it.
    #[error("{0} cannot be meant: what is needed of TLS is said of a domain, an address or a relay")]
    AtHost(DestinationPattern),
    /// Relays have no policies.
    #[error("{0} cannot be meant for a relay, whose name has no MTA-STS policy: dane or verify can")]
    NotForRelays(&'static str),
    /// Two lines about the same destinations.
    #[error("line {0} is about the same destinations")]
    Repeated(usize),
}

impl TlsPolicyLine {
    /// Parses the value of a line, after these.
    pub(super) fn parse(text: &str, line: usize, earlier: &[Self]) -> Result<Self, TlsPolicyError> {
        let mut words = values::words(text);
        let pattern = words.next().unwrap_or_default();
        let destination = parse_destination(pattern)
            .map_err(|reason| TlsPolicyError::Pattern { text: pattern.into(), reason })?;
        if matches!(destination, DestinationPattern::Mx(_)) {
            return Err(TlsPolicyError::AtHost(destination));
        }
        if let Some(earlier) = earlier.iter().find(|earlier| earlier.destination == destination) {
            return Err(TlsPolicyError::Repeated(earlier.line));
        }
        let word = words.next().ok_or(TlsPolicyError::NoLevel)?;
        let Some(&level) = LEVELS.iter().find(|level| **level == word) else {
            return Err(TlsPolicyError::Level { word: word.into(), meant: nearest(word, LEVELS) });
        };
        if matches!(destination, DestinationPattern::Remote(_)) && matches!(level, "sts" | "auto") {
            return Err(TlsPolicyError::NotForRelays(level));
        }
        let mut options = Options::default();
        for word in words {
            options.add(level, word)?;
        }
        Ok(Self { line, destination, policy: options.policy(level)? })
    }
}

/// The options of a line.
#[derive(Debug, Default)]
struct Options {
    seen: Vec<&'static str>,
    least: Option<TlsVersion>,
    names: Vec<NamePattern>,
    sni: Option<Domain>,
    pins: Vec<Pin>,
    otherwise: Fallback,
    insecure_mx: InsecureMx,
    certificate: Option<Box<str>>,
    key: Option<Box<str>>,
    groups: Groups,
}

impl Options {
    fn add(&mut self, level: &'static str, word: &str) -> Result<(), TlsPolicyError> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let Some(&(option, users)) = OPTIONS.iter().find(|(option, _)| *option == name) else {
            let meant = nearest(name, OPTIONS.map(|(option, _)| option));
            return Err(TlsPolicyError::Option { word: word.into(), meant });
        };
        if !users.contains(&level) {
            return Err(TlsPolicyError::Unused { option, level });
        }
        // Several keys may be good: the one in use, and the next one.
        if self.seen.contains(&option) && option != "spki" {
            return Err(TlsPolicyError::Twice(option));
        }
        self.seen.push(option);
        let wrong = |shape| TlsPolicyError::Value { option, shape, text: value.into() };
        match option {
            "min" => {
                self.least = Some(match value {
                    "1.2" => TlsVersion::V1_2,
                    "1.3" => TlsVersion::V1_3,
                    _ => return Err(wrong("1.2 or 1.3")),
                });
            }
            "names" => {
                let names: Option<Vec<_>> = value.split(':').map(NamePattern::parse).collect();
                self.names = names
                    .ok_or_else(|| wrong("names with colons between them, as in a.example:.b.example"))?;
            }
            "sni" => self.sni = Some(Domain::parse(value).map_err(|_| wrong("the name of a host"))?),
            "spki" => {
                let shape = "the SHA-256 of a public key, as 64 hexadecimal digits";
                self.pins.push(Pin::parse(value).ok_or_else(|| wrong(shape))?);
            }
            "else" => {
                self.otherwise = match value {
                    "may" => Fallback::May,
                    "encrypt" => Fallback::Encrypt,
                    _ => return Err(wrong("may or encrypt")),
                };
            }
            "insecure_mx" => {
                self.insecure_mx = match value {
                    "dane" => InsecureMx::Dane,
                    "encrypt" => InsecureMx::Encrypt,
                    "may" => InsecureMx::May,
                    _ => return Err(wrong("dane, encrypt or may")),
                };
            }
            "cert" | "key" => {
                let path = values::path(value).map_err(|_| wrong("the path of a file"))?;
                let place = if option == "cert" { &mut self.certificate } else { &mut self.key };
                *place = Some(path);
            }
            _ => {
                self.groups = match value {
                    "classic" => Groups::Classic,
                    "all" => Groups::All,
                    _ => return Err(wrong("classic or all")),
                };
            }
        }
        Ok(())
    }

    fn policy(self, level: &'static str) -> Result<TlsPolicy, TlsPolicyError> {
        let Self { least, names, sni, pins, otherwise, insecure_mx, certificate, key, groups, .. } = self;
        let level = match level {
            "none" => Level::None,
            "may" => Level::May,
            "encrypt" => Level::Encrypt,
            "verify" => Level::Verify(names.into()),
            "pin" if pins.is_empty() => return Err(TlsPolicyError::NoPin),
            "pin" => Level::Pin(pins.into()),
            "dane" => Level::Dane { otherwise, insecure_mx },
            "sts" => Level::Sts(otherwise),
            "auto" => Level::Auto { otherwise, insecure_mx },
            _ => Level::DaneOnly,
        };
        let client = match (certificate, key) {
            (None, None) => Client::Nobody,
            (Some(certificate), Some(key)) => Client::ToAll(Arc::new(Identity { certificate, key })),
            _ => return Err(TlsPolicyError::Half),
        };
        Ok(TlsPolicy { level, least: least.unwrap_or(TlsVersion::V1_2), sni, groups, client })
    }
}

impl Completion<'_> {
    /// Returns whether any line goes by TLSA records.
    pub(super) fn wants_dane(lines: &[TlsPolicyLine]) -> bool {
        lines.iter().any(|line| line.policy.level.dane().is_some())
    }

    /// Returns the lines as the core has them. Relays of which a line says nothing else see this client.
    pub(super) fn tls_policies(&mut self, lines: &[TlsPolicyLine], usual: &Client) -> Vec<PolicyLine> {
        let completed = lines.iter().map(|line| {
            let mut policy = line.policy.clone();
            let own = line.policy.client.identity();
            policy.client = match own.map(|identity| self.client(line.line, DIRECTIVE, identity)) {
                Some(Some(identity)) => Client::ToAll(identity),
                Some(None) => Client::Nobody,
                None => usual.clone(),
            };
            PolicyLine {
                destination: line.destination.clone(),
                choices: vec![Choice::Tls(Arc::new(policy))],
                line: u32::try_from(line.line).unwrap_or(u32::MAX),
            }
        });
        completed.collect()
    }

    /// Returns who this client says that it is to relays.
    pub(super) fn relay_client(
        &mut self,
        certificate: &Option<Located<Box<str>>>,
        key: &Option<Located<Box<str>>>,
    ) -> Client {
        let identity = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let identity = Identity { certificate: certificate.value.clone(), key: key.value.clone() };
                self.client(certificate.line, "tls_client_cert", &identity)
            }
            (Some(half), None) => {
                self.fail(Some(half.line), "tls_client_cert", Reason::HalfClient("tls_client_key"));
                None
            }
            (None, Some(half)) => {
                self.fail(Some(half.line), "tls_client_key", Reason::HalfClient("tls_client_cert"));
                None
            }
        };
        identity.map_or(Client::Nobody, Client::ToRelays)
    }

    /// Returns an identity by absolute paths, since the daemon leaves its working directory.
    fn client(&mut self, line: usize, directive: &str, identity: &Identity) -> Option<Arc<Identity>> {
        let mut absolute = |path: &str| match self.environment.absolute(Path::new(path)) {
            Ok(path) => Some(path.to_string_lossy().into()),
            Err(error) => {
                self.fail(Some(line), directive, Reason::WorkingDirectory { path: path.into(), error });
                None
            }
        };
        let (certificate, key) = (absolute(&identity.certificate)?, absolute(&identity.key)?);
        let identity = Identity { certificate, key };
        if let Err(error) = tls::check_identity(&identity) {
            self.fail(Some(line), directive, Reason::Client(error));
        }
        Some(Arc::new(identity))
    }
}

/// Returns a policy as it stands on a line, behind the destination.
pub(super) fn show(policy: &TlsPolicy) -> String {
    let TlsPolicy { level, least, sni, groups, client } = policy;
    let mut words = vec![
        match level {
            Level::None => "none",
            Level::May => "may",
            Level::Encrypt => "encrypt",
            Level::Verify(_) => "verify",
            Level::Pin(_) => "pin",
            Level::Dane { .. } => "dane",
            Level::DaneOnly => "dane-only",
            Level::Sts(_) => "sts",
            Level::Auto { .. } => "auto",
        }
        .to_owned(),
    ];
    match level {
        Level::Verify(names) if !names.is_empty() => {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            words.push(format!("names={}", names.join(":")));
        }
        Level::Pin(pins) => words.extend(pins.iter().map(|pin| format!("spki={pin}"))),
        Level::Sts(otherwise) => words.push(show_fallback(*otherwise)),
        Level::Dane { otherwise, insecure_mx } | Level::Auto { otherwise, insecure_mx } => {
            let insecure_mx = match insecure_mx {
                InsecureMx::Dane => "dane",
                InsecureMx::Encrypt => "encrypt",
                InsecureMx::May => "may",
            };
            words.extend([show_fallback(*otherwise), format!("insecure_mx={insecure_mx}")]);
        }
        Level::None | Level::May | Level::Encrypt | Level::Verify(_) | Level::DaneOnly => {}
    }
    if *least == TlsVersion::V1_3 {
        words.push("min=1.3".to_owned());
    }
    words.extend(sni.as_ref().map(|name| format!("sni={name}")));
    if *groups == Groups::Classic {
        words.push("groups=classic".to_owned());
    }
    if let Client::ToAll(identity) = client {
        words.extend([format!("cert={}", identity.certificate), format!("key={}", identity.key)]);
    }
    words.join(" ")
}

fn show_fallback(otherwise: Fallback) -> String {
    let word = match otherwise {
        Fallback::May => "may",
        Fallback::Encrypt => "encrypt",
    };
    format!("else={word}")
}

/// Returns the line as it stands in the file.
pub(super) fn show_line(line: &TlsPolicyLine) -> String {
    format!("{} {}", show_destination(&line.destination), show(&line.policy))
}

/// Reads a destination as these lines write it, or as `destination` lines do.
fn parse_destination(text: &str) -> Result<DestinationPattern, DestinationPatternError> {
    match text.strip_prefix("relay:") {
        Some(host) => DestinationPattern::parse(&format!("remote:{host}")),
        None => DestinationPattern::parse(text),
    }
}

/// Returns a destination as these lines write it: a relay as `relay:HOST`.
pub(super) fn show_destination(destination: &DestinationPattern) -> String {
    match destination {
        DestinationPattern::Remote(host) => format!("relay:{host}"),
        DestinationPattern::All
        | DestinationPattern::To(_)
        | DestinationPattern::Literal(_)
        | DestinationPattern::Mx(_) => destination.to_string(),
    }
}

fn option_names() -> String {
    OPTIONS.map(|(option, _)| option).join(", ")
}

/// Returns the middle of an error about an unknown word.
fn did_you_mean(meant: Option<&str>) -> String {
    meant.map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
