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
const RESCAN_RETRY: Duration = Duration::from_secs(1);

/// Where the walk stands.
#[derive(Debug, Default)]
pub(super) struct Rescan {
    /// True if somebody has written since the last walk began.
    is_requested: bool,
    began: Option<Instant>,
    step: RescanStep,
}

#[derive(Clone, Copy, Debug, Default)]
enum RescanStep {
    /// No walk is under way.
    #[default]
    Idle,
    /// A slice was asked for at this time.
    Asked(Instant),
    /// The next slice is to be asked for at this time.
    Next(Cursor, Instant),
}

impl Rescan {
    /// Returns whether a slice is asked for.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.step, RescanStep::Asked(_))
    }

    /// Somebody has written: what was seen so far may have changed.
    pub(super) fn request(&mut self) {
        self.is_requested = true;
    }

    /// Returns when there is something to do, where the outbox is scanned at once in an `interval`.
    ///
    /// Somebody who writes all the time brings a walk in three quarters of each, so that the rest is left for its delays.
    fn due(&self, interval: Duration) -> Option<Instant> {
        match self.step {
            RescanStep::Idle => {
                let earliest = self.began.map_or(Instant::default(), |began| began + interval / 4 * 3);
                self.is_requested.then_some(earliest)
            }
            RescanStep::Asked(_) => None,
            RescanStep::Next(_, at) => Some(at),
        }
    }

    /// Takes the place from which a slice is to be asked for now, if one is.
    fn take_due(&mut self, now: Instant, interval: Duration) -> Option<Cursor> {
        self.due(interval).filter(|due| *due <= now)?;
        let after = match self.step {
            RescanStep::Next(after, _) => after,
            RescanStep::Idle | RescanStep::Asked(_) => {
                (self.is_requested, self.began) = (false, Some(now));
                Cursor::BeforeFirst
            }
        };
        self.step = RescanStep::Asked(now);
        Some(after)
    }

    /// A slice has come; behind it the walk goes on, unless it is over. It rests for as long as that took, so that others
    /// have the database for at least half of the time, but not for longer than `longest_pause`.
    fn answered(&mut self, now: Instant, next: Option<Cursor>, longest_pause: Duration) {
        let RescanStep::Asked(since) = self.step else { return };
        let pause = now.saturating_duration_since(since).min(longest_pause);
        self.step = next.map_or(RescanStep::Idle, |after| RescanStep::Next(after, now + pause));
    }

    fn failed(&mut self, now: Instant, after: Cursor) {
        self.step = RescanStep::Next(after, now + RESCAN_RETRY);
    }
}

impl Books {
    /// Returns when the walk has something to do.
    pub(super) fn rescan_due(&self) -> Option<Instant> {
        let may_rescan = self.mode == Mode::Daemon && self.scan.is_complete() && !self.is_draining();
        self.scan.rescan.due(self.settings.interval).filter(|_| may_rescan)
    }

    /// Looks again at a slice of what is known, if that is due.
    pub(super) fn rescan(&mut self) {
        if self.rescan_due().is_none() {
            return;
        }
        if let Some(after) = self.scan.rescan.take_due(self.now.monotonic, self.settings.interval) {
            let asked = Asked::Rescan { after, frontier: self.scan.frontier() };
            self.ask(StoreRequest::Scan { after, limit: SLICE_LIMIT_ROWS }, asked);
        }
    }

    /// A slice behind `after` cannot be had.
    pub(super) fn rescan_failed(&mut self, after: Cursor) {
        self.scan.rescan.failed(self.now.monotonic, after);
    }

    /// `frontier` is what was known when the database was asked: of what came later the answer says nothing.
    pub(super) fn rescanned(&mut self, after: Cursor, frontier: Cursor, answer: Scanned) {
        let Scanned { rows, taken, unreadable, next, data_version } = answer;
        // The database says only once that somebody has written, and has said it here.
        if self.scan.note_version(data_version) {
            self.scan_new();
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
        let frontier = self.scan.frontier();
        for row in rows.iter().filter(|row| Cursor::After(row.id) <= frontier) {
            self.index_row(row);
        }
        self.scan.rescan.answered(self.now.monotonic, next, self.longest_pause());
    }

    /// Returns how long the walk may rest after each slice and still be through after half an interval.
    fn longest_pause(&self) -> Duration {
        let slices = self.queue.len().div_ceil(SLICE_LIMIT_ROWS as usize).max(1);
        self.settings.interval / 2 / u32::try_from(slices).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
