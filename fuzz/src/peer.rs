//! The other ends of the dispatcher's connections and queries: they read along what is sent, so that they know what a
//! server has taken, and can be polite.

use std::net::SocketAddr;

use bytes::Bytes;
use cmail_delivery::io::Purpose;
use cmail_delivery::reply::{ReplyClass, ReplyParser};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, MX, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Open,
    /// TLS is being begun.
    Handshake,
}

/// A server, as far as it has to be one.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) purpose: Purpose,
    pub(crate) state: State,
    port: u16,
    is_tls: bool,
    /// What has come in without its end.
    partial: Vec<u8>,
    is_in_data: bool,
    /// What is to be replied to: a command line, or `.` for the end of the data.
    pending: Option<String>,
    replies: ReplyParser,
    recipient: String,
    /// Recipients that it has accepted in this transaction.
    accepted: Vec<String>,
    /// Responses in the running authentication.
    responses: usize,
}

impl Peer {
    pub(crate) fn new(purpose: Purpose, remote: SocketAddr) -> Self {
        Self {
            purpose,
            state: State::Connecting,
            port: remote.port(),
            is_tls: false,
            partial: Vec::new(),
            is_in_data: false,
            pending: Some(String::from("greeting")),
            replies: ReplyParser::default(),
            recipient: String::new(),
            accepted: Vec::new(),
            responses: 0,
        }
    }

    /// Takes octets of the client.
    pub(crate) fn receive(&mut self, octets: &[u8]) {
        if self.purpose == Purpose::Dns {
            return;
        }
        self.partial.extend_from_slice(octets);
        while let Some(end) = self.partial.iter().position(|&octet| octet == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let line = line.strip_suffix(b"\r\n").expect("a bare LF");
            assert!(!line.contains(&b'\r'), "a bare CR");
            if self.is_in_data {
                if line == b"." {
                    self.is_in_data = false;
                    self.pending = Some(String::from("."));
                }
                continue;
            }
            assert_eq!(self.pending, None, "{} before the reply", line.escape_ascii());
            let text = String::from_utf8_lossy(line).into_owned();
            let path = text.strip_prefix("RCPT TO:<").and_then(|path| path.rsplit_once('>'));
            if let Some((path, _)) = path {
                path.clone_into(&mut self.recipient);
            }
            if text.starts_with("MAIL FROM:<") {
                self.accepted.clear();
            }
            let is_known = ["EHLO ", "HELO ", "MAIL ", "RCPT "].iter().any(|verb| text.starts_with(verb));
            let is_bare = matches!(text.as_str(), "STARTTLS" | "NOOP" | "RSET" | "DATA" | "QUIT");
            // A response may look like anything, but authentication comes before all mail.
            let is_known = is_known || is_bare;
            self.responses = if is_known || text.starts_with("AUTH ") { 0 } else { self.responses + 1 };
            self.pending = Some(text);
        }
    }

    pub(crate) fn tls_established(&mut self) {
        (self.state, self.is_tls) = (State::Open, true);
        // With STARTTLS the client goes on, else it waits for the greeting.
        if self.port != 465 {
            self.pending = None;
        }
    }

    /// Says something; returns whom it has taken responsibility for by that.
    pub(crate) fn say(&mut self, octets: &[u8]) -> Vec<String> {
        let mut taken = Vec::new();
        let mut rest = octets;
        while let Ok(Some(reply)) = self.replies.parse(&mut rest) {
            let class = reply.class();
            match self.pending.take().as_deref() {
                Some(".") if class == ReplyClass::Completed => taken.append(&mut self.accepted),
                Some("DATA") => self.is_in_data = class == ReplyClass::Intermediate,
                Some(text) if text.starts_with("RCPT ") && class == ReplyClass::Completed => {
                    self.accepted.push(std::mem::take(&mut self.recipient));
                }
                _ => {}
            }
        }
        taken
    }

    /// What a server replies that means well, if it has something to reply to.
    pub(crate) fn polite_reply(&self) -> Option<Vec<u8>> {
        let pending = self.pending.as_deref()?;
        let verb = pending.split(' ').next().unwrap_or_default();
        let reply = match (verb, self.responses) {
            ("greeting", _) => "220 mx",
            ("EHLO", _) if self.is_tls => "250-mx\r\n250-AUTH PLAIN LOGIN\r\n250 SMTPUTF8",
            ("EHLO", _) => "250-mx\r\n250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n250 SMTPUTF8",
            ("STARTTLS", _) => "220 go",
            ("DATA", _) => "354 go",
            ("QUIT", _) => "221 bye",
            ("AUTH", _) if pending == "AUTH LOGIN" => "334 VXNlcm5hbWU6",
            ("AUTH", _) => "235 ok",
            (_, 1) => "334 UGFzc3dvcmQ6",
            (_, 0) => "250 2.0.0 ok",
            _ => "235 ok",
        };
        Some(format!("{reply}\r\n").into_bytes())
    }
}

/// The answer to a question: a host for a domain and an address for a host, but for names that begin with what says
/// otherwise.
pub(crate) fn dns_response(asked: &Bytes) -> Vec<u8> {
    let mut message = Message::from_vec(asked).expect("a question");
    message.metadata.message_type = MessageType::Response;
    let query = message.queries.first().expect("a question").clone();
    let name = query.name().to_ascii();
    let exchange = |text: &str| Name::from_ascii(text).expect("a name");
    let data = match query.query_type() {
        _ if name.starts_with("nx") => {
            message.metadata.response_code = ResponseCode::NXDomain;
            // So that it may be kept (RFC 2308 section 5).
            let soa = SOA::new(exchange("ns.example."), exchange("admin.example."), 1, 2, 3, 4, 60);
            message.authorities.push(Record::from_rdata(exchange("example."), 60, RData::SOA(soa)));
            None
        }
        RecordType::MX if name.starts_with("nullmx") => Some(RData::MX(MX::new(0, Name::root()))),
        RecordType::MX if name.starts_with("nomx") => None,
        RecordType::MX => Some(RData::MX(MX::new(10, exchange("mx.example.net.")))),
        RecordType::A => Some(RData::A(A::new(192, 0, 2, 1))),
        _ => None,
    };
    if let Some(data) = data {
        message.answers.push(Record::from_rdata(query.name().clone(), 300, data));
    }
    message.to_vec().expect("a small message")
}
