//! What is observed between two actions, as lines of a transcript.

use std::time::Duration;

use cmail_delivery::outbox::{Commit, MailId};

use super::parser::span_text;
use crate::facts::Origin;

/// The lines since the last action.
#[derive(Debug, Default)]
pub(super) struct Observed {
    lines: Vec<String>,
}

impl Observed {
    pub(super) fn push(&mut self, line: String) {
        self.lines.push(line);
    }

    pub(super) fn extend(&mut self, lines: impl IntoIterator<Item = String>) {
        self.lines.extend(lines);
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Notes that the lines from this position on come after so much time, if there are any: most deadlines change nothing, and are
    /// not shown.
    pub(super) fn note_time(&mut self, position: usize, passed: Duration) {
        if self.lines.len() > position {
            self.lines.insert(position, format!("? {}", span_text(passed)));
        }
    }

    /// Notes what a commit records.
    pub(super) fn note_commit(&mut self, commit: &Commit) {
        self.extend(commit.delivered.iter().map(|mail| format!("= {} deleted", mail.id)));
        for failed in &commit.failed {
            let kind = if failed.attempt.is_fatal() { "failed" } else { "deferred" };
            self.push(format!("= {} {kind} \"{}\"", failed.id, failed.text().escape_debug()));
        }
        for replacement in &commit.replaced {
            let kind = if replacement.bounce.is_some() { "bounced" } else { "dropped" };
            self.extend(replacement.originals.iter().map(|id| format!("= {id} {kind}")));
        }
    }

    /// Notes mail that a commit has inserted.
    pub(super) fn note_inserted(&mut self, id: MailId, origin: Origin) {
        if let Origin::ReportOf(original) = origin {
            self.push(format!("= {id} tells that {original} was delivered"));
        }
    }
}
