//! A DNS stub resolver (RFC 1034 section 5.3.1) as a state machine: it asks the configured recursive servers for MX and
//! address records, over UDP and, for truncated answers, over TCP.
//!
//! A lookup is begun by [`Resolver::lookup_mx`] or [`Resolver::lookup_addresses`] and ends with exactly one
//! [`ResolverOutput::Answer`], unless it is cancelled. What the network does comes in by the `handle_…` calls; after each
//! of them [`Resolver::poll_output`] is drained and [`Resolver::poll_timeout`] is asked when to call
//! [`Resolver::handle_timeout`].

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::address::Domain;
use crate::io::{CloseReason, ConnectError, ConnectionId, QueryId};
use crate::rng::Rng;
use crate::settings::ResolverSettings;
use crate::time::Instant;

/// Names a lookup from its beginning to its [`Answer`]. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub u64);

/// Which addresses are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// A records.
    pub ipv4: bool,
    /// AAAA records.
    pub ipv6: bool,
}

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolverOutput {
    /// Send a datagram from a fresh socket of its own.
    Datagram {
        /// The name of the socket from now on.
        query: QueryId,
        /// To whom.
        to: SocketAddr,
        /// What.
        octets: Bytes,
    },
    /// Close a query's socket. Not answered.
    CloseDatagram(QueryId),
    /// Connect by TCP.
    Connect {
        /// The name of the connection from now on.
        connection: ConnectionId,
        /// To whom.
        to: SocketAddr,
    },
    /// There are octets to send on a connection: ask for them with [`Resolver::poll_transmit`].
    Transmit(ConnectionId),
    /// Close a connection, in any state. Not answered.
    Close(ConnectionId),
    /// A lookup is done.
    Answer(LookupId, Answer),
}

/// What became of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of [`Resolver::lookup_mx`].
    Mx(Result<MxAnswer, LookupError>),
    /// Of [`Resolver::lookup_addresses`]: at least one, IPv6 before IPv4, else in the order of the server.
    Addresses(Result<Vec<IpAddr>, LookupError>),
}

/// The MX records of a domain that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MxAnswer {
    /// Preference and host, sorted by preference, equal ones in the order of the server. Empty if there are MX records but
    /// none that names a usable host: that is an error of the domain, and its address records must not be used instead
    /// (RFC 5321 section 5.1).
    Records(Vec<(u16, Domain)>),
    /// The domain takes no mail (RFC 7505).
    NullMx,
    /// The domain is its own mail host: the implicit MX of RFC 5321 section 5.1.
    NoRecords,
}

/// Why a lookup has no result.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LookupError {
    /// NXDOMAIN.
    #[error("the domain does not exist")]
    NameDoesNotExist,
    /// Every family that was asked for was answered, and there is no address.
    #[error("the host has no address")]
    NoAddress,
    /// The name servers failed; the sentence names domain, server and failure.
    #[error("{0}")]
    Temporary(String),
    /// This machine failed: no descriptors, no memory. No failure of any mail.
    #[error("{0}")]
    Local(String),
}

/// Asks name servers.
#[derive(Debug)]
pub struct Resolver {}

impl Resolver {
    /// A resolver with an empty cache. `rng` decides the ids of queries (RFC 5452 section 4.3).
    pub fn new(settings: ResolverSettings, rng: Rng) -> Self {
        let _ = (settings, rng);
        Self {}
    }

    /// Looks up the mail hosts of `domain`, following CNAME records (RFC 5321 section 5.1).
    pub fn lookup_mx(&mut self, now: Instant, domain: &Domain) -> LookupId {
        let _ = (now, domain);
        LookupId(0)
    }

    /// Looks up the addresses of `name`. Both families are asked at the same time, and both are waited for.
    pub fn lookup_addresses(&mut self, now: Instant, name: &Domain, families: Families) -> LookupId {
        let _ = (now, name, families);
        LookupId(0)
    }

    /// Forgets a lookup: there will be no answer to it.
    pub fn cancel(&mut self, lookup: LookupId) {
        let _ = lookup;
    }

    /// A datagram came in on the query's socket.
    pub fn handle_datagram(&mut self, now: Instant, query: QueryId, from: SocketAddr, octets: &[u8]) {
        let _ = (now, query, from, octets);
    }

    /// The query's datagram could not be sent, or its server is unreachable.
    pub fn handle_datagram_failed(&mut self, now: Instant, query: QueryId, error: ConnectError) {
        let _ = (now, query, error);
    }

    /// A TCP connection stands.
    pub fn handle_connected(&mut self, now: Instant, connection: ConnectionId) {
        let _ = (now, connection);
    }

    /// A TCP connection was not made.
    pub fn handle_connect_failed(&mut self, now: Instant, connection: ConnectionId, error: ConnectError) {
        let _ = (now, connection, error);
    }

    /// Octets from a server over TCP, cut anywhere.
    pub fn handle_received(&mut self, now: Instant, connection: ConnectionId, octets: &[u8]) {
        let _ = (now, connection, octets);
    }

    /// A TCP connection is closed or broken.
    pub fn handle_closed(&mut self, now: Instant, connection: ConnectionId, reason: CloseReason) {
        let _ = (now, connection, reason);
    }

    /// Does what is due. Calling it too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// What to do next; to be called until it returns nothing, after every other call.
    pub fn poll_output(&mut self) -> Option<ResolverOutput> {
        None
    }

    /// Appends at most `limit` octets that are to be sent on a connection; false if there are none.
    pub fn poll_transmit(&mut self, connection: ConnectionId, limit: usize, octets: &mut BytesMut) -> bool {
        let _ = (connection, limit, octets);
        false
    }

    /// Whether a connection is, or was, the resolver's: its ids are the odd numbers, and the dispatcher makes its own
    /// connections with even ones, so that neither needs to know of the other's.
    pub fn owns_connection(&self, connection: ConnectionId) -> bool {
        connection.0 % 2 == 1
    }

    /// When to call [`Resolver::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Whether no lookup is under way and no output is left.
    pub fn is_idle(&self) -> bool {
        true
    }
}
