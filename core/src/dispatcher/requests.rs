//! What the database is asked, and for what.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::deliveries::{Claim, RecallReason};
use crate::io::ConnectionId;
use crate::outbox::{Cursor, MailId, RequestId, StoreError, StoreTrouble};
use crate::queue::HopId;

/// What an open request is for.
#[derive(Debug)]
pub(super) enum Asked {
    /// New rows.
    Scan,
    /// IndexEntry rows. `frontier` is what was known when they were asked for.
    Rescan { after: Cursor, frontier: Cursor },
    /// Mail for a connection.
    Claim(Claim),
    /// A piece of the data of a mail that a connection sends.
    Data { hop: HopId, connection: ConnectionId, id: MailId },
    /// Mail that is to be bounced.
    Bounce { ids: Vec<MailId>, messages: usize },
    /// Mail that is about to fail without having been claimed.
    Recall { ids: Vec<MailId>, reason: RecallReason },
    /// Verdicts.
    Commit,
}

/// The requests that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<RequestId, Asked>,
    last: u64,
    /// How often in a row something could not be done.
    failures: u32,
}

impl Requests {
    /// Takes note of a request, and gives it a name.
    pub(super) fn open(&mut self, asked: Asked) -> RequestId {
        self.last = self.last.wrapping_add(1);
        let id = RequestId(self.last);
        self.open.insert(id, asked);
        id
    }

    /// Takes back what was asked, if it is not answered yet.
    pub(super) fn close(&mut self, id: RequestId) -> Option<Asked> {
        self.open.remove(&id)
    }

    /// Returns what was asked, if it is not answered yet.
    pub(super) fn find(&self, id: RequestId) -> Option<&Asked> {
        self.open.get(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Something that was asked for has been done, so that it is worth to go on. A look is no such thing: it brings nothing nearer to
    /// its end, and is repeated however the rest fares.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Something could not be done; returns how often that was so in a row.
    pub(super) fn failed(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// Returns how many are not answered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Returns how many requests there were.
    pub(super) fn count(&self) -> u64 {
        self.last
    }

    /// Returns what is not answered.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Asked> {
        self.open.values()
    }
}

/// The error that an answer of another kind than what was asked is taken for.
pub(super) fn wrong_kind() -> StoreError {
    StoreError {
        trouble: StoreTrouble::Other,
        text: "the answer of the database is of another kind than what was asked".into(),
    }
}
