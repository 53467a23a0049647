//! An outbox that is empty, for an engine that only finds something out.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use cmail_delivery::MemoryOutbox;
use cmail_delivery::outbox::{MailId, RequestId, StoreRequest};
use mio::{Registry, Token};

use super::{Ages, Outbox, Reply};

/// An outbox without mail. It answers at once.
#[derive(Debug, Default)]
pub(crate) struct NoOutbox {
    memory: MemoryOutbox,
    replies: VecDeque<Reply>,
}

impl Outbox for NoOutbox {
    fn register(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        Ok(())
    }

    fn submit(&mut self, id: RequestId, request: StoreRequest) {
        self.replies.push_back((id, self.memory.answer(request)));
    }

    fn release(&mut self, ids: Vec<MailId>) {
        self.memory.release(&ids);
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

    fn has_ended(&self) -> bool {
        false
    }

    fn is_alive(&self) -> bool {
        true
    }

    fn shut_down(self, _: impl FnMut() -> bool) -> bool {
        true
    }
}
