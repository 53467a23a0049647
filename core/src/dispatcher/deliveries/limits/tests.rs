use super::*;
use crate::time::Duration;

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn next_hop(number: usize) -> NextHop {
    NextHop::Literal([192, 0, (number >> 8) as u8, number as u8].into())
}

#[test]
fn a_window_is_halved_once_by_connections_of_one_time() {
    let mut limits = Limits::default();
    assert_eq!(limits.connections(99, at(0)), 99);
    limits.cut(10, at(1), at(5));
    limits.cut(9, at(2), at(6));
    assert_eq!(limits.connections(99, at(6)), 5);
    assert_eq!(limits.connections(3, at(6)), 3, "no more than the configuration allows");
    limits.cut(5, at(6), at(7));
    assert_eq!(limits.connections(99, at(7)), 3);
    limits.cut(1, at(8), at(9));
    assert_eq!(limits.connections(99, at(9)), 1, "one connection is always allowed");
    assert_eq!(limits.connections(99, at(9 + 600)), 99, "forgotten");
}

#[test]
fn a_window_grows_by_one_at_a_time_until_there_is_none() {
    let mut limits = Limits::default();
    limits.cut(4, at(0), at(0));
    let mut taken = |count: u32, seconds: u64| {
        for _ in 0..count {
            limits.widen(4, at(seconds));
        }
        limits.connections(4, at(seconds))
    };
    assert_eq!(taken(19, 10), 2);
    assert_eq!(taken(1, 10), 3);
    assert_eq!(taken(1000, 19), 3, "too soon");
    assert_eq!(taken(1, 20), 4, "the configured limit is reached");
    assert!(limits.window.is_none());
}

#[test]
fn what_a_destination_has_used_up_outlasts_its_mail_until_it_does_not_count() {
    let limit = RateLimit { transactions: 1, per: Duration::from_secs(60) };
    let mut remembered = RememberedLimits::default();
    let mut limits = remembered.take(&next_hop(1));
    limits.take_transaction(limit, at(0)).unwrap();
    remembered.keep(&next_hop(1), limits, at(1));
    let mut limits = remembered.take(&next_hop(1));
    assert_eq!(limits.take_transaction(limit, at(1)), Err(at(60)));
    remembered.keep(&next_hop(1), limits, at(61));
    assert!(remembered.limits.is_empty());
}

#[test]
fn windows_are_remembered_up_to_a_limit_and_rates_without_one() {
    let limit = RateLimit { transactions: 1, per: Duration::from_secs(3600) };
    let mut remembered = RememberedLimits::default();
    let mut keep = |number: usize, is_rate: bool| {
        let mut limits = Limits::default();
        if is_rate {
            limits.take_transaction(limit, at(0)).unwrap();
        } else {
            limits.cut(2, at(0), at(0));
        }
        remembered.keep(&next_hop(number), limits, at(1));
        remembered.limits.len()
    };
    let kept = (0..2 * WINDOWS_LIMIT).map(|number| keep(number, false)).max();
    assert_eq!(kept, Some(WINDOWS_LIMIT));
    assert_eq!(keep(usize::from(u16::MAX), true), WINDOWS_LIMIT + 1);
}
