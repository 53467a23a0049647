//! Mail that is given up, and what takes its place.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{FailedMessage, MailId};
use crate::rng::Seed;
use crate::tally::Fate;
use crate::time::UnixTime;

/// Mail to delete in the transaction that inserts its bounce, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The rows to delete. If one of them is gone meanwhile, nothing of this replacement is done.
    pub originals: Vec<MailId>,
    /// Those of them that have reached the age of a line of the configuration, each with the line.
    pub expired: Vec<(MailId, u32)>,
    /// The bounce.
    pub bounce: Option<NewBounce>,
}

impl Replacement {
    /// Returns the line of the configuration whose age an original has reached, if that is why it is given up.
    pub fn expired(&self, id: MailId) -> Option<u32> {
        self.expired.iter().find(|(expired, _)| *expired == id).map(|(_, line)| *line)
    }

    /// Returns what becomes of an original.
    pub fn fate(&self, id: MailId) -> Fate {
        match (self.expired(id), &self.bounce) {
            (Some(_), _) => Fate::Expired,
            (None, Some(_)) => Fate::Bounced,
            (None, None) => Fate::Dropped,
        }
    }
}

/// A bounce to insert, with null sender and `mail_remote` NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBounce {
    /// The recipients: one row for each.
    pub recipients: Vec<Bytes>,
    /// The contents of `mail_data` of all these rows.
    pub order: BounceOrder,
}

/// The contents of a bounce. The thread of the database calls [`bounce::compose_ordered`](crate::bounce::compose_ordered) with
/// it, because composing takes longer the larger the original is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BounceOrder {
    /// The name of this host.
    pub announce: Arc<str>,
    /// The address in From.
    pub bounce_from: Arc<str>,
    /// The largest original that is returned whole, in octets.
    pub return_limit_octets: u64,
    /// The message that has failed: at least one mail, and all with a sender.
    pub message: FailedMessage,
    /// When it was given up.
    pub now: UnixTime,
    /// The source of all randomness in it.
    pub seed: Seed,
}
