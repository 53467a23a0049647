//! Drives the resolver by answers that are made by hand.

mod answers;
mod caching;
mod hostile;
mod security;
mod servers;
mod silence;

use alloc::string::{String, ToString as _};
use alloc::vec;

use hickory_proto::op::{Message as WireMessage, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::*;
use crate::time::Duration;

pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const BOTH: Families = Families { ipv4: true, ipv6: true };
pub(super) const IPV4: Families = Families { ipv4: true, ipv6: false };

/// A resolver and its clock.
pub(super) struct Scene {
    pub(super) resolver: Resolver,
    pub(super) now: Instant,
}

/// A datagram that was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) query: QueryId,
    pub(super) to: SocketAddr,
    pub(super) octets: Bytes,
}

impl Sent {
    pub(super) fn message(&self) -> WireMessage {
        WireMessage::from_vec(&self.octets).unwrap()
    }

    /// A response to it, without records.
    pub(super) fn response(&self) -> WireMessage {
        response_to(&self.message())
    }
}

pub(super) fn response_to(query: &WireMessage) -> WireMessage {
    let mut message = query.clone();
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    message.metadata.authentic_data = false;
    message
}

impl Scene {
    /// One server, one attempt.
    pub(super) fn new() -> Self {
        Self::with_servers(1, 1)
    }

    pub(super) fn with_servers(count: u8, attempts: u32) -> Self {
        let servers = (1..=count).map(|number| server(number).into()).collect();
        let settings = ResolverSettings { servers, timeout: TIMEOUT, attempts };
        let now = Instant::from_micros(1_000_000);
        Self { resolver: Resolver::new(settings, Rng::from_seed([1; 32])), now }
    }

    pub(super) fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.resolver.handle_timeout(self.now);
    }

    pub(super) fn mx(&mut self, domain: &str) -> LookupId {
        self.resolver.lookup_mx(self.now, &Domain::parse(domain).unwrap(), Prospect::Fresh)
    }

    pub(super) fn addresses(&mut self, name: &str, families: Families) -> LookupId {
        let name = Domain::parse(name).unwrap();
        self.resolver.lookup_addresses(self.now, &name, families, Prospect::Fresh)
    }

    pub(super) fn outputs(&mut self) -> Vec<ResolverOutput> {
        core::iter::from_fn(|| self.resolver.poll_output()).collect()
    }

    /// The datagrams among the outputs; there must be no answers.
    pub(super) fn sent(&mut self) -> Vec<Sent> {
        let outputs = self.outputs();
        assert!(!outputs.iter().any(|output| matches!(output, ResolverOutput::Answer(..))), "{outputs:?}");
        let sent = |output| {
            let ResolverOutput::Datagram { query, to, octets } = output else { return None };
            Some(Sent { query, to, octets })
        };
        outputs.into_iter().filter_map(sent).collect()
    }

    /// The one datagram that is sent.
    pub(super) fn one_sent(&mut self) -> Sent {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// Sends the response from where the query went.
    pub(super) fn reply(&mut self, sent: &Sent, response: &WireMessage) {
        let octets = response.to_vec().unwrap();
        self.resolver.handle_datagram(self.now, sent.query, sent.to, &octets);
    }

    pub(super) fn reply_with(&mut self, sent: &Sent, answers: Vec<Record>) {
        let mut response = sent.response();
        response.answers = answers;
        self.reply(sent, &response);
    }

    pub(super) fn reply_with_code(&mut self, sent: &Sent, code: ResponseCode) {
        let mut response = sent.response();
        response.metadata.response_code = code;
        self.reply(sent, &response);
    }

    /// The answers among the outputs.
    pub(super) fn answers(&mut self) -> Vec<(LookupId, Answer)> {
        let answer = |output| {
            let ResolverOutput::Answer(lookup, answer) = output else { return None };
            Some((lookup, answer))
        };
        self.outputs().into_iter().filter_map(answer).collect()
    }

    /// The one answer without how it was found; after it nothing may be left open.
    pub(super) fn answer(&mut self) -> Answer {
        match self.whole_answer() {
            Answer::Mx(Ok(found)) => mx(found.value),
            Answer::Addresses(Ok(found)) => Answer::Addresses(Ok(Resolved::insecure(found.value))),
            other @ (Answer::Mx(_)
            | Answer::Addresses(_)
            | Answer::Tlsa(_)
            | Answer::Texts(_)
            | Answer::Alias(_)) => other,
        }
    }

    /// The one answer; after it nothing may be left open.
    pub(super) fn whole_answer(&mut self) -> Answer {
        let mut answers = self.answers();
        assert_eq!(answers.len(), 1, "{answers:?}");
        self.assert_clean();
        answers.remove(0).1
    }

    pub(super) fn assert_clean(&self) {
        assert!(self.resolver.is_idle());
        assert!(self.resolver.sockets.is_clean(), "{:?}", self.resolver.sockets);
        assert!(self.resolver.tasks.is_empty() && self.resolver.by_question.is_empty());
        assert_eq!(self.resolver.poll_timeout(), None);
    }

    /// Looks up MX records that are answered by these.
    pub(super) fn mx_of(answers: Vec<Record>) -> Answer {
        let mut scene = Self::new();
        scene.mx("example.org");
        let sent = scene.one_sent();
        scene.reply_with(&sent, answers);
        scene.answer()
    }

    /// Goes over to TCP after a truncated answer and returns the connection and the question on it.
    pub(super) fn over_tcp(&mut self, sent: &Sent) -> (ConnectionId, WireMessage) {
        let mut response = sent.response();
        response.metadata.truncation = true;
        self.reply(sent, &response);
        let (connection, to) = self.connect();
        assert_eq!(to, sent.to);
        (connection, self.question_on(connection))
    }

    pub(super) fn connect(&mut self) -> (ConnectionId, SocketAddr) {
        let connect = |output| {
            let ResolverOutput::Connect { connection, to } = output else { return None };
            Some((connection, to))
        };
        self.outputs().into_iter().find_map(connect).unwrap()
    }

    pub(super) fn question_on(&mut self, connection: ConnectionId) -> WireMessage {
        self.resolver.handle_connected(self.now, connection);
        assert_eq!(self.outputs(), [ResolverOutput::Transmit(connection)]);
        let mut stream = BytesMut::new();
        while self.resolver.poll_transmit(connection, 7, &mut stream) {}
        let length = u16::from_be_bytes([stream[0], stream[1]]);
        assert_eq!(usize::from(length), stream.len() - 2);
        WireMessage::from_vec(&stream[2..]).unwrap()
    }
}

pub(super) fn server(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 53))
}

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(super) fn record(owner: &str, ttl_s: u32, data: RData) -> Record {
    Record::from_rdata(name(owner), ttl_s, data)
}

pub(super) fn mx_record(owner: &str, preference: u16, host: &str) -> Record {
    record(owner, 300, RData::MX(MX::new(preference, name(host))))
}

pub(super) fn alias(owner: &str, target: &str) -> Record {
    record(owner, 300, RData::CNAME(CNAME(name(target))))
}

pub(super) fn a_record(owner: &str, last: u8) -> Record {
    record(owner, 300, RData::A(A::new(192, 0, 2, last)))
}

pub(super) fn aaaa_record(owner: &str, last: u16) -> Record {
    record(owner, 300, RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)))
}

pub(super) fn soa_record(zone: &str, ttl_s: u32, minimum_s: u32) -> Record {
    let soa = SOA::new(name("ns.example."), name("admin.example."), 1, 3600, 600, 86400, minimum_s);
    record(zone, ttl_s, RData::SOA(soa))
}

pub(super) fn ns_record(zone: &str) -> Record {
    record(zone, 300, RData::NS(NS(name("ns.example."))))
}

pub(super) fn hosts(hosts: &[(u16, &str)]) -> Answer {
    let hosts = hosts.iter().map(|(preference, host)| (*preference, Domain::parse(host).unwrap()));
    mx(MxAnswer::Records(hosts.collect()))
}

pub(super) fn mx(answer: MxAnswer) -> Answer {
    Answer::Mx(Ok(Resolved::insecure(answer)))
}

pub(super) fn found(addresses: &[&str]) -> Answer {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Answer::Addresses(Ok(Resolved::insecure(addresses)))
}

/// The sentence of a temporary failure.
pub(super) fn temporary(answer: Answer) -> String {
    if let Answer::Mx(Err(LookupError::Temporary(text)))
    | Answer::Addresses(Err(LookupError::Temporary(text))) = answer
    {
        return text.to_string();
    }
    panic!("{answer:?}")
}

pub(super) fn is_ipv6_question(sent: &Sent) -> bool {
    sent.message().queries[0].query_type() == RecordType::AAAA
}

/// Both questions of a lookup, that for IPv4 first.
pub(super) fn both_sent(scene: &mut Scene) -> (Sent, Sent) {
    let mut sent = scene.sent();
    assert_eq!(sent.len(), 2);
    sent.sort_by_key(is_ipv6_question);
    let ipv6 = sent.remove(1);
    (sent.remove(0), ipv6)
}

pub(super) fn framed(octets: &[u8]) -> Vec<u8> {
    let mut stream = vec![];
    stream.extend(u16::try_from(octets.len()).unwrap().to_be_bytes());
    stream.extend(octets);
    stream
}
