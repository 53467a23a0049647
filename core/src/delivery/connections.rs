//! The connections of a pass, all to one candidate: how many there are and may be, and when one more is worth it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::connection::Connection;
use super::idle_connections::IdleConnections;
use crate::io::ConnectionId;
use crate::outbox::MailId;
use crate::time::{Duration, Instant};

/// Time for which mail must keep waiting before a further connection is opened. A server that answers quickly gets everything
/// over one connection within this time.
const WIDEN_INTERVAL: Duration = Duration::from_millis(100);

/// The connections of a pass.
#[derive(Debug)]
pub(super) struct Connections {
    open: BTreeMap<ConnectionId, Connection>,
    /// Those that have nothing to do for now.
    pub(super) idle: IdleConnections,
    /// The one that was opened first. It identifies the pass.
    first: Option<ConnectionId>,
    /// Most connections that are possible at present, as local trouble or the server has shown.
    limit: usize,
    /// When to decide whether to open a further one.
    widen_at: Option<Instant>,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            idle: IdleConnections::default(),
            first: None,
            limit: usize::MAX,
            widen_at: None,
        }
    }

    /// Adds a connection that is being made.
    pub(super) fn insert(&mut self, connection: ConnectionId, conn: Connection) {
        self.first.get_or_insert(connection);
        self.open.insert(connection, conn);
        self.widen_at = None;
    }

    pub(super) fn remove(&mut self, connection: ConnectionId) -> Option<Connection> {
        self.open.remove(&connection)
    }

    /// Removes and returns all connections.
    pub(super) fn take_all(&mut self) -> BTreeMap<ConnectionId, Connection> {
        core::mem::take(&mut self.open)
    }

    pub(super) fn get(&self, connection: ConnectionId) -> Option<&Connection> {
        self.open.get(&connection)
    }

    pub(super) fn get_mut(&mut self, connection: ConnectionId) -> Option<&mut Connection> {
        self.open.get_mut(&connection)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.open.iter().map(|(&connection, conn)| (connection, conn))
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.open.keys().copied()
    }

    /// Tells what is said on them from now on, or not.
    pub(super) fn tell(&mut self, is_told: bool) {
        self.open.values_mut().for_each(|conn| conn.tell(is_told));
    }

    /// Returns whether a connection is being made.
    pub(super) fn is_connecting(&self, connection: ConnectionId) -> bool {
        self.get(connection).is_some_and(Connection::is_connecting)
    }

    /// Returns how many connections are established.
    pub(super) fn established_count(&self) -> usize {
        self.open.values().filter(|conn| conn.is_established()).count()
    }

    /// Returns the connection that was opened first.
    pub(super) fn first(&self) -> Option<ConnectionId> {
        self.first
    }

    /// Returns the mail of all connections that is neither decided nor returned.
    pub(super) fn undecided(&self) -> impl Iterator<Item = MailId> {
        self.open.values().flat_map(Connection::undecided)
    }

    /// Returns the connections whose time is over.
    pub(super) fn timed_out(&self, now: Instant) -> Vec<ConnectionId> {
        let due = self.iter().filter(|(_, conn)| conn.poll_timeout().is_some_and(|at| at <= now));
        due.map(|(connection, _)| connection).collect()
    }

    /// Returns when to call one of them, or, if there may be more, to decide about a further one.
    pub(super) fn poll_timeout(&self, may_be_more: bool) -> Option<Instant> {
        let widen = self.widen_at.filter(|_| !self.is_empty() && may_be_more);
        let rest = self.idle.first().map(|(until, _)| until);
        self.open.values().filter_map(Connection::poll_timeout).chain(widen).chain(rest).min()
    }

    /// Returns whether a further connection is possible within `limit`.
    pub(super) fn may_widen(&self, limit: usize) -> bool {
        // Never more on trial than have succeeded.
        self.len() < self.established_count().saturating_mul(2) && self.len() < self.limit.min(limit)
    }

    /// Opens no more than there are now, until another candidate is tried.
    pub(super) fn limit_to_these(&mut self) {
        self.limit = self.len();
    }

    /// Forgets what is known of a candidate: another one is tried.
    pub(super) fn begin_candidate(&mut self) {
        self.limit = usize::MAX;
        self.widen_at = None;
    }

    /// Takes the timer for a further connection, if it has expired. Returns whether it had.
    pub(super) fn take_widening(&mut self, now: Instant) -> bool {
        self.widen_at.take_if(|at| *at <= now).is_some()
    }

    /// Sets the timer for a further connection if one is worth it, and clears it otherwise.
    pub(super) fn schedule_widening(&mut self, now: Instant, is_worth_it: bool) {
        if is_worth_it {
            self.widen_at.get_or_insert(now + WIDEN_INTERVAL);
        } else {
            self.widen_at = None;
        }
    }
}
