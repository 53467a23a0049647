//! The rescan of known rows. It finds what other programs have changed or deleted.
//!
//! It begins when the database reports that another program has written, and reads the outbox slice by slice. A change is found
//! within one interval: its place is read again no later than that.

use alloc::collections::BTreeSet;

use super::books::Books;
use super::requests::Asked;
use super::set_aside::Undone;
use crate::outbox::{Cursor, MailId, Scanned, StoreRequest};
use crate::time::{Duration, Instant};

/// Most rows of a slice. Claims and commits come in between, and wait for one at most: about 5 ms.
const SLICE_LIMIT_ROWS: u32 = 2048;
/// Delay before a slice is requested again after the database has failed.
const RESCAN_RETRY: Duration = Duration::from_secs(1);

/// The progress of the rescan.
#[derive(Debug, Default)]
pub(super) struct Rescan {
    /// True if another program has written since the last rescan began.
    is_requested: bool,
    began: Option<Instant>,
    step: RescanStep,
}

#[derive(Clone, Copy, Debug, Default)]
enum RescanStep {
    /// No rescan is under way.
    #[default]
    Idle,
    /// A slice was requested at this time.
    Asked(Instant),
    /// The next slice is to be requested at this time.
    Next(Cursor, Instant),
}

impl Rescan {
    /// Returns whether a slice is requested.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.step, RescanStep::Asked(_))
    }

    /// Returns whether some of the outbox is still to be read again.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.step, RescanStep::Idle)
    }

    /// Requests a rescan: another program has written, so rows that were read may have changed.
    pub(super) fn request(&mut self) {
        self.is_requested = true;
    }

    /// Returns when the next step is due. New rows are scanned for once in an `interval`.
    ///
    /// If other programs write all the time, a rescan begins every three quarters of an interval; the last quarter is left for
    /// its delays.
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

    /// Takes the cursor from which a slice is to be requested now.
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

    /// Schedules the next slice, unless the rescan is complete. It pauses for as long as the slice took, so that others have the
    /// database for at least half of the time, but not for longer than `longest_pause`.
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
    /// Returns when the rescan has something to do.
    pub(super) fn rescan_due(&self) -> Option<Instant> {
        let may_rescan = self.run.is_daemon() && self.scan.is_complete() && !self.is_draining();
        self.scan.rescan.due(self.config.settings.interval).filter(|_| may_rescan)
    }

    /// Requests a slice of the known rows, if one is due.
    pub(super) fn rescan(&mut self) {
        if self.rescan_due().is_none() {
            return;
        }
        if let Some(after) = self.scan.rescan.take_due(self.now.monotonic, self.config.settings.interval) {
            let asked = Asked::Rescan { after, frontier: self.scan.frontier() };
            self.ask(StoreRequest::Scan { after, limit: SLICE_LIMIT_ROWS }, asked);
        }
    }

    /// Schedules a slice again that the database could not read.
    pub(super) fn rescan_failed(&mut self, after: Cursor) {
        self.scan.rescan.failed(self.now.monotonic, after);
    }

    /// Indexes a slice. `frontier` was the end of the known mail when the slice was requested: about later mail it says nothing.
    pub(super) fn rescanned(&mut self, after: Cursor, frontier: Cursor, answer: Scanned) {
        let Scanned { rows, taken, unreadable, next, data_version } = answer;
        // The database reports only once that another program has written, and has reported it here.
        if self.scan.note_version(data_version) {
            self.scan_new();
        }
        let last = next.unwrap_or(frontier);
        let mut found: BTreeSet<MailId> = rows.iter().map(|row| row.id).collect();
        found.extend(&taken);
        // Where a row cannot be read, it is not known which rows are gone.
        if unreadable.is_empty() {
            for id in self.queue.unclaimed_between(after, last) {
                if !found.contains(&id) {
                    self.forget(id);
                }
            }
        }
        taken.into_iter().for_each(|id| self.set_aside_taken(id));
        self.set_aside_unreadable(unreadable, &Undone::Indexing);
        for row in &rows {
            self.index_row(row);
        }
        self.scan.rescan.answered(self.now.monotonic, next, self.longest_pause());
    }

    /// Returns how long the rescan may pause after each slice to be complete within half an interval.
    fn longest_pause(&self) -> Duration {
        let slices = self.queue.len().div_ceil(SLICE_LIMIT_ROWS as usize).max(1);
        self.config.settings.interval / 2 / u32::try_from(slices).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
