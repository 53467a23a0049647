//! Runs worlds: one seed, many seeds, and smaller and smaller worlds that still break the same rule, until it can be written
//! down.

mod report;
mod shrink;

pub(crate) use self::report::{read_world, report};
use self::shrink::shrink;
use crate::dialogue::Dialogue;
use crate::dice::Dice;
use crate::mutation::Mutation;
use crate::options::Options;
use crate::witness::Violation;
use crate::world::{Outcome, World};

/// The result of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// The virtual time that has passed, in seconds.
    pub virtual_seconds: u64,
    /// Rows that were inserted, bounces among them.
    pub mails: u64,
    /// Messages that servers have accepted.
    pub accepted: u64,
    /// Connections that were asked for.
    pub connections: u64,
    /// The broken rule, and how it was broken.
    pub violation: Option<String>,
}

/// Runs the world of a seed, with faults for this many hours.
pub fn run_seed(seed: u64, hours: u32) -> Summary {
    summary(seed, &run_options(seed, options_of(seed, hours), Mutation::None, Dialogue::Off))
}

/// Returns the options that a seed decides.
pub(crate) fn options_of(seed: u64, hours: u32) -> Options {
    Options::draw(&mut Dice::new(seed), hours)
}

/// Runs a world.
pub(crate) fn run_options(seed: u64, options: Options, mutation: Mutation, dialogue: Dialogue) -> Outcome {
    World::new(seed, options, mutation, dialogue).run()
}

/// Returns the result of a world.
pub(crate) fn summary(seed: u64, outcome: &Outcome) -> Summary {
    let counts = outcome.witness.counts;
    Summary {
        seed,
        virtual_seconds: outcome.elapsed.as_secs(),
        mails: counts.submitted,
        accepted: counts.accepted,
        connections: counts.connections,
        violation: outcome.witness.violation.as_ref().map(describe),
    }
}

/// A violation in one line.
pub(crate) fn describe(violation: &Violation) -> String {
    format!("{}: {}", violation.checker, violation.text)
}
