//! The whole dispatcher, with inputs in any order, on a small outbox in memory (`outbox`): no mail is both delivered and bounced,
//! none is lost, outputs and timers are bounded, no secret appears, and once the faults stop, everything is dealt with.

mod settings;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use cmail_delivery::address::{Domain, Mailbox};
use cmail_delivery::dsn::{DsnWishes, EnvelopeId, MessageWishes, Notify};
use cmail_delivery::event::Event;
use cmail_delivery::explanation::{Inquiry, Subject};
use cmail_delivery::hold::Hold;
use cmail_delivery::io::{
    CertificateTrouble, CloseReason, ConnectError, ConnectionId, HttpsError, HttpsTrouble, Input, InquiryId,
    Output, Purpose, QueryId, Tls, TlsVersion, Verification,
};
use cmail_delivery::memory_outbox::Mail;
use cmail_delivery::next_hop::NextHop;
use cmail_delivery::outbox::{
    MailId, RequestId, StoreError, StoreReply, StoreRequest, StoreTrouble, is_null_path,
};
use cmail_delivery::probe::{Probe, ProbeEnvelope};
use cmail_delivery::settings::ResolverSettings;
use cmail_delivery::system_error::{MachineTrouble, NetworkTrouble, SystemError, TlsTrouble};
use cmail_delivery::time::{Duration, Instant, Now, UnixTime};
use cmail_delivery::watch::Watch;
use cmail_delivery::{Dispatcher, Mode, Selection};

use self::settings::{CONCURRENCY, settings, settings_of};
use crate::outbox::{MESSAGES, Outbox};
use crate::peer::{Peer, State, dns_response};
use crate::script::{number, secret_for, steps};

/// Most steps of a script that are taken.
const STEPS_LIMIT: usize = 200;
/// Most rows that a script inserts.
const ROWS_LIMIT: usize = 30;
/// Most outputs of one input: far more than so few rows call for.
const OUTPUTS_LIMIT: usize = 5000;
/// Most octets that are sent after one input: all rows have long messages.
const OCTETS_LIMIT: usize = ROWS_LIMIT * 200_000;
/// Most timeouts in a row that may be due at once.
const WAKES_LIMIT: usize = 20;
/// Rounds without faults until everything is dealt with.
const HEALING_ROUNDS: usize = 600;
/// Within this time a drain is over.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Checks a script. Verbs, of which `M` may come only first: `Md`, `Mg`, `Mv` daemon, generation of bounces, delivery to a
/// domain; `+` a row: sender, recipient, remote (`%` is a password), number of its message, NOTIFY, ENVID, with `-` for NULL; `-` deletes
/// one; `*` the outbox has changed, `^` try everything, `?` a question about a mail by number or about a domain, or a probe if its name has an even length; `e` other name servers, `S` other settings, by number, `D` drain; `.` seconds pass, `>` the next deadline comes; `a` and `z`
/// the oldest and the latest request is answered, `x` and `y` they fail; `n` DNS queries are answered, `g` one with these
/// octets, `h` one cannot be sent; `c` all connect, `f` and `F` one fails, there or here; `V`, `v`, `X` TLS is established with
/// or without a valid certificate, or is not; `R`, `r` a line or octets from a server, by number, `K` it closes; `P` every
/// server is polite to one command, `p` to all it has got, `O` what they offer from now on: `p` PIPELINING, `l` LIMITS, `d` DSN; `W` how many
/// octets connections take at once; `G` all this without a fault.
pub fn check(octets: &[u8]) {
    let secret = secret_for(octets);
    let mode = match steps(octets).next() {
        Some((b'M', b"g")) => Mode::GenerateBounces,
        Some((b'M', b"v")) => Mode::Deliver(Selection::Domain(NextHop::Domain(
            Domain::parse("example.net").expect("it is a domain"),
        ))),
        _ => Mode::Daemon,
    };
    let mut world = World::new(mode, secret);
    world.pump();
    for (verb, argument) in steps(octets).take(STEPS_LIMIT) {
        world.step(verb, argument);
    }
    world.heal();
}

/// The dispatcher and all that is around it.
struct World {
    dispatcher: Dispatcher,
    mode: Mode,
    now: Now,
    outbox: Outbox,
    secret: String,
    requests: VecDeque<(RequestId, StoreRequest)>,
    peers: BTreeMap<ConnectionId, Peer>,
    used: BTreeSet<ConnectionId>,
    /// Those that ended by themselves, and those that the dispatcher has closed.
    over: BTreeSet<ConnectionId>,
    closed: BTreeSet<ConnectionId>,
    queries: BTreeMap<QueryId, (SocketAddr, Bytes)>,
    /// The results of each mail according to events.
    delivered: BTreeSet<MailId>,
    given_up: BTreeSet<MailId>,
    transmit_limit: usize,
    /// The extensions that polite servers offer beside the usual.
    offers: String,
    draining_since: Option<Instant>,
    inquiries: BTreeSet<InquiryId>,
    asked: u64,
    is_drained: bool,
}

impl World {
    fn new(mode: Mode, secret: String) -> Self {
        let now = Now::new(Instant::from_micros(1), UnixTime(1_700_000_000));
        let dispatcher = Dispatcher::new(now, settings(), Default::default(), mode.clone(), [3; 32]);
        let outbox = Outbox::new(settings().schedule.retries, &secret);
        Self {
            dispatcher,
            mode,
            now,
            outbox,
            secret,
            requests: VecDeque::new(),
            peers: BTreeMap::new(),
            used: BTreeSet::new(),
            over: BTreeSet::new(),
            closed: BTreeSet::new(),
            queries: BTreeMap::new(),
            delivered: BTreeSet::new(),
            given_up: BTreeSet::new(),
            transmit_limit: usize::MAX,
            offers: String::new(),
            draining_since: None,
            inquiries: BTreeSet::new(),
            asked: 0,
            is_drained: false,
        }
    }

    fn step(&mut self, verb: u8, argument: &[u8]) {
        match verb {
            b'+' if self.outbox.mails().len() < ROWS_LIMIT => self.insert(argument),
            b'-' => self.outbox.delete(usize::try_from(number(argument, 0)).unwrap_or(0)),
            b'*' => self.input(Input::OutboxChanged),
            b'^' => self.input(Input::TryNow),
            b'w' => {
                self.input(Input::Watch(if argument.is_empty() { Watch::Nothing } else { Watch::Everything }))
            }
            b'?' => self.inquire(argument),
            b'e' => self.input(Input::Resolver(ResolverSettings {
                servers: vec![SocketAddr::from(([192, 0, 2, 54], 53)).into()],
                ..settings().resolver
            })),
            b'S' => self.input(Input::Settings(Box::new(settings_of(argument)))),
            b'D' => {
                self.draining_since = self.draining_since.or(Some(self.now.monotonic));
                self.input(Input::Drain);
            }
            b'.' => self.pass(Duration::from_secs(number(argument, 1) % 100_000)),
            b'>' => self.jump(),
            b'a' | b'x' => self.answer_store(false, verb == b'x'),
            b'z' | b'y' => self.answer_store(true, verb == b'y'),
            b'n' | b'g' | b'h' => self.answer_dns(verb, argument),
            b'c' => self.connect_all(),
            b'f' => self.connect_failed(argument, ConnectError::remote(NetworkTrouble::Refused, "refused")),
            b'F' => self
                .connect_failed(argument, ConnectError::local(MachineTrouble::Descriptors, "no descriptors")),
            b'V' | b'v' | b'X' => self.tls_all(verb),
            b'R' => {
                let (which, text) = argument.split_first().unwrap_or((&b'0', &[]));
                self.server_says(*which, &[text, b"\r\n"].concat());
            }
            b'r' => {
                let (which, text) = argument.split_first().unwrap_or((&b'0', &[]));
                self.server_says(*which, text);
            }
            b'K' => {
                if let Some(connection) = self.open(number(argument, 0)) {
                    self.end(connection);
                    self.input(Input::Closed(connection, CloseReason::EndOfFile));
                }
            }
            b'P' => drop(self.polite_all(1)),
            b'p' => drop(self.polite_all(usize::MAX)),
            b'O' => {
                let offer = |letter, line| if argument.contains(&letter) { line } else { "" };
                let limits = "250-LIMITS RCPTMAX=2 MAILMAX=3 RCPTDOMAINMAX=1\r\n";
                self.offers =
                    [offer(b'p', "250-PIPELINING\r\n"), offer(b'l', limits), offer(b'd', "250-DSN\r\n")]
                        .concat();
            }
            b'W' => self.transmit_limit = usize::try_from(number(argument, 1000)).unwrap_or(0).max(1),
            b'G' => drop(self.round()),
            _ => {}
        }
    }

    fn insert(&mut self, argument: &[u8]) {
        let mut words = argument.split(|&octet| octet == b' ');
        let mut word = || words.next().filter(|word| *word != b"-");
        let (sender, recipient, remote) = (word(), word(), word());
        let number = word().map_or(0, |word| number(word, 0)) % u64::from(MESSAGES);
        let text = |word: Option<&[u8]>| word.map(|word| String::from_utf8_lossy(word).into_owned());
        let notify = text(word()).and_then(|text| Notify::parse(&text).ok());
        let envelope_id = text(word()).and_then(|text| EnvelopeId::parse(&text).ok());
        let message = MessageWishes { envelope_id, ..MessageWishes::default() };
        let wishes = DsnWishes { notify, original_recipient: None, message };
        // Behind the last `@` stands the host, which is no secret.
        let with_password = |remote: &[u8]| {
            let host = remote.iter().rposition(|&octet| octet == b'@').unwrap_or(0);
            let octets = remote.iter().enumerate().flat_map(|(position, octet)| match octet {
                b'%' if position < host => self.secret.as_bytes().to_vec(),
                octet => vec![*octet],
            });
            octets.collect()
        };
        let mail = Mail {
            remote: remote.map(with_password),
            sender: sender.filter(|sender| !is_null_path(sender)).map(Bytes::copy_from_slice),
            recipient: Bytes::copy_from_slice(recipient.unwrap_or_default()),
            submission: UnixTime(0),
            data: self.outbox.message(u8::try_from(number).unwrap_or(0)),
            faillog: Vec::new(),
            last_failure: None,
            hold: Hold::default(),
            wishes,
        };
        self.outbox.insert(mail);
    }

    /// Passes an input in, and carries out the outputs.
    fn input(&mut self, input: Input<'_>) {
        self.dispatcher.handle_input(self.now, input);
        self.pump();
    }

    fn pump(&mut self) {
        self.take_outputs();
        // A driver that is told that it is time calls at once; this must come to an end.
        for _ in 0..WAKES_LIMIT {
            match self.dispatcher.poll_timeout() {
                Some((at, _)) if at <= self.now.monotonic && !self.is_drained => {
                    self.dispatcher.handle_timeout(self.now);
                    self.take_outputs();
                }
                _ => return,
            }
        }
        panic!("a timer that is always due: {:?}", self.dispatcher.poll_timeout());
    }

    fn take_outputs(&mut self) {
        let (mut count, mut sent) = (0, 0);
        let mut wanting = BTreeSet::new();
        loop {
            while let Some(output) = self.dispatcher.poll_output() {
                // There may be a trace for every sent octet.
                count += usize::from(!matches!(output, Output::Event(Event::Sent(..) | Event::SentData(..))));
                assert!(count < OUTPUTS_LIMIT, "outputs without end: {output:?}");
                // Late inputs may cause events, but nothing else.
                assert!(!self.is_drained || matches!(output, Output::Event(_)), "{output:?} after the end");
                if let Output::Transmit(connection) = output {
                    wanting.insert(connection);
                } else {
                    self.output(output);
                }
            }
            let Some(connection) = wanting.pop_first() else { break };
            let mut octets = BytesMut::new();
            while self.dispatcher.poll_transmit(
                self.now,
                connection,
                self.transmit_limit.min(4096),
                &mut octets,
            ) {
                let peer = self.peers.get_mut(&connection).expect("octets for nobody");
                assert_eq!(peer.state, State::Open, "octets for a connection that does not take any");
                peer.receive(&octets);
                sent += octets.len();
                octets.clear();
                assert!(sent < OCTETS_LIMIT, "octets without end");
            }
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Connect { connection, purpose, .. } => {
                assert!(self.used.insert(connection), "{connection:?} twice");
                self.peers.insert(connection, Peer::new(purpose));
                let smtp = self.peers.values().filter(|peer| peer.purpose == Purpose::Smtp).count();
                assert!(smtp <= CONCURRENCY as usize, "{smtp} connections");
            }
            Output::StartTls { connection, .. } => {
                let peer = self.peers.get_mut(&connection).expect("TLS with nobody");
                assert_eq!(peer.state, State::Open);
                peer.state = State::Handshake;
            }
            Output::Transmit(_) => {}
            Output::Close(connection) => {
                // A connection that has ended by itself may be closed all the same, so that all ends are alike, but once.
                let is_open = self.peers.remove(&connection).is_some();
                assert!(self.closed.insert(connection) && self.used.contains(&connection), "closed twice");
                assert!(is_open || self.over.contains(&connection), "{connection:?} is closed, but not open");
            }
            Output::Datagram { query, to, octets } => {
                assert!(self.queries.insert(query, (to, octets)).is_none());
            }
            Output::CloseDatagram(query) => assert!(self.queries.remove(&query).is_some()),
            Output::Store(id, request) => {
                if matches!(request, StoreRequest::Commit(_)) {
                    let is_commit = |(_, request): &_| matches!(request, StoreRequest::Commit(_));
                    assert!(!self.requests.iter().any(is_commit), "two commits at once");
                }
                self.requests.push_back((id, request));
            }
            Output::Release(ids) => self.outbox.release(&ids),
            Output::Sign(id, digests) => {
                let signed = digests.iter().map(|(_, digest)| Ok(Bytes::copy_from_slice(digest))).collect();
                self.dispatcher.handle_input(self.now, Input::Signed(id, signed));
            }
            Output::Https(id, _) => {
                let error = HttpsError::new(HttpsTrouble::Unreachable, "there is no web here");
                self.dispatcher.handle_input(self.now, Input::Https(id, Err(error)));
            }
            Output::Event(event) => self.event(&event),
            Output::Answer(id, answer) => {
                assert!(self.inquiries.contains(&id), "{id:?} is answered after its end");
                if answer.is_last() {
                    self.inquiries.remove(&id);
                }
            }
            Output::Drained => self.is_drained = true,
        }
    }

    /// Asks about a mail, or about a domain.
    fn inquire(&mut self, argument: &[u8]) {
        let domain = str::from_utf8(argument).ok().and_then(|text| Domain::parse(text).ok());
        let id = i64::try_from(number(argument, 1)).unwrap_or(1);
        let subject =
            domain.map_or(Subject::Mail(MailId(id)), |domain| Subject::NextHop(NextHop::Domain(domain)));
        if let Subject::NextHop(next_hop) = &subject
            && argument.len().is_multiple_of(2)
        {
            let recipient = Mailbox::parse(b"probe@mx.example").expect("it is valid");
            let envelope = Some(ProbeEnvelope { sender: None, recipient });
            let probe = Probe { next_hop: next_hop.clone(), port: None, envelope };
            self.asked += 1;
            self.inquiries.insert(InquiryId(self.asked));
            return self.input(Input::Inquiry(InquiryId(self.asked), Inquiry::Probe(Box::new(probe))));
        }
        // It is total, whatever is under way.
        let _ = self.dispatcher.explain(&subject);
        self.asked += 1;
        self.inquiries.insert(InquiryId(self.asked));
        self.input(Input::Inquiry(InquiryId(self.asked), Inquiry::Explain(subject)));
    }

    fn event(&mut self, event: &Event) {
        let text = event.to_string();
        assert!(!text.contains(&self.secret) && !text.chars().any(char::is_control), "{text:?}");
        match event {
            Event::Delivered { id, .. } => {
                assert!(self.delivered.insert(*id), "{id} is delivered twice");
                assert!(!self.given_up.contains(id), "{id} is delivered after it was given up");
            }
            Event::Bounced { id, .. } | Event::Dropped { id, .. } => {
                self.given_up.insert(*id);
                assert!(!self.delivered.contains(id), "{id} is given up after it was delivered");
            }
            Event::Failed { id, .. } => {
                assert!(!self.delivered.contains(id), "{id} fails after it was delivered");
            }
            Event::Warned { id, .. } => {
                assert!(!self.delivered.contains(id), "{id} is late after it was delivered");
                assert!(!self.given_up.contains(id), "{id} is late after it was given up");
            }
            Event::Relayed { id, .. } => {
                assert!(self.delivered.contains(id), "{id} is reported before it was delivered");
            }
            Event::Yielded { .. }
            | Event::Note { .. }
            | Event::Sent(..)
            | Event::SentData(..)
            | Event::Received(..) => {}
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now.monotonic = self.now.monotonic + span;
        self.now.wall.0 += i64::try_from(span.as_secs()).unwrap_or(0);
        self.dispatcher.handle_timeout(self.now);
        self.pump();
        if let Some(since) = self.draining_since {
            assert!(self.is_drained || self.now.monotonic < since + DRAIN_LIMIT, "a drain without end");
        }
    }

    /// Lets the next deadline come; a second more, so that whole seconds of the other clock pass too.
    fn jump(&mut self) {
        let Some((at, _)) = self.dispatcher.poll_timeout() else { return };
        let span = at.saturating_duration_since(self.now.monotonic);
        self.pass(Duration::from_secs(span.as_secs() + 1));
    }

    fn answer_store(&mut self, latest: bool, fails: bool) {
        let request = if latest { self.requests.pop_back() } else { self.requests.pop_front() };
        let Some((id, request)) = request else { return };
        let result: Result<StoreReply, StoreError> = if fails {
            Err(StoreError { trouble: StoreTrouble::Busy, text: "the database is busy".into() })
        } else {
            self.outbox.answer(request)
        };
        self.input(Input::Store(id, result));
    }

    fn answer_dns(&mut self, verb: u8, garbage: &[u8]) {
        let all: Vec<QueryId> = self.queries.keys().copied().collect();
        for query in all {
            let Some((to, asked)) = self.queries.get(&query).cloned() else { continue };
            match verb {
                b'n' => {
                    let octets = dns_response(&asked);
                    self.input(Input::Datagram { query, from: to, octets: &octets });
                }
                b'g' => {
                    let octets = [&asked[..2], garbage].concat();
                    return self.input(Input::Datagram { query, from: to, octets: &octets });
                }
                _ => {
                    return self.input(Input::DatagramFailed(
                        query,
                        ConnectError::remote(NetworkTrouble::Unreachable, "no route"),
                    ));
                }
            }
        }
    }

    fn in_state(&self, state: State) -> Vec<ConnectionId> {
        self.peers.iter().filter(|(_, peer)| peer.state == state).map(|(&id, _)| id).collect()
    }

    fn open(&self, number: u64) -> Option<ConnectionId> {
        let open = self.in_state(State::Open);
        usize::try_from(number).ok()?.checked_rem(open.len()).and_then(|number| open.get(number).copied())
    }

    /// A connection ends by itself.
    fn end(&mut self, connection: ConnectionId) {
        self.peers.remove(&connection);
        self.over.insert(connection);
    }

    fn connect_all(&mut self) {
        for connection in self.in_state(State::Connecting) {
            if let Some(peer) = self.peers.get_mut(&connection) {
                peer.state = State::Open;
                self.input(Input::Connected(connection));
            }
        }
    }

    fn connect_failed(&mut self, argument: &[u8], error: ConnectError) {
        let connecting = self.in_state(State::Connecting);
        let number = usize::try_from(number(argument, 0)).unwrap_or(0).checked_rem(connecting.len());
        if let Some(connection) = number.and_then(|number| connecting.get(number).copied()) {
            self.end(connection);
            self.input(Input::ConnectFailed(connection, error));
        }
    }

    fn tls_all(&mut self, verb: u8) {
        for connection in self.in_state(State::Handshake) {
            let Some(peer) = self.peers.get_mut(&connection) else { continue };
            if verb == b'X' {
                self.end(connection);
                self.input(Input::TlsFailed(connection, SystemError::new(TlsTrouble::Alert, "alert")));
            } else {
                peer.tls_established();
                let unverified = Verification::Unverified(CertificateTrouble::UnknownIssuer);
                let verification = if verb == b'V' { Verification::Verified } else { unverified };
                let tls = Tls::new(TlsVersion::V1_3, verification);
                self.input(Input::TlsEstablished { connection, tls });
            }
        }
    }

    fn server_says(&mut self, which: u8, octets: &[u8]) {
        let Some(connection) = self.open(which.wrapping_sub(b'0').into()) else { return };
        self.says(connection, octets);
    }

    fn says(&mut self, connection: ConnectionId, octets: &[u8]) {
        if let Some(peer) = self.peers.get_mut(&connection) {
            for taken in peer.say(octets) {
                self.outbox.take(taken);
            }
            self.input(Input::Received(connection, octets));
            let outlives = self.peers.get(&connection).is_some_and(Peer::is_over);
            assert!(!outlives, "{connection:?} outlives what no conversation outlives");
        }
    }

    /// Lets every server reply politely, to this many commands. Returns whether any had a reply.
    fn polite_all(&mut self, commands: usize) -> bool {
        let mut moved = false;
        for connection in self.in_state(State::Open) {
            let Some(peer) = self.peers.get(&connection) else { continue };
            if peer.purpose == Purpose::Dns {
                self.end(connection);
                self.input(Input::Closed(connection, CloseReason::EndOfFile));
                moved = true;
            } else {
                let replies = peer.polite_replies(&self.offers, commands);
                self.says(connection, replies.as_bytes());
                moved |= !replies.is_empty();
            }
        }
        moved
    }

    /// Lets everything happen that is waited for, without any fault. Returns whether there was anything.
    fn round(&mut self) -> bool {
        self.transmit_limit = usize::MAX;
        let mut moved = !self.queries.is_empty() || !self.requests.is_empty();
        for _ in 0..self.requests.len() {
            self.answer_store(false, false);
        }
        self.answer_dns(b'n', b"");
        moved |= !self.in_state(State::Connecting).is_empty() || !self.in_state(State::Handshake).is_empty();
        self.connect_all();
        self.tls_all(b'V');
        self.polite_all(1) || moved
    }

    /// What the outbox holds is what the dispatcher works on; at the end that is nothing, if it could be recorded.
    fn check_held(&self) {
        if self.requests.is_empty() {
            assert!(self.outbox.mails().held().eq(self.dispatcher.held()));
            let is_over = self.is_drained && self.dispatcher.unrecorded().is_none();
            assert!(!is_over || self.dispatcher.held().count() == 0, "mail is held at the end");
        }
    }

    /// Without faults, all mail is delivered or bounced, or the requested drain ends.
    fn heal(&mut self) {
        let is_daemon = self.mode == Mode::Daemon && self.draining_since.is_none();
        for _ in 0..HEALING_ROUNDS {
            if self.is_drained {
                break;
            }
            let moved = self.round();
            if is_daemon && self.outbox.mails().is_empty() && self.requests.is_empty() {
                break;
            }
            if !moved {
                self.jump();
            }
        }
        if is_daemon {
            assert!(!self.is_drained, "a daemon that ends by itself");
            assert!(self.outbox.mails().is_empty(), "mail is left over: {:#?}", self.outbox.mails());
        } else {
            assert!(self.is_drained, "it does not come to its end");
        }
        self.check_held();
    }
}
