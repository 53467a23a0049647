//! All sockets of connections and DNS queries, and the order in which they get turns.
//!
//! The poll reports each change only once (edge-triggered). Sockets that may have more to do wait in one queue, and a turn
//! is bounded, so that a busy connection does not hold up others.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use cmail_delivery::io::{ConnectError, ConnectionId, Groups, Input, QueryId, TlsTerms};
use cmail_delivery::system_error::MachineTrouble;
use mio::event::{Event, Source};
use mio::{Interest, Registry, Token};

use crate::connection::{Connection, Progress};
use crate::datagram::{Arrival, Query};
use crate::os_error::classify;
use crate::tls::TlsContext;

/// Octets that are read at a time; no datagram is longer.
const READ_OCTETS: usize = 64 * 1024;

/// The result of a turn.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "it is passed on at once, and boxing would allocate for each input"
)]
pub enum Turn<'a> {
    /// An input for the dispatcher.
    Input(Input<'a>),
    /// Nothing to report; octets may have been pulled.
    Quiet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Connection(ConnectionId),
    Query(QueryId),
}

/// A socket, or the reason why it could not be opened, which is reported in its turn.
#[derive(Debug)]
struct Slot<S> {
    socket: Result<S, ConnectError>,
    token: Token,
    is_queued: bool,
}

/// All sockets.
#[derive(Debug)]
pub struct Sockets {
    registry: Registry,
    tls: TlsContext,
    connections: HashMap<ConnectionId, Slot<Connection>>,
    queries: HashMap<QueryId, Slot<Query>>,
    owners: HashMap<Token, Owner>,
    next_token: usize,
    first_token: usize,
    /// Sockets that may have something to do.
    queue: VecDeque<Owner>,
    /// Turns that are left in this round.
    turns_left: usize,
    buffer: Box<[u8]>,
}

impl Sockets {
    /// Creates a collection without sockets. Their tokens will be `first_token` and up.
    pub fn new(registry: Registry, tls: TlsContext, first_token: usize) -> Self {
        Self {
            registry,
            tls,
            connections: HashMap::new(),
            queries: HashMap::new(),
            owners: HashMap::new(),
            next_token: first_token,
            first_token,
            queue: VecDeque::new(),
            turns_left: 0,
            buffer: vec![0; READ_OCTETS].into_boxed_slice(),
        }
    }

    /// Uses another context for TLS sessions that begin from now on.
    pub fn replace_tls(&mut self, tls: TlsContext) {
        self.tls = tls.replacing(&self.tls);
    }

    /// Begins to connect, from a local address if one is given. A failure is reported when it is the connection's turn.
    pub fn connect(&mut self, id: ConnectionId, remote: SocketAddr, local: Option<IpAddr>) {
        let token = self.unused_token();
        let socket = Connection::open(remote, local).and_then(|mut connection| {
            register(&self.registry, connection.source(), token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(connection)
        });
        let slot = Slot { is_queued: socket.is_err(), socket, token };
        self.admit(Owner::Connection(id), token, slot.is_queued);
        self.connections.insert(id, slot);
    }

    /// Begins TLS on a connection.
    pub fn start_tls(&mut self, id: ConnectionId, terms: &Arc<TlsTerms>, groups: Groups) {
        if let Some(Slot { socket: Ok(connection), .. }) = self.connections.get_mut(&id) {
            connection.start_tls(self.tls.session(terms, connection.remote().ip(), groups));
            self.enqueue(Owner::Connection(id));
        }
    }

    /// Notes that there are octets to pull for a connection.
    pub fn request_transmit(&mut self, id: ConnectionId) {
        if let Some(Slot { socket: Ok(connection), .. }) = self.connections.get_mut(&id) {
            connection.request_transmit();
            self.enqueue(Owner::Connection(id));
        }
    }

    /// Closes a connection in any state.
    pub fn close(&mut self, id: ConnectionId) {
        if let Some(connection) = self.forget_connection(id) {
            connection.close();
        }
    }

    /// Sends a query from a socket of its own. A failure is reported when it is the query's turn.
    pub fn query(&mut self, id: QueryId, server: SocketAddr, octets: &[u8]) {
        let token = self.unused_token();
        let socket = Query::send(server, octets).and_then(|mut query| {
            register(&self.registry, query.source(), token, Interest::READABLE)?;
            Ok(query)
        });
        let slot = Slot { is_queued: socket.is_err(), socket, token };
        self.admit(Owner::Query(id), token, slot.is_queued);
        self.queries.insert(id, slot);
    }

    /// Closes a query's socket.
    pub fn close_query(&mut self, id: QueryId) {
        if let Some(slot) = self.queries.remove(&id) {
            self.owners.remove(&slot.token);
            if let Ok(mut query) = slot.socket {
                deregister(&self.registry, query.source());
            }
        }
    }

    /// Takes in an event of the poll. Events of closed sockets are ignored.
    pub fn on_event(&mut self, event: &Event) {
        let Some(&owner) = self.owners.get(&event.token()) else { return };
        match owner {
            Owner::Connection(id) => {
                if let Some(Slot { socket: Ok(connection), .. }) = self.connections.get_mut(&id) {
                    connection.on_event(event);
                }
            }
            Owner::Query(id) => {
                if let Some(Slot { socket: Ok(query), .. }) = self.queries.get_mut(&id) {
                    query.on_event();
                }
            }
        }
        self.enqueue(owner);
    }

    /// Returns whether there is something to do without waiting for the poll.
    pub fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Begins a round: each socket that has something to do now gets one turn; others wait for the next round.
    pub fn begin_round(&mut self) {
        self.turns_left = self.queue.len();
    }

    /// Gives the next turn of the round; `None` if the round is over.
    pub fn turn(
        &mut self,
        mut pull: impl FnMut(ConnectionId, usize, &mut BytesMut) -> bool,
    ) -> Option<Turn<'_>> {
        self.turns_left = self.turns_left.checked_sub(1)?;
        match self.queue.pop_front()? {
            Owner::Connection(id) => {
                let progress = self.advance(id, |limit, octets| pull(id, limit, octets));
                Some(progress.map_or(Turn::Quiet, |progress| self.connection_turn(id, progress)))
            }
            Owner::Query(id) => Some(self.query_turn(id)),
        }
    }

    /// Lets a connection make progress, and queues it again or forgets it.
    fn advance(
        &mut self,
        id: ConnectionId,
        pull: impl FnMut(usize, &mut BytesMut) -> bool,
    ) -> Option<Progress> {
        let slot = self.connections.get_mut(&id)?;
        slot.is_queued = false;
        let progress = match &mut slot.socket {
            Ok(connection) => connection.advance(&mut self.buffer, pull),
            Err(failure) => Progress::ConnectFailed(failure.clone()),
        };
        if progress.is_final() {
            self.forget_connection(id);
        } else if progress != Progress::Idle {
            self.enqueue(Owner::Connection(id));
        }
        Some(progress)
    }

    fn connection_turn(&self, id: ConnectionId, progress: Progress) -> Turn<'_> {
        Turn::Input(match progress {
            Progress::Idle | Progress::Again => return Turn::Quiet,
            Progress::Connected => Input::Connected(id),
            Progress::ConnectFailed(failure) => Input::ConnectFailed(id, failure),
            Progress::Received(count) => Input::Received(id, self.buffer.get(..count).unwrap_or_default()),
            Progress::TlsEstablished(tls) => Input::TlsEstablished { connection: id, tls },
            Progress::TlsFailed(reason) => Input::TlsFailed(id, reason),
            Progress::Closed(reason) => Input::Closed(id, reason),
        })
    }

    fn query_turn(&mut self, id: QueryId) -> Turn<'_> {
        let Some(slot) = self.queries.get_mut(&id) else { return Turn::Quiet };
        slot.is_queued = false;
        let query = match &mut slot.socket {
            Ok(query) => query,
            Err(failure) => return Turn::Input(Input::DatagramFailed(id, failure.clone())),
        };
        let from = query.server();
        match query.receive(&mut self.buffer) {
            Arrival::Idle => Turn::Quiet,
            Arrival::Failed(failure) => {
                self.enqueue(Owner::Query(id));
                Turn::Input(Input::DatagramFailed(id, failure))
            }
            Arrival::Datagram(count) => {
                self.enqueue(Owner::Query(id));
                let octets = self.buffer.get(..count).unwrap_or_default();
                Turn::Input(Input::Datagram { query: id, from, octets })
            }
        }
    }

    fn enqueue(&mut self, owner: Owner) {
        let is_queued = match owner {
            Owner::Connection(id) => self.connections.get_mut(&id).map(|slot| &mut slot.is_queued),
            Owner::Query(id) => self.queries.get_mut(&id).map(|slot| &mut slot.is_queued),
        };
        if let Some(is_queued) = is_queued
            && !std::mem::replace(is_queued, true)
        {
            self.queue.push_back(owner);
        }
    }

    fn admit(&mut self, owner: Owner, token: Token, is_queued: bool) {
        self.owners.insert(token, owner);
        if is_queued {
            self.queue.push_back(owner);
        }
    }

    fn forget_connection(&mut self, id: ConnectionId) -> Option<Connection> {
        let slot = self.connections.remove(&id)?;
        self.owners.remove(&slot.token);
        let mut connection = slot.socket.ok()?;
        deregister(&self.registry, connection.source());
        Some(connection)
    }

    /// Returns a token that is not in use. Tokens are reused late, so that an event of a closed socket is not taken for one of
    /// another.
    fn unused_token(&mut self) -> Token {
        loop {
            let token = Token(self.next_token);
            // The greatest token is left out, because some systems reserve it.
            self.next_token = match self.next_token.checked_add(1) {
                None | Some(usize::MAX) => self.first_token,
                Some(next) => next,
            };
            if !self.owners.contains_key(&token) {
                return token;
            }
        }
    }
}

fn register(
    registry: &Registry,
    source: &mut impl Source,
    token: Token,
    interest: Interest,
) -> Result<(), ConnectError> {
    // An error of the poll never concerns the peer.
    registry.register(source, token, interest).map_err(|error| match classify(&error) {
        ConnectError::Remote(error) => ConnectError::local(MachineTrouble::Other, error.words),
        local @ ConnectError::Local(_) => local,
    })
}

fn deregister(registry: &Registry, source: &mut impl Source) {
    let result: io::Result<()> = registry.deregister(source);
    if let Err(error) = result {
        // The socket is closed next, which takes it out of the poll as well.
        log::debug!("a socket could not be taken out of the poll: {error}");
    }
}

#[cfg(test)]
mod tests;
