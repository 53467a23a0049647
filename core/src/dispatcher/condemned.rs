//! Mail whose next hop has failed as a whole: no server of it could be reached, or it leads nowhere.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Asked, Dispatcher};
use crate::delivery::Failure;
use crate::outbox::{Cursor, MailId, StoreError, StoreReply, StoreRequest};
use crate::queue::HopId;
use crate::shown::shortened_octets;

/// So many mails in a row that ended every connection put the blame on themselves; with the next it is on the next hop.
const SUSPICION_LIMIT: u32 = 3;
/// How much mail of a next hop that has failed as a whole is recorded at once.
const CONDEMN_LIMIT: usize = 1000;

/// Mail that has failed as a whole.
#[derive(Debug)]
pub(super) struct Condemned {
    pub(super) failure: Failure,
    /// Where the mail ends that is concerned.
    pub(super) end: Cursor,
    /// Whether it is only about mail that was tried; not known before all mail of the pass is back.
    pub(super) only_tried: Option<bool>,
}

impl Dispatcher {
    /// Records the failure of mail whose next hop has failed as a whole, a part of it at a time.
    ///
    /// Where a connection ended in the middle of a mail, the mail may be to blame: then only what was tried has failed,
    /// and the rest begins a pass of its own. But a next hop that ends every connection is not asked for each mail.
    pub(super) fn condemn(&mut self) {
        while !self.traffic.is_condemning
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
            // Whose mail it is stands in the database alone.
            self.traffic.is_condemning = true;
            self.ask(StoreRequest::Recipients { ids: ids.clone() }, Asked::Condemned { hop, ids, failure });
        }
    }

    /// Mail has failed as a whole, and it is known whose it is, unless the database is in trouble.
    pub(super) fn condemned_read(
        &mut self,
        hop: HopId,
        ids: &[MailId],
        failure: &Failure,
        result: Result<StoreReply, StoreError>,
    ) {
        self.traffic.is_condemning = false;
        let found = if let Ok(StoreReply::Recipients(found)) = result { found } else { Vec::new() };
        let recipients: BTreeMap<MailId, Bytes> = found.into_iter().collect();
        let next_hop: Option<Box<str>> =
            self.queue.next_hop(hop).map(|next_hop| format!("{next_hop}").into());
        for &id in ids {
            let recipient = recipients.get(&id).map(|recipient| shortened_octets(recipient).into());
            self.record_failure(id, recipient, next_hop.clone(), failure);
        }
    }
}
