//! An outbox in memory: an empty one for an engine that only finds something out, and one for tests.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use cmail_delivery::MemoryOutbox;
use cmail_delivery::outbox::{MailId, RequestId, StoreRequest};
use mio::{Registry, Token};

use super::{Ages, Outbox, Reply, Submitted};
use crate::reception::{Submission, SubmissionId};

/// An outbox that answers at once. It begins without mail.
#[derive(Debug, Default)]
pub(crate) struct InMemory {
    pub(super) mails: MemoryOutbox,
    replies: VecDeque<Reply>,
    /// The failures that were recorded.
    #[cfg(test)]
    pub(super) failures: Vec<String>,
}

impl Outbox for InMemory {
    fn register(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        Ok(())
    }

    fn submit(&mut self, id: RequestId, request: StoreRequest) {
        #[cfg(test)]
        if let StoreRequest::Commit(commit) = &request {
            self.failures.extend(commit.failed.iter().map(|failed| failed.text()));
        }
        self.replies.push_back((id, self.mails.answer(request)));
    }

    fn release(&mut self, ids: Vec<MailId>) {
        self.mails.release(&ids);
    }

    fn poll_reply(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    fn drain_watch(&mut self) {}

    fn take_changed(&mut self) -> bool {
        false
    }

    fn ask_ages(&mut self) {}

    fn ages(&self) -> Option<Arc<Ages>> {
        None
    }

    fn put_in(&mut self, _: SubmissionId, _: Box<Submission>, _: std::time::Instant) {}

    fn poll_submitted(&mut self) -> Option<Submitted> {
        None
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn is_alive(&self) -> bool {
        true
    }

    fn shut_down(self, _: impl FnMut(Submitted), _: impl FnMut() -> bool) -> bool {
        true
    }
}
