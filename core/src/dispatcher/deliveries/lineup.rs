//! Which next hop is worked on next.

use crate::queue::HopId;
use crate::turns::{Prospect, Turns};

/// Next hops with ready mail that wait for their turn.
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

    /// Gives a next hop a place; one that has a place keeps it, or gets a better one.
    pub(super) fn push(&mut self, hop: HopId, needs_answer: bool, prospect: Prospect) {
        let (turns, other) = if needs_answer {
            (&mut self.asking, &mut self.unasking)
        } else {
            (&mut self.unasking, &mut self.asking)
        };
        other.remove(&hop);
        turns.push(hop, prospect);
    }

    /// Takes whose turn it is, without those that begin with a question unless `may_ask`.
    pub(super) fn pop(&mut self, may_ask: bool) -> Option<HopId> {
        self.is_askings_turn = may_ask && !self.asking.is_empty() && !self.is_askings_turn;
        let first = if self.is_askings_turn { self.asking.pop() } else { self.unasking.pop() };
        first.or_else(|| if may_ask { self.asking.pop() } else { None })
    }

    /// Takes a next hop out.
    pub(super) fn remove(&mut self, hop: HopId) {
        self.asking.remove(&hop);
        self.unasking.remove(&hop);
    }

    /// Returns how many wait that could be worked on, if there were room.
    pub(super) fn len(&self, may_ask: bool) -> usize {
        self.unasking.len() + if may_ask { self.asking.len() } else { 0 }
    }

    /// Whether a next hop has a place.
    pub(super) fn contains(&self, hop: HopId) -> bool {
        self.asking.contains(&hop) || self.unasking.contains(&hop)
    }
}
