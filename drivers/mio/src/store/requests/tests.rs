mod trouble;

use bytes::Bytes;
use cmail_delivery::bounce::compose_ordered;
use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::hold::Hold;
use cmail_delivery::outbox::{Cursor, FailedAttempt, Replacement, Row};
use cmail_delivery::time::UnixTime;
use rusqlite::StatementStatus;
use rusqlite::types::Value;

use super::super::fixture::{Fixture, bounce_to, delivered, open, refused};
use super::super::rows;
use super::*;

/// The rows after an id: what a cursor names.
fn scan(fixture: &mut Fixture, after: i64, limit: u32) -> (Vec<Row>, bool, i64) {
    scan_from(fixture, Cursor::After(MailId(after)), limit)
}

fn scan_from(fixture: &mut Fixture, after: Cursor, limit: u32) -> (Vec<Row>, bool, i64) {
    let StoreReply::Scanned(Scanned { rows, next, data_version, .. }) =
        fixture.answer(StoreRequest::Scan { after, limit })
    else {
        panic!("that is no answer to a scan")
    };
    (rows, next.is_some(), data_version)
}

fn commit(fixture: &mut Fixture, commit: Commit) -> (Vec<Row>, Vec<MailId>) {
    let (failed, not_replaced, changed) = commit_to_changed(fixture, commit);
    assert_eq!(changed, []);
    (failed, not_replaced)
}

fn commit_to_changed(fixture: &mut Fixture, commit: Commit) -> (Vec<Row>, Vec<MailId>, Vec<Row>) {
    let StoreReply::Committed(Committed { failed, not_replaced, changed, .. }) =
        fixture.answer(StoreRequest::Commit(commit))
    else {
        panic!("that is no answer to a commit")
    };
    (failed, not_replaced, changed)
}

fn claim(fixture: &mut Fixture, ids: &[MailId]) {
    fixture.answer(StoreRequest::Claim {
        signing: None,
        ids: ids.to_vec(),
        transactions: usize::MAX,
        recipients: 100,
    });
}

fn failure(id: MailId, time: i64, fatal: bool) -> FailedAttempt {
    refused(id, &format!("later, at {time}"), UnixTime(time), fatal)
}

fn ids(rows: &[Row]) -> Vec<i64> {
    rows.iter().map(|row| row.id.0).collect()
}

#[test]
fn a_scan_goes_on_where_the_one_before_ended() {
    let mut fixture = Fixture::new();
    for recipient in ["a@example.org", "b@example.org", "c@example.org"] {
        fixture.mail(Some("s@example.net"), recipient, b"data");
    }
    let (rows, more, _) = scan(&mut fixture, 0, 2);
    assert_eq!((ids(&rows), more), (vec![1, 2], true));
    let (rows, more, _) = scan(&mut fixture, 2, 2);
    assert_eq!((ids(&rows), more), (vec![3], false));
    let (rows, more, _) = scan(&mut fixture, 3, 2);
    assert_eq!((ids(&rows), more), (vec![], false));
    let (rows, more, _) = scan_from(&mut fixture, Cursor::BeforeFirst, 0);
    assert_eq!((ids(&rows), more), (vec![1], true), "it goes on in any case");
    let (rows, more, _) = scan_from(&mut fixture, Cursor::BeforeFirst, u32::MAX);
    assert_eq!((ids(&rows), more), (vec![1, 2, 3], false));
}

#[test]
fn ids_at_both_ends_are_scanned_claimed_and_recorded_like_all_others() {
    let mut fixture = Fixture::new();
    let ends = [MailId(i64::MIN), MailId(-1), MailId(0), MailId(i64::MAX)];
    for id in ends {
        fixture.execute(
            "INSERT INTO outbox (mail_id, mail_envelopeto, mail_data) VALUES (?1, 'r@example.org', 'x')",
            [id.0],
        );
    }
    let attempts = Commit { failed: ends.map(|id| failure(id, 5, false)).into(), ..Commit::default() };
    let (failed, _) = commit(&mut fixture, attempts);
    assert_eq!(failed.iter().map(|state| state.id).collect::<Vec<_>>(), ends);
    let (mut found, mut cursor) = (Vec::new(), Cursor::BeforeFirst);
    loop {
        let (rows, more, _) = scan_from(&mut fixture, cursor, 1);
        assert!(rows.iter().all(|row| (row.fail_count, row.last_try) == (1, UnixTime(5))), "{rows:?}");
        let Some(last) = rows.last() else { break };
        found.push(last.id);
        assert_eq!(more, last.id != MailId(i64::MAX));
        cursor = Cursor::After(last.id);
    }
    assert_eq!(found, ends, "and nothing follows the last of all ids");
    claim(&mut fixture, &ends);
    commit(&mut fixture, Commit { delivered: delivered(&ends), ..Commit::default() });
    assert_eq!(ids(&scan_from(&mut fixture, Cursor::BeforeFirst, 10).0), [0_i64; 0]);
}

#[test]
fn a_row_says_what_the_outbox_says() {
    let mut fixture = Fixture::new();
    fixture.execute(
        "INSERT INTO outbox (mail_id, mail_remote, mail_envelopefrom, mail_envelopeto, mail_submission, mail_data) \
         VALUES (7, 'u:p@relay.example', 's@example.net', 'r@example.org', '1700000000', 'some data')",
        [],
    );
    let expected = Row {
        id: MailId(7),
        remote: Some(Bytes::from_static(b"u:p@relay.example")),
        sender: Some(Bytes::from_static(b"s@example.net")),
        recipient: Bytes::from_static(b"r@example.org"),
        submission: UnixTime(1_700_000_000),
        data_octets: 9,
        fail_count: 0,
        last_try: UnixTime(0),
        fatal: false,
        last_failure: None,
        hold: Hold::default(),
        wishes: DsnWishes::default(),
    };
    assert_eq!(scan(&mut fixture, 0, 10).0, [expected]);
}

#[test]
fn values_of_odd_types_are_read_as_octets() {
    let mut fixture = Fixture::new();
    let insert = "INSERT INTO outbox (mail_remote, mail_envelopefrom, mail_envelopeto, mail_data) \
                  VALUES (?1, ?2, ?3, ?4)";
    fixture.execute(insert, (Value::Null, Value::Null, Value::Blob(b"\xff\0@x".to_vec()), Value::Null));
    fixture.execute(insert, (1.5, "", 12, 345));
    fixture.execute(insert, ("", Value::Blob(Vec::new()), "", Value::Blob(b"\0\xff".to_vec())));
    let (rows, ..) = scan(&mut fixture, 0, 10);
    let texts: Vec<_> = rows
        .iter()
        .map(|row| (row.remote.as_deref(), row.sender.as_deref(), &row.recipient[..], row.data_octets))
        .collect();
    assert_eq!(
        texts,
        [
            (None, None, &b"\xff\0@x"[..], 0),
            (Some(&b"1.5"[..]), None, &b"12"[..], 3),
            (Some(&b""[..]), None, &b""[..], 2)
        ]
    );
}

#[test]
fn the_length_of_data_is_counted_in_octets_beyond_nul() {
    let mut fixture = Fixture::new();
    fixture.mail(None, "r@example.org", "ä\0ö\0".as_bytes());
    assert_eq!(scan(&mut fixture, 0, 1).0[0].data_octets, 6);
}

#[test]
fn the_data_version_changes_when_another_process_writes_and_only_then() {
    for mode in ["WAL", "DELETE"] {
        let mut fixture = Fixture::with_journal_mode(mode);
        let id = fixture.mail(None, "r@example.org", b"");
        let first = scan(&mut fixture, 0, 1).2;
        commit(&mut fixture, Commit { failed: vec![failure(id, 1, false)], ..Commit::default() });
        assert_eq!(scan(&mut fixture, 0, 1).2, first);
        fixture.execute("UPDATE outbox SET mail_remote = 'x'", []);
        assert_ne!(scan(&mut fixture, 0, 1).2, first);
    }
}

#[test]
fn delivered_mail_is_deleted_with_its_faillog() {
    let mut fixture = Fixture::new();
    let (gone, kept) = (fixture.mail(None, "a@example.org", b"x"), fixture.mail(None, "b@example.org", b"x"));
    fixture.execute("INSERT INTO faillog (fail_mail) VALUES (?1), (?2)", [gone.0, kept.0]);
    let reply =
        commit(&mut fixture, Commit { delivered: delivered(&[gone, gone, MailId(99)]), ..Commit::default() });
    assert_eq!(reply, (vec![], vec![]));
    assert_eq!(ids(&scan(&mut fixture, 0, 10).0), [kept.0]);
    assert_eq!(fixture.number("SELECT sum(fail_mail) FROM faillog"), kept.0);
}

#[test]
fn a_failed_attempt_is_one_faillog_row_as_other_programs_write_it() {
    let mut fixture = Fixture::new();
    let id = fixture.mail(None, "a@example.org", b"x");
    let failed = vec![failure(id, 1_700_000_000, false), failure(MailId(99), 1, true)];
    let (rows, _) = commit(&mut fixture, Commit { failed, ..Commit::default() });
    let failures = |rows: &[Row]| -> Vec<_> {
        rows.iter().map(|row| (row.id, row.fail_count, row.last_try.0, row.fatal)).collect()
    };
    let expected = (id, 1, 1_700_000_000, false);
    assert_eq!(failures(&rows), [expected], "nothing is recorded of mail that is gone");
    let stored: (i64, String, String, String, i64) = fixture
        .other
        .query_row(
            "SELECT fail_mail, fail_message, fail_time, typeof(fail_time), fail_fatal FROM faillog",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )
        .unwrap();
    let text = "450 later, at 1700000000\n(192.0.2.1 [192.0.2.1]:25, in reply to RCPT TO)".to_owned();
    assert_eq!(stored, (id.0, text, "1700000000".to_owned(), "text".to_owned(), 0));

    let failed = vec![failure(id, 1_700_000_005, true)];
    let (rows, _) = commit(&mut fixture, Commit { failed, ..Commit::default() });
    assert_eq!(failures(&rows), [(id, 2, 1_700_000_005, true)]);
    assert_eq!(scan(&mut fixture, 0, 1).0, rows, "the answer tells the rows as a scan does");
}

#[test]
fn a_bounce_takes_the_place_of_its_originals() {
    let mut fixture = Fixture::new();
    let original = fixture.mail(Some("s@example.net"), "a@example.org", b"x");
    fixture.execute("INSERT INTO faillog (fail_mail) VALUES (?1)", [original.0]);
    let bounce = bounce_to(&["s@example.net", "copy@example.net"]);
    let data = compose_ordered(&bounce.order).unwrap();
    let replaced = vec![Replacement { originals: vec![original], expired: Vec::new(), bounce: Some(bounce) }];
    let reply = commit(&mut fixture, Commit { replaced, ..Commit::default() });
    assert_eq!(reply, (vec![], vec![]));
    let rows = scan(&mut fixture, 0, 10).0;
    let recipients: Vec<_> = rows.iter().map(|row| &row.recipient[..]).collect();
    assert_eq!(recipients, [&b"s@example.net"[..], b"copy@example.net"]);
    assert!(rows.iter().all(|row| row.sender.is_none() && row.remote.is_none() && row.fail_count == 0));
    let stored = "SELECT count(*) FROM outbox WHERE mail_remote IS NULL AND mail_envelopefrom IS NULL \
                  AND typeof(mail_envelopeto) = 'text' AND typeof(mail_data) = 'text' \
                  AND abs(mail_submission - strftime('%s', 'now')) < 60";
    assert_eq!(fixture.number(stored), 2);
    let read: Vec<u8> = fixture
        .other
        .query_row("SELECT CAST(mail_data AS BLOB) FROM outbox LIMIT 1", [], |row| row.get(0))
        .unwrap();
    assert_eq!(read, data);
    assert_eq!(fixture.number("SELECT count(*) FROM faillog"), 0);
}

#[test]
fn mail_that_somebody_has_deleted_is_not_bounced() {
    let mut fixture = Fixture::new();
    let recipients = ["a@example.org", "b@example.org", "c@example.org"];
    let [gone, kept, dropped] = recipients.map(|to| fixture.mail(Some("s@example.net"), to, b"x"));
    fixture.execute("DELETE FROM outbox WHERE mail_id = ?1", [gone.0]);
    let bounce = bounce_to(&["s@example.net"]);
    let replaced = vec![
        Replacement { originals: vec![kept, gone], expired: Vec::new(), bounce: Some(bounce) },
        Replacement { originals: vec![dropped], expired: Vec::new(), bounce: None },
    ];
    let failed = vec![failure(dropped, 1, true)];
    let reply = commit(&mut fixture, Commit { replaced, failed, ..Commit::default() });
    assert_eq!(reply, (vec![], vec![kept]));
    assert_eq!(ids(&scan(&mut fixture, 0, 10).0), [kept.0]);
}

#[test]
fn what_was_delivered_stays_if_it_is_other_mail_now() {
    for change in [
        "UPDATE outbox SET mail_envelopeto = 'new@example.org'",
        "UPDATE outbox SET mail_envelopefrom = 'new@example.net'",
        "UPDATE outbox SET mail_data = 'longer data'",
        "UPDATE outbox SET mail_data = 'y'",
        "UPDATE outbox SET mail_submission = mail_submission + 1",
    ] {
        let mut fixture = Fixture::new();
        let id = fixture.mail(Some("s@example.net"), "a@example.org", b"x");
        claim(&mut fixture, &[id]);
        fixture.execute(change, []);
        let verdict = Commit { delivered: vec![id.into()], ..Commit::default() };
        let (_, _, changed) = commit_to_changed(&mut fixture, verdict.clone());
        assert_eq!(changed, scan(&mut fixture, 0, 10).0, "{change}");
        assert_eq!(ids(&changed), [id.0]);
        // What was claimed since is what it is now.
        claim(&mut fixture, &[id]);
        assert_eq!(commit(&mut fixture, verdict), (vec![], vec![]));
        assert_eq!(fixture.number("SELECT count(*) FROM outbox"), 0);
    }
}

#[test]
fn what_was_delivered_goes_although_it_was_redirected_or_others_have_changed() {
    let mut fixture = Fixture::new();
    let mails = ["a@example.org", "b@example.org"].map(|to| fixture.mail(None, to, b"x"));
    claim(&mut fixture, &mails);
    fixture.execute("UPDATE outbox SET mail_remote = 'relay.example.net' WHERE mail_id = ?1", [mails[0].0]);
    fixture.mail(None, "c@example.org", b"x");
    commit(&mut fixture, Commit { delivered: delivered(&mails), ..Commit::default() });
    assert_eq!(fixture.number("SELECT count(*) FROM outbox WHERE mail_envelopeto = 'c@example.org'"), 1);
    assert_eq!(fixture.number("SELECT count(*) FROM outbox"), 1);
}

#[test]
fn mail_that_was_redirected_meanwhile_has_not_failed() {
    let mut fixture = Fixture::new();
    let [redirected, other] = ["a@example.org", "b@example.org"].map(|to| fixture.mail(None, to, b"x"));
    claim(&mut fixture, &[redirected, other]);
    fixture.execute("UPDATE outbox SET mail_remote = 'relay.example.net' WHERE mail_id = ?1", [redirected.0]);
    let failed = vec![failure(redirected, 1, true), failure(other, 1, true)];
    let (states, _, changed) = commit_to_changed(&mut fixture, Commit { failed, ..Commit::default() });
    assert_eq!(states.iter().map(|state| state.id).collect::<Vec<_>>(), [other]);
    assert_eq!(ids(&changed), [redirected.0]);
    assert_eq!(fixture.number("SELECT fail_mail FROM faillog"), other.0);
}

#[test]
fn mail_that_was_changed_after_it_was_recalled_has_not_failed() {
    let changes = [
        "UPDATE outbox SET mail_remote = 'relay.example.net'",
        "UPDATE outbox SET mail_envelopeto = 'new@example.net'",
        "UPDATE outbox SET mail_envelopefrom = 'new@example.net'",
        "UPDATE outbox SET mail_submission = 5",
        "UPDATE outbox SET mail_data = 'longer'",
    ];
    for change in changes {
        let mut fixture = Fixture::new();
        let [changed, other] = ["a@example.org", "b@example.org"].map(|to| fixture.mail(None, to, b"x"));
        fixture.execute("INSERT INTO faillog (fail_mail, fail_time) VALUES (?1, '7')", [other.0]);
        let gone = MailId(99);
        let reply = fixture.answer(StoreRequest::Recall { ids: vec![changed, gone, other] });
        let StoreReply::Recalled { rows, unreadable } = reply else {
            panic!("that is no answer to a recall")
        };
        assert_eq!((ids(&rows), unreadable), (vec![changed.0, other.0], vec![]));
        assert_eq!((rows[1].fail_count, rows[1].last_try), (1, UnixTime(7)));
        fixture.execute(&format!("{change} WHERE mail_id = ?1"), [changed.0]);
        let failed = vec![failure(changed, 8, true), failure(other, 8, true)];
        let (states, _, changed_rows) =
            commit_to_changed(&mut fixture, Commit { failed, ..Commit::default() });
        assert_eq!(states.iter().map(|state| state.id).collect::<Vec<_>>(), [other], "{change}");
        assert_eq!(ids(&changed_rows), [changed.0], "{change}");
    }
}

#[test]
fn mail_that_was_taken_is_not_recalled() {
    let mut fixture = Fixture::new();
    let [taken, other] = ["a@example.org", "b@example.org"].map(|to| fixture.mail(None, to, b"x"));
    let connection = &fixture.database.connection;
    stuck::note(connection, taken, "why").unwrap();
    let reply = fixture.answer(StoreRequest::Recall { ids: vec![taken, other] });
    let StoreReply::Recalled { rows, .. } = reply else { panic!("that is no answer to a recall") };
    assert_eq!(ids(&rows), [other.0]);
}

#[test]
fn mail_in_the_place_of_what_an_earlier_process_has_sent_is_not_deleted() {
    let mut fixture = Fixture::new();
    let [other, same, unknown] =
        ["a@example.org", "b@example.org", "c@example.org"].map(|to| fixture.mail(None, to, b"x"));
    [other, same].iter().for_each(|id| stuck::note(&fixture.database.connection, *id, "why").unwrap());
    fixture.execute("INSERT INTO faillog (fail_mail, fail_time) VALUES (?1, '7')", [other.0]);
    let later =
        "UPDATE outbox SET mail_submission = (SELECT max(since) + 1 FROM dispatch_stuck) WHERE mail_id = ?1";
    fixture.execute(later, [other.0]);
    let delivered = vec![other, same, unknown];
    let (_, _, changed) = commit_to_changed(
        &mut fixture,
        Commit { delivered: delivered.into_iter().map(Into::into).collect(), ..Commit::default() },
    );
    assert_eq!(changed.iter().map(|row| (row.id, row.fail_count)).collect::<Vec<_>>(), [(other, 1)]);
    assert_eq!(scan(&mut fixture, 0, 10).0, changed);
}

/// Else SQLite would save them in its journal, which costs a third of the time of a bounce.
#[test]
fn bounces_take_no_pages_that_their_transaction_frees() {
    let mut fixture = Fixture::with_journal_mode("DELETE");
    let data = [b"\n".to_vec(), b"line\n".repeat(8_000)].concat();
    let ids = ["a@example.org", "b@example.org"].map(|to| fixture.mail(Some("s@example.net"), to, &data));
    let mut bounce = bounce_to(&["s@example.net"]);
    bounce.order.return_limit_octets = data.len() as u64;
    bounce.order.message.data_octets = data.len() as u64;
    bounce.order.message.original = data.into();
    let replaced = vec![Replacement { originals: vec![ids[0]], expired: Vec::new(), bounce: Some(bounce) }];
    fixture.answer(StoreRequest::Commit(Commit {
        delivered: vec![ids[1].into()],
        replaced,
        ..Commit::default()
    }));
    assert_eq!(fixture.number("SELECT count(*) FROM outbox WHERE octet_length(mail_data) > 40000"), 1);
    let free = fixture.number("PRAGMA freelist_count");
    assert!(free >= 2 * 40_000 / 4096, "{free} pages are free");
}

#[test]
fn mail_that_is_not_what_failed_is_not_bounced() {
    let mut fixture = Fixture::new();
    let [new, kept] =
        ["a@example.org", "b@example.org"].map(|to| fixture.mail(Some("s@example.net"), to, b"x"));
    fixture.answer(StoreRequest::ReadFailed { ids: vec![new, kept], original_limit_octets: 1000 });
    fixture.execute("UPDATE outbox SET mail_envelopeto = 'new@example.org' WHERE mail_id = ?1", [new.0]);
    let bounce = bounce_to(&["s@example.net"]);
    let replaced =
        vec![Replacement { originals: vec![new, kept], expired: Vec::new(), bounce: Some(bounce) }];
    let (_, not_replaced, changed) =
        commit_to_changed(&mut fixture, Commit { replaced, ..Commit::default() });
    assert_eq!((not_replaced, ids(&changed)), (vec![kept], vec![new.0]));
    assert_eq!(fixture.number("SELECT count(*) FROM outbox WHERE mail_envelopeto LIKE '%@example.org'"), 2);
}

#[test]
fn a_verdict_is_not_recorded_in_another_database_that_has_taken_the_name() {
    let mut fixture = Fixture::with_journal_mode("DELETE");
    let id = fixture.mail(None, "a@example.org", b"x");
    claim(&mut fixture, &[id]);
    let other = Fixture::with_journal_mode("DELETE");
    assert_eq!(other.mail(None, "b@example.org", b"x"), id);
    std::fs::rename(&other.path, &fixture.path).unwrap();
    let (_, _, changed) =
        commit_to_changed(&mut fixture, Commit { delivered: vec![id.into()], ..Commit::default() });
    assert_eq!(changed[0].recipient, "b@example.org");
    assert_eq!(scan(&mut fixture, 0, 10).0, changed);
}

#[test]
fn the_data_of_other_mail_are_not_read_as_those_of_a_message_that_was_claimed() {
    let mut fixture = Fixture::new();
    let id = fixture.mail(None, "a@example.org", &[b'x'; 200_000]);
    claim(&mut fixture, &[id]);
    let read = StoreRequest::ReadData { id, offset: 65_536, limit: 65_536 };
    assert_eq!(fixture.answer(read.clone()), StoreReply::Data(vec![b'x'; 65_536].into()));
    // Its recipient is no part of the message.
    fixture.execute("UPDATE outbox SET mail_envelopeto = 'b@example.org'", []);
    assert_eq!(fixture.answer(read.clone()), StoreReply::Data(vec![b'x'; 65_536].into()));
    fixture.execute("UPDATE outbox SET mail_data = ?1", [vec![b'y'; 200_001]]);
    assert_eq!(fixture.answer(read.clone()), StoreReply::Data(Bytes::new()));
    claim(&mut fixture, &[id]);
    assert_eq!(fixture.answer(read), StoreReply::Data(vec![b'y'; 65_536].into()));
}

#[test]
fn a_claim_runs_one_statement_for_a_small_message_and_never_compiles_it_anew() {
    let mut fixture = Fixture::new();
    let ids: Vec<MailId> =
        (0..20).map(|n| fixture.mail(None, "r@example.org", format!("{n}").as_bytes())).collect();
    let mut claim = |ids: &[MailId]| {
        let reply = fixture.answer(StoreRequest::Claim {
            signing: None,
            ids: ids.to_vec(),
            transactions: usize::MAX,
            recipients: 100,
        });
        let StoreReply::Claimed(Claimed { transactions, .. }) = reply else {
            panic!("that is no answer to a claim")
        };
        assert!(transactions.iter().all(|transaction| !transaction.head.is_empty()));
        let connection = &fixture.database.connection;
        let row = connection.prepare_cached(rows::SELECT_ROW).unwrap();
        let data = connection.prepare_cached("SELECT mail_data FROM outbox WHERE mail_id = ?1").unwrap();
        let count = |what| row.get_status(what);
        (
            count(StatementStatus::Run),
            count(StatementStatus::RePrepare),
            data.get_status(StatementStatus::Run),
        )
    };
    let (runs, compilations, _) = claim(&ids[..1]);
    for ids in ids.chunks(5) {
        claim(ids);
    }
    assert_eq!(claim(&[]), (runs + 20, compilations, 0), "the data comes with the row");
}

#[test]
fn reads_that_share_a_transaction_see_one_state_and_survive_its_end() {
    let mut fixture = Fixture::with_journal_mode("wal");
    let first = fixture.mail(None, "a@example.org", b"data");
    let found = |fixture: &mut Fixture| scan_from(fixture, Cursor::BeforeFirst, 9).0.len();
    fixture.database.begin_shared_read();
    assert_eq!(found(&mut fixture), 1);
    fixture.mail(None, "b@example.org", b"data");
    assert_eq!(found(&mut fixture), 1);
    // As SQLite does after some errors.
    fixture.database.connection.execute_batch("ROLLBACK").unwrap();
    assert_eq!(found(&mut fixture), 2);
    fixture.database.end_shared_read();
    commit(&mut fixture, Commit { delivered: vec![first.into()], ..Commit::default() });
    assert_eq!(found(&mut fixture), 1);
}

#[test]
fn what_is_known_of_claimed_mail_is_forgotten_at_its_verdict_or_its_release() {
    let mut fixture = Fixture::new();
    let mails: Vec<MailId> =
        (0..3).map(|_| fixture.mail(Some("s@example.net"), "r@example.org", b"data")).collect();
    claim(&mut fixture, &mails);
    let known = |fixture: &Fixture| -> Vec<bool> {
        mails.iter().map(|id| fixture.database.fingerprints.knows(*id)).collect()
    };
    assert_eq!(known(&fixture), [true, true, true]);
    commit(&mut fixture, Commit { delivered: delivered(&mails[..1]), ..Commit::default() });
    fixture.database.release(vec![mails[1]]);
    assert_eq!(known(&fixture), [false, false, true]);
    // A release comes before the next claim, which it does not touch.
    claim(&mut fixture, &mails[1..2]);
    assert_eq!(known(&fixture), [false, true, true]);
}
