use std::os::unix::fs::FileExt;

use cmail_delivery::outbox::{
    Claimed, FailedAttempt, Replacement, Scanned, StoreReply, StoreRequest, StoreTrouble,
};
use cmail_delivery::time::UnixTime;

use super::super::fixture::{self, Fixture, bounce_to};
use super::*;

struct Answer {
    failed: Vec<i64>,
    not_replaced: Vec<i64>,
    refused: Vec<i64>,
    not_noted: Vec<i64>,
    texts: String,
}

fn numbers(ids: &[MailId]) -> Vec<i64> {
    ids.iter().map(|id| id.0).collect()
}

fn commit(fixture: &mut Fixture, commit: Commit) -> Answer {
    let reply = fixture.answer(StoreRequest::Commit(commit));
    let StoreReply::Committed(Committed { failed, not_replaced, refused, not_noted, .. }) = reply else {
        panic!("that is no answer to a commit")
    };
    Answer {
        failed: failed.iter().map(|state| state.id.0).collect(),
        not_replaced: numbers(&not_replaced),
        refused: refused.iter().map(|refused| refused.id.0).collect(),
        not_noted: numbers(&not_noted),
        texts: refused.iter().map(|refused| format!("{}\n", refused.text)).collect(),
    }
}

fn delivered(ids: &[MailId]) -> Commit {
    Commit { delivered: fixture::delivered(ids), ..Commit::default() }
}

fn failed(id: MailId) -> FailedAttempt {
    fixture::refused(id, "no", UnixTime(5), false)
}

fn replacement(originals: &[MailId]) -> Replacement {
    let bounce = bounce_to(&["s@example.org"]);
    Replacement { originals: originals.to_vec(), expired: Vec::new(), bounce: Some(bounce) }
}

fn mails(fixture: &Fixture, count: usize) -> Vec<MailId> {
    (0..count).map(|_| fixture.mail(Some("s@example.org"), "r@example.org", b"text")).collect()
}

fn scan(fixture: &mut Fixture) -> (Vec<i64>, Vec<i64>, Vec<i64>) {
    let request = StoreRequest::Scan { after: cmail_delivery::outbox::Cursor::BeforeFirst, limit: 1000 };
    let StoreReply::Scanned(Scanned { rows, taken, unreadable, .. }) = fixture.answer(request) else {
        panic!("that is no answer to a scan")
    };
    let unreadable = unreadable.iter().map(|refused| refused.id.0).collect();
    (rows.iter().map(|row| row.id.0).collect(), numbers(&taken), unreadable)
}

/// What other programs may lay down so that mail 2 cannot be deleted.
const OBSTACLES: [&str; 6] = [
    "CREATE TRIGGER t BEFORE DELETE ON outbox WHEN old.mail_id = 2 BEGIN SELECT RAISE(ABORT, 'not that'); END",
    "CREATE TRIGGER t BEFORE DELETE ON outbox WHEN old.mail_id = 2 BEGIN SELECT RAISE(ROLLBACK, 'not that'); END",
    "CREATE TRIGGER t BEFORE DELETE ON outbox WHEN old.mail_id = 2 BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TRIGGER t AFTER DELETE ON outbox WHEN old.mail_id = 2 BEGIN SELECT abs(-9223372036854775807 - 1); END",
    "CREATE TABLE t (mail INTEGER REFERENCES outbox(mail_id) ON DELETE RESTRICT); INSERT INTO t VALUES (2)",
    "CREATE TABLE t (mail INTEGER REFERENCES outbox(mail_id) DEFERRABLE INITIALLY DEFERRED); INSERT INTO t VALUES (2)",
];

#[test]
fn taken_mail_that_cannot_be_deleted_costs_only_itself_and_is_noted() {
    for (obstacle, mode) in OBSTACLES.iter().zip(["WAL", "DELETE"].iter().cycle()) {
        let mut fixture = Fixture::with_journal_mode(mode);
        let ids = mails(&fixture, 4);
        fixture.other.execute_batch(obstacle).unwrap();
        let mut all = delivered(&ids[..3]);
        all.failed.push(failed(ids[3]));
        let answer = commit(&mut fixture, all);
        assert_eq!((answer.refused, answer.failed), (vec![2], vec![4]), "{obstacle}");
        assert!(answer.not_noted.is_empty() && answer.texts.contains("mail 2 to <r@example.org>"));
        assert_eq!(scan(&mut fixture), (vec![4], vec![2], vec![]), "{obstacle}");
        assert_eq!(fixture.number("SELECT count(*) FROM dispatch_stuck WHERE mail_id = 2 AND text <> ''"), 1);
        // The obstacle goes.
        fixture.execute_ignoring_errors("DROP TRIGGER t");
        fixture.execute_ignoring_errors("DROP TABLE t");
        assert!(commit(&mut fixture, delivered(&ids[1..2])).refused.is_empty());
        assert_eq!(scan(&mut fixture), (vec![4], vec![], vec![]));
        assert_eq!(fixture.number("SELECT count(*) FROM dispatch_stuck"), 0);
    }
}

#[test]
fn what_can_be_recorded_makes_no_table() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 1);
    commit(&mut fixture, delivered(&ids));
    assert_eq!(fixture.number("SELECT count(*) FROM sqlite_schema WHERE name = 'dispatch_stuck'"), 0);
}

#[test]
fn taken_mail_that_cannot_be_noted_either_is_named() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 3);
    fixture.other.execute_batch(OBSTACLES[0]).unwrap();
    fixture.other.execute_batch("CREATE VIEW dispatch_stuck AS SELECT 1").unwrap();
    let answer = commit(&mut fixture, delivered(&ids));
    assert_eq!((answer.refused, answer.not_noted), (vec![2], vec![2]));
    assert_eq!(scan(&mut fixture).0, [2]);
}

#[test]
fn a_failure_that_cannot_be_recorded_costs_only_itself() {
    let obstacles = [
        "CREATE TRIGGER t BEFORE INSERT ON faillog WHEN new.fail_mail = 2 BEGIN SELECT RAISE(ABORT, 'no'); END",
        "CREATE TRIGGER t BEFORE INSERT ON faillog WHEN new.fail_mail = 2 BEGIN SELECT RAISE(IGNORE); END",
    ];
    for obstacle in obstacles {
        let mut fixture = Fixture::new();
        let ids = mails(&fixture, 3);
        fixture.other.execute_batch(obstacle).unwrap();
        let all = Commit { failed: ids.iter().map(|id| failed(*id)).collect(), ..Commit::default() };
        let answer = commit(&mut fixture, all);
        assert_eq!((answer.failed, answer.refused), (vec![1, 3], vec![2]), "{obstacle}");
        assert_eq!(fixture.number("SELECT count(*) FROM faillog"), 2);
    }
}

#[test]
fn of_a_bounce_for_several_only_those_are_refused_that_cannot_be_deleted() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 4);
    fixture.other.execute_batch(OBSTACLES[0]).unwrap();
    let all = Commit { replaced: vec![replacement(&ids[..3]), replacement(&ids[3..])], ..Commit::default() };
    let answer = commit(&mut fixture, all);
    assert_eq!((answer.refused, answer.not_replaced), (vec![2], vec![1, 3]));
    assert_eq!(scan(&mut fixture).0, [1, 2, 3, 5], "one bounce was made, for the other message");
}

#[test]
fn a_bounce_that_gets_no_id_stops_nothing_and_is_not_taken_for_a_full_disk() {
    let mut fixture = Fixture::new();
    let ids = mails(&fixture, 2);
    fixture.execute(
        "INSERT INTO outbox (mail_id, mail_envelopeto) VALUES (9223372036854775807, 'r@example.org')",
        [],
    );
    let mut all = delivered(&ids[..1]);
    all.replaced.push(replacement(&ids[1..]));
    let answer = commit(&mut fixture, all);
    assert_eq!(answer.refused, [2]);
    assert!(answer.texts.contains("ids of the table outbox are used up"), "{}", answer.texts);
    assert_eq!(scan(&mut fixture).0, [2, i64::MAX]);
}

#[test]
fn a_full_disk_is_no_fault_of_a_row_and_what_was_done_before_is_undone() {
    let mut fixture = Fixture::with_journal_mode("DELETE");
    let ids = mails(&fixture, 2);
    let pages = fixture.database.connection.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0));
    fixture.database.connection.pragma_update(None, "max_page_count", pages.unwrap()).unwrap();
    let words = "x".repeat(500);
    let failed = vec![fixture::refused(ids[1], &words, UnixTime(5), false); 200];
    let commit = Commit { delivered: vec![ids[0].into()], failed, ..Commit::default() };
    let error = fixture.try_answer(StoreRequest::Commit(commit)).unwrap_err();
    assert_eq!(error.trouble, StoreTrouble::Full);
    assert_eq!(scan(&mut fixture).0, [1, 2]);
}

#[test]
fn mail_on_a_damaged_page_costs_only_itself() {
    let mut fixture = Fixture::with_journal_mode("DELETE");
    let ids: Vec<MailId> = (0..3)
        .map(|number| fixture.mail(Some("s@example.org"), "r@example.org", &vec![b'a' + number; 40_000]))
        .collect();
    damage(&fixture, b'b');
    let reply = fixture.answer(StoreRequest::Claim {
        signing: None,
        ids: ids.clone(),
        transactions: 50,
        recipients: 100,
    });
    let StoreReply::Claimed(Claimed { transactions, unreadable, .. }) = reply else {
        panic!("that is no answer to a claim")
    };
    let claimed: Vec<i64> =
        transactions.iter().flat_map(|transaction| &transaction.rows).map(|row| row.id.0).collect();
    assert_eq!((claimed, unreadable[0].id.0, unreadable.len()), (vec![1, 3], 2, 1));
    assert!(unreadable[0].text.contains("mail 2 to <r@example.org>"), "{}", unreadable[0].text);
    let reply = fixture.answer(StoreRequest::ReadFailed { ids, original_limit_octets: 1 << 20 });
    let StoreReply::Failed { messages, unreadable, .. } = reply else {
        panic!("that is no answer to a reading of failed mail")
    };
    assert_eq!((messages.len(), unreadable[0].id.0), (2, 2));
}

/// Overwrites the pages that hold nothing but this octet, and so breaks the chain that they are in.
fn damage(fixture: &Fixture, octet: u8) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&fixture.path).unwrap();
    let octets = std::fs::read(&fixture.path).unwrap();
    let page_octets = usize::try_from(fixture.number("PRAGMA page_size")).unwrap();
    for (number, page) in octets.chunks(page_octets).enumerate() {
        if page[4..].iter().all(|found| *found == octet) {
            file.write_all_at(&vec![0xff; page_octets], (number * page_octets) as u64).unwrap();
        }
    }
}
