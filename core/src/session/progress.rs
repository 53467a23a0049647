//! How far the commands of an envelope are sent and answered.

/// The progress of an envelope, whose commands are numbered in the order in which they are sent.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The number of commands that are sent.
    sent: usize,
    /// The number of those that are answered.
    answered: usize,
    /// True if the commands are sent without waiting for replies.
    is_batched: bool,
    /// True if no further command is sent, because the connection is refused.
    is_cut: bool,
}

impl Progress {
    /// Returns how many commands are sent.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    /// Returns the number of the next command to send, unless none is to follow.
    pub(super) fn next(&self) -> Option<usize> {
        (!self.is_cut).then_some(self.sent)
    }

    /// Records that the next command is sent.
    pub(super) fn mark_sent(&mut self, is_batched: bool) {
        self.sent += 1;
        self.is_batched |= is_batched;
    }

    /// Returns the number of the command that is answered next, if the server owes a reply.
    pub(super) fn awaited(&self) -> Option<usize> {
        self.owes_replies().then_some(self.answered)
    }

    /// Records that the awaited command is answered.
    pub(super) fn mark_answered(&mut self) {
        debug_assert!(self.answered < self.sent, "a reply that nobody waits for");
        self.answered += 1;
    }

    /// Sends no further command from now on, or goes on.
    pub(super) fn set_cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
    }

    /// Returns whether a command is not answered.
    pub(super) fn owes_replies(&self) -> bool {
        self.answered < self.sent
    }

    /// Returns whether the server has answered anything.
    pub(super) fn is_answered(&self) -> bool {
        self.answered > 0
    }

    /// Returns whether the commands are sent without waiting for replies.
    pub(super) fn is_batched(&self) -> bool {
        self.is_batched
    }
}
