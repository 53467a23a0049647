//! What the event loop and the thread of the database show each other besides requests and answers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::pulse::Pulse;
use crate::event_loop::Ages;

/// A board that both can read and write. Its clones are the same board.
#[derive(Clone, Debug)]
pub(super) struct Board {
    /// How many jobs the thread has not begun.
    waiting: Arc<AtomicUsize>,
    changed: Arc<AtomicBool>,
    pulse: Pulse,
    ages: Arc<Mutex<Option<Arc<Ages>>>>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self { waiting: Arc::default(), changed: Arc::default(), pulse: Pulse::new(), ages: Arc::default() }
    }

    /// Counts a job that is waited for.
    pub(super) fn add_waiting(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a job that was waited for and has begun.
    pub(super) fn end_waiting(&self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    /// Returns whether a job is waited for that has not begun.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Notes that something was written to the outbox that the dispatcher does not know.
    pub(super) fn note_change(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Returns whether a change was noted since the last call.
    pub(super) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    /// Notes that the thread begins a job.
    pub(super) fn begin_job(&self) {
        self.pulse.begin();
    }

    /// Notes that the thread has nothing to do.
    pub(super) fn rest(&self) {
        self.pulse.rest();
    }

    /// Returns how long the job that is under way has taken.
    pub(super) fn job_age(&self) -> Duration {
        self.pulse.age()
    }

    /// Shows how old the mail is.
    pub(super) fn show_ages(&self, ages: Ages) {
        *self.ages.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(ages));
    }

    /// Returns how old the mail was when the thread looked.
    pub(super) fn ages(&self) -> Option<Arc<Ages>> {
        self.ages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
