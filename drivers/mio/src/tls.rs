//! TLS for outgoing connections. Only the files of this module name rustls.
//!
//! Mail is encrypted opportunistically unless the [terms](TlsTerms) of a session need more: no certificate is a reason to refuse a session,
//! because the alternative is plain text. The certificate is judged all the same, after the handshake, with the certificates that the
//! session holds: so a resumed session, which shows none on the wire, is judged in the same way, for the name and the time of this
//! connection. The core decides by the verdict.

mod chain;
mod dane;
mod identity;
mod judge;
mod possession;
mod session;
mod web;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cmail_delivery::io::{Groups, TlsTerms, TlsVersion};
use cmail_delivery::policy::Choice;
use cmail_delivery::settings::Settings;
use cmail_delivery::system_error::{Breakage, SystemError, TlsTrouble};
use cmail_delivery::tls::{Identity, Level};
use log::{debug, warn};
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, ServerName};
use thiserror::Error as ThisError;

use self::identity::Identities;
pub use self::identity::IdentityError;
use self::judge::{Judge, Trusted, server_name};
use self::possession::Possession;
pub use self::session::{TlsRead, TlsSession};
pub(crate) use self::web::WebTrust;
use crate::logging::event;

/// Encrypted octets that a session holds for a socket that does not take them yet.
const SEND_BUFFER_OCTETS: usize = 64 * 1024;

/// How many earlier sessions are remembered: for 32 servers, 8 for each. One may take 128 KiB, half for the ticket and half for the
/// certificates, if a server makes both as large as TLS permits.
const REMEMBERED_SESSIONS_LIMIT: usize = 256;

/// The versions that are offered. Earlier ones must not be used (RFC 8996).
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Why the trust file cannot be used.
#[derive(Debug, ThisError)]
pub enum TrustError {
    /// It cannot be read.
    #[error("the trust file {path} cannot be read: {source}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not PEM.
    #[error("the trust file {path} is not a well-formed PEM file: {reason}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It holds no usable certificate.
    #[error("the trust file {path} holds no usable certificate", path = .path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The certificate of the client cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The TLS library refuses its settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// What a configuration needs of the files of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The file of trusted authorities; `None` for those of the system.
    pub trust_file: Option<PathBuf>,
    /// Whether hosts of domains are verified, and policies are fetched, for which the system's authorities are trusted besides.
    pub verifies_hosts: bool,
    /// Whether policies are fetched.
    pub goes_by_sts: bool,
    /// Who this client says that it is.
    pub identities: Vec<Arc<Identity>>,
}

impl TlsFiles {
    /// Returns those that these settings need.
    pub fn of(trust_file: Option<&Path>, settings: &Settings) -> Self {
        let mut files = Self { trust_file: trust_file.map(Path::to_owned), ..Self::default() };
        files.identities.extend(settings.policy.tls.client.identity().cloned());
        for choice in settings.destinations.iter().flat_map(|line| &line.choices) {
            let Choice::Tls(policy) = choice else { continue };
            files.goes_by_sts |= policy.level.wants_sts();
            files.verifies_hosts |= files.goes_by_sts || matches!(policy.level, Level::Verify(_));
            files.identities.extend(policy.client.identity().cloned());
        }
        files
    }
}

/// What all sessions have in common: the trust anchors, and the memory of earlier sessions.
#[derive(Clone, Debug)]
pub struct TlsContext {
    provider: Arc<CryptoProvider>,
    /// Offers all groups of key exchange.
    config: Arc<ClientConfig>,
    /// Offers those on elliptic curves alone.
    classic: Arc<ClientConfig>,
    /// Earlier sessions, which the configurations offer to their servers for resumption.
    earlier: Arc<ClientSessionMemoryCache>,
    judge: Judge,
    /// `None` if those of the context before it stay.
    identities: Option<Arc<Identities>>,
    /// Who is trusted on the web; `None` if nobody is asked there.
    web: Option<Arc<WebTrust>>,
}

impl TlsContext {
    /// Loads what the files hold.
    pub fn load(files: &TlsFiles) -> Result<Self, TrustError> {
        let mut context = Self::load_trust(files.trust_file.as_deref(), files.verifies_hosts)?;
        let identities = identity::load(&files.identities, &context.provider)?;
        context.identities = Some(Arc::new(identities));
        if files.goes_by_sts && !context.web.as_ref().is_some_and(|web| web.trusts_anybody()) {
            warn!(event = event::TLS; "MTA-STS has no effect: this system has no trusted certificates; install them, or set tls_trustfile");
        }
        Ok(context)
    }

    /// Loads the trust anchors of a PEM file, or without one those of the system. With `verifies_hosts` those of the system are trusted
    /// besides where the host of a domain is judged.
    pub fn load_trust(trust_file: Option<&Path>, verifies_hosts: bool) -> Result<Self, TrustError> {
        let (roots, own, mut authorities) = match trust_file {
            Some(path) => {
                let (roots, own) = roots_of_file(path)?;
                (roots, own.clone(), own)
            }
            None => {
                let (roots, authorities) = roots_of_system();
                (roots, Vec::new(), authorities)
            }
        };
        let relay = Arc::new(Trusted { roots, own });
        let public = match trust_file {
            Some(_) if verifies_hosts => {
                let (mut roots, more) = roots_of_system();
                authorities.extend(more);
                roots.roots.extend(relay.roots.roots.iter().cloned());
                Arc::new(Trusted { roots, own: relay.own.clone() })
            }
            _ => Arc::clone(&relay),
        };
        let mut context =
            Self::with_trusted(relay, public).map_err(|error| TrustError::Setup(error.to_string()))?;
        context.web = verifies_hosts.then(|| Arc::new(WebTrust::new(&authorities, &context.provider)));
        Ok(context)
    }

    /// Returns who is trusted on the web, if anybody is asked there.
    pub(crate) fn web(&self) -> Option<Arc<WebTrust>> {
        self.web.clone()
    }

    fn with_trusted(relay: Arc<Trusted>, public: Arc<Trusted>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let earlier = Arc::new(ClientSessionMemoryCache::new(REMEMBERED_SESSIONS_LIMIT));
        let resumption = || Resumption::store(Arc::clone(&earlier) as Arc<dyn ClientSessionStore>);
        let usual = |groups| configuration(&offering(&provider, groups), VERSIONS, false, None, resumption());
        Ok(Self {
            config: usual(Groups::All)?,
            classic: usual(Groups::Classic)?,
            judge: Judge { relay, public, algorithms: provider.signature_verification_algorithms },
            provider,
            earlier,
            identities: None,
            web: None,
        })
    }

    /// Returns whether any certificate can be valid.
    pub fn trusts_anybody(&self) -> bool {
        !self.judge.relay.roots.is_empty()
    }

    /// Takes the identities of the context that it replaces, unless it has loaded its own.
    pub fn replacing(mut self, before: &Self) -> Self {
        if self.identities.is_none() {
            self.identities.clone_from(&before.identities);
        }
        self
    }

    /// Begins a session on these terms, connected to at `remote`.
    pub fn session(
        &self,
        terms: &Arc<TlsTerms>,
        remote: IpAddr,
        groups: Groups,
    ) -> Result<TlsSession, SystemError<Breakage>> {
        let not_begun = |error: rustls::Error| SystemError::new(TlsTrouble::NotBegun, error.to_string());
        let config = self.config(terms, groups).map_err(not_begun)?;
        // A name that is not valid in SNI is not valid in a certificate either: the session goes on without it.
        let offered = server_name(&terms.server).unwrap_or_else(|| ServerName::from(remote));
        let mut connection = ClientConnection::new(config, offered.clone()).map_err(not_begun)?;
        connection.set_buffer_limit(Some(SEND_BUFFER_OCTETS));
        let (earlier, judge) = (Arc::clone(&self.earlier), self.judge.clone());
        Ok(TlsSession::new(connection, earlier, offered, judge, Arc::clone(terms)))
    }

    /// Returns the configuration of a session. One for usual terms is made once; those of others resume no earlier session.
    fn config(&self, terms: &TlsTerms, groups: Groups) -> Result<Arc<ClientConfig>, rustls::Error> {
        let TlsTerms { least, needs_proof, identity, .. } = terms;
        let is_usual = !needs_proof && identity.is_none() && *least == TlsVersion::V1_2;
        if is_usual {
            return Ok(Arc::clone(match groups {
                Groups::All => &self.config,
                Groups::Classic => &self.classic,
            }));
        }
        let versions = match least {
            TlsVersion::V1_2 => VERSIONS,
            TlsVersion::V1_3 => &[&rustls::version::TLS13],
        };
        let known = self.identities.as_deref();
        let identity = identity.as_ref().and_then(|identity| known?.get(identity)).cloned();
        let identity = identity.map(SingleCertAndKey::from);
        let provider = offering(&self.provider, groups);
        configuration(&provider, versions, *needs_proof, identity, Resumption::disabled())
    }
}

/// Returns the configuration of sessions.
fn configuration(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    is_strict: bool,
    identity: Option<SingleCertAndKey>,
    resumption: Resumption,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let verifier = Possession { provider: Arc::clone(provider), is_strict };
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity)),
        None => builder.with_no_client_auth(),
    };
    config.resumption = resumption;
    Ok(Arc::new(config))
}

/// Returns the provider that offers these groups of key exchange.
fn offering(provider: &Arc<CryptoProvider>, groups: Groups) -> Arc<CryptoProvider> {
    match groups {
        Groups::All => Arc::clone(provider),
        Groups::Classic => {
            let mut classic = CryptoProvider::clone(provider);
            classic.kx_groups.retain(|group| !is_hybrid(group.name()));
            Arc::new(classic)
        }
    }
}

/// Returns whether a group of key exchange joins an elliptic curve with a lattice, whose public key takes over a thousand octets.
fn is_hybrid(group: NamedGroup) -> bool {
    matches!(group, NamedGroup::X25519MLKEM768 | NamedGroup::secp256r1MLKEM768)
}

/// Checks that the files of an identity can be used.
pub fn check_identity(identity: &Identity) -> Result<(), IdentityError> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    identity::load(&[Arc::new(identity.clone())], &provider).map(drop)
}

/// Returns the files and directories that [`TlsContext::load_trust`] reads.
pub fn files(trust_file: Option<&Path>) -> Vec<PathBuf> {
    match trust_file {
        Some(path) => vec![path.to_owned()],
        None => {
            let found = openssl_probe::probe();
            found.cert_file.into_iter().chain(found.cert_dir).collect()
        }
    }
}

fn roots_of_file(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TrustError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the variants are not all known")]
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| match error {
            pem::Error::Io(source) => TrustError::Unreadable { path: path.to_owned(), source },
            error => TrustError::Malformed { path: path.to_owned(), reason: error.to_string() },
        })?;
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(certificates.iter().cloned());
    if added == 0 {
        return Err(TrustError::NoCertificate { path: path.to_owned() });
    }
    if ignored > 0 {
        warn!(event = event::TLS; "the trust file {} holds {ignored} certificates that cannot be used", path.display());
    }
    Ok((roots, certificates))
}

fn roots_of_system() -> (RootCertStore, Vec<CertificateDer<'static>>) {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        warn!(event = event::TLS; "the system's trust store: {error}");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs.iter().cloned());
    debug!("the system's trust store: {added} certificates, {ignored} more cannot be used");
    if added == 0 {
        warn!(
            event = event::TLS; "the system's trust store has no usable certificate, so no server can be verified; set tls_trustfile"
        );
    }
    (roots, found.certs)
}

#[cfg(test)]
mod tests;
