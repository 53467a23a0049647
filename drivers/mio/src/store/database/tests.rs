use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use cmail_delivery::outbox::{Cursor, MailId, StoreRequest};

use super::super::fixture::{Fixture, open, without_privileges};
use super::*;

/// What both [`Database::open`] and [`check`] say of a file that is not as it should be.
fn complaint(path: &Path) -> String {
    let opened = open(path, Duration::ZERO).unwrap_err().to_string();
    assert_eq!(opened, check(path).unwrap_err().to_string());
    assert!(opened.contains(&path.display().to_string()), "{opened}");
    opened
}

#[test]
fn a_database_of_schema_9_is_opened_and_stays_as_it_is() {
    for mode in ["wal", "delete", "persist"] {
        let fixture = Fixture::with_journal_mode(&mode.to_uppercase());
        check(&fixture.path).unwrap();
        let schema = "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'dispatch_%' AND name NOT LIKE 'sqlite_%'";
        assert_eq!(fixture.number(schema), 13);
        // How a journal is kept is only stored in the file if it is WAL.
        let found: String = fixture.other.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(found, mode);
    }
}

#[test]
fn a_connection_enforces_foreign_keys_and_waits_for_the_disk() {
    let fixture = Fixture::new();
    let pragma = |name| -> i64 {
        fixture.database.connection.pragma_query_value(None, name, |row| row.get(0)).unwrap()
    };
    assert_eq!((pragma("foreign_keys"), pragma("synchronous")), (1, 2));
}

#[test]
fn a_version_that_is_stored_as_a_number_is_a_version_too() {
    let fixture = Fixture::new();
    fixture.other.execute_batch(
        "DROP TABLE meta; CREATE TABLE meta (key TEXT PRIMARY KEY, value); INSERT INTO meta VALUES ('schema_version', 9)",
    ).unwrap();
    check(&fixture.path).unwrap();
}

#[test]
fn another_schema_is_described_and_refused() {
    for (change, found) in [
        ("UPDATE meta SET value = '8'", "schema version `8`"),
        ("UPDATE meta SET value = NULL", "schema version ``"),
        ("UPDATE meta SET value = '9' || hex(zeroblob(1000000))", "schema version ``"),
        ("DELETE FROM meta", "no key `schema_version`"),
        ("DROP TABLE meta", "no table or view `meta`"),
        ("DROP VIEW outbound", "no table or view `outbound`"),
        (
            "DROP VIEW outbound; CREATE VIEW outbound AS SELECT mail_id FROM outbox",
            "`outbound` has no column `mail_remote`",
        ),
        (
            "ALTER TABLE faillog RENAME COLUMN fail_message TO reason",
            "`faillog` has no column `fail_message`",
        ),
    ] {
        let fixture = Fixture::new();
        fixture.other.execute_batch(change).unwrap();
        let text = complaint(&fixture.path);
        assert!(text.contains(found) && text.contains("initdb"), "{change}: {text}");
    }
}

#[test]
fn what_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    assert!(complaint(&path).contains("there is no database"));
    assert!(!path.exists());
    assert!(complaint(directory.path()).contains("is not a regular file"));
    fs::write(&path, "").unwrap();
    assert!(complaint(&path).contains("it is an empty file"));
    fs::write(&path, "verbosity 1\n".repeat(1000)).unwrap();
    assert!(complaint(&path).contains("is not an SQLite database"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "verbosity 1\n".repeat(1000));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_damaged_database_is_refused() {
    let fixture = Fixture::with_journal_mode("DELETE");
    let mut octets = fs::read(&fixture.path).unwrap();
    octets[100..].fill(0x5a);
    fs::write(&fixture.path, octets).unwrap();
    assert!(complaint(&fixture.path).contains("damaged"));
}

#[test]
fn texts_of_another_encoding_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("utf16.db3");
    let fixture = Fixture::new();
    let statements: Vec<String> = fixture
        .other
        .prepare("SELECT sql FROM sqlite_schema WHERE sql NOT NULL AND name NOT LIKE 'sqlite_%'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA encoding = 'UTF-16le'").unwrap();
    other.execute_batch(&statements.join(";")).unwrap();
    other.execute("INSERT INTO meta VALUES ('schema_version', '9')", []).unwrap();
    assert!(complaint(&path).contains("UTF-16le"));
}

#[test]
fn a_database_that_another_process_keeps_locked_is_busy() {
    let fixture = Fixture::with_journal_mode("DELETE");
    fixture.other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let error = open(&fixture.path, Duration::ZERO).unwrap_err();
    assert!(matches!(error, OpenError::Busy(_)), "{error}");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_may_not_be_written_is_refused_also_by_the_check() {
    let fixture = Fixture::with_journal_mode("DELETE");
    let directory = fixture.directory.path();
    let path = &fixture.path;
    set_mode(directory, 0o777);
    set_mode(path, 0o444);
    without_privileges(|| {
        assert!(matches!(open(path, Duration::ZERO), Err(OpenError::ReadOnly(_))));
        assert!(matches!(check(path), Err(OpenError::ReadOnly(_))));
    });
    set_mode(path, 0o666);
    set_mode(directory, 0o555);
    without_privileges(|| {
        assert!(matches!(open(path, Duration::ZERO), Err(OpenError::DirectoryReadOnly(_))));
        assert!(matches!(check(path), Err(OpenError::DirectoryReadOnly(_))));
    });
    set_mode(directory, 0o777);
    set_mode(path, 0);
    without_privileges(|| {
        assert!(matches!(open(path, Duration::ZERO), Err(OpenError::Unreadable { .. })));
        assert!(matches!(check(path), Err(OpenError::Unreadable { .. })));
    });
    set_mode(path, 0o666);
    without_privileges(|| {
        open(path, Duration::ZERO).unwrap();
    });
}

#[test]
fn checking_changes_nothing() {
    let fixture = Fixture::with_journal_mode("DELETE");
    fixture.execute("DROP INDEX dispatch_faillog_mail", []);
    let before = fs::read(&fixture.path).unwrap();
    check(&fixture.path).unwrap();
    assert!(fs::read(&fixture.path).unwrap() == before);
    assert_eq!(fs::read_dir(fixture.directory.path()).unwrap().count(), 1);
}

#[test]
fn another_file_that_has_taken_the_name_is_a_change() {
    let mut fixture = Fixture::with_journal_mode("DELETE");
    let other = Fixture::with_journal_mode("DELETE");
    assert!(!fixture.database.look_for_change());
    fs::rename(&other.path, &fixture.path).unwrap();
    assert!(fixture.database.look_for_change());
    assert!(!fixture.database.look_for_change());
}

#[test]
fn an_index_is_created_unless_the_connection_is_cancelled() {
    let mut fixture = Fixture::with_journal_mode("DELETE");
    fixture.execute("DROP INDEX dispatch_faillog_mail", []);
    fixture
        .other
        .execute_batch(
            "INSERT INTO outbox (mail_id, mail_envelopeto) VALUES (1, 'r');
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO faillog (fail_mail) SELECT 1 FROM n",
        )
        .unwrap();
    let index = "SELECT count(*) FROM sqlite_schema WHERE name = 'dispatch_faillog_mail'";
    let cancelled = CancelToken::default();
    cancelled.cancel();
    let file = fixture.database.files.database();
    let mut database = Database::open_with(file, Duration::ZERO, cancelled).unwrap();
    let error = database.ensure_index().unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::OperationInterrupted));
    assert_eq!(fixture.number(index), 0);
    let scan = StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 10 };
    assert!(database.answer(scan).unwrap_err().text.contains("interrupted"));
    // What has to be done is done all the same, also if it takes as many steps.
    database
        .answer(StoreRequest::Commit(Commit { delivered: vec![MailId(1).into()], ..Commit::default() }))
        .unwrap();
    assert_eq!(fixture.number("SELECT count(*) FROM faillog"), 0);
    fixture.database.additions.is_indexed = false;
    fixture.database.ensure_index().unwrap();
    assert_eq!(fixture.number(index), 1);
}

#[test]
fn a_write_ahead_log_passes_the_check_with_a_warning() {
    for (mode, is_warned) in [("WAL", true), ("DELETE", false), ("PERSIST", false), ("TRUNCATE", false)] {
        let fixture = Fixture::with_journal_mode(mode);
        fixture.execute("DELETE FROM outbox", []);
        let expected = is_warned.then(|| DatabaseWarning::WriteAheadLog { path: fixture.path.clone() });
        assert_eq!(check(&fixture.path).unwrap(), expected, "{mode}");
    }
}
