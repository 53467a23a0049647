//! Which messages a connection sends next, as the database knows it. A transaction begins only if the database has noted its mail.
//!
//! A connection wants its next messages noted when few are left that are. Until a commit takes that along, further ones join. So
//! where commits follow each other, connections do not wait for one of their own.
//!
//! Mail stays noted until it is decided, or until it is sure that its connection does not send it: it may be read again meanwhile.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::delivery::Upcoming;
use crate::flight::{Cargo, FLIGHT_LIMIT_MESSAGES, FlightId, FlightMark, FlightRoute};
use crate::io::ConnectionId;
use crate::outbox::MailId;
use crate::session::Transaction;

/// A connection wants further messages noted when no more than this many that have not begun are.
const REFILL_AT_MESSAGES: usize = FLIGHT_LIMIT_MESSAGES / 2;

/// The flights of this run.
#[derive(Debug, Default)]
pub(in crate::dispatcher) struct Flights {
    last: u32,
    all: BTreeMap<u32, Flight>,
    /// Mail with its flight.
    mails: BTreeMap<MailId, u32>,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Flights of which the database has to be told.
    unrecorded: BTreeSet<u32>,
    /// Those that the commit under way tells it of.
    asked: BTreeSet<u32>,
}

/// The flights of a connection.
#[derive(Debug)]
struct Connection {
    route: Arc<FlightRoute>,
    flights: BTreeSet<u32>,
    /// How many of its next messages are in flights; unknown after they were read again.
    ahead: Option<usize>,
}

#[derive(Debug)]
struct Flight {
    route: Arc<FlightRoute>,
    /// In the order in which they are sent.
    mails: Vec<MailId>,
    stage: Stage,
}

/// What the database knows of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing: further messages may join.
    Wanted,
    /// It is being told.
    Asked,
    /// The flight with all of its mail, and perhaps some that is decided.
    Noted,
}

impl Flights {
    /// Lets the next messages of a connection be noted, if few are. Returns whether the first of them may begin, because it is noted;
    /// otherwise it may when a commit has noted it.
    pub(super) fn prepare(&mut self, connection: ConnectionId, upcoming: &Upcoming<'_>) -> bool {
        let Some(first) = upcoming.messages().next() else { return true };
        self.want(connection, upcoming);
        self.mails_of(first).all(|flight| flight.is_some_and(|flight| flight.is_noted_for(connection)))
    }

    /// Notes that the next message of a connection begins.
    pub(super) fn begin(&mut self, connection: ConnectionId) {
        if let Some(of_connection) = self.connections.get_mut(&connection) {
            of_connection.ahead = of_connection.ahead.map(|ahead| ahead.saturating_sub(1));
        }
    }

    /// Ends the part of a mail in its flight: it is decided.
    pub(super) fn end(&mut self, id: MailId) {
        let Some(number) = self.mails.remove(&id) else { return };
        let Some(flight) = self.all.get_mut(&number) else { return };
        flight.mails.retain(|other| *other != id);
        self.unrecorded.insert(number);
    }

    /// Returns the mail that is noted for a connection.
    pub(super) fn of(&self, connection: ConnectionId) -> Vec<MailId> {
        let numbers = self.connections.get(&connection).into_iter().flat_map(|of| &of.flights);
        numbers.filter_map(|number| self.all.get(number)).flat_map(|flight| &flight.mails).copied().collect()
    }

    /// Ends the part of all mail of a connection that it does not send any more.
    pub(super) fn retain(&mut self, connection: ConnectionId, undecided: &[MailId]) {
        let Some(of_connection) = self.connections.get_mut(&connection) else { return };
        of_connection.ahead = None;
        let undecided: BTreeSet<MailId> = undecided.iter().copied().collect();
        for id in self.of(connection).into_iter().filter(|id| !undecided.contains(id)) {
            self.end(id);
        }
    }

    /// Ends all flights of a connection that is closed.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        self.retain(connection, &[]);
        self.connections.remove(&connection);
    }

    /// Leaves mail noted whose connection is given up: it was sent whole, and its verdict will never be known.
    pub(super) fn abandon(&mut self, connection: ConnectionId, sent: &[MailId]) {
        self.retain(connection, sent);
        self.connections.remove(&connection);
    }

    /// Returns whether the database has to be told of something.
    pub(in crate::dispatcher) fn has_marks(&self) -> bool {
        !self.unrecorded.is_empty()
    }

    /// Takes what the database has to be told.
    pub(in crate::dispatcher) fn take_marks(&mut self) -> Vec<FlightMark> {
        let mut marks = Vec::with_capacity(self.unrecorded.len());
        for number in core::mem::take(&mut self.unrecorded) {
            let Some(flight) = self.all.get_mut(&number) else { continue };
            if flight.mails.is_empty() && flight.stage == Stage::Wanted {
                self.remove(number);
                continue;
            }
            if flight.stage == Stage::Wanted {
                flight.stage = Stage::Asked;
            }
            let (route, mails) = (Arc::clone(&flight.route), flight.mails.clone());
            let carries = (!mails.is_empty()).then_some(Cargo { route, mails });
            marks.push(FlightMark { flight: FlightId::Own(number), carries });
            self.asked.insert(number);
        }
        marks
    }

    /// Notes that the database knows what it was told last.
    pub(in crate::dispatcher) fn recorded(&mut self) {
        for number in core::mem::take(&mut self.asked) {
            let Some(flight) = self.all.get_mut(&number) else { continue };
            flight.stage = Stage::Noted;
            // If it has become empty since, that is still to be told.
            if flight.mails.is_empty() && !self.unrecorded.contains(&number) {
                self.remove(number);
            }
        }
    }

    /// Notes that the database does not know what it was told last.
    pub(in crate::dispatcher) fn not_recorded(&mut self) {
        for number in core::mem::take(&mut self.asked) {
            if let Some(flight) = self.all.get_mut(&number) {
                if flight.stage == Stage::Asked {
                    flight.stage = Stage::Wanted;
                }
                self.unrecorded.insert(number);
            }
        }
    }

    /// Lets the next messages of a connection be noted, as many as may be, if few are.
    fn want(&mut self, connection: ConnectionId, upcoming: &Upcoming<'_>) {
        let known = self.connections.get(&connection).and_then(|of_connection| of_connection.ahead);
        let ahead = known.unwrap_or_else(|| {
            let is_in_flight = |message: &&Transaction| {
                self.mails_of(message).all(|flight| flight.is_some_and(|flight| flight.is_of(connection)))
            };
            upcoming.messages().take(FLIGHT_LIMIT_MESSAGES).take_while(is_in_flight).count()
        });
        let mut counted = ahead;
        if ahead <= REFILL_AT_MESSAGES {
            let room = FLIGHT_LIMIT_MESSAGES.saturating_sub(upcoming.under_way + ahead);
            let next = upcoming.messages().skip(ahead).take(room);
            for message in next {
                self.add(connection, upcoming, message);
                counted += 1;
            }
        }
        if let Some(of_connection) = self.connections.get_mut(&connection) {
            of_connection.ahead = Some(counted);
        }
    }

    /// Adds a message to the flight of its connection that waits for a commit.
    fn add(&mut self, connection: ConnectionId, upcoming: &Upcoming<'_>, message: &Transaction) {
        let of_connection = self.connections.entry(connection).or_insert_with(|| Connection {
            route: Arc::new(upcoming.route(connection)),
            flights: BTreeSet::new(),
            ahead: None,
        });
        let wanted = of_connection.flights.last().copied();
        let wanted =
            wanted.filter(|number| self.all.get(number).is_some_and(|flight| flight.stage == Stage::Wanted));
        let number = wanted.unwrap_or_else(|| {
            self.last = self.last.wrapping_add(1);
            of_connection.flights.insert(self.last);
            let route = Arc::clone(&of_connection.route);
            self.all.insert(self.last, Flight { route, mails: Vec::new(), stage: Stage::Wanted });
            self.last
        });
        self.unrecorded.insert(number);
        for id in message.recipients.iter().map(|recipient| recipient.id) {
            self.end(id);
            self.mails.insert(id, number);
            if let Some(flight) = self.all.get_mut(&number) {
                flight.mails.push(id);
            }
        }
    }

    fn remove(&mut self, number: u32) {
        if let Some(flight) = self.all.remove(&number)
            && let Some(of_connection) = self.connections.get_mut(&flight.route.connection)
        {
            of_connection.flights.remove(&number);
        }
    }

    /// Returns the flight of each mail of a message, if it has one.
    fn mails_of<'a>(&'a self, message: &'a Transaction) -> impl Iterator<Item = Option<&'a Flight>> {
        let ids = message.recipients.iter().map(|recipient| recipient.id);
        ids.map(|id| self.all.get(self.mails.get(&id)?))
    }
}

impl Flight {
    fn is_of(&self, connection: ConnectionId) -> bool {
        self.route.connection == connection
    }

    fn is_noted_for(&self, connection: ConnectionId) -> bool {
        self.stage == Stage::Noted && self.is_of(connection)
    }
}

/// Checks in debug builds.
mod checks {
    use super::*;

    impl Flights {
        /// Asserts that the indices agree with the flights.
        #[track_caller]
        pub(in super::super) fn check(&self) {
            let mails = self
                .all
                .iter()
                .flat_map(|(&number, flight)| flight.mails.iter().map(move |&id| (id, number)));
            assert_eq!(mails.collect::<BTreeMap<_, _>>(), self.mails, "mail of a flight");
            for (number, flight) in &self.all {
                let is_told = self.unrecorded.contains(number) || self.asked.contains(number);
                assert!(is_told || flight.stage == Stage::Noted, "flight {number} is never noted");
                assert!(is_told || !flight.mails.is_empty(), "flight {number} is over, and never ends");
                let of_connection = self.connections.get(&flight.route.connection);
                assert!(of_connection.is_none_or(|of_connection| of_connection.flights.contains(number)));
            }
        }
    }
}
