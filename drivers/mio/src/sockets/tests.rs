use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};

use cmail_delivery::io::CloseReason;
use mio::{Events, Poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::*;
use crate::testing::{self, PATIENCE, authority, loopback, pattern, serve, source, tls_server};
use cmail_delivery::system_error::{MachineTrouble, NetworkTrouble};

const FIRST_TOKEN: usize = 3;

/// An input, kept.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Connected(u64),
    ConnectFailed(u64, ConnectError),
    Received(u64, Vec<u8>),
    TlsEstablished(u64, bool),
    Closed(u64, CloseReason),
    Datagram(u64, SocketAddr, Vec<u8>),
    DatagramFailed(u64, ConnectError),
}

fn keep(input: Input<'_>) -> Seen {
    match input {
        Input::Connected(id) => Seen::Connected(id.0),
        Input::ConnectFailed(id, failure) => Seen::ConnectFailed(id.0, failure),
        Input::Received(id, octets) => Seen::Received(id.0, octets.to_vec()),
        Input::TlsEstablished { connection, tls } => {
            Seen::TlsEstablished(connection.0, tls.verification.is_verified())
        }
        Input::Closed(id, reason) => Seen::Closed(id.0, reason),
        Input::Datagram { query, from, octets } => Seen::Datagram(query.0, from, octets.to_vec()),
        Input::DatagramFailed(id, failure) => Seen::DatagramFailed(id.0, failure),
        input @ (Input::TlsFailed(..)
        | Input::Store(..)
        | Input::Signed(..)
        | Input::Https(..)
        | Input::OutboxChanged
        | Input::TryNow
        | Input::Watch(_)
        | Input::Hosts(_)
        | Input::Resolver(_)
        | Input::Settings(_)
        | Input::Inquiry(..)
        | Input::EndInquiry(_)
        | Input::Drain) => panic!("{input:?}"),
    }
}

struct Net {
    poll: Poll,
    events: Events,
    sockets: Sockets,
}

impl Net {
    fn new() -> Self {
        Self::trusting(&authority())
    }

    fn trusting(authority: &testing::Authority) -> Self {
        let poll = Poll::new().unwrap();
        let tls = TlsContext::load_trust(Some(testing::trust_file(authority).path()), false).unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let sockets = Sockets::new(registry, tls, FIRST_TOKEN);
        Self { poll, events: Events::with_capacity(64), sockets }
    }

    fn poll(&mut self) {
        self.poll.poll(&mut self.events, Some(PATIENCE)).unwrap();
        assert!(!self.events.is_empty(), "nothing happened for {PATIENCE:?}");
        for event in &self.events {
            self.sockets.on_event(event);
        }
    }

    /// One round: what was reported, in order.
    fn round(&mut self, mut pull: impl FnMut(ConnectionId, usize, &mut BytesMut) -> bool) -> Vec<Seen> {
        let mut seen = Vec::new();
        self.sockets.begin_round();
        while let Some(turn) = self.sockets.turn(&mut pull) {
            if let Turn::Input(input) = turn {
                seen.push(keep(input));
            }
        }
        seen
    }

    /// Rounds until something is reported.
    fn wait(&mut self) -> Vec<Seen> {
        loop {
            if !self.sockets.is_busy() {
                self.poll();
            }
            let seen = self.round(|_, _, _| false);
            if !seen.is_empty() {
                return seen;
            }
        }
    }

    /// Rounds until there is nothing to do without waiting.
    fn settle(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        while self.sockets.is_busy() {
            seen.extend(self.round(|_, _, _| false));
        }
        seen
    }

    fn is_empty(&self) -> bool {
        self.sockets.connections.is_empty()
            && self.sockets.queries.is_empty()
            && self.sockets.owners.is_empty()
            && self.sockets.queue.is_empty()
    }
}

#[test]
fn a_failed_connection_is_reported_once_and_forgotten() {
    let (listener, address) = loopback();
    drop(listener);
    let mut net = Net::new();
    net.sockets.connect(ConnectionId(7), address, None);
    let refused = ConnectError::remote(NetworkTrouble::Refused, "Connection refused");
    assert_eq!(net.wait(), [Seen::ConnectFailed(7, refused)]);
    assert_eq!(net.settle(), []);
    assert!(net.is_empty());
}

#[test]
fn a_connection_that_is_closed_before_its_failure_is_reported_is_not_reported() {
    let (_listener, address) = loopback();
    let mut net = Net::new();
    net.sockets.connect(ConnectionId(1), address, Some([192, 0, 2, 1].into()));
    net.sockets.close(ConnectionId(1));
    assert_eq!(net.settle(), []);
    assert!(net.is_empty());
}

#[test]
fn a_connection_comes_from_the_address_that_is_given() {
    let (listener, address) = loopback();
    let mut net = Net::new();
    net.sockets.connect(ConnectionId(1), address, Some([127, 0, 0, 2].into()));
    assert_eq!(listener.accept().unwrap().1.ip().to_string(), "127.0.0.2");
    net.sockets.connect(ConnectionId(2), address, None);
    assert_eq!(listener.accept().unwrap().1.ip().to_string(), "127.0.0.1");
}

#[test]
fn an_event_of_a_socket_that_is_closed_meanwhile_means_nothing() {
    let (listener, address) = loopback();
    let mut net = Net::new();
    net.sockets.connect(ConnectionId(1), address, None);
    net.poll.poll(&mut net.events, Some(PATIENCE)).unwrap();
    assert!(!net.events.is_empty());
    net.sockets.close(ConnectionId(1));
    net.sockets.connect(ConnectionId(2), address, None);
    for event in &net.events {
        net.sockets.on_event(event);
    }
    assert!(!net.sockets.is_busy(), "the event was taken for one of the new connection");
    assert_eq!(net.wait(), [Seen::Connected(2)]);
    drop(listener);
}

#[test]
fn calls_for_unknown_ids_do_nothing() {
    let mut net = Net::new();
    net.sockets.close(ConnectionId(1));
    net.sockets.request_transmit(ConnectionId(1));
    net.sockets.start_tls(ConnectionId(1), &testing::terms("mx.example.org"), Groups::All);
    net.sockets.close_query(QueryId(1));
    assert!(net.is_empty());
}

#[test]
fn a_busy_connection_gets_no_more_turns_than_a_quiet_one() {
    let mut net = Net::new();
    let (busy, flood) = serve(|mut stream: TcpStream| while stream.write_all(&[b'x'; 65536]).is_ok() {});
    let (quiet, answer) = serve(|mut stream: TcpStream| {
        stream.write_all(b"220 hello\r\n").unwrap();
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    net.sockets.connect(ConnectionId(1), busy, None);
    net.sockets.connect(ConnectionId(2), quiet, None);
    let mut greeting = Vec::new();
    while greeting.len() < 11 {
        net.poll();
        let seen = net.round(|_, _, _| false);
        let of_the_busy =
            seen.iter().filter(|&seen| matches!(seen, Seen::Connected(1) | Seen::Received(1, _))).count();
        assert!(of_the_busy <= 1, "{of_the_busy} turns in one round");
        for seen in seen {
            if let Seen::Received(2, octets) = seen {
                greeting.extend(octets);
            }
        }
    }
    net.sockets.close(ConnectionId(1));
    net.sockets.close(ConnectionId(2));
    flood.join().unwrap();
    answer.join().unwrap();
}

#[test]
fn a_session_goes_from_clear_text_to_tls_to_the_end() {
    let authority = authority();
    let mut net = Net::trusting(&authority);
    let config = tls_server::config(&testing::params(&["mx.example.org"]), Some(&authority));
    let octets = pattern(1_000_000);
    let expected = octets.clone();
    let (address, thread) = serve(move |mut stream| {
        stream.write_all(b"220 go\r\n").unwrap();
        let mut stream = tls_server::accept(config, stream);
        assert!(testing::read_octets(&mut stream, expected.len()) == expected);
        stream.write_all(b"250 ok\r\n").unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        rest
    });
    let id = ConnectionId(9);
    net.sockets.connect(id, address, None);
    assert_eq!(net.wait(), [Seen::Connected(9)]);
    assert_eq!(net.wait(), [Seen::Received(9, b"220 go\r\n".to_vec())]);
    net.sockets.start_tls(id, &testing::terms("mx.example.org"), Groups::All);
    assert_eq!(net.wait(), [Seen::TlsEstablished(9, true)]);
    net.sockets.request_transmit(id);
    let mut source = source(&octets);
    let answer = loop {
        let seen = net.round(|_, limit, octets| source(limit, octets));
        if !seen.is_empty() {
            break seen;
        }
        if !net.sockets.is_busy() {
            net.poll();
        }
    };
    assert_eq!(answer, [Seen::Received(9, b"250 ok\r\n".to_vec())]);
    net.sockets.close(id);
    assert_eq!(thread.join().unwrap(), b"");
    net.sockets.queue.clear();
    assert!(net.is_empty());
}

#[test]
fn a_connection_that_ends_is_forgotten() {
    let (address, thread) = serve(drop);
    let mut net = Net::new();
    net.sockets.connect(ConnectionId(1), address, None);
    assert_eq!(net.wait(), [Seen::Connected(1)]);
    assert_eq!(net.wait(), [Seen::Closed(1, CloseReason::EndOfFile)]);
    assert_eq!(net.settle(), []);
    assert!(net.is_empty());
    thread.join().unwrap();
}

#[test]
fn queries_have_sockets_and_ports_of_their_own_and_hear_only_their_server() {
    let server = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = server.local_addr().unwrap();
    let mut net = Net::new();
    net.sockets.query(QueryId(1), address, b"one");
    net.sockets.query(QueryId(2), address, b"two");
    let mut buffer = [0; 16];
    let (count, first) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"one");
    let (count, second) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"two");
    assert_ne!(first.port(), second.port());
    // RFC 5452 section 9.1: an answer from elsewhere does not count.
    let stranger = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    stranger.send_to(b"forged", second).unwrap();
    server.send_to(b"answer", second).unwrap();
    assert_eq!(net.wait(), [Seen::Datagram(2, address, b"answer".to_vec())]);
    assert_eq!(net.settle(), []);
    net.sockets.close_query(QueryId(1));
    net.sockets.close_query(QueryId(2));
    assert!(net.is_empty());
}

#[test]
fn a_long_datagram_comes_whole() {
    let server = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let address = server.local_addr().unwrap();
    let mut net = Net::new();
    net.sockets.query(QueryId(1), address, b"?");
    let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
    // RFC 768: the greatest payload over IPv4.
    let octets = pattern(65_507);
    server.send_to(&octets, from).unwrap();
    assert_eq!(net.wait(), [Seen::Datagram(1, address, octets)]);
}

#[test]
fn a_server_that_does_not_listen_fails_the_query_at_once() {
    let unused = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    let mut net = Net::new();
    net.sockets.query(QueryId(5), address, b"?");
    let refused = ConnectError::remote(NetworkTrouble::Refused, "Connection refused");
    assert_eq!(net.wait(), [Seen::DatagramFailed(5, refused)]);
    assert_eq!(net.settle(), []);
    // The socket stays until it is closed.
    assert_eq!(net.sockets.queries.len(), 1);
    net.sockets.close_query(QueryId(5));
    assert!(net.is_empty());
}

#[test]
fn tokens_of_open_sockets_are_not_given_again() {
    let (_listener, address) = loopback();
    let mut net = Net::new();
    net.sockets.connect(ConnectionId(1), address, None);
    net.sockets.next_token = usize::MAX - 1;
    net.sockets.connect(ConnectionId(2), address, None);
    net.sockets.connect(ConnectionId(3), address, None);
    let mut tokens: Vec<usize> = net.sockets.owners.keys().map(|token| token.0).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [FIRST_TOKEN, FIRST_TOKEN + 1, usize::MAX - 1]);
}

/// Set in the process of its own that a test needs that changes the limits of its process.
const CHILD: &str = "CMAIL_DISPATCHD_TEST_CHILD";

#[test]
fn without_descriptors_a_connection_fails_locally_and_later_ones_work() {
    const NAME: &str = "sockets::tests::without_descriptors_a_connection_fails_locally_and_later_ones_work";
    if std::env::var_os(CHILD).is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--test-threads=1"])
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let (_listener, address) = loopback();
    let mut net = Net::new();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    net.sockets.connect(ConnectionId(1), address, None);
    net.sockets.query(QueryId(1), address, b"?");
    let failures = net.settle();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let exhausted = || ConnectError::local(MachineTrouble::Descriptors, "Too many open files");
    assert_eq!(failures, [Seen::ConnectFailed(1, exhausted()), Seen::DatagramFailed(1, exhausted())]);
    net.sockets.connect(ConnectionId(2), address, None);
    assert_eq!(net.wait(), [Seen::Connected(2)]);
}
