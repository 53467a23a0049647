//! Proof that a server holds the key of its certificate, whatever the certificate.

use std::ops::RangeInclusive;
use std::sync::Arc;

use cmail_delivery::tls::certificate::{self, Certificate};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use thiserror::Error as ThisError;
use webpki::RawPublicKeyEntity;

/// The object identifier of RSA keys, encoded (RFC 3279 section 2.3.1).
const RSA_ENCRYPTION: [u8; 11] = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];

/// The sizes of RSA keys by which signatures are verified: with shorter ones they can be forged, and with longer ones it takes too long.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// Why it cannot be verified that a server holds the key of its certificate.
#[derive(Clone, Copy, Debug, ThisError, PartialEq, Eq)]
pub(super) enum Unprovable {
    /// The certificate cannot be read.
    #[error("the certificate of the server cannot be read")]
    Unreadable,
    /// Its key is of another kind than those that are known.
    #[error("the key in the certificate of the server is of a kind that is not known here")]
    UnknownKind,
    /// Its key is an RSA key of so many bits.
    #[error(
        "the key in the certificate of the server is an RSA key of {0} bits, which proves nothing: it must have {least} to {most}",
        least = RSA_BITS.start(),
        most = RSA_BITS.end()
    )]
    RsaBits(usize),
}

/// Accepts every certificate, but verifies that the peer holds its key.
#[derive(Debug)]
pub(super) struct Possession {
    pub(super) provider: Arc<CryptoProvider>,
    /// Whether a signature that cannot be verified ends the handshake. Otherwise it is accepted, because the alternative is plain text.
    pub(super) is_strict: bool,
}

impl ServerCertVerifier for Possession {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let verdict = match raw_key(certificate) {
            Some(key) if self.is_strict => raw_tls12_signature(message, &key, signature, algorithms),
            _ => verify_tls12_signature(message, certificate, signature, algorithms),
        };
        self.unless_provable(certificate, verdict)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let verdict = match raw_key(certificate) {
            Some(key) if self.is_strict => {
                verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
            }
            _ => verify_tls13_signature(message, certificate, signature, algorithms),
        };
        self.unless_provable(certificate, verdict)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl Possession {
    fn unless_provable(
        &self,
        certificate: &CertificateDer<'_>,
        verdict: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match verdict {
            Err(_) if !self.is_strict && provable(certificate, algorithms).is_err() => {
                Ok(HandshakeSignatureValid::assertion())
            }
            Err(error) => {
                Err(strictly_provable(certificate, algorithms).map_or_else(Error::from, |()| error))
            }
            Ok(valid) => Ok(valid),
        }
    }
}

impl From<Unprovable> for Error {
    fn from(reason: Unprovable) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
    }
}

/// Returns the key of a certificate that the library cannot read: TLSA records and pins vouch for keys, whatever certificate they come in.
fn raw_key(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    if ParsedCertificate::try_from(certificate).is_ok() {
        return None;
    }
    Certificate::parse(certificate).map(|certificate| SubjectPublicKeyInfoDer::from(certificate.key.to_vec()))
}

/// Does what [`verify_tls12_signature`] does, by a key.
fn raw_tls12_signature(
    message: &[u8],
    key: &SubjectPublicKeyInfoDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadSignature);
    let key = RawPublicKeyEntity::try_from(key).map_err(|_| bad())?;
    let fitting = algorithms.mapping.iter().find(|(scheme, _)| *scheme == signature.scheme);
    let mut algorithms = fitting.into_iter().flat_map(|(_, algorithms)| algorithms.iter());
    let is_valid =
        algorithms.any(|algorithm| key.verify_signature(*algorithm, message, signature.signature()).is_ok());
    if is_valid { Ok(HandshakeSignatureValid::assertion()) } else { Err(bad()) }
}

/// Checks that it can be verified that a server holds the key of its certificate: not if the library cannot read the certificate (version
/// 1, for example), and not if it knows no such key. Such a certificate is never valid. This depends on the certificate alone, so that it
/// also applies to resumed sessions.
pub(super) fn provable(
    certificate: &CertificateDer<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Unprovable> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(|_| Unprovable::Unreadable)?;
    provable_by(&parsed.subject_public_key_info(), algorithms)
}

/// Does the same where a proof is needed, so that the key counts in [whatever certificate](raw_key) it comes.
fn strictly_provable(
    certificate: &CertificateDer<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Unprovable> {
    match raw_key(certificate) {
        Some(key) => provable_by(&key, algorithms),
        None => provable(certificate, algorithms),
    }
}

fn provable_by(key: &[u8], algorithms: &WebPkiSupportedAlgorithms) -> Result<(), Unprovable> {
    let algorithm = certificate::algorithm(key).ok_or(Unprovable::Unreadable)?;
    let is_known = algorithms.all.iter().any(|known| *known.public_key_alg_id() == *algorithm);
    if !is_known {
        return Err(Unprovable::UnknownKind);
    }
    if !algorithm.starts_with(&RSA_ENCRYPTION) {
        return Ok(());
    }
    let bits = certificate::rsa_bits(key).ok_or(Unprovable::Unreadable)?;
    if RSA_BITS.contains(&bits) { Ok(()) } else { Err(Unprovable::RsaBits(bits)) }
}
