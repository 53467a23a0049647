use std::sync::Arc;

use cmail_delivery::attempt::{Failure, Server};
use cmail_delivery::ending::EndCause;
use cmail_delivery::flight::FlightRoute;
use cmail_delivery::io::ConnectionId;
use cmail_delivery::outbox::{
    Charge, Commit, Committed, Cursor, FailedAttempt, Scanned, StoreReply, StoreRequest,
};
use cmail_delivery::time::UnixTime;

use super::*;
use crate::store::fixture::{Fixture, delivered, refused};
use crate::store::{Addresses, Entries, LedgerSettings, Retention};

pub(in crate::store) fn mark(count: u32, mails: &[MailId]) -> FlightMark {
    let route = Arc::new(FlightRoute {
        connection: ConnectionId(u64::from(count)),
        next_hop: "example.org".into(),
        remote: "192.0.2.1:25".parse().unwrap(),
    });
    let carries = (!mails.is_empty()).then(|| Cargo { route, mails: mails.to_vec() });
    FlightMark { flight: FlightId::Own(count), carries }
}

fn note(fixture: &mut Fixture, flights: Vec<FlightMark>) -> Committed {
    let reply = fixture.answer(StoreRequest::Commit(Commit { flights, ..Commit::default() }));
    let StoreReply::Committed(committed) = reply else { panic!("{reply:?}") };
    committed
}

/// What another process finds when it opens the database after this one was killed.
fn recover(fixture: &mut Fixture, uncertain: Uncertain) -> Vec<FoundFlight> {
    let reply = fixture.answer(StoreRequest::Recover { uncertain });
    let StoreReply::Recovered(found) = reply else { panic!("{reply:?}") };
    found
}

fn holds(fixture: &mut Fixture) -> Vec<bool> {
    let reply = fixture.answer(StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 10 });
    let StoreReply::Scanned(Scanned { rows, .. }) = reply else { panic!("{reply:?}") };
    rows.into_iter().map(|row| row.hold.is_held()).collect()
}

fn mails(fixture: &Fixture, count: usize) -> Vec<MailId> {
    (0..count)
        .map(|number| fixture.mail(Some("s@example.net"), &format!("{number}@example.org"), b"x"))
        .collect()
}

fn flights(fixture: &Fixture) -> i64 {
    fixture.number("SELECT count(*) FROM dispatch_flights")
}

#[test]
fn what_is_noted_is_a_table_for_people_and_found_again() {
    for mode in ["WAL", "DELETE"] {
        let mut fixture = Fixture::with_journal_mode(mode);
        let ids = mails(&fixture, 3);
        assert!(!note(&mut fixture, vec![mark(1, &ids[..2]), mark(2, &ids[2..])]).is_unmarked);
        let listed = fixture.number(
            "SELECT count(*) FROM dispatch_flights, json_each(mails) WHERE next_hop = 'example.org' \
             AND address = '192.0.2.1' AND port = 25 AND run = 1 AND connection_id >> 32 = 1",
        );
        assert_eq!(listed, 3);
        let found = recover(&mut fixture, Uncertain::Retry);
        let found: Vec<_> = found.into_iter().map(|flight| (flight.remote, flight.mails)).collect();
        let remote = Some("192.0.2.1:25".parse().unwrap());
        assert_eq!(found, [(remote, ids[..2].to_vec()), (remote, ids[2..].to_vec())]);
        assert_eq!(flights(&fixture), 2, "they stay until their mail is decided");
    }
}

#[test]
fn a_verdict_and_the_end_of_its_flight_are_one_commit() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 2);
    note(&mut fixture, vec![mark(1, &ids)]);
    let commit = Commit {
        delivered: delivered(&ids[..1]),
        failed: vec![refused(ids[1], "no", UnixTime(1_700_000_000), false)],
        flights: vec![mark(1, &[])],
        ..Commit::default()
    };
    fixture.answer(StoreRequest::Commit(commit));
    assert_eq!((flights(&fixture), fixture.number("SELECT count(*) FROM outbox")), (0, 1));
    assert_eq!(recover(&mut fixture, Uncertain::Retry), []);
}

#[test]
fn mail_that_is_gone_or_was_taken_is_not_in_doubt() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 3);
    note(&mut fixture, vec![mark(1, &ids[..2]), mark(2, &ids[2..])]);
    fixture.execute("DELETE FROM outbox WHERE mail_id = ?1", [ids[0].0]);
    stuck::note(&fixture.database.connection, ids[2], "it cannot be deleted").unwrap();
    let found = recover(&mut fixture, Uncertain::Retry);
    assert_eq!(found.into_iter().map(|flight| flight.mails).collect::<Vec<_>>(), [[ids[1]]]);
    assert_eq!(flights(&fixture), 1, "a flight without mail ends");
}

#[test]
fn mail_in_doubt_is_held_if_that_is_wanted() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 2);
    note(&mut fixture, vec![mark(1, &ids[..1])]);
    assert_eq!(recover(&mut fixture, Uncertain::Hold).len(), 1);
    assert_eq!(holds(&mut fixture), [true, false]);
    assert_eq!(flights(&fixture), 0);
    let reasons = "SELECT count(*) FROM dispatch_holds JOIN dispatch_state USING (hold_id) WHERE reason = 'it may have arrived already'";
    assert_eq!(fixture.number(reasons), 1);
}

#[test]
fn mail_whose_connection_was_lost_behind_the_message_is_held_and_its_attempt_does_not_count() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 2);
    let failed = ids.iter().map(|id| {
        let mut failed = refused(*id, "no", UnixTime(1_700_000_000), false);
        if let Failure::Refused { server, .. } = &failed.attempt.result
            && *id == ids[0]
        {
            let server: Arc<Server> = Arc::clone(server);
            failed.attempt.result = Failure::Uncertain(server, EndCause::Closed);
            failed.charge = Charge::Holds;
        }
        failed
    });
    let commit = Commit { failed: failed.collect(), ..Commit::default() };
    let StoreReply::Committed(committed) = fixture.answer(StoreRequest::Commit(commit)) else { panic!() };
    let holds: Vec<bool> = committed.failed.iter().map(|row| row.hold.is_held()).collect();
    assert_eq!(holds, [true, false]);
    assert_eq!(fixture.number("SELECT count(*) FROM faillog"), 1, "what holds the mail does not count");
}

#[test]
fn the_ledger_tells_of_mail_in_doubt_once() {
    let mut fixture = Fixture::new();
    let keep = Retention { age: std::time::Duration::from_secs(1000), rows: 1000 };
    fixture.database.keep_ledger(LedgerSettings { entries: Entries::All, addresses: Addresses::Full, keep });
    let ids = mails(&fixture, 2);
    note(&mut fixture, vec![mark(1, &ids)]);
    for _ in 0..3 {
        assert_eq!(recover(&mut fixture, Uncertain::Retry).len(), 1);
    }
    let told = "SELECT count(*) FROM dispatch_attempts WHERE result = 'uncertain' AND recipient LIKE '%@example.org' \
         AND why = 'sent to example.org at 192.0.2.1:25, and the program ended before it knew the answer'";
    assert_eq!(fixture.number(told), 2);
}

#[test]
fn a_table_that_was_dropped_is_made_again() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 1);
    note(&mut fixture, vec![mark(1, &ids)]);
    fixture.execute("DROP TABLE dispatch_flights", []);
    assert!(!note(&mut fixture, vec![mark(1, &[]), mark(2, &ids)]).is_unmarked);
    assert_eq!(flights(&fixture), 1);
}

#[test]
fn a_table_that_was_changed_costs_no_verdict() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 2);
    fixture.execute("CREATE TABLE dispatch_flights (flight_id INTEGER PRIMARY KEY)", []);
    assert_eq!(recover(&mut fixture, Uncertain::Retry), []);
    assert!(note(&mut fixture, vec![mark(1, &ids)]).is_unmarked);
    let commit =
        Commit { delivered: delivered(&ids[..1]), flights: vec![mark(2, &ids[1..])], ..Commit::default() };
    let StoreReply::Committed(committed) = fixture.answer(StoreRequest::Commit(commit)) else { panic!() };
    assert!(committed.is_unmarked);
    assert_eq!(fixture.number("SELECT count(*) FROM outbox"), 1);
}

#[test]
fn a_trigger_on_the_table_costs_no_verdict() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 2);
    note(&mut fixture, vec![mark(1, &ids)]);
    fixture.execute(
        "CREATE TRIGGER no BEFORE INSERT ON dispatch_flights BEGIN SELECT RAISE(ABORT, 'no'); END",
        [],
    );
    let commit =
        Commit { delivered: delivered(&ids[..1]), flights: vec![mark(2, &ids[1..])], ..Commit::default() };
    let StoreReply::Committed(committed) = fixture.answer(StoreRequest::Commit(commit)) else { panic!() };
    assert!(committed.is_unmarked);
    assert_eq!(fixture.number("SELECT count(*) FROM outbox"), 1);
}

#[test]
fn what_stands_in_the_table_and_is_none_of_ours_is_passed_over() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 1);
    note(&mut fixture, vec![mark(1, &ids)]);
    fixture.execute("UPDATE dispatch_flights SET address = 'nowhere', port = 'x'", []);
    fixture.execute(
        "INSERT INTO dispatch_flights VALUES (1, 0, 'x', 0, x'ff', 7, -1, 'no list'), (2, 0, 0, 0, '', '', 0, '{}')",
        [],
    );
    let found = recover(&mut fixture, Uncertain::Retry);
    assert_eq!(
        found.into_iter().map(|flight| (flight.remote, flight.mails)).collect::<Vec<_>>(),
        [(None, ids)]
    );
}

#[test]
fn a_start_without_flights_waits_for_no_lock() {
    let mut fixture = Fixture::new();
    fixture.execute("BEGIN IMMEDIATE", []);
    assert_eq!(recover(&mut fixture, Uncertain::Hold), []);
}

#[test]
fn a_disk_that_is_full_costs_no_verdict_that_fits() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 2);
    // No page is left for the new table.
    let pages = fixture.number("PRAGMA page_count");
    fixture.database.connection.pragma_update(None, "max_page_count", pages).unwrap();
    let commit =
        Commit { delivered: delivered(&ids[..1]), flights: vec![mark(2, &ids[1..])], ..Commit::default() };
    let StoreReply::Committed(committed) = fixture.answer(StoreRequest::Commit(commit)) else { panic!() };
    assert!(committed.is_unmarked);
    assert_eq!(fixture.number("SELECT count(*) FROM outbox"), 1);
}

/// What another program does so that no mail can be held.
const NO_HOLDS: &str =
    "CREATE TRIGGER no_holds BEFORE INSERT ON dispatch_state BEGIN SELECT RAISE(ABORT, 'no'); END";

#[test]
fn mail_that_cannot_be_held_is_not_told_to_be_held_and_stays_noted() {
    let mut fixture = Fixture::new();
    fixture.database.prepare_orders();
    let ids = mails(&fixture, 2);
    note(&mut fixture, vec![mark(1, &ids)]);
    let but_one = NO_HOLDS.replace(" BEGIN", &format!(" WHEN new.mail_id = {} BEGIN", ids[1].0));
    fixture.execute(&but_one, []);
    let found = recover(&mut fixture, Uncertain::Hold);
    let found: Vec<_> = found.into_iter().map(|flight| (flight.mails, flight.is_held)).collect();
    assert_eq!(found, [(vec![ids[0]], true), (vec![ids[1]], false)]);
    assert_eq!(holds(&mut fixture), [true, false]);
    let noted = fixture.number("SELECT value FROM dispatch_flights, json_each(mails)");
    assert_eq!(noted, ids[1].0);
}

#[test]
fn an_attempt_that_cannot_hold_its_mail_counts() {
    let mut fixture = Fixture::new();
    fixture.database.prepare_orders();
    let ids = mails(&fixture, 1);
    fixture.execute(NO_HOLDS, []);
    let failed = refused(ids[0], "no", UnixTime(1_700_000_000), false);
    let failed = vec![FailedAttempt { charge: Charge::Holds, ..failed }];
    fixture.answer(StoreRequest::Commit(Commit { failed, ..Commit::default() }));
    assert_eq!(fixture.number("SELECT count(*) FROM faillog"), 1);
}

#[test]
fn a_row_that_cannot_be_understood_is_kept() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 2);
    note(&mut fixture, vec![mark(1, &ids[..1]), mark(2, &ids[1..])]);
    fixture
        .execute("UPDATE dispatch_flights SET mails = '[1, 2' WHERE mails = ?1", [format!("[{}]", ids[0])]);
    for uncertain in [Uncertain::Hold, Uncertain::Retry] {
        recover(&mut fixture, uncertain);
        assert_eq!(fixture.number("SELECT count(*) FROM dispatch_flights WHERE mails = '[1, 2'"), 1);
    }
}

#[test]
fn what_is_only_deleted_does_not_end_the_trouble() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 1);
    note(&mut fixture, vec![mark(1, &ids)]);
    fixture.execute(
        "CREATE TRIGGER no BEFORE INSERT ON dispatch_flights BEGIN SELECT RAISE(ABORT, 'no'); END",
        [],
    );
    note(&mut fixture, vec![mark(2, &ids)]);
    note(&mut fixture, vec![mark(1, &[])]);
    assert!(fixture.database.notes.flights.is_in_trouble);
    fixture.execute("DROP TRIGGER no", []);
    note(&mut fixture, vec![mark(3, &ids)]);
    assert!(!fixture.database.notes.flights.is_in_trouble);
}

#[test]
fn a_trigger_that_ends_the_transaction_costs_no_verdict_and_no_later_mail() {
    for event in ["INSERT", "DELETE"] {
        let mut fixture = Fixture::new();
        let ids = mails(&fixture, 2);
        note(&mut fixture, vec![mark(1, &ids)]);
        let trigger = format!(
            "CREATE TRIGGER no BEFORE {event} ON dispatch_flights BEGIN SELECT RAISE(ROLLBACK, 'no'); END"
        );
        fixture.execute(&trigger, []);
        let flights = vec![mark(1, &[]), mark(2, &ids[1..])];
        let delivered = delivered(&ids[..1]);
        let commit = Commit { delivered, flights: flights.clone(), ..Commit::default() };
        let StoreReply::Committed(committed) = fixture.answer(StoreRequest::Commit(commit)) else { panic!() };
        assert!(committed.is_unmarked && committed.refused.is_empty(), "{event}: {committed:?}");
        assert_eq!(fixture.number("SELECT count(*) FROM outbox"), 1);
        assert!(note(&mut fixture, flights).is_unmarked, "{event}");
    }
}

#[test]
fn the_hold_of_mail_in_doubt_ends_with_what_it_holds() {
    let fixture = Fixture::new();
    let ids = mails(&fixture, 2);
    holds::hold_uncertain(&fixture.database.connection, ids[0]).unwrap();
    fixture.execute("UPDATE dispatch_holds SET since_ms = 7", []);
    holds::hold_uncertain(&fixture.database.connection, ids[1]).unwrap();
    let since = "SELECT since_ms FROM dispatch_holds WHERE hold_id = -1";
    assert_eq!(fixture.number(since), 7, "it goes on");
    fixture.execute("DELETE FROM outbox", []);
    let id = mails(&fixture, 1)[0];
    holds::hold_uncertain(&fixture.database.connection, id).unwrap();
    assert!(fixture.number(since) > 7, "it is another one");
}
