//! A scripted SMTP server on loopback that records every octet with its time and its connection.

use super::auth::{self, Account};
use super::smtp_records::{Connection, Line, Message, Records, Side, verb_of};
use super::smtp_script::{Action, Command, Script};
use super::{PATIENCE, unique_loopback};
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use rustls::{HandshakeKind, ServerConnection};
use std::io::{self, BufRead, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

struct Shared {
    script: Script,
    records: Mutex<Records>,
    changed: Condvar,
    streams: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Records) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }
}

/// A running server. Dropping it closes everything, and fails the test if the client violated the protocol.
pub(crate) struct SmtpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl SmtpServer {
    /// On a loopback address of its own, at a port the kernel chose.
    pub(crate) fn start(script: Script) -> Self {
        Self::start_at(script, SocketAddr::from((unique_loopback(), 0)))
    }

    /// On a loopback address of its own, at the port of another server.
    pub(crate) fn start_beside(script: Script, other: &Self) -> Self {
        Self::start_at(script, SocketAddr::from((unique_loopback(), other.port())))
    }

    pub(crate) fn start_at(script: Script, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        // Where many connect at once, those beyond the usual 128 would be tried again by the kernel after seconds.
        listen(&listener, Backlog::new(1024).unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script,
            records: Mutex::default(),
            changed: Condvar::new(),
            streams: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn records(&self) -> Records {
        self.shared.lock().clone()
    }

    /// Blocks until the records fulfil the condition, and returns them.
    pub(crate) fn wait(&self, what: &str, condition: impl Fn(&Records) -> bool) -> Records {
        let guard = self.shared.lock();
        let unfulfilled = |records: &mut Records| !condition(records);
        let (guard, timeout) =
            self.shared.changed.wait_timeout_while(guard, PATIENCE * 2, unfulfilled).unwrap();
        assert!(!timeout.timed_out(), "waited in vain until {what}");
        guard.clone()
    }

    pub(crate) fn wait_for_messages(&self, count: usize) -> Records {
        self.wait(&format!("{count} messages are accepted"), |records| records.accepted().len() >= count)
    }

    pub(crate) fn wait_for_connections(&self, count: usize) -> Records {
        self.wait(&format!("{count} connections were opened"), |r| r.connections.len() >= count)
    }

    /// Blocks until no connection is open any more.
    pub(crate) fn wait_until_closed(&self) -> Records {
        self.wait("all connections are closed", |records| {
            !records.connections.is_empty() && records.connections.iter().all(|c| c.closed.is_some())
        })
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let records = self.shared.lock();
        if std::thread::panicking() {
            eprintln!("--- server {} ---\n{}", self.address, records.transcript());
            eprintln!("violations: {:?}", records.violations);
        } else if !self.shared.script.lenient {
            assert!(
                records.violations.is_empty(),
                "the client violated the protocol: {:?}\n{}",
                records.violations,
                records.transcript()
            );
        }
    }
}

/// The greatest number of connections that were open at the same time over these servers.
pub(crate) fn most_simultaneous(servers: &[&SmtpServer]) -> usize {
    let mut edges: Vec<(Instant, isize)> = Vec::new();
    for server in servers {
        for connection in server.records().connections {
            edges.push((connection.opened, 1));
            // After the 221 was said the client may close at any time, and we hear of it late.
            let farewell =
                connection.lines.iter().find(|line| line.text.starts_with(b"221")).map(|line| line.at);
            edges.extend(farewell.or(connection.closed).map(|at| (at, -1)));
        }
    }
    edges.sort();
    let (mut open, mut most) = (0, 0);
    for (_, step) in edges {
        open += step;
        most = most.max(open);
    }
    usize::try_from(most).unwrap_or(0)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, peer)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        shared.streams.lock().unwrap().extend(stream.try_clone());
        let opened = Instant::now();
        let tls = shared.script.implicit_tls;
        let connection =
            Connection { peer, opened, closed: None, tls, authenticated: None, lines: Vec::new() };
        let id = shared.change(|records| {
            records.connections.push(connection);
            records.connections.len() - 1
        });
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let wire = Wire { stream, tls: None, buffer: Vec::new() };
            let mut talk = Talk { id, shared, wire, said_hello: false, keywords: Vec::new(), envelope: None };
            let _ = talk.run();
            let _ = talk.wire.stream.shutdown(Shutdown::Both);
            talk.shared.change(|records| records.connections[id].closed = Some(Instant::now()));
        });
    }
}

/// The transport: a socket, perhaps with TLS on it, and what was read but not used.
struct Wire {
    stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
    buffer: Vec<u8>,
}

impl Wire {
    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16384];
        let count = match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).read(&mut chunk)?,
            None => self.stream.read(&mut chunk)?,
        };
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).write_all(octets),
            None => self.stream.write_all(octets),
        }
    }

    /// Reads until `found` gives the length of a unit, and takes the unit out.
    fn take(&mut self, found: impl Fn(&[u8]) -> Option<usize>) -> io::Result<Vec<u8>> {
        loop {
            if let Some(length) = found(&self.buffer) {
                return Ok(self.buffer.drain(..length).collect());
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// RFC 5321 section 4.1.1.4: only CRLF "." CRLF ends the data; a lone dot ends empty data.
    fn take_data(&mut self) -> io::Result<Vec<u8>> {
        let mut start = 0;
        loop {
            // `skip_until` searches with the standard library's optimised code, also in a debug build.
            let length = (&self.buffer[start..]).skip_until(b'\n')?;
            let line = &self.buffer[start..start + length];
            if !line.ends_with(b"\n") {
                if self.fill()? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            }
            let ended = line == b".\r\n" && (start == 0 || self.buffer[..start].ends_with(b"\r\n"));
            start += length;
            if ended {
                return Ok(self.buffer.drain(..start).collect());
            }
        }
    }
}

struct Envelope {
    mail: String,
    recipients: Vec<String>,
}

/// One conversation.
struct Talk {
    id: usize,
    shared: Arc<Shared>,
    wire: Wire,
    said_hello: bool,
    keywords: Vec<String>,
    envelope: Option<Envelope>,
}

impl Talk {
    fn run(&mut self) -> io::Result<()> {
        if self.shared.script.implicit_tls {
            self.handshake()?;
        }
        let greeting = self.decide("GREETING", "").unwrap_or_else(|| "220 scripted.example ESMTP".into());
        self.perform(greeting)?;
        loop {
            let line = self.read_line()?;
            self.command(&line)?;
        }
    }

    fn command(&mut self, line: &str) -> io::Result<()> {
        let verb = verb_of(line);
        let offers = |keywords: &[String], name| keywords.iter().any(|k| verb_of(k) == name);
        if !self.wire.buffer.is_empty()
            && (!offers(&self.keywords, "PIPELINING")
                || ["EHLO", "HELO", "DATA", "STARTTLS", "AUTH", "QUIT", "NOOP"].contains(&verb.as_str()))
        {
            self.violation(format!("{line:?} was followed by more before its reply"));
        }
        let scripted = self.decide(&verb, line);
        match verb.as_str() {
            "DATA" => return self.data(scripted),
            "STARTTLS" => return self.starttls(scripted),
            "AUTH" if scripted.is_none() => return self.authenticate(line),
            _ => {}
        }
        let action = scripted.unwrap_or_else(|| self.usual(&verb, line));
        let code = self.perform(action)?;
        self.after(&verb, line, code);
        if verb == "QUIT" {
            // RFC 5321 section 4.1.1.10: the server closes after its 221.
            let _ = self.wire.stream.shutdown(Shutdown::Write);
            while self.wire.fill()? > 0 {}
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// What a correct server answers.
    fn usual(&mut self, verb: &str, line: &str) -> Action {
        let mut text = "250 2.0.0 ok".to_owned();
        match verb {
            "EHLO" => {
                let lines: Vec<String> =
                    std::iter::once("scripted.example greets you".to_owned()).chain(self.offered()).collect();
                let last = lines.len() - 1;
                let hyphen = |at| if at == last { ' ' } else { '-' };
                let lines: Vec<String> =
                    lines.iter().enumerate().map(|(at, line)| format!("250{}{line}", hyphen(at))).collect();
                text = lines.join("\r\n");
            }
            "HELO" => text = "250 scripted.example".to_owned(),
            "MAIL" if !self.said_hello || self.envelope.is_some() => text = self.out_of_order(line),
            "RCPT" if self.envelope.is_none() => text = self.out_of_order(line),
            "MAIL" | "RCPT" | "RSET" | "NOOP" => {}
            "QUIT" => text = "221 2.0.0 bye".to_owned(),
            _ => {
                self.violation(format!("unknown command {line:?}"));
                text = "500 5.5.1 what".to_owned();
            }
        }
        Action::Reply(text)
    }

    fn out_of_order(&mut self, line: &str) -> String {
        // A pipelined command after a refused MAIL is legal.
        if !self.keywords.iter().any(|keyword| verb_of(keyword) == "PIPELINING") {
            self.violation(format!("{line:?} is out of order"));
        }
        "503 5.5.1 out of order".to_owned()
    }

    fn offered(&self) -> Vec<String> {
        let script = &self.shared.script;
        let list = match (&self.wire.tls, &script.keywords_in_tls) {
            (Some(_), Some(keywords)) => keywords,
            _ => &script.keywords,
        };
        let hidden = self.wire.tls.is_some();
        list.iter().filter(|keyword| !(hidden && *keyword == "STARTTLS")).cloned().collect()
    }

    /// Follows the state of the conversation from the reply that was really given.
    fn after(&mut self, verb: &str, line: &str, code: u8) {
        match verb {
            "EHLO" | "HELO" if code == b'2' => {
                self.said_hello = true;
                self.envelope = None;
                self.keywords = if verb == "EHLO" { self.offered() } else { Vec::new() };
            }
            "MAIL" if code == b'2' => {
                self.envelope = Some(Envelope { mail: line.to_owned(), recipients: Vec::new() });
            }
            "RCPT" if code == b'2' => {
                if let Some(envelope) = &mut self.envelope {
                    envelope.recipients.push(line.to_owned());
                }
            }
            "RSET" if code == b'2' => self.envelope = None,
            _ => {}
        }
    }

    fn data(&mut self, scripted: Option<Action>) -> io::Result<()> {
        let accepted = self.envelope.as_ref().is_some_and(|envelope| !envelope.recipients.is_empty());
        let action = scripted.unwrap_or_else(|| if accepted { "354 go on" } else { "503 5.5.1 no" }.into());
        if let Action::TakeData(count, then) = action {
            self.say(b"354 go on\r\n")?;
            let part = self.wire.take(|buffer| (buffer.len() >= count).then_some(count))?;
            self.record(Side::Client, part);
            self.perform(*then)?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.perform(action)? != b'3' {
            return Ok(());
        }
        let raw = self.wire.take_data()?;
        let octets = remove_dots(&raw[..raw.len() - 3]);
        self.check_line_ends(&octets);
        self.record(Side::Client, raw);
        let action = self.decide(".", "").unwrap_or_else(|| "250 2.0.0 queued".into());
        let envelope = self.envelope.take().unwrap_or(Envelope { mail: String::new(), recipients: vec![] });
        let message = Message {
            connection: self.id,
            mail: envelope.mail,
            recipients: envelope.recipients,
            data: octets,
            accepted: false,
            at: Instant::now(),
            tls: self.wire.tls.is_some(),
        };
        let at = self.shared.change(|records| {
            records.messages.push(message);
            records.messages.len() - 1
        });
        if let Action::Reply(text) | Action::Dribble(text) | Action::ReplyThenClose(text) = &action
            && text.starts_with('2')
        {
            // Recorded before it is said, so that a test that sees its effects also finds the record.
            self.shared.change(|records| records.messages[at].accepted = true);
        }
        let code = self.perform(action)?;
        self.shared.change(|records| records.messages[at].accepted = code == b'2');
        Ok(())
    }

    fn starttls(&mut self, scripted: Option<Action>) -> io::Result<()> {
        let offered = self.shared.script.identity.is_some() && self.wire.tls.is_none();
        let usual = if offered { "220 2.0.0 go ahead" } else { "502 5.5.1 no" };
        if !self.keywords.iter().any(|keyword| keyword == "STARTTLS") {
            self.violation("STARTTLS was not offered".to_owned());
        }
        let code = match scripted.unwrap_or_else(|| usual.into()) {
            Action::RawThenTls(octets) => {
                self.say(&octets)?;
                b'2'
            }
            action => self.perform(action)?,
        };
        if code == b'2' {
            self.handshake()?;
            // RFC 3207 section 4.2: the client must say EHLO again.
            (self.said_hello, self.envelope) = (false, None);
            self.keywords.clear();
        }
        Ok(())
    }

    fn handshake(&mut self) -> io::Result<()> {
        let Some(identity) = &self.shared.script.identity else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let config = Arc::clone(&identity.config);
        let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut self.wire.stream)?;
        }
        if self.shared.script.drops_resumed_sessions && tls.handshake_kind() == Some(HandshakeKind::Resumed) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.wire.tls = Some(Box::new(tls));
        self.shared.change(|records| records.connections[self.id].tls = true);
        Ok(())
    }

    fn authenticate(&mut self, line: &str) -> io::Result<()> {
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or("").to_ascii_uppercase();
        let initial = words.next().map(str::to_owned);
        let offered = self.keywords.iter().find(|keyword| verb_of(keyword) == "AUTH");
        if !offered.is_some_and(|keyword| keyword.split(' ').any(|word| word == mechanism)) {
            self.violation(format!("{line:?}: the mechanism was not offered"));
        }
        let script = self.shared.script.clone();
        let (user, password) = script.credentials.clone().unwrap_or_default();
        let account = Account { user: &user, password: &password, scram_lies: script.scram_lies };
        let mut broken = None;
        let proved = auth::verify(&account, &mechanism, initial.as_deref(), &mut |challenge| {
            let answer = self.say(format!("334 {challenge}\r\n").as_bytes()).and_then(|()| self.read_line());
            answer.map_err(|error| broken = Some(error)).ok().filter(|answer| answer != "*")
        });
        if let Some(error) = broken {
            return Err(error);
        }
        if proved {
            self.shared.change(|records| records.connections[self.id].authenticated = Some(mechanism));
        }
        self.say(if proved { b"235 2.7.0 welcome\r\n" } else { b"535 5.7.8 go away\r\n" })
    }

    /// Does it, and returns the first digit of what was said.
    fn perform(&mut self, action: Action) -> io::Result<u8> {
        let ended = |text: &str| format!("{text}\r\n").into_bytes();
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        match action {
            Action::Reply(text) => {
                self.say(&ended(&text))?;
                Ok(text.as_bytes().first().copied().unwrap_or(0))
            }
            Action::Raw(octets) | Action::RawThenTls(octets) => {
                self.say(&octets)?;
                Ok(octets.first().copied().unwrap_or(0))
            }
            Action::Dribble(text) => {
                self.wire.stream.set_nodelay(true)?;
                for octet in ended(&text) {
                    self.wire.write(&[octet])?;
                }
                self.record(Side::Server, ended(&text));
                Ok(text.as_bytes().first().copied().unwrap_or(0))
            }
            Action::ReplyThenClose(text) => {
                self.say(&ended(&text))?;
                // A close with unread input would be a reset, which may overtake the reply.
                let _ = self.wire.stream.shutdown(Shutdown::Write);
                while self.wire.fill().is_ok_and(|count| count > 0) {}
                Err(gone())
            }
            Action::Close => Err(gone()),
            Action::Reset => {
                let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                let _ = setsockopt(&self.wire.stream, sockopt::Linger, &linger);
                self.shared.streams.lock().unwrap().clear();
                let placeholder = TcpListener::bind((unique_loopback(), 0))?;
                let spare = TcpStream::connect(placeholder.local_addr()?)?;
                // Dropping the last descriptor with a zero linger time sends the reset.
                drop(std::mem::replace(&mut self.wire.stream, spare));
                Err(gone())
            }
            Action::Silence => Ok(0),
            Action::Stall | Action::TakeData(..) => {
                while self.wire.fill()? > 0 {}
                Err(gone())
            }
            Action::After(gate, action) => {
                gate.pass();
                self.perform(*action)
            }
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let line =
            self.wire.take(|buffer| buffer.iter().position(|octet| *octet == b'\n').map(|at| at + 1))?;
        let text = line.strip_suffix(b"\r\n").unwrap_or(&line).to_vec();
        if text.len() + 2 != line.len() || text.iter().any(|octet| b"\0\r\n".contains(octet)) {
            self.violation(format!("the line {:?} is not well-formed", line.escape_ascii().to_string()));
        }
        if line.len() > 1024 {
            self.violation(format!("a command line has {} octets", line.len()));
        }
        self.record(Side::Client, text.clone());
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn check_line_ends(&mut self, octets: &[u8]) {
        let bare = octets.iter().enumerate().any(|(at, octet)| match octet {
            b'\r' => octets.get(at + 1) != Some(&b'\n'),
            b'\n' => at == 0 || octets[at - 1] != b'\r',
            _ => false,
        });
        if bare {
            self.violation("the mail data has a bare CR or LF".to_owned());
        }
    }

    fn decide(&self, verb: &str, line: &str) -> Option<Action> {
        let tls = self.wire.tls.is_some();
        self.shared.script.decide(&Command { connection: self.id, verb, line, tls })
    }

    fn say(&mut self, octets: &[u8]) -> io::Result<()> {
        self.record(Side::Server, octets.strip_suffix(b"\r\n").unwrap_or(octets).to_vec());
        self.wire.write(octets)
    }

    fn record(&self, side: Side, text: Vec<u8>) {
        let line = Line { at: Instant::now(), side, tls: self.wire.tls.is_some(), text };
        self.shared.change(|records| records.connections[self.id].lines.push(line));
    }

    fn violation(&self, text: String) {
        self.shared.change(|records| records.violations.push(text));
    }
}

/// RFC 5321 section 4.5.2, the receiver's half.
fn remove_dots(data: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(data.len());
    for line in data.split_inclusive(|octet| *octet == b'\n') {
        plain.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    plain
}
