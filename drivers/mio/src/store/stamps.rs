//! What mail was when it was claimed or recalled, so that what becomes of it is not recorded for another.
//!
//! Nobody locks a row while a server is waited for. Another program may change it meanwhile, or put other mail in its place, or
//! another file in the place of the database. What changes only octets behind the first [`DATA_CHUNK_OCTETS`] of the data, and not
//! how many there are, is not noticed.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash};

use bytes::BytesMut;
use cmail_delivery::outbox::{Commit, DATA_CHUNK_OCTETS, MailId, Row};
use foldhash::fast::FixedState;
use rusqlite::Connection;

use super::failures::add_own_failures;
use super::grouping;
use super::rows::{self, Found};

/// How much mail is remembered. What is given back and deleted by others is never forgotten otherwise.
const LIMIT: usize = 1 << 20;

/// What of a row is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Sender, submission, length and beginning of the data: which message it is.
    Data,
    /// Also for whom it is.
    DataAndRecipient,
    /// Also where it is to be sent.
    Everything,
}

/// What a row says, in short.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    /// Of the sender, the submission, and the length of the data.
    message: u64,
    /// Of the beginning of the data, where that was read.
    head: Option<u64>,
    recipient: u64,
    remote: u64,
}

/// Stamps of some rows.
pub(super) type StampList = Vec<(MailId, Stamp)>;

/// Of mail that was claimed, recalled, or read for a bounce, and of which nothing was recorded since: what it was, and in which version of
/// the database.
#[derive(Debug, Default)]
pub(super) struct Stamps(BTreeMap<MailId, (Stamp, i64)>);

impl Stamps {
    /// Remembers rows as they were in a version of the database.
    pub(super) fn put_all(&mut self, stamps: StampList, version: i64) {
        self.0.extend(stamps.into_iter().map(|(id, stamp)| (id, (stamp, version))));
        while self.0.len() > LIMIT {
            self.0.pop_first();
        }
    }

    /// The row as it is now, if it is not what it was: not if it is gone, nor if nothing is known of what it was. To be called
    /// within a transaction, of which this is the version. Where nobody else has written, this costs nothing.
    pub(super) fn changed(
        &self,
        connection: &Connection,
        id: MailId,
        part: Part,
        version: i64,
    ) -> rusqlite::Result<Option<Row>> {
        let Some((before, _)) = self.0.get(&id).filter(|(_, seen)| *seen != version) else { return Ok(None) };
        let Some(found) = rows::row(connection, id, DATA_CHUNK_OCTETS, &mut BytesMut::new())? else {
            return Ok(None);
        };
        let Found { mut row, submission, data } = found;
        let head = match (before.head, data) {
            (None, _) => None,
            (Some(_), Some(data)) => Some(data),
            (Some(_), None) => Some(grouping::read(connection, id, row.data_octets, 0, DATA_CHUNK_OCTETS)?),
        };
        if Stamp::of(&row, submission.as_deref(), head.as_deref()).agrees(before, part) {
            return Ok(None);
        }
        add_own_failures(connection, &mut row)?;
        Ok(Some(row))
    }

    /// Whether anything is known of what a mail was.
    pub(super) fn knows(&self, id: MailId) -> bool {
        self.0.contains_key(&id)
    }

    /// Forgets that of which something was recorded, and returns it.
    pub(super) fn take(&mut self, commit: &Commit) -> StampList {
        commit.ids().filter_map(|id| self.0.remove(&id).map(|(stamp, _)| (id, stamp))).collect()
    }
}

impl Stamp {
    /// Of a row, its `mail_submission`, and its data, or their beginning, where they were read.
    pub(super) fn of(row: &Row, submission: Option<&[u8]>, data: Option<&[u8]>) -> Self {
        Self {
            message: digest(&(&row.sender, submission, row.data_octets)),
            head: data.map(|data| digest(&data.get(..DATA_CHUNK_OCTETS).unwrap_or(data))),
            recipient: digest(&row.recipient),
            remote: digest(&row.remote),
        }
    }

    fn agrees(&self, other: &Self, part: Part) -> bool {
        let has_recipient = part != Part::Data;
        let has_remote = part == Part::Everything;
        (self.message, self.head) == (other.message, other.head)
            && (!has_recipient || self.recipient == other.recipient)
            && (!has_remote || self.remote == other.remote)
    }
}

/// Nobody has to be kept from finding two values with equal digests: who may write to the outbox may do so without.
pub(super) fn digest(value: &impl Hash) -> u64 {
    FixedState::default().hash_one(value)
}
