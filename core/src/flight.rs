//! Flights: the messages that a connection sends next, noted in the database before the first of them begins.
//!
//! If the program is killed between the final dot of a message and the commit of its verdict, mail stays in the outbox that has arrived
//! already. Without a note, every mail of the outbox is a suspect afterwards. With flights, at most [`FLIGHT_LIMIT_MESSAGES`] messages of
//! each connection are.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use crate::ids::{ConnectionId, MailId};

/// Most messages of one connection that are noted at once. Enough to send while a commit is under way, and few enough to be looked at
/// one by one after the program was killed.
pub const FLIGHT_LIMIT_MESSAGES: usize = 16;

/// What is done with mail that may have arrived already: the program was killed, or the connection was lost, after the message was
/// sent and before its verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uncertain {
    /// It is sent again, and told of.
    Retry,
    /// It is held, until the administrator decides.
    Hold,
    /// It is sent again. Nothing is noted before mail is sent.
    #[default]
    Off,
}

/// Identifies a flight in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlightId {
    /// It was noted by an earlier run, under this number.
    Earlier(i64),
    /// It was noted by this run, which counts them from 1.
    Own(u32),
}

/// Where the messages of a flight go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlightRoute {
    /// The connection.
    pub connection: ConnectionId,
    /// The next hop, without credentials.
    pub next_hop: Box<str>,
    /// Address and port of the server.
    pub remote: SocketAddr,
}

/// A change of what is noted of a flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlightMark {
    /// The flight.
    pub flight: FlightId,
    /// The mail that it has now, and where it goes; `None` if it is over.
    pub carries: Option<Cargo>,
}

/// The mail of a flight, in the order of sending, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cargo {
    /// The route.
    pub route: Arc<FlightRoute>,
    /// At least one mail. One message may be several.
    pub mails: Vec<MailId>,
}

/// A flight that an earlier run has left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFlight {
    /// Its number.
    pub number: i64,
    /// The next hop, without credentials.
    pub next_hop: Box<str>,
    /// Address and port of the server; `None` if the note does not have a valid one.
    pub remote: Option<SocketAddr>,
    /// Its mail that is still in the outbox: at least one.
    pub mails: Vec<MailId>,
    /// Whether this mail is held now. Of a flight whose mail cannot be held all together, each part is found for itself.
    pub is_held: bool,
}

/// Most mails that are named.
const NAMED_LIMIT: usize = 100;

impl fmt::Display for FoundFlight {
    /// Writes a sentence for the administrator.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { next_hop, remote, mails, is_held, .. } = self;
        let server = remote.map(|remote| format!(" at {remote}")).unwrap_or_default();
        let ids: Vec<String> = mails.iter().take(NAMED_LIMIT).map(MailId::to_string).collect();
        let more = mails.len().saturating_sub(NAMED_LIMIT);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let (ids, noun) = (ids.join(", "), if mails.len() == 1 { "mail" } else { "mails" });
        let then = match is_held {
            true => "held until released, failed or dropped",
            false => "sent again, to the same server first",
        };
        write!(
            f,
            "{} {noun} to {next_hop}{server} may have arrived already, because the program ended before it knew the answer: \
             {ids}{more}; {then}",
            mails.len()
        )
    }
}
