use rusqlite::Connection;

use super::super::fixture::Fixture;
use super::*;
use crate::store::initdb;

/// A look at a database makes neither tables nor files, and needs no table of ours.
#[test]
fn looking_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.db3");
    initdb(&path, None).unwrap();
    let before = std::fs::read(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert!(!reader.is_faillog_indexed.get());
    reader.prepare_faillog().unwrap();
    let written = reader.read(|connection| connection.execute("CREATE TABLE dispatch_x (y)", []));
    assert!(written.is_err());
    drop(reader);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// The copy has all failures, in the order of mails and then of what was recorded first, and nothing twice.
#[test]
fn the_faillog_is_copied_in_parts() {
    let fixture = Fixture::new();
    fixture.mail(None, "x@example.org", b"");
    fixture.mail(None, "y@example.org", b"");
    let count = 2 * COPIED_FAILURES as i64 + 3;
    fixture.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?1) \
         INSERT INTO faillog (fail_mail, fail_message, fail_time) SELECT 1 + i % 2, i, i FROM n",
        [count],
    );
    fixture.other.execute_batch("DROP INDEX dispatch_faillog_mail").unwrap();
    let reader = Reader::open(&fixture.path).unwrap();
    reader.prepare_faillog().unwrap();
    let all = |connection: &Connection| {
        let mut statement = connection
            .prepare("SELECT fail_mail, CAST(fail_message AS INTEGER) FROM faillog ORDER BY rowid")?;
        statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<(i64, i64)>>>()
    };
    let copied = reader.read(all).unwrap();
    assert!(copied.is_sorted());
    assert_eq!(copied.len() as i64, count);
    assert_eq!(copied.iter().map(|(_, number)| number).sum::<i64>(), count * (count + 1) / 2);
}

/// Whoever keeps the database locked is named.
#[test]
fn the_holder_of_a_lock_is_named() {
    let fixture = Fixture::with_journal_mode("DELETE");
    let reader = Reader::open(&fixture.path).unwrap();
    let other = Connection::open(&fixture.path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = ReadError::from_sqlite(
        &reader.connection,
        &reader.path,
        &rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None),
    );
    let expected = format!("is locked by process {} (", std::process::id());
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(error.to_string().ends_with("try again"), "{error}");
}
