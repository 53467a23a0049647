//! The connections of a pass, and what each waits for beside its conversation.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::io::ConnectionId;
use crate::queue::HopId;
use crate::time::Instant;

/// A position in a [`WaitList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// The state of a connection, from taking its slot until it is closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConnectionState {
    /// It works, or waits for work.
    Working(Working),
    /// It was told to end because its slot is needed.
    SentOff,
    /// It has said QUIT, and has not received the reply.
    Parting {
        /// True if its slot is needed.
        was_sent_off: bool,
    },
}

/// What a working connection waits for. It may request more mail while its next transaction must wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Working {
    /// The number of the change of the outbox at which it claimed the mail that it has not begun.
    claimed_at: Option<u64>,
    /// Its position among those that wait for the database to recover before they request mail.
    parked: Option<Ticket>,
    transaction: NextTransaction,
}

impl Working {
    fn held_back_until(&self) -> Option<Instant> {
        if let NextTransaction::HeldBack(until) = self.transaction { Some(until) } else { None }
    }

    fn waits_for_database(&self) -> bool {
        self.parked.is_some() || matches!(self.transaction, NextTransaction::Stopped(_))
    }
}

/// The permission to begin the next transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum NextTransaction {
    /// It may begin, or permission was not requested yet.
    #[default]
    Free,
    /// It waits until the delivered mail is recorded.
    Stopped(Ticket),
    /// It waits for the rate limit, until this time.
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

/// The connections that wait for the database or the rate limit, and those that are about to end. It is an index: each connection
/// knows what it waits for.
#[derive(Debug, Default)]
pub(super) struct WaitLists {
    parked: WaitList,
    stopped: WaitList,
    held_back: BTreeSet<(Instant, HopId, ConnectionId)>,
    /// The number of connections that were told to end because their slots are needed.
    sent_off: usize,
    parting: BTreeSet<ConnectionId>,
}

impl WaitLists {
    /// Returns the connections that wait for the database to recover, in the order in which they came.
    pub(super) fn parked(&self) -> Vec<(HopId, ConnectionId)> {
        self.parked.waiting.values().copied().collect()
    }

    /// Returns the connections whose next transaction waits until the delivered mail is recorded, in the order in which they
    /// came.
    pub(super) fn stopped(&self) -> Vec<(HopId, ConnectionId)> {
        self.stopped.waiting.values().copied().collect()
    }

    /// Returns the connection that the rate limit lets proceed first, and when.
    pub(super) fn first_held_back(&self) -> Option<(Instant, HopId, ConnectionId)> {
        self.held_back.first().copied()
    }

    /// Returns how many connections were told to end because their slots are needed, and have not ended.
    pub(super) fn sent_off(&self) -> usize {
        self.sent_off
    }

    /// Returns a connection that has said QUIT.
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

    /// Adds a connection whose slot was just taken.
    pub(super) fn insert(&mut self, connection: ConnectionId) {
        self.states.insert(connection, ConnectionState::Working(Working::default()));
    }

    /// Returns whether a connection is not closed.
    pub(super) fn contains(&self, connection: ConnectionId) -> bool {
        self.states.contains_key(&connection)
    }

    /// Removes a connection that is closed.
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

    /// Takes all connections off the wait lists.
    pub(super) fn free_all(&mut self, wait_lists: &mut WaitLists) {
        let hop = self.hop;
        for (&connection, state) in &mut self.states {
            if let ConnectionState::Working(working) = state {
                wait_lists.leave(hop, connection, working);
                (working.parked, working.transaction) = (None, NextTransaction::Free);
            }
        }
    }

    /// Lets a connection wait for the database to recover before it requests mail.
    pub(super) fn park(&mut self, connection: ConnectionId, wait_lists: &mut WaitLists) {
        let hop = self.hop;
        if let Some(working) = self.working(connection)
            && working.parked.is_none()
        {
            working.parked = Some(wait_lists.parked.push(hop, connection));
        }
    }

    /// Lets a connection request mail again.
    pub(super) fn unpark(&mut self, connection: ConnectionId, wait_lists: &mut WaitLists) {
        if let Some(ticket) = self.working(connection).and_then(|working| working.parked.take()) {
            wait_lists.parked.waiting.remove(&ticket);
        }
    }

    /// Lets the next transaction of a connection wait until the delivered mail is recorded.
    pub(super) fn stop(&mut self, connection: ConnectionId, wait_lists: &mut WaitLists) {
        self.free(connection, wait_lists);
        let hop = self.hop;
        if let Some(working) = self.working(connection) {
            working.transaction = NextTransaction::Stopped(wait_lists.stopped.push(hop, connection));
        }
    }

    /// Lets the next transaction of a connection wait for the rate limit.
    pub(super) fn hold_back(&mut self, connection: ConnectionId, until: Instant, wait_lists: &mut WaitLists) {
        self.free(connection, wait_lists);
        let hop = self.hop;
        if let Some(working) = self.working(connection) {
            working.transaction = NextTransaction::HeldBack(until);
            wait_lists.held_back.insert((until, hop, connection));
        }
    }

    /// Ends the wait of the next transaction of a connection.
    pub(super) fn free(&mut self, connection: ConnectionId, wait_lists: &mut WaitLists) {
        let hop = self.hop;
        let Some(working) = self.working(connection) else { return };
        match core::mem::take(&mut working.transaction) {
            NextTransaction::Free => {}
            NextTransaction::Stopped(ticket) => drop(wait_lists.stopped.waiting.remove(&ticket)),
            NextTransaction::HeldBack(until) => drop(wait_lists.held_back.remove(&(until, hop, connection))),
        }
    }

    /// Returns the working connections.
    fn all_working(&self) -> impl Iterator<Item = &Working> {
        self.states.values().filter_map(|state| match state {
            ConnectionState::Working(working) => Some(working),
            ConnectionState::SentOff | ConnectionState::Parting { .. } => None,
        })
    }

    /// Returns when the first transaction may begin, if all working connections wait for the rate limit.
    pub(super) fn all_held_back_until(&self) -> Option<Instant> {
        let ends: Option<Vec<Instant>> = self.all_working().map(Working::held_back_until).collect();
        ends?.into_iter().min()
    }

    /// Returns whether all working connections wait for the database.
    pub(super) fn all_wait_for_database(&self) -> bool {
        self.all_working().next().is_some() && self.all_working().all(Working::waits_for_database)
    }

    /// Records that a connection has received mail claimed at this change of the outbox. Mail that it has from before keeps the
    /// older number.
    pub(super) fn note_claim(&mut self, connection: ConnectionId, changes: u64, has_older: bool) {
        if let Some(working) = self.working(connection)
            && (!has_older || working.claimed_at.is_none())
        {
            working.claimed_at = Some(changes);
        }
    }

    /// Returns whether the outbox has changed since a connection received its mail.
    pub(super) fn is_outdated(&self, connection: ConnectionId, changes: u64) -> bool {
        match self.states.get(&connection) {
            Some(ConnectionState::Working(working)) => {
                working.claimed_at.is_some_and(|claimed_at| claimed_at != changes)
            }
            Some(ConnectionState::SentOff | ConnectionState::Parting { .. }) | None => false,
        }
    }

    /// Marks a connection that is told to end because its slot is needed.
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

    /// Marks a connection that has said QUIT.
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

/// Checks in debug builds.
mod checks {
    use super::*;

    impl WaitLists {
        /// Asserts that the wait lists agree with the connections.
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
