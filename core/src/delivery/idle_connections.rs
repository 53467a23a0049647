//! Connections without mail that are kept open for mail that may come.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::connection::Connection;
use super::{Delivery, DeliveryContext};
use crate::io::ConnectionId;
use crate::time::{Duration, Instant};

/// Time for which the connections of a pass are kept for later mail. After that, new ones are opened, so that a preferred server
/// that was unreachable for a moment gets its mail again.
const REUSE_SPAN: Duration = Duration::from_secs(5 * 60);

/// Idle connections, and those reused after idling that have not decided mail since.
#[derive(Debug, Default)]
pub(super) struct IdleConnections {
    /// When each idle connection is closed.
    idle: BTreeMap<ConnectionId, Instant>,
    reused: BTreeSet<ConnectionId>,
}

/// The activity of a connection when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdleState {
    /// It was idle.
    Idle,
    /// It was reused after idling, and has decided nothing since.
    Reused,
    /// It was in use.
    Busy,
}

impl IdleConnections {
    pub(super) fn insert(&mut self, connection: ConnectionId, until: Instant) {
        self.idle.insert(connection, until);
    }

    /// Lets no connection rest beyond `end`.
    pub(super) fn shorten(&mut self, end: Instant) {
        self.idle.values_mut().for_each(|until| *until = end.min(*until));
    }

    /// Takes the connection that became idle last, so that superfluous ones time out.
    pub(super) fn reuse(&mut self) -> Option<ConnectionId> {
        let (&connection, _) = self.idle.iter().max_by_key(|(_, until)| **until)?;
        self.idle.remove(&connection);
        self.reused.insert(connection);
        Some(connection)
    }

    /// Records that the connection has decided mail.
    pub(super) fn note_use(&mut self, connection: ConnectionId) {
        self.reused.remove(&connection);
    }

    /// Forgets a connection. Returns its activity.
    pub(super) fn end(&mut self, connection: ConnectionId) -> IdleState {
        let was_reused = self.reused.remove(&connection);
        if self.idle.remove(&connection).is_some() {
            IdleState::Idle
        } else if was_reused {
            IdleState::Reused
        } else {
            IdleState::Busy
        }
    }

    pub(super) fn contains(&self, connection: ConnectionId) -> bool {
        self.idle.contains_key(&connection)
    }

    pub(super) fn count(&self) -> usize {
        self.idle.len()
    }

    /// Returns the connection that has been idle for the longest time, and when it is closed.
    pub(super) fn first(&self) -> Option<(Instant, ConnectionId)> {
        self.idle.iter().map(|(&connection, &until)| (until, connection)).min()
    }

    /// Returns the connections that are due to be closed.
    pub(super) fn due(&self, now: Instant) -> Vec<ConnectionId> {
        let due = self.idle.iter().filter(|(_, until)| **until <= now);
        due.map(|(&connection, _)| connection).collect()
    }
}

impl Delivery {
    /// Keeps a connection without mail open for a while, if it has decided mail.
    pub(crate) fn keep_idle(&mut self, cx: &mut DeliveryContext<'_>, connection: ConnectionId) {
        let span = self.candidate().map_or(Duration::ZERO, |candidate| candidate.policy.idle);
        let is_kept = !span.is_zero()
            && cx.now < self.routed_at + REUSE_SPAN
            // That mail needs the slot.
            && !self.refusals.is_waiting()
            && self.connections.get(connection).is_some_and(Connection::has_decided);
        if !is_kept {
            return self.quit_connection(cx, connection);
        }
        self.connections.idle.insert(connection, cx.now + span);
    }

    /// Takes an idle connection for new mail.
    pub(crate) fn reuse_idle(&mut self, now: Instant) -> Option<ConnectionId> {
        let is_pass_over =
            self.connections.idle.count() == self.connections.len() && !self.refusals.is_waiting();
        let connection = self.connections.idle.reuse()?;
        // From here on it is a pass of its own, though over the same connections.
        if is_pass_over {
            self.pass.continue_at(now);
            self.refusals.begin_pass();
        }
        Some(connection)
    }

    /// Returns how many connections are idle.
    pub(crate) fn idle_count(&self) -> usize {
        self.connections.idle.count()
    }

    /// Returns whether a connection is idle.
    pub(crate) fn is_idle(&self, connection: ConnectionId) -> bool {
        self.connections.idle.contains(connection)
    }

    /// Returns the connection that has been idle for the longest time, and when it is closed.
    pub(crate) fn first_idle(&self) -> Option<(Instant, ConnectionId)> {
        self.connections.idle.first()
    }
}
