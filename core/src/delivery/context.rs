//! What a delivery shares with others: settings, knowledge of servers, and the admission of connections and transactions.

use alloc::collections::VecDeque;
use alloc::string::ToString as _;
use core::net::SocketAddr;

#[cfg(doc)]
use super::Delivery;
use crate::flight::FlightRoute;
use crate::io::ConnectionId;
use crate::next_hop::NextHop;
use crate::policy::{Policies, RateLimit};
use crate::reachability::Reachability;
use crate::rng::Seed;
use crate::route::Candidate;
use crate::session::Transaction;
use crate::settings::{Hosts, Told};
use crate::time::{Instant, UnixMillis};
use crate::watch::Watch;

/// What a delivery uses but does not own.
pub(crate) struct DeliveryContext<'a> {
    pub(crate) now: Instant,
    pub(crate) wall: UnixMillis,
    /// The name by which this host announces itself.
    pub(crate) announce: &'a str,
    /// True if credentials may be sent without TLS, or to a server whose certificate is not valid.
    pub(crate) auth_insecure: bool,
    pub(crate) told: Told,
    pub(crate) policies: &'a Policies,
    /// Whose conversations are told.
    pub(crate) watch: &'a Watch,
    pub(crate) hosts: &'a Hosts,
    /// What other deliveries have found out about servers.
    pub(crate) reachability: &'a Reachability,
    pub(crate) admission: &'a mut dyn Admission,
}

impl DeliveryContext<'_> {
    /// Returns whether the conversations for a next hop are told.
    pub(crate) fn is_told(&self, next_hop: &NextHop) -> bool {
        self.told.conversations || self.watch.covers(next_hop)
    }
}

/// Grants a delivery what it shares with others, or makes it wait.
pub(crate) trait Admission {
    /// Takes a slot for a connection to a candidate. Returns `None` if no slot is free or others come first. The delivery then
    /// waits until it is told to [connect](Delivery::connect). `is_last_resort` says that no other candidate is left.
    fn try_open(&mut self, candidate: &Candidate, is_last_resort: bool) -> Option<ConnectionId>;

    /// Takes a slot for a connection to a candidate, after the delivery was told to connect.
    fn open(&mut self, candidate: &Candidate, is_last_resort: bool) -> ConnectionId;

    /// Decides whether the next transaction of a connection may begin, the first of those that are upcoming, where its destination has
    /// this limit.
    fn permit_transaction(
        &mut self,
        connection: ConnectionId,
        limit: Option<RateLimit>,
        upcoming: &Upcoming<'_>,
    ) -> Permission;

    /// Records that a server has taken a mail, which is not yet committed.
    fn note_taken(&mut self);

    /// Returns the preset seed of the next session, if there is one.
    fn preset_seed(&mut self) -> Option<Seed>;
}

/// The transactions that a connection has not begun.
#[derive(Debug)]
pub(crate) struct Upcoming<'a> {
    pub(super) next_hop: &'a NextHop,
    pub(super) remote: SocketAddr,
    /// How many have begun, and are not decided.
    pub(crate) under_way: usize,
    /// Each with the time of its claim.
    pub(super) waiting: &'a VecDeque<(Instant, Transaction)>,
}

impl Upcoming<'_> {
    /// Returns them in the order in which they are sent.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Transaction> {
        self.waiting.iter().map(|(_, transaction)| transaction)
    }

    /// Returns where they go.
    pub(crate) fn route(&self, connection: ConnectionId) -> FlightRoute {
        FlightRoute { connection, next_hop: self.next_hop.to_string().into(), remote: self.remote }
    }
}

/// The answer to a request to begin a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    /// The transaction may begin.
    Granted,
    /// The delivery must wait until it is told to [begin](Delivery::begin).
    Later,
    /// Another program has written to the outbox since the mail was claimed, so the mail may be gone or redirected.
    ClaimAgain,
    /// The rate limit forbids the transaction for so long that the connection is not kept.
    NotInThisPass,
}
