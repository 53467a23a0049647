//! Facts about the TLS of a connection.

use core::fmt;

/// The result of a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The version of the protocol.
    pub version: TlsVersion,
    /// The name of the cipher suite, if the executor knows it.
    pub cipher_suite: Option<&'static str>,
    /// The name of the key exchange group, if the executor knows it. A resumed session of TLS 1.2 has none.
    pub group: Option<&'static str>,
    /// True if the certificate is valid for the name that was requested.
    pub certificate_is_valid: bool,
}

impl Tls {
    /// Returns the facts that are always known: the version, and whether the certificate is valid for the requested name.
    pub const fn new(version: TlsVersion, certificate_is_valid: bool) -> Self {
        Self { version, cipher_suite: None, group: None, certificate_is_valid }
    }
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = if self.certificate_is_valid { "valid" } else { "not verified" };
        write!(f, "{} (certificate {certificate})", self.version)
    }
}

/// A version of TLS. Earlier versions are not supported (RFC 8996).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
