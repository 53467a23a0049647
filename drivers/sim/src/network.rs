//! Connections: ordered pipes with latency, and the faults that a network has.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use cmail_delivery::io::Groups;
use cmail_delivery::time::Instant;
use cmail_delivery::tls::Tlsa;

use crate::dice::Dice;
use crate::facts::{Link, Shown};
use crate::servers::Conversation;

/// An item that travels through a pipe.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Octets(Bytes),
    /// The end of a TLS handshake, as the receiving side sees it; false if it failed.
    Tls(bool),
    Eof,
    Reset,
}

/// One direction of a connection. Items come out in the order in which they were put in.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    items: VecDeque<(Instant, Item)>,
    last: Instant,
}

impl Pipe {
    /// Puts an item in that is to come out at `at`, or later if another one is before it. Returns when.
    pub(crate) fn put(&mut self, at: Instant, item: Item) -> Instant {
        let at = at.max(self.last);
        self.last = at;
        self.items.push_back((at, item));
        at
    }

    /// Returns the item that comes out now.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Item> {
        let &(at, _) = self.items.front()?;
        if at > now { None } else { self.items.pop_front().map(|(_, item)| item) }
    }

    /// Returns the octets that come out before `until`, if they are next.
    pub(crate) fn take_octets(&mut self, until: Instant) -> Option<Bytes> {
        let (at, Item::Octets(_)) = self.items.front()? else { return None };
        if *at > until {
            return None;
        }
        match self.items.pop_front()? {
            (_, Item::Octets(octets)) => Some(octets),
            (_, Item::Tls(_) | Item::Eof | Item::Reset) => None,
        }
    }

    /// Loses everything.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
    }
}

/// The other end.
#[derive(Debug)]
pub(crate) enum Peer {
    /// A mail server. Its conversation begins with the connection.
    Smtp(Option<Conversation>),
    /// A name server, and what it has received so far.
    Dns(Vec<u8>),
}

/// The connection as the core sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientEnd {
    Connecting,
    Open,
    Handshaking,
    Gone,
}

/// The fault that a connection will have, and the number of octets after which it occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Fine,
    Resets { after: usize },
    Stalls { after: usize },
    HangsUp { after: usize },
}

impl Fate {
    /// Draws the fate of a connection when it is made.
    pub(crate) fn draw(dice: &mut Dice, resets: u32, stalls: u32, hangups: u32) -> Self {
        // Most of a conversation is short; a few fates are for the middle of large messages.
        let limit = if dice.chance(100) { 200_000 } else { 1500 };
        let after = dice.index(limit);
        if dice.chance(resets) {
            Self::Resets { after }
        } else if dice.chance(stalls) {
            Self::Stalls { after }
        } else if dice.chance(hangups) {
            Self::HangsUp { after }
        } else {
            Self::Fine
        }
    }
}

/// What both sides bring into the TLS handshake.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    /// The groups of key exchange that the client offers.
    pub(crate) groups: Groups,
    /// The TLSA records that it holds the certificate against.
    pub(crate) records: Arc<[Tlsa]>,
    /// The certificate.
    pub(crate) shown: Shown,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    /// The host; meaningless for name servers.
    pub(crate) host: usize,
    pub(crate) remote: SocketAddr,
    pub(crate) latency_us: u64,
    pub(crate) client: ClientEnd,
    pub(crate) server_is_open: bool,
    pub(crate) is_tls: bool,
    pub(crate) handshake: Handshake,
    pub(crate) fate: Fate,
    /// The number of octets put into either pipe.
    pub(crate) carried: usize,
    pub(crate) is_stalled: bool,
    pub(crate) to_server: Pipe,
    pub(crate) to_client: Pipe,
    /// True if the core has more to send than the pipe has taken.
    pub(crate) has_more: bool,
    /// Octets on their way to the server.
    pub(crate) in_flight: usize,
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Network {
    connections: BTreeMap<Link, Connection>,
}

impl Network {
    pub(crate) fn get(&mut self, link: Link) -> Option<&mut Connection> {
        self.connections.get_mut(&link)
    }

    pub(crate) fn insert(&mut self, link: Link, connection: Connection) {
        self.connections.insert(link, connection);
    }

    /// Forgets a connection that neither side has any more.
    pub(crate) fn sweep(&mut self, link: Link) {
        let is_over = self
            .connections
            .get(&link)
            .is_some_and(|connection| connection.client == ClientEnd::Gone && !connection.server_is_open);
        if is_over {
            self.connections.remove(&link);
        }
    }

    /// Returns the open connections of an incarnation.
    pub(crate) fn open_links(&self, epoch: u32) -> Vec<Link> {
        let open = |(link, connection): &(&Link, &Connection)| {
            link.epoch == epoch && connection.client == ClientEnd::Open
        };
        self.connections.iter().filter(open).map(|(&link, _)| link).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Link, &Connection)> {
        self.connections.iter().map(|(&link, connection)| (link, connection))
    }
}
