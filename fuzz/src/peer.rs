//! The other ends of the dispatcher's connections and queries. They read what is sent, so that they know what a server has taken,
//! and can be polite.

use bytes::Bytes;
use cmail_delivery::io::Purpose;
use cmail_delivery::reply::ReplyClass;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, MX, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::command::Command;
use crate::conversation::Conversation;

/// The progress of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Open,
    /// TLS is being begun.
    Handshake,
}

/// A minimal server.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) purpose: Purpose,
    pub(crate) state: State,
    conversation: Conversation,
}

/// A message that a server has taken responsibility for.
pub(crate) struct Taken {
    pub(crate) reverse_path: String,
    /// Those that it has accepted.
    pub(crate) forward_paths: Vec<String>,
    /// As it stores it.
    pub(crate) lines: Vec<Vec<u8>>,
}

impl Peer {
    pub(crate) fn new(purpose: Purpose) -> Self {
        Self { purpose, state: State::Connecting, conversation: Conversation::new(false) }
    }

    /// Takes octets of the client.
    pub(crate) fn receive(&mut self, octets: &[u8]) {
        if self.purpose == Purpose::Smtp {
            self.conversation.receive(octets);
        }
    }

    pub(crate) fn tls_established(&mut self) {
        self.state = State::Open;
        self.conversation.tls_established();
    }

    /// Sends a reply. Returns the messages that it takes responsibility for by it.
    pub(crate) fn say(&mut self, octets: &[u8]) -> Vec<Taken> {
        let mut taken = Vec::new();
        for (command, reply) in self.conversation.says(octets) {
            if let Command::Message(number) = command
                && reply.class() == ReplyClass::Completed
            {
                let seen = &self.conversation.transactions()[number];
                taken.push(Taken {
                    reverse_path: seen.reverse_path.clone(),
                    forward_paths: seen.accepted_paths().map(str::to_owned).collect(),
                    lines: seen.lines(),
                });
            }
        }
        taken
    }

    /// Returns whether it has sent a reply that ends any conversation.
    pub(crate) fn is_over(&self) -> bool {
        self.conversation.is_over()
    }

    /// Returns the replies of a polite server with these extensions to this many commands; `None` if it owes none.
    pub(crate) fn polite_replies(&self, offers: &str, commands: usize) -> String {
        let commands = self.conversation.unanswered().take(commands);
        commands.map(|command| self.polite_reply(offers, command)).collect()
    }

    fn polite_reply(&self, offers: &str, command: Command) -> String {
        let conversation = &self.conversation;
        let reply = match (command, conversation.responses()) {
            (Command::Greeting | Command::StartTls, _) => "220 mx",
            (Command::Ehlo, _) => {
                let starttls = if conversation.is_tls() { "" } else { "250-STARTTLS\r\n" };
                return format!("250-mx\r\n{starttls}{offers}250-AUTH PLAIN LOGIN\r\n250 SMTPUTF8\r\n");
            }
            (Command::Auth, _) if conversation.last_line() == b"AUTH LOGIN" => "334 VXNlcm5hbWU6",
            (Command::Response, 1) => "334 UGFzc3dvcmQ6",
            (Command::Auth | Command::Response, _) => "235 ok",
            (Command::Data(_), _) => "354 go",
            (Command::Quit, _) => "221 bye",
            (
                Command::Helo
                | Command::Noop
                | Command::Rset
                | Command::Mail(_)
                | Command::Rcpt(..)
                | Command::Message(_),
                _,
            ) => "250 2.0.0 ok",
        };
        format!("{reply}\r\n")
    }
}

/// Returns the answer to a question: a host for a domain and an address for a host, except for names whose beginning says
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
