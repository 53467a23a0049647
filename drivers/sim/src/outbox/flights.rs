//! The flights that are noted beside the outbox.

use cmail_delivery::flight::{FoundFlight, Uncertain};
use cmail_delivery::memory_outbox::FlightBook;
use cmail_delivery::order::Hold;
use cmail_delivery::outbox::{MailId, Row};

use super::Outbox;

impl Outbox {
    /// What the daemon was told of mail that it holds.
    pub(crate) fn held_row(&self, id: MailId) -> Option<&Row> {
        self.claimed.get(&id)
    }

    /// Returns the flights that are noted.
    pub(crate) fn flights(&self) -> &FlightBook {
        &self.flights
    }

    /// What was noted was not written to the disk.
    pub(crate) fn lose_flights(&mut self) {
        self.flights.clear();
    }

    /// Returns the flights that earlier runs have left behind, and holds their mail if that is wanted.
    pub(crate) fn recover(&mut self, uncertain: Uncertain) -> Vec<FoundFlight> {
        let (mails, stuck) = (&self.mails, &self.poisoned);
        let is_left = |id| {
            let submission = mails.get(&id).map(|mail| mail.submission);
            submission.is_some_and(|submission| stuck.noted(id).is_none_or(|since| submission > since))
        };
        let mut found = self.flights.begin_run(is_left);
        if uncertain == Uncertain::Hold {
            found.iter_mut().for_each(|flight| flight.is_held = true);
            for id in found.iter().flat_map(|flight| &flight.mails) {
                if let Some(mail) = self.mails.get_mut(id) {
                    mail.hold = Hold::Held;
                }
            }
            self.flights.clear();
        }
        found
    }
}
