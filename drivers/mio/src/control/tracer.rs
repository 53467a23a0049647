//! Tells those who watch what is said on connections, line by line as it is said.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use cmail_delivery::address::MailDomain;
use cmail_delivery::dispatcher::Dispatcher;
use cmail_delivery::event::{Event, Said};
use cmail_delivery::io::{CloseReason, ConnectionId, Input, Output, Purpose};
use cmail_delivery::next_hop::{NextHop, Relay};
use cmail_delivery::one_line::{Octets, OneLine};
use cmail_delivery::outbox::MailId;
use cmail_delivery::watch::{Watch, WatchedDestination};
use serde::Serialize;

use super::AskId;

/// Most octets of a line that are kept until its end comes. A longer one is told in pieces.
const LINE_LIMIT_OCTETS: usize = 4096;

/// How mail data end.
const END_OF_DATA: &[u8] = b"\r\n.\r\n";

/// What somebody watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watcher {
    /// The conversations for this destination; all if there is none.
    pub(crate) destination: Option<WatchedDestination>,
    /// Whether mail data are told too, and not only counted.
    pub(crate) wants_data: bool,
}

/// Who watches, and what is known of the connections that they watch.
#[derive(Debug, Default)]
pub(super) struct Tracer {
    watchers: BTreeMap<AskId, Watcher>,
    talks: BTreeMap<ConnectionId, Talk>,
    /// Connections that are over. What was received on them before may still be told until the next input.
    over: Vec<ConnectionId>,
    /// Whether others are watched since the dispatcher was told.
    has_changed: bool,
}

/// A connection.
#[derive(Debug)]
struct Talk {
    next_hop: NextHop,
    host: String,
    remote: SocketAddr,
    /// The beginning of a line of the server, and the mail that it is about.
    reply: Partial,
    /// The same of mail data.
    data: Partial,
    /// Octets of mail data since the last line.
    data_octets: usize,
    /// The last of them.
    data_tail: Vec<u8>,
}

/// The beginning of a line.
#[derive(Debug, Default)]
struct Partial {
    mail: Option<MailId>,
    octets: Vec<u8>,
}

/// Who has said a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Speaker {
    Client,
    Server,
    /// Nobody: it has happened.
    Remark,
}

/// A line: the fields of the record `said`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    at_ms: u64,
    connection: Option<u64>,
    mail_id: Option<i64>,
    next_hop: String,
    host: Option<String>,
    address: Option<String>,
    port: Option<u16>,
    from: Speaker,
    text: String,
    #[serde(skip)]
    pub(super) watchers: Vec<AskId>,
}

impl Tracer {
    /// Returns whether somebody watches.
    pub(super) fn is_watched(&self) -> bool {
        !self.watchers.is_empty()
    }

    /// Lets somebody watch.
    pub(super) fn begin(&mut self, id: AskId, watcher: Watcher) {
        self.watchers.insert(id, watcher);
        self.has_changed = true;
    }

    /// Somebody watches no more.
    pub(super) fn end(&mut self, id: AskId) {
        self.has_changed |= self.watchers.remove(&id).is_some();
        if self.watchers.is_empty() {
            self.talks.clear();
        }
    }

    /// Returns what is watched now, if the dispatcher is to be told.
    pub(super) fn take_watch(&mut self) -> Option<Watch> {
        std::mem::take(&mut self.has_changed).then(|| {
            if self.watchers.is_empty() {
                return Watch::Nothing;
            }
            let destinations = self.watchers.values().map(|watcher| watcher.destination.clone());
            destinations
                .collect::<Option<Vec<_>>>()
                .map_or(Watch::Everything, |destinations| Watch::Destinations(destinations.into()))
        })
    }

    /// Returns the lines that tell of an input of the dispatcher, before it gets it.
    pub(super) fn input(&mut self, dispatcher: &Dispatcher, input: &Input<'_>) -> Vec<Line> {
        let (connection, text, is_over) = match input {
            Input::Connected(connection) => (*connection, "connected".to_owned(), false),
            Input::ConnectFailed(connection, error) => {
                (*connection, format!("cannot connect: {error}"), true)
            }
            Input::TlsEstablished { connection, tls } => {
                (*connection, tls.summary(tls.proves()).to_string(), false)
            }
            Input::TlsFailed(connection, reason) => (*connection, format!("TLS fails: {reason}"), true),
            Input::Closed(connection, CloseReason::EndOfFile) => {
                (*connection, "the server closes the connection".to_owned(), true)
            }
            Input::Closed(connection, CloseReason::Broken(error)) => {
                (*connection, format!("the connection breaks: {error}"), true)
            }
            Input::Received(..)
            | Input::Datagram { .. }
            | Input::DatagramFailed(..)
            | Input::Store(..)
            | Input::Signed(..)
            | Input::Https(..)
            | Input::OutboxChanged
            | Input::TryNow
            | Input::Hosts(_)
            | Input::Resolver(_)
            | Input::Settings(_)
            | Input::Watch(_)
            | Input::Inquiry(..)
            | Input::EndInquiry(_)
            | Input::Drain => return Vec::new(),
        };
        for over in std::mem::take(&mut self.over) {
            self.talks.remove(&over);
        }
        self.meet(dispatcher, connection);
        let mut lines = self.rest_of(connection);
        lines.extend(self.line(connection, None, Speaker::Remark, text.as_bytes()));
        self.over.extend(is_over.then_some(connection));
        lines
    }

    /// Returns the lines that tell of an output of the dispatcher.
    pub(super) fn output(&mut self, dispatcher: &Dispatcher, output: &Output) -> Vec<Line> {
        match output {
            Output::Connect { connection, purpose: Purpose::Smtp, .. } => {
                self.meet(dispatcher, *connection);
                self.line(*connection, None, Speaker::Remark, b"connecting").into_iter().collect()
            }
            Output::Close(connection) => {
                let mut lines = self.rest_of(*connection);
                lines.extend(self.line(*connection, None, Speaker::Remark, b"closed"));
                self.talks.remove(connection);
                lines
            }
            Output::Event(Event::Sent(said)) => {
                self.meet(dispatcher, said.connection);
                let mut lines = self.end_of_data(said.connection);
                let text = said.octets.trim_ascii_end();
                lines.extend(self.line(said.connection, said.mail, Speaker::Client, text));
                lines
            }
            Output::Event(Event::SentData(said)) => self.data(dispatcher, said),
            Output::Event(Event::Received(said)) => {
                self.meet(dispatcher, said.connection);
                let mut lines = self.end_of_data(said.connection);
                let Some(talk) = self.talks.get_mut(&said.connection) else { return lines };
                let whole = talk.reply.take_in(said);
                let told =
                    whole.iter().map(|text| self.line(said.connection, said.mail, Speaker::Server, text));
                lines.extend(told.flatten());
                lines
            }
            Output::Event(event @ Event::Failed { id, next_hop: Some(next_hop), .. }) => {
                self.failure(*id, next_hop, event).into_iter().collect()
            }
            Output::Event(_)
            | Output::Connect { .. }
            | Output::StartTls { .. }
            | Output::Transmit(_)
            | Output::Datagram { .. }
            | Output::CloseDatagram(_)
            | Output::Store(..)
            | Output::Release(_)
            | Output::Sign(..)
            | Output::Https(..)
            | Output::Answer(..)
            | Output::Drained => Vec::new(),
        }
    }

    /// Finds out about a connection, if that is not known and it is one for mail.
    fn meet(&mut self, dispatcher: &Dispatcher, connection: ConnectionId) {
        if self.talks.contains_key(&connection) {
            return;
        }
        if let Some(facts) = dispatcher.connection(connection) {
            let talk = Talk {
                next_hop: facts.next_hop.clone(),
                host: facts.host.to_string(),
                remote: facts.remote,
                reply: Partial::default(),
                data: Partial::default(),
                data_octets: 0,
                data_tail: b"\r\n".to_vec(),
            };
            self.talks.insert(connection, talk);
        }
    }

    fn data(&mut self, dispatcher: &Dispatcher, said: &Said) -> Vec<Line> {
        self.meet(dispatcher, said.connection);
        let Some(talk) = self.talks.get_mut(&said.connection) else { return Vec::new() };
        talk.data_octets += said.octets.len();
        let keeps = END_OF_DATA.len().saturating_sub(said.octets.len());
        talk.data_tail.drain(..talk.data_tail.len().saturating_sub(keeps));
        let last = said.octets.len().saturating_sub(END_OF_DATA.len());
        talk.data_tail.extend_from_slice(said.octets.get(last..).unwrap_or_default());
        let is_end = talk.data_tail == END_OF_DATA;
        let mut lines = Vec::new();
        if self.watchers.values().any(|watcher| watcher.wants_data) {
            let whole = talk.data.take_in(said);
            let told = whole.iter().map(|text| self.line(said.connection, said.mail, Speaker::Client, text));
            lines = told.flatten().map(|line| self.of_data(line)).collect();
        } else {
            talk.data.mail = said.mail;
        }
        if is_end {
            // What comes next may be a long time away.
            lines.extend(self.end_of_data(said.connection));
        }
        lines
    }

    /// Leaves a line of mail data to those who want them.
    fn of_data(&self, line: Line) -> Line {
        let wants = |id: &AskId| self.watchers.get(id).is_some_and(|watcher| watcher.wants_data);
        Line { watchers: line.watchers.iter().copied().filter(wants).collect(), ..line }
    }

    /// Returns the lines that stand for the mail data before the next line.
    fn end_of_data(&mut self, connection: ConnectionId) -> Vec<Line> {
        let Some(talk) = self.talks.get_mut(&connection) else { return Vec::new() };
        let octets = std::mem::take(&mut talk.data_octets);
        if octets == 0 {
            return Vec::new();
        }
        talk.data_tail = b"\r\n".to_vec();
        let Partial { mail, octets: rest } = std::mem::take(&mut talk.data);
        let rest = (!rest.is_empty()).then(|| self.line(connection, mail, Speaker::Client, &rest)).flatten();
        let rest = rest.map(|line| self.of_data(line));
        let text = format!("[{octets} octets of mail data]");
        rest.into_iter().chain(self.line(connection, mail, Speaker::Client, text.as_bytes())).collect()
    }

    /// Returns what has begun and not ended on a connection.
    fn rest_of(&mut self, connection: ConnectionId) -> Vec<Line> {
        let mut lines = self.end_of_data(connection);
        let reply = self.talks.get_mut(&connection).map(|talk| std::mem::take(&mut talk.reply));
        if let Some(Partial { mail, octets }) = reply.filter(|reply| !reply.octets.is_empty()) {
            lines.extend(self.line(connection, mail, Speaker::Server, &octets));
        }
        lines
    }

    /// Returns those who watch a next hop; nothing for what is none.
    fn watchers_of(&self, next_hop: Option<&NextHop>) -> Vec<AskId> {
        let is_meant = |watcher: &Watcher| match &watcher.destination {
            Some(destination) => next_hop.is_some_and(|next_hop| destination.covers(next_hop)),
            None => true,
        };
        self.watchers.iter().filter(|(_, watcher)| is_meant(watcher)).map(|(id, _)| *id).collect()
    }

    /// Returns the line that tells of a failure without a conversation.
    fn failure(&self, id: MailId, next_hop: &str, event: &Event) -> Option<Line> {
        let watchers = self.watchers_of(parsed(next_hop).as_ref());
        (!watchers.is_empty()).then(|| Line {
            at_ms: now_ms(),
            connection: None,
            mail_id: Some(id.0),
            next_hop: next_hop.to_owned(),
            host: None,
            address: None,
            port: None,
            from: Speaker::Remark,
            text: event.to_string(),
            watchers,
        })
    }

    /// Returns a line, if somebody watches the connection.
    fn line(
        &self,
        connection: ConnectionId,
        mail: Option<MailId>,
        from: Speaker,
        text: &[u8],
    ) -> Option<Line> {
        let talk = self.talks.get(&connection)?;
        let watchers = self.watchers_of(Some(&talk.next_hop));
        (!watchers.is_empty()).then(|| Line {
            at_ms: now_ms(),
            connection: Some(connection.0),
            mail_id: mail.map(|mail| mail.0),
            next_hop: talk.next_hop.to_string(),
            host: Some(talk.host.clone()),
            address: Some(talk.remote.ip().to_string()),
            port: Some(talk.remote.port()),
            from,
            text: OneLine(Octets(text)).to_string(),
            watchers,
        })
    }
}

impl Partial {
    /// Takes octets in, and returns the lines that are whole now, without their ends.
    fn take_in(&mut self, said: &Said) -> Vec<Vec<u8>> {
        self.mail = said.mail;
        self.octets.extend_from_slice(&said.octets);
        let mut lines: Vec<Vec<u8>> =
            self.octets.split(|octet| *octet == b'\n').map(<[u8]>::to_vec).collect();
        self.octets = lines.pop().unwrap_or_default();
        if self.octets.len() > LINE_LIMIT_OCTETS {
            lines.push(std::mem::take(&mut self.octets));
        }
        for line in &mut lines {
            line.truncate(line.strip_suffix(b"\r").unwrap_or(line).len());
        }
        lines
    }
}

/// Reads a next hop as it is shown.
fn parsed(next_hop: &str) -> Option<NextHop> {
    match next_hop.strip_prefix("relay ") {
        Some(relay) => Relay::parse(relay.as_bytes()).ok().map(NextHop::Relay),
        None => MailDomain::parse(next_hop).ok().map(NextHop::from),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
