use cmail_delivery::attempt::{Attempt, Failure};
use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::event::MailFacts;
use cmail_delivery::hold::Hold;
use cmail_delivery::memory_outbox::{Mail, MemoryOutbox};
use cmail_delivery::next_hop::RelayError;
use cmail_delivery::outbox::FaillogRow;
use cmail_delivery::time::Now;

use super::*;
use crate::dice::Dice;
use crate::map::Map;
use crate::options::Options;

const WALL: i64 = 1_000_000;

/// Returns what the checker says of facts, seen at these seconds and said since those, of mail 1, which has failed `times` times.
fn judge(times: usize, fatal: bool, facts: &[(u64, u64, Fact<'_>)]) -> Result<(), String> {
    let attempt = FaillogRow { time: UnixTime(WALL), text: b"no"[..].into(), fatal };
    let mut outbox = MemoryOutbox::new();
    let mail = Mail {
        remote: None,
        sender: None,
        recipient: b"r@example.net"[..].into(),
        submission: UnixTime(1),
        data: b"text"[..].into(),
        faillog: vec![attempt; times],
        last_failure: None,
        hold: Hold::default(),
        wishes: DsnWishes::default(),
    };
    outbox.put(MailId(1), mail);
    let mut settings = Options::draw(&mut Dice::new(1), 1).settings();
    (settings.schedule.retries, settings.schedule.retry_interval_s) = (3, 100);
    let map = Map::default();
    let mut retries = Retries::default();
    for &(at_s, since_s, fact) in facts {
        let monotonic = Instant::default() + Duration::from_secs(at_s);
        let now = Now::new(monotonic, UnixTime(WALL + i64::try_from(at_s).unwrap()));
        let said_since = Instant::default() + Duration::from_secs(since_s);
        let scene =
            Scene { now, said_since, settings: &settings, earlier_settings: &[], outbox: &outbox, map: &map };
        retries.see(&scene, fact)?;
    }
    Ok(())
}

fn failed(kind: FailureKind) -> Event {
    let failure = Failure::MalformedRelay(RelayError::Host);
    let attempt = Attempt {
        at: UnixTime(WALL),
        recipient: cmail_delivery::shown::ShownAddress::default(),
        course: None,
        result: failure,
    };
    Event::Failed { id: MailId(1), next_hop: None, attempt, kind, outlook: None, facts: MailFacts::default() }
}

fn claimed() -> StoreReply {
    let row = Row {
        id: MailId(1),
        remote: None,
        sender: None,
        recipient: b"r@example.net"[..].into(),
        submission: UnixTime(0),
        data_octets: 4,
        fail_count: 1,
        last_try: UnixTime(WALL),
        fatal: false,
        last_failure: None,
        hold: Hold::default(),
        wishes: DsnWishes::default(),
    };
    let head = b"text"[..].into();
    let transactions = vec![cmail_delivery::outbox::ClaimedTransaction {
        to_sign: Ok(Vec::new()),
        rows: vec![row],
        data_octets: 4,
        head,
    }];
    StoreReply::Claimed(Claimed { transactions, left_over: vec![], unreadable: vec![] })
}

#[test]
fn mail_that_is_sent_after_it_was_given_up_is_noticed() {
    let commit = Commit { delivered: vec![MailId(1).into()], ..Commit::default() };
    let judge =
        |times, fatal| judge(times, fatal, &[(500, 500, Fact::Committing { commit: &commit, bounces: &[] })]);
    assert_eq!(judge(2, false), Ok(()));
    assert!(judge(3, false).is_err() && judge(1, true).is_err());
}

#[test]
fn mail_is_due_when_strictly_more_than_the_interval_has_passed() {
    let reply = claimed();
    let judge = |at_s| judge(1, false, &[(at_s, at_s, Fact::Answered { reply: &reply })]);
    assert!(judge(100).is_err());
    assert_eq!(judge(101), Ok(()));
}

#[test]
fn an_order_is_used_up_by_the_attempt_that_it_led_to_however_late_that_is_told() {
    let (reply, early, usual) = (claimed(), failed(FailureKind::Early), failed(FailureKind::Temporary));
    let judge = |told_at_s, said_since_s, event| {
        judge(
            1,
            false,
            &[
                (10, 10, Fact::Ordered),
                (told_at_s, said_since_s, Fact::Log(event)),
                (60, 60, Fact::Answered { reply: &reply }),
            ],
        )
    };
    assert!(judge(12, 12, &early).is_err());
    assert!(judge(12, 9, &early).is_err(), "it was told late, but came after the order");
    assert!(judge(12, 12, &usual).is_err());
    assert_eq!(judge(12, 9, &usual), Ok(()), "it may have come before the order");
}
