use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::attempt::AttemptKind;
use crate::hold::Hold;
use crate::outbox::MailId;

const DAY_S: i64 = 86_400;
const SUBMITTED: UnixTime = UnixTime(1_700_000_000);

fn rule(waits_s: &[u32], until_s: u64) -> RetryRule {
    RetryRule {
        mail: MailPattern::All,
        failure: FailurePattern::All,
        waits: Waits::new(waits_s).unwrap(),
        until: Duration::from_secs(until_s),
        line: 1,
    }
}

fn row(id: i64, fail_count: u32, last_try: i64) -> Row {
    Row {
        id: MailId(id),
        remote: None,
        sender: None,
        recipient: Bytes::from_static(b"a@example.org"),
        submission: SUBMITTED,
        data_octets: 1,
        fail_count,
        last_try: UnixTime(last_try),
        fatal: false,
        last_failure: Some(LastFailure { kind: AttemptKind::Connect, code: None, status: None }),
        hold: Hold::default(),
        wishes: crate::dsn::DsnWishes::default(),
    }
}

/// Returns when a mail is tried, in seconds from its submission, if every attempt fails.
fn attempts(rule: &RetryRule, mut row: Row) -> Vec<i64> {
    let mut attempts = Vec::new();
    row.last_try = SUBMITTED;
    row.fail_count = 1;
    attempts.push(0);
    while let NextAttempt::At(UnixTime(at)) = rule.next_attempt(&row) {
        assert!(at > row.last_try.0, "time goes on");
        attempts.push(at - SUBMITTED.0);
        row.last_try = UnixTime(at);
        row.fail_count += 1;
    }
    attempts
}

#[test]
fn waits_come_one_after_the_other_and_the_last_one_repeats_until_the_end() {
    let rule = rule(&[300, 900, 3600], 4 * 3600);
    let attempts = attempts(&rule, row(7, 1, 0));
    assert_eq!(attempts.last(), Some(&(4 * 3600)), "the last attempt is made at the end: {attempts:?}");
    let waits: Vec<i64> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (last, others) = waits.split_last().unwrap();
    assert!(*last <= 3961);
    for (wait, meant) in others.iter().zip([300, 900, 3600, 3600, 3600]) {
        assert!((meant - meant / 10..=meant + meant / 10 + 1).contains(wait), "{waits:?}");
    }
}

#[test]
fn mail_that_has_waited_too_long_is_tried_once_more_and_then_given_up() {
    let rule = rule(&[300], 5 * 86_400);
    let late = row(1, 3, SUBMITTED.0 + 5 * DAY_S - 1);
    assert_eq!(rule.next_attempt(&late), NextAttempt::At(UnixTime(SUBMITTED.0 + 5 * DAY_S)));
    assert_eq!(rule.next_attempt(&row(1, 4, SUBMITTED.0 + 5 * DAY_S)), NextAttempt::Never);
}

#[test]
fn mail_that_does_not_know_when_it_was_submitted_lives_as_long_as_other_mail() {
    let rule = rule(&[60, 600], 3600);
    // As a program writes it that puts a date there.
    let dated = Row { submission: UnixTime(2026), ..row(1, 1, SUBMITTED.0) };
    let of = |fail_count| rule.next_attempt(&Row { fail_count, ..dated.clone() });
    for fail_count in 1..=6 {
        assert!(matches!(of(fail_count), NextAttempt::At(_)), "{fail_count}");
    }
    // 60 s, and six times 600 s.
    assert_eq!(of(8), NextAttempt::Never);
}

#[test]
fn the_age_counts_from_the_last_release() {
    let rule = rule(&[300], 86_400);
    let released = SUBMITTED.0 + 10 * DAY_S;
    let hold = Hold { released: Some(UnixTime(released)), ..Hold::default() };
    let of = |last_try| Row { hold, ..row(1, 3, last_try) };
    let before = of(SUBMITTED.0 + 9 * DAY_S);
    assert!(matches!(rule.next_attempt(&before), NextAttempt::At(UnixTime(at)) if at > before.last_try.0));
    assert_eq!(rule.end(&before), Some(UnixTime(released + DAY_S)));
    assert_eq!(rule.next_attempt(&of(released + DAY_S - 1)), NextAttempt::At(UnixTime(released + DAY_S)));
    assert_eq!(rule.next_attempt(&of(released + DAY_S)), NextAttempt::Never);
    let undated = Row { submission: UnixTime(2026), ..of(released + DAY_S) };
    assert_eq!(rule.next_attempt(&undated), NextAttempt::Never);
}

#[test]
fn odd_times_end_no_sooner_and_no_later_than_the_waits_would() {
    let rule = rule(&[60], 3600);
    for odd in [
        // Milliseconds, and a clock that was ahead.
        Row { submission: UnixTime(SUBMITTED.0 * 1000), ..row(1, 9, SUBMITTED.0) },
        Row { submission: UnixTime(i64::MAX), ..row(1, 9, SUBMITTED.0) },
        // A date as text, of which the database makes a year.
        Row { last_try: UnixTime(2026), ..row(1, 9, 0) },
    ] {
        let of = |fail_count| rule.next_attempt(&Row { fail_count, ..odd.clone() });
        assert!(matches!(of(9), NextAttempt::At(_)), "{odd:?}");
        assert_eq!(of(61), NextAttempt::Never, "{odd:?}");
        assert_eq!(rule.end(&odd), None);
    }
}

#[test]
fn one_failure_alone_never_ends_it() {
    let rule = rule(&[60], 3600);
    let late = row(1, 1, SUBMITTED.0 + 86_400);
    assert!(matches!(rule.next_attempt(&late), NextAttempt::At(UnixTime(at)) if at > late.last_try.0));
    assert_eq!(rule.next_attempt(&Row { fail_count: 2, ..late }), NextAttempt::Never);
}

#[test]
fn recipients_of_one_message_stay_together() {
    let rule = rule(&[3600], 86_400);
    let of = |id, recipient: &'static [u8]| {
        rule.next_attempt(&Row { recipient: Bytes::from_static(recipient), ..row(id, 1, SUBMITTED.0) })
    };
    assert_eq!(of(1, b"a@example.org"), of(2, b"b@example.org"));
}

#[test]
fn messages_that_have_failed_together_are_tried_at_different_times() {
    let rule = rule(&[3600], 86_400);
    let mut times: Vec<_> = (1..=100)
        .map(|octets| match rule.next_attempt(&Row { data_octets: octets, ..row(1, 1, SUBMITTED.0) }) {
            NextAttempt::At(UnixTime(at)) => at,
            NextAttempt::Never => panic!("it has just been tried for the first time"),
        })
        .collect();
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 80, "{}", times.len());
}

#[test]
fn a_rule_is_written_as_it_is_read() {
    let shown: String = rule(&[300, 90, 3600, 86_400, 1], 432_000).to_string();
    assert_eq!(shown, "* * 5m 90s 1h 1d 1s until 5d");
}

proptest! {
    #[test]
    fn every_rule_comes_to_an_end_and_no_wait_is_shorter_than_nine_tenths(
        waits in proptest::collection::vec(1_u32..100_000, 1..8), until in 1_u64..1_000_000, id in any::<i64>(),
    ) {
        let least = i64::from(*waits.iter().min().unwrap());
        let rule = rule(&waits, until.max(u64::from(*waits.last().unwrap()) / 50));
        let attempts = attempts(&rule, row(id, 1, 0));
        prop_assert_eq!(attempts.last().copied(), i64::try_from(rule.until.as_secs()).ok().filter(|_| attempts.len() > 1).or(Some(0)));
        let waits: Vec<i64> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        if let Some((_, others)) = waits.split_last() {
            for wait in others {
                prop_assert!(*wait >= (least - least / 10).max(1));
            }
        }
    }

    #[test]
    fn no_row_makes_it_panic(
        submission in any::<i64>(), last_try in any::<i64>(), fail_count in any::<u32>(), id in any::<i64>(),
        waits in proptest::collection::vec(any::<u32>(), 1..4), until in any::<u64>(),
    ) {
        let row = Row { submission: UnixTime(submission), last_try: UnixTime(last_try), ..row(id, fail_count, 0) };
        rule(&waits, until).next_attempt(&row);
    }
}
