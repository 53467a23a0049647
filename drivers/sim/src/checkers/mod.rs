//! The invariants. Each checker sees everything that happens, and reports when its invariant is broken.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a checker is about a few facts, and no other will ever matter to it"
)]

mod bounce_contents;
mod bounce_loop;
mod changed;
mod clear_text;
mod commands;
mod connections;
mod courses;
mod destination_lines;
mod duplicates;
mod explanations;
mod flights;
mod held;
mod hold_lines;
mod hosts_file;
mod limits;
mod liveness;
mod loss;
mod memory;
mod no_downgrade;
mod orders;
mod orders_first;
mod poison;
mod retries;
mod secrets;
mod server_limits;
mod signed;
mod standing;
mod tally;
mod tls_liveness;
mod tlsa_questions;
mod waiting;
mod warnings;
mod wishes;

#[cfg(test)]
mod tests;

use std::fmt::Debug;

use crate::facts::{Fact, Scene};

/// One invariant.
pub(crate) trait Checker: Debug {
    /// Returns its name in reports.
    fn name(&self) -> &'static str;

    /// Processes a fact. The error is a sentence that says how the invariant was broken.
    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String>;

    /// Returns a summary of what it has excused, and why.
    fn account(&self) -> Option<String> {
        None
    }
}

/// Returns all checkers.
pub(crate) fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::<loss::Loss>::default(),
        Box::<duplicates::Duplicates>::default(),
        Box::<flights::Flights>::default(),
        Box::<bounce_loop::BounceLoop>::default(),
        Box::<bounce_contents::BounceContents>::default(),
        Box::<connections::Connections>::default(),
        Box::<destination_lines::DestinationLines>::default(),
        Box::<retries::Retries>::default(),
        Box::<changed::Changed>::default(),
        Box::<held::Held>::default(),
        Box::<courses::Courses>::default(),
        Box::<tally::Agreement>::default(),
        Box::<hosts_file::HostsFile>::default(),
        Box::<limits::Limits>::default(),
        Box::<server_limits::ServerLimits>::default(),
        Box::<explanations::Explanations>::default(),
        Box::<commands::Commands>::default(),
        Box::<clear_text::ClearText>::default(),
        Box::<no_downgrade::NoDowngrade>::default(),
        Box::<tls_liveness::TlsLiveness>::default(),
        Box::<tlsa_questions::TlsaQuestions>::default(),
        Box::<signed::Signed>::default(),
        Box::<secrets::Secrets>::default(),
        Box::<memory::Memory>::default(),
        Box::<liveness::Liveness>::default(),
        Box::<orders::Orders>::default(),
        Box::<hold_lines::HoldLines>::default(),
        Box::<orders_first::OrdersFirst>::default(),
        Box::<poison::OnePoisonedRow>::default(),
        Box::<waiting::WithoutDns>::default(),
        Box::<waiting::Bounded>::default(),
        Box::<warnings::Warnings>::default(),
        Box::<wishes::Wishes>::default(),
    ]
}
