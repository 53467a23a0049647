//! The ids of connections for mail, and the seeds that a replay presets for them.

use alloc::collections::VecDeque;

use crate::io::ConnectionId;
use crate::rng::Seed;

/// Allocates the ids of connections for mail.
#[derive(Debug, Default)]
pub(crate) struct ConnectionIds {
    /// The next id. It is even, because the resolver uses odd ids.
    next: u64,
    /// Seeds for the next sessions, in place of those that their deliveries would draw.
    preset_seeds: VecDeque<Seed>,
}

impl ConnectionIds {
    pub(crate) fn preset_seeds(&mut self, seeds: impl IntoIterator<Item = Seed>) {
        self.preset_seeds.extend(seeds);
    }

    pub(crate) fn take_preset_seed(&mut self) -> Option<Seed> {
        self.preset_seeds.pop_front()
    }

    pub(crate) fn next(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next);
        self.next = self.next.wrapping_add(2);
        id
    }
}
