//! TLS as the core sees it: the facts of a session, what they must prove, and what an executor is told to find out for that.
//!
//! The executor states facts, [`Tls`]; [`Need::judge`] decides by them whether mail may go.

pub mod certificate;
mod need;
mod policy;
mod terms;
pub mod tlsa;

use core::fmt;

use thiserror::Error;

pub use self::need::{Basis, Enforced, Lack, Need, Proof, Proved, Requirement, Shortfall};
pub use self::policy::{Client, Fallback, InsecureMx, Level, TlsPlan, TlsPolicy};
pub use self::terms::{Identity, NamePattern, Pin, Roots, TlsTerms};
pub use self::tlsa::{Tlsa, TlsaRecord};

/// The result of a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The version of the protocol.
    pub version: TlsVersion,
    /// The name of the cipher suite, if the executor knows it.
    pub cipher_suite: Option<&'static str>,
    /// The name of the key exchange group, if the executor knows it. A resumed session of TLS 1.2 has none.
    pub group: Option<&'static str>,
    /// What the trusted authorities say of the certificate.
    pub verification: Verification,
    /// What the TLSA records say of it, if the [terms](TlsTerms) have any.
    pub dane: Option<Result<DaneMatch, CertificateTrouble>>,
    /// Whether its key is one of the pins, if the [terms](TlsTerms) have any.
    pub pin: Option<bool>,
    /// True if it continues an earlier session.
    pub is_resumed: bool,
}

impl Tls {
    /// Returns the facts that are always known of a new session: the version, and what the certificate proves of the server.
    pub const fn new(version: TlsVersion, verification: Verification) -> Self {
        Self {
            version,
            cipher_suite: None,
            group: None,
            verification,
            dane: None,
            pin: None,
            is_resumed: false,
        }
    }

    /// Returns what is told of the session, which has proved this of the server.
    pub const fn summary(&self, proved: Proved) -> TlsSummary {
        let Self { version, cipher_suite, group, is_resumed, .. } = *self;
        TlsSummary { version, cipher_suite, group, is_resumed, proved }
    }
}

/// What is told of a TLS session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsSummary {
    /// The version of the protocol.
    pub version: TlsVersion,
    /// The name of the cipher suite, if the executor knows it.
    pub cipher_suite: Option<&'static str>,
    /// The name of the key exchange group, if the executor knows it.
    pub group: Option<&'static str>,
    /// True if it continues an earlier session.
    pub is_resumed: bool,
    /// What it has proved of the server.
    pub proved: Proved,
}

impl fmt::Display for TlsSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.version)?;
        for word in [self.cipher_suite, self.group].into_iter().flatten() {
            write!(f, ", {word}")?;
        }
        write!(f, ", {}", self.proved.name())
    }
}

/// The kind of TLSA record that vouches for a certificate (RFC 7671 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaneMatch {
    /// One for the certificate itself, or its key: DANE-EE.
    EndEntity,
    /// One for an authority that vouches for it: DANE-TA.
    TrustAnchor,
}

/// What the certificate proves of the server. A session goes on in any case; what may be sent in it is another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// A trust anchor vouches for the certificate, and it is valid now, for the name or address that was asked for.
    Verified,
    /// Anybody may be the server.
    Unverified(CertificateTrouble),
}

impl Verification {
    /// Returns whether the server is the one that was asked for.
    pub const fn is_verified(self) -> bool {
        matches!(self, Self::Verified)
    }
}

/// Why a certificate does not prove who the server is.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CertificateTrouble {
    /// No trust anchor is configured, so that no certificate can be verified.
    #[error("no certificate is trusted here that could vouch for it")]
    NoTrustAnchor,
    /// The server has shown no certificate.
    #[error("the server has shown none")]
    Missing,
    /// The name that was asked for can stand in no certificate.
    #[error("the name of the server can stand in no certificate")]
    UnusableName,
    /// It is for other names.
    #[error("it is for another name")]
    NameMismatch,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not begun.
    #[error("it is not valid yet")]
    NotYetValid,
    /// No trust anchor vouches for it: the server itself has issued it, or an authority that is not trusted here.
    #[error("it was issued by the server itself, or by an authority that is not trusted")]
    UnknownIssuer,
    /// It is that of an authority, such as common tools make for a server that is to vouch for itself.
    #[error("it is that of an authority, not of a server")]
    IsAuthority,
    /// Its issuer has revoked it.
    #[error("it was revoked")]
    Revoked,
    /// It is for other uses than that of a server.
    #[error("it is not for servers")]
    WrongPurpose,
    /// It, or one of those that vouch for it, is not signed as it says.
    #[error("a signature in its chain is wrong, or cannot be verified")]
    BadSignature,
    /// It cannot be read, or its key is too weak: nothing can be proved by it.
    #[error("it cannot be read, or its key is too weak")]
    Unusable,
    /// It matches none of the TLSA records, nor does one that vouches for it.
    #[error("it matches none of the TLSA records")]
    NoTlsaMatch,
    /// Its key is none of those that the administrator has named.
    #[error("its key is none of those that are pinned")]
    NoPinMatch,
    /// Anything else.
    #[error("it is not acceptable")]
    Other,
}

#[cfg(test)]
impl Verification {
    /// What is found of a certificate that is valid, or that its server itself has issued.
    pub(crate) fn for_tests(is_valid: bool) -> Self {
        if is_valid { Self::Verified } else { Self::Unverified(CertificateTrouble::UnknownIssuer) }
    }
}

/// The groups of key exchange that a client offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Groups {
    /// All, those first that also withstand a quantum computer. The first message of the handshake is then larger than one segment, and
    /// some servers wait for ever for its second part, or drop the connection.
    #[default]
    All,
    /// Elliptic curves alone, whose first message fits into one segment.
    Classic,
}

/// A version of TLS. Earlier versions are not supported (RFC 8996).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        })
    }
}
