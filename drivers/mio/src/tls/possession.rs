//! Proof that a server holds the key of its certificate, whatever the certificate.

use std::sync::Arc;

use cmail_delivery::tls::certificate::Certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use webpki::RawPublicKeyEntity;

/// The object identifier of RSA keys, encoded (RFC 3279 section 2.3.1).
const RSA_ENCRYPTION: [u8; 11] = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];

/// The size of a SubjectPublicKeyInfo with an RSA key of 2048 bits and the shortest exponent.
const RSA_2048_KEY_OCTETS: usize = 292;

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
        match verdict {
            Err(_) if !self.is_strict && !is_provable(certificate) => {
                Ok(HandshakeSignatureValid::assertion())
            }
            verdict => verdict,
        }
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

/// Returns whether it can be verified that a peer holds the key of its certificate: not if the certificate cannot be parsed
/// (version 1, for example), and not if it has an RSA key that the library rejects as too short. Such a certificate is never
/// valid. This depends on the certificate alone, so that it also applies to resumed sessions.
pub(super) fn is_provable(certificate: &CertificateDer<'_>) -> bool {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return false };
    let key = parsed.subject_public_key_info();
    let is_rsa = key.windows(RSA_ENCRYPTION.len()).any(|octets| octets == RSA_ENCRYPTION);
    !is_rsa || key.len() >= RSA_2048_KEY_OCTETS
}
