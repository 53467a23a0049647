//! An SMTP server that takes everything and keeps nothing.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rcgen::generate_simple_self_signed;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Octets that are read at a time.
const READ_OCTETS: usize = 256 * 1024;

/// Whether it offers STARTTLS (RFC 3207).
#[derive(Clone, Copy)]
pub(crate) enum Tls {
    None,
    Offered,
}

#[derive(Default)]
struct Count {
    messages: u32,
    connections: u32,
    last: Option<Instant>,
}

/// A running server. Its threads end with the process.
pub(crate) struct Sink {
    port: u16,
    count: Arc<(Mutex<Count>, Condvar)>,
}

impl Sink {
    pub(crate) fn start(tls: Tls) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::<(Mutex<Count>, Condvar)>::default();
        let config = match tls {
            Tls::None => None,
            Tls::Offered => Some(tls_config()),
        };
        let counting = Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (count, config) = (Arc::clone(&counting), config.clone());
                count.0.lock().unwrap().connections += 1;
                // A connection that breaks takes no more mail, which shows in the count.
                std::thread::spawn(move || stream.and_then(|stream| serve(stream, config, &count)));
            }
        });
        Self { port, count }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn connections(&self) -> u32 {
        self.count.0.lock().unwrap().connections
    }

    /// When so many messages were there; nothing if they are not in time.
    pub(crate) fn wait_for(&self, messages: u32, patience: Duration) -> Option<Instant> {
        let guard = self.count.0.lock().unwrap();
        let missing = |count: &mut Count| count.messages < messages;
        let (guard, waited) = self.count.1.wait_timeout_while(guard, patience, missing).unwrap();
        guard.last.filter(|_| !waited.timed_out())
    }
}

fn tls_config() -> Arc<ServerConfig> {
    let certified = generate_simple_self_signed(["bench.example".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    Arc::new(config)
}

fn serve(
    mut stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    count: &(Mutex<Count>, Condvar),
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 bench.example ESMTP\r\n")?;
    let offered = if tls.is_some() { "250-STARTTLS\r\n" } else { "" };
    let mut talk = Talk::new(stream, offered, count);
    if talk.run()? == Next::Close {
        return Ok(());
    }
    let connection = ServerConnection::new(tls.unwrap()).map_err(io::Error::other)?;
    Talk::new(StreamOwned::new(connection, talk.stream.into_inner()), "", count).run().map(drop)
}

#[derive(PartialEq, Eq)]
enum Next {
    StartTls,
    Close,
}

struct Talk<'a, S> {
    stream: BufReader<S>,
    offered: &'static str,
    replies: Vec<u8>,
    count: &'a (Mutex<Count>, Condvar),
}

impl<'a, S: Read + Write> Talk<'a, S> {
    fn new(stream: S, offered: &'static str, count: &'a (Mutex<Count>, Condvar)) -> Self {
        Self { stream: BufReader::with_capacity(READ_OCTETS, stream), offered, replies: Vec::new(), count }
    }

    fn run(&mut self) -> io::Result<Next> {
        let mut line = Vec::new();
        loop {
            // Replies to commands that came together go together (RFC 2920 section 3.2).
            if self.stream.buffer().is_empty() {
                self.flush()?;
            }
            line.clear();
            if self.stream.read_until(b'\n', &mut line)? == 0 {
                return Ok(Next::Close);
            }
            let text = String::from_utf8_lossy(&line);
            let mut words = text.split_ascii_whitespace();
            match words.next().unwrap_or_default() {
                "EHLO" => self.reply(&format!(
                    "250-bench.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n{}250 SIZE 0",
                    self.offered
                )),
                "STARTTLS" => {
                    self.reply("220 go ahead");
                    self.flush()?;
                    return Ok(Next::StartTls);
                }
                "DATA" => {
                    self.reply("354 go ahead");
                    self.flush()?;
                    self.take_data()?;
                }
                "QUIT" => {
                    self.reply("221 2.0.0 bye");
                    self.flush()?;
                    return Ok(Next::Close);
                }
                _ => self.reply("250 2.0.0 fine"),
            }
        }
    }

    /// Reads up to the final dot.
    fn take_data(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        while line != b".\r\n" {
            line.clear();
            if self.stream.read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.take_message();
        Ok(())
    }

    fn take_message(&mut self) {
        let mut count = self.count.0.lock().unwrap();
        count.messages += 1;
        count.last = Some(Instant::now());
        self.count.1.notify_all();
        drop(count);
        self.reply("250 2.0.0 taken");
    }

    fn reply(&mut self, text: &str) {
        self.replies.extend(text.as_bytes());
        self.replies.extend(b"\r\n");
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.replies.is_empty() {
            self.stream.get_mut().write_all(&self.replies)?;
            self.stream.get_mut().flush()?;
            self.replies.clear();
        }
        Ok(())
    }
}
