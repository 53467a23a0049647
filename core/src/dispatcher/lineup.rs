//! Which next hop is worked on next.

use crate::queue::HopId;
use crate::turns::{Prospect, Turns};

/// Next hops with ready mail that wait for a delivery.
#[derive(Debug)]
pub(super) struct Lineup {
    /// Those whose delivery begins with a question of DNS, and all others. They take turns, so that what needs no answer never
    /// waits for one.
    asking: Turns<HopId>,
    unasking: Turns<HopId>,
    is_askings_turn: bool,
}

impl Lineup {
    pub(super) const fn new() -> Self {
        Self { asking: Turns::new(), unasking: Turns::new(), is_askings_turn: false }
    }

    pub(super) fn push(&mut self, hop: HopId, needs_answer: bool, prospect: Prospect) {
        let turns = if needs_answer { &mut self.asking } else { &mut self.unasking };
        turns.push(hop, prospect);
    }

    /// Takes whose turn it is, without those that begin with a question unless `may_ask`.
    pub(super) fn pop(&mut self, may_ask: bool) -> Option<HopId> {
        self.is_askings_turn = may_ask && !self.asking.is_empty() && !self.is_askings_turn;
        let first = if self.is_askings_turn { self.asking.pop() } else { self.unasking.pop() };
        first.or_else(|| if may_ask { self.asking.pop() } else { None })
    }

    /// How many wait that could be worked on, if there were room.
    pub(super) fn len(&self, may_ask: bool) -> usize {
        self.unasking.len() + if may_ask { self.asking.len() } else { 0 }
    }
}
