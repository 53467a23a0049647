//! The flights that are noted beside an outbox in memory.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::flight::{Cargo, FlightId, FlightMark, FoundFlight};
use crate::outbox::MailId;

/// The [flights](crate::flight) that are noted, for an outbox that keeps them itself.
#[derive(Clone, Debug, Default)]
pub struct FlightBook {
    flights: BTreeMap<i64, Cargo>,
    /// The numbers of those of the present run.
    own: BTreeMap<u32, i64>,
    last: i64,
}

impl FlightBook {
    /// Notes a change.
    pub fn note(&mut self, mark: &FlightMark) {
        let number = match mark.flight {
            FlightId::Earlier(number) => number,
            FlightId::Own(count) => *self.own.entry(count).or_insert_with(|| {
                self.last = self.last.saturating_add(1);
                self.last
            }),
        };
        match &mark.carries {
            Some(cargo) => drop(self.flights.insert(number, cargo.clone())),
            None => drop(self.flights.remove(&number)),
        }
    }

    /// Begins a run: what is noted until now belongs to earlier ones. Returns the flights of which mail is left. They stay noted.
    pub fn begin_run(&mut self, is_left: impl Fn(MailId) -> bool) -> Vec<FoundFlight> {
        self.own.clear();
        self.flights.retain(|_, cargo| cargo.mails.iter().any(|id| is_left(*id)));
        let found = |(&number, cargo): (&i64, &Cargo)| FoundFlight {
            number,
            next_hop: cargo.route.next_hop.clone(),
            remote: Some(cargo.route.remote),
            mails: cargo.mails.iter().copied().filter(|id| is_left(*id)).collect(),
            is_held: false,
        };
        self.flights.iter().map(found).collect()
    }

    /// Ends all flights.
    pub fn clear(&mut self) {
        self.flights.clear();
        self.own.clear();
    }

    /// Returns what each flight of the present run carries.
    pub fn own_cargos(&self) -> impl Iterator<Item = &Cargo> {
        self.own.values().filter_map(|number| self.flights.get(number))
    }

    /// Returns what each flight that is noted carries.
    pub fn cargos(&self) -> impl Iterator<Item = &Cargo> {
        self.flights.values()
    }
}
