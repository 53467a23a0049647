//! Who the client says that it is to servers that ask: certificates with their keys.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use cmail_delivery::tls::Identity;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// Why the certificate of the client cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("the client certificate file {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: Box<str>,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("the file {path} does not hold {what} as PEM")]
    Malformed {
        /// The file.
        path: Box<str>,
        /// What should be in it.
        what: &'static str,
    },
    /// The key is of a kind that is not known, or belongs to another certificate.
    #[error("the key in {key} cannot be used with the certificate in {certificate}: {reason}")]
    Unfit {
        /// The file of the key.
        key: Box<str>,
        /// The file of the certificate.
        certificate: Box<str>,
        /// Why.
        reason: String,
    },
}

/// The certificates and keys of all identities.
pub(super) type Identities = BTreeMap<Arc<Identity>, Arc<CertifiedKey>>;

/// Reads the files of these identities.
pub(super) fn load(
    identities: &[Arc<Identity>],
    provider: &CryptoProvider,
) -> Result<Identities, IdentityError> {
    identities
        .iter()
        .map(|identity| Ok((Arc::clone(identity), Arc::new(read(identity, provider)?))))
        .collect()
}

fn read(identity: &Identity, provider: &CryptoProvider) -> Result<CertifiedKey, IdentityError> {
    let Identity { certificate, key } = identity;
    let certificates = CertificateDer::pem_file_iter(&**certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem_error(error, certificate, "certificates"))?;
    if certificates.is_empty() {
        return Err(IdentityError::Malformed { path: certificate.clone(), what: "a certificate" });
    }
    let secret =
        PrivateKeyDer::from_pem_file(&**key).map_err(|error| pem_error(error, key, "a private key"))?;
    CertifiedKey::from_der(certificates, secret, provider).map_err(|error| IdentityError::Unfit {
        key: key.clone(),
        certificate: certificate.clone(),
        reason: error.to_string(),
    })
}

/// Returns what is wrong with a file, without quoting octets of it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the variants are not all known")]
fn pem_error(error: pem::Error, path: &str, what: &'static str) -> IdentityError {
    match error {
        pem::Error::Io(source) => IdentityError::Unreadable { path: path.into(), source },
        _ => IdentityError::Malformed { path: path.into(), what },
    }
}
