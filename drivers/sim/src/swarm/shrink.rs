//! Makes the world in which a rule is broken as simple as possible: faults are removed, and less happens.

use super::run_options;
use crate::dialogue::Dialogue;
use crate::mutation::Mutation;
use crate::options::{Faults, Options};
use crate::witness::Violation;

/// A way to make a world simpler.
type Simplification = fn(&mut Options);

/// The simplifications that are tried, again and again until none helps any more.
const SIMPLIFICATIONS: [Simplification; 59] = [
    |options| options.faults = Faults::default(),
    |options| submit_at_most(options, 1),
    |options| submit_at_most(options, 2),
    |options| submit_at_most(options, 5),
    |options| submit_at_most(options, 20),
    |options| options.hours /= 2,
    |options| options.hours = options.hours.saturating_sub(1).max(1),
    |options| options.messages_per_hour = (options.messages_per_hour / 2).max(1),
    |options| options.recipients = 1,
    |options| options.recipients = (options.recipients / 2).max(1),
    |options| options.large_messages = 0,
    |options| options.malformed = 0,
    |options| options.zones = (options.zones / 2).max(1),
    |options| options.zones = 1,
    |options| options.relays = 0,
    |options| options.relays /= 2,
    |options| options.rate_per_minute = 0,
    |options| options.hosts_file = false,
    |options| options.padding = 0,
    |options| options.ports = 2,
    |options| options.ipv6 = false,
    |options| options.bounce_copy = false,
    |options| options.concurrency = 100,
    |options| options.trace = false,
    |options| options.faults.reconfigurations = 0,
    |options| options.faults.resets = 0,
    |options| options.faults.stalls = 0,
    |options| options.faults.hangups = 0,
    |options| options.faults.refusals = 0,
    |options| options.faults.local_trouble = 0,
    |options| options.faults.tls_failures = 0,
    |options| options.faults.splits = 0,
    |options| options.faults.joins = 0,
    |options| options.faults.outages = 0,
    |options| options.faults.group_outages = 0,
    |options| options.faults.odd_servers = 0,
    |options| options.faults.dns_losses = 0,
    |options| options.faults.dns_strays = 0,
    |options| options.faults.dns_truncations = 0,
    |options| options.faults.dns_spells = 0,
    |options| options.faults.store_failures = 0,
    |options| options.faults.store_delays = 0,
    |options| {
        options.faults.crashes = 0;
        options.faults.drains = 0;
    },
    |options| options.faults.meddling = 0,
    |options| options.faults.clock_jumps = 0,
    |options| options.faults.retries = 0,
    |options| options.faults.disorder = 0,
    |options| options.faults.poison = 0,
    |options| options.destination_lines = 0,
    |options| options.signed = 0,
    |options| options.faults.ad_withheld = 0,
    |options| options.faults.tlsa_failures = 0,
    |options| options.faults.rollovers = 0,
    |options| options.faults.stripped = 0,
    |options| options.faults.impostors = 0,
    |options| options.dkim = 0,
    |options| options.faults.sign_delays = 0,
    |options| options.faults.sign_failures = 0,
    |options| {
        (options.signed, options.destination_lines) = (0, 0);
        options.dkim = 0;
    },
];

/// Limits the messages, unless they are limited already: no step may make the world less simple.
fn submit_at_most(options: &mut Options, messages: u32) {
    if options.messages == 0 || options.messages > messages {
        options.messages = messages;
    }
}

/// The simplest options found with which some seed near the first one still breaks the rule, and that seed.
pub(crate) fn shrink(
    seed: u64,
    options: Options,
    violation: &Violation,
    mutation: Mutation,
) -> (u64, Options) {
    let breaks = |options: &Options| {
        // A simpler world draws differently: a few seeds are given a chance.
        (seed..seed.saturating_add(4)).find(|&seed| {
            let outcome = run_options(seed, options.clone(), mutation, Dialogue::Off);
            outcome.witness.violation.is_some_and(|found| found.checker == violation.checker)
        })
    };
    let mut best = (seed, options);
    loop {
        let before = best.1.clone();
        for simplify in SIMPLIFICATIONS {
            let mut simpler = best.1.clone();
            simplify(&mut simpler);
            if simpler != best.1
                && simpler.hours > 0
                && let Some(seed) = breaks(&simpler)
            {
                best = (seed, simpler);
            }
        }
        if best.1 == before {
            return best;
        }
    }
}
