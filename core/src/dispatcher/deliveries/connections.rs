//! What a connection waits for, beside its conversation.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::io::ConnectionId;
use crate::queue::HopId;
use crate::time::Instant;

/// A place in a [`WaitList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// One connection, from the moment that its place is taken until it is closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// It does its work, or waits for some.
    Working(Working),
    /// It was told to end because somebody needs its place.
    SentOff,
    /// It has said QUIT, and has not heard the reply to that.
    Parting {
        /// True if somebody needs its place.
        was_sent_off: bool,
    },
}

/// What a connection that works waits for. It may ask for more mail while the next transaction has to wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Working {
    /// As of which change of the outbox it has claimed what it has not begun.
    claimed_at: Option<u64>,
    /// Its place among those that wait for the database to recover, before they ask for mail.
    parked: Option<Ticket>,
    transaction: NextTransaction,
}

/// Whether the next transaction may begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum NextTransaction {
    /// As far as is known, or nobody has asked.
    #[default]
    Free,
    /// It waits until what was taken is recorded.
    Stopped(Ticket),
    /// It waits for the rate limit.
    HeldBack(Instant),
}

/// Connections in the order in which they came.
#[derive(Debug, Default)]
struct WaitList {
    next: u64,
    waiting: BTreeMap<Ticket, (HopId, ConnectionId)>,
}

impl WaitList {
    fn push(&mut self, hop: HopId, connection: ConnectionId) -> Ticket {
        let ticket = Ticket(self.next);
        self.next = self.next.wrapping_add(1);
        self.waiting.insert(ticket, (hop, connection));
        ticket
    }
}

/// Which connections wait for the database or the rate limit, and which are about to end. It is an index: what each waits for
/// stands with the connection.
#[derive(Debug, Default)]
pub(super) struct WaitLists {
    parked: WaitList,
    stopped: WaitList,
    held_back: BTreeSet<(Instant, HopId, ConnectionId)>,
    /// How many were told to end because somebody needs their places.
    sent_off: usize,
    parting: BTreeSet<ConnectionId>,
}

impl WaitLists {
    /// Returns those that wait for the database to recover, in the order in which they came.
    pub(super) fn parked(&self) -> Vec<(HopId, ConnectionId)> {
        self.parked.waiting.values().copied().collect()
    }

    /// Returns those whose next transaction waits until what was taken is recorded, in the order in which they came.
    pub(super) fn stopped(&self) -> Vec<(HopId, ConnectionId)> {
        self.stopped.waiting.values().copied().collect()
    }

    /// Returns the one that the rate limit lets go on first, and when.
    pub(super) fn first_held_back(&self) -> Option<(Instant, HopId, ConnectionId)> {
        self.held_back.first().copied()
    }

    /// Returns how many were told to end because somebody needs their places, and have not ended.
    pub(super) fn sent_off(&self) -> usize {
        self.sent_off
    }

    /// Returns one that has said QUIT.
    pub(super) fn first_parting(&self) -> Option<ConnectionId> {
        self.parting.first().copied()
    }

    fn leave(&mut self, hop: HopId, connection: ConnectionId, working: &Working) {
        if let Some(ticket) = working.parked {
            self.parked.waiting.remove(&ticket);
        }
        match working.transaction {
            NextTransaction::Free => {}
            NextTransaction::Stopped(ticket) => drop(self.stopped.waiting.remove(&ticket)),
            NextTransaction::HeldBack(until) => drop(self.held_back.remove(&(until, hop, connection))),
        }
    }
}

/// The connections of one pass.
#[derive(Debug)]
pub(super) struct Connections {
    hop: HopId,
    states: BTreeMap<ConnectionId, ConnectionState>,
}

impl Connections {
    pub(super) fn new(hop: HopId) -> Self {
        Self { hop, states: BTreeMap::new() }
    }

    /// Takes note of a connection whose place was just taken.
    pub(super) fn insert(&mut self, connection: ConnectionId) {
        self.states.insert(connection, ConnectionState::Working(Working::default()));
    }

    /// Returns whether a connection is not closed.
    pub(super) fn contains(&self, connection: ConnectionId) -> bool {
        self.states.contains_key(&connection)
    }

    /// Forgets a connection that is closed.
    pub(super) fn remove(&mut self, connection: ConnectionId, wait_lists: &mut WaitLists) {
        match self.states.remove(&connection) {
            None => {}
            Some(ConnectionState::Working(working)) => wait_lists.leave(self.hop, connection, &working),
            Some(ConnectionState::SentOff) => wait_lists.sent_off -= 1,
            Some(ConnectionState::Parting { was_sent_off }) => {
                wait_lists.sent_off -= usize::from(was_sent_off);
                wait_lists.parting.remove(&connection);
            }
        }
    }

    /// Takes connections out of all wait_lists: they do not wait for anything any more.
    pub(super) fn free_all(&mut self, wait_lists: &mut WaitLists) {
        let hop = self.hop;
        for (&connection, state) in &mut self.states {
            if let ConnectionState::Working(working) = state {
                wait_lists.leave(hop, connection, working);
                (working.parked, working.transaction) = (None, NextTransaction::Free);
            }
        }
    }

    /// A connection waits for the database to recover before it asks for mail.
    pub(super) fn park(&mut self, connection: ConnectionId, wait_lists: &mut WaitLists) {
        let hop = self.hop;
        if let Some(working) = self.working(connection)
            && working.parked.is_none()
        {
            working.parked = Some(wait_lists.parked.push(hop, connection));
        }
    }

    /// A connection asks for mail again.
    pub(super) fn unpark(&mut self, connection: ConnectionId, wait_lists: &mut WaitLists) {
        if let Some(ticket) = self.working(connection).and_then(|working| working.parked.take()) {
            wait_lists.parked.waiting.remove(&ticket);
        }
    }

    /// The next transaction of a connection waits until what was taken is recorded.
    pub(super) fn stop(&mut self, connection: ConnectionId, wait_lists: &mut WaitLists) {
        self.free(connection, wait_lists);
        let hop = self.hop;
        if let Some(working) = self.working(connection) {
            working.transaction = NextTransaction::Stopped(wait_lists.stopped.push(hop, connection));
        }
    }

    /// The next transaction of a connection waits for the rate limit.
    pub(super) fn hold_back(&mut self, connection: ConnectionId, until: Instant, wait_lists: &mut WaitLists) {
        self.free(connection, wait_lists);
        let hop = self.hop;
        if let Some(working) = self.working(connection) {
            working.transaction = NextTransaction::HeldBack(until);
            wait_lists.held_back.insert((until, hop, connection));
        }
    }

    /// The next transaction of a connection does not wait any more.
    pub(super) fn free(&mut self, connection: ConnectionId, wait_lists: &mut WaitLists) {
        let hop = self.hop;
        let Some(working) = self.working(connection) else { return };
        match core::mem::take(&mut working.transaction) {
            NextTransaction::Free => {}
            NextTransaction::Stopped(ticket) => drop(wait_lists.stopped.waiting.remove(&ticket)),
            NextTransaction::HeldBack(until) => drop(wait_lists.held_back.remove(&(until, hop, connection))),
        }
    }

    /// A connection has got mail as of this change of the outbox. What it still has from before counts.
    pub(super) fn note_claim(&mut self, connection: ConnectionId, changes: u64, has_older: bool) {
        if let Some(working) = self.working(connection)
            && (!has_older || working.claimed_at.is_none())
        {
            working.claimed_at = Some(changes);
        }
    }

    /// Returns whether the outbox has changed since a connection got its mail.
    pub(super) fn is_outdated(&self, connection: ConnectionId, changes: u64) -> bool {
        match self.states.get(&connection) {
            Some(ConnectionState::Working(working)) => {
                working.claimed_at.is_some_and(|claimed_at| claimed_at != changes)
            }
            Some(ConnectionState::SentOff | ConnectionState::Parting { .. }) | None => false,
        }
    }

    /// A connection is told to end because somebody needs its place.
    pub(super) fn send_off(&mut self, connection: ConnectionId, wait_lists: &mut WaitLists) {
        let hop = self.hop;
        let Some(state) = self.states.get_mut(&connection) else { return };
        match state {
            ConnectionState::Working(working) => {
                wait_lists.leave(hop, connection, working);
                *state = ConnectionState::SentOff;
            }
            ConnectionState::Parting { was_sent_off: was_sent_off @ false } => *was_sent_off = true,
            ConnectionState::SentOff | ConnectionState::Parting { was_sent_off: true } => return,
        }
        wait_lists.sent_off += 1;
    }

    /// A connection has said QUIT.
    pub(super) fn part(&mut self, connection: ConnectionId, wait_lists: &mut WaitLists) {
        let hop = self.hop;
        let Some(state) = self.states.get_mut(&connection) else { return };
        let was_sent_off = match state {
            ConnectionState::Working(working) => {
                wait_lists.leave(hop, connection, working);
                false
            }
            ConnectionState::SentOff => true,
            ConnectionState::Parting { .. } => return,
        };
        *state = ConnectionState::Parting { was_sent_off };
        wait_lists.parting.insert(connection);
    }

    fn working(&mut self, connection: ConnectionId) -> Option<&mut Working> {
        match self.states.get_mut(&connection) {
            Some(ConnectionState::Working(working)) => Some(working),
            Some(ConnectionState::SentOff | ConnectionState::Parting { .. }) | None => None,
        }
    }
}

/// What is checked in debug builds.
mod checks {
    use super::*;

    impl WaitLists {
        /// Asserts that the wait_lists are those that the connections say they are in.
        pub(in super::super) fn check<'a>(&self, passes: impl Iterator<Item = &'a Connections>) {
            let (mut parked, mut stopped, mut held_back, mut sent_off, mut parting) = (0, 0, 0, 0, 0);
            for connections in passes {
                for (&connection, state) in &connections.states {
                    let it = (connections.hop, connection);
                    match state {
                        ConnectionState::Working(working) => {
                            if let Some(ticket) = working.parked {
                                assert_eq!(self.parked.waiting.get(&ticket), Some(&it));
                                parked += 1;
                            }
                            match working.transaction {
                                NextTransaction::Free => {}
                                NextTransaction::Stopped(ticket) => {
                                    assert_eq!(self.stopped.waiting.get(&ticket), Some(&it));
                                    stopped += 1;
                                }
                                NextTransaction::HeldBack(until) => {
                                    assert!(self.held_back.contains(&(until, it.0, it.1)));
                                    held_back += 1;
                                }
                            }
                        }
                        ConnectionState::SentOff => sent_off += 1,
                        ConnectionState::Parting { was_sent_off } => {
                            assert!(self.parting.contains(&connection));
                            sent_off += usize::from(*was_sent_off);
                            parting += 1;
                        }
                    }
                }
            }
            assert_eq!(
                (parked, stopped, held_back, sent_off, parting),
                (
                    self.parked.waiting.len(),
                    self.stopped.waiting.len(),
                    self.held_back.len(),
                    self.sent_off,
                    self.parting.len()
                ),
                "a connection that waits, or leaves, is gone"
            );
        }
    }

    impl Connections {
        pub(in super::super) fn ids(&self) -> impl Iterator<Item = ConnectionId> {
            self.states.keys().copied()
        }
    }
}

#[cfg(test)]
mod tests;
