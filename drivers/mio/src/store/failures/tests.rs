use cmail_delivery::outbox::{Cursor, Scanned, StoreReply, StoreRequest};
use cmail_delivery::schedule::{RetryRules, RetryState};
use proptest::prelude::*;
use rusqlite::types::Value;

use super::super::fixture::Fixture;
use super::super::rows;
use super::*;

/// At most `limit` rows after an id, and whether there are more.
fn scan(fixture: &mut Fixture, after: i64, limit: u32) -> (Vec<Row>, bool) {
    let request = StoreRequest::Scan { after: Cursor::After(MailId(after)), limit };
    let StoreReply::Scanned(Scanned { rows, next, .. }) = fixture.answer(request) else {
        panic!("that is no answer to a scan")
    };
    (rows, next.is_some())
}

/// What programs have been seen, or may be feared, to write into `fail_time` and `fail_fatal`.
fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (0i64..2_000_000_000).prop_map(Value::Integer),
        // As text, 9 is more than 10.
        4 => (0i64..120).prop_map(Value::Integer),
        1 => any::<i64>().prop_map(Value::Integer),
        1 => (-1e12f64..1e12).prop_map(Value::Real),
        2 => prop::sample::select(vec![
            "", "0", "-5", " 12", "12 x", "1.7e9", "1700000000.75", "x", "99999999999999999999", "0x10", "+7",
        ])
        .prop_map(|text| Value::Text(text.to_owned())),
        1 => prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::Blob),
    ]
}

fn fatal_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => Just(Value::Integer(0)),
        2 => Just(Value::Integer(1)),
        1 => (-3i64..3).prop_map(Value::Integer),
        1 => (-2.0f64..2.0).prop_map(Value::Real),
        1 => prop::sample::select(vec!["true", "1", "1x", ""]).prop_map(|text| Value::Text(text.to_owned())),
    ]
}

/// Id, failures, latest attempt, whether one was fatal: of each mail, as the view says.
fn by_the_view(connection: &Connection) -> Vec<(i64, u32, i64, bool)> {
    connection
        .prepare(
            "SELECT mail_id, mail_failcount, CAST(mail_lasttry + 0 AS INTEGER), mail_fatality > 0 FROM outbound \
             ORDER BY mail_id",
        )
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn rows_say_what_the_view_says(
        failures in prop::collection::vec((1i64..12, odd_value(), fatal_value()), 0..60),
        is_indexed in any::<bool>(),
        page in 1u32..7,
    ) {
        let mut fixture = Fixture::new();
        fixture.other.execute_batch("PRAGMA foreign_keys = OFF; BEGIN").unwrap();
        for id in (1..12).filter(|id| id % 4 != 3) {
            fixture.execute("INSERT INTO outbox (mail_id, mail_envelopeto) VALUES (?1, 'r')", [id]);
        }
        for (id, time, fatal) in failures {
            fixture.execute(
                "INSERT INTO faillog (fail_mail, fail_time, fail_fatal) VALUES (?1, ?2, ?3)",
                (id, time, fatal),
            );
        }
        fixture.execute("INSERT INTO faillog (fail_mail) VALUES (1.5), ('x')", []);
        fixture.other.execute_batch("COMMIT").unwrap();
        if !is_indexed {
            fixture.execute("DROP INDEX dispatch_faillog_mail", []);
        }
        let expected = by_the_view(&fixture.other);
        let summary = |row: &Row| (row.id.0, row.fail_count, row.last_try.0, row.fatal);
        let mut scanned = Vec::new();
        loop {
            let (rows, more) = scan(&mut fixture, scanned.last().map_or(0, |row: &Row| row.id.0), page);
            scanned.extend(rows);
            if !more { break }
        }
        prop_assert_eq!(scanned.iter().map(summary).collect::<Vec<_>>(), expected);
        for scanned in &scanned {
            let connection = &fixture.database.connection;
            let mut found = rows::row(connection, scanned.id, 0, &mut rows::texts()).unwrap().unwrap().row;
            add_own_failures(connection, &mut found).unwrap();
            prop_assert_eq!(&found, scanned);
        }
    }

    /// The rules in SQL on the view, as every program of the suite understands them, against the core's.
    #[test]
    fn the_core_finds_due_and_gives_up_what_the_view_says(
        failures in prop::collection::vec((1i64..12, 0i64..40, prop::bool::weighted(0.2)), 0..40),
        retries in 1u32..5,
        interval_s in prop_oneof![Just(0i64), 0i64..30, Just(1_000_000)],
    ) {
        const NOW: i64 = 2_000_000_040;
        let mut fixture = Fixture::new();
        for id in 1..12 {
            fixture.execute("INSERT INTO outbox (mail_id, mail_envelopeto) VALUES (?1, 'r')", [id]);
        }
        for (id, seconds_ago, fatal) in failures {
            fixture.execute(
                "INSERT INTO faillog (fail_mail, fail_time, fail_fatal) VALUES (?1, ?2, ?3)",
                (id, (NOW - seconds_ago).to_string(), fatal),
            );
        }
        let ids = |condition: &str| -> Vec<i64> {
            let sql = format!("SELECT mail_id FROM outbound WHERE {condition} ORDER BY mail_id");
            let mut statement = fixture.other.prepare(&sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
        };
        let given_up = format!("(mail_fatality > 0 OR mail_failcount >= {retries})");
        // A mail that was never tried is due, whatever the interval.
        let due = format!(
            "NOT {given_up} AND (mail_failcount = 0 OR {NOW} - mail_lasttry > {interval_s})"
        );
        let expected = (ids(&due), ids(&given_up));
        let rules = RetryRules { lines: &[], hold_lines: &[], retries, interval_s };
        let (rows, _) = scan(&mut fixture, 0, 100);
        let found = |wanted: fn(RetryState) -> bool| -> Vec<i64> {
            rows.iter()
                .filter(|row| wanted(rules.retry_state(row, UnixTime(NOW))))
                .map(|row| row.id.0)
                .collect()
        };
        let found = (found(|state| state == RetryState::Due), found(|state| state == RetryState::GivenUp));
        prop_assert_eq!(found, expected);
    }
}
