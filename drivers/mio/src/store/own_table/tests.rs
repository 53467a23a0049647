use cmail_delivery::outbox::{Claimed, Commit, Committed, Cursor, Scanned, StoreReply, StoreRequest};
use cmail_delivery::schedule::RetryTerms;
use cmail_delivery::settings::Schedule;
use cmail_delivery::time::UnixTime;

use crate::store::fixture::{Fixture, delivered, refused};

const TABLES: [&str; 6] = [
    "dispatch_holds",
    "dispatch_state",
    "dispatch_orders",
    "dispatch_stuck",
    "dispatch_failures",
    "dispatch_flights",
];

/// A database that has used every table, so that its statements are prepared.
fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.database.prepare_orders();
    let taken = fixture.mail(Some("s@example.net"), "taken@example.org", b"x");
    crate::store::stuck::note(&fixture.database.connection, taken, "it cannot be deleted").unwrap();
    fixture.execute(
        "INSERT INTO dispatch_holds (hold_id, scope, since_ms) VALUES (7, '{}', 0), (8, '{\"from\":\"held@example.net\"}', 0)",
        [],
    );
    let held = fixture.mail(Some("s@example.net"), "held@example.org", b"x");
    fixture.execute("INSERT INTO dispatch_state (mail_id, hold_id) VALUES (?1, 7)", [held.0]);
    fixture
}

/// Does everything that delivers mail.
fn deliver(fixture: &mut Fixture) {
    let ids = [(); 2].map(|()| fixture.mail(Some("s@example.net"), "a@example.org", b"x"));
    let scan = fixture.answer(StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 100 });
    let StoreReply::Scanned(Scanned { rows, .. }) = scan else { panic!("{scan:?}") };
    assert!(ids.iter().all(|id| rows.iter().any(|row| row.id == *id)), "{rows:?}");
    let claim = StoreRequest::Claim { signing: None, ids: ids.to_vec(), transactions: 10, recipients: 10 };
    let claim = fixture.answer(claim);
    let StoreReply::Claimed(Claimed { unreadable, .. }) = claim else { panic!("{claim:?}") };
    assert_eq!(unreadable, []);
    let commit = Commit {
        delivered: delivered(&ids[..1]),
        failed: vec![refused(ids[1], "no", UnixTime(1_700_000_000), false)],
        flights: vec![
            crate::store::flights::tests::mark(1, &ids),
            crate::store::flights::tests::mark(2, &[]),
        ],
        ..Commit::default()
    };
    let committed = fixture.answer(StoreRequest::Commit(commit));
    let StoreReply::Committed(Committed { refused, is_unmarked, failed, .. }) = committed else {
        panic!("{committed:?}")
    };
    assert_eq!((refused, is_unmarked, failed.len()), (vec![], false, 1));
    let terms = RetryTerms::of(&Schedule::default(), UnixTime(1_700_000_000));
    fixture.answer(StoreRequest::ReadOrders { known: Vec::new(), terms });
    fixture.database.prune();
}

#[test]
fn a_table_that_is_dropped_under_a_running_daemon_stops_no_mail() {
    for table in TABLES {
        let mut fixture = fixture();
        deliver(&mut fixture);
        fixture.execute(&format!("DROP TABLE {table}"), []);
        deliver(&mut fixture);
        deliver(&mut fixture);
    }
}

#[test]
fn all_tables_that_are_dropped_stop_no_mail_and_are_made_again_where_they_are_needed() {
    let mut fixture = fixture();
    deliver(&mut fixture);
    for table in TABLES {
        fixture.execute(&format!("DROP TABLE {table}"), []);
    }
    deliver(&mut fixture);
    let made = "SELECT count(*) FROM sqlite_schema WHERE name IN ('dispatch_failures', 'dispatch_flights')";
    assert_eq!(fixture.number(made), 2);
    let id = fixture.mail(Some("s@example.net"), "a@example.org", b"x");
    crate::store::holds::set(&fixture.database.connection, id, Some(7)).unwrap();
    assert_eq!(fixture.number("SELECT hold_id FROM dispatch_state"), 7);
}
