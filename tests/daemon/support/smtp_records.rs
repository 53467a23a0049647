//! What a scripted SMTP server remembers of its conversations.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

/// Who said a line of a transcript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// One line of a transcript; mail data is one single line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) side: Side,
    pub(crate) tls: bool,
    pub(crate) text: Vec<u8>,
}

/// One connection, from accept to close.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    pub(crate) opened: Instant,
    pub(crate) closed: Option<Instant>,
    pub(crate) tls: bool,
    /// The mechanism by which the client proved itself.
    pub(crate) authenticated: Option<String>,
    pub(crate) lines: Vec<Line>,
}

impl Connection {
    /// The lines the client sent, in order, without mail data and answers to AUTH challenges.
    pub(crate) fn commands(&self) -> Vec<String> {
        let client = self.lines.iter().filter(|line| line.side == Side::Client);
        client.map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
    }

    /// The verbs of the commands, in order.
    pub(crate) fn verbs(&self) -> Vec<String> {
        self.commands().iter().map(|line| verb_of(line)).collect()
    }

    pub(crate) fn count(&self, verb: &str) -> usize {
        self.verbs().iter().filter(|found| *found == verb).count()
    }
}

/// One message whose data came to an end.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) connection: usize,
    pub(crate) mail: String,
    /// The RCPT lines that were answered 2yz.
    pub(crate) recipients: Vec<String>,
    /// The data with the dots removed, line ends as they came.
    pub(crate) data: Vec<u8>,
    /// True when the end of the data was answered 2yz.
    pub(crate) accepted: bool,
    pub(crate) at: Instant,
    pub(crate) tls: bool,
}

impl Message {
    /// The addresses of the recipients.
    pub(crate) fn to(&self) -> Vec<String> {
        self.recipients.iter().map(|line| path_of(line)).collect()
    }

    pub(crate) fn from(&self) -> String {
        path_of(&self.mail)
    }
}

/// Everything a server has seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    pub(crate) connections: Vec<Connection>,
    pub(crate) messages: Vec<Message>,
    /// What the client did that no SMTP client may do.
    pub(crate) violations: Vec<String>,
}

impl Records {
    pub(crate) fn accepted(&self) -> Vec<&Message> {
        self.messages.iter().filter(|message| message.accepted).collect()
    }

    /// All recipients of accepted messages, sorted.
    pub(crate) fn delivered_to(&self) -> Vec<String> {
        let mut all: Vec<String> = self.accepted().iter().flat_map(|message| message.to()).collect();
        all.sort();
        all
    }

    /// How many commands of this verb came over all connections.
    pub(crate) fn count(&self, verb: &str) -> usize {
        self.connections.iter().map(|connection| connection.count(verb)).sum()
    }

    pub(crate) fn transcript(&self) -> String {
        let mut text = String::new();
        for (id, connection) in self.connections.iter().enumerate() {
            let _ = writeln!(text, "connection {id}:");
            for line in &connection.lines {
                let side = if line.side == Side::Client { "C" } else { "S" };
                let lock = if line.tls { "*" } else { ":" };
                let shown = &line.text[..line.text.len().min(300)];
                let _ = writeln!(text, "  {side}{lock} {}", shown.escape_ascii());
            }
            let _ = writeln!(text, "  {}", if connection.closed.is_some() { "closed" } else { "open" });
        }
        text
    }
}

pub(crate) fn verb_of(line: &str) -> String {
    line.split([' ', ':']).next().unwrap_or("").to_ascii_uppercase()
}

/// What stands between the angle brackets of a MAIL or RCPT line.
pub(crate) fn path_of(line: &str) -> String {
    let start = line.find('<').map_or(0, |at| at + 1);
    let end = line.rfind('>').unwrap_or(line.len());
    line[start..end].to_owned()
}
