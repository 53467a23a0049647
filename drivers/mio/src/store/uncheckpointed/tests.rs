use cmail_delivery::outbox::{MailId, Replacement, StoreReply, StoreRequest};
use cmail_delivery::time::UnixTime;

use super::super::fixture::{Fixture, bounce_to, refused};
use super::super::paths::with_suffix;
use super::*;

fn claim(fixture: &mut Fixture, ids: &[MailId]) {
    fixture.answer(StoreRequest::Claim {
        signing: None,
        ids: ids.to_vec(),
        transactions: ids.len(),
        recipients: 100,
    });
}

fn commit(fixture: &mut Fixture, commit: Commit) {
    let reply = fixture.answer(StoreRequest::Commit(commit));
    assert!(matches!(reply, StoreReply::Committed(_)));
}

fn failure(id: MailId) -> FailedAttempt {
    refused(id, "later", UnixTime(1000), false)
}

/// Deletes the log under all that use it. The other program opens the database anew.
fn lose_log(fixture: &mut Fixture) {
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(with_suffix(&fixture.path, suffix)).unwrap();
    }
    // In one process SQLite would let it share the lost index with the store.
    fixture.other = Connection::open_in_memory().unwrap();
    fixture.database.ensure_open().unwrap();
    fixture.other = Connection::open(&fixture.path).unwrap();
}

/// Three mails that are in the database itself, and a log to be lost.
fn fixture() -> (Fixture, [MailId; 3]) {
    let fixture = Fixture::new();
    let ids = ["a", "b", "c"].map(|name| fixture.mail(Some("s@example.net"), name, name.as_bytes()));
    fixture.other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    (fixture, ids)
}

#[test]
fn what_was_recorded_in_a_lost_log_is_recorded_anew() {
    let (mut fixture, [a, b, c]) = fixture();
    claim(&mut fixture, &[a, b, c]);
    commit(&mut fixture, Commit { delivered: vec![a.into()], failed: vec![failure(b)], ..Commit::default() });
    let bounce = bounce_to(&["s@example.net"]);
    let replaced = vec![Replacement { originals: vec![c], expired: Vec::new(), bounce: Some(bounce) }];
    commit(&mut fixture, Commit { replaced, ..Commit::default() });
    lose_log(&mut fixture);
    let rows = "SELECT group_concat(mail_envelopeto || '=' || substr(mail_data, 1, 5), ' ') FROM outbox ORDER BY mail_id";
    let found: String = fixture.other.query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(found, "b=b s@example.net=From:");
    assert_eq!(fixture.number("SELECT count(*) FROM faillog"), 1);
    // And if it is lost once more, once more.
    lose_log(&mut fixture);
    assert_eq!(fixture.number("SELECT count(*) FROM outbox"), 2);
    assert_eq!(fixture.number("SELECT count(*) FROM faillog"), 1);
}

#[test]
fn other_mail_that_has_the_number_now_is_not_taken_for_what_was_delivered() {
    let (mut fixture, [a, ..]) = fixture();
    claim(&mut fixture, &[a]);
    commit(&mut fixture, Commit { delivered: vec![a.into()], failed: Vec::new(), ..Commit::default() });
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(with_suffix(&fixture.path, suffix)).unwrap();
    }
    fixture.other = Connection::open_in_memory().unwrap();
    // What other programs have made of it meanwhile.
    let new = Fixture::with_journal_mode("DELETE");
    assert_eq!(new.mail(Some("s@example.net"), "new", b"new"), a);
    std::fs::write(&fixture.path, std::fs::read(&new.path).unwrap()).unwrap();
    fixture.database.ensure_open().unwrap();
    fixture.other = Connection::open(&fixture.path).unwrap();
    assert_eq!(fixture.number("SELECT count(*) FROM outbox WHERE mail_data = 'new'"), 1);
}

#[test]
fn what_is_in_the_database_itself_is_forgotten() {
    let (mut fixture, [a, ..]) = fixture();
    claim(&mut fixture, &[a]);
    let long = refused(a, &"x".repeat(CHECKPOINT_OCTETS), UnixTime(1000), false);
    commit(&mut fixture, Commit { failed: vec![failure(a)], ..Commit::default() });
    assert_eq!(fixture.database.uncheckpointed.commits.len(), 1);
    commit(&mut fixture, Commit { failed: vec![long], ..Commit::default() });
    assert_eq!(fixture.database.uncheckpointed.commits.len(), 0);
}

#[test]
fn a_reader_without_end_does_not_let_it_grow_without_end() {
    let mut uncheckpointed = Uncheckpointed::default();
    let long = refused(MailId(1), &"x".repeat(LIMIT_OCTETS / 4), UnixTime(1000), false);
    for _ in 0..20 {
        uncheckpointed.push(Commit { failed: vec![long.clone()], ..Commit::default() }, Vec::new(), 1);
    }
    assert!(
        uncheckpointed.octets <= LIMIT_OCTETS && uncheckpointed.commits.len() == 3,
        "{}",
        uncheckpointed.octets
    );
}

#[test]
fn a_rollback_journal_needs_no_memory() {
    let mut fixture = Fixture::with_journal_mode("DELETE");
    let a = fixture.mail(None, "a", b"a");
    claim(&mut fixture, &[a]);
    commit(&mut fixture, Commit { delivered: vec![a.into()], ..Commit::default() });
    assert!(fixture.database.uncheckpointed.commits.is_empty());
}
