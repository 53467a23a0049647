//! What an executor can ask, for a record or a line of the log, never for a decision; and what a replay of records needs.

use alloc::string::String;

use super::Dispatcher;
use super::deliveries::Claim;
use super::requests::Asked;
use crate::io::ConnectionId;
use crate::next_hop::{Host, NextHop, TlsMode};
use crate::outbox::RequestId;
use crate::queue::HopId;
use crate::rng::Seed;
use crate::time::Now;

/// Names a pass over the mail of a next hop that has opened a connection. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PassId {
    hop: HopId,
    first: ConnectionId,
}

/// What a connection is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFacts<'a> {
    /// The pass that has opened it.
    pub pass: PassId,
    /// Where the mail of the pass is to go.
    pub next_hop: &'a NextHop,
    /// The server, by the name it was found under.
    pub host: &'a Host,
    /// How the connection is to be protected.
    pub tls: TlsMode,
    /// What the session draws from, once TCP has connected. It tells of no other session's randomness.
    pub session_seed: Option<&'a Seed>,
}

impl Dispatcher {
    /// Returns what a connection for mail is about, as long as it is not closed.
    pub fn connection(&self, connection: ConnectionId) -> Option<ConnectionFacts<'_>> {
        let (hop, delivery) = self.deliveries.of_connection(connection)?;
        let (candidate, session_seed) = delivery.connection(connection)?;
        let pass = PassId { hop, first: delivery.first_connection()? };
        let (next_hop, host) = (delivery.next_hop(), &candidate.host);
        Some(ConnectionFacts { pass, next_hop, host, tls: candidate.tls, session_seed })
    }

    /// Returns whether a pass is not over.
    pub fn is_under_way(&self, pass: PassId) -> bool {
        let delivery = self.deliveries.delivery(pass.hop);
        delivery.is_some_and(|delivery| delivery.first_connection() == Some(pass.first))
    }

    /// Returns what an administrator has to know if the program ends now: verdicts that the database has not taken.
    pub fn unrecorded(&self) -> Option<String> {
        self.books.unrecorded()
    }

    /// For which connection a claim that is not answered yet was made.
    pub fn claimant(&self, request: RequestId) -> Option<ConnectionId> {
        match self.books.requests.find(request)? {
            Asked::Claim(Claim { connection, .. }) => Some(*connection),
            Asked::Scan
            | Asked::Rescan { .. }
            | Asked::Data { .. }
            | Asked::Bounce { .. }
            | Asked::Recall { .. }
            | Asked::Commit => None,
        }
    }

    /// Gives up a connection as if others needed its place, so that what was recorded can be repeated where nobody does. Does
    /// nothing if its server owes no word.
    pub fn give_up_connection(&mut self, now: Now, connection: ConnectionId) {
        self.books.now = now;
        self.deliveries.give_up(&mut self.books, connection);
        self.pump();
    }

    /// Lets the next sessions draw from these seeds, so that what was recorded can be repeated.
    pub fn preset_session_seeds(&mut self, seeds: impl IntoIterator<Item = Seed>) {
        self.deliveries.ids().preset_seeds(seeds);
    }
}
