use alloc::string::String;
use alloc::vec;
use bytes::Bytes;

use super::*;
use crate::attempt::AttemptKind;
use crate::failure_pattern::{FailurePattern, LastFailure};
use crate::mail_pattern::MailPattern;
use crate::outbox::{FailedMail, FaillogRow, MailId};
use crate::retry_rule::{RetryRule, Waits};
use crate::settings::Schedule;

const SUBMITTED: i64 = 1_700_000_000;
const HOUR_S: i64 = 3600;

fn warnings() -> DelayWarnings {
    let rule = RetryRule {
        mail: MailPattern::All,
        failure: FailurePattern::All,
        waits: Waits::new(&[600]).unwrap(),
        until: Duration::from_secs(5 * 86_400),
        line: 1,
    };
    let schedule = Schedule { rules: [rule].into(), ..Schedule::default() };
    DelayWarnings {
        ages: [4, 24].map(|hours| Duration::from_secs(hours * 3600)).into(),
        announce: "mail.example.org".into(),
        bounce_from: "postmaster@mail.example.org".into(),
        terms: RetryTerms::of(&schedule, UnixTime(SUBMITTED + 5 * HOUR_S)),
        seed: Seed([1; 32]),
    }
}

/// Returns mail that has failed at this time after its submission.
fn failed_after(seconds: i64) -> Row {
    Row {
        id: MailId(7),
        remote: None,
        sender: Some(Bytes::from_static(b"s@example.net")),
        recipient: Bytes::from_static(b"a@example.org"),
        submission: UnixTime(SUBMITTED),
        data_octets: 40,
        fail_count: 3,
        last_try: UnixTime(SUBMITTED + seconds),
        fatal: false,
        hold: crate::hold::Hold::default(),
        wishes: crate::dsn::DsnWishes::default(),
        last_failure: Some(LastFailure { kind: AttemptKind::Connect, code: None, status: None }),
    }
}

#[test]
fn the_first_failure_beyond_an_age_makes_a_warning_due_and_no_other() {
    let is_due = |before: Option<i64>, at| {
        warnings().is_due(before.map(|before| UnixTime(SUBMITTED + before)), &failed_after(at))
    };
    assert!(!is_due(None, 4 * HOUR_S - 1));
    assert!(is_due(Some(3 * HOUR_S), 4 * HOUR_S));
    assert!(!is_due(Some(4 * HOUR_S), 5 * HOUR_S));
    assert!(is_due(Some(5 * HOUR_S), 25 * HOUR_S));
    assert!(!is_due(Some(25 * HOUR_S), 26 * HOUR_S));
    assert!(is_due(None, 30 * HOUR_S), "its first attempt came so late, and both ages make one warning");
}

#[test]
fn mail_that_is_given_up_or_cannot_be_told_of_is_not_warned_of() {
    let is_due = |row: &Row| warnings().is_due(Some(UnixTime(SUBMITTED)), row);
    let late = failed_after(5 * HOUR_S);
    assert!(is_due(&late));
    for row in [
        Row { fatal: true, ..late.clone() },
        Row { last_try: UnixTime(SUBMITTED + 5 * 24 * HOUR_S), ..late.clone() },
        Row { sender: None, ..late.clone() },
        Row { sender: Some(Bytes::from_static(b"no address@")), ..late.clone() },
        Row { submission: UnixTime(2026), ..late },
    ] {
        assert!(!is_due(&row), "{row:?}");
    }
}

#[test]
fn a_warning_says_that_the_mail_is_late_until_when_it_is_tried_and_returns_the_headers_only() {
    let attempt = FaillogRow {
        time: UnixTime(SUBMITTED + 5 * HOUR_S),
        text: b"450 4.2.1 busy\n(mx.example.org [192.0.2.1]:25, in reply to RCPT TO)"[..].into(),
        fatal: false,
    };
    let mail = FailedMail { row: failed_after(5 * HOUR_S), attempts: vec![attempt] };
    let original =
        Bytes::from_static(b"Subject: hello\r\nMessage-ID: <1@example.net>\r\n\r\nthe text of it\r\n");
    let message = FailedMessage { mails: vec![mail], data_octets: original.len() as u64, original };
    let NewNotice { recipient, data } = warnings().warning(&message).unwrap();
    assert_eq!(recipient, "s@example.net");
    let text = String::from_utf8(data.to_vec()).unwrap();
    for line in [
        "Subject: Mail is late, and is still being tried",
        "Auto-Submitted: auto-replied",
        "In-Reply-To: <1@example.net>",
        "Final-Recipient: rfc822; a@example.org",
        "Action: delayed",
        "Status: 4.2.1",
        "Diagnostic-Code: smtp; 450 4.2.1 busy",
        "Will-Retry-Until: Sun, 19 Nov 2023 22:13:20 +0000",
        "  It is tried until Sun, 19 Nov 2023 22:13:20 UTC.",
        "The headers of the message are attached.",
        "Subject: hello",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is missing in\n{text}");
    }
    assert!(!text.contains("the text of it") && !text.contains("Action: failed"));
    let other = Row { id: MailId(8), ..failed_after(5 * HOUR_S) };
    let mut second = message.clone();
    second.mails[0].row = other;
    assert_ne!(warnings().warning(&second).unwrap().data, data, "they have identifiers of their own");
}

#[test]
fn a_sender_who_wants_to_know_of_no_delay_is_not_told() {
    // RFC 3461 section 5.2.5
    let late = failed_after(5 * HOUR_S);
    for (notify, is_due) in [("delay", true), ("failure,success", false), ("never", false)] {
        let notify = Some(crate::dsn::Notify::parse(notify).unwrap());
        let wishes = crate::dsn::DsnWishes { notify, ..crate::dsn::DsnWishes::default() };
        let before = Some(UnixTime(SUBMITTED + HOUR_S));
        assert_eq!(warnings().is_due(before, &Row { wishes, ..late.clone() }), is_due, "{notify:?}");
    }
}
