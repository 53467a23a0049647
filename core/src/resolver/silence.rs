//! Detects that no name server answers.
//!
//! If none does, each question costs the whole time of all attempts. So after a while only one question at a time is asked, to
//! find out whether the servers are back. All others wait, and nothing is said against their domains.

use super::sockets::TaskId;
use crate::fair_queue::FairQueue;

/// If no server has answered this many consecutive questions, all servers count as silent. Few enough that an outage is known
/// after one round of concurrent questions. Many enough for a list of domains whose own servers are dead, about which our servers
/// may be silent too, as long as other questions are answered.
pub(super) const SILENT_QUESTIONS_LIMIT: u32 = 50;

/// The length of the silence.
#[derive(Debug, Default)]
pub(super) struct Silence {
    questions: u32,
    /// True if the next question is the newest.
    takes_newest: bool,
}

impl Silence {
    /// Counts a question that no server has answered. Returns whether this makes them count as silent.
    pub(super) fn extend(&mut self) -> bool {
        self.questions = self.questions.saturating_add(1);
        self.questions == SILENT_QUESTIONS_LIMIT
    }

    /// Ends the silence, because a server has answered. Returns whether they counted as silent.
    pub(super) fn end(&mut self) -> bool {
        core::mem::take(&mut self.questions) >= SILENT_QUESTIONS_LIMIT
    }

    /// Returns whether the servers count as silent.
    pub(super) fn is_complete(&self) -> bool {
        self.questions >= SILENT_QUESTIONS_LIMIT
    }

    /// Takes the next question to ask. In a silence the oldest and the newest take turns: if only the servers of some domains are
    /// dead, and ours are silent about those, a question about any other domain ends the silence.
    pub(super) fn next(&mut self, waiting: &mut FairQueue<TaskId>) -> Option<TaskId> {
        self.takes_newest = self.is_complete() && !self.takes_newest;
        if self.takes_newest { waiting.pop_newest() } else { waiting.pop() }
    }
}
