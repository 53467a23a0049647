//! What comes out for the executor: outputs to carry out, and counts of what has happened.

use alloc::collections::VecDeque;

use crate::io::Output;
use crate::tally::Tally;

/// The outputs and the counts.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    outputs: VecDeque<Output>,
    pub(super) tally: Tally,
}

impl Outlet {
    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
