use std::fs;

use cmail_delivery::outbox::{Cursor, StoreRequest};

use super::super::fixture::Fixture;
use super::*;

fn watch(fixture: &Fixture) -> Watch {
    Watch::new(fixture.database.path()).unwrap()
}

#[test]
fn what_another_process_writes_is_seen() {
    for mode in ["WAL", "DELETE", "TRUNCATE", "PERSIST"] {
        let fixture = Fixture::with_journal_mode(mode);
        let mut watch = watch(&fixture);
        assert!(!watch.drain(), "{mode}");
        fixture.mail(None, "r@example.org", b"data");
        assert!(watch.drain(), "{mode}");
        assert!(!watch.drain(), "{mode}");
        fixture.mail(None, "r@example.org", b"data");
        assert!(watch.drain(), "{mode}");
    }
}

#[test]
fn reading_is_no_change() {
    for mode in ["WAL", "DELETE"] {
        let mut fixture = Fixture::with_journal_mode(mode);
        let id = fixture.mail(None, "r@example.org", b"data");
        let mut watch = watch(&fixture);
        fixture.answer(StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 10 });
        fixture.answer(StoreRequest::Claim {
            signing: None,
            ids: vec![id],
            transactions: 1,
            recipients: 100,
        });
        assert!(!watch.drain(), "{mode}");
    }
}

#[test]
fn other_files_of_the_directory_are_ignored() {
    let fixture = Fixture::new();
    let mut watch = watch(&fixture);
    for name in ["other.db3", "master.db3-shm-x", "master.db"] {
        fs::write(fixture.directory.path().join(name), "x").unwrap();
    }
    assert!(!watch.drain());
}

#[test]
fn a_log_that_appears_later_is_watched_too() {
    let fixture = Fixture::with_journal_mode("DELETE");
    let mut watch = watch(&fixture);
    let mode: String =
        fixture.other.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    fixture.mail(None, "r@example.org", b"data");
    assert!(watch.drain());
    fixture.mail(None, "r@example.org", b"data");
    assert!(watch.drain());
}

#[test]
fn a_database_that_takes_the_name_is_watched() {
    let fixture = Fixture::with_journal_mode("DELETE");
    let mut watch = watch(&fixture);
    let new = fixture.directory.path().join("new.db3");
    fs::copy(&fixture.path, &new).unwrap();
    fs::rename(&new, &fixture.path).unwrap();
    assert!(watch.drain());
    let other = rusqlite::Connection::open(&fixture.path).unwrap();
    other.execute("INSERT INTO outbox (mail_envelopeto) VALUES ('r')", []).unwrap();
    assert!(watch.drain());
}

#[test]
fn a_directory_that_is_gone_is_no_watch() {
    let directory = tempfile::tempdir().unwrap();
    assert!(Watch::new(&directory.path().join("none").join("master.db3")).is_none());
}
