use alloc::format;

use super::*;

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn stale(count: u32, max_age: u64) -> Vec<StalePolicy> {
    let policy = |number: u32| {
        let domain = Domain::parse(&format!("d{number}.example")).unwrap();
        StalePolicy { domain, max_age: Duration::from_secs(max_age) }
    };
    (0..count).map(policy).collect()
}

#[test]
fn nothing_is_looked_for_unless_it_is_wanted() {
    let mut refresh = Refresh::default();
    assert_eq!(refresh.next_time(), None);
    assert!(!refresh.take_survey(at(5)));
    refresh.set_wanted(true, at(5));
    assert_eq!(refresh.next_time(), Some(at(5)));
    assert!(refresh.take_survey(at(5)) && !refresh.take_survey(at(5)));
    assert_eq!(refresh.next_time(), None, "the answer is awaited");
    refresh.surveyed(at(6), Vec::new(), &mut Rng::from_seed([1; 32]));
    assert_eq!(refresh.next_time(), Some(at(605)));
    refresh.set_wanted(false, at(7));
    assert_eq!(refresh.next_time(), None);
    refresh.surveyed(at(8), stale(3, 86_400), &mut Rng::from_seed([1; 32]));
    assert_eq!(refresh.next_time(), None);
}

#[test]
fn policies_are_spread_over_two_fifths_of_their_time_and_drawn_once() {
    let mut refresh = Refresh::default();
    let mut rng = Rng::from_seed([2; 32]);
    refresh.set_wanted(true, at(0));
    refresh.surveyed(at(0), stale(200, 31_000_000), &mut rng);
    let times = refresh.times.clone();
    let most = times.values().max().unwrap();
    assert!(*most <= at(86_400 * 2 / 5) && *most > at(30_000), "{most:?}");
    assert!(*times.values().min().unwrap() < at(4000));
    refresh.surveyed(at(0), stale(200, 31_000_000), &mut rng);
    assert_eq!(refresh.times, times);
}

#[test]
fn few_are_fetched_at_once_and_one_a_second() {
    let mut refresh = Refresh::default();
    refresh.set_wanted(true, at(0));
    refresh.surveyed(at(0), stale(10, 0), &mut Rng::from_seed([3; 32]));
    let mut begun = Vec::new();
    for second in 0..10 {
        while let Some(domain) = refresh.take_due(at(second)) {
            begun.push((second, domain));
        }
    }
    assert_eq!(begun.iter().map(|(second, _)| *second).collect::<Vec<_>>(), [0, 1, 2, 3]);
    refresh.end(&begun[0].1);
    assert!(refresh.take_due(at(20)).is_some());
    assert!(refresh.take_due(at(20)).is_none());
}
