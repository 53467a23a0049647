//! The outbox as the event loop sees it.

use std::io;

use cmail_delivery::outbox::{RequestId, StoreError, StoreReply, StoreRequest};
use mio::{Registry, Token};

/// An answer of the outbox, and to what.
pub type Reply = (RequestId, Result<StoreReply, StoreError>);

/// An outbox that works beside the event loop, which never waits for it. It wakes the loop by its
/// [waker](super::Kernel::waker) whenever [`poll_reply`](Self::poll_reply) or [`take_changed`](Self::take_changed) has
/// something new to say.
pub trait Outbox {
    /// Watches for somebody who writes to it; the token is readable when somebody may have.
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()>;

    /// Hands over a request. It is answered once.
    fn submit(&mut self, id: RequestId, request: StoreRequest);

    /// Takes the next answer, if there is one.
    fn poll_reply(&mut self) -> Option<Reply>;

    /// Takes in what was seen by the watch. Whether another process has written is found out later.
    fn take_in_touch(&mut self);

    /// Whether another process was found to have written since this was asked last.
    fn take_changed(&mut self) -> bool;

    /// Whether nobody answers any more. Asked when there are no more answers.
    fn has_ended(&self) -> bool;

    /// Ends it when everything that was submitted is done. `wait_on` is asked several times a second whether to wait for
    /// that; false if it was not waited for.
    fn shut_down(self, wait_on: impl FnMut() -> bool) -> bool;
}
