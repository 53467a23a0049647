//! The sockets, connections and deadlines of all questions under way, and the outputs of the resolver.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::net::SocketAddr;

use bytes::Bytes;

use super::{LookupId, ResolverOutput};
use crate::io::{ConnectionId, QueryId};
use crate::rng::Rng;
use crate::time::Instant;

/// Identifies a question under way. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskId(pub(super) u64);

/// The sockets of all questions.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) outputs: VecDeque<ResolverOutput>,
    rng: Rng,
    queries: BTreeMap<QueryId, TaskId>,
    connections: BTreeMap<ConnectionId, TaskId>,
    deadlines: BTreeSet<(Instant, TaskId)>,
    next_query: u64,
    next_connection: u64,
}

impl Sockets {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            outputs: VecDeque::new(),
            rng,
            queries: BTreeMap::new(),
            connections: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            next_query: 0,
            // All ids are odd: see `Resolver::owns_connection`.
            next_connection: 1,
        }
    }

    /// Returns an unpredictable message id (RFC 5452 section 4.3).
    pub(super) fn message_id(&mut self) -> u16 {
        let [low, high, ..] = self.rng.next_u64().to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Sends a datagram from a new socket.
    pub(super) fn send(&mut self, task: TaskId, to: SocketAddr, octets: Bytes) -> QueryId {
        let query = QueryId(self.next_query);
        self.next_query += 1;
        self.queries.insert(query, task);
        self.outputs.push_back(ResolverOutput::Datagram { query, to, octets });
        query
    }

    pub(super) fn close_query(&mut self, query: QueryId) {
        if self.queries.remove(&query).is_some() {
            self.outputs.push_back(ResolverOutput::CloseDatagram(query));
        }
    }

    pub(super) fn connect(&mut self, task: TaskId, to: SocketAddr) -> ConnectionId {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 2;
        self.connections.insert(connection, task);
        self.outputs.push_back(ResolverOutput::Connect { connection, to });
        connection
    }

    pub(super) fn transmit(&mut self, connection: ConnectionId) {
        self.outputs.push_back(ResolverOutput::Transmit(connection));
    }

    pub(super) fn close_connection(&mut self, connection: ConnectionId) {
        if self.connections.remove(&connection).is_some() {
            self.outputs.push_back(ResolverOutput::Close(connection));
        }
    }

    /// Forgets a connection that is gone and needs no closing.
    pub(super) fn forget_connection(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }

    pub(super) fn task_of_query(&self, query: QueryId) -> Option<TaskId> {
        self.queries.get(&query).copied()
    }

    pub(super) fn task_of_connection(&self, connection: ConnectionId) -> Option<TaskId> {
        self.connections.get(&connection).copied()
    }

    pub(super) fn set_deadline(&mut self, task: TaskId, deadline: Instant) {
        self.deadlines.insert((deadline, task));
    }

    pub(super) fn clear_deadline(&mut self, task: TaskId, deadline: Instant) {
        self.deadlines.remove(&(deadline, task));
    }

    pub(super) fn earliest_deadline(&self) -> Option<(Instant, TaskId)> {
        self.deadlines.first().copied()
    }

    /// Removes an answer that was not yet put out.
    pub(super) fn withdraw_answer(&mut self, lookup: LookupId) {
        self.outputs
            .retain(|output| !matches!(output, ResolverOutput::Answer(answered, _) if *answered == lookup));
    }

    /// Returns whether every socket and connection is closed and no deadline is set.
    #[cfg(test)]
    pub(super) fn is_clean(&self) -> bool {
        self.queries.is_empty() && self.connections.is_empty() && self.deadlines.is_empty()
    }
}
