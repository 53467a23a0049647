//! TLS for outgoing connections. The only file that names rustls.
//!
//! Mail is encrypted opportunistically: no certificate is a reason to refuse a session, because the alternative is plain
//! text. The certificate is verified all the same, because credentials depend on it. That happens after the handshake, with
//! the certificates that the session holds: so a resumed session, which shows none on the wire, is verified in the same way,
//! for the name and the time of this connection.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use cmail_delivery::io::{CertificateTrouble, Groups, Tls, TlsVersion, Verification};
use cmail_delivery::next_hop::Host;
use cmail_delivery::system_error::{Breakage, SystemError, TlsTrouble};
use log::{debug, warn};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, WebPkiServerVerifier, verify_server_name,
};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind,
    NamedGroup, OtherError, ProtocolVersion, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error as ThisError;

use crate::logging::event;
use crate::os_error::broken;

/// Encrypted octets that a session holds for a socket that does not take them yet.
const SEND_BUFFER_OCTETS: usize = 64 * 1024;

/// How often one call reads from the socket, so that a peer that sends empty records does not hold up others.
const READS_PER_CALL: usize = 16;

/// How many earlier sessions are remembered: for 32 servers, 8 for each.
const REMEMBERED_SESSIONS_LIMIT: usize = 256;

/// The object identifier of RSA keys, encoded (RFC 3279 section 2.3.1).
const RSA_ENCRYPTION: [u8; 11] = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];

/// The size of a SubjectPublicKeyInfo with an RSA key of 2048 bits and the shortest exponent.
const RSA_2048_KEY_OCTETS: usize = 292;

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
    /// The TLS library refuses its settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// What all sessions have in common: the trust anchors, and the memory of earlier sessions.
#[derive(Clone, Debug)]
pub struct TlsContext {
    /// Offers all groups of key exchange.
    config: Arc<ClientConfig>,
    /// Offers those on elliptic curves alone.
    classic: Arc<ClientConfig>,
    /// Earlier sessions, which the configurations offer to their servers for resumption.
    earlier: Arc<ClientSessionMemoryCache>,
    /// `None` if there is no trust anchor.
    judge: Option<Arc<Judge>>,
}

impl TlsContext {
    /// Loads the trust anchors of a PEM file, or without one those of the system.
    pub fn load(trust_file: Option<&Path>) -> Result<Self, TrustError> {
        let (roots, pinned) = match trust_file {
            Some(path) => roots_of_file(path)?,
            None => (roots_of_system(), Vec::new()),
        };
        Self::with_roots(roots, pinned)
    }

    /// Returns whether any certificate can be valid.
    pub fn trusts_anybody(&self) -> bool {
        self.judge.is_some()
    }

    fn with_roots(roots: RootCertStore, pinned: Vec<CertificateDer<'static>>) -> Result<Self, TrustError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let judge =
            if roots.is_empty() { None } else { Some(Arc::new(Judge::new(roots, pinned, &provider)?)) };
        let earlier = Arc::new(ClientSessionMemoryCache::new(REMEMBERED_SESSIONS_LIMIT));
        let mut classic = CryptoProvider::clone(&provider);
        classic.kx_groups.retain(|group| !is_hybrid(group.name()));
        Ok(Self {
            config: configuration(provider, &earlier)?,
            classic: configuration(Arc::new(classic), &earlier)?,
            earlier,
            judge,
        })
    }

    /// Begins a session with the server of the name or address `server`, connected to at `remote`.
    pub fn session(
        &self,
        server: &Host,
        remote: IpAddr,
        groups: Groups,
    ) -> Result<TlsSession, SystemError<Breakage>> {
        let config = match groups {
            Groups::All => &self.config,
            Groups::Classic => &self.classic,
        };
        let expected = match server {
            Host::Name(name) => ServerName::try_from(name.as_str().to_owned()).ok(),
            Host::Address(address) => Some(ServerName::from(*address)),
        };
        // A name that is not valid in SNI is not valid in a certificate either: the session goes on without it.
        let offered = expected.clone().unwrap_or_else(|| ServerName::from(remote));
        let mut connection = ClientConnection::new(Arc::clone(config), offered.clone())
            .map_err(|error| SystemError::new(TlsTrouble::NotBegun, error.to_string()))?;
        connection.set_buffer_limit(Some(SEND_BUFFER_OCTETS));
        Ok(TlsSession {
            connection,
            earlier: Arc::clone(&self.earlier),
            offered,
            judge: self.judge.clone(),
            expected,
            is_established: false,
            has_heard: false,
            failure: None,
        })
    }
}

/// Returns the configuration of sessions that use this provider, and offer earlier sessions for resumption.
fn configuration(
    provider: Arc<CryptoProvider>,
    earlier: &Arc<ClientSessionMemoryCache>,
) -> Result<Arc<ClientConfig>, TrustError> {
    // RFC 8314 section 4.1: TLS 1.2 or later.
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| TrustError::Setup(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Opportunistic { provider }))
        .with_no_client_auth();
    config.resumption = Resumption::store(Arc::clone(earlier) as Arc<dyn ClientSessionStore>);
    Ok(Arc::new(config))
}

/// Returns whether a group of key exchange joins an elliptic curve with a lattice, whose public key takes over a thousand octets.
fn is_hybrid(group: NamedGroup) -> bool {
    matches!(group, NamedGroup::X25519MLKEM768 | NamedGroup::secp256r1MLKEM768)
}

/// The result of [`TlsSession::read`].
#[derive(Debug, PartialEq, Eq)]
pub enum TlsRead {
    /// The handshake is done.
    Established(Tls),
    /// This many octets of plain text are in the buffer.
    Octets(usize),
    /// The peer has ended the session by close_notify.
    EndOfFile,
    /// There is nothing more to read before the socket's next event.
    Blocked,
    /// There is nothing yet, but there may be more to read.
    Again,
    /// The session is broken.
    Failed(SystemError<Breakage>),
}

/// One TLS session over a socket that does not block.
#[derive(Debug)]
pub struct TlsSession {
    connection: ClientConnection,
    earlier: Arc<ClientSessionMemoryCache>,
    /// The name under which sessions with this server are remembered.
    offered: ServerName<'static>,
    judge: Option<Arc<Judge>>,
    expected: Option<ServerName<'static>>,
    is_established: bool,
    /// Whether the peer has sent anything in the session.
    has_heard: bool,
    /// Why the session is broken; reported after the octets that were decrypted before are read.
    failure: Option<SystemError<Breakage>>,
}

impl TlsSession {
    /// Returns whether [`TlsRead::Established`] was reported.
    pub fn is_established(&self) -> bool {
        self.is_established
    }

    /// Reads octets from the socket and decrypts them into `buffer`, which must not be empty.
    pub fn read<S: Read + Write>(&mut self, socket: &mut S, buffer: &mut [u8]) -> TlsRead {
        for _ in 0..READS_PER_CALL {
            if let Some(found) = self.decrypted(buffer) {
                return found;
            }
            if let Some(reason) = self.failure.take() {
                // The alert with the reason is sent if the socket takes it at once.
                let _ = self.flush(socket);
                return TlsRead::Failed(reason);
            }
            match self.connection.read_tls(socket) {
                Ok(0) if !self.is_established => {
                    self.failure = Some(truncated("the peer closed the connection during the TLS handshake"));
                }
                Ok(_) => {
                    if let Err(error) = self.connection.process_new_packets() {
                        self.failure = Some(SystemError::new(tls_trouble(&error), error.to_string()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return TlsRead::Blocked,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.failure = Some(broken(&error)),
            }
        }
        TlsRead::Again
    }

    /// Encrypts as much of `plaintext` as there is room for, and removes it from there.
    pub fn encrypt(&mut self, plaintext: &mut BytesMut) {
        if let Ok(taken) = self.connection.writer().write(plaintext) {
            plaintext.advance(taken);
        }
    }

    /// Writes encrypted octets to the socket; returns false if it does not take all of them now.
    pub fn flush(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Ends the session by close_notify, if the socket takes it at once (RFC 8446 section 6.1).
    pub fn close(&mut self, socket: &mut impl Write) {
        self.connection.send_close_notify();
        // The connection is closed next, whether this is flushed or not.
        let _ = self.flush(socket);
    }

    /// Returns the end of the handshake, then plain text, then the end of the session; `None` if more octets are needed.
    fn decrypted(&mut self, buffer: &mut [u8]) -> Option<TlsRead> {
        if self.connection.is_handshaking() {
            return None;
        }
        if !self.is_established {
            self.is_established = true;
            let tls = self.outcome();
            self.tell(tls);
            return Some(TlsRead::Established(tls));
        }
        match self.connection.reader().read(buffer) {
            Ok(0) => Some(TlsRead::EndOfFile),
            Ok(count) => {
                self.has_heard = true;
                Some(TlsRead::Octets(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // RFC 8446 section 6.1: an end without close_notify may be an attacker's.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Some(TlsRead::Failed(truncated("the connection was closed in the middle of the TLS session")))
            }
            Err(error) => Some(TlsRead::Failed(broken(&error))),
        }
    }

    fn outcome(&self) -> Tls {
        // No other versions are offered.
        let is_newest = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let version = if is_newest { TlsVersion::V1_3 } else { TlsVersion::V1_2 };
        let suite = self.connection.negotiated_cipher_suite();
        let group = self.connection.negotiated_key_exchange_group();
        Tls {
            version,
            cipher_suite: suite.and_then(|suite| suite.suite().as_str()),
            group: group.and_then(|group| group.name().as_str()),
            verification: self.verification(),
            dane: None,
            pin: None,
            is_resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    fn tell(&self, tls: Tls) {
        debug!(
            "{} TLS session with {}: {tls}, {}, {}",
            if tls.is_resumed { "resumed" } else { "new" },
            self.expected.as_ref().map_or("a host without a usable name".into(), ServerName::to_str),
            tls.cipher_suite.unwrap_or("unknown cipher suite"),
            tls.group.unwrap_or("no key exchange"),
        );
    }

    fn verification(&self) -> Verification {
        match self.verify() {
            Ok(()) => Verification::Verified,
            Err(trouble) => Verification::Unverified(trouble),
        }
    }

    fn verify(&self) -> Result<(), CertificateTrouble> {
        let judge = self.judge.as_ref().ok_or(CertificateTrouble::NoTrustAnchor)?;
        let expected = self.expected.as_ref().ok_or(CertificateTrouble::UnusableName)?;
        let chain = self.connection.peer_certificates().unwrap_or_default();
        let (leaf, intermediates) = chain.split_first().ok_or(CertificateTrouble::Missing)?;
        if !is_provable(leaf) {
            return Err(CertificateTrouble::Unusable);
        }
        judge.verdict(leaf, intermediates, expected).map_err(|error| {
            debug!("the certificate of {} is not valid: {error}", expected.to_str());
            certificate_trouble(&error)
        })
    }
}

impl Drop for TlsSession {
    /// Forgets the earlier sessions with a server that never sent anything: this session may have failed because one of them
    /// was offered, and the next session would fail in the same way.
    fn drop(&mut self) {
        if !self.has_heard {
            self.earlier.remove_tls12_session(&self.offered);
            while self.earlier.take_tls13_ticket(&self.offered).is_some() {}
        }
    }
}

/// Verifies certificates.
#[derive(Debug)]
struct Judge {
    verifier: Arc<WebPkiServerVerifier>,
    /// The certificates of the trust file, which may be the servers' own.
    pinned: Vec<CertificateDer<'static>>,
}

impl Judge {
    fn new(
        roots: RootCertStore,
        pinned: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TrustError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| TrustError::Setup(error.to_string()))?;
        Ok(Self { verifier, pinned })
    }

    fn verdict(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        expected: &ServerName<'_>,
    ) -> Result<(), Error> {
        match self.verifier.verify_server_cert(leaf, intermediates, expected, &[], UnixTime::now()) {
            // The self-signed certificates of common tools may sign others, and are therefore refused as a server's own. If
            // the trust file holds just this certificate, it is accepted. Its dates are checked before this error can
            // occur, its name is checked here.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.pinned.contains(leaf) => {
                verify_server_name(&ParsedCertificate::try_from(leaf)?, expected)
            }
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }
}

fn truncated(words: &str) -> SystemError<Breakage> {
    SystemError::new(TlsTrouble::Truncated, words)
}

/// Tells what an error in the records of a session comes to.
#[expect(clippy::wildcard_enum_match_arm, reason = "the variants are not all known")]
fn tls_trouble(error: &Error) -> TlsTrouble {
    match error {
        Error::AlertReceived(_) => TlsTrouble::Alert,
        Error::PeerIncompatible(_) => TlsTrouble::NothingInCommon,
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => TlsTrouble::KeyNotProven,
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::DecryptError => TlsTrouble::Misbehaved,
        _ => TlsTrouble::Other,
    }
}

/// Tells what is wrong with a certificate, or with one of those that vouch for it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the variants are not all known")]
fn certificate_trouble(error: &Error) -> CertificateTrouble {
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

/// Accepts every certificate, but verifies that the peer holds its key.
#[derive(Debug)]
struct Opportunistic {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Opportunistic {
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
        unless_provable(certificate, verify_tls12_signature(message, certificate, signature, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        unless_provable(certificate, verify_tls13_signature(message, certificate, signature, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts a signature that cannot be verified, because the alternative is plain text.
fn unless_provable(
    certificate: &CertificateDer<'_>,
    verdict: Result<HandshakeSignatureValid, Error>,
) -> Result<HandshakeSignatureValid, Error> {
    match verdict {
        Err(_) if !is_provable(certificate) => Ok(HandshakeSignatureValid::assertion()),
        verdict => verdict,
    }
}

/// Returns whether it can be verified that a peer holds the key of its certificate: not if the certificate cannot be parsed
/// (version 1, for example), and not if it has an RSA key that the library rejects as too short. Such a certificate is never
/// valid. This depends on the certificate alone, so that it also applies to resumed sessions.
fn is_provable(certificate: &CertificateDer<'_>) -> bool {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return false };
    let key = parsed.subject_public_key_info();
    let is_rsa = key.windows(RSA_ENCRYPTION.len()).any(|octets| octets == RSA_ENCRYPTION);
    !is_rsa || key.len() >= RSA_2048_KEY_OCTETS
}

/// Returns the files and directories that [`TlsContext::load`] reads.
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

fn roots_of_system() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        warn!(event = event::TLS; "the system's trust store: {error}");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    debug!("the system's trust store: {added} certificates, {ignored} more cannot be used");
    if added == 0 {
        warn!(
            event = event::TLS; "the system's trust store has no usable certificate, so no server can be verified; set tls_trustfile"
        );
    }
    roots
}

#[cfg(test)]
mod tests;
