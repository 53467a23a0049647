//! SMTP servers, each with its own manners and on a thread of its own.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustls::ServerConfig;

use crate::Result;
use crate::wire::{Conversation, Wire};

/// How a server uses TLS.
#[derive(Clone, Debug)]
pub(crate) enum Tls {
    /// Not at all.
    None,
    /// When asked by STARTTLS (RFC 3207).
    Offered(Arc<ServerConfig>),
    /// From the first octet on (RFC 8314 section 3).
    Implicit(Arc<ServerConfig>),
}

/// What a server is like.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    /// Its name.
    pub(crate) name: &'static str,
    /// What is special about it, in the words of the report.
    pub(crate) about: &'static str,
    /// How it uses TLS.
    pub(crate) tls: Tls,
    /// The argument of AUTH PLAIN (RFC 4616) without which it takes no mail.
    pub(crate) credentials: Option<&'static str>,
    /// Whether it refuses every recipient whom it has not seen before.
    pub(crate) greylists: bool,
    /// The recipient whom it does not know.
    pub(crate) unknown_recipient: Option<&'static str>,
}

impl Manners {
    /// A server that takes everything.
    pub(crate) fn friendly(name: &'static str, about: &'static str, tls: Tls) -> Self {
        Self { name, about, tls, credentials: None, greylists: false, unknown_recipient: None }
    }
}

/// A mail that a server has taken responsibility for.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// The reverse-path; empty for a bounce.
    pub(crate) sender: String,
    /// The forward-paths that were accepted.
    pub(crate) recipients: Vec<String>,
    /// The mail data, without the dots that SMTP doubles.
    pub(crate) data: Vec<u8>,
    /// Whether it came encrypted.
    pub(crate) by_tls: bool,
    /// Whether the client had shown the right credentials.
    pub(crate) authenticated: bool,
}

/// What a server has seen.
#[derive(Debug)]
pub(crate) struct Record {
    /// What it was like.
    pub(crate) manners: Manners,
    /// Where it was.
    pub(crate) address: SocketAddr,
    /// Everything that was said, one connection after the other.
    pub(crate) conversations: Vec<Conversation>,
    /// Everything that it has accepted.
    pub(crate) received: Vec<Received>,
    /// The recipients that asked before, if it greylists.
    seen: BTreeSet<String>,
}

/// A running server. It deals with one connection after the other.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stops: Arc<AtomicBool>,
    thread: JoinHandle<Record>,
}

impl Server {
    /// Starts a server.
    pub(crate) fn start(listener: TcpListener, manners: Manners) -> Result<Self> {
        let address = listener.local_addr()?;
        let stops = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stops);
        let thread = thread::spawn(move || {
            let mut record = Record {
                manners,
                address,
                conversations: Vec::new(),
                received: Vec::new(),
                seen: BTreeSet::new(),
            };
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                record.serve(stream);
            }
            record
        });
        Ok(Self { address, stops, thread })
    }

    /// Ends the server when the last connection is over, and says what it has seen.
    pub(crate) fn stop(self) -> Result<Record> {
        self.stops.store(true, Ordering::SeqCst);
        // It waits for a connection, so it gets one.
        TcpStream::connect(self.address)?;
        self.thread.join().map_err(|_| "an SMTP server has panicked".into())
    }
}

/// What the client has said so far.
#[derive(Debug, Default)]
struct Session {
    authenticated: bool,
    sender: Option<String>,
    recipients: Vec<String>,
}

impl Record {
    /// The address of the server.
    pub(crate) fn ip(&self) -> Ipv4Addr {
        match self.address.ip() {
            std::net::IpAddr::V4(address) => address,
            std::net::IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }

    fn serve(&mut self, stream: TcpStream) {
        let Ok(mut wire) = Wire::new(stream) else { return };
        if let Err(error) = self.converse(&mut wire) {
            wire.note(&format!("lost: {error}"));
        }
        wire.close();
        self.conversations.push(wire.conversation);
    }

    fn converse(&mut self, wire: &mut Wire) -> Result<()> {
        if let Tls::Implicit(config) = &self.manners.tls {
            wire.start_tls(config)?;
        }
        wire.say(&format!("220 {} ESMTP", self.manners.name))?;
        let mut session = Session::default();
        while let Some(line) = wire.read_until(b"\r\n")? {
            let line = String::from_utf8_lossy(&line).into_owned();
            let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
            // What was shown to a server is not shown to whoever looks over a shoulder.
            wire.heard(if verb == "AUTH" { "AUTH PLAIN ********" } else { &line });
            match verb {
                "EHLO" => wire.say(&self.extensions(wire.is_tls()))?,
                "STARTTLS" => {
                    session = Session::default();
                    self.start_tls(wire)?;
                }
                "AUTH" => wire.say(self.authenticate(&mut session, argument))?,
                "MAIL" => wire.say(self.mail(&mut session, argument))?,
                "RCPT" => wire.say(&self.rcpt(&mut session, argument))?,
                "DATA" => self.data(wire, &mut session)?,
                "RSET" => {
                    session.sender = None;
                    session.recipients.clear();
                    wire.say("250 2.0.0 Ok")?;
                }
                "NOOP" => wire.say("250 2.0.0 Ok")?,
                "QUIT" => {
                    wire.say("221 2.0.0 Bye")?;
                    break;
                }
                _ => wire.say("500 5.5.2 Command not recognized")?,
            }
        }
        Ok(())
    }

    fn extensions(&self, is_tls: bool) -> String {
        let mut lines = vec![self.manners.name, "8BITMIME"];
        if matches!(self.manners.tls, Tls::Offered(_)) && !is_tls {
            lines.push("STARTTLS");
        }
        if self.manners.credentials.is_some() {
            lines.push("AUTH PLAIN");
        }
        let last = lines.len().saturating_sub(1);
        let numbered = lines.iter().enumerate();
        let lines = numbered.map(|(at, line)| format!("250{}{line}", if at == last { ' ' } else { '-' }));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn start_tls(&self, wire: &mut Wire) -> Result<()> {
        match &self.manners.tls {
            Tls::Offered(config) if !wire.is_tls() => {
                // RFC 3207 section 6: what was sent before the handshake must not count after it.
                if wire.has_more() {
                    return Err("the client did not wait for the reply to STARTTLS".into());
                }
                wire.say("220 2.0.0 Ready to start TLS")?;
                wire.start_tls(config)
            }
            Tls::Offered(_) | Tls::Implicit(_) | Tls::None => wire.say("502 5.5.1 Not implemented"),
        }
    }

    fn authenticate(&self, session: &mut Session, argument: &str) -> &'static str {
        session.authenticated = argument.strip_prefix("PLAIN ").is_some_and(|shown| self.is_secret(shown));
        if session.authenticated { "235 2.7.0 Welcome" } else { "535 5.7.8 Wrong credentials" }
    }

    fn is_secret(&self, shown: &str) -> bool {
        self.manners.credentials == Some(shown)
    }

    fn mail(&self, session: &mut Session, argument: &str) -> &'static str {
        if self.manners.credentials.is_some() && !session.authenticated {
            return "530 5.7.0 Authentication required";
        }
        let Some(sender) = path(argument, "FROM:") else { return "501 5.5.4 Syntax: MAIL FROM:<address>" };
        session.sender = Some(sender);
        session.recipients.clear();
        "250 2.1.0 Ok"
    }

    fn rcpt(&mut self, session: &mut Session, argument: &str) -> String {
        if session.sender.is_none() {
            return "503 5.5.1 MAIL first".to_owned();
        }
        let Some(recipient) = path(argument, "TO:") else {
            return "501 5.5.4 Syntax: RCPT TO:<address>".to_owned();
        };
        if self.manners.unknown_recipient == Some(&*recipient) {
            return format!("550 5.1.1 <{recipient}>: no such mailbox here");
        }
        if self.manners.greylists && self.seen.insert(recipient.clone()) {
            return "450 4.2.0 Greylisted, please try again later".to_owned();
        }
        session.recipients.push(recipient);
        "250 2.1.5 Ok".to_owned()
    }

    fn data(&mut self, wire: &mut Wire, session: &mut Session) -> Result<()> {
        if session.recipients.is_empty() {
            return wire.say("503 5.5.1 RCPT first");
        }
        wire.say("354 End data with <CR><LF>.<CR><LF>")?;
        let sent = wire.read_until(b"\r\n.\r\n")?.ok_or("the connection ended within the mail data")?;
        let data = without_doubled_dots(&sent);
        wire.note(&format!("{} octets of mail data", data.len()));
        wire.heard(".");
        self.received.push(Received {
            sender: session.sender.take().unwrap_or_default(),
            recipients: std::mem::take(&mut session.recipients),
            data,
            by_tls: wire.is_tls(),
            authenticated: session.authenticated,
        });
        wire.say("250 2.0.0 Ok: it is in the mailbox")
    }
}

/// The address in the argument of MAIL or RCPT, whose parameters do not matter here.
fn path(argument: &str, keyword: &str) -> Option<String> {
    let (path, _) = argument.strip_prefix(keyword)?.trim_start().strip_prefix('<')?.split_once('>')?;
    Some(path.to_owned())
}

/// The mail data, with its last line end, as RFC 5321 section 4.5.2 says.
fn without_doubled_dots(sent: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(sent.len());
    let mut begins_line = true;
    for &octet in sent {
        if !(begins_line && octet == b'.') {
            data.push(octet);
        }
        begins_line = octet == b'\n';
    }
    data.extend(b"\r\n");
    data
}
