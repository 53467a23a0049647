//! What the faillog does not say of attempts: when mail was last tried, and which mail is ordered before its time.
//!
//! Each mail waits for a minimum time after an attempt, whatever happens to the faillog: another program may delete its rows, or
//! the clock may be set. Little mail waits for this reason alone, so it is recorded here and not in the index.

use alloc::collections::BTreeMap;

use super::books::Books;
use crate::outbox::{MailId, Row};
use crate::queue::QueueState;
use crate::schedule::{MIN_RETRY_INTERVAL, RetryState};
use crate::time::{Duration, Instant, UnixTime};

/// With fewer attempts than this, expired ones are not looked for.
const SWEEP_LEAST: usize = 1024;

/// The recent attempts of this process.
#[derive(Debug)]
pub(super) struct RecentAttempts {
    /// The shortest time between two attempts of a mail.
    min_interval: Duration,
    /// The time of the last attempt of each mail that must still wait.
    last: BTreeMap<MailId, Instant>,
    /// The number of attempts at which expired ones are looked for.
    sweep_at: usize,
    /// Mail that the administrator wants tried now, with the time at which it would be due.
    ordered: BTreeMap<MailId, UnixTime>,
}

impl RecentAttempts {
    pub(super) const fn new(min_interval: Duration) -> Self {
        Self { min_interval, last: BTreeMap::new(), sweep_at: SWEEP_LEAST, ordered: BTreeMap::new() }
    }

    /// Sets how long mail rests, also after attempts that were made before.
    pub(super) fn set_min_interval(&mut self, min_interval: Duration) {
        self.min_interval = min_interval;
    }

    /// Records an attempt.
    pub(super) fn tried(&mut self, id: MailId, now: Instant) {
        self.last.insert(id, now);
        if self.last.len() >= self.sweep_at {
            let rest = self.min_interval;
            self.last.retain(|_, at| now < *at + rest);
            self.sweep_at = self.last.len().saturating_mul(2).max(SWEEP_LEAST);
        }
    }

    /// Records an order to try a mail now that would be due at this time.
    pub(super) fn order(&mut self, id: MailId, due: UnixTime) {
        self.ordered.insert(id, due);
    }

    /// Ends an order. Returns when the mail would be due, if there was one.
    pub(super) fn end_order(&mut self, id: MailId) -> Option<UnixTime> {
        self.ordered.remove(&id)
    }

    /// Returns how long a mail still has to wait.
    fn remaining_wait(&self, id: MailId, now: Instant) -> Duration {
        let rest = if self.ordered.contains_key(&id) { MIN_RETRY_INTERVAL } else { self.min_interval };
        self.last.get(&id).map_or(Duration::ZERO, |&at| (at + rest).saturating_duration_since(now))
    }
}

impl Books {
    /// Returns the queue state of a mail with this retry state. An order to try it is kept as long as it makes a difference.
    pub(super) fn queue_state_of(&mut self, id: MailId, state: RetryState) -> QueueState {
        let attempts = &mut self.attempts;
        match state {
            RetryState::NotBefore(due) if attempts.ordered.contains_key(&id) => attempts.order(id, due),
            RetryState::Due | RetryState::NotBefore(_) | RetryState::GivenUp | RetryState::Held(_) => {
                attempts.end_order(id);
            }
        }
        match state {
            RetryState::GivenUp => QueueState::GivenUp,
            RetryState::Held(by) => QueueState::Held(by.into()),
            RetryState::NotBefore(due) if !self.attempts.ordered.contains_key(&id) => {
                QueueState::Waiting(self.wait_end(id).map_or(due, |rested| due.max(rested)))
            }
            RetryState::Due | RetryState::NotBefore(_) => self.ready_or_waiting(id),
        }
    }

    /// Returns the queue state of a mail that is to be tried as soon as the minimum time has passed.
    pub(super) fn ready_or_waiting(&self, id: MailId) -> QueueState {
        self.wait_end(id).map_or(QueueState::Ready, QueueState::Waiting)
    }

    /// Decides whether a claimed row may be tried: it is due, or the administrator has ordered it.
    pub(super) fn admit_claimed(&mut self, row: &Row) -> bool {
        let state = self.retry_state_of(row);
        match state {
            RetryState::Due => {
                self.attempts.end_order(row.id);
                true
            }
            RetryState::NotBefore(_) => {
                self.queue_state_of(row.id, state);
                self.attempts.ordered.contains_key(&row.id)
            }
            RetryState::GivenUp | RetryState::Held(_) => false,
        }
    }

    /// Makes all waiting mail ready, as the administrator orders.
    pub(super) fn try_now(&mut self) {
        self.index_arrived();
        self.scan.call_up(self.queue.waiting());
        // Their attempts are not recorded yet. Afterwards they will wait, for a time that is not known before.
        for id in self.commits.failing() {
            self.attempts.order(id, self.now.wall);
        }
        self.set_aside.end_pauses(self.now.monotonic);
        self.scan_now();
    }

    /// Returns when the minimum time has passed, if it has not.
    pub(super) fn wait_end(&self, id: MailId) -> Option<UnixTime> {
        let rest = self.attempts.remaining_wait(id, self.now.monotonic);
        if rest.is_zero() {
            return None;
        }
        let end = self.now.since_second + rest;
        let whole_s = end.as_secs() + u64::from(end.subsec_nanos() > 0);
        let whole_s = i64::try_from(whole_s).unwrap_or(i64::MAX);
        Some(UnixTime(self.now.wall.0.saturating_add(whole_s)))
    }
}
