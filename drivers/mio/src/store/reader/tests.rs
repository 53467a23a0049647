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
