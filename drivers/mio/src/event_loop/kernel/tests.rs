use super::*;

#[test]
fn the_monotonic_clock_does_not_go_back_and_the_other_is_the_systems() {
    let clock = Clock::new();
    let (first, second) = (clock.now(), clock.now());
    assert!(first.monotonic <= second.monotonic);
    let system = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(second.wall.0.abs_diff(i64::try_from(system).unwrap()) <= 1);
}
