use cmail_delivery::failure::TEXT_LIMIT_OCTETS;
use cmail_delivery::outbox::{
    Claimed, Commit, Committed, Cursor, FailedMail, Scanned, StoreReply, StoreRequest,
};
use rusqlite::limits::Limit;

use super::super::fixture::{Fixture, delivered, refused};
use super::*;

/// Far beyond all limits.
const LONG_OCTETS: i64 = 1 << 20;

/// A database in which each column of the outbox, and of its faillog, holds a long value once; no value of more than a
/// fraction of that may be read as a whole.
struct LongValues {
    fixture: Fixture,
    ids: Vec<MailId>,
}

impl LongValues {
    fn new() -> Self {
        let fixture = Fixture::new();
        let columns = ["mail_remote", "mail_envelopefrom", "mail_envelopeto", "mail_submission", "mail_data"];
        let mut ids = Vec::new();
        for column in columns {
            let id = fixture.mail(Some("s@example.org"), "r@example.net", b"text");
            // A message without header fields, so that not more is read for these.
            let first = if column == "mail_data" { "char(10)" } else { "'9'" };
            let value = format!("CAST({first} || replace(hex(zeroblob(?1 / 2)), '0', 'x') AS TEXT)");
            fixture.execute(
                &format!("UPDATE outbox SET {column} = {value} WHERE mail_id = ?2"),
                (LONG_OCTETS, id.0),
            );
            ids.push(id);
        }
        for column in ["fail_message", "fail_time", "fail_fatal"] {
            let id = fixture.mail(Some("s@example.org"), "r@example.net", column.as_bytes());
            fixture.execute(
                "INSERT INTO faillog (fail_mail, fail_message, fail_time) VALUES (?1, 'x', '7')",
                [id.0],
            );
            let value = "zeroblob(?1)";
            fixture.execute(
                &format!("UPDATE faillog SET {column} = {value} WHERE fail_mail = ?2"),
                (LONG_OCTETS, id.0),
            );
            ids.push(id);
        }
        let limit = i32::try_from(LONG_OCTETS / 4).unwrap();
        fixture.database.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, limit).unwrap();
        Self { fixture, ids }
    }

    fn failed(&mut self) -> Vec<FailedMail> {
        let ids = self.ids.clone();
        let StoreReply::Failed { messages, .. } =
            self.fixture.answer(StoreRequest::ReadFailed { ids, original_limit_octets: 1000 })
        else {
            panic!("that is another answer")
        };
        let mut mails: Vec<FailedMail> = messages.into_iter().flat_map(|message| message.mails).collect();
        mails.sort_by_key(|mail| mail.row.id);
        mails
    }
}

fn lengths(rows: &[Row]) -> Vec<(Option<usize>, Option<usize>, usize)> {
    rows.iter()
        .map(|row| {
            (row.remote.as_ref().map(Bytes::len), row.sender.as_ref().map(Bytes::len), row.recipient.len())
        })
        .collect()
}

#[test]
fn of_a_long_value_only_so_much_is_read_as_tells_that_it_is_too_long() {
    let mut values = LongValues::new();
    let StoreReply::Scanned(Scanned { rows, .. }) =
        values.fixture.answer(StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 100 })
    else {
        panic!("that is another answer")
    };
    let usual = (None, Some(13), 13);
    let expected = [
        (Some(REMOTE_LIMIT_OCTETS + 1), Some(13), 13),
        (None, Some(ADDRESS_LIMIT_OCTETS + 1), 13),
        (None, Some(13), ADDRESS_LIMIT_OCTETS + 1),
        usual,
        usual,
        usual,
        usual,
        usual,
    ];
    assert_eq!(lengths(&rows), expected);
    assert!(rows[2].recipient.starts_with(b"9xx"), "it can be recognized");
    let failures: Vec<_> = rows[5..].iter().map(|row| (row.fail_count, row.last_try.0, row.fatal)).collect();
    assert_eq!(failures, [(1, 7, false), (1, 0, false), (1, 7, false)]);
}

#[test]
fn long_values_are_claimed_recorded_and_read_for_bounces_like_any_other() {
    let mut values = LongValues::new();
    let claim = StoreRequest::Claim {
        signing: None,
        ids: values.ids.clone(),
        transactions: usize::MAX,
        recipients: 100,
    };
    let StoreReply::Claimed(Claimed { transactions, left_over, .. }) = values.fixture.answer(claim) else {
        panic!("that is another answer")
    };
    let claimed: usize = transactions.iter().map(|transaction| transaction.rows.len()).sum();
    assert_eq!((claimed, left_over), (values.ids.len(), vec![]));

    let mails = values.failed();
    assert_eq!(mails.len(), values.ids.len());
    assert_eq!(mails[3].row.submission, UnixTime(0), "it is no time");
    let text = &mails[5].attempts[0].text;
    assert_eq!(text.len(), TEXT_LIMIT_OCTETS);

    // Another program writes, so that each row is looked at again before something is recorded.
    values.fixture.mail(None, "other@example.org", b"");
    let attempt = |id: &MailId| refused(*id, "no", UnixTime(9), false);
    let failed = values.ids.iter().map(attempt).collect();
    let commit = Commit { failed, ..Commit::default() };
    let StoreReply::Committed(Committed { failed, changed, .. }) =
        values.fixture.answer(StoreRequest::Commit(commit))
    else {
        panic!("that is another answer")
    };
    assert_eq!((failed.len(), changed), (values.ids.len(), vec![]));
    let delivered = delivered(&values.ids);
    values.fixture.answer(StoreRequest::Commit(Commit { delivered, ..Commit::default() }));
    assert_eq!(values.fixture.number("SELECT count(*) FROM outbox"), 1);
}

#[test]
fn a_sender_in_angle_brackets_with_nothing_between_is_the_null_path() {
    let mut fixture = Fixture::new();
    fixture.mail(Some("<>"), "r@example.net", b"text");
    let StoreReply::Scanned(Scanned { rows, .. }) =
        fixture.answer(StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 1 })
    else {
        panic!("that is another answer")
    };
    assert_eq!(rows[0].sender, None);
}
