//! Who is trusted on the web, for the client of HTTPS, which has TLS sessions of its own.

use std::io;
use std::sync::Arc;

use cmail_delivery::io::{CertificateTrouble, HttpsTrouble};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::judge::certificate_trouble;

/// The authorities that vouch for hosts of the web: those of the system, and those of the trust file.
#[derive(Clone, Debug)]
pub(crate) struct WebTrust {
    config: TlsConfig,
    trusts_anybody: bool,
}

impl WebTrust {
    pub(super) fn new(authorities: &[CertificateDer<'_>], provider: &Arc<CryptoProvider>) -> Self {
        let certificates = authorities.iter().map(|authority| Certificate::from_der(authority).to_owned());
        let config = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::clone(provider))
            .root_certs(RootCerts::from(certificates))
            .build();
        Self { config, trusts_anybody: !authorities.is_empty() }
    }

    /// Returns the settings of the client.
    pub(crate) fn config(&self) -> TlsConfig {
        self.config.clone()
    }

    /// Returns whether any certificate can be valid.
    pub(crate) fn trusts_anybody(&self) -> bool {
        self.trusts_anybody
    }

    /// Returns what went wrong in TLS, if that is the reason of an error of the client.
    pub(crate) fn trouble(&self, error: &io::Error) -> Option<HttpsTrouble> {
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        if !matches!(error, rustls::Error::InvalidCertificate(_)) {
            return Some(HttpsTrouble::Tls);
        }
        Some(HttpsTrouble::Certificate(if self.trusts_anybody {
            certificate_trouble(error)
        } else {
            CertificateTrouble::NoTrustAnchor
        }))
    }
}
