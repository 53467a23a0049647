//! What the tests of several modules need: certificates, TLS servers on loopback, and a connection that is driven until
//! something happens.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;
use cmail_delivery::address::Domain;
use cmail_delivery::io::{Tls, TlsTerms, TlsVersion, Verification};
use cmail_delivery::next_hop::Host;
use mio::{Events, Interest, Poll, Token};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::connection::{Connection, Progress};

/// A test that has waited so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn loopback() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Accepts one connection and lets `serve` deal with it on a thread.
pub(crate) fn serve<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let (listener, address) = loopback();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        serve(stream)
    });
    (address, thread)
}

pub(crate) fn host(text: &str) -> Host {
    match text.parse::<IpAddr>() {
        Ok(address) => Host::Address(address),
        Err(_) => Host::Name(Domain::parse(text).unwrap()),
    }
}

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Authority {
    authority_named("authority")
}

/// An authority of another name is not taken for one that is trusted.
pub(crate) fn authority_named(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub(crate) fn trust_file(authority: &Authority) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(authority.pem().as_bytes()).unwrap();
    file
}

pub(crate) fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

/// A connection with a poll of its own.
pub(crate) struct Driven {
    poll: Poll,
    events: Events,
    pub(crate) connection: Connection,
    buffer: Vec<u8>,
    /// Everything that was received.
    pub(crate) received: Vec<u8>,
}

impl Driven {
    pub(crate) fn open(remote: SocketAddr) -> Self {
        let poll = Poll::new().unwrap();
        let mut connection = Connection::open(remote, None).unwrap();
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(connection.source(), Token(0), interest).unwrap();
        let buffer = vec![0; 16 * 1024];
        Self { poll, events: Events::with_capacity(8), connection, buffer, received: Vec::new() }
    }

    pub(crate) fn connected(remote: SocketAddr) -> Self {
        let mut driven = Self::open(remote);
        assert_eq!(driven.wait(&mut nothing), Progress::Connected);
        driven
    }

    /// Advances once, and keeps what is received.
    pub(crate) fn advance(&mut self, pull: &mut dyn FnMut(usize, &mut BytesMut) -> bool) -> Progress {
        let progress = self.connection.advance(&mut self.buffer, pull);
        if let Progress::Received(count) = progress {
            self.received.extend_from_slice(&self.buffer[..count]);
        }
        progress
    }

    /// Waits for events of the socket; false if none comes in time.
    pub(crate) fn poll(&mut self, timeout: Duration) -> bool {
        self.poll.poll(&mut self.events, Some(timeout)).unwrap();
        for event in &self.events {
            self.connection.on_event(event);
        }
        !self.events.is_empty()
    }

    /// Advances until there is something to report.
    pub(crate) fn wait(&mut self, pull: &mut dyn FnMut(usize, &mut BytesMut) -> bool) -> Progress {
        loop {
            let progress = self.advance(pull);
            if progress == Progress::Idle {
                assert!(self.poll(PATIENCE), "nothing happened for {PATIENCE:?}");
            } else if progress != Progress::Again {
                return progress;
            }
        }
    }

    /// Advances until the connection is over, or so many octets are received.
    pub(crate) fn receive(
        &mut self,
        octets: usize,
        pull: &mut dyn FnMut(usize, &mut BytesMut) -> bool,
    ) -> Option<Progress> {
        while self.received.len() < octets {
            let progress = self.wait(pull);
            if progress.is_final() {
                return Some(progress);
            }
        }
        None
    }
}

/// Has nothing to send.
pub(crate) fn nothing(_: usize, _: &mut BytesMut) -> bool {
    false
}

/// Octets without a short period, so that lost, doubled and swapped parts are noticed.
pub(crate) fn pattern(octets: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(octets).collect()
}

/// Hands out octets as the dispatcher does.
pub(crate) fn source(octets: &[u8]) -> impl FnMut(usize, &mut BytesMut) -> bool {
    let mut rest = octets;
    move |limit, outgoing: &mut BytesMut| {
        let (now, later) = rest.split_at(limit.min(rest.len()));
        outgoing.extend_from_slice(now);
        rest = later;
        !now.is_empty()
    }
}

/// Reads exactly so many octets.
pub(crate) fn read_octets(stream: &mut impl Read, octets: usize) -> Vec<u8> {
    let mut read = vec![0; octets];
    stream.read_exact(&mut read).unwrap();
    read
}

/// Servers that speak TLS.
pub(crate) mod tls_server {
    use rcgen::Certificate;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::{Arc, Authority, CertificateParams, Duration, KeyPair, TcpStream};

    pub(crate) type Stream = StreamOwned<ServerConnection, TcpStream>;

    #[derive(Debug)]
    struct Always(Arc<CertifiedKey>);

    impl ResolvesServerCert for Always {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    /// A server configuration with a certificate that the authority has issued, or a self-signed one.
    pub(crate) fn config(params: &CertificateParams, issuer: Option<&Authority>) -> Arc<ServerConfig> {
        with_versions(params, issuer, rustls::ALL_VERSIONS)
    }

    pub(crate) fn with_versions(
        params: &CertificateParams,
        issuer: Option<&Authority>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate: Certificate = match issuer {
            Some(issuer) => params.signed_by(&key, issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        presenting(certificate.der().clone(), &key, versions)
    }

    /// Presents the octets as its certificate, whatever they are.
    pub(crate) fn presenting(
        certificate: CertificateDer<'static>,
        key: &KeyPair,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        presenting_chain(vec![certificate], key, versions)
    }

    /// Presents these as its certificate, and those that vouch for it.
    pub(crate) fn presenting_chain(
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPair,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = provider.key_provider.load_private_key(key).unwrap();
        let certified = CertifiedKey::new(chain, key);
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Always(Arc::new(certified))));
        Arc::new(config)
    }

    /// Takes the server's part of a handshake.
    pub(crate) fn accept(config: Arc<ServerConfig>, stream: TcpStream) -> Stream {
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream
    }

    /// Ends the session in order, and waits for the client to end the connection.
    pub(crate) fn finish(mut stream: Stream) {
        stream.conn.send_close_notify();
        let _ = stream.flush_all();
        stream.sock.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = std::io::copy(&mut stream.sock, &mut std::io::sink());
    }

    trait FlushAll {
        fn flush_all(&mut self) -> std::io::Result<()>;
    }

    impl FlushAll for Stream {
        fn flush_all(&mut self) -> std::io::Result<()> {
            while self.conn.wants_write() {
                self.conn.write_tls(&mut self.sock)?;
            }
            Ok(())
        }
    }
}

/// The terms on which nothing is asked of the server of this name or address.
pub(crate) fn terms(server: &str) -> Arc<TlsTerms> {
    Arc::new(TlsTerms::opportunistic(host(server)))
}

/// What a handshake of the newest version comes to.
pub(crate) fn tls(verification: Verification) -> Tls {
    Tls {
        cipher_suite: Some("TLS13_AES_256_GCM_SHA384"),
        group: Some("X25519MLKEM768"),
        ..Tls::new(TlsVersion::V1_3, verification)
    }
}
