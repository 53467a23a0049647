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
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_used_again() {
        let pool = Pool::default();
        let mut chunk = pool.take();
        chunk.first_mut(3).copy_from_slice(b"abc");
        let octets = chunk.into_bytes(3);
        assert_eq!(octets, &b"abc"[..]);
        let part = octets.slice(1..);
        drop(octets);
        let mut other = pool.take();
        assert_eq!(other.first_mut(3), [0; 3], "a part of it is still in use");
        assert_eq!(pool.taken_octets(), 2 * DATA_CHUNK_OCTETS);
        drop(part);
        assert_eq!(pool.taken_octets(), DATA_CHUNK_OCTETS);
        assert_eq!(pool.take().first_mut(3), b"abc");
        drop(other);
        assert_eq!(pool.taken_octets(), 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let pool = Pool::default();
        let taken: Vec<_> = (0..2 * KEPT_LIMIT).map(|_| pool.take().into_bytes(1)).collect();
        drop(taken);
        assert_eq!(pool.chunks().kept.len(), KEPT_LIMIT);
    }
}
