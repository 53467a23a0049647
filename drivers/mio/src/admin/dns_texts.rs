//! Looks up TXT records, with the resolver of the daemon and sockets that are waited for.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cmail_delivery::address::Domain;
use cmail_delivery::fair_queue::Prospect;
use cmail_delivery::io::{CloseReason, ConnectError, ConnectionId, QueryId};
use cmail_delivery::resolver::{Answer, LookupError, Resolver, ResolverOutput};
use cmail_delivery::rng::Rng;
use cmail_delivery::settings::ResolverSettings;
use cmail_delivery::system_error::NetworkTrouble;
use cmail_delivery::time;

use crate::engine::seed;

/// How long one read waits, before another socket is looked at.
const READ_WAIT: Duration = Duration::from_millis(20);
/// Longest answer, in octets.
const ANSWER_LIMIT_OCTETS: usize = 64 * 1024;
/// How long one server may take to be connected to, or to take a question.
const SERVER_LIMIT: Duration = Duration::from_secs(5);
/// Most octets that are sent at once.
const SEND_OCTETS: usize = 4096;

/// Returns the TXT records of the name that these labels make in front of a domain; none if it has none, or does not exist.
pub(super) fn texts(
    settings: &ResolverSettings,
    labels: &str,
    domain: &Domain,
) -> Result<Vec<Box<[u8]>>, String> {
    let seed = seed().map_err(|error| format!("the system provides no random octets: {error}"))?;
    let mut lookup = Lookup {
        resolver: Resolver::new(settings.clone(), Rng::from_seed(seed)),
        began: Instant::now(),
        datagrams: BTreeMap::new(),
        streams: BTreeMap::new(),
    };
    let now = lookup.now();
    lookup.resolver.lookup_texts(now, labels, domain, Prospect::Fresh);
    match lookup.run() {
        Ok(found) => Ok(found),
        Err(LookupError::NameDoesNotExist | LookupError::NoAddress) => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

struct Lookup {
    resolver: Resolver,
    began: Instant,
    datagrams: BTreeMap<QueryId, UdpSocket>,
    streams: BTreeMap<ConnectionId, TcpStream>,
}

impl Lookup {
    fn now(&self) -> time::Instant {
        time::Instant::from_micros(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn run(&mut self) -> Result<Vec<Box<[u8]>>, LookupError> {
        loop {
            while let Some(output) = self.resolver.poll_output() {
                if let ResolverOutput::Answer(_, Answer::Texts(found)) = output {
                    return found.map(|found| found.value);
                }
                self.carry_out(output);
            }
            self.receive();
            if self.datagrams.is_empty() && self.streams.is_empty() {
                std::thread::sleep(READ_WAIT);
            }
            let now = self.now();
            if self.resolver.poll_timeout().is_some_and(|at| at <= now) {
                self.resolver.handle_timeout(now);
            }
        }
    }

    fn carry_out(&mut self, output: ResolverOutput) {
        let now = self.now();
        match output {
            ResolverOutput::Datagram { query, to, octets } => match ask(to, &octets) {
                Ok(socket) => drop(self.datagrams.insert(query, socket)),
                Err(error) => self.resolver.handle_datagram_failed(now, query, unreached(&error)),
            },
            ResolverOutput::CloseDatagram(query) => drop(self.datagrams.remove(&query)),
            ResolverOutput::Connect { connection, to } => match connect(to) {
                Ok(stream) => {
                    self.streams.insert(connection, stream);
                    self.resolver.handle_connected(now, connection);
                }
                Err(error) => self.resolver.handle_connect_failed(now, connection, unreached(&error)),
            },
            ResolverOutput::Transmit(connection) => {
                let mut octets = BytesMut::new();
                while self.resolver.poll_transmit(connection, SEND_OCTETS, &mut octets) {}
                if let Some(stream) = self.streams.get_mut(&connection)
                    && stream.write_all(&octets).is_err()
                {
                    self.streams.remove(&connection);
                    self.resolver.handle_closed(now, connection, CloseReason::EndOfFile);
                }
            }
            ResolverOutput::Close(connection) => drop(self.streams.remove(&connection)),
            ResolverOutput::Warning(text) => log::warn!("{text}"),
            // Nothing else was asked.
            ResolverOutput::Answer(..) => {}
        }
    }

    /// Reads what has come. Waits a little where nothing has.
    fn receive(&mut self) {
        let mut octets = vec![0; ANSWER_LIMIT_OCTETS];
        let now = self.now();
        for (query, socket) in &self.datagrams {
            match socket.recv_from(&mut octets) {
                Ok((count, from)) => {
                    let octets = octets.get(..count).unwrap_or_default();
                    return self.resolver.handle_datagram(now, *query, from, octets);
                }
                Err(error) if is_wait(&error) => {}
                Err(error) => return self.resolver.handle_datagram_failed(now, *query, unreached(&error)),
            }
        }
        let mut ended = None;
        for (connection, stream) in &mut self.streams {
            match stream.read(&mut octets) {
                Ok(0) => ended = Some(*connection),
                Ok(count) => {
                    let octets = octets.get(..count).unwrap_or_default();
                    return self.resolver.handle_received(now, *connection, octets);
                }
                Err(error) if is_wait(&error) => {}
                Err(_) => ended = Some(*connection),
            }
        }
        if let Some(connection) = ended {
            self.streams.remove(&connection);
            self.resolver.handle_closed(now, connection, CloseReason::EndOfFile);
        }
    }
}

fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn unreached(error: &io::Error) -> ConnectError {
    ConnectError::remote(NetworkTrouble::Refused, error.to_string())
}

fn ask(to: SocketAddr, octets: &[u8]) -> io::Result<UdpSocket> {
    let from: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(from)?;
    socket.set_read_timeout(Some(READ_WAIT))?;
    socket.send_to(octets, to)?;
    Ok(socket)
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, SERVER_LIMIT)?;
    stream.set_read_timeout(Some(READ_WAIT))?;
    stream.set_write_timeout(Some(SERVER_LIMIT))?;
    Ok(stream)
}
