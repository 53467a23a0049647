use alloc::string::ToString as _;
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::attempt::AttemptKind;
use crate::failure_pattern::{FailurePattern, LastFailure};
use crate::hold::{Hold, HoldId};
use crate::mail_pattern::MailPattern;
use crate::outbox::MailId;
use crate::retry_rule::Waits;

const RULES: RetryRules<'static> = RetryRules { lines: &[], hold_lines: &[], retries: 5, interval_s: 3600 };

fn row(fail_count: u32, last_try: i64, fatal: bool) -> Row {
    Row {
        id: MailId(1),
        remote: None,
        sender: Some(Bytes::from_static(b"s@example.net")),
        recipient: Bytes::from_static(b"a@example.org"),
        submission: UnixTime(1_700_000_000),
        data_octets: 1,
        fail_count,
        last_try: UnixTime(last_try),
        fatal,
        last_failure: (fail_count > 0).then_some(LastFailure {
            kind: AttemptKind::Recipient,
            code: Some(450),
            status: None,
        }),
        hold: Hold::default(),
        wishes: crate::dsn::DsnWishes::default(),
    }
}

fn line(mail: &str, failure: &str, wait_s: u32, until_s: u64) -> RetryRule {
    RetryRule {
        mail: MailPattern::parse(mail).unwrap(),
        failure: FailurePattern::parse(failure).unwrap(),
        waits: Waits::new(&[wait_s]).unwrap(),
        until: Duration::from_secs(until_s),
        line: 1,
    }
}

#[test]
fn mail_rests_for_the_lesser_of_both_intervals_and_for_a_second_at_least() {
    let rest = |retry_interval_s, look_s| {
        let schedule = Schedule { retry_interval_s, ..Schedule::default() };
        RetryRules::of(&schedule).min_interval(Duration::from_secs(look_s)).as_secs()
    };
    assert_eq!([rest(3600, 10), rest(5, 10), rest(0, 10), rest(60, 60)], [10, 5, 1, 60]);
}

#[test]
fn mail_that_was_never_tried_is_due() {
    let rules = RetryRules { interval_s: i64::MAX, ..RULES };
    assert_eq!(rules.retry_state(&row(0, 0, false), UnixTime(1000)), RetryState::Due);
}

#[test]
fn mail_is_due_when_strictly_more_than_the_interval_has_passed() {
    let state = |now| RULES.retry_state(&row(1, 1000, false), UnixTime(now));
    assert_eq!(state(4600), RetryState::NotBefore(UnixTime(4601)));
    assert_eq!(state(4601), RetryState::Due);
    assert_eq!(state(0), RetryState::NotBefore(UnixTime(4601)), "the clock was set back");
}

#[test]
fn mail_is_given_up_at_the_last_retry_or_a_fatal_failure() {
    let state = |row| RULES.retry_state(&row, UnixTime(9999));
    assert_eq!(state(row(4, 0, false)), RetryState::Due);
    assert_eq!(state(row(5, 0, false)), RetryState::GivenUp);
    assert_eq!(state(row(1, 9999, true)), RetryState::GivenUp);
}

#[test]
fn the_first_line_about_a_mail_decides_and_the_number_of_attempts_does_not_count_then() {
    let lines = [
        line("sender:<>", "*", 10, 3600),
        line("example.org", "connect", 100, 3600),
        line("example.org", "45", 1000, 86_400),
        line("remote:relay.example", "*", 50, 86_400),
    ];
    let rules = RetryRules { lines: &lines, ..RULES };
    let about = |row: &Row| rules.line_about(row).map(|line| line.waits.seconds().collect());
    let failed = row(20, 1_700_000_000, false);
    let to = |recipient: &'static [u8]| Row { recipient: Bytes::from_static(recipient), ..failed.clone() };
    let relayed = Row { remote: Some(Bytes::from_static(b"u:p@relay.example:25")), ..failed.clone() };
    assert_eq!(about(&failed), Some(Vec::from([1000])));
    assert_eq!(about(&Row { sender: None, ..failed.clone() }), Some(Vec::from([10])));
    assert_eq!(about(&relayed), Some(Vec::from([50])));
    for other in [&b"a@example.com"[..], b"a@sub.example.org", b"no address", b"@"] {
        assert_eq!(about(&to(other)), None, "{}", other.escape_ascii());
    }
    let state = |row: &Row, now| rules.retry_state(row, UnixTime(now));
    assert_eq!(state(&failed, 1_700_010_000), RetryState::Due, "although it has failed 20 times");
    assert_eq!(state(&to(b"a@example.com"), 1_700_010_000), RetryState::GivenUp);
    let aged = Row { last_try: UnixTime(1_700_086_400), ..failed.clone() };
    assert_eq!(state(&aged, 0), RetryState::GivenUp);
    assert_eq!(state(&Row { fatal: true, ..failed }, 1_700_010_000), RetryState::GivenUp);
}

#[test]
fn the_first_hold_line_about_a_mail_holds_it_unless_an_order_has_released_it_by_name() {
    let line = |mail: &str, line| HoldLine {
        mail: MailPattern::parse(mail).unwrap(),
        reason: "moved house, ask first".into(),
        line,
    };
    let lines = [line("sender:<>", 3), line(".example.org", 5), line("example.org", 7)];
    let rules = RetryRules { hold_lines: &lines, ..RULES };
    let state = |row: &Row| rules.retry_state(row, UnixTime(9999));
    let mail = row(1, 0, true);
    let released = Hold { state: HoldState::Exempt, released: Some(UnixTime(9000)) };
    let held = Hold::default().by(HoldId(2));
    assert_eq!(state(&mail), RetryState::Held(HeldBy::Line(5)), "also if it has failed for good");
    assert_eq!(state(&Row { sender: None, ..mail.clone() }), RetryState::Held(HeldBy::Line(3)));
    assert_eq!(state(&Row { hold: held, ..mail.clone() }), RetryState::Held(HeldBy::Hold(HoldId(2))));
    assert_eq!(state(&Row { hold: released, ..mail.clone() }), RetryState::GivenUp);
    let elsewhere = Row { recipient: Bytes::from_static(b"a@example.com"), ..mail };
    assert_eq!(state(&elsewhere), RetryState::GivenUp);
    assert_eq!(lines[1].to_string(), ".example.org moved house, ask first");
    let named = "line 5 of the configuration (hold .example.org): moved house, ask first";
    assert_eq!(lines[1].named().to_string(), named);
}
