use std::sync::Arc;

use cmail_delivery::attempt::{Failure, Setback, Tried, Unreached};
use cmail_delivery::ending::EndCause;
use cmail_delivery::outbox::{Commit, Cursor, Row, Scanned, StoreReply, StoreRequest};

use super::*;
use crate::store::fixture::{Fixture, refused};

fn scan(fixture: &mut Fixture) -> Vec<Row> {
    let StoreReply::Scanned(Scanned { rows, .. }) =
        fixture.answer(StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 10 })
    else {
        panic!("that is no answer to a scan")
    };
    rows
}

/// Lets a mail fail in a way that its text does not tell: the only host has closed its connection.
fn fail(fixture: &mut Fixture, id: MailId, time: i64) -> LastFailure {
    let mut failed = refused(id, "no", UnixTime(time), false);
    if let Failure::Refused { server, .. } = &failed.attempt.result {
        let tried = Tried { server: Arc::clone(server), setback: Setback::Ended(EndCause::Closed) };
        let status = EnhancedStatus::NO_ANSWER;
        let unreached = Unreached { is_relay: false, tried: vec![tried], host: None, status };
        failed.attempt.result = Failure::Unreached(Arc::new(unreached));
    }
    let failure = LastFailure::from(failed.attempt.facts());
    assert_ne!(failure, LastFailure::of_text(failed.text().as_bytes()), "the text would tell it too");
    fixture.answer(StoreRequest::Commit(Commit { failed: vec![failed], ..Commit::default() }));
    failure
}

#[test]
fn a_row_has_the_failure_that_was_recorded_last() {
    let mut fixture = Fixture::new();
    let id = fixture.mail(None, "a@example.org", b"x");
    fixture.mail(None, "b@example.org", b"x");
    let failure = fail(&mut fixture, id, 1_700_000_000);
    let failures: Vec<_> = scan(&mut fixture).iter().map(|row| row.last_failure).collect();
    assert_eq!(failures, [Some(failure), None]);
}

#[test]
fn what_another_program_has_recorded_since_is_read_from_its_text() {
    let mut fixture = Fixture::new();
    let id = fixture.mail(None, "a@example.org", b"x");
    fail(&mut fixture, id, 1_700_000_000);
    let insert =
        "INSERT INTO faillog (fail_mail, fail_message, fail_time) VALUES (?1, '421 busy', '1700000009')";
    fixture.execute(insert, [id.0]);
    let failure = scan(&mut fixture).remove(0).last_failure;
    assert_eq!(failure, Some(LastFailure::of_text(b"421 busy")));
}

#[test]
fn it_goes_with_its_mail() {
    let mut fixture = Fixture::new();
    let id = fixture.mail(None, "a@example.org", b"x");
    fail(&mut fixture, id, 1_700_000_000);
    assert_eq!(fixture.number("SELECT count(*) FROM dispatch_failures"), 1);
    fixture.execute("DELETE FROM outbox", []);
    assert_eq!(fixture.number("SELECT count(*) FROM dispatch_failures"), 0);
}

#[test]
fn a_table_that_others_have_made_unusable_costs_no_verdict() {
    let mut fixture = Fixture::new();
    let id = fixture.mail(None, "a@example.org", b"x");
    fixture.execute("CREATE TABLE dispatch_failures (something_else TEXT)", []);
    let failed = vec![refused(id, "4.2.1 busy", UnixTime(1_700_000_000), false)];
    fixture.answer(StoreRequest::Commit(Commit { failed, ..Commit::default() }));
    assert_eq!(fixture.number("SELECT count(*) FROM faillog"), 1);
    let failure = scan(&mut fixture).remove(0).last_failure.unwrap();
    assert_eq!((failure.kind, failure.code), (AttemptKind::Recipient, Some(450)));
}
