//! Mail that fails without having been claimed, because its next hop has failed as a whole or because it is unroutable.
//!
//! It is read once more, without its data, before a failure is recorded: another program may have redirected it meanwhile, or
//! replaced it.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Deliveries;
use crate::attempt::Failure;
use crate::delivery::PassFailure;
use crate::dispatcher::books::Books;
use crate::dispatcher::requests::Asked;
use crate::dispatcher::set_aside::Undone;
use crate::event::Level;
use crate::outbox::{Cursor, MailId, Refused, Row, StoreError, StoreRequest};
use crate::queue::{HopId, QueueState};
use crate::schedule::RetryState;
use crate::shown::ShownAddress;
use crate::time::{Duration, Instant};

/// Most mails that one recall reads.
const RECALL_LIMIT: usize = 1000;
/// Delay before a recall is repeated after the database has failed.
const RECALL_RETRY: Duration = Duration::from_secs(1);

/// The reason why mail fails that was not claimed.
#[derive(Clone, Debug)]
pub(in crate::dispatcher) enum RecallReason {
    /// Its next hop has failed as a whole, with this failure.
    Exhausted(HopId, PassFailure),
    /// It leads nowhere. Each row shows why.
    Unroutable,
}

/// The recall of mail that fails without having been claimed, one request at a time.
#[derive(Debug, Default)]
pub(super) struct Recall {
    state: RecallState,
    /// True if the next one is of unroutable mail, and not of an exhausted pass. They take turns.
    unroutable_is_next: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum RecallState {
    /// No recall is under way.
    #[default]
    Idle,
    /// The database has been asked.
    Asked,
    /// The database has failed, and is asked again at this time.
    Again(Instant),
}

impl Recall {
    /// Returns whether nothing is asked, or to be asked again.
    pub(super) fn is_idle(&self) -> bool {
        self.state == RecallState::Idle
    }

    /// Returns whether the database has been asked.
    pub(super) fn is_asked(&self) -> bool {
        self.state == RecallState::Asked
    }

    /// Returns when to ask again, if the database has failed.
    fn again_at(&self) -> Option<Instant> {
        if let RecallState::Again(at) = self.state { Some(at) } else { None }
    }

    /// Records that the database is asked for mail that fails for this reason.
    fn begin(&mut self, reason: &RecallReason) {
        self.state = RecallState::Asked;
        self.unroutable_is_next = !matches!(reason, RecallReason::Unroutable);
    }

    /// Asks again a while after the database has failed.
    fn retry_after(&mut self, now: Instant) {
        self.state = RecallState::Again(now + RECALL_RETRY);
    }

    fn end(&mut self) {
        self.state = RecallState::Idle;
    }
}

impl Deliveries {
    /// Requests mail that fails without having been claimed, a portion at a time. Returns whether an exhausted pass is complete.
    pub(in crate::dispatcher) fn recall(&mut self, books: &mut Books) -> bool {
        if self.next_recall(books).is_some_and(|at| at <= books.now.monotonic) {
            self.recall.end();
        }
        if !self.recall.is_idle()
            || books.commits.pending_count() >= RECALL_LIMIT
            || books.commits.is_congested()
        {
            return false;
        }
        let claimed = if self.recall.unroutable_is_next {
            claim_unroutable(books).or_else(|| self.claim_exhausted(books))
        } else {
            self.claim_exhausted(books).or_else(|| claim_unroutable(books))
        };
        if let Some((ids, reason)) = claimed {
            self.recall.begin(&reason);
            books.ask(StoreRequest::Recall { ids: ids.clone() }, Asked::Recall { ids, reason });
        }
        // Destinations with no mail left to recall proceed.
        self.drain_deliveries(books)
    }

    /// Claims mail of a next hop that has failed as a whole.
    ///
    /// If a connection ended in the middle of a mail, that mail may be the cause: then only the mail that was tried has failed,
    /// and the rest begins a pass of its own. But a next hop that ends every connection is not tried for each mail.
    fn claim_exhausted(&mut self, books: &mut Books) -> Option<(Vec<MailId>, RecallReason)> {
        while let Some(hop) = self.destinations.first_exhausted() {
            let is_partly_tried = books.queue.is_partly_tried(hop);
            let (exhausted, only_tried) = self.destinations.exhausted(hop, is_partly_tried)?;
            let ids = if only_tried {
                books.queue.claim_tried(hop, RECALL_LIMIT)
            } else {
                books.queue.claim_up_to(hop, exhausted.end, RECALL_LIMIT)
            };
            if !ids.is_empty() {
                return Some((ids, RecallReason::Exhausted(hop, exhausted.failure.clone())));
            }
            self.destinations.end_exhausted(hop);
        }
        None
    }

    /// Returns when the recall is to be repeated.
    pub(in crate::dispatcher) fn next_recall(&self, books: &Books) -> Option<Instant> {
        self.recall.again_at().filter(|_| !books.is_draining())
    }

    pub(in crate::dispatcher) fn recall_failed(
        &mut self,
        books: &mut Books,
        ids: &[MailId],
        reason: &RecallReason,
        error: &StoreError,
    ) {
        books.note(Level::Error, format!("cannot read mail that has failed, trying again: {error}"));
        self.recall.retry_after(books.now.monotonic);
        let state = match reason {
            RecallReason::Exhausted(..) => QueueState::ReadyAgain,
            RecallReason::Unroutable => QueueState::Ready,
        };
        for &id in ids {
            books.requeue(id, state);
        }
    }

    /// Records the failure of recalled mail, unless it has changed.
    pub(in crate::dispatcher) fn recalled(
        &mut self,
        books: &mut Books,
        ids: &[MailId],
        reason: &RecallReason,
        rows: Vec<Row>,
        unreadable: Vec<Refused>,
    ) {
        self.recall.end();
        let found: BTreeSet<MailId> =
            rows.iter().map(|row| row.id).chain(unreadable.iter().map(|refused| refused.id)).collect();
        for &id in ids {
            if !found.contains(&id) {
                books.forget(id);
            }
        }
        books.set_aside_unreadable(unreadable, &Undone::Reading);
        let (next_hop, course): (Option<Box<str>>, _) = match reason {
            RecallReason::Exhausted(hop, failure) => {
                let next_hop = books.queue.next_hop(*hop);
                (next_hop.map(|next_hop| format!("{next_hop}").into()), failure.course.clone())
            }
            RecallReason::Unroutable => (None, None),
        };
        for row in rows {
            match books.failure_of(&row, reason) {
                Some(failure) => {
                    let recipient = ShownAddress::new(&String::from_utf8_lossy(&row.recipient));
                    books.record_failure(row.id, recipient, next_hop.clone(), course.clone(), failure);
                }
                None => books.reindex_row(&row),
            }
        }
    }
}

/// Claims unroutable mail.
fn claim_unroutable(books: &mut Books) -> Option<(Vec<MailId>, RecallReason)> {
    let ids = books.queue.claim_up_to(HopId::UNROUTABLE, Cursor::After(MailId(i64::MAX)), RECALL_LIMIT);
    (!ids.is_empty()).then_some((ids, RecallReason::Unroutable))
}

impl Books {
    /// Returns the failure to record for a row, if the reason still applies to it.
    fn failure_of(&mut self, row: &Row, reason: &RecallReason) -> Option<Failure> {
        match reason {
            RecallReason::Exhausted(hop, failure) => {
                self.is_as_scheduled(*hop, row).then(|| {
                    // An order that is no longer needed does not make the attempt early.
                    if self.retry_state_of(row) == RetryState::Due {
                        self.attempts.end_order(row.id);
                    }
                    failure.failure.clone()
                })
            }
            RecallReason::Unroutable => self.envelope_of(row).err().filter(|_| self.admit_claimed(row)),
        }
    }

    /// Returns whether a row is still the mail of this next hop that was tried. It was due then. If it is not due now, because
    /// the clock was set or the rules are others, that changes nothing.
    fn is_as_scheduled(&self, hop: HopId, row: &Row) -> bool {
        let look = self.scan.message_key(row);
        self.queue.find(row.id).is_some_and(|known| known.key.may_look_like(look))
            && self.envelope_of(row).ok().map(|envelope| envelope.next_hop).as_ref()
                == self.queue.next_hop(hop)
            && matches!(self.retry_state_of(row), RetryState::Due | RetryState::NotBefore(_))
    }
}
