//! A complete executor on the standard library: one thread looks after all sockets in turn, none of which ever blocks;
//! only connecting takes a thread for each, since the standard library cannot do it otherwise.
//!
//! Waiting for many sockets at once takes more than the standard library. So while any is open, this looks again
//! every 2 ms; with `poll` or an async runtime, the wait ends when there is something to do, and nothing else changes.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant as Clock;

use bytes::{Buf as _, BytesMut};
use cmail_delivery::io::{CloseReason, HttpsError, HttpsTrouble, QueryId};
use cmail_delivery::settings::Settings;
use cmail_delivery::system_error::{SystemError, TlsTrouble};
use cmail_delivery::time::Duration;
use cmail_delivery::{ConnectionId, Dispatcher, Event, Input, MemoryOutbox, Mode, Now, Output};

use crate::system::{any_address, broken, connect_error, now};

/// Delay before all sockets are checked again if none had anything to do.
const TURN: Duration = Duration::from_millis(2);
/// Time after which a thread gives connecting up. The dispatcher does at the same time.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Most octets that are read at once, or taken from the dispatcher before they are written.
const PIECE_OCTETS: usize = 64 * 1024;

/// Works on an outbox until `is_done`, and then drains the dispatcher. Returns the outbox.
pub(crate) fn run(
    settings: Settings,
    outbox: MemoryOutbox,
    seed: [u8; 32],
    is_done: impl Fn(&MemoryOutbox) -> bool,
    mut log: impl FnMut(&Event),
) -> MemoryOutbox {
    let clock = Clock::now();
    let now = now(clock);
    let dispatcher = Dispatcher::new(now, settings, Default::default(), Mode::Daemon, seed);
    let (dialled, dials) = channel();
    let (links, queries) = (BTreeMap::new(), BTreeMap::new());
    let mut executor =
        Executor { clock, now, dispatcher, outbox, links, queries, dialled, is_drained: false };
    let mut is_draining = false;
    loop {
        // Deadlines are judged by a clock that was read before the sockets, so input that had arrived by then counts, however
        // long this process was stopped. So all that happens in one turn happens at one time.
        executor.read_clock();
        // 1. Carry out the outputs until there are none.
        executor.carry_out(&mut log);
        if executor.is_drained {
            return executor.outbox;
        }
        if !is_draining && is_done(&executor.outbox) {
            is_draining = true;
            executor.input(Input::Drain);
            continue;
        }
        // 2. Pass the inputs in.
        let has_moved = executor.look_after_sockets(&mut log);
        // 3. Do what is due.
        let left = match executor.dispatcher.poll_timeout() {
            Some((at, _)) => at.saturating_duration_since(executor.now.monotonic),
            None => Duration::MAX,
        };
        if left.is_zero() {
            executor.dispatcher.handle_timeout(executor.now);
        } else if !has_moved {
            // 4. Nothing is to be done now. A program that adds mail from another thread would use this channel too, and pass in
            // `Input::OutboxChanged`.
            executor.wait(&dials, left);
        }
    }
}

/// A connection, from `Output::Connect` on.
enum Link {
    /// A thread connects.
    Dialling,
    Open {
        stream: TcpStream,
        /// Octets of the dispatcher that the socket has not taken yet.
        unsent: BytesMut,
        /// True if the dispatcher may have more to send.
        has_more: bool,
    },
}

struct Executor {
    clock: Clock,
    now: Now,
    dispatcher: Dispatcher,
    outbox: MemoryOutbox,
    links: BTreeMap<ConnectionId, Link>,
    queries: BTreeMap<QueryId, UdpSocket>,
    dialled: Sender<(ConnectionId, io::Result<TcpStream>)>,
    is_drained: bool,
}

impl Executor {
    fn read_clock(&mut self) {
        self.now = now(self.clock);
    }

    fn input(&mut self, input: Input<'_>) {
        self.dispatcher.handle_input(self.now, input);
    }

    fn carry_out(&mut self, log: &mut impl FnMut(&Event)) {
        while let Some(output) = self.dispatcher.poll_output() {
            match output {
                Output::Connect { connection, remote, .. } => self.connect(connection, remote),
                // With TLS, wrap the stream, drive the handshake in `look_after_sockets`, and pass its end in as
                // `Input::TlsEstablished`, with whether the certificate is valid for `server`.
                Output::StartTls { connection, .. } => {
                    self.links.remove(&connection);
                    self.input(Input::TlsFailed(
                        connection,
                        SystemError::new(TlsTrouble::NotBegun, "this executor has no TLS"),
                    ));
                }
                Output::Transmit(connection) => {
                    if let Some(Link::Open { has_more, .. }) = self.links.get_mut(&connection) {
                        *has_more = true;
                    }
                    self.write(connection);
                }
                // Written octets are still sent. Those that the socket has not taken are lost.
                Output::Close(connection) => drop(self.links.remove(&connection)),
                Output::Datagram { query, to, octets } => match ask(to, &octets) {
                    Ok(socket) => drop(self.queries.insert(query, socket)),
                    Err(error) => self.input(Input::DatagramFailed(query, connect_error(&error))),
                },
                Output::CloseDatagram(query) => drop(self.queries.remove(&query)),
                // A database would answer from a thread of its own, later, in the same order.
                Output::Store(id, request) => {
                    let answer = self.outbox.answer(request);
                    self.input(Input::Store(id, answer));
                }
                Output::Release(ids) => self.outbox.release(&ids),
                Output::Event(event) => log(&event),
                // Nobody asks, and there are no keys to sign with.
                Output::Answer(..) | Output::Sign(..) => {}
                Output::Https(id, _) => {
                    let error = HttpsError::new(HttpsTrouble::Unreachable, "this executor has no HTTPS");
                    self.input(Input::Https(id, Err(error)));
                }
                Output::Drained => self.is_drained = true,
            }
        }
    }

    fn connect(&mut self, connection: ConnectionId, remote: SocketAddr) {
        self.links.insert(connection, Link::Dialling);
        let dialled = self.dialled.clone();
        thread::spawn(move || {
            // If the receiver is gone, the program is ending.
            let _ = dialled.send((connection, TcpStream::connect_timeout(&remote, CONNECT_LIMIT)));
        });
    }

    /// Processes the result of connecting, unless the dispatcher has closed the connection meanwhile.
    fn take_dialled(&mut self, connection: ConnectionId, dialled: io::Result<TcpStream>) {
        if !self.links.contains_key(&connection) {
            return;
        }
        let opened = dialled.and_then(|stream| {
            stream.set_nonblocking(true)?;
            // Each write is to be sent at once, and separately.
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => {
                let link = Link::Open { stream, unsent: BytesMut::new(), has_more: false };
                self.links.insert(connection, link);
                self.input(Input::Connected(connection));
            }
            Err(error) => {
                self.links.remove(&connection);
                self.input(Input::ConnectFailed(connection, connect_error(&error)));
            }
        }
    }

    /// Gives each socket a turn. Returns whether any had something to do.
    fn look_after_sockets(&mut self, log: &mut impl FnMut(&Event)) -> bool {
        let mut has_moved = false;
        for connection in self.links.keys().copied().collect::<Vec<_>>() {
            has_moved |= self.write(connection) | self.read(connection);
            self.carry_out(log);
        }
        for query in self.queries.keys().copied().collect::<Vec<_>>() {
            has_moved |= self.receive(query);
            self.carry_out(log);
        }
        has_moved
    }

    /// Writes as much as the socket takes. Returns whether it took anything.
    fn write(&mut self, connection: ConnectionId) -> bool {
        let Some(Link::Open { stream, unsent, has_more }) = self.links.get_mut(&connection) else {
            return false;
        };
        let mut has_moved = false;
        loop {
            // More is requested only when all is written, so that memory stays bounded, and writes that must be separate are.
            if unsent.is_empty() {
                while *has_more && unsent.len() < PIECE_OCTETS {
                    *has_more = self.dispatcher.poll_transmit(self.now, connection, PIECE_OCTETS, unsent);
                }
            }
            if unsent.is_empty() {
                return has_moved;
            }
            match stream.write(unsent) {
                Ok(count) => unsent.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return has_moved,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    // Reading finds the cause, after the octets that the peer has sent before.
                    (*has_more, *unsent) = (false, BytesMut::new());
                    return has_moved;
                }
            }
            has_moved = true;
        }
    }

    /// Reads a piece, if there is one. Returns whether anything has happened.
    fn read(&mut self, connection: ConnectionId) -> bool {
        let Some(Link::Open { stream, .. }) = self.links.get_mut(&connection) else { return false };
        let mut octets = [0; PIECE_OCTETS];
        let reason = match stream.read(&mut octets) {
            Ok(0) => CloseReason::EndOfFile,
            Ok(count) => {
                self.input(Input::Received(connection, octets.get(..count).unwrap_or_default()));
                return true;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) => CloseReason::Broken(broken(&error)),
        };
        self.links.remove(&connection);
        self.input(Input::Closed(connection, reason));
        true
    }

    /// Receives a datagram, if there is one. Returns whether anything has happened.
    fn receive(&mut self, query: QueryId) -> bool {
        let Some(socket) = self.queries.get(&query) else { return false };
        let mut octets = [0; PIECE_OCTETS];
        match socket.recv_from(&mut octets) {
            Ok((count, from)) => {
                self.input(Input::Datagram { query, from, octets: octets.get(..count).unwrap_or_default() });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => self.input(Input::DatagramFailed(query, connect_error(&error))),
        }
        true
    }

    /// Waits for a connection, the next turn of the sockets, or the deadline, for which `left` remains.
    fn wait(&mut self, dials: &Receiver<(ConnectionId, io::Result<TcpStream>)>, left: Duration) {
        let has_sockets = !self.links.is_empty() || !self.queries.is_empty();
        let span = if has_sockets { left.min(TURN) } else { left };
        if let Ok((connection, dialled)) = dials.recv_timeout(span) {
            self.read_clock();
            self.take_dialled(connection, dialled);
        }
    }
}

/// Sends a datagram from a new socket, whose port the system has chosen.
fn ask(to: SocketAddr, octets: &[u8]) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(any_address(to))?;
    socket.set_nonblocking(true)?;
    // A connected socket learns that its server is unreachable, and receives nothing from others.
    socket.connect(to)?;
    socket.send(octets)?;
    Ok(socket)
}
