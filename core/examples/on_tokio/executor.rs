//! A complete executor on tokio: a task for each socket sends events to one channel, and one task owns the dispatcher.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant as Clock;

use bytes::{Buf as _, Bytes, BytesMut};
use cmail_delivery::io::{CloseReason, ConnectError, HttpsError, HttpsTrouble, QueryId};
use cmail_delivery::settings::Settings;
use cmail_delivery::system_error::{SystemError, TlsTrouble};
use cmail_delivery::time::Duration;
use cmail_delivery::{ConnectionId, Dispatcher, Event, Input, MemoryOutbox, Mode, Now, Output};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::{JoinSet, yield_now};

use crate::system::{any_address, broken, connect_error, now};

/// Most octets that are read at once, or taken from the dispatcher before they are written.
const PIECE_OCTETS: usize = 64 * 1024;
/// Most events that wait. A socket with more is not read meanwhile.
const HAPPENINGS: usize = 64;

/// An event of a socket.
enum Happening {
    Connected(ConnectionId, Arc<TcpStream>),
    ConnectFailed(ConnectionId, ConnectError),
    Received(ConnectionId, Vec<u8>),
    Closed(ConnectionId, CloseReason),
    Writable(ConnectionId),
    Datagram(QueryId, Vec<u8>, SocketAddr),
    DatagramFailed(QueryId, ConnectError),
}

/// A connection, from `Output::Connect` on. Its tasks end with it.
#[derive(Default)]
struct Link {
    stream: Option<Arc<TcpStream>>,
    /// Octets of the dispatcher that the socket has not taken yet.
    unsent: BytesMut,
    tasks: JoinSet<()>,
}

struct Executor {
    dispatcher: Dispatcher,
    links: BTreeMap<ConnectionId, Link>,
    teller: Sender<Happening>,
}

/// Works on an outbox until `is_done`, and then drains the dispatcher. Returns the outbox.
pub(crate) async fn run(
    settings: Settings,
    mut outbox: MemoryOutbox,
    seed: [u8; 32],
    is_done: impl Fn(&MemoryOutbox) -> bool,
    mut log: impl FnMut(&Event),
) -> MemoryOutbox {
    let clock = Clock::now();
    let dispatcher = Dispatcher::new(now(clock), settings, Default::default(), Mode::Daemon, seed);
    let (teller, mut happenings) = channel(HAPPENINGS);
    let mut queries = BTreeMap::<QueryId, JoinSet<()>>::new();
    let mut executor = Executor { dispatcher, links: BTreeMap::new(), teller };
    let mut is_draining = false;
    loop {
        while let Some(output) = executor.dispatcher.poll_output() {
            let (now, teller) = (now(clock), executor.teller.clone());
            match output {
                Output::Connect { connection, remote, .. } => {
                    let link = executor.links.entry(connection).or_default();
                    link.tasks.spawn(lead(connection, remote, teller));
                }
                // With TLS, wrap the stream, and pass the end of the handshake in as `Input::TlsEstablished`.
                Output::StartTls { connection, .. } => {
                    executor.links.remove(&connection);
                    executor.dispatcher.handle_input(
                        now,
                        Input::TlsFailed(connection, SystemError::new(TlsTrouble::NotBegun, "no TLS here")),
                    );
                }
                Output::Transmit(connection) => executor.write(now, connection),
                Output::Close(connection) => drop(executor.links.remove(&connection)),
                Output::Datagram { query, to, octets } => {
                    queries.entry(query).or_default().spawn(ask(query, to, octets, teller));
                }
                Output::CloseDatagram(query) => drop(queries.remove(&query)),
                Output::Store(id, request) => {
                    let answer = outbox.answer(request);
                    executor.dispatcher.handle_input(now, Input::Store(id, answer));
                }
                Output::Release(ids) => outbox.release(&ids),
                Output::Event(event) => log(&event),
                // Nobody asks, and there are no keys to sign with.
                Output::Answer(..) | Output::Sign(..) => {}
                Output::Https(id, _) => {
                    let error = HttpsError::new(HttpsTrouble::Unreachable, "no HTTPS here");
                    executor.dispatcher.handle_input(now, Input::Https(id, Err(error)));
                }
                Output::Drained => return outbox,
            }
        }
        if !is_draining && is_done(&outbox) {
            is_draining = true;
            executor.dispatcher.handle_input(now(clock), Input::Drain);
            continue;
        }
        let due = executor.dispatcher.poll_timeout().map(|(at, _)| at);
        let left = due.map_or(Duration::MAX, |at| at.saturating_duration_since(now(clock).monotonic));
        if let Ok(Some(happening)) = tokio::time::timeout(left, happenings.recv()).await {
            executor.take_in(now(clock), happening);
        }
        // Input that has arrived by now counts, however long this process was stopped, so it is passed in before the timeout.
        let now = now(clock);
        yield_now().await;
        while let Ok(happening) = happenings.try_recv() {
            executor.take_in(now, happening);
        }
        executor.dispatcher.handle_timeout(now);
    }
}

impl Executor {
    fn take_in(&mut self, now: Now, happening: Happening) {
        let input = match &happening {
            Happening::Connected(connection, stream) => {
                let Some(link) = self.links.get_mut(connection) else { return };
                link.stream = Some(Arc::clone(stream));
                Input::Connected(*connection)
            }
            Happening::ConnectFailed(connection, error) => Input::ConnectFailed(*connection, error.clone()),
            Happening::Received(connection, octets) => Input::Received(*connection, octets),
            Happening::Closed(connection, reason) => Input::Closed(*connection, reason.clone()),
            Happening::Writable(connection) => return self.write(now, *connection),
            Happening::Datagram(query, octets, from) => {
                Input::Datagram { query: *query, from: *from, octets }
            }
            Happening::DatagramFailed(query, error) => Input::DatagramFailed(*query, error.clone()),
        };
        self.dispatcher.handle_input(now, input);
    }

    /// Writes as much as the socket takes. More is requested only when all is written, so that memory stays bounded, and writes
    /// that must be separate are.
    fn write(&mut self, now: Now, id: ConnectionId) {
        let link = self.links.get_mut(&id);
        let Some(Link { stream: Some(stream), unsent, tasks }) = link else { return };
        loop {
            if unsent.is_empty() && !self.dispatcher.poll_transmit(now, id, PIECE_OCTETS, unsent) {
                return;
            }
            match stream.try_write(unsent) {
                Ok(count) => unsent.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let (stream, teller) = (Arc::clone(stream), self.teller.clone());
                    tasks.spawn(async move {
                        let _ = stream.writable().await;
                        let _ = teller.send(Happening::Writable(id)).await;
                    });
                    return;
                }
                // Reading finds the cause, after the octets that the peer has sent before.
                Err(_) => return unsent.clear(),
            }
        }
    }
}

/// Connects, and reads what arrives.
async fn lead(connection: ConnectionId, remote: SocketAddr, teller: Sender<Happening>) {
    let stream = match TcpStream::connect(remote).await {
        Ok(stream) => Arc::new(stream),
        Err(error) => {
            return drop(teller.send(Happening::ConnectFailed(connection, connect_error(&error))).await);
        }
    };
    // Each write is to be sent at once, and separately. Without this it is only slower.
    let _ = stream.set_nodelay(true);
    let _ = teller.send(Happening::Connected(connection, Arc::clone(&stream))).await;
    let reason = loop {
        let mut octets = vec![0; PIECE_OCTETS];
        match stream.readable().await.and_then(|()| stream.try_read(&mut octets)) {
            Ok(0) => break CloseReason::EndOfFile,
            Ok(count) => {
                octets.truncate(count);
                let _ = teller.send(Happening::Received(connection, octets)).await;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => break CloseReason::Broken(broken(&error)),
        }
    };
    let _ = teller.send(Happening::Closed(connection, reason)).await;
}

/// Sends a question from a new socket, and reads what arrives.
async fn ask(query: QueryId, to: SocketAddr, question: Bytes, teller: Sender<Happening>) {
    let exchange = async {
        let socket = UdpSocket::bind(any_address(to)).await?;
        socket.connect(to).await?;
        socket.send(&question).await?;
        loop {
            let mut octets = vec![0; PIECE_OCTETS];
            let (count, from) = socket.recv_from(&mut octets).await?;
            octets.truncate(count);
            let _ = teller.send(Happening::Datagram(query, octets, from)).await;
        }
    };
    let Err(error): io::Result<std::convert::Infallible> = exchange.await;
    let _ = teller.send(Happening::DatagramFailed(query, connect_error(&error))).await;
}
