//! Certificates made on the spot, and the server side of TLS.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, PublicKeyData as _, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// A certificate with its key, ready to serve.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(super) config: Arc<ServerConfig>,
    /// The public key, as its SubjectPublicKeyInfo.
    key: Vec<u8>,
}

impl Identity {
    /// A self-signed certificate.
    pub(crate) fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params(names).self_signed(&key).unwrap();
        Self::serving(certificate.der().clone(), &key)
    }

    /// One that is shown with as many others as TLS can carry, whose names lead to an authority that nobody has in hundreds of thousands of
    /// ways.
    pub(crate) fn in_a_maze(names: &[&str]) -> Self {
        const LAYERS: usize = 6;
        const WIDTH: usize = 8;
        const SIZE_OCTETS: usize = 60_000;
        let key = KeyPair::generate().unwrap();
        let issued = |subject: &str, issuer: &str| {
            let [mut subject, issuer] = [subject, issuer].map(|name| {
                let mut params = params(&[]);
                params.distinguished_name = common_name(name);
                params
            });
            subject.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            subject.signed_by(&key, &Issuer::new(issuer, key_of_nobody())).unwrap().der().clone()
        };
        let mut first = params(&[]);
        first.distinguished_name = common_name("0");
        let leaf = params(names).signed_by(&key, &Issuer::new(first, key_of_nobody())).unwrap();
        let mut chain = vec![leaf.der().clone()];
        for layer in 0..LAYERS {
            let [subject, issuer] = [layer, layer + 1].map(|number| number.to_string());
            chain.extend((0..WIDTH).map(|_| issued(&subject, &issuer)));
        }
        while chain.iter().map(|certificate| certificate.len()).sum::<usize>() < SIZE_OCTETS {
            chain.push(issued("nobody", "nobody else"));
        }
        Self::serving_chain(chain, &key)
    }

    /// Returns the SHA-256 of its public key, in hexadecimal.
    pub(crate) fn pin(&self) -> String {
        Sha256::digest(&self.key).iter().map(|octet| format!("{octet:02x}")).collect()
    }

    /// Asks for a certificate of the authority, and refuses clients without one.
    pub(crate) fn asking_for_one_of(mut self, authority: &Authority) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.issuer.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_cert_resolver(Arc::clone(&self.config.cert_resolver));
        self.config = Arc::new(config);
        self
    }

    /// For a server of a test's own.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    fn serving(certificate: CertificateDer<'static>, key: &KeyPair) -> Self {
        Self::serving_chain(vec![certificate], key)
    }

    fn serving_chain(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let public = key;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self { config: Arc::new(config), key: public.subject_public_key_info() }
    }
}

/// A certificate authority that a test can put into `tls_trustfile`.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = common_name("test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// A certificate for this name whose time is over.
    pub(crate) fn issue_expired(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = params(&[name]);
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity::serving(certificate.der().clone(), &key)
    }

    /// A certificate of a client and its key, as PEM.
    pub(crate) fn issue_to_client(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = params(&["client.example"]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A certificate for these names; an address becomes an iPAddress name.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params(names).signed_by(&key, &self.issuer).unwrap();
        Identity::serving(certificate.der().clone(), &key)
    }

    /// The same, of a server that shows the certificate of the authority too.
    pub(crate) fn issue_in_chain(&self, names: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params(names).signed_by(&key, &self.issuer).unwrap();
        Identity::serving_chain(vec![certificate.der().clone(), self.issuer.der().clone()], &key)
    }

    /// The SHA-256 of its key.
    pub(crate) fn pin(&self) -> String {
        Sha256::digest(self.issuer.key().subject_public_key_info())
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect()
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }
}

fn key_of_nobody() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = common_name("test host");
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    distinguished_name
}
