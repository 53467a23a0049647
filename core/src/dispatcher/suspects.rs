//! Mail that may have arrived already: what the flights that earlier runs have left behind name. They are asked for before
//! everything else. Mail is suspected until it has left the outbox.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::Mode;
use super::books::Books;
use super::requests::Asked;
use crate::event::{EventName, Level};
use crate::flight::{FlightId, FlightMark, FoundFlight, Uncertain};
use crate::next_hop::NextHop;
use crate::outbox::{MailId, StoreError, StoreRequest};
use crate::time::{Duration, Instant};

/// Delay before flights are asked for again after the database has failed.
const RECOVERY_RETRY: Duration = Duration::from_secs(1);

/// The suspected mail.
#[derive(Debug)]
pub(super) struct Suspects {
    recovery: Recovery,
    flights: BTreeMap<i64, Suspected>,
    /// Their mail, with its flights: one of each run that has left it behind.
    mails: BTreeMap<MailId, Vec<i64>>,
    /// Flights that have no mail any more, as long as the database has them.
    over: BTreeSet<i64>,
}

/// A flight of an earlier run.
#[derive(Debug)]
struct Suspected {
    next_hop: Box<str>,
    /// The server, if it is known.
    remote: Option<SocketAddr>,
    /// How many of its mails are left.
    left: usize,
}

/// Whether the flights of earlier runs are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recovery {
    /// They are to be asked for at this time.
    At(Instant),
    Asked,
    Done,
}

impl Suspects {
    pub(super) fn new(now: Instant, uncertain: Uncertain, mode: &Mode) -> Self {
        let recovery = match (uncertain, mode) {
            (Uncertain::Off, _) | (_, Mode::CarryOutOrders) => Recovery::Done,
            (Uncertain::Retry | Uncertain::Hold, Mode::Daemon | Mode::Deliver(_) | Mode::GenerateBounces) => {
                Recovery::At(now)
            }
        };
        Self { recovery, flights: BTreeMap::new(), mails: BTreeMap::new(), over: BTreeSet::new() }
    }

    /// Returns whether it is known which mail is suspected, so that mail may be looked at.
    pub(super) fn are_known(&self) -> bool {
        self.recovery == Recovery::Done
    }

    pub(super) fn is_asking(&self) -> bool {
        self.recovery == Recovery::Asked
    }

    /// Returns when to ask for flights.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        if let Recovery::At(at) = self.recovery { Some(at) } else { None }
    }

    /// Returns the suspected mail.
    pub(super) fn mails(&self) -> impl Iterator<Item = MailId> {
        self.mails.keys().copied()
    }

    /// Returns the server to which suspected mail of a next hop went last: only there a second copy can be recognized.
    pub(super) fn last_server(&self, next_hop: &NextHop) -> Option<SocketAddr> {
        if self.flights.is_empty() {
            return None;
        }
        let next_hop = next_hop.to_string();
        let of_next_hop = self.flights.values().rev().filter(|flight| *flight.next_hop == *next_hop);
        of_next_hop.filter_map(|flight| flight.remote).next()
    }

    /// Notes that a mail has left the outbox.
    pub(super) fn forget(&mut self, id: MailId) {
        for flight in self.mails.remove(&id).unwrap_or_default() {
            if let Some(suspected) = self.flights.get_mut(&flight) {
                suspected.left = suspected.left.saturating_sub(1);
                if suspected.left == 0 {
                    self.flights.remove(&flight);
                    self.over.insert(flight);
                }
            }
        }
    }

    /// Returns whether the database has flights that are over.
    pub(super) fn has_marks(&self) -> bool {
        !self.over.is_empty()
    }

    /// Returns what is to be recorded.
    pub(super) fn marks(&self) -> impl Iterator<Item = FlightMark> {
        self.over.iter().map(|&number| FlightMark { flight: FlightId::Earlier(number), carries: None })
    }

    /// Notes what was recorded.
    pub(super) fn recorded(&mut self, flight: FlightId) {
        if let FlightId::Earlier(number) = flight {
            self.over.remove(&number);
        }
    }

    fn add(&mut self, found: FoundFlight) {
        let FoundFlight { number, next_hop, remote, mails, is_held: _ } = found;
        self.flights.insert(number, Suspected { next_hop, remote, left: mails.len() });
        for id in mails {
            self.mails.entry(id).or_default().push(number);
        }
    }
}

impl Books {
    /// Asks for the flights that earlier runs have left behind, if that was not done.
    pub(super) fn recover(&mut self) {
        if self.store.suspects.ask_at().is_some_and(|at| at <= self.now.monotonic) && !self.is_draining() {
            self.store.suspects.recovery = Recovery::Asked;
            let uncertain = self.config.settings.uncertain;
            self.ask(StoreRequest::Recover { uncertain }, Asked::Recover);
        }
    }

    pub(super) fn recovery_failed(&mut self, error: &StoreError) {
        self.note(
            Level::Error,
            format!("cannot find out which mail may have arrived already, trying again: {error}"),
        );
        self.store.suspects.recovery = Recovery::At(self.now.monotonic + RECOVERY_RETRY);
    }

    /// Tells which mail is suspected, and begins to look at mail.
    pub(super) fn recovered(&mut self, found: Vec<FoundFlight>) {
        self.store.suspects.recovery = Recovery::Done;
        for flight in found {
            let about = if flight.is_held { EventName::Held } else { EventName::Uncertain };
            self.note_about(about, Level::Warning, flight.to_string());
            if !flight.is_held {
                self.store.suspects.add(flight);
            }
        }
        self.scan_new();
    }
}
