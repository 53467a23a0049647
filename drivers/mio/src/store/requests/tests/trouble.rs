//! A database that is locked, damaged, moved away or replaced.

use super::*;

#[test]
fn a_busy_database_is_an_error_that_does_nothing_and_passes() {
    for mode in ["WAL", "DELETE"] {
        let mut fixture = Fixture::with_journal_mode(mode);
        let id = fixture.mail(None, "a@example.org", b"x");
        let request = StoreRequest::Commit(Commit { delivered: vec![id.into()], ..Commit::default() });
        fixture.other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let text = fixture.try_answer(request.clone()).unwrap_err().text;
        assert!(text.contains("master.db3") && text.contains("locked"), "{text}");
        fixture.other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(ids(&scan(&mut fixture, 0, 1).0), [id.0]);
        fixture.answer(request);
        assert_eq!(ids(&scan(&mut fixture, 0, 1).0), [0_i64; 0]);
    }
}

#[test]
fn no_request_leaves_a_lock_behind() {
    let mut fixture = Fixture::with_journal_mode("DELETE");
    let id = fixture.mail(None, "a@example.org", &vec![b'x'; 200_000]);
    let requests = [
        StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 1 },
        StoreRequest::Claim { signing: None, ids: vec![id], transactions: 1, recipients: 100 },
        StoreRequest::ReadData { id, offset: 70_000, limit: 1000 },
        StoreRequest::ReadFailed { ids: vec![id], original_limit_octets: 10 },
        StoreRequest::Commit(Commit { failed: vec![failure(id, 1, false)], ..Commit::default() }),
    ];
    for request in requests {
        fixture.answer(request.clone());
        // In this journal mode, any lock of a reader makes this fail.
        assert!(fixture.other.execute_batch("BEGIN EXCLUSIVE; COMMIT").is_ok(), "{request:?}");
    }
}

#[test]
fn the_index_that_could_not_be_made_is_made_later_and_commits_do_not_wait_for_it() {
    let fixture = Fixture::new();
    let index = "SELECT count(*) FROM sqlite_schema WHERE name = 'dispatch_faillog_mail'";
    assert_eq!(fixture.number(index), 1);
    fixture.execute("DROP INDEX dispatch_faillog_mail", []);
    // The lock is held by another thread, so that opening runs into it.
    fixture.other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut database = open(&fixture.path, std::time::Duration::ZERO).unwrap();
    database.prepare_index();
    fixture.other.execute_batch("ROLLBACK").unwrap();
    let id = fixture.mail(None, "a@example.org", b"x");
    let commit = Commit { failed: vec![failure(id, 1, false)], ..Commit::default() };
    database.answer(StoreRequest::Commit(commit)).unwrap();
    assert_eq!(fixture.number(index), 0);
    database.prepare_index();
    assert_eq!(fixture.number(index), 1);
}

#[test]
fn a_database_that_is_moved_away_is_not_written_to_any_more() {
    let mut fixture = Fixture::new();
    let id = fixture.mail(None, "a@example.org", b"x");
    let away = fixture.directory.path().join("away.db3");
    fixture.other.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let before = scan(&mut fixture, 0, 1).2;
    std::fs::rename(&fixture.path, &away).unwrap();
    let request = StoreRequest::Commit(Commit { delivered: vec![id.into()], ..Commit::default() });
    let text = fixture.try_answer(request).unwrap_err().text;
    assert!(text.contains("there is no database"), "{text}");
    std::fs::rename(&away, fixture.directory.path().join("master.db3")).unwrap();
    assert_eq!(ids(&scan(&mut fixture, 0, 1).0), [id.0]);
    let between = scan(&mut fixture, 0, 1).2;
    assert_ne!(between, before, "whatever has happened to it meanwhile");

    std::fs::copy(&fixture.path, &away).unwrap();
    std::fs::rename(&away, &fixture.path).unwrap();
    assert_eq!(ids(&scan(&mut fixture, 0, 1).0), [id.0]);
    assert_ne!(scan(&mut fixture, 0, 1).2, between, "another file may hold anything");
}

#[test]
fn the_log_of_a_database_that_was_replaced_is_not_played_into_the_other_one() {
    let mut fixture = Fixture::new();
    let other = Fixture::with_journal_mode("DELETE");
    let id = fixture.mail(None, "a@example.org", b"x");
    std::fs::rename(&other.path, &fixture.path).unwrap();
    let text = fixture.try_answer(StoreRequest::Commit(Commit::default())).unwrap_err().text;
    assert!(
        text.contains("master.db3-wal belongs to another file") && text.contains("remove the log"),
        "{text}"
    );
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(super::super::super::paths::with_suffix(&fixture.path, suffix)).unwrap();
    }
    assert_eq!(ids(&scan(&mut fixture, 0, 1).0), [0; 0], "{id} was in the other one");
}

#[test]
fn a_damaged_database_is_an_error_and_nothing_worse() {
    let mut fixture = Fixture::with_journal_mode("DELETE");
    fixture.mail(None, "a@example.org", &vec![b'x'; 300_000]);
    let length = std::fs::metadata(&fixture.path).unwrap().len();
    let mut octets = std::fs::read(&fixture.path).unwrap();
    octets[100..].fill(0x5a);
    std::fs::write(&fixture.path, &octets).unwrap();
    assert_eq!(std::fs::metadata(&fixture.path).unwrap().len(), length);
    fixture.execute_ignoring_errors("UPDATE meta SET value = '9'");
    for request in [
        StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 1 },
        StoreRequest::Commit(Commit { delivered: vec![MailId(1).into()], ..Commit::default() }),
    ] {
        let text = fixture.try_answer(request).unwrap_err().text;
        assert!(text.contains("master.db3"), "{text}");
    }
}
