//! Calls in any order, with any content.

use proptest::prelude::*;

use super::outbox::{Mail, Outbox};
use super::world::tls;
use super::*;
use crate::course::Transcripts;
use crate::destination_pattern::DestinationPattern;
use crate::next_hop::Relay;
use crate::policy::{Choice, PolicyLine};
use crate::settings::Hosts;
use crate::system_error::{MachineTrouble, NetworkTrouble, SystemError, TlsTrouble};

#[derive(Clone, Debug)]
enum Call {
    /// A step of what the outputs ask for, answered well or badly.
    Answer {
        which: usize,
        how: u8,
    },
    Stale {
        connection: u64,
        how: u8,
    },
    Octets {
        connection: u64,
        octets: Vec<u8>,
    },
    Timeout {
        millis: u32,
    },
    WallJump {
        seconds: i64,
    },
    Mail {
        domain: u8,
        sender: u8,
    },
    Remove {
        which: usize,
    },
    Transmit {
        connection: u64,
    },
    Retry,
    Settings(Box<Settings>),
    Drain,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let text = prop_oneof![
        Just(b"220 hi\r\n".to_vec()),
        Just(b"250 ok\r\n".to_vec()),
        Just(b"250-mx\r\n250 STARTTLS\r\n".to_vec()),
        Just(b"354 go\r\n".to_vec()),
        Just(b"421 no\r\n".to_vec()),
        Just(b"450 no\r\n".to_vec()),
        Just(b"452 no\r\n".to_vec()),
        Just(b"550 no\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    let connection = || (0..6_u64).prop_map(|number| number * 2);
    let call = prop_oneof![
        12 => (any::<usize>(), any::<u8>()).prop_map(|(which, how)| Call::Answer { which, how }),
        2 => (connection(), any::<u8>()).prop_map(|(connection, how)| Call::Stale { connection, how }),
        8 => (connection(), text).prop_map(|(connection, octets)| Call::Octets { connection, octets }),
        3 => (0..700_000_u32).prop_map(|millis| Call::Timeout { millis }),
        1 => (-100_000..100_000_i64).prop_map(|seconds| Call::WallJump { seconds }),
        3 => (0..5_u8, 0..3_u8).prop_map(|(domain, sender)| Call::Mail { domain, sender }),
        1 => any::<usize>().prop_map(|which| Call::Remove { which }),
        4 => connection().prop_map(|connection| Call::Transmit { connection }),
        1 => Just(Call::Retry),
        2 => any_settings().prop_map(|settings| Call::Settings(Box::new(settings))),
    ];
    (prop::collection::vec(call, 1..150), prop::bool::weighted(0.2)).prop_map(|(mut calls, drains)| {
        if drains {
            calls.push(Call::Drain);
        }
        calls
    })
}

fn destination_lines() -> Vec<PolicyLine> {
    let relay = |specification: &str| Relay::parse(specification.as_bytes()).ok();
    let line = |destination: &str, choices: &[Choice]| {
        let destination = DestinationPattern::parse(destination).unwrap();
        PolicyLine { destination, choices: choices.to_vec(), line: 1 }
    };
    vec![
        line("*", &[Choice::Messages(Some(1)), Choice::Recipients(1), Choice::Pipelining(false)]),
        line("y.example", &[Choice::Via(relay("u:p@relay:25")), Choice::Concurrency(1)]),
        line("remote:relay", &[Choice::HostConcurrency(1), Choice::Idle(Duration::ZERO)]),
        line("mx:*.y.example", &[Choice::HostConcurrency(3), Choice::Family(Family::Ipv4)]),
    ]
}

/// Settings of which anything may differ from those of before.
fn any_settings() -> impl Strategy<Value = Settings> {
    let limits = (1..6_u32, 1..4_u32, 1..4_u32, 0..400_u64, prop::option::of(1..5_u32));
    let rules = (1..90_u64, 1..4_u32, 0..400_i64, 0..3_u16, 0..4_usize);
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let lines = prop::sample::subsequence(destination_lines(), 0..=4);
    (limits, rules, switches, lines).prop_map(|(limits, rules, switches, lines)| {
        let (concurrency, destination_concurrency, host_concurrency, idle_s, rate) = limits;
        let (interval_s, retries, retry_interval_s, padding, ports) = rules;
        let (ipv4, has_copy, auth_insecure, conversations) = switches;
        let port = |number, tls| Port { number, tls };
        let all = [port(25, TlsMode::StartTls), port(25, TlsMode::Plain), port(465, TlsMode::Implicit)];
        Settings {
            concurrency,
            interval: Duration::from_secs(interval_s),
            schedule: Schedule { retries, retry_interval_s, ..Schedule::default() },
            policy: Policy {
                concurrency: destination_concurrency,
                host_concurrency,
                rate_limit: rate.map(|transactions| RateLimit { transactions, per: Duration::from_secs(60) }),
                idle: Duration::from_secs(idle_s),
                ports: all[..ports].into(),
                family: if ipv4 { Family::Any } else { Family::Ipv6 },
                padding,
                ..Policy::default()
            },
            destinations: lines.into(),
            bounces: BounceRules {
                copies: has_copy.then(|| "copy@[192.0.2.8]".into()).into_iter().collect(),
                ..settings().bounces
            },
            auth_insecure,
            told: Told { conversations, courses: true, transcripts: Transcripts::Always },
            ..settings()
        }
    })
}

/// A driver that does as the calls say, and keeps what is to be answered.
struct Driver {
    now: Now,
    dispatcher: Dispatcher,
    outbox: Outbox,
    requests: Vec<(RequestId, Result<StoreReply, StoreError>)>,
    queries: Vec<QueryId>,
    connects: Vec<ConnectionId>,
    tls: Vec<ConnectionId>,
    removed: Vec<i64>,
    outputs: usize,
    is_drained: bool,
}

impl Driver {
    fn new(mode: Mode) -> Self {
        let now = Now::new(Instant::from_micros(0), UnixTime(1_000_000));
        let mut settings = settings();
        settings.policy.rate_limit = Some(RateLimit { transactions: 3, per: Duration::from_secs(1) });
        settings.policy.concurrency = 3;
        settings.told.conversations = true;
        let hosts = Hosts::from([(Domain::parse("relay").unwrap(), vec!["192.0.2.1".parse().unwrap()])]);
        let mut outbox = Outbox::default();
        outbox.is_misquoted = true;
        Self {
            now,
            dispatcher: Dispatcher::new(now, settings, hosts, mode, [9; 32]),
            outbox,
            requests: Vec::new(),
            queries: Vec::new(),
            connects: Vec::new(),
            tls: Vec::new(),
            removed: Vec::new(),
            outputs: 0,
            is_drained: false,
        }
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.dispatcher.poll_output() {
            self.outputs += 1;
            match output {
                Output::Store(id, request) => {
                    let answer = self.outbox.answer(request);
                    self.requests.push((id, answer));
                }
                Output::Release(ids) => self.outbox.release(&ids),
                Output::Sign(..) => unreachable!("there are no keys"),
                Output::Https(..) => unreachable!("no policies are asked for"),
                Output::Datagram { query, .. } => self.queries.push(query),
                Output::Connect { connection, .. } => self.connects.push(connection),
                Output::StartTls { connection, .. } => self.tls.push(connection),
                Output::Drained => self.is_drained = true,
                Output::Answer(..) => {}
                Output::Transmit(_) | Output::Close(_) | Output::CloseDatagram(_) | Output::Event(_) => {}
            }
        }
    }

    fn input(&mut self, input: Input<'_>) {
        self.dispatcher.handle_input(self.now, input);
        self.take_outputs();
    }

    fn call(&mut self, call: Call) {
        match call {
            Call::Answer { which, how } => self.answer(which, how),
            Call::Stale { connection, how } => {
                let id = ConnectionId(connection);
                match how % 6 {
                    0 => self.input(Input::Connected(id)),
                    1 => self
                        .input(Input::ConnectFailed(id, ConnectError::remote(NetworkTrouble::Refused, "no"))),
                    2 => self.input(Input::Closed(id, CloseReason::EndOfFile)),
                    3 => self.input(Input::TlsFailed(id, SystemError::new(TlsTrouble::Alert, "no"))),
                    4 => self.input(Input::TlsEstablished { connection: id, tls: tls(true) }),
                    _ => {
                        let id = RequestId(connection);
                        self.input(Input::Store(id, Ok(StoreReply::Data(Bytes::new()))));
                    }
                }
            }
            Call::Octets { connection, octets } => {
                // What is to be sent is sent, so that the octets can be a reply to it.
                self.call(Call::Transmit { connection });
                self.input(Input::Received(ConnectionId(connection), &octets))
            }
            Call::Timeout { millis } => {
                self.now.monotonic = self.now.monotonic + Duration::from_millis(millis.into());
                self.now.wall.0 += i64::from(millis / 1000);
                self.dispatcher.handle_timeout(self.now);
                self.take_outputs();
            }
            Call::WallJump { seconds } => self.now.wall.0 += seconds,
            Call::Mail { domain, sender } => {
                let recipient = ["a@[192.0.2.1]", "b@[192.0.2.1]", "c@[192.0.2.2]", "bad", "x@y.example"];
                let remote = if domain == 4 { Some("relay".into()) } else { None };
                self.outbox.insert(Mail {
                    remote,
                    sender: [None, Some("s@[192.0.2.9]".into()), Some("t@[192.0.2.9]".into())]
                        [usize::from(sender)]
                    .clone(),
                    recipient: recipient[usize::from(domain)].into(),
                    data: Bytes::from_static(b"x"),
                    submission: UnixTime(0),
                    faillog: Vec::new(),
                    last_failure: None,
                    hold: crate::hold::Hold::default(),
                    wishes: crate::dsn::DsnWishes::default(),
                });
                self.input(Input::OutboxChanged);
            }
            Call::Remove { which } => {
                let ids: Vec<i64> = self.outbox.mails.keys().collect();
                if let Some(&id) = ids.get(which % ids.len().max(1)) {
                    self.outbox.mails.remove(&id);
                    self.removed.push(id);
                }
            }
            Call::Transmit { connection } => {
                let mut octets = BytesMut::new();
                let mut left = 1000;
                while left > 0
                    && self.dispatcher.poll_transmit(self.now, ConnectionId(connection), 50, &mut octets)
                {
                    left -= 1;
                }
                assert!(left > 0, "octets without end");
                self.take_outputs();
            }
            Call::Retry => self.input(Input::TryNow),
            Call::Settings(settings) => self.input(Input::Settings(settings)),
            Call::Drain => self.input(Input::Drain),
        }
    }

    /// Answers one of the things that were asked for.
    fn answer(&mut self, which: usize, how: u8) {
        let pick = |length: usize| which % length.max(1);
        match how % 8 {
            0..=3 if !self.requests.is_empty() => {
                let index = pick(self.requests.len());
                let (id, reply) = self.requests.remove(index);
                self.input(Input::Store(id, reply));
            }
            4 | 5 if !self.connects.is_empty() => {
                let connection = self.connects.remove(pick(self.connects.len()));
                match how % 3 {
                    0 => self.input(Input::Connected(connection)),
                    1 => self.input(Input::Connected(connection)),
                    _ => self.input(Input::ConnectFailed(
                        connection,
                        ConnectError::local(MachineTrouble::Descriptors, "no"),
                    )),
                }
            }
            6 if !self.tls.is_empty() => {
                let connection = self.tls.remove(pick(self.tls.len()));
                self.input(Input::TlsEstablished { connection, tls: tls(false) });
            }
            7 if !self.queries.is_empty() => {
                let query = self.queries.remove(pick(self.queries.len()));
                self.input(Input::DatagramFailed(query, ConnectError::remote(NetworkTrouble::Refused, "no")));
            }
            _ => {}
        }
    }

    /// Answers everything; every connection is refused from now on.
    fn heal(&mut self) {
        let closed: Vec<u64> = (0..400).step_by(2).collect();
        for connection in closed {
            self.input(Input::Closed(ConnectionId(connection), CloseReason::EndOfFile));
        }
        for step in 0..3000 {
            if let Some((id, reply)) = self.requests.pop() {
                self.input(Input::Store(id, reply));
            } else if let Some(connection) = self.connects.pop() {
                self.input(Input::ConnectFailed(
                    connection,
                    ConnectError::remote(NetworkTrouble::Refused, "no"),
                ));
            } else if let Some(query) = self.queries.pop() {
                self.input(Input::DatagramFailed(query, ConnectError::remote(NetworkTrouble::Refused, "no")));
            } else if let Some((at, reason)) = self.dispatcher.poll_timeout() {
                let is_at_rest =
                    matches!(reason, TimeoutReason::Scan | TimeoutReason::MailDue | TimeoutReason::Policy);
                if is_at_rest && at > self.now.monotonic && self.dispatcher.is_at_rest() {
                    return;
                }
                self.now.monotonic = self.now.monotonic.max(at);
                self.dispatcher.handle_timeout(self.now);
                self.take_outputs();
            } else {
                return;
            }
            assert!(step < 2999, "no rest: {:?} {:?}", self.dispatcher.poll_timeout(), self.dispatcher);
        }
    }
}

#[test]
fn news_of_a_connection_that_stands_already_changes_nothing() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("DATA", "hang");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    let connection = ConnectionId(0);
    world.input(Input::Connected(connection));
    world.input(Input::ConnectFailed(connection, ConnectError::remote(NetworkTrouble::Refused, "what?")));
    world.run();
    assert_eq!(world.failures(id).len(), 1);
    assert!(world.failures(id)[0].contains("reply to DATA"), "{:?}", world.failures(id));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_calls_does_harm(calls in calls(), one_shot in prop::bool::weighted(0.2)) {
        let selection = Selection::Domain(NextHop::Literal("192.0.2.1".parse().unwrap()));
        let mut driver = Driver::new(if one_shot { Mode::Deliver(selection) } else { Mode::Daemon });
        driver.take_outputs();
        for call in calls {
            driver.call(call);
        }
        prop_assert!(driver.outputs < 20_000, "{}", driver.outputs);
        // Nothing is both delivered and bounced, nothing is lost.
        let outbox = &driver.outbox;
        for id in 1..=outbox.last_id {
            let fates = [
                outbox.mails.contains_key(&id),
                outbox.deleted.contains(&id) && !driver.removed.contains(&id),
                outbox.replaced.contains(&id),
                driver.removed.contains(&id),
            ];
            prop_assert_eq!(fates.iter().filter(|fate| **fate).count(), 1, "mail {}: {:?}", id, fates);
        }
        driver.heal();
        prop_assert!(driver.is_drained || driver.dispatcher.is_at_rest());
    }
}
