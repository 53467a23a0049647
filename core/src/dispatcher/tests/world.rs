//! A small deterministic world around a dispatcher: a clock that jumps, a network, name servers, an outbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hickory_proto::op::{Message as WireMessage, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, MX, SOA, TLSA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::outbox::{Mail, Outbox, kind};
use super::server::{Answer, Behaviour, Connect, Peer, Server};
use super::*;
use crate::dkim::{Digest, KeyId, SignTrouble, Signature};
use crate::io::{HttpsError, HttpsId, HttpsRequest, HttpsResponse, HttpsTrouble};
use crate::system_error::{Breakage, MachineTrouble, NetworkTrouble, SystemError, TlsTrouble};
use crate::tls::tlsa::Association;
use crate::tls::{CertificateTrouble, DaneMatch, TlsTerms, Tlsa, TlsaRecord};

/// How long octets travel.
pub(super) const LATENCY: Duration = Duration::from_millis(1);
/// More steps than any test needs.
const STEP_LIMIT: u32 = 200_000;
/// Timeouts that follow each other without time passing: more are a timer that never rests.
const SPIN_LIMIT: u32 = 100;
const NAME_SERVER: &str = "192.0.2.53:53";

#[derive(Debug)]
enum Happening {
    Connected(ConnectionId),
    ConnectFailed(ConnectionId, ConnectError),
    Received(ConnectionId, String),
    Closed(ConnectionId),
    Tls(ConnectionId, Groups, Arc<TlsTerms>),
    Datagram(QueryId, Vec<u8>),
    Store(RequestId, Result<StoreReply, StoreError>),
    Signed(RequestId, Vec<Result<Signature, SignTrouble>>),
    Https(HttpsId, Result<HttpsResponse, HttpsError>),
}

pub(super) struct World {
    pub(super) now: Now,
    pub(super) dispatcher: Dispatcher,
    pub(super) outbox: Outbox,
    pub(super) servers: BTreeMap<SocketAddr, Server>,
    pub(super) exchanges: BTreeMap<String, Vec<(u16, String)>>,
    pub(super) addresses: BTreeMap<String, Vec<IpAddr>>,
    pub(super) broken_names: BTreeMap<String, ResponseCode>,
    pub(super) dns_is_dead: bool,
    /// The names of which the name server says that all answers are authentic.
    pub(super) signed: BTreeSet<String>,
    /// The TLSA records of names such as `_25._tcp.mx.example`.
    pub(super) certificates: BTreeMap<String, Vec<TlsaRecord>>,
    /// The names whose TLSA records were asked for.
    pub(super) asked_for_tlsa: Vec<String>,
    /// The TXT records of names.
    pub(super) texts: BTreeMap<String, Vec<String>>,
    /// The domains whose records about MTA-STS were asked for.
    pub(super) asked_for_records: Vec<String>,
    /// What hosts answer over HTTPS, and after which time. Others cannot be reached.
    pub(super) web: BTreeMap<String, (Duration, Result<HttpsResponse, HttpsError>)>,
    /// The hosts that were asked over HTTPS, with the time.
    pub(super) fetched: Vec<(Instant, String)>,
    /// How many of them have not answered, at most.
    pub(super) most_fetches: usize,
    fetches: usize,
    pub(super) store_delay: Duration,
    /// Requests of these kinds take longer.
    pub(super) slow: BTreeMap<&'static str, Duration>,
    /// Keys with which nothing can be signed, and what is said then.
    pub(super) refused_keys: BTreeMap<KeyId, SignTrouble>,
    pub(super) events: Vec<Event>,
    pub(super) answers: Vec<(InquiryId, explanation::Answer)>,
    pub(super) drained_at: Option<Instant>,
    pub(super) timeouts: u32,
    pub(super) most_open: usize,
    /// Addresses in the order in which they were connected to, with the time.
    pub(super) attempts: Vec<(Instant, SocketAddr)>,
    /// The local addresses that connections come from, where one is given.
    pub(super) sources: BTreeMap<SocketAddr, IpAddr>,
    peers: BTreeMap<ConnectionId, Peer>,
    happenings: BTreeMap<(Instant, u64), Happening>,
    count: u64,
}

/// A handshake that went well.
pub(super) fn tls(certificate_is_valid: bool) -> Tls {
    Tls::new(TlsVersion::V1_3, Verification::for_tests(certificate_is_valid))
}

/// What the records say of a server with this key.
fn dane(terms: &TlsTerms, key: u8) -> Option<Result<DaneMatch, CertificateTrouble>> {
    let names_key = |record: &Tlsa| record.association == Association::Sha256([key; 32]);
    (!terms.tlsa.is_empty()).then(|| {
        let is_named = terms.tlsa.iter().any(names_key);
        if is_named { Ok(DaneMatch::EndEntity) } else { Err(CertificateTrouble::NoTlsaMatch) }
    })
}

pub(super) fn settings() -> Settings {
    let mut settings = Settings::for_tests();
    settings.policy.ports =
        [Port { number: 25, tls: TlsMode::StartTls }, Port { number: 25, tls: TlsMode::Plain }].into();
    settings.resolver.servers = vec![NAME_SERVER.parse::<SocketAddr>().unwrap().into()];
    settings
}

/// Settings by which mail goes differently.
pub(super) fn with_policy(change: impl FnOnce(&mut Policy)) -> Settings {
    let mut settings = settings();
    change(&mut settings.policy);
    settings
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| SocketAddr::new(text.parse().unwrap(), 25))
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(settings(), Mode::Daemon)
    }

    /// A world in which connections end with their work, so that it comes to rest without time passing.
    pub(super) fn with_brief_connections() -> Self {
        Self::with(
            Settings { policy: Policy { idle: Duration::ZERO, ..settings().policy }, ..settings() },
            Mode::Daemon,
        )
    }

    pub(super) fn with(settings: Settings, mode: Mode) -> Self {
        let now = Now::new(Instant::from_micros(1_000_000), UnixTime(1_000_000));
        Self {
            now,
            dispatcher: Dispatcher::new(now, settings, Hosts::new(), mode, [7; 32]),
            outbox: Outbox::default(),
            servers: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            addresses: BTreeMap::new(),
            broken_names: BTreeMap::new(),
            dns_is_dead: false,
            signed: BTreeSet::new(),
            certificates: BTreeMap::new(),
            asked_for_tlsa: Vec::new(),
            texts: BTreeMap::new(),
            asked_for_records: Vec::new(),
            web: BTreeMap::new(),
            fetched: Vec::new(),
            most_fetches: 0,
            fetches: 0,
            store_delay: Duration::from_micros(100),
            slow: BTreeMap::new(),
            refused_keys: BTreeMap::new(),
            events: Vec::new(),
            answers: Vec::new(),
            drained_at: None,
            timeouts: 0,
            most_open: 0,
            attempts: Vec::new(),
            sources: BTreeMap::new(),
            peers: BTreeMap::new(),
            happenings: BTreeMap::new(),
            count: 0,
        }
    }

    /// A domain with one exchange at an address, where a friendly server listens on port 25.
    pub(super) fn domain(&mut self, domain: &str, address_of_mx: &str) -> &mut Server {
        self.exchange(domain, 10, &format!("mx.{domain}"), address_of_mx)
    }

    pub(super) fn exchange(&mut self, domain: &str, preference: u16, host: &str, at: &str) -> &mut Server {
        self.exchanges.entry(domain.into()).or_default().push((preference, host.into()));
        self.addresses.entry(host.into()).or_default().push(at.parse().unwrap());
        self.servers.entry(address(at)).or_default()
    }

    pub(super) fn server(&mut self, at: &str) -> &mut Server {
        self.servers.entry(address(at)).or_default()
    }

    /// Inserts a mail without telling the dispatcher.
    pub(super) fn mail(&mut self, sender: &str, recipient: &str, data: &str) -> i64 {
        self.mail_by(None, sender, recipient, data)
    }

    pub(super) fn mail_by(&mut self, remote: Option<&str>, sender: &str, recipient: &str, data: &str) -> i64 {
        self.outbox.data_version += 1;
        let mail = Mail::new(sender, recipient, data.to_owned(), self.now.wall);
        let remote = remote.map(|remote| Bytes::copy_from_slice(remote.as_bytes()));
        self.outbox.insert(Mail { remote, ..mail })
    }

    /// Gives a mail a history of failures.
    pub(super) fn failed_before(&mut self, id: i64, times: usize, seconds_ago: i64, fatal: bool) {
        let time = UnixTime(self.now.wall.0 - seconds_ago);
        let attempt = crate::outbox::FaillogRow { time, text: Box::from(&b"450 later"[..]), fatal };
        self.outbox.mails.get_mut(&id).unwrap().faillog = vec![attempt; times];
    }

    pub(super) fn input(&mut self, input: Input<'_>) {
        self.dispatcher.handle_input(self.now, input);
        self.take_outputs();
    }

    /// Tells the dispatcher of new mail and lets everything happen until only distant timers are left.
    pub(super) fn run(&mut self) {
        self.input(Input::OutboxChanged);
        let mut steps = 0;
        while !self.is_at_rest() {
            assert!(self.step(Instant::from_micros(u64::MAX)), "nothing will happen any more");
            steps += 1;
            assert!(steps < STEP_LIMIT, "the world does not come to rest");
        }
        self.assert_clean();
    }

    /// Kills the dispatcher, and begins another one. Nothing that was asked is answered any more.
    pub(super) fn restart(&mut self) {
        self.restart_with(settings());
    }

    pub(super) fn restart_with(&mut self, settings: Settings) {
        self.happenings.clear();
        self.fetches = 0;
        self.peers.clear();
        let held = self.outbox.held();
        self.outbox.release(&held);
        self.drained_at = None;
        self.dispatcher = Dispatcher::new(self.now, settings, Hosts::new(), Mode::Daemon, [8; 32]);
        self.take_outputs();
    }

    pub(super) fn run_for(&mut self, span: Duration) {
        let end = self.now.monotonic + span;
        let mut steps = 0;
        while self.step(end) {
            steps += 1;
            assert!(steps < STEP_LIMIT, "too much happens");
        }
        self.jump(end);
    }

    /// Nothing is under way, and no timer is set but for the next look and for mail that waits.
    fn is_at_rest(&mut self) -> bool {
        self.take_outputs();
        if self.drained_at.is_some() {
            return true;
        }
        if !self.dispatcher.books.run.is_daemon() {
            return false;
        }
        let timer = self.dispatcher.poll_timeout().map(|(_, reason)| reason);
        self.happenings.is_empty()
            && self.dispatcher.books.store.requests.is_empty()
            && matches!(timer, Some(TimeoutReason::Scan | TimeoutReason::MailDue | TimeoutReason::Policy))
            && self.dispatcher.poll_timeout().is_some_and(|(at, _)| at > self.now.monotonic)
            && self.dispatcher.is_at_rest()
    }

    pub(super) fn assert_clean(&self) {
        assert!(self.dispatcher.is_at_rest(), "something is left: {:#?}", self.dispatcher);
        assert!(self.peers.is_empty(), "connections are open: {:?}", self.peers);
    }

    /// Lets the next thing happen, unless that is after `end`.
    fn step(&mut self, end: Instant) -> bool {
        self.take_outputs();
        let mut spins = 0;
        loop {
            let happening = self.happenings.first_key_value().map(|(&(at, _), _)| at);
            let timeout = self.dispatcher.poll_timeout().map(|(at, _)| at);
            let Some(at) = happening.into_iter().chain(timeout).min() else { return false };
            if at > end {
                return false;
            }
            let has_moved = at > self.now.monotonic;
            self.jump(at);
            if happening == Some(at) {
                if let Some((_, happening)) = self.happenings.pop_first() {
                    self.happen(happening);
                }
                return true;
            }
            self.timeouts += 1;
            self.dispatcher.handle_timeout(self.now);
            self.take_outputs();
            spins = if has_moved { 0 } else { spins + 1 };
            assert!(spins < SPIN_LIMIT, "a timer never rests: {:?}", self.dispatcher.poll_timeout());
            if has_moved {
                return true;
            }
        }
    }

    /// Moves both clocks, never back.
    fn jump(&mut self, to: Instant) {
        let to = to.max(self.now.monotonic);
        let seconds = |instant: Instant| i64::try_from(instant.as_micros() / 1_000_000).unwrap();
        self.now.wall.0 += seconds(to) - seconds(self.now.monotonic);
        self.now.monotonic = to;
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        self.count += 1;
        self.happenings.insert((self.now.monotonic + after, self.count), happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Connected(connection) => {
                if let Some(peer) = self.peers.get_mut(&connection) {
                    let (is_tls, greeting) = (peer.address.port() == 465, peer.greet());
                    self.input(Input::Connected(connection));
                    if !is_tls {
                        self.answer(connection, greeting);
                    }
                }
            }
            Happening::ConnectFailed(connection, error) => {
                self.peers.remove(&connection);
                self.input(Input::ConnectFailed(connection, error));
            }
            Happening::Received(connection, text) => {
                self.input(Input::Received(connection, text.as_bytes()));
            }
            Happening::Closed(connection) => {
                self.disconnect(connection);
                self.input(Input::Closed(connection, CloseReason::EndOfFile));
            }
            Happening::Tls(connection, groups, terms) => {
                let Some(peer) = self.peers.get_mut(&connection) else { return };
                let hello = peer.behaviour.large_hello;
                self.servers.entry(peer.address).or_default().groups.push(groups);
                let dropped: Option<Breakage> = match hello {
                    _ if groups == Groups::Classic => None,
                    LargeHello::Taken => None,
                    LargeHello::Ignored => return,
                    LargeHello::Dropped => Some(TlsTrouble::Truncated.into()),
                    LargeHello::Reset => Some(NetworkTrouble::Reset.into()),
                };
                if let Some(trouble) = dropped {
                    self.disconnect(connection);
                    return self.input(Input::TlsFailed(connection, SystemError::new(trouble, "it is gone")));
                }
                if peer.behaviour.tls_fails {
                    self.disconnect(connection);
                    return self.input(Input::TlsFailed(
                        connection,
                        SystemError::new(TlsTrouble::Alert, "handshake failure"),
                    ));
                }
                let certificate_is_valid = peer.behaviour.certificate_is_valid;
                let greeting = if peer.address.port() == 465 { peer.greet() } else { Vec::new() };
                let key = peer.behaviour.key;
                let tls = Tls { dane: dane(&terms, key), ..tls(certificate_is_valid) };
                self.input(Input::TlsEstablished { connection, tls });
                self.answer(connection, greeting);
            }
            Happening::Datagram(query, octets) => {
                let from = NAME_SERVER.parse().unwrap();
                self.input(Input::Datagram { query, from, octets: &octets });
            }
            Happening::Store(request, reply) => self.input(Input::Store(request, reply)),
            Happening::Signed(request, signatures) => self.input(Input::Signed(request, signatures)),
            Happening::Https(id, answer) => {
                self.fetches -= 1;
                self.input(Input::Https(id, answer));
            }
        }
    }

    fn answer(&mut self, connection: ConnectionId, answers: Vec<Answer>) {
        for (index, answer) in answers.into_iter().enumerate() {
            let after = LATENCY + Duration::from_micros(index as u64);
            self.later(
                after,
                match answer {
                    Answer::Say(text) => Happening::Received(connection, text),
                    Answer::Close => Happening::Closed(connection),
                },
            );
        }
    }

    pub(super) fn take_outputs(&mut self) {
        while let Some(output) = self.dispatcher.poll_output() {
            match output {
                Output::Connect { connection, remote, local, .. } => {
                    self.sources.extend(local.map(|local| (remote, local)));
                    self.connect(connection, remote);
                }
                Output::StartTls { connection, groups, terms, .. } => {
                    self.later(LATENCY, Happening::Tls(connection, groups, terms));
                }
                Output::Transmit(connection) => self.transmit(connection),
                Output::Close(connection) => self.disconnect(connection),
                Output::Datagram { query, octets, .. } => {
                    if !self.dns_is_dead {
                        let response = self.resolve(&octets);
                        self.later(LATENCY, Happening::Datagram(query, response));
                    }
                }
                Output::CloseDatagram(_) => {}
                Output::Store(id, request) => {
                    let delay = self.slow.get(kind(&request)).copied().unwrap_or(self.store_delay);
                    let reply = self.outbox.answer(request);
                    self.later(delay, Happening::Store(id, reply));
                }
                Output::Release(ids) => self.outbox.release(&ids),
                Output::Sign(id, digests) => {
                    let sign = |(key, digest): (KeyId, Digest)| match self.refused_keys.get(&key) {
                        Some(trouble) => Err(trouble.clone()),
                        None => Ok(Bytes::copy_from_slice(&digest)),
                    };
                    let signatures = digests.into_iter().map(sign).collect();
                    let delay = self.slow.get("sign").copied().unwrap_or(self.store_delay);
                    self.later(delay, Happening::Signed(id, signatures));
                }
                Output::Https(id, request) => self.fetch(id, &request),
                Output::Event(event) => self.events.push(event),
                Output::Answer(id, answer) => self.answers.push((id, answer)),
                Output::Drained => {
                    assert_eq!(self.drained_at, None, "there is one end");
                    self.drained_at = Some(self.now.monotonic);
                }
            }
        }
        self.check_held();
    }

    fn fetch(&mut self, id: HttpsId, request: &HttpsRequest) {
        assert_eq!(request.path, "/.well-known/mta-sts.txt");
        let host = request.host.to_string();
        assert_eq!(self.addresses.get(&host), Some(&request.addresses), "{host}");
        let unreachable = || (LATENCY, Err(HttpsError::new(HttpsTrouble::Unreachable, "no answer")));
        let (after, answer) = self.web.get(&host).cloned().unwrap_or_else(unreachable);
        self.fetched.push((self.now.monotonic, host));
        self.fetches += 1;
        self.most_fetches = self.most_fetches.max(self.fetches);
        self.later(after, Happening::Https(id, answer));
    }

    /// What the outbox holds is what the dispatcher works on, once it has got all answers; and at the end that is nothing.
    fn check_held(&self) {
        let is_answered =
            |happening: &Happening| !matches!(happening, Happening::Store(..) | Happening::Signed(..));
        if self.happenings.values().all(is_answered) {
            assert_eq!(self.outbox.held(), self.dispatcher.held().collect::<Vec<_>>());
            let is_over = self.drained_at.is_some() && self.dispatcher.unrecorded().is_none();
            assert!(!is_over || self.outbox.held().is_empty(), "held at the end: {:?}", self.outbox.held());
        }
    }

    fn connect(&mut self, connection: ConnectionId, remote: SocketAddr) {
        self.attempts.push((self.now.monotonic, remote));
        let behaviour =
            self.servers.get_mut(&remote).map_or(Behaviour::connect(Connect::Refused), |server| {
                server.connections += 1;
                server.open.insert(connection);
                server.most_open = server.most_open.max(server.open.len());
                server.next.pop_front().unwrap_or_else(|| server.usual.clone())
            });
        let connect = behaviour.connect;
        assert!(self.peers.insert(connection, Peer::new(remote, behaviour)).is_none());
        self.most_open = self.most_open.max(self.peers.len());
        self.later(
            LATENCY,
            match connect {
                Connect::Accepted => Happening::Connected(connection),
                Connect::Refused => Happening::ConnectFailed(
                    connection,
                    ConnectError::remote(NetworkTrouble::Refused, "connection refused"),
                ),
                Connect::Local => Happening::ConnectFailed(
                    connection,
                    ConnectError::local(MachineTrouble::Descriptors, "too many open files"),
                ),
                Connect::Silent => return,
            },
        );
    }

    /// The connection is gone, and whatever is on its way.
    pub(super) fn disconnect(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.remove(&connection) else { return };
        if let Some(server) = self.servers.get_mut(&peer.address) {
            server.open.remove(&connection);
        }
        self.happenings.retain(|_, happening| {
            !matches!(
                happening,
                Happening::Connected(of) | Happening::ConnectFailed(of, _) | Happening::Received(of, _)
                    | Happening::Closed(of) | Happening::Tls(of, ..) if *of == connection
            )
        });
    }

    fn transmit(&mut self, connection: ConnectionId) {
        let mut octets = BytesMut::new();
        while self.dispatcher.poll_transmit(self.now, connection, 4096, &mut octets) {}
        let Some(peer) = self.peers.get_mut(&connection) else { return };
        let Some(server) = self.servers.get_mut(&peer.address) else { return };
        let answers = peer.take(&octets, server);
        self.answer(connection, answers);
    }

    fn resolve(&mut self, query: &[u8]) -> Vec<u8> {
        let mut message = WireMessage::from_vec(query).unwrap();
        message.metadata.message_type = MessageType::Response;
        message.metadata.recursion_available = true;
        let question = message.queries[0].clone();
        let name = question.name().to_string().trim_end_matches('.').to_ascii_lowercase();
        let wire = |text: &str| Name::from_ascii(format!("{text}.")).unwrap();
        let wanted = question.query_type();
        message.metadata.authentic_data &= self.signed.contains(&name);
        if wanted == RecordType::TLSA {
            self.asked_for_tlsa.push(name.clone());
        }
        if wanted == RecordType::TXT {
            let domain = name.strip_prefix("_mta-sts.").expect("no other text is asked for");
            self.asked_for_records.push(domain.to_owned());
        }
        let data: Vec<RData> = if wanted == RecordType::TXT {
            let text = |text: &String| RData::TXT(TXT::new(vec![text.clone()]));
            self.texts.get(&name).map_or(Vec::new(), |texts| texts.iter().map(text).collect())
        } else if wanted == RecordType::TLSA {
            let data = |record: &TlsaRecord| {
                let TlsaRecord { usage, selector, matching, data } = record;
                RData::TLSA(TLSA::new((*usage).into(), (*selector).into(), (*matching).into(), data.to_vec()))
            };
            self.certificates.get(&name).map_or(Vec::new(), |records| records.iter().map(data).collect())
        } else if wanted == RecordType::MX {
            self.exchanges.get(&name).map_or(Vec::new(), |records| {
                let null = Name::root();
                let host = |host: &str| if host.is_empty() { null.clone() } else { wire(host) };
                records.iter().map(|(preference, mx)| RData::MX(MX::new(*preference, host(mx)))).collect()
            })
        } else {
            self.addresses.get(&name).map_or(Vec::new(), |addresses| {
                let data = |address: &IpAddr| match (address, wanted) {
                    (IpAddr::V4(address), RecordType::A) => Some(RData::A(A(*address))),
                    (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(AAAA(*address))),
                    _ => None,
                };
                addresses.iter().filter_map(data).collect()
            })
        };
        let exists = self.exchanges.contains_key(&name)
            || self.addresses.contains_key(&name)
            || self.certificates.contains_key(&name)
            || self.texts.contains_key(&name);
        if let Some(&code) = self.broken_names.get(&name) {
            message.metadata.response_code = code;
        } else if !exists {
            message.metadata.response_code = ResponseCode::NXDomain;
        }
        if data.is_empty() {
            let soa = SOA::new(wire("ns.example"), wire("admin.example"), 1, 3600, 600, 86400, 60);
            message.authorities = vec![Record::from_rdata(question.name().clone(), 60, RData::SOA(soa))];
        }
        message.answers =
            data.into_iter().map(|data| Record::from_rdata(question.name().clone(), 300, data)).collect();
        message.to_vec().unwrap()
    }

    pub(super) fn failures(&self, id: i64) -> Vec<String> {
        let attempts = self.outbox.mails[&id].faillog.iter();
        attempts.map(|attempt| String::from_utf8_lossy(&attempt.text).into()).collect()
    }

    pub(super) fn notes(&self) -> String {
        self.events.iter().map(|event| format!("{event}\n")).collect()
    }
}
