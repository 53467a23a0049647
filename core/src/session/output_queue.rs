//! The outputs of a session for its parent, of which the end is the last.

use alloc::collections::VecDeque;

use super::types::{Outcome, SessionOutput, Transaction};

/// The outputs that are not yet taken.
#[derive(Default)]
pub(super) struct OutputQueue {
    outputs: VecDeque<SessionOutput>,
    /// True if the end has been taken.
    is_silent: bool,
}

impl OutputQueue {
    pub(super) fn push(&mut self, output: SessionOutput) {
        self.outputs.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<SessionOutput> {
        let output = self.outputs.pop_front();
        self.is_silent |= matches!(output, Some(SessionOutput::Ended(_)));
        output
    }

    /// Gives back a transaction that cannot begin, before the end if that is not yet taken.
    pub(super) fn hand_back(&mut self, transaction: Transaction) {
        if self.is_silent {
            return;
        }
        let undecided = transaction.recipients.into_iter().map(|recipient| (recipient, Outcome::Undecided));
        let verdicts = SessionOutput::Verdicts(undecided.collect());
        let is_ended = matches!(self.outputs.back(), Some(SessionOutput::Ended(_)));
        let end = if is_ended { self.outputs.pop_back() } else { None };
        self.outputs.push_back(verdicts);
        self.outputs.extend(end);
    }
}
