//! Memory for chunks of large messages, which comes back when whoever has sent a chunk drops it. Given back to the system
//! each time, it would have to be cleared by it each time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cmail_delivery::outbox::DATA_CHUNK_OCTETS;

/// The most chunks that are kept while nobody uses them.
const KEPT_LIMIT: usize = 64;

/// Memory of [`DATA_CHUNK_OCTETS`] each. All clones are the same pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<Chunks>>);

type Memory = Box<[u8]>;

#[derive(Debug, Default)]
struct Chunks {
    kept: Vec<Memory>,
    taken: usize,
}

impl Pool {
    /// Memory that holds anything.
    pub(super) fn take(&self) -> Memory {
        let kept = {
            let mut chunks = self.chunks();
            chunks.taken += 1;
            chunks.kept.pop()
        };
        kept.unwrap_or_else(|| vec![0; DATA_CHUNK_OCTETS].into())
    }

    /// Takes memory back.
    pub(super) fn give(&self, memory: Memory) {
        let mut chunks = self.chunks();
        chunks.taken = chunks.taken.saturating_sub(1);
        if chunks.kept.len() < KEPT_LIMIT {
            chunks.kept.push(memory);
        }
    }

    /// How many octets of memory are taken and did not come back.
    pub(super) fn taken_octets(&self) -> usize {
        self.chunks().taken * DATA_CHUNK_OCTETS
    }

    fn chunks(&self) -> MutexGuard<'_, Chunks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first `count` octets of the memory, which comes back when they are dropped.
    pub(super) fn lend(&self, memory: Memory, count: usize) -> Bytes {
        Bytes::from_owner(Lent { memory, count, pool: self.clone() })
    }
}

struct Lent {
    memory: Memory,
    count: usize,
    pool: Pool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.count).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_used_again() {
        let pool = Pool::default();
        let mut memory = pool.take();
        memory[..3].copy_from_slice(b"abc");
        let octets = pool.lend(memory, 3);
        assert_eq!(octets, &b"abc"[..]);
        let part = octets.slice(1..);
        drop(octets);
        assert_eq!(pool.take()[..3], [0; 3], "a part of it is still in use");
        assert_eq!(pool.taken_octets(), 2 * DATA_CHUNK_OCTETS);
        drop(part);
        assert_eq!(pool.taken_octets(), DATA_CHUNK_OCTETS);
        assert_eq!(&pool.take()[..3], b"abc");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let pool = Pool::default();
        let lent: Vec<_> = (0..2 * KEPT_LIMIT).map(|_| pool.lend(pool.take(), 1)).collect();
        drop(lent);
        assert_eq!(pool.chunks().kept.len(), KEPT_LIMIT);
    }
}
