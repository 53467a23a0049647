//! Digests of large messages, by which they are compared. Each message is read only once for that, as long as no other program
//! writes to the database.

use std::collections::BTreeMap;

use cmail_delivery::outbox::{DATA_CHUNK_OCTETS, MailId};
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

use super::blob::open_data;
use super::pool::Pool;

/// Most digests that are kept: about 64 octets each.
const LIMIT: usize = 1 << 16;

/// A cryptographic digest, so that not even the author of two messages can give them equal ones.
pub(super) type Digest = [u8; 32];

/// The digests that are known of messages in one version of the database.
#[derive(Debug, Default)]
pub(super) struct Digests {
    version: Option<i64>,
    known: BTreeMap<MailId, Digest>,
    /// Whether digests were lost since a request last waited for them.
    are_lost: bool,
}

impl Digests {
    /// Switches to a version, and forgets the digests of another one.
    pub(super) fn turn_to(&mut self, version: i64) {
        if self.version.replace(version).is_some_and(|known| known != version) {
            self.are_lost |= !self.known.is_empty();
            self.known.clear();
        }
    }

    /// Returns whether it is worth waiting for further digests, and counts as a wait. It is not if other programs write so
    /// often that digests are lost again and again.
    pub(super) fn begin_wait(&mut self) -> bool {
        !std::mem::take(&mut self.are_lost)
    }

    pub(super) fn get(&self, id: MailId) -> Option<Digest> {
        self.known.get(&id).copied()
    }

    /// Reads the digest of a message that is longer than a chunk.
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
