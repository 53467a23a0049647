//! TLSA records (RFC 6698): which of them count for SMTP (RFC 7672), and which certificates they match.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::OnceCell;
use core::fmt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256, Sha512};

use super::certificate::{self, Certificate};

/// A TLSA record as it stands in the DNS (RFC 6698 section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsaRecord {
    /// The certificate usage.
    pub usage: u8,
    /// The selector.
    pub selector: u8,
    /// The matching type.
    pub matching: u8,
    /// The certificate association data.
    pub data: Bytes,
}

/// A TLSA record that counts for SMTP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tlsa {
    /// What it vouches for.
    pub usage: Usage,
    /// The part of the certificate that it describes.
    pub selector: Selector,
    /// The description.
    pub association: Association,
}

/// What a record vouches for. Usages 0 and 1 need not count (RFC 7672 section 3.1.3), and do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Usage {
    /// An authority: DANE-TA(2).
    TrustAnchor,
    /// The server: DANE-EE(3).
    EndEntity,
}

/// The part of a certificate that a record describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// All of it: Cert(0).
    Certificate,
    /// Its SubjectPublicKeyInfo: SPKI(1).
    PublicKey,
}

/// The description of a part of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Association {
    /// The part itself, in DER: Full(0).
    Full(Bytes),
    /// SHA2-256(1).
    Sha256([u8; 32]),
    /// SHA2-512(2).
    Sha512(Box<[u8; 64]>),
}

/// Returns the records to hold a certificate against, of all that a host has. If it has some and none is left, mail must be encrypted, and
/// proves nothing (RFC 7672 section 2.2).
///
/// Of records with the same usage and selector those with the weaker digest do not count (RFC 7671 section 9).
pub fn usable(records: &[TlsaRecord]) -> Vec<Tlsa> {
    let mut usable: Vec<Tlsa> = records.iter().filter_map(TlsaRecord::usable).collect();
    let strong: Vec<(Usage, Selector)> = usable
        .iter()
        .filter(|record| matches!(record.association, Association::Sha512(_)))
        .map(|record| (record.usage, record.selector))
        .collect();
    usable.retain(|record| {
        !matches!(record.association, Association::Sha256(_))
            || !strong.contains(&(record.usage, record.selector))
    });
    usable
}

/// Most octets of the data of a record that are shown.
const SHOWN_OCTETS: usize = 8;

impl fmt::Display for TlsaRecord {
    /// Shows the record as it stands in a zone file, with the beginning of its data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.usage, self.selector, self.matching)?;
        self.data.iter().take(SHOWN_OCTETS).try_for_each(|octet| write!(f, "{octet:02x}"))?;
        if self.data.len() > SHOWN_OCTETS { f.write_str("…") } else { Ok(()) }
    }
}

impl TlsaRecord {
    /// Reads the RDATA of a record.
    pub fn parse(rdata: &[u8]) -> Option<Self> {
        let (&[usage, selector, matching], data) = rdata.split_first_chunk()?;
        Some(Self { usage, selector, matching, data: Bytes::copy_from_slice(data) })
    }

    /// Returns the record if it counts.
    pub fn usable(&self) -> Option<Tlsa> {
        let usage = match self.usage {
            2 => Usage::TrustAnchor,
            3 => Usage::EndEntity,
            _ => return None,
        };
        let (selector, is_readable): (_, fn(&[u8]) -> bool) = match self.selector {
            0 => (Selector::Certificate, |data| Certificate::parse(data).is_some()),
            1 => (Selector::PublicKey, certificate::is_public_key),
            _ => return None,
        };
        let association = match self.matching {
            0 if is_readable(&self.data) => Association::Full(self.data.clone()),
            1 => Association::Sha256(self.data.as_ref().try_into().ok()?),
            2 => Association::Sha512(Box::new(self.data.as_ref().try_into().ok()?)),
            _ => return None,
        };
        Some(Tlsa { usage, selector, association })
    }
}

impl Tlsa {
    /// Returns whether a certificate is the one that the record describes.
    pub fn matches(&self, certificate: &Described<'_>) -> bool {
        let part = match self.selector {
            Selector::Certificate => &certificate.whole,
            Selector::PublicKey => &certificate.key,
        };
        match &self.association {
            Association::Full(expected) => expected == part.octets,
            Association::Sha256(expected) => expected == part.sha256(),
            Association::Sha512(expected) => **expected == *part.sha512(),
        }
    }
}

/// A certificate, as records describe it. Each digest is computed once, however many records it is held against.
#[derive(Debug)]
pub struct Described<'a> {
    whole: Part<'a>,
    key: Part<'a>,
}

impl<'a> From<&Certificate<'a>> for Described<'a> {
    fn from(certificate: &Certificate<'a>) -> Self {
        Self { whole: Part::new(certificate.der), key: Part::new(certificate.key) }
    }
}

/// A part of a certificate, with those of its digests that were asked for.
#[derive(Debug)]
struct Part<'a> {
    octets: &'a [u8],
    sha256: OnceCell<[u8; 32]>,
    sha512: OnceCell<[u8; 64]>,
}

impl<'a> Part<'a> {
    const fn new(octets: &'a [u8]) -> Self {
        Self { octets, sha256: OnceCell::new(), sha512: OnceCell::new() }
    }

    fn sha256(&self) -> &[u8; 32] {
        self.sha256.get_or_init(|| Sha256::digest(self.octets).into())
    }

    fn sha512(&self) -> &[u8; 64] {
        self.sha512.get_or_init(|| Sha512::digest(self.octets).into())
    }
}

#[cfg(test)]
mod tests;
