use cmail_delivery::schedule::RetryRules;
use rusqlite::params;

use super::super::fixture::{Fixture, overwrite, pages_with};
use super::*;

const NOW: i64 = 1_800_000_000;

fn standing() -> Standing<'static> {
    Standing {
        rules: RetryRules { lines: &[], hold_lines: &[], retries: 3, interval_s: 600 },
        now: UnixTime(NOW),
    }
}

fn selection(json: &str) -> Selection {
    serde_json::from_str(json).unwrap()
}

/// Returns the ids of all selected mail.
fn selected(fixture: &Fixture, selection: &Selection) -> Vec<i64> {
    let reader = Reader::open(&fixture.path).unwrap();
    let (mut ids, mut next) = (Vec::new(), Some(Cursor::BeforeFirst));
    while let Some(after) = next {
        let batch = reader.mails(selection, standing(), after).unwrap();
        ids.extend(batch.mails.iter().map(|mail| mail.row.id.0));
        next = batch.next;
    }
    ids
}

fn insert(
    fixture: &Fixture,
    id: i64,
    sender: Option<&str>,
    recipient: &str,
    remote: Option<&str>,
    age_s: i64,
) {
    fixture.execute(
        "INSERT INTO outbox (mail_id, mail_envelopefrom, mail_envelopeto, mail_remote, mail_submission, mail_data) \
         VALUES (?1, ?2, ?3, ?4, ?5, 'Message-ID: <' || ?1 || '@client.example>' || char(13, 10, 13, 10))",
        params![id, sender, recipient, remote, NOW - age_s],
    );
}

fn fail(fixture: &Fixture, id: i64, text: &str, ago_s: i64) {
    fixture.execute(
        "INSERT INTO faillog (fail_mail, fail_message, fail_time) VALUES (?1, ?2, ?3)",
        params![id, text, (NOW - ago_s).to_string()],
    );
}

/// Each condition selects what it says, and nothing that only looks like it.
#[test]
fn each_condition_selects_what_it_says() {
    let fixture = Fixture::new();
    insert(&fixture, 1, Some("a@client.example"), "x@example.org", None, 10);
    insert(&fixture, 2, Some("A@Client.Example"), "Y@EXAMPLE.org", None, 8000);
    insert(&fixture, 3, None, "x@b\u{fc}cher.example", None, 10);
    insert(&fixture, 4, Some(" <> "), "x@xn--bcher-kva.example", Some("u:p@relay.lan:25"), 10);
    insert(&fixture, 5, Some("b@other.example"), "x@sub.example.org", Some("u:relay.lan@other.lan"), 10);
    insert(&fixture, 6, Some("b@other.example"), "x@exampleXorg", Some("relay.lan"), 10);
    insert(&fixture, 7, Some("b@other.example"), "\"q@example.org\"@last.example", None, 10);
    fail(&fixture, 1, "451 4.7.1 later", 100);
    fail(&fixture, 2, "Failed to reach any MX: mx.example.org: connection refused [4.4.1]", 700);
    for ago_s in [30, 20, 10] {
        fail(&fixture, 3, "421 no", ago_s);
    }
    fail(&fixture, 5, "451 4.7.1 first", 900);
    fail(&fixture, 5, "452 4.2.2 then", 800);
    for (json, expected) in [
        ("{}", &[1, 2, 3, 4, 5, 6, 7][..]),
        (r#"{"ids":[6,2,2,99]}"#, &[2, 6]),
        (r#"{"domain":"example.org"}"#, &[1, 2]),
        (r#"{"domain":"bücher.example"}"#, &[3, 4]),
        (r#"{"sender":"a@client.example"}"#, &[1, 2]),
        (r#"{"sender":"@OTHER.example"}"#, &[5, 6, 7]),
        (r#"{"sender":"<>"}"#, &[3, 4]),
        (r#"{"recipient":"y@example.org"}"#, &[2]),
        (r#"{"remote":"relay.lan"}"#, &[4, 6]),
        (r#"{"remote":"relay.lan:25"}"#, &[4]),
        (r#"{"message_id":"5@client.example"}"#, &[5]),
        (r#"{"older_s":7200}"#, &[2]),
        (r#"{"place":"ready"}"#, &[2, 4, 5, 6, 7]),
        (r#"{"place":"waiting"}"#, &[1]),
        (r#"{"place":"given_up"}"#, &[3]),
        (r#"{"status":"4.7"}"#, &[1]),
        (r#"{"status":"4"}"#, &[1, 2, 3, 5]),
        (r#"{"status":"4.4.1"}"#, &[2]),
        (r#"{"status":"421"}"#, &[3]),
        (r#"{"domain":"example.org","older_s":7200,"status":"4.7"}"#, &[]),
    ] {
        assert_eq!(selected(&fixture, &selection(json)), expected, "{json}");
    }
}

/// An address and a relay are found however they are written.
#[test]
fn what_is_written_otherwise_is_found() {
    let fixture = Fixture::new();
    let address = |id, address: &str| insert(&fixture, id, Some(address), address, None, 0);
    address(1, "x@B\u{dc}CHER.example");
    address(2, "x@xn--bcher-kva.EXAMPLE.");
    address(3, "x@[IPv6:2001:DB8:0:0::1]");
    address(4, "x@[ipv6:2001:db8::1]");
    address(5, "J\u{dc}RGEN@b\u{fc}cher.example");
    address(6, "x@[IPv6:2001:db8::2]");
    for (id, remote) in [
        (11, "b\u{fc}cher.lan:25"),
        (12, "u:p@XN--BCHER-KVA.lan:25/starttls"),
        (13, "[2001:DB8:0:0::1]:25"),
        (14, "[2001:db8::2]:25"),
    ] {
        insert(&fixture, id, None, "x@example.org", Some(remote), 0);
    }
    for (wanted, expected) in [
        ("b\u{fc}cher.example", &[1, 2, 5][..]),
        ("xn--bcher-kva.example", &[1, 2, 5]),
        ("[IPv6:2001:db8::1]", &[3, 4]),
    ] {
        assert_eq!(
            selected(&fixture, &selection(&format!(r#"{{"domain":"{wanted}"}}"#))),
            expected,
            "{wanted}"
        );
        let of_domain = format!(r#"{{"recipient":"@{wanted}","sender":"@{wanted}"}}"#);
        assert_eq!(selected(&fixture, &selection(&of_domain)), expected, "{wanted}");
        let exact = format!(r#"{{"recipient":"X@{wanted}","sender":"X@{wanted}"}}"#);
        let expected: Vec<i64> = expected.iter().copied().filter(|id| *id != 5).collect();
        assert_eq!(selected(&fixture, &selection(&exact)), expected, "{wanted}");
    }
    for (wanted, expected) in [
        ("b\u{fc}cher.lan", &[11, 12][..]),
        ("xn--bcher-kva.lan:25", &[11, 12]),
        ("xn--bcher-kva.lan:25/starttls", &[12]),
        ("[2001:db8::1]:25", &[13]),
    ] {
        assert_eq!(
            selected(&fixture, &selection(&format!(r#"{{"remote":"{wanted}"}}"#))),
            expected,
            "{wanted}"
        );
    }
}

/// Message-IDs are read in more than one transaction.
#[test]
fn a_message_id_is_found_among_many() {
    let fixture = Fixture::new();
    let many = 2 * FEW_MESSAGE_IDS as i64 + 3;
    for id in 1..=many {
        insert(&fixture, id, None, "x@example.org", None, 0);
    }
    for id in [1, FEW_MESSAGE_IDS as i64, FEW_MESSAGE_IDS as i64 + 1, many] {
        let json = format!(r#"{{"message_id":"{id}@client.example"}}"#);
        assert_eq!(selected(&fixture, &selection(&json)), [id]);
    }
}

/// Mail whose age is not known is not older than anything: an order to drop old mail must not hit it.
#[test]
fn mail_of_unknown_age_is_not_old() {
    let fixture = Fixture::new();
    let old = NOW - 8000;
    for (id, submission) in [
        (1, "0".to_owned()),
        (2, "'yesterday'".to_owned()),
        (3, "' '".to_owned()),
        (4, "''".to_owned()),
        (5, "-5".to_owned()),
        (6, format!("'{old}'")),
        (7, format!("'{old}.5'")),
        (8, format!("'{}e3'", old / 1000)),
        (9, format!("x'{}'", "00".repeat(100))),
    ] {
        fixture.execute(
            &format!("INSERT INTO outbox (mail_id, mail_envelopeto, mail_submission) VALUES (?1, 'x@example.org', {submission})"),
            [id],
        );
    }
    assert_eq!(selected(&fixture, &selection(r#"{"older_s":7200}"#)), [6, 7, 8]);
}

/// What LIKE takes for a wildcard is a letter in a domain.
#[test]
fn a_wildcard_is_a_letter() {
    let fixture = Fixture::new();
    insert(&fixture, 1, None, "x@a_b.example", None, 0);
    insert(&fixture, 2, None, "x@aXb.example", None, 0);
    assert_eq!(selected(&fixture, &selection(r#"{"domain":"a_b.example"}"#)), [1]);
}

/// A batch ends after a number of mails that were looked at, so that no transaction lasts long, and the next one goes on behind it.
#[test]
fn batches_cover_all_mail_once() {
    let fixture = Fixture::new();
    let count = 2 * BATCH_MAILS as i64 + 5;
    fixture.execute(
        "WITH RECURSIVE n(i) AS (SELECT -7 UNION ALL SELECT i + 3 FROM n LIMIT ?1) \
         INSERT INTO outbox (mail_id, mail_envelopeto) SELECT i, 'x@example.org' FROM n",
        [count],
    );
    let all = selected(&fixture, &Selection::default());
    assert_eq!(all.len() as i64, count);
    assert!(all.is_sorted());
    let ids: Vec<String> = all.iter().map(i64::to_string).collect();
    assert_eq!(selected(&fixture, &selection(&format!(r#"{{"ids":[{}]}}"#, ids.join(",")))), all);
    let reader = Reader::open(&fixture.path).unwrap();
    let batch = reader.mails(&Selection::default(), standing(), Cursor::BeforeFirst).unwrap();
    assert_eq!(batch.mails.len(), BATCH_MAILS);
}

/// The last failure is the one that was recorded last, with the index and without, for few mails and for many.
#[test]
fn each_mail_comes_with_its_last_failure() {
    let fixture = Fixture::new();
    let many = FEW_MAILS as i64 + 10;
    for id in 1..=many {
        insert(&fixture, id, None, "x@example.org", None, 0);
        if id % 3 == 0 {
            fail(&fixture, id, "450 first", 100);
            fail(&fixture, id, &format!("450 last of {id}"), 200);
        }
    }
    for ids in [format!("[{many}]"), "[3,4]".to_owned(), "[]".to_owned()] {
        for is_indexed in [true, false] {
            let reader = Reader::open(&fixture.path).unwrap();
            reader.is_faillog_indexed.set(is_indexed);
            let selection = selection(&format!(r#"{{"ids":{ids}}}"#));
            let batch = reader.mails(&selection, standing(), Cursor::BeforeFirst).unwrap();
            for mail in batch.mails {
                let id = mail.row.id.0;
                let expected = (id % 3 == 0).then(|| format!("450 last of {id}"));
                assert_eq!(mail.failure_text().map(|text| text.to_string()), expected, "{ids} {is_indexed}");
                assert_eq!(mail.row.fail_count, if id % 3 == 0 { 2 } else { 0 });
            }
        }
    }
}

/// Beyond the first batch, a database without the index gets a copy of its faillog, from which the same is read.
#[test]
fn without_the_index_the_same_is_read() {
    let fixture = Fixture::new();
    let count = BATCH_MAILS as i64 + 20;
    fixture.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?1) \
         INSERT INTO outbox (mail_id, mail_envelopeto) SELECT i, 'x@example.org' FROM n",
        [count],
    );
    for text in ["450 4.2.0 first", "450 4.2.0 last"] {
        for id in [3, count - 3] {
            fail(&fixture, id, text, 100);
        }
    }
    let read = |selection: &Selection| {
        let reader = Reader::open(&fixture.path).unwrap();
        let (mut mails, mut next) = (Vec::new(), Some(Cursor::BeforeFirst));
        while let Some(after) = next {
            let batch = reader.mails(selection, standing(), after).unwrap();
            mails.extend(batch.mails.into_iter().map(|mail| {
                (mail.row.id.0, mail.row.fail_count, mail.failure_text().map(|text| text.to_string()))
            }));
            next = batch.next;
        }
        mails
    };
    let with_index = read(&Selection::default());
    assert_eq!(
        with_index
            .iter()
            .filter(|(_, tries, text)| *tries == 2 && text.as_deref() == Some("450 4.2.0 last"))
            .count(),
        2
    );
    fixture.other.execute_batch("DROP INDEX dispatch_faillog_mail").unwrap();
    assert_eq!(read(&Selection::default()), with_index);
}

/// A damaged page costs only the mail on it.
#[test]
fn what_can_be_read_is_told() {
    const MAILS: i64 = 200;
    let fixture = Fixture::with_journal_mode("DELETE");
    for number in 1..=MAILS {
        fixture.mail(Some("a@client.example"), &format!("r{number}@example.org"), &[b'x'; 350]);
    }
    let page = pages_with(&fixture, "r100@example.org")[0];
    overwrite(&fixture, &[page]);
    let readable = selected(&fixture, &Selection::default());
    assert!(readable.len() > 180 && readable.len() < 200 && !readable.contains(&100), "{readable:?}");
    assert!(readable.starts_with(&[1]) && readable.ends_with(&[200]), "{readable:?}");
    assert_eq!(selected(&fixture, &selection(r#"{"domain":"example.org","place":"ready"}"#)), readable);
    assert_eq!(selected(&fixture, &selection(r#"{"ids":[1,100,200]}"#)), [1, 200]);
}

/// Mail that a server has taken is not sent again, whatever its faillog says.
#[test]
fn mail_that_cannot_be_deleted_is_taken() {
    let fixture = Fixture::new();
    for id in 1..=3 {
        insert(&fixture, id, None, "x@example.org", None, 100);
    }
    stuck::note(&fixture.other, MailId(2), "a trigger").unwrap();
    assert_eq!(selected(&fixture, &selection(r#"{"place":"taken"}"#)), [2]);
    assert_eq!(selected(&fixture, &selection(r#"{"place":"ready"}"#)), [1, 3]);
    // Other mail in its place was not taken.
    fixture.execute("UPDATE outbox SET mail_submission = ?1 WHERE mail_id = 2", [NOW + 1]);
    assert_eq!(selected(&fixture, &selection(r#"{"place":"taken"}"#)), [0_i64; 0]);
}
