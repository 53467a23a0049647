//! A resolver, the octets that name servers send it, and the invariants of its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use cmail_delivery::address::Domain;
use cmail_delivery::fair_queue::Prospect;
use cmail_delivery::io::{CloseReason, ConnectionId, QueryId};
use cmail_delivery::resolver::{
    Answer, Families, LookupError, LookupId, MxAnswer, Resolved, Resolver, ResolverOutput,
};
use cmail_delivery::rng::Rng;
use cmail_delivery::settings::{NameServer, ResolverSettings};
use cmail_delivery::time::{Duration, Instant};
use hickory_proto::op::Message;
use hickory_proto::rr::RData;

/// Timeout of one server.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most timeouts of a lookup: two servers, two attempts, the change to TCP, and each alias that is followed.
const TIMEOUTS_LIMIT: usize = 2 * 2 * 4 * 20;
const SERVERS: [([u8; 4], u16); 2] = [([192, 0, 2, 1], 53), ([192, 0, 2, 2], 53)];

/// A question that was put to a server and not yet taken back.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) to: SocketAddr,
    pub(crate) octets: Bytes,
}

/// The records that servers have named: preferences and hosts of all MX records, and all addresses.
#[derive(Default)]
struct Named {
    hosts: BTreeSet<(u16, String)>,
    addresses: BTreeSet<IpAddr>,
}

/// A resolver with one lookup, and what it has open.
pub(crate) struct Scene {
    pub(crate) resolver: Resolver,
    pub(crate) now: Instant,
    pub(crate) queries: BTreeMap<QueryId, Asked>,
    pub(crate) connections: BTreeMap<ConnectionId, Asked>,
    pub(crate) answer: Option<Answer>,
    pub(crate) outputs: usize,
    lookup: LookupId,
    families: Families,
    /// `None` once a server has sent something that the independent reader does not understand.
    named: Option<Named>,
}

impl Scene {
    /// A lookup of MX records, or of addresses, as `kind` says.
    pub(crate) fn new(kind: u8) -> Self {
        // One of them is believed, so that all that is said of security matters.
        let mut servers = SERVERS.map(|server| NameServer::from(SocketAddr::from(server))).to_vec();
        servers[0].is_believed = true;
        let settings = ResolverSettings { servers, timeout: TIMEOUT, attempts: 2 };
        let now = Instant::from_micros(1_000_000);
        let mut resolver = Resolver::new(settings, Rng::from_seed([1; 32]));
        let name = Domain::parse("example.org").expect("it is a domain");
        let families = Families { ipv4: kind % 4 != 2, ipv6: kind % 4 != 1 };
        let lookup = match kind % 8 {
            0 => resolver.lookup_mx(now, &name, Prospect::Fresh),
            4 => resolver.lookup_tlsa(now, &name, 25, Prospect::Fresh),
            5 => resolver.lookup_texts(now, "_mta-sts", &name, Prospect::Fresh),
            6 => resolver.lookup_alias(now, &name, Prospect::Fresh),
            _ => resolver.lookup_addresses(now, &name, families, Prospect::Failed),
        };
        let mut scene = Self {
            resolver,
            now,
            queries: BTreeMap::new(),
            connections: BTreeMap::new(),
            answer: None,
            outputs: 0,
            lookup,
            families,
            named: Some(Named::default()),
        };
        scene.drain();
        scene
    }

    /// Takes the outputs of the resolver.
    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.resolver.poll_output() {
            self.outputs += 1;
            match output {
                ResolverOutput::Datagram { query, to, octets } => {
                    assert!(octets.len() > 12 && SERVERS.map(SocketAddr::from).contains(&to));
                    assert!(self.queries.insert(query, Asked { to, octets }).is_none());
                }
                ResolverOutput::CloseDatagram(query) => assert!(self.queries.remove(&query).is_some()),
                ResolverOutput::Connect { connection, to } => {
                    assert!(self.resolver.owns_connection(connection));
                    assert!(
                        self.connections.insert(connection, Asked { to, octets: Bytes::new() }).is_none()
                    );
                }
                ResolverOutput::Transmit(connection) => assert!(self.connections.contains_key(&connection)),
                ResolverOutput::Close(connection) => assert!(self.connections.remove(&connection).is_some()),
                ResolverOutput::Answer(lookup, answer) => {
                    assert_eq!(lookup, self.lookup);
                    assert_eq!(self.answer, None, "a second answer");
                    self.check_answer(&answer);
                    self.answer = Some(answer);
                }
                ResolverOutput::Warning(text) => panic!("one question is no silence: {text}"),
            }
        }
        if let Some(deadline) = self.resolver.poll_timeout() {
            assert!(self.answer.is_none(), "a deadline after the answer");
            assert!(deadline <= self.now + TIMEOUT);
        }
    }

    fn check_answer(&self, answer: &Answer) {
        match answer {
            Answer::Mx(Ok(Resolved { value: MxAnswer::Records(records), .. })) => {
                assert!(records.len() <= 64);
                assert!(records.is_sorted_by_key(|(preference, _)| *preference));
                for (preference, host) in records {
                    let record = (*preference, host.as_str().to_owned());
                    let is_named = |named: &Named| named.hosts.contains(&record);
                    assert!(self.named.as_ref().is_none_or(is_named), "{record:?}");
                }
            }
            Answer::Addresses(Ok(Resolved { value: addresses, .. })) => {
                assert!((1..=32).contains(&addresses.len()));
                assert!(addresses.is_sorted_by_key(IpAddr::is_ipv4), "IPv6 comes first");
                for address in addresses {
                    assert!(if address.is_ipv4() { self.families.ipv4 } else { self.families.ipv6 });
                    let is_named = |named: &Named| named.addresses.contains(address);
                    assert!(self.named.as_ref().is_none_or(is_named), "{address}");
                }
            }
            Answer::Tlsa(Ok(Resolved { value: records, .. })) => assert!(records.len() <= 256),
            Answer::Texts(Ok(Resolved { value: texts, .. })) => {
                assert!(texts.iter().map(|text| text.len()).sum::<usize>() <= 64 * 1024);
            }
            Answer::Tlsa(Err(LookupError::NameDoesNotExist | LookupError::NoAddress))
            | Answer::Texts(Err(LookupError::NameDoesNotExist | LookupError::NoAddress))
            | Answer::Alias(Err(LookupError::NameDoesNotExist | LookupError::NoAddress)) => {
                panic!("a name that need not exist: {answer:?}")
            }
            Answer::Mx(Err(error @ (LookupError::Temporary(_) | LookupError::Local(_))))
            | Answer::Tlsa(Err(error @ (LookupError::Temporary(_) | LookupError::Local(_))))
            | Answer::Texts(Err(error @ (LookupError::Temporary(_) | LookupError::Local(_))))
            | Answer::Alias(Err(error @ (LookupError::Temporary(_) | LookupError::Local(_))))
            | Answer::Addresses(Err(error @ (LookupError::Temporary(_) | LookupError::Local(_)))) => {
                let text = error.to_string();
                assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
            }
            Answer::Mx(Err(LookupError::NoAddress)) => panic!("an MX lookup is not about addresses"),
            Answer::Mx(_) | Answer::Addresses(_) | Answer::Alias(Ok(_)) => {}
        }
    }

    /// Records what a server says, by an independent reading of it. What that does not understand may say anything.
    pub(crate) fn note(&mut self, octets: &[u8]) {
        let Some(Named { hosts, addresses }) = &mut self.named else { return };
        let Ok(message) = Message::from_vec(octets) else {
            self.named = None;
            return;
        };
        for record in &message.answers {
            match &record.data {
                RData::MX(mx) => {
                    let host = mx.exchange.to_ascii().to_ascii_lowercase();
                    hosts.insert((mx.preference, host.strip_suffix('.').unwrap_or(&host).to_owned()));
                }
                RData::A(address) => drop(addresses.insert(address.0.into())),
                RData::AAAA(address) => drop(addresses.insert(address.0.into())),
                _ => {}
            }
        }
    }

    /// The oldest or another question under way.
    pub(crate) fn query(&self, number: u8) -> Option<(QueryId, Asked)> {
        let number = usize::from(number).checked_rem(self.queries.len())?;
        self.queries.iter().nth(number).map(|(&query, asked)| (query, asked.clone()))
    }

    /// The connection to a server, connected, with the question that was sent on it.
    pub(crate) fn connect(&mut self) -> Option<(ConnectionId, Asked)> {
        let (&connection, asked) = self.connections.first_key_value()?;
        let mut asked = asked.clone();
        if asked.octets.is_empty() {
            self.resolver.handle_connected(self.now, connection);
            let mut stream = BytesMut::new();
            while self.resolver.poll_transmit(connection, 100, &mut stream) {}
            let length = usize::from(u16::from_be_bytes([stream[0], stream[1]]));
            assert_eq!(length + 2, stream.len());
            asked.octets = stream.split_off(2).freeze();
            self.connections.insert(connection, asked.clone());
            self.drain();
        }
        Some((connection, asked))
    }

    /// Lets a deadline pass.
    pub(crate) fn pass(&mut self) {
        // Too early is a call that does nothing.
        let before = self.outputs;
        self.resolver.handle_timeout(self.now);
        self.drain();
        assert_eq!(self.outputs, before);
        self.now = self.now + TIMEOUT;
        self.resolver.handle_timeout(self.now);
        self.drain();
    }

    /// With silent servers the lookup comes to its end, and leaves nothing open.
    pub(crate) fn finish(&mut self) {
        for _ in 0..TIMEOUTS_LIMIT {
            if self.answer.is_some() {
                break;
            }
            self.pass();
        }
        assert!(self.answer.is_some(), "no answer at all");
        assert!(self.queries.is_empty() && self.connections.is_empty(), "something is left open");
        assert!(self.resolver.is_idle() && self.resolver.poll_timeout().is_none());
        // Late or misdirected input does nothing.
        self.resolver.handle_datagram(self.now, QueryId(0), SERVERS[0].into(), b"late");
        self.resolver.handle_closed(self.now, ConnectionId(1), CloseReason::EndOfFile);
        self.drain();
    }

    /// A response to a question: its id and question, and flags, counts and records as given.
    pub(crate) fn response(asked: &Asked, tail: &[u8]) -> Vec<u8> {
        let (head, records) = tail.split_at_checked(5).unwrap_or((&[0x81, 0x80, 0, 0, 0], tail));
        let mut question_end = 12;
        while asked.octets[question_end] != 0 {
            question_end += usize::from(asked.octets[question_end]) + 1;
        }
        question_end += 5;
        let mut octets = asked.octets[..2].to_vec();
        // Printable octets stand for the flags that most servers set.
        octets.extend(if head[0] & 0x80 == 0 { [0x81, 0x80 | (head[1] & 0x0f)] } else { [head[0], head[1]] });
        octets.extend([0, 1, 0, head[2] & 0x1f, 0, head[3] & 3, 0, head[4] & 3]);
        octets.extend_from_slice(&asked.octets[12..question_end]);
        octets.extend_from_slice(records);
        octets
    }
}
