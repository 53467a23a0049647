//! Whether there is any name server that answers.
//!
//! Where none does, each question costs the whole time of all attempts. So after a while of that one question at a time
//! finds out whether they are back. All others wait, and nothing is said against their domains.

use super::sockets::TaskId;
use crate::fair_queue::FairQueue;

/// After so many questions in a row to which no server has said anything, all servers count as silent. Few enough that an
/// outage is known after one round of concurrent questions, and many enough that a list of domains whose own servers are
/// dead, of which a server may say nothing either, does not look like one as long as others are answered.
pub(super) const SILENT_QUESTIONS_LIMIT: u32 = 50;

/// How long the servers have been silent.
#[derive(Debug, Default)]
pub(super) struct Silence {
    questions: u32,
    /// True if the next question is the one that has come last.
    takes_newest: bool,
}

impl Silence {
    /// A question has ended without a word from any server. Returns whether that makes them count as silent.
    pub(super) fn extend(&mut self) -> bool {
        self.questions = self.questions.saturating_add(1);
        self.questions == SILENT_QUESTIONS_LIMIT
    }

    /// A server has answered. Returns whether they counted as silent.
    pub(super) fn end(&mut self) -> bool {
        core::mem::take(&mut self.questions) >= SILENT_QUESTIONS_LIMIT
    }

    /// Returns whether the servers count as silent.
    pub(super) fn is_complete(&self) -> bool {
        self.questions >= SILENT_QUESTIONS_LIMIT
    }

    /// Takes the question that is to be asked next. In a silence the oldest and the newest take turns: if only the servers of
    /// some domains are dead, and ours say nothing of that, a question about any other domain ends the silence.
    pub(super) fn next(&mut self, waiting: &mut FairQueue<TaskId>) -> Option<TaskId> {
        self.takes_newest = self.is_complete() && !self.takes_newest;
        if self.takes_newest { waiting.pop_newest() } else { waiting.pop() }
    }
}
