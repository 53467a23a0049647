//! The walk over the known rows, by which is found what other programs have changed or deleted in them.
//!
//! It begins when the database says that somebody has written, and goes through the outbox slice by slice. A change is
//! found within one interval: the place where it stands is passed again no later than that.

use alloc::collections::BTreeSet;

use super::Mode;
use super::books::Books;
use super::requests::Asked;
use super::set_aside::Undone;
use crate::outbox::{Cursor, MailId, Scanned, StoreRequest};
use crate::time::{Duration, Instant};

/// Most rows of a slice. Claims and commits come in between, and wait for one at most: about 5 ms.
const SLICE_LIMIT_ROWS: u32 = 2048;
/// How soon a slice is asked for again that could not be had.
const SLICE_RETRY: Duration = Duration::from_secs(1);

/// Where the walk stands.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Whether somebody has written since the last walk began.
    is_wanted: bool,
    began: Option<Instant>,
    step: Step,
}

#[derive(Clone, Copy, Debug, Default)]
enum Step {
    /// No walk is under way.
    #[default]
    Resting,
    /// A slice was asked for at this time.
    Asked(Instant),
    /// The next slice is to be asked for at this time.
    Next(Cursor, Instant),
}

impl Walk {
    /// Whether a slice is asked for.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.step, Step::Asked(_))
    }

    /// Somebody has written: what was seen so far may have changed.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// When there is something to do, where the outbox is looked at once in an `interval`.
    ///
    /// Somebody who writes all the time brings a walk in three quarters of each, so that the rest is left for its delays.
    fn due(&self, interval: Duration) -> Option<Instant> {
        match self.step {
            Step::Resting => {
                let earliest = self.began.map_or(Instant::default(), |began| began + interval / 4 * 3);
                self.is_wanted.then_some(earliest)
            }
            Step::Asked(_) => None,
            Step::Next(_, at) => Some(at),
        }
    }

    /// Takes the place from which a slice is to be asked for now, if one is.
    fn take_due(&mut self, now: Instant, interval: Duration) -> Option<Cursor> {
        self.due(interval).filter(|due| *due <= now)?;
        let after = match self.step {
            Step::Next(after, _) => after,
            Step::Resting | Step::Asked(_) => {
                (self.is_wanted, self.began) = (false, Some(now));
                Cursor::BeforeFirst
            }
        };
        self.step = Step::Asked(now);
        Some(after)
    }

    /// A slice has come; behind it the walk goes on, unless it is over. It rests for as long as that took, so that others
    /// have the database for at least half of the time, but not for longer than `longest_rest`.
    fn answered(&mut self, now: Instant, next: Option<Cursor>, longest_rest: Duration) {
        let Step::Asked(since) = self.step else { return };
        let rest = now.saturating_duration_since(since).min(longest_rest);
        self.step = next.map_or(Step::Resting, |after| Step::Next(after, now + rest));
    }

    fn failed(&mut self, now: Instant, after: Cursor) {
        self.step = Step::Next(after, now + SLICE_RETRY);
    }
}

impl Books {
    /// When the walk has something to do.
    pub(super) fn walk_due(&self) -> Option<Instant> {
        let may_walk = self.mode == Mode::Daemon && self.intake.is_complete() && !self.is_draining();
        self.intake.walk.due(self.settings.interval).filter(|_| may_walk)
    }

    /// Looks again at a slice of what is known, if that is due.
    pub(super) fn walk(&mut self) {
        if self.walk_due().is_none() {
            return;
        }
        if let Some(after) = self.intake.walk.take_due(self.now.monotonic, self.settings.interval) {
            let asked = Asked::Walk { after, frontier: self.intake.frontier() };
            self.ask(StoreRequest::Scan { after, limit: SLICE_LIMIT_ROWS }, asked);
        }
    }

    /// A slice behind `after` cannot be had.
    pub(super) fn walk_failed(&mut self, after: Cursor) {
        self.intake.walk.failed(self.now.monotonic, after);
    }

    /// `frontier` is what was known when the database was asked: of what came later the answer says nothing.
    pub(super) fn walked(&mut self, after: Cursor, frontier: Cursor, answer: Scanned) {
        let Scanned { rows, taken, unreadable, next, data_version } = answer;
        // The database says only once that somebody has written, and has said it here.
        if self.intake.see_version(data_version) {
            self.look();
        }
        let last = next.unwrap_or(frontier);
        let mut found: BTreeSet<MailId> = rows.iter().map(|row| row.id).collect();
        found.extend(&taken);
        // Where something cannot be read, it is not known what is gone.
        if unreadable.is_empty() {
            for id in self.queue.unclaimed_between(after, last) {
                if !found.contains(&id) {
                    self.forget(id);
                }
            }
        }
        taken.into_iter().for_each(|id| self.was_taken(id));
        self.set_aside_unreadable(unreadable, &Undone::Indexing);
        // What is new is left to the look that will find it: only mail up to the frontier is ever condemned, and a next
        // hop with ready mail beyond it would be tried again and again.
        let frontier = self.intake.frontier();
        for row in rows.iter().filter(|row| Cursor::After(row.id) <= frontier) {
            self.take_in(row);
        }
        self.intake.walk.answered(self.now.monotonic, next, self.longest_rest());
    }

    /// How long the walk may rest after each slice and still be through after half an interval.
    fn longest_rest(&self) -> Duration {
        let slices = self.queue.len().div_ceil(SLICE_LIMIT_ROWS as usize).max(1);
        self.settings.interval / 2 / u32::try_from(slices).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
