use super::*;

#[test]
fn a_second_is_waited_for_until_it_begins() {
    let half = Duration::from_millis(500);
    let now = Now { since_second: half, ..Now::new(Instant::from_micros(7_000_000), UnixTime(1000)) };
    for (time, wait) in [(998, Duration::ZERO), (1000, Duration::ZERO), (1001, half), (1003, half * 5)] {
        assert_eq!(now.when(UnixTime(time)), now.monotonic + wait, "{time}");
    }
}
