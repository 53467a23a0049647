//! What the faillog does not say of attempts: when mail was last tried, and which of it is to be tried before its time.
//!
//! Whatever happens to the faillog, mail rests for a while after each attempt: another program may delete its rows, or
//! the clock may be set. What waits because of that alone is few, so that it is remembered here and not for all mail.

use alloc::collections::BTreeMap;

use super::books::Books;
use crate::outbox::{MailId, Row};
use crate::queue::Place;
use crate::schedule::{LEAST_REST, Standing};
use crate::time::{Duration, Instant, UnixTime};

/// With fewer attempts than that to remember, there is no need to look for those that can be forgotten.
const SWEEP_LEAST: usize = 1024;

/// The attempts of this process.
#[derive(Debug)]
pub(super) struct Attempts {
    /// How long mail rests after an attempt.
    rest: Duration,
    /// When mail was last tried, as long as it rests.
    last: BTreeMap<MailId, Instant>,
    /// With so many to remember, those that can be forgotten are looked for.
    sweep_at: usize,
    /// Mail that the administrator wants to be tried now, and when it would be due.
    ordered: BTreeMap<MailId, UnixTime>,
}

impl Attempts {
    pub(super) const fn new(rest: Duration) -> Self {
        Self { rest, last: BTreeMap::new(), sweep_at: SWEEP_LEAST, ordered: BTreeMap::new() }
    }

    /// A mail was tried.
    pub(super) fn tried(&mut self, id: MailId, now: Instant) {
        self.last.insert(id, now);
        if self.last.len() >= self.sweep_at {
            let rest = self.rest;
            self.last.retain(|_, at| now < *at + rest);
            self.sweep_at = self.last.len().saturating_mul(2).max(SWEEP_LEAST);
        }
    }

    /// A mail that would be due at a time is to be tried now.
    pub(super) fn order(&mut self, id: MailId, due: UnixTime) {
        self.ordered.insert(id, due);
    }

    /// Takes an order back; returns when the mail would be due if there was one.
    pub(super) fn end_order(&mut self, id: MailId) -> Option<UnixTime> {
        self.ordered.remove(&id)
    }

    /// How long a mail still has to rest.
    fn rest_of(&self, id: MailId, now: Instant) -> Duration {
        let rest = if self.ordered.contains_key(&id) { LEAST_REST } else { self.rest };
        self.last.get(&id).map_or(Duration::ZERO, |&at| (at + rest).saturating_duration_since(now))
    }
}

impl Books {
    /// Where a mail belongs that stands like this. An order to try it is kept as long as it is of any use.
    pub(super) fn place_of(&mut self, id: MailId, standing: Standing) -> Place {
        let attempts = &mut self.attempts;
        match standing {
            Standing::NotBefore(due) if attempts.ordered.contains_key(&id) => attempts.order(id, due),
            Standing::Due | Standing::NotBefore(_) | Standing::GivenUp => {
                attempts.end_order(id);
            }
        }
        match standing {
            Standing::GivenUp => Place::GivenUp,
            Standing::NotBefore(due) if !self.attempts.ordered.contains_key(&id) => {
                Place::Waiting(self.rested_at(id).map_or(due, |rested| due.max(rested)))
            }
            Standing::Due | Standing::NotBefore(_) => self.place_of_wanted(id),
        }
    }

    /// Where a mail belongs that is to be tried as soon as it has rested.
    pub(super) fn place_of_wanted(&self, id: MailId) -> Place {
        self.rested_at(id).map_or(Place::Ready, Place::Waiting)
    }

    /// Whether a row that was claimed may be tried: it is due, or the administrator wants it.
    pub(super) fn may_be_tried(&mut self, row: &Row) -> bool {
        let standing = self.standing_of(row);
        match standing {
            Standing::Due => {
                self.attempts.end_order(row.id);
                true
            }
            Standing::NotBefore(_) => {
                self.place_of(row.id, standing);
                self.attempts.ordered.contains_key(&row.id)
            }
            Standing::GivenUp => false,
        }
    }

    /// Makes everything ready that merely waits, as the administrator wants it.
    pub(super) fn try_now(&mut self) {
        self.take_in_arrived();
        self.intake.call_up(self.queue.waiting());
        // Their attempt is not recorded yet. When it is, they will wait, for a time that is not known before.
        for id in self.ledger.failing() {
            self.attempts.order(id, self.now.wall);
        }
        self.set_aside.end_pauses(self.now.monotonic);
        self.look_now();
    }

    /// When a mail has rested, if it has not.
    fn rested_at(&self, id: MailId) -> Option<UnixTime> {
        let rest = self.attempts.rest_of(id, self.now.monotonic);
        if rest.is_zero() {
            return None;
        }
        let end = self.now.since_second + rest;
        let whole_s = end.as_secs() + u64::from(end.subsec_nanos() > 0);
        let whole_s = i64::try_from(whole_s).unwrap_or(i64::MAX);
        Some(UnixTime(self.now.wall.0.saturating_add(whole_s)))
    }
}
