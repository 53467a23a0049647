//! Digests of large messages, by which they are compared: what was read once for that is not read again, as long as nobody
//! else writes to the database.

use std::collections::BTreeMap;

use cmail_delivery::outbox::{DATA_CHUNK_OCTETS, MailId};
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

use super::grouping::open_data;
use super::pool::Pool;

/// How many are kept: 64 octets each, with their keys.
const LIMIT: usize = 1 << 16;

/// Nobody finds two messages that have equal ones, not even who writes both.
pub(super) type Digest = [u8; 32];

/// What is known of the messages in one version of the database.
#[derive(Debug, Default)]
pub(super) struct Digests {
    version: Option<i64>,
    known: BTreeMap<MailId, Digest>,
    /// Whether digests were lost since somebody waited for them last.
    are_lost: bool,
}

impl Digests {
    /// Goes over to a version: whatever is known of another one is forgotten.
    pub(super) fn turn_to(&mut self, version: i64) {
        if self.version.replace(version).is_some_and(|known| known != version) {
            self.are_lost |= !self.known.is_empty();
            self.known.clear();
        }
    }

    /// Whether it is worth waiting until further messages are known: not if others write all the time, so that they are
    /// forgotten again and again.
    pub(super) fn may_wait(&mut self) -> bool {
        !std::mem::take(&mut self.are_lost)
    }

    pub(super) fn get(&self, id: MailId) -> Option<Digest> {
        self.known.get(&id).copied()
    }

    /// The digest of a message that is longer than a chunk.
    pub(super) fn read(
        &mut self,
        connection: &Connection,
        pool: &Pool,
        id: MailId,
    ) -> rusqlite::Result<Digest> {
        let data = open_data(connection, id)?;
        let (mut digest, mut buffer) = (Sha256::new(), pool.take());
        let buffer = buffer.first_mut(DATA_CHUNK_OCTETS);
        let mut offset = 0;
        loop {
            let count = data.read_at(buffer, offset)?;
            let Some(octets) = buffer.get(..count).filter(|octets| !octets.is_empty()) else { break };
            digest.update(octets);
            offset += count;
        }
        let digest = digest.finalize().into();
        self.known.insert(id, digest);
        while self.known.len() > LIMIT {
            self.known.pop_first();
        }
        Ok(digest)
    }
}
