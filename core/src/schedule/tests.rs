use super::*;

const RULES: RetryRules = RetryRules { retries: 5, interval_s: 3600 };

#[test]
fn mail_rests_for_the_lesser_of_both_intervals_and_for_a_second_at_least() {
    let rest = |interval_s, look_s| {
        let settings = Settings {
            interval: Duration::from_secs(look_s),
            retry_interval_s: interval_s,
            ..Settings::for_tests()
        };
        RetryRules::of(&settings).min_interval(settings.interval).as_secs()
    };
    assert_eq!([rest(3600, 10), rest(5, 10), rest(0, 10), rest(60, 60)], [10, 5, 1, 60]);
}

#[test]
fn mail_that_was_never_tried_is_due() {
    let rules = RetryRules { interval_s: i64::MAX, ..RULES };
    assert_eq!(rules.retry_state(0, UnixTime(0), false, UnixTime(1000)), RetryState::Due);
}

#[test]
fn mail_is_due_when_strictly_more_than_the_interval_has_passed() {
    let state = |now| RULES.retry_state(1, UnixTime(1000), false, UnixTime(now));
    assert_eq!(state(4600), RetryState::NotBefore(UnixTime(4601)));
    assert_eq!(state(4601), RetryState::Due);
    assert_eq!(state(0), RetryState::NotBefore(UnixTime(4601)), "the clock was set back");
}

#[test]
fn mail_is_given_up_at_the_last_retry_or_a_fatal_failure() {
    assert_eq!(RULES.retry_state(4, UnixTime(0), false, UnixTime(9999)), RetryState::Due);
    assert_eq!(RULES.retry_state(5, UnixTime(0), false, UnixTime(9999)), RetryState::GivenUp);
    assert_eq!(RULES.retry_state(1, UnixTime(9999), true, UnixTime(9999)), RetryState::GivenUp);
}
