//! What an executor is told when it begins TLS: whom to expect, what to offer, and what to hold the certificate against.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use sha2::{Digest as _, Sha256};

use super::TlsVersion;
use super::certificate::Certificate;
use super::tlsa::Tlsa;
use crate::address::Domain;
use crate::next_hop::Host;

/// The terms on which a TLS session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsTerms {
    /// The name or address of the server. A name is sent as SNI, an address is not.
    pub server: Host,
    /// The names of which the certificate must have one; none for the name or address of the server.
    pub names: Arc<[NamePattern]>,
    /// The earliest version to offer.
    pub least: TlsVersion,
    /// The TLSA records to hold the certificate against, as far as they are [usable](super::tlsa::usable); none for no DANE.
    pub tlsa: Arc<[Tlsa]>,
    /// The names of which a certificate must have one that a record of usage 2 vouches for. The common name counts if it has no other.
    pub tlsa_names: Arc<[Domain]>,
    /// The keys that the certificate may have; none for no pins.
    pub pins: Arc<[Pin]>,
    /// Who this client says that it is, if the server asks; `None` for nobody.
    pub identity: Option<Arc<Identity>>,
    /// The authorities that are trusted.
    pub roots: Roots,
    /// True if a proof is needed. Then the server must show the certificate anew and prove that it has its key: no earlier session is
    /// resumed, and a signature that cannot be verified ends the handshake.
    pub needs_proof: bool,
}

/// The authorities that are trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// Those of the trust file; without one, those of the system.
    #[default]
    Relay,
    /// Those of the system, and those of the trust file.
    Public,
}

/// Who a client says that it is: a certificate and its key, by the paths of their files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The file of the certificate, and of those that vouch for it.
    pub certificate: Box<str>,
    /// The file of its key.
    pub key: Box<str>,
}

/// A name that a certificate may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamePattern {
    /// `mx.example.org`: this name.
    Exactly(Domain),
    /// `.example.org`: a name with one label more.
    Below(Domain),
}

/// The SHA-256 of a SubjectPublicKeyInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin(pub [u8; 32]);

impl TlsTerms {
    /// Returns the terms on which nothing is asked of the server.
    pub fn opportunistic(server: Host) -> Self {
        Self {
            server,
            names: Arc::default(),
            least: TlsVersion::V1_2,
            tlsa: Arc::default(),
            tlsa_names: Arc::default(),
            pins: Arc::default(),
            identity: None,
            roots: Roots::default(),
            needs_proof: false,
        }
    }
}

impl NamePattern {
    /// Parses a name, or a name with a dot before it.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('.') {
            Some(above) => Domain::parse(above).ok().map(Self::Below),
            None => Domain::parse(text).ok().map(Self::Exactly),
        }
    }

    /// Returns whether a certificate that has this name in it (a DNS-ID) is meant. The leftmost label of that name may be `*`, which stands
    /// for any one label (RFC 9525 section 6.3).
    pub fn accepts(&self, presented: &str) -> bool {
        let presented = presented.strip_suffix('.').unwrap_or(presented);
        let Some((first, rest)) = presented.split_once('.') else {
            return matches!(self, Self::Exactly(name) if name.as_str().eq_ignore_ascii_case(presented));
        };
        if first.is_empty() || (first.contains('*') && (first != "*" || !rest.contains('.'))) {
            return false;
        }
        match self {
            Self::Below(above) => above.as_str().eq_ignore_ascii_case(rest),
            Self::Exactly(name) if first == "*" => {
                name.as_str().split_once('.').is_some_and(|(_, wanted)| wanted.eq_ignore_ascii_case(rest))
            }
            Self::Exactly(name) => name.as_str().eq_ignore_ascii_case(presented),
        }
    }
}

impl fmt::Display for NamePattern {
    /// Writes it in the form that [`parse`](Self::parse) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(name) => name.fmt(f),
            Self::Below(above) => write!(f, ".{above}"),
        }
    }
}

impl Pin {
    /// Parses 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut pin = [0; 32];
        let digits = text.as_bytes().as_chunks::<2>();
        if !digits.1.is_empty() || digits.0.len() != pin.len() {
            return None;
        }
        for (octet, [high, low]) in pin.iter_mut().zip(digits.0) {
            let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
            *octet = value(*high)? << 4 | value(*low)?;
        }
        Some(Self(pin))
    }

    /// Returns whether the key of a certificate is this one.
    pub fn matches(&self, certificate: &Certificate<'_>) -> bool {
        self.0 == <[u8; 32]>::from(Sha256::digest(certificate.key))
    }
}

impl fmt::Display for Pin {
    /// Writes it in the form that [`parse`](Self::parse) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod tests;
