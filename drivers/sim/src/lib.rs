//! Drives the delivery core through virtual worlds full of faults, and checks what it does.
//!
//! | part | what it is |
//! |---|---|
//! | `clock`, `network`, `dns`, `servers`, `outbox`, `map` | the world: nothing in it is real, everything comes from a seed |
//! | `world` | the executor: it calls the core, carries out what the core wants, and lets faults happen |
//! | `options`, `canonical`, `quoted` | what a seed decides; octets as they travel, and as text |
//! | `facts`, `wire`, `talk`, `witness` | what can be seen from outside, and who sees it |
//! | `dialogue`, `chronicle` | what was seen, as text, and as the lines of a transcript |
//! | `checkers` | the invariants, each in a file of its own |
//! | `swarm` | many worlds, their options drawn from their seeds; shrinking of those in which a rule is broken, and the transcript of what is left |
//! | `transcript` | conversations as text, replayed by an executor of their own |
//! | `mutation` | wrong builds, which prove that each checker can fail |
//!
//! The core runs as a whole, through its facade, as in any other executor. First there are faults; then the world is healed, and
//! everything that can be delivered must be.
#![forbid(unsafe_code)]

mod canonical;
mod checkers;
mod chronicle;
mod cli;
mod clock;
mod dialogue;
mod dice;
mod dkim;
mod dns;
mod facts;
mod host_keys;
mod map;
mod mutation;
mod network;
mod options;
mod outbox;
mod quoted;
mod scram;
mod servers;
mod signatures;
mod swarm;
mod talk;
mod transcript;
mod web;
mod wire;
mod witness;
mod world;

pub use self::cli::run;
pub use self::swarm::{Summary, run_seed};
pub use self::transcript::{TranscriptError, replay};
