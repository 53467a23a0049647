//! Connections that have nothing to do and are kept for mail that may come.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::io::ConnectionId;
use crate::time::Instant;

/// Which connections rest, and which have done so and not proved since that they are still of use.
#[derive(Debug, Default)]
pub(super) struct IdleConnections {
    /// Until when each is kept.
    idle: BTreeMap<ConnectionId, Instant>,
    reused: BTreeSet<ConnectionId>,
}

/// What a connection was doing when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdleState {
    /// It rested.
    Idle,
    /// It had rested, and decided nothing since.
    Reused,
    /// It did its work.
    Busy,
}

impl IdleConnections {
    pub(super) fn insert(&mut self, connection: ConnectionId, until: Instant) {
        self.idle.insert(connection, until);
    }

    /// Takes the connection that has rested for the shortest time, so that superfluous ones come to their end.
    pub(super) fn reuse(&mut self) -> Option<ConnectionId> {
        let (&connection, _) = self.idle.iter().max_by_key(|(_, until)| **until)?;
        self.idle.remove(&connection);
        self.reused.insert(connection);
        Some(connection)
    }

    /// The connection has decided mail.
    pub(super) fn note_use(&mut self, connection: ConnectionId) {
        self.reused.remove(&connection);
    }

    /// The connection ends, or is told to.
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

    /// The connection that has rested for the longest time, and until when it is kept.
    pub(super) fn first(&self) -> Option<(Instant, ConnectionId)> {
        self.idle.iter().map(|(&connection, &until)| (until, connection)).min()
    }

    /// The connections that have rested for long enough.
    pub(super) fn due(&self, now: Instant) -> Vec<ConnectionId> {
        let due = self.idle.iter().filter(|(_, until)| **until <= now);
        due.map(|(&connection, _)| connection).collect()
    }
}
