//! How much mail is where.

use super::{Queue, QueueState};
use crate::outbox::MailId;

/// How many mails of the outbox are at each place on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailPlaces {
    /// It is to be tried now.
    pub ready: usize,
    /// It waits for its time.
    pub waiting: usize,
    /// A connection or the database works on it.
    pub claimed: usize,
    /// It is to be bounced.
    pub given_up: usize,
    /// It is neither tried nor given up until it is released.
    pub held: usize,
    /// The database cannot process it for now.
    pub set_aside: usize,
    /// It may have arrived already, wherever else it is.
    pub uncertain: usize,
}

impl Queue {
    /// Returns how many mails are at each place, of which these may have arrived already.
    pub(crate) fn places(&self, uncertain: impl Iterator<Item = MailId>) -> MailPlaces {
        let mut places = self.places_of_all();
        for known in uncertain.filter_map(|id| self.mails.get(&id)) {
            let place = match known.queue_state() {
                QueueState::Waiting(_) => &mut places.waiting,
                QueueState::Ready | QueueState::ReadyAgain => &mut places.ready,
                QueueState::Claimed => &mut places.claimed,
                QueueState::GivenUp => &mut places.given_up,
                QueueState::Held(_) => &mut places.held,
                QueueState::SetAside => &mut places.set_aside,
            };
            *place = place.saturating_sub(1);
            places.uncertain += 1;
        }
        places
    }

    /// Returns how much mail each line of the configuration holds that holds any, by its number.
    pub(crate) fn held_by_lines(&self) -> impl Iterator<Item = (u32, usize)> {
        self.held.by_lines()
    }

    fn places_of_all(&self) -> MailPlaces {
        let (ready, waiting) = (self.ready.len() + self.ready_again.len(), self.timeline.len());
        let (claimed, given_up) = (self.claimed.len(), self.given_up.len());
        let held = self.held.total();
        let set_aside = self.mails.len().saturating_sub(ready + waiting + claimed + given_up + held);
        MailPlaces { ready, waiting, claimed, given_up, held, set_aside, uncertain: 0 }
    }
}
