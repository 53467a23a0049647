//! Connections that have nothing to do and are kept for mail that may come.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::io::ConnectionId;
use crate::time::Instant;

/// Which connections rest, and which have done so and not proved since that they are still of use.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Until when each is kept.
    resting: BTreeMap<ConnectionId, Instant>,
    woken: BTreeSet<ConnectionId>,
}

/// What a connection was doing when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wakefulness {
    /// It rested.
    Resting,
    /// It had rested, and decided nothing since.
    JustWoken,
    /// It did its work.
    Awake,
}

impl Rest {
    pub(super) fn begin(&mut self, connection: ConnectionId, until: Instant) {
        self.resting.insert(connection, until);
    }

    /// Takes the connection that has rested for the shortest time, so that superfluous ones come to their end.
    pub(super) fn wake(&mut self) -> Option<ConnectionId> {
        let (&connection, _) = self.resting.iter().max_by_key(|(_, until)| **until)?;
        self.resting.remove(&connection);
        self.woken.insert(connection);
        Some(connection)
    }

    /// The connection has decided mail.
    pub(super) fn note_use(&mut self, connection: ConnectionId) {
        self.woken.remove(&connection);
    }

    /// The connection ends, or is told to.
    pub(super) fn end(&mut self, connection: ConnectionId) -> Wakefulness {
        let has_just_woken = self.woken.remove(&connection);
        if self.resting.remove(&connection).is_some() {
            Wakefulness::Resting
        } else if has_just_woken {
            Wakefulness::JustWoken
        } else {
            Wakefulness::Awake
        }
    }

    pub(super) fn contains(&self, connection: ConnectionId) -> bool {
        self.resting.contains_key(&connection)
    }

    pub(super) fn count(&self) -> usize {
        self.resting.len()
    }

    /// The connection that has rested for the longest time, and until when it is kept.
    pub(super) fn first(&self) -> Option<(Instant, ConnectionId)> {
        self.resting.iter().map(|(&connection, &until)| (until, connection)).min()
    }

    /// The connections that have rested for long enough.
    pub(super) fn due(&self, now: Instant) -> Vec<ConnectionId> {
        let due = self.resting.iter().filter(|(_, until)| **until <= now);
        due.map(|(&connection, _)| connection).collect()
    }
}
