//! The open requests to the database, and what each is for.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::deliveries::{Claim, RecallReason};
use crate::address::Domain;
use crate::io::ConnectionId;
use crate::order::OrderStep;
use crate::outbox::{Claimed, Cursor, MailId, RequestId, StoreError, StoreTrouble};
use crate::queue::HopId;

/// The purpose of an open request.
#[derive(Debug)]
pub(super) enum Asked {
    /// New rows.
    Scan,
    /// Known rows. `frontier` was the end of the known mail when they were requested.
    Rescan { after: Cursor, frontier: Cursor },
    /// Mail for a connection.
    Claim(Claim),
    /// Signatures for mail that was claimed, with the answer to the claim.
    Sign(Claim, Claimed),
    /// A piece of the data of a mail that a connection sends.
    Data { hop: HopId, connection: ConnectionId, id: MailId },
    /// Mail that is to be bounced.
    Bounce { ids: Vec<MailId>, messages: usize },
    /// Mail that is about to fail without having been claimed.
    Recall { ids: Vec<MailId>, reason: RecallReason },
    /// Verdicts.
    Commit,
    /// Mail that may have arrived already, of which this is done.
    Recover,
    /// Orders that are not done.
    Orders,
    /// A step of an order.
    CarryOut(OrderStep),
    /// The policy of a domain.
    Policy(Domain),
    /// The policies that are to be fetched again.
    StalePolicies,
}

/// The requests that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<RequestId, Asked>,
    last: u64,
    /// Consecutive failures.
    failures: u32,
}

impl Requests {
    /// Records a request, and returns its id.
    pub(super) fn open(&mut self, asked: Asked) -> RequestId {
        self.last = self.last.wrapping_add(1);
        let id = RequestId(self.last);
        self.open.insert(id, asked);
        id
    }

    /// Removes and returns the purpose of a request, if it is open.
    pub(super) fn close(&mut self, id: RequestId) -> Option<Asked> {
        self.open.remove(&id)
    }

    /// Returns the purpose of a request, if it is open.
    pub(super) fn find(&self, id: RequestId) -> Option<&Asked> {
        self.open.get(&id)
    }

    /// Returns the requests for signatures.
    pub(super) fn for_signatures(&self) -> Vec<RequestId> {
        let are_signed = |(id, asked): (&RequestId, &Asked)| matches!(asked, Asked::Sign(..)).then_some(*id);
        self.open.iter().filter_map(are_signed).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether the answer to one of them will make the database hold mail.
    pub(super) fn ask_for_mail(&self) -> bool {
        self.open.values().any(|asked| match asked {
            Asked::Claim(_) | Asked::Sign(..) | Asked::Bounce { .. } | Asked::Recall { .. } => true,
            Asked::Scan
            | Asked::Rescan { .. }
            | Asked::Data { .. }
            | Asked::Commit
            | Asked::Recover
            | Asked::Orders
            | Asked::CarryOut(_)
            | Asked::Policy(_)
            | Asked::StalePolicies => false,
        })
    }

    /// Records a success, which shows that it is worth going on. A scan does not count: it brings no mail closer to its end, and
    /// is repeated in any case.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Records a failure. Returns the number of consecutive failures.
    pub(super) fn failed(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// Returns the number of open requests.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Returns the number of requests so far.
    pub(super) fn count(&self) -> u64 {
        self.last
    }

    /// Returns the open requests.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Asked> {
        self.open.values()
    }
}

/// Returns the error that stands for an answer of the wrong kind.
pub(super) fn wrong_kind() -> StoreError {
    StoreError {
        trouble: StoreTrouble::Other,
        text: "the answer of the database is of another kind than what was asked".into(),
    }
}
