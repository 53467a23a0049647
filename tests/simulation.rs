//! Runs a fixed set of worlds, and one that is drawn anew each time.

use std::time::{SystemTime, UNIX_EPOCH};

use cmail_delivery_sim::run_seed;

/// Hours of faults in each world.
const HOURS: u32 = 6;

fn assert_holds(seed: u64) {
    let summary = run_seed(seed, HOURS);
    let repeat = format!("cargo run -p cmail-delivery-sim -- run {seed} --hours {HOURS} -v");
    assert_eq!(summary.violation, None, "repeat it with: {repeat}");
}

#[test]
fn no_rule_is_broken_in_worlds_that_are_known() {
    (1000..1100).for_each(assert_holds);
}

#[test]
fn no_rule_is_broken_in_a_world_that_nobody_has_seen_yet() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64 >> 16);
    println!("seed {seed}");
    assert_holds(seed);
}

#[test]
fn equal_seeds_make_equal_worlds() {
    assert_eq!(run_seed(7, HOURS), run_seed(7, HOURS));
    assert_ne!(run_seed(7, HOURS).mails, run_seed(8, HOURS).mails);
}
