//! What a delivery shares with others: settings, knowledge of servers, and the admission of connections and transactions.

#[cfg(doc)]
use super::Delivery;
use crate::io::ConnectionId;
use crate::reachability::Reachability;
use crate::rng::Seed;
use crate::route::Candidate;
use crate::settings::{Hosts, Settings};
use crate::time::Instant;

/// What a delivery works with, but does not own.
pub(crate) struct DeliveryContext<'a> {
    pub(crate) now: Instant,
    pub(crate) settings: &'a Settings,
    pub(crate) hosts: &'a Hosts,
    /// What others have found out about servers.
    pub(crate) reachability: &'a Reachability,
    pub(crate) admission: &'a mut dyn Admission,
}

/// Where a delivery gets at once what it shares with others, or is told that it has to wait.
pub(crate) trait Admission {
    /// Takes the place of a connection to a candidate, unless there is none, or others come first. Then the delivery waits until it is
    /// told to [connect](Delivery::connect). `is_last_resort` says that no other candidate is left.
    fn try_open(&mut self, candidate: &Candidate, is_last_resort: bool) -> Option<ConnectionId>;

    /// Takes the place of a connection to a candidate, as the delivery was told to connect.
    fn open(&mut self, candidate: &Candidate, is_last_resort: bool) -> ConnectionId;

    /// Says whether the next transaction of a connection may begin.
    fn permit_transaction(&mut self, connection: ConnectionId) -> Permission;

    /// A server has taken a mail, which is not recorded yet.
    fn note_taken(&mut self);

    /// Returns what the next session draws from, in place of what its delivery would give it.
    fn preset_seed(&mut self) -> Option<Seed>;
}

/// Whether a transaction may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permission {
    /// It may.
    Granted,
    /// Later: the delivery is told to [begin](Delivery::begin).
    Later,
    /// Somebody has written to the outbox since its mail was claimed: it may be gone, or meant for somebody else.
    ClaimAgain,
    /// The rate limit forbids it for so long that the connection is not kept.
    NotInThisPass,
}
