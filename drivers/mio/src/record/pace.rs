//! The times of a record: when something was last given or sent, and how long it has been quiet.

use cmail_delivery::time::{Duration, Instant};

/// When something happened last.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last_given: Instant,
    last_sent: Instant,
    /// When the last call that concerned this record ended, and whether the present one does: the time that this program
    /// needs for its own work does not count as silence.
    quiet_since: Instant,
    is_concerned: bool,
}

impl Pace {
    /// Notes that the client was given something.
    pub(super) fn note_given(&mut self, now: Instant) {
        self.last_given = now;
    }

    /// Notes that the client has sent octets.
    pub(super) fn note_sent(&mut self, now: Instant) {
        self.last_sent = now;
        self.note_concern();
    }

    /// Notes that the present call concerns the record.
    pub(super) fn note_concern(&mut self) {
        self.is_concerned = true;
    }

    /// Ends a call.
    pub(super) fn settle(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_concerned) {
            self.quiet_since = now;
        }
    }

    /// Returns when either side was last heard of, from which deadlines count.
    pub(super) fn last_sign(&self) -> Instant {
        self.last_sent.max(self.last_given)
    }

    /// Returns how long it has been quiet.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.quiet_since)
    }
}
