use super::super::fixture::Fixture;
use super::super::ledger;
use super::*;

const NOW: i64 = 1_800_000_000;

fn query(json: &str) -> HistoryQuery {
    HistoryQuery {
        selection: serde_json::from_str(json).unwrap(),
        since: None,
        remote_id: None,
        result: None,
        now: UnixTime(NOW),
    }
}

/// Returns the ids of all entries that are meant, in the order in which they are read.
fn ids(fixture: &Fixture, query: &HistoryQuery, direction: Direction) -> Vec<i64> {
    let reader = Reader::open(&fixture.path).unwrap();
    let (mut ids, mut from) = (Vec::new(), None);
    loop {
        let batch = reader.history(query, direction, from).unwrap();
        ids.extend(batch.attempts.iter().filter_map(|attempt| attempt.attempt_id));
        from = batch.next;
        if from.is_none() {
            return ids;
        }
    }
}

fn with_ledger() -> Fixture {
    let fixture = Fixture::new();
    fixture.other.execute_batch(ledger::CREATE).unwrap();
    fixture
}

#[test]
fn each_condition_selects_what_it_says() {
    let fixture = with_ledger();
    fixture
        .other
        .execute_batch(
            "INSERT INTO dispatch_connections (connection_id, opened_ms, next_hop, host, address, port) VALUES
                (7, 0, 'relay relay.lan:25/starttls', 'relay.lan', '192.0.2.1', 25), (8, 0, 'relay relay.lan.org', 'r', '192.0.2.2', 25);
             INSERT INTO dispatch_attempts (attempt_id, mail_id, at_ms, result, sender, recipient, message_id, submitted, code, status,
                connection_id) VALUES
                (1, 41, 1000, 'deferred', 'a@client.example', 'x@example.org', '1@client.example', 1799999000, 451, '4.7.1', 7),
                (2, 41, 2000, 'delivered', 'A@Client.example', 'X@EXAMPLE.ORG', '1@client.example', 1799999000, 250, '2.0.0', 8),
                (3, 42, 3000, 'failed', NULL, 'example.org', NULL, 1799990000, 421, NULL, NULL),
                (4, 43, 4000, 'bounced', 'b@other.example', 'x@sub.example.org', NULL, NULL, NULL, NULL, NULL);",
        )
        .unwrap();
    for (json, expected) in [
        ("{}", &[1, 2, 3, 4][..]),
        (r#"{"ids":[43,41]}"#, &[1, 2, 4]),
        (r#"{"domain":"example.org"}"#, &[1, 2, 3]),
        (r#"{"recipient":"x@example.org"}"#, &[1, 2]),
        (r#"{"sender":"a@client.example"}"#, &[1, 2]),
        (r#"{"sender":"@other.example"}"#, &[4]),
        (r#"{"sender":"<>"}"#, &[3]),
        (r#"{"remote":"relay.lan"}"#, &[1]),
        (r#"{"remote":"RELAY.lan:25"}"#, &[1]),
        (r#"{"remote":"relay.lan:26"}"#, &[]),
        (r#"{"remote":"relay.lan:25/starttls"}"#, &[1]),
        (r#"{"remote":"relay.lan:25/tls"}"#, &[]),
        (r#"{"message_id":"1@client.example"}"#, &[1, 2]),
        (r#"{"older_s":3600}"#, &[3]),
        (r#"{"status":"4.7"}"#, &[1]),
        (r#"{"status":"4"}"#, &[1, 3]),
        (r#"{"status":"42"}"#, &[3]),
    ] {
        assert_eq!(ids(&fixture, &query(json), Direction::OldestFirst), expected, "{json}");
    }
    let since = HistoryQuery { since: Some(UnixMillis(3000)), ..query("{}") };
    assert_eq!(ids(&fixture, &since, Direction::NewestFirst), [4, 3]);
    let result = HistoryQuery { result: Some("failed".to_owned()), ..query("{}") };
    assert_eq!(ids(&fixture, &result, Direction::OldestFirst), [3]);
}

/// Batches go on behind each other in both directions, over gaps too.
#[test]
fn batches_cover_all_entries_once() {
    let fixture = with_ledger();
    fixture.execute(
        "WITH RECURSIVE n(i) AS (SELECT -5 UNION ALL SELECT i + iif(i = 100, 1000000, 1) FROM n LIMIT ?1) \
         INSERT INTO dispatch_attempts (attempt_id, mail_id, at_ms, result, recipient) SELECT i, i, i, 'failed', 'x' FROM n",
        [2 * BATCH_ENTRIES + 7],
    );
    let mut all = ids(&fixture, &query("{}"), Direction::OldestFirst);
    assert_eq!(all.len() as i64, 2 * BATCH_ENTRIES + 7);
    assert!(all.is_sorted());
    all.reverse();
    assert_eq!(ids(&fixture, &query("{}"), Direction::NewestFirst), all);
}

/// A ledger that is missing, or that has other columns, is no error.
#[test]
fn a_ledger_of_another_version_is_read_as_far_as_it_goes() {
    let fixture = Fixture::new();
    let reader = Reader::open(&fixture.path).unwrap();
    assert_eq!(ids(&fixture, &query("{}"), Direction::OldestFirst), [0; 0]);
    assert!(reader.conversations(&BTreeSet::from([1])).unwrap().is_empty());
    fixture
        .other
        .execute_batch(
            "CREATE TABLE dispatch_attempts (attempt_id INTEGER PRIMARY KEY, mail_id INTEGER, recipient TEXT, port TEXT);
             CREATE VIEW dispatch_history AS SELECT * FROM dispatch_attempts;
             INSERT INTO dispatch_attempts VALUES (1, 41, x'ff', 'x');",
        )
        .unwrap();
    let batch = reader.history(&query("{}"), Direction::OldestFirst, None).unwrap();
    let expected = AttemptRow {
        attempt_id: Some(1),
        mail_id: Some(41),
        recipient: Some("\\xff".to_owned()),
        ..AttemptRow::default()
    };
    assert_eq!(batch.attempts, [expected]);
}

/// A program that has dropped a table of the ledger, but not the view of it, costs only what stood in the ledger.
#[test]
fn a_ledger_without_a_table_is_none() {
    for table in ["dispatch_attempts", "dispatch_connections"] {
        let fixture = with_ledger();
        fixture.other.execute_batch(&format!("PRAGMA foreign_keys = off; DROP TABLE {table}")).unwrap();
        for json in ["{}", r#"{"ids":[1]}"#] {
            assert!(ids(&fixture, &query(json), Direction::OldestFirst).is_empty(), "{table} {json}");
        }
        let reader = Reader::open(&fixture.path).unwrap();
        assert_eq!(reader.conversations(&BTreeSet::from([1])).unwrap(), []);
    }
}
