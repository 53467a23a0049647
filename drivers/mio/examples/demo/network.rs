//! What the servers of the demonstration stand on: addresses of the loopback network, and a certificate.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::Result;

/// How often a port is drawn that is free at one address, but not at all of them.
const PORT_ATTEMPTS: u32 = 50;

/// Listens at several addresses on one and the same port, which the system draws.
pub(crate) fn listen_on_one_port(addresses: &[Ipv4Addr]) -> Result<(u16, Vec<TcpListener>)> {
    let mut last_error = None;
    for _ in 0..PORT_ATTEMPTS {
        match try_to_listen(addresses) {
            Ok(listening) => return Ok(listening),
            Err(error) => last_error = Some(error),
        }
    }
    Err(last_error.map_or("there is no address to listen at".into(), Into::into))
}

fn try_to_listen(addresses: &[Ipv4Addr]) -> io::Result<(u16, Vec<TcpListener>)> {
    let mut port = 0;
    let mut listeners = Vec::new();
    for &address in addresses {
        let listener = TcpListener::bind(SocketAddr::new(address.into(), port))?;
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok((port, listeners))
}

/// A self-signed certificate and what a server needs to present it.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// The certificate, for a trust file.
    pub(crate) pem: String,
    /// The server's side of TLS.
    pub(crate) config: Arc<ServerConfig>,
}

impl Certificate {
    /// A new one for the host.
    pub(crate) fn for_host(host: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, host);
        let certificate = params.self_signed(&key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Self { pem: certificate.pem(), config: Arc::new(config) })
    }
}
