//! Mail whose next hop has failed as a whole: no server of it could be reached, or it leads nowhere.
//!
//! Nobody has claimed it, so that it is read once more before a failure is recorded: another program may have sent it elsewhere
//! meanwhile, or put other mail in its place.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;

use super::intake::destination;
use super::set_aside::Undone;
use super::{Asked, Dispatcher};
use crate::delivery::Failure;
use crate::event::Level;
use crate::outbox::{Cursor, MailId, Row, StoreError, StoreReply, StoreRequest};
use crate::queue::{HopId, Place};
use crate::schedule::Standing;
use crate::shown::shortened_octets;
use crate::time::{Duration, Instant};

/// So many mails in a row that ended every connection put the blame on themselves; with the next it is on the next hop.
const SUSPICION_LIMIT: u32 = 3;
/// How much mail of a next hop that has failed as a whole is recorded at once.
const CONDEMN_LIMIT: usize = 1000;
/// How soon it is read again after the database has failed.
const RECALL_RETRY: Duration = Duration::from_secs(1);

/// Mail that has failed as a whole.
#[derive(Debug)]
pub(super) struct Condemned {
    pub(super) failure: Failure,
    /// Where the mail ends that is concerned.
    pub(super) end: Cursor,
    /// Whether it is only about mail that was tried; not known before all mail of the pass is back.
    pub(super) only_tried: Option<bool>,
}

/// Whether mail that has failed as a whole is being read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Recall {
    /// Nothing is to be read, or it may be asked for.
    #[default]
    Idle,
    /// The database is asked.
    Asked,
    /// The database has failed, and is asked again at this time.
    Again(Instant),
}

impl Dispatcher {
    /// Records the failure of mail whose next hop has failed as a whole, a part of it at a time.
    ///
    /// Where a connection ended in the middle of a mail, the mail may be to blame: then only what was tried has failed,
    /// and the rest begins a pass of its own. But a next hop that ends every connection is not asked for each mail.
    pub(super) fn condemn(&mut self) {
        if self.next_recall().is_some_and(|at| at <= self.now.monotonic) {
            self.traffic.recall = Recall::Idle;
        }
        while matches!(self.traffic.recall, Recall::Idle)
            && self.ledger.pending_count() < CONDEMN_LIMIT
            && !self.ledger.is_congested()
        {
            let claims = &self.traffic.claims;
            let next = self.traffic.condemned.iter_mut().find(|(hop, _)| !claims.contains_key(*hop));
            let Some((&hop, condemned)) = next else { return };
            let only_tried = *condemned.only_tried.get_or_insert_with(|| {
                let suspicion = self.traffic.suspicions.entry(hop).or_default();
                *suspicion += 1;
                *suspicion <= SUSPICION_LIMIT && self.queue.is_partly_tried(hop)
            });
            let failure = condemned.failure.clone();
            let ids = if only_tried {
                self.queue.claim_tried(hop, CONDEMN_LIMIT)
            } else {
                self.traffic.suspicions.remove(&hop);
                self.queue.claim_up_to(hop, condemned.end, CONDEMN_LIMIT)
            };
            if ids.is_empty() {
                self.traffic.condemned.remove(&hop);
                self.traffic.runnable.insert(hop);
                continue;
            }
            self.traffic.recall = Recall::Asked;
            self.ask(StoreRequest::Recall { ids: ids.clone() }, Asked::Condemned { hop, ids, failure });
        }
    }

    /// When the database is to be asked again.
    pub(super) fn next_recall(&self) -> Option<Instant> {
        match self.traffic.recall {
            Recall::Again(at) if !self.is_draining() => Some(at),
            Recall::Again(_) | Recall::Idle | Recall::Asked => None,
        }
    }

    /// Mail is about to have failed as a whole, and this is what it is now.
    pub(super) fn recalled(
        &mut self,
        hop: HopId,
        ids: &[MailId],
        failure: &Failure,
        result: Result<StoreReply, StoreError>,
    ) {
        self.traffic.recall = Recall::Idle;
        let (rows, unreadable) = match result {
            Ok(StoreReply::Recalled { rows, unreadable }) => (rows, unreadable),
            Ok(_) => return,
            Err(error) => {
                self.note(Level::Error, format!("cannot read mail that has failed, trying again: {error}"));
                self.traffic.recall = Recall::Again(self.now.monotonic + RECALL_RETRY);
                for &id in ids {
                    self.put(id, Place::ReadyAgain);
                }
                return;
            }
        };
        let found: BTreeSet<MailId> =
            rows.iter().map(|row| row.id).chain(unreadable.iter().map(|refused| refused.id)).collect();
        for &id in ids {
            if !found.contains(&id) {
                self.forget(id);
            }
        }
        self.set_aside_unreadable(unreadable, &Undone::Reading);
        let next_hop: Option<Box<str>> =
            self.queue.next_hop(hop).map(|next_hop| format!("{next_hop}").into());
        for row in rows {
            if self.is_as_scheduled(hop, &row) {
                // An order that is no longer needed does not make the attempt early.
                if self.standing_of(&row) == Standing::Due {
                    self.attempts.end_order(row.id);
                }
                let recipient = shortened_octets(&row.recipient).into();
                self.record_failure(row.id, recipient, next_hop.clone(), failure);
            } else {
                self.settle(&row);
            }
        }
    }

    /// Whether a row is still the mail of this next hop for which an attempt was made. It was due then: that it is not now, because
    /// the clock was set, changes nothing.
    fn is_as_scheduled(&self, hop: HopId, row: &Row) -> bool {
        let key = self.queue.find(row.id).map(|known| known.key);
        key == Some(self.intake.message_key(row))
            && destination(row).ok().as_ref() == self.queue.next_hop(hop)
            && self.standing_of(row) != Standing::GivenUp
    }
}
