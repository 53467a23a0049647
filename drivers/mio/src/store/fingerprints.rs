//! Fingerprints of rows when they were read, so that no outcome is recorded for a row that has become another mail.
//!
//! Rows are not locked while a server is waited for. Another program may change a row meanwhile, replace it by another mail,
//! or replace the database. A change is not noticed if it keeps the length of the data and its first [`DATA_CHUNK_OCTETS`].

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash};

use bytes::BytesMut;
use cmail_delivery::outbox::{Commit, DATA_CHUNK_OCTETS, MailId, Row};
use cmail_delivery::time::UnixTime;
use foldhash::fast::FixedState;
use rusqlite::Connection;

use super::blob;
use super::failures::add_own_failures;
use super::rows::{self, Found};

/// Which part of a row is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// The message: sender, submission, length and beginning of the data.
    Message,
    /// Also the recipient.
    MessageAndRecipient,
    /// Also the remote.
    WholeRow,
}

/// The fingerprint of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fingerprint {
    /// The hash of the sender, the submission, and the length of the data.
    message: u64,
    /// The hash of the beginning of the data, if that was read.
    head: Option<u64>,
    recipient: u64,
    remote: u64,
    submission: UnixTime,
}

/// Fingerprints of some rows.
pub(super) type FingerprintList = Vec<(MailId, Fingerprint)>;

/// The fingerprints of mail that was claimed, recalled, or read for a bounce, as long as it is held, each with the version of the
/// database. There are as many as the program works on.
#[derive(Debug, Default)]
pub(super) struct Fingerprints(BTreeMap<MailId, (Fingerprint, i64)>);

impl Fingerprints {
    /// Remembers rows as they were in a version of the database.
    pub(super) fn put_all(&mut self, fingerprints: FingerprintList, version: i64) {
        self.0.extend(fingerprints.into_iter().map(|(id, fingerprint)| (id, (fingerprint, version))));
    }

    /// Returns the present row, if it has changed; `None` also if it is gone, or has no fingerprint. To be called within a
    /// transaction on this version of the database. Costs nothing if no other program has written.
    pub(super) fn changed(
        &self,
        connection: &Connection,
        id: MailId,
        part: Compared,
        version: i64,
    ) -> rusqlite::Result<Option<Row>> {
        let Some((before, _)) = self.0.get(&id).filter(|(_, seen)| *seen != version) else { return Ok(None) };
        let Some(found) = rows::row(connection, id, DATA_CHUNK_OCTETS, &mut BytesMut::new())? else {
            return Ok(None);
        };
        let Found { mut row, submission, data, .. } = found;
        let head = match (before.head, data) {
            (None, _) => None,
            (Some(_), Some(data)) => Some(data),
            (Some(_), None) => Some(blob::read(connection, id, row.data_octets, 0, DATA_CHUNK_OCTETS)?),
        };
        if Fingerprint::of(&row, submission.as_deref(), head.as_deref()).agrees(before, part) {
            return Ok(None);
        }
        add_own_failures(connection, &mut row)?;
        Ok(Some(row))
    }

    /// Returns when a mail was submitted, as it was read.
    pub(super) fn submission(&self, id: MailId) -> Option<UnixTime> {
        self.0.get(&id).map(|(fingerprint, _)| fingerprint.submission)
    }

    /// Returns whether there is a fingerprint of a mail.
    pub(super) fn knows(&self, id: MailId) -> bool {
        self.0.contains_key(&id)
    }

    /// Forgets mail that is not held any more.
    pub(super) fn forget(&mut self, ids: impl IntoIterator<Item = MailId>) {
        for id in ids {
            self.0.remove(&id);
        }
    }

    /// Removes and returns the fingerprints of mail whose outcome was recorded.
    pub(super) fn take(&mut self, commit: &Commit) -> FingerprintList {
        commit.ids().filter_map(|id| self.0.remove(&id).map(|(fingerprint, _)| (id, fingerprint))).collect()
    }
}

impl Fingerprint {
    /// Returns the fingerprint of a row, its `mail_submission`, and its data or their beginning, if they were read.
    pub(super) fn of(row: &Row, submission: Option<&[u8]>, data: Option<&[u8]>) -> Self {
        Self {
            message: digest(&(&row.sender, submission, row.data_octets)),
            head: data.map(|data| digest(&data.get(..DATA_CHUNK_OCTETS).unwrap_or(data))),
            recipient: digest(&row.recipient),
            remote: digest(&row.remote),
            submission: row.submission,
        }
    }

    /// Returns whether another one is of the same message.
    pub(super) fn is_of_same_message(&self, other: &Self) -> bool {
        self.agrees(other, Compared::Message)
    }

    fn agrees(&self, other: &Self, part: Compared) -> bool {
        let has_recipient = part != Compared::Message;
        let has_remote = part == Compared::WholeRow;
        (self.message, self.head) == (other.message, other.head)
            && (!has_recipient || self.recipient == other.recipient)
            && (!has_remote || self.remote == other.remote)
    }
}

/// Hashes a value. The hash need not be cryptographic: a program that may write to the outbox needs no collisions to do harm.
pub(super) fn digest(value: &impl Hash) -> u64 {
    FixedState::default().hash_one(value)
}
