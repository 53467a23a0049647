//! A pool of memory for chunks of large messages. Memory returns to it when a chunk is dropped after it was sent: the system
//! would have to clear new memory each time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cmail_delivery::outbox::DATA_CHUNK_OCTETS;

/// Most unused chunks that are kept.
const KEPT_LIMIT: usize = 64;

/// A pool of chunks of [`DATA_CHUNK_OCTETS`]. All clones are the same pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<Chunks>>);

#[derive(Debug, Default)]
struct Chunks {
    kept: Vec<Memory>,
    taken: usize,
}

type Memory = Box<[u8]>;

/// Memory that returns to the pool when it is dropped.
pub(super) struct Chunk {
    memory: Memory,
    count: usize,
    pool: Pool,
}

impl Pool {
    /// Takes a chunk, whose content is arbitrary.
    pub(super) fn take(&self) -> Chunk {
        let kept = {
            let mut chunks = self.chunks();
            chunks.taken += 1;
            chunks.kept.pop()
        };
        let memory = kept.unwrap_or_else(|| vec![0; DATA_CHUNK_OCTETS].into());
        Chunk { memory, count: 0, pool: self.clone() }
    }

    /// Returns how many octets of memory are taken and did not return.
    pub(super) fn taken_octets(&self) -> usize {
        self.chunks().taken * DATA_CHUNK_OCTETS
    }

    fn chunks(&self) -> MutexGuard<'_, Chunks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chunk {
    /// Returns the first `count` octets for writing.
    pub(super) fn first_mut(&mut self, count: usize) -> &mut [u8] {
        self.memory.get_mut(..count).unwrap_or_default()
    }

    /// Converts the first `count` octets to shared octets.
    pub(super) fn into_bytes(mut self, count: usize) -> Bytes {
        self.count = count;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.count).unwrap_or_default()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut chunks = self.pool.chunks();
        chunks.taken = chunks.taken.saturating_sub(1);
        if chunks.kept.len() < KEPT_LIMIT {
            chunks.kept.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests;
