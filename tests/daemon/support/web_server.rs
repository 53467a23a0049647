//! A host of the web on loopback, over TLS, which says whatever a test wants.

use super::tls::Identity;
use super::unique_loopback;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What it says, and what it was asked.
struct Said {
    config: Arc<ServerConfig>,
    answer: Vec<u8>,
    /// The names that it was asked for in TLS, and the first lines of the requests.
    asked: Vec<(String, String)>,
}

/// A running server.
pub(crate) struct WebServer {
    address: SocketAddr,
    said: Arc<Mutex<Said>>,
    stopping: Arc<AtomicBool>,
}

impl WebServer {
    pub(crate) fn start(identity: &Identity) -> Self {
        let listener = TcpListener::bind((unique_loopback(), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let said = Said { config: identity.server_config(), answer: Vec::new(), asked: Vec::new() };
        let (said, stopping) = (Arc::new(Mutex::new(said)), Arc::new(AtomicBool::new(false)));
        let (shared, is_over) = (Arc::clone(&said), Arc::clone(&stopping));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                // A client that does not like what it hears leaves.
                let _ = serve(stream, &shared);
            }
        });
        Self { address, said, stopping }
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on it says this: a status and fields, and a body.
    pub(crate) fn answer(&self, head: &str, body: &str) {
        let length = body.len();
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n{body}");
        self.said.lock().unwrap().answer = answer.into_bytes();
    }

    /// From now on it shows another certificate.
    pub(crate) fn show(&self, identity: &Identity) {
        self.said.lock().unwrap().config = identity.server_config();
    }

    /// The names that it was asked for in TLS, and the first lines of the requests.
    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        self.said.lock().unwrap().asked.clone()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if std::thread::panicking() {
            eprintln!("--- HTTPS ---\n{:#?}", self.asked());
        }
    }
}

fn serve(stream: TcpStream, said: &Mutex<Said>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(super::PATIENCE))?;
    let config = Arc::clone(&said.lock().unwrap().config);
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut head = String::new();
    let mut reader = BufReader::new(&mut stream);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let name = stream.conn.server_name().unwrap_or_default().to_owned();
    let first = head.lines().next().unwrap_or_default().to_owned();
    let answer = {
        let mut said = said.lock().unwrap();
        said.asked.push((name, first));
        said.answer.clone()
    };
    stream.write_all(&answer)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    std::io::copy(&mut stream.sock, &mut std::io::sink()).map(drop)
}
