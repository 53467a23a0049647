//! Facts for records and log lines, never for decisions, and the calls that a replay of records needs.

use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::Dispatcher;
use super::deliveries::Claim;
use super::requests::Asked;
use crate::attempt::Setback;
pub use crate::delivery::Owed;
use crate::dkim::SigningRules;
use crate::io::ConnectionId;
use crate::next_hop::{Host, NextHop, TlsMode};
use crate::outbox::{MailId, RequestId};
use crate::queue::{HopId, MailPlaces};
use crate::rng::Seed;
use crate::time::{Duration, Now};

/// Identifies a pass that has opened a connection. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PassId {
    hop: HopId,
    first: ConnectionId,
}

/// Facts about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFacts<'a> {
    /// The pass that has opened it.
    pub pass: PassId,
    /// Where the mail of the pass goes.
    pub next_hop: &'a NextHop,
    /// The server, by the name under which it was found.
    pub host: &'a Host,
    /// Its address and port.
    pub remote: SocketAddr,
    /// How the connection is to be protected.
    pub tls: TlsMode,
    /// True if TLSA records say how the server must prove itself.
    pub has_tlsa: bool,
    /// Whether an MTA-STS policy that is enforced names it.
    pub is_named_by_policy: bool,
    /// The seed of the session, once TCP has connected. It reveals nothing about the randomness of other sessions.
    pub session_seed: Option<&'a Seed>,
}

/// How much there is to do, and how it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Mail in the outbox.
    pub mails: usize,
    /// Connections for mail.
    pub connections: usize,
    /// Addresses and ports that do not answer, or not in time.
    pub hosts_in_trouble: usize,
}

/// How the mail, the connections and the destinations stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Mail in the outbox, by its place.
    pub mails: MailPlaces,
    /// Connections for mail, by their state.
    pub connections: ConnectionCounts,
    /// Destinations with mail, by their state.
    pub destinations: DestinationCounts,
    /// Verdicts on mail that the database has not recorded.
    pub pending_verdicts: usize,
}

/// How many connections for mail there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Those on which no mail can be sent yet.
    pub connecting: usize,
    /// Those on which mail is sent.
    pub busy: usize,
    /// Those that are kept for later mail.
    pub resting: usize,
    /// The most that there may be.
    pub limit: usize,
}

/// How many destinations have mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DestinationCounts {
    /// Those that are worked on.
    pub active: usize,
    /// Those that wait for their turn, for name servers, or for a connection.
    pub waiting: usize,
    /// Those that are left alone for a while.
    pub paused: usize,
    /// Those, in whichever state, where mail has failed when it was last tried.
    pub troubled: usize,
}

/// An address and port that does not answer, and is tried after all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TroubledHost {
    /// The address and port.
    pub remote: SocketAddr,
    /// What happened there, as a clause.
    pub reason: String,
    /// For how long it will count.
    pub remaining: Duration,
}

/// A server that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowHost {
    /// Its address and port.
    pub remote: SocketAddr,
    /// Its name or address, as it was found.
    pub host: Host,
    /// How many connections wait for it.
    pub connections: usize,
    /// What the one that has waited for the longest time waits for.
    pub owed: Owed,
    /// For how long it has.
    pub waiting: Duration,
}

/// The shortest time that a server is waited for before it is called slow.
const SLOW_LEAST: Duration = Duration::from_secs(1);

/// Most slow hosts that are named.
const SLOW_LIMIT: usize = 20;

/// Most hosts in trouble that are named.
const TROUBLED_LIMIT: usize = 20;

impl Dispatcher {
    /// Returns how everything stands. It takes as long as there are many connections and destinations.
    pub fn standing(&self) -> Standing {
        let Self { books, deliveries, .. } = self;
        Standing {
            mails: books.queue.places(books.store.suspects.mails()),
            connections: deliveries.connection_counts(),
            destinations: deliveries.destination_counts(&books.queue),
            pending_verdicts: books.commits.all().map(|commit| commit.ids().count()).sum(),
        }
    }

    /// Returns how much mail there is in the outbox for each next hop; `None` stands for mail that has none.
    pub fn mails_by_destination(&self) -> impl Iterator<Item = (Option<&NextHop>, u64)> {
        self.books.queue.mails_by_hop().map(|(next_hop, mails)| (next_hop, mails.into()))
    }

    /// Returns some hosts that do not answer.
    pub fn hosts_in_trouble(&self) -> Vec<TroubledHost> {
        let troubles = self.deliveries.troubles(self.books.now.monotonic, TROUBLED_LIMIT);
        let told = |(remote, setback, remaining): (SocketAddr, &Setback, Duration)| TroubledHost {
            remote,
            reason: setback.to_string(),
            remaining,
        };
        troubles.map(told).collect()
    }

    /// Returns some servers that are being waited for, the slowest first.
    pub fn slow_hosts(&self) -> Vec<SlowHost> {
        self.deliveries.slow_hosts(self.books.now.monotonic, SLOW_LEAST, SLOW_LIMIT)
    }

    /// Returns how much there is to do. It takes as long as many hosts are in trouble.
    pub fn load(&self) -> Load {
        self.deliveries.load(self.books.queue.len(), self.books.now.monotonic)
    }

    /// Returns the facts about a connection for mail, as long as it is not closed.
    pub fn connection(&self, connection: ConnectionId) -> Option<ConnectionFacts<'_>> {
        let (hop, delivery) = self.deliveries.of_connection(connection)?;
        let (candidate, session_seed) = delivery.connection(connection)?;
        let pass = PassId { hop, first: delivery.first_connection()? };
        let (next_hop, host) = (delivery.next_hop(), &candidate.host);
        Some(ConnectionFacts {
            pass,
            next_hop,
            host,
            remote: candidate.remote,
            tls: candidate.tls,
            has_tlsa: !candidate.plan.terms.tlsa.is_empty(),
            is_named_by_policy: candidate.plan.is_by_sts(),
            session_seed,
        })
    }

    /// Returns where a connection for mail or for a probe leads to, as long as it is not closed.
    pub fn next_hop_of(&self, connection: ConnectionId) -> Option<&NextHop> {
        self.deliveries.next_hop_of(connection)
    }

    /// Returns whether a pass is still under way.
    pub fn is_under_way(&self, pass: PassId) -> bool {
        let delivery = self.deliveries.delivery(pass.hop);
        delivery.is_some_and(|delivery| delivery.first_connection() == Some(pass.first))
    }

    /// Returns what an administrator must know if the program ends now: verdicts that the database has not recorded.
    pub fn unrecorded(&self) -> Option<String> {
        self.books.unrecorded()
    }

    /// Returns the connection for which an open claim was made.
    pub fn claimant(&self, request: RequestId) -> Option<ConnectionId> {
        match self.books.store.requests.find(request)? {
            Asked::Claim(Claim { connection, .. }) => Some(*connection),
            Asked::Scan
            | Asked::Rescan { .. }
            | Asked::Sign(..)
            | Asked::Data { .. }
            | Asked::Bounce { .. }
            | Asked::Recall { .. }
            | Asked::Commit
            | Asked::Recover
            | Asked::Orders
            | Asked::CarryOut(_)
            | Asked::Policy(_)
            | Asked::StalePolicies => None,
        }
    }

    /// Returns the rules by which mail is signed.
    pub fn signing(&self) -> &Arc<SigningRules> {
        &self.books.config.settings.signing
    }

    /// Returns the mail that the database holds for this dispatcher, as far as its answers and the outputs were passed on: see
    /// [`outbox`](crate::outbox#what-is-held).
    pub fn held(&self) -> impl Iterator<Item = MailId> {
        self.books.store.held.mails()
    }

    /// Closes a connection as if others needed its slot, so that a record can be replayed where none do. Does nothing if the
    /// server does not owe a reply.
    pub fn give_up_connection(&mut self, now: Now, connection: ConnectionId) {
        self.books.now = now;
        self.deliveries.give_up(&mut self.books, connection);
        self.pump();
    }

    /// Presets the seeds of the next sessions, so that a record can be replayed.
    pub fn preset_session_seeds(&mut self, seeds: impl IntoIterator<Item = Seed>) {
        self.deliveries.ids().preset_seeds(seeds);
    }
}
