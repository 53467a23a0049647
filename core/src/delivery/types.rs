//! What a delivery is given, and what it says.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

#[cfg(doc)]
use super::Delivery;
use crate::address::Domain;
use crate::attempt::{Acceptance, Failure, Setback};
use crate::event::Event;
use crate::io::ConnectionId;
use crate::next_hop::Host;
use crate::outbox::MailId;
use crate::reachability::{Login, Reachability, Trouble};
use crate::rng::Seed;
use crate::route::Candidate;
use crate::sasl::Mechanism;
use crate::session::{EndCause, Recipient};
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

/// What the connections of all deliveries are begun with.
#[derive(Debug, Default)]
pub(crate) struct ConnectionIds {
    /// The next id: an even one, because the resolver uses the odd ones.
    next: u64,
    /// What the next sessions draw from, in place of what their deliveries would give them.
    preset_seeds: VecDeque<Seed>,
}

impl ConnectionIds {
    pub(crate) fn preset_seeds(&mut self, seeds: impl IntoIterator<Item = Seed>) {
        self.preset_seeds.extend(seeds);
    }

    pub(crate) fn take_preset_seed(&mut self) -> Option<Seed> {
        self.preset_seeds.pop_front()
    }

    pub(crate) fn next(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next);
        self.next = self.next.wrapping_add(2);
        id
    }
}

/// What a delivery asks its dispatcher to do, or tells it.
#[derive(Debug)]
pub(crate) enum DeliveryOutput {
    /// Answered by [`Delivery::handle_answer`].
    LookupMx(Domain),
    /// Answered by [`Delivery::handle_answer`].
    LookupAddresses(Domain),
    /// The place of this connection is taken.
    Connect(ConnectionId, SocketAddr),
    StartTls(ConnectionId, Host),
    Transmit(ConnectionId),
    /// The connection is done with.
    Close(ConnectionId),
    /// The candidate, the only connection to which this was, does not answer.
    Unreachable {
        connection: ConnectionId,
        candidate: Candidate,
        trouble: Trouble,
        setback: Setback,
    },
    /// The server has answered, if only by a refusal.
    Answered(ConnectionId),
    /// The server wants fewer connections.
    PushedBack(ConnectionId),
    /// The server cannot cope with batches of commands, although it offers that.
    NoPipelining(SocketAddr),
    /// A relay has taken credentials by this mechanism, or, with nothing, has not taken them.
    Authenticated(Login, Option<Mechanism>),
    /// The connection can take transactions: answered by [`Delivery::handle_transactions`], [`Delivery::handle_nothing_claimed`] or
    /// [`Delivery::quit_connection`].
    WantTransactions(ConnectionId),
    /// Answered by [`Delivery::handle_data`].
    WantData {
        connection: ConnectionId,
        id: MailId,
        offset: u64,
        limit: u32,
    },
    Delivered {
        recipient: Recipient,
        acceptance: Acceptance,
    },
    /// Mail goes to this candidate in plain text, because TLS has failed there.
    FellBack {
        candidate: Candidate,
        reason: EndCause,
    },
    Failed {
        recipient: Recipient,
        failure: Failure,
    },
    /// Nothing was decided about these. `tried` if their transaction had begun.
    Released {
        ids: Vec<MailId>,
        tried: bool,
    },
    /// No candidate is left: all mail that is ready now has failed.
    Exhausted(Failure),
    /// The server has taken mail, and now refuses it on every connection: what is left has not failed, and waits for a while.
    HadEnough(Failure),
    /// This machine is in trouble: try again a little later. No mail has failed.
    Postponed(String),
    Event(Event),
}
