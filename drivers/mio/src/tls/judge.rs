//! The verdict about the certificates of a server: what the trusted authorities, the TLSA records and the pins say of them.

use std::sync::Arc;

use cmail_delivery::io::{CertificateTrouble, Verification};
use cmail_delivery::next_hop::Host;
use cmail_delivery::tls::certificate::Certificate;
use cmail_delivery::tls::{DaneMatch, Roots, TlsTerms};
use log::debug;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, OtherError, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::chain::Chain;
use super::dane;
use super::possession::provable;

/// Who is trusted: authorities, and certificates of servers.
#[derive(Debug)]
pub(super) struct Trusted {
    pub(super) roots: RootCertStore,
    /// The certificates of the trust file, which may be the servers' own.
    pub(super) own: Vec<CertificateDer<'static>>,
}

/// Judges certificates.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    /// Who is trusted where a relay is judged.
    pub(super) relay: Arc<Trusted>,
    /// Who is trusted where the host of a domain is judged.
    pub(super) public: Arc<Trusted>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// What is found of the certificates of a server.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) verification: Verification,
    pub(super) dane: Option<Result<DaneMatch, CertificateTrouble>>,
    pub(super) pin: Option<bool>,
}

impl Judge {
    /// Holds the certificates that a server has shown, its own first, against everything that the terms name.
    pub(super) fn verdict(&self, shown: &[CertificateDer<'_>], terms: &TlsTerms) -> Verdict {
        let now = UnixTime::now();
        let chain = Chain::of(shown);
        let chain = chain.as_ref().ok_or(CertificateTrouble::Missing);
        let verification = match self.verify(chain, terms, now) {
            Ok(()) => Verification::Verified,
            Err(trouble) => Verification::Unverified(trouble),
        };
        let by_records = || chain.and_then(|chain| dane::verdict(chain, terms, &self.algorithms, now));
        let dane = (!terms.tlsa.is_empty()).then(by_records);
        let leaf = chain.ok().and_then(|chain| chain.leaf);
        let is_pinned = || leaf.is_some_and(|leaf| terms.pins.iter().any(|pin| pin.matches(&leaf)));
        let pin = (!terms.pins.is_empty()).then(is_pinned);
        Verdict { verification, dane, pin }
    }

    fn verify(
        &self,
        chain: Result<&Chain<'_>, CertificateTrouble>,
        terms: &TlsTerms,
        now: UnixTime,
    ) -> Result<(), CertificateTrouble> {
        let trusted = match terms.roots {
            Roots::Relay => &self.relay,
            Roots::Public => &self.public,
        };
        if trusted.roots.is_empty() {
            return Err(CertificateTrouble::NoTrustAnchor);
        }
        let expected = server_name(&terms.server);
        if terms.names.is_empty() && expected.is_none() {
            return Err(CertificateTrouble::UnusableName);
        }
        let chain = chain?;
        provable(&chain.own, &self.algorithms).map_err(|_| CertificateTrouble::Unusable)?;
        let verify = || {
            let parsed = ParsedCertificate::try_from(&chain.own)?;
            match self.chain(&parsed, &chain.intermediates(), &trusted.roots, now) {
                // The self-signed certificates of common tools may sign others, and are therefore refused as a server's own. If
                // the trust file holds just this certificate, it is accepted. Its dates are checked before this error can
                // occur, its name is checked here.
                Err(Error::InvalidCertificate(CertificateError::Other(_)))
                    if trusted.own.contains(&chain.own) => {}
                verdict => verdict?,
            }
            match expected {
                Some(name) if terms.names.is_empty() => verify_server_name(&parsed, &name),
                _ => has_one_of(chain.leaf.as_ref(), terms),
            }
        };
        verify().map_err(|error| {
            debug!("the certificate of {} is not valid: {error}", terms.server);
            certificate_trouble(&error)
        })
    }

    fn chain(
        &self,
        leaf: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        roots: &RootCertStore,
        now: UnixTime,
    ) -> Result<(), Error> {
        verify_server_cert_signed_by_trust_anchor(leaf, roots, intermediates, now, self.algorithms.all)
    }
}

/// Returns a server as it can stand in a certificate; `None` if it cannot.
pub(super) fn server_name(server: &Host) -> Option<ServerName<'static>> {
    match server {
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned()).ok(),
        Host::Address(address) => Some(ServerName::from(*address)),
    }
}

/// Checks that a certificate has one of the names of the terms.
fn has_one_of(leaf: Option<&Certificate<'_>>, terms: &TlsTerms) -> Result<(), Error> {
    let presented = leaf.map(Certificate::dns_names).unwrap_or_default();
    if presented.iter().any(|presented| terms.names.iter().any(|name| name.accepts(presented))) {
        return Ok(());
    }
    Err(Error::InvalidCertificate(CertificateError::NotValidForName))
}

/// Tells what is wrong with a certificate, or with one of those that vouch for it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the variants are not all known")]
pub(super) fn certificate_trouble(error: &Error) -> CertificateTrouble {
    let Error::InvalidCertificate(error) = error else { return CertificateTrouble::Other };
    match error {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateTrouble::NameMismatch
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => CertificateTrouble::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateTrouble::NotYetValid
        }
        CertificateError::UnknownIssuer => CertificateTrouble::UnknownIssuer,
        CertificateError::Other(OtherError(reason))
            if reason.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity) =>
        {
            CertificateTrouble::IsAuthority
        }
        CertificateError::Revoked => CertificateTrouble::Revoked,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            CertificateTrouble::WrongPurpose
        }
        CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            CertificateTrouble::BadSignature
        }
        CertificateError::BadEncoding | CertificateError::UnhandledCriticalExtension => {
            CertificateTrouble::Unusable
        }
        _ => CertificateTrouble::Other,
    }
}
