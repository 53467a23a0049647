use cmail_delivery::outbox::{Commit, Committed, StoreReply, StoreRequest};
use cmail_delivery::rng::Seed;
use cmail_delivery::schedule::RetryTerms;
use cmail_delivery::settings::Schedule;
use cmail_delivery::time::Duration;

use super::*;
use crate::store::fixture::{Fixture, refused};

const SUBMITTED: i64 = 1_700_000_000;

fn warnings(at: i64) -> DelayWarnings {
    let schedule = Schedule { retries: 100, retry_interval_s: 60, ..Schedule::default() };
    DelayWarnings {
        ages: [Duration::from_secs(3600)].into(),
        announce: "mail.example.org".into(),
        bounce_from: "postmaster@mail.example.org".into(),
        terms: RetryTerms::of(&schedule, UnixTime(at)),
        seed: Seed([1; 32]),
    }
}

fn mail(fixture: &Fixture, sender: Option<&'static str>, recipient: &'static str, data: &[u8]) -> MailId {
    let id = fixture.mail(sender, recipient, data);
    fixture.execute("UPDATE outbox SET mail_submission = ?1", [SUBMITTED]);
    id
}

/// Lets mail fail, and returns what the answer says of warnings.
fn fail(fixture: &mut Fixture, ids: &[MailId], at: i64) -> Vec<Warned> {
    let failed = ids.iter().map(|id| refused(*id, "4.2.1 busy", UnixTime(at), false)).collect();
    let warnings = Some(Box::new(warnings(at)));
    let reply = fixture.answer(StoreRequest::Commit(Commit { failed, warnings, ..Commit::default() }));
    let StoreReply::Committed(Committed { warned, failed, refused, .. }) = reply else { panic!("{reply:?}") };
    assert_eq!((failed.len(), refused), (ids.len(), vec![]), "every failure is recorded");
    warned
}

#[test]
fn the_sender_is_told_once_of_all_late_recipients_of_a_message() {
    let mut fixture = Fixture::new();
    let ids = ["a@example.org", "b@example.org"]
        .map(|to| mail(&fixture, Some("s@example.net"), to, b"Subject: x\n\ny"));
    let other = mail(&fixture, Some("s@example.net"), "a@example.org", b"Subject: other\n\ny");
    let null = mail(&fixture, None, "a@example.org", b"Subject: x\n\ny");
    let all = [ids[0], other, ids[1], null];
    assert_eq!(fail(&mut fixture, &all, SUBMITTED + 3599), []);
    let warned = fail(&mut fixture, &all, SUBMITTED + 3700);
    let originals: Vec<_> = warned.iter().map(|warned| warned.originals.clone()).collect();
    assert_eq!(originals, [vec![ids[0], ids[1]], vec![other]]);
    assert_eq!(fail(&mut fixture, &all, SUBMITTED + 3800), [], "the sender knows");
    let rows = "SELECT count(*) FROM outbox WHERE mail_envelopefrom IS NULL AND mail_remote IS NULL \
                AND mail_envelopeto = 's@example.net' AND CAST(mail_data AS TEXT) LIKE '%Action: delayed%'";
    assert_eq!(fixture.number(rows), 2);
    let tokens = "SELECT count(DISTINCT mail_data) FROM outbox WHERE mail_envelopeto = 's@example.net'";
    assert_eq!(fixture.number(tokens), 2);
}

#[test]
fn a_warning_that_another_program_forbids_costs_no_verdict() {
    let mut fixture = Fixture::new();
    let id = mail(&fixture, Some("s@example.net"), "a@example.org", b"Subject: x\n\ny");
    fixture.execute(
        "CREATE TRIGGER no_bounces BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'no mail of yours'); END",
        [],
    );
    assert_eq!(fail(&mut fixture, &[id], SUBMITTED + 3700), []);
    assert_eq!(fixture.number("SELECT count(*) FROM faillog"), 1);
    assert_eq!(fixture.number("SELECT count(*) FROM outbox"), 1);
}

#[test]
fn a_warning_that_cannot_be_made_costs_no_other() {
    let mut fixture = Fixture::new();
    let one = mail(&fixture, Some("s@example.net"), "a@example.org", b"Subject: x\n\ny");
    let two = mail(&fixture, Some("other@example.net"), "a@example.org", b"Subject: x\n\ny");
    fixture.execute(
        "CREATE TRIGGER no_bounces BEFORE INSERT ON outbox WHEN NEW.mail_envelopeto LIKE 's@%' \
         BEGIN SELECT RAISE(ABORT, 'not to her'); END",
        [],
    );
    let warned = fail(&mut fixture, &[one, two], SUBMITTED + 3700);
    assert_eq!(warned.iter().map(|warned| warned.originals.clone()).collect::<Vec<_>>(), [vec![two]]);
}

#[test]
fn a_trigger_that_ends_the_transaction_costs_no_verdict() {
    let mut fixture = Fixture::new();
    let one = mail(&fixture, Some("s@example.net"), "a@example.org", b"Subject: x\n\ny");
    let two = mail(&fixture, Some("s@example.net"), "b@example.org", b"Subject: other\n\ny");
    fixture.execute(
        "CREATE TRIGGER no_bounces BEFORE INSERT ON outbox BEGIN SELECT RAISE(ROLLBACK, 'no mail of yours'); END",
        [],
    );
    assert_eq!(fail(&mut fixture, &[one, two], SUBMITTED + 3700), []);
    assert_eq!(fixture.number("SELECT count(*) FROM faillog"), 2);
}

#[test]
fn a_warning_cannot_use_an_id_that_there_is_not() {
    let mut fixture = Fixture::new();
    let id = mail(&fixture, Some("s@example.net"), "a@example.org", b"Subject: x\n\ny");
    fixture.execute("UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'outbox'", []);
    assert_eq!(fail(&mut fixture, &[id], SUBMITTED + 3700), []);
}
