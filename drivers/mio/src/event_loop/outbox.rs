//! The interface between the event loop and the outbox.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use cmail_delivery::outbox::{MailId, RequestId, StoreError, StoreReply, StoreRequest};
use cmail_delivery::time::UnixTime;
use mio::{Registry, Token};

use crate::reception::{Submission, SubmissionId};
use crate::store::SubmitError;

/// An answer of the outbox, with the request that it belongs to.
pub type Reply = (RequestId, Result<StoreReply, StoreError>);

/// What has become of a message that was handed over.
pub type Submitted = (SubmissionId, Result<Vec<MailId>, SubmitError>);

/// How old the mail in the outbox is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// When the oldest mail was submitted; nothing if there is none, or it does not say.
    pub oldest: Option<UnixTime>,
    /// For each age that was asked for, in their order: the first mail that is younger. All mail after it counts as younger too.
    pub younger: Vec<MailId>,
}

/// An outbox that works in parallel with the event loop, which never waits for it. It wakes the loop by its
/// [waker](super::Kernel::waker) whenever [`poll_reply`](Self::poll_reply) or [`take_changed`](Self::take_changed) has
/// something new.
pub trait Outbox {
    /// Watches for writes to the outbox; the token becomes readable when another process may have written.
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()>;

    /// Submits a request. It is answered once.
    fn submit(&mut self, id: RequestId, request: StoreRequest);

    /// Gives up mail that is held, before anything that is submitted later.
    fn release(&mut self, ids: Vec<MailId>);

    /// Returns the next answer, if there is one.
    fn poll_reply(&mut self) -> Option<Reply>;

    /// Reads the events of the watch. Whether another process has written is found out later.
    fn drain_watch(&mut self);

    /// Returns whether another process was found to have written since the last call.
    fn take_changed(&mut self) -> bool;

    /// Asks how old the mail is. [`ages`](Self::ages) returns the answer later.
    fn ask_ages(&mut self);

    /// Returns how old the mail was when that was last found out.
    fn ages(&self) -> Option<Arc<Ages>>;

    /// Puts a message into the outbox that was handed over, whose mails count as written by another process; fails if that has not begun
    /// at `until`. [`poll_submitted`](Self::poll_submitted) returns what has become of it.
    fn put_in(&mut self, id: SubmissionId, submission: Box<Submission>, until: Instant);

    /// Returns what has become of the next message that was handed over, if that is known. Valid when there are no more answers.
    fn poll_submitted(&mut self) -> Option<Submitted>;

    /// Returns whether the outbox has ended, so that no answer comes any more. Valid when there are no more answers.
    fn has_ended(&self) -> bool;

    /// Returns whether it still works, and its present job is not stuck.
    fn is_alive(&self) -> bool;

    /// Ends the outbox after everything that was submitted is done. Tells `take` what has become of messages that were handed over. Calls
    /// `keep_waiting` several times a second to decide whether to go on waiting; returns false if it did not wait to the end.
    fn shut_down(self, take: impl FnMut(Submitted), keep_waiting: impl FnMut() -> bool) -> bool;
}
