//! What a delivery is given, and what it says.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

#[cfg(doc)]
use super::Delivery;
use super::verdict::Failure;
use crate::address::{Domain, Mailbox};
use crate::event::Event;
use crate::io::ConnectionId;
use crate::next_hop::Host;
use crate::outbox::MailId;
use crate::reachability::{Login, Reachability, Trouble};
use crate::rng::Seed;
use crate::route::Candidate;
use crate::sasl::Mechanism;
use crate::settings::{Hosts, Settings};
use crate::time::Instant;

/// What a delivery works with, but does not own.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) settings: &'a Settings,
    pub(crate) hosts: &'a Hosts,
    /// What others have found out about servers.
    pub(crate) reachability: &'a Reachability,
    pub(crate) ids: &'a mut ConnectionIds,
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

    pub(super) fn take_preset_seed(&mut self) -> Option<Seed> {
        self.preset_seeds.pop_front()
    }

    pub(super) fn next(&mut self) -> ConnectionId {
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
    Connect(ConnectionId, Candidate),
    StartTls(ConnectionId, Host),
    Transmit(ConnectionId),
    /// The connection is done with.
    Close(ConnectionId),
    /// The candidate, the only connection to which this was, does not answer.
    Unreachable {
        connection: ConnectionId,
        candidate: Candidate,
        trouble: Trouble,
        text: String,
    },
    /// The server has answered, if only by a refusal.
    Answered(ConnectionId),
    /// The server wants fewer connections.
    PushedBack(ConnectionId),
    /// The server cannot cope with batches of commands, although it offers that.
    NeedsCaution(SocketAddr),
    /// A relay has taken credentials by this mechanism, or, with nothing, has not taken them.
    Authenticated(Login, Option<Mechanism>),
    /// The connection can take transactions: answered by [`Delivery::handle_work`], [`Delivery::handle_no_work`] or
    /// [`Delivery::quit_lane`].
    WantWork(ConnectionId),
    /// A transaction is about to begin: answered by [`Delivery::begin`] or, later, when the rate allows it.
    WantPermission(ConnectionId),
    /// Answered by [`Delivery::handle_data`].
    WantData {
        connection: ConnectionId,
        id: MailId,
        offset: u64,
        limit: u32,
    },
    Delivered {
        id: MailId,
        recipient: Box<str>,
        event: Event,
    },
    /// Mail goes to this candidate in plain text, because TLS has failed there.
    FellBack {
        candidate: Candidate,
        reason: String,
    },
    Failed {
        id: MailId,
        recipient: Mailbox,
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
    HadEnough(String),
    /// This machine is in trouble: try again a little later. No mail has failed.
    Postponed(String),
    Event(Event),
}
