use bytes::Bytes;
use cmail_delivery::outbox::{Claimed, HEADER_LIMIT_OCTETS, StoreReply, StoreRequest};
use proptest::prelude::*;

use super::super::fixture::Fixture;
use super::*;

const CHUNK: usize = DATA_CHUNK_OCTETS;

fn claim_of(fixture: &mut Fixture, ids: &[MailId]) -> (Vec<ClaimedTransaction>, Vec<MailId>) {
    claim_at_most(fixture, ids, usize::MAX)
}

fn claim_at_most(
    fixture: &mut Fixture,
    ids: &[MailId],
    transactions: usize,
) -> (Vec<ClaimedTransaction>, Vec<MailId>) {
    let StoreReply::Claimed(Claimed { transactions, left_over, .. }) = fixture.answer(StoreRequest::Claim {
        signing: None,
        ids: ids.to_vec(),
        transactions,
        recipients: 100,
    }) else {
        panic!("that is no answer to a claim")
    };
    (transactions, left_over.into_iter().map(|row| row.id).collect())
}

fn data_of(fixture: &mut Fixture, id: MailId, offset: u64, limit: u32) -> Bytes {
    let StoreReply::Data(octets) = fixture.answer(StoreRequest::ReadData { id, offset, limit }) else {
        panic!("that is no answer to a read")
    };
    octets
}

fn failed_of(fixture: &mut Fixture, ids: &[MailId], original_limit_octets: u64) -> Vec<FailedMessage> {
    let StoreReply::Failed { messages, .. } =
        fixture.answer(StoreRequest::ReadFailed { ids: ids.to_vec(), original_limit_octets })
    else {
        panic!("that is no answer to a question for failed mail")
    };
    messages
}

fn members(transactions: &[ClaimedTransaction]) -> Vec<Vec<i64>> {
    transactions.iter().map(|transaction| transaction.rows.iter().map(|row| row.id.0).collect()).collect()
}

/// Octets of all values, so that whatever cuts, converts or repeats them shows.
fn octets(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * 7 + index / 256 * 31) as u8).collect()
}

#[test]
fn rows_of_equal_sender_and_equal_data_go_together() {
    let mut fixture = Fixture::new();
    let mails = [
        (Some("s@example.net"), "one"),
        (Some("s@example.net"), "two"),
        (Some("t@example.net"), "one"),
        (Some("s@example.net"), "one"),
        (None, "one"),
        (Some(""), "one"),
    ];
    let mut ids: Vec<_> =
        mails.map(|(sender, data)| fixture.mail(sender, "r@example.org", data.as_bytes())).into();
    ids.reverse();
    ids.insert(2, MailId(99));
    ids.push(ids[0]);
    let (transactions, left_over) = claim_of(&mut fixture, &ids);
    assert_eq!(members(&transactions), [vec![6, 5], vec![4, 1], vec![3], vec![2]]);
    assert_eq!(left_over, []);
    let heads: Vec<_> = transactions.iter().map(|claimed| &claimed.head[..]).collect();
    assert_eq!(heads, [b"one", b"one", b"one", b"two"]);
    assert!(transactions.iter().all(|claimed| claimed.data_octets == 3));
}

#[test]
fn what_goes_beyond_the_number_of_transactions_is_left_over() {
    let mut fixture = Fixture::new();
    let ids: Vec<_> = ["one", "two", "one", "six"]
        .map(|data| fixture.mail(Some("s@example.net"), "r@example.org", data.as_bytes()))
        .into();
    let (transactions, left_over) = claim_at_most(&mut fixture, &ids, 1);
    assert_eq!((members(&transactions), left_over), (vec![vec![1, 3]], vec![MailId(2), MailId(4)]));
    let (transactions, left_over) = claim_at_most(&mut fixture, &ids[1..], 2);
    assert_eq!((members(&transactions), left_over), (vec![vec![2], vec![3]], vec![MailId(4)]));
}

#[test]
fn what_is_left_over_has_a_number_for_each_message_if_it_was_read() {
    let mut fixture = Fixture::new();
    let mut ids: Vec<_> = ["one", "two", "six", "two"]
        .map(|data| fixture.mail(Some("s@example.net"), "r@example.org", data.as_bytes()))
        .into();
    ids.push(fixture.mail(Some("s@example.net"), "r@example.org", b"of another length"));
    let StoreReply::Claimed(Claimed { left_over, .. }) = fixture.answer(StoreRequest::Claim {
        signing: None,
        ids: ids.clone(),
        transactions: 1,
        recipients: 100,
    }) else {
        panic!("that is no answer to a claim")
    };
    assert_eq!(left_over.iter().map(|row| row.id).collect::<Vec<_>>(), ids[1..]);
    let [two, six, same, unread] = left_over[..] else { panic!("{left_over:?}") };
    assert!(two.message.is_some() && six.message.is_some());
    assert_eq!((two.message == same.message, two.message == six.message), (true, false));
    assert_eq!(unread.message, None);
}

#[test]
fn no_data_and_empty_data_are_the_same_message() {
    let mut fixture = Fixture::new();
    let first = fixture.mail(None, "a@example.org", b"");
    fixture.execute("INSERT INTO outbox (mail_envelopeto, mail_data) VALUES ('b', NULL), ('c', x'')", []);
    let (transactions, _) = claim_of(&mut fixture, &[first, MailId(2), MailId(3)]);
    assert_eq!(members(&transactions), [[1, 2, 3]]);
    assert_eq!((transactions[0].data_octets, transactions[0].head.len()), (0, 0));
}

#[test]
fn text_and_blob_of_equal_octets_are_the_same_message() {
    let mut fixture = Fixture::new();
    for size in [10, CHUNK + 1] {
        let data = octets(size);
        let text = fixture.mail(None, "a@example.org", &data);
        fixture.execute("INSERT INTO outbox (mail_envelopeto, mail_data) VALUES ('b', ?1)", [&data]);
        let blob = MailId(fixture.other.last_insert_rowid());
        let (transactions, _) = claim_of(&mut fixture, &[blob, text]);
        assert_eq!(members(&transactions), [[blob.0, text.0]]);
        assert_eq!(transactions[0].head, data[..size.min(CHUNK)]);
    }
}

/// RFC 5321 section 4.5.3.1.8 makes no server take more.
#[test]
fn a_transaction_has_no_more_recipients_than_every_server_takes() {
    let mut fixture = Fixture::new();
    let ids: Vec<_> = (0..250).map(|_| fixture.mail(None, "r@example.org", b"data")).collect();
    let (transactions, left_over) = claim_of(&mut fixture, &ids);
    assert_eq!(transactions.iter().map(|claimed| claimed.rows.len()).collect::<Vec<_>>(), [100, 100, 50]);
    assert_eq!(members(&transactions).concat(), (1..=250).collect::<Vec<_>>());
    assert_eq!(left_over, []);
}

#[test]
fn what_goes_beyond_the_budget_is_left_over_but_joins_what_is_there() {
    let mut fixture = Fixture::new();
    let message = |first: u8| {
        let mut data = octets(CHUNK);
        data[0] = first;
        data
    };
    let mut ids: Vec<_> = (0..6).map(|first| fixture.mail(None, "r@example.org", &message(first))).collect();
    ids.push(fixture.mail(None, "late@example.org", &message(2)));
    ids.push(MailId(99));
    ids.push(fixture.mail(None, "small@example.org", b"x"));
    ids.push(fixture.mail(None, "none@example.org", b""));
    let (transactions, left_over) = claim_of(&mut fixture, &ids);
    assert_eq!(members(&transactions), [vec![1], vec![2], vec![3, 7], vec![4], vec![9]]);
    assert_eq!(left_over, [MailId(5), MailId(6), MailId(8)]);
    let head_octets: usize = transactions.iter().map(|claimed| claimed.head.len()).sum();
    assert_eq!(head_octets, CLAIM_BUDGET_OCTETS);
}

#[test]
fn large_messages_are_compared_to_their_last_octet() {
    let mut fixture = Fixture::new();
    for size in [CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 17] {
        let data = octets(size);
        let mut other_end = data.clone();
        other_end[size - 1] ^= 1;
        let ids = [&data, &other_end, &data].map(|data| fixture.mail(None, "r@example.org", data));
        let (transactions, left_over) = claim_of(&mut fixture, &ids);
        assert_eq!(members(&transactions), [vec![ids[0].0, ids[2].0], vec![ids[1].0]]);
        assert_eq!(left_over, []);
        assert_eq!(transactions[0].head, data[..CHUNK]);
        assert_eq!(transactions[0].data_octets, size as u64);
    }
}

#[test]
fn a_claim_returns_rows_as_they_are_now() {
    let mut fixture = Fixture::new();
    let id = fixture.mail(Some("s@example.net"), "a@example.org", b"x");
    fixture.execute("UPDATE outbox SET mail_remote = 'relay', mail_envelopeto = 'b@example.org'", []);
    fixture.execute("INSERT INTO faillog (fail_mail, fail_time, fail_fatal) VALUES (?1, 77, 1)", [id.0]);
    let row = claim_of(&mut fixture, &[id]).0.remove(0).rows.remove(0);
    assert_eq!(row.remote.as_deref(), Some(&b"relay"[..]));
    assert_eq!(&row.recipient[..], b"b@example.org");
    assert_eq!((row.fail_count, row.last_try, row.fatal), (1, UnixTime(77), true));
}

#[test]
fn data_is_read_in_pieces_of_any_size() {
    let mut fixture = Fixture::new();
    for size in [1, CHUNK, CHUNK + 1, 11 * CHUNK + 5] {
        let data = octets(size);
        let id = fixture.mail(None, "r@example.org", &data);
        for limit in [CHUNK, 50_001] {
            let mut read = Vec::new();
            loop {
                let piece = data_of(&mut fixture, id, read.len() as u64, limit as u32);
                assert!(piece.len() <= limit);
                if piece.is_empty() {
                    break;
                }
                assert_eq!(piece.len(), limit.min(size - read.len()), "only the end is shorter");
                read.extend_from_slice(&piece);
            }
            assert!(read == data, "{size} octets in pieces of {limit}");
        }
        let job = ReadJob { id, offset: 3, octets: usize::MAX, least_octets: 0, number: 1 };
        let (connection, pool) = (&fixture.database.connection, &fixture.database.large.pool);
        let mut parts = Vec::new();
        let last = run_read_job(connection, pool, job, &mut |part| {
            parts.push(part);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(parts.iter().all(|part| part.follows == Follows::MoreChunks && !part.chunks.is_empty()));
        assert_eq!(last.follows, Follows::EndOfData);
        parts.push(last);
        let read: Vec<Bytes> = parts.into_iter().flat_map(|part| part.chunks).collect();
        assert!(read.concat() == data.get(3..).unwrap_or_default());
    }
}

#[test]
fn there_is_no_data_where_there_is_no_mail_or_no_more_of_it() {
    let mut fixture = Fixture::new();
    let id = fixture.mail(None, "r@example.org", &octets(2 * CHUNK));
    fixture.execute("INSERT INTO outbox (mail_envelopeto) VALUES ('r')", []);
    for (id, offset, limit) in
        [(99, 0, 10), (id.0, 2 * CHUNK as u64, 10), (id.0, u64::MAX, u32::MAX), (id.0, 0, 0), (2, 0, 10)]
    {
        assert_eq!(data_of(&mut fixture, MailId(id), offset, limit), Bytes::new(), "{id} {offset} {limit}");
    }
}

#[test]
fn mail_that_was_deleted_while_it_is_read_has_no_more_data() {
    let mut fixture = Fixture::new();
    let id = fixture.mail(None, "r@example.org", &octets(3 * CHUNK));
    assert_eq!(data_of(&mut fixture, id, 0, 100).len(), 100);
    let delivered = vec![id.into()];
    fixture.answer(StoreRequest::Commit(cmail_delivery::outbox::Commit { delivered, ..Default::default() }));
    assert_eq!(data_of(&mut fixture, id, 100, 100), Bytes::new());
}

#[test]
fn failed_mail_comes_with_its_attempts_oldest_first() {
    let mut fixture = Fixture::new();
    let first = fixture.mail(Some("s@example.net"), "a@example.org", b"data");
    let other = fixture.mail(Some("s@example.net"), "b@example.org", b"other");
    let second = fixture.mail(Some("s@example.net"), "c@example.org", b"data");
    fixture.execute("UPDATE outbox SET mail_submission = 1000 + mail_id", []);
    fixture.execute(
        "INSERT INTO faillog (fail_mail, fail_time, fail_message, fail_fatal) VALUES \
         (1, '1700000300', '450 first', 0), (2, 'x', NULL, '1x'), (1, '1700000200', CAST(x'ff00' AS TEXT), 1)",
        [],
    );
    let messages = failed_of(&mut fixture, &[second, first, MailId(99), other], 100);
    let found: Vec<Vec<_>> = messages
        .iter()
        .map(|message| message.mails.iter().map(|mail| (mail.row.id, mail.row.submission.0)).collect())
        .collect();
    assert_eq!(found, [vec![(second, 1003), (first, 1001)], vec![(other, 1002)]]);
    let attempt = |time, text: &[u8], fatal| FaillogRow { time: UnixTime(time), text: text.into(), fatal };
    assert_eq!(messages[0].mails[0].attempts, []);
    assert_eq!(
        messages[0].mails[1].attempts,
        [attempt(1_700_000_300, b"450 first", false), attempt(1_700_000_200, b"\xff\0", true)]
    );
    assert_eq!(messages[1].mails[0].attempts, [attempt(0, b"", true)]);
    assert!(messages[0].mails[1].row.fatal);
    assert_eq!((&messages[0].original[..], messages[0].data_octets), (&b"data"[..], 4));
}

#[test]
fn of_a_long_faillog_the_latest_attempts_are_returned() {
    let mut fixture = Fixture::new();
    let id = fixture.mail(None, "a@example.org", b"");
    for time in 0..150 {
        fixture.execute("INSERT INTO faillog (fail_mail, fail_time) VALUES (?1, ?2)", [id.0, time]);
    }
    let mail = failed_of(&mut fixture, &[id], 0).remove(0).mails.remove(0);
    let times: Vec<_> = mail.attempts.iter().map(|attempt| attempt.time.0).collect();
    assert_eq!(times, (50..150).collect::<Vec<_>>());
    assert_eq!(mail.row.fail_count, 150);
}

#[test]
fn originals_are_cut_where_the_limit_says() {
    let mut fixture = Fixture::new();
    let data = [b"\n", &*octets(3 * CHUNK - 1)].concat();
    let id = fixture.mail(None, "a@example.org", &data);
    for (limit, expected) in [
        (0, CHUNK),
        (10, CHUNK),
        (CHUNK + 1, CHUNK),
        (3 * CHUNK - 1, CHUNK),
        (3 * CHUNK, 3 * CHUNK),
        (usize::MAX, 3 * CHUNK),
    ] {
        let message = failed_of(&mut fixture, &[id], limit as u64).remove(0);
        assert!(message.original == data[..expected], "limit {limit}: {}", message.original.len());
        assert_eq!(message.data_octets, 3 * CHUNK as u64);
    }
}

#[test]
fn originals_beyond_the_budget_are_left_over() {
    let mut fixture = Fixture::new();
    let ids = [1, 2].map(|octet| fixture.mail(None, "r@example.org", &vec![octet; FAILED_BUDGET_OCTETS + 1]));
    let request = StoreRequest::ReadFailed { ids: ids.to_vec(), original_limit_octets: u64::MAX };
    let StoreReply::Failed { messages, left_over, .. } = fixture.answer(request) else {
        panic!("that is no answer to a question for failed mail")
    };
    assert_eq!((messages.len(), left_over), (1, vec![ids[1]]));
}

#[test]
fn failure_texts_beyond_the_budget_are_left_over_with_their_mail() {
    let mut fixture = Fixture::new();
    let ids: Vec<_> = (0..64).map(|number: u8| fixture.mail(None, "r@example.org", &[number])).collect();
    fixture.execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) \
         INSERT INTO faillog (fail_mail, fail_message) SELECT mail_id, hex(zeroblob(2000)) FROM outbox, n",
        [],
    );
    let mut wanted = ids.clone();
    let mut read = Vec::new();
    while !wanted.is_empty() {
        let request = StoreRequest::ReadFailed { ids: wanted, original_limit_octets: u64::MAX };
        let StoreReply::Failed { messages, left_over, .. } = fixture.answer(request) else {
            panic!("that is no answer to a question for failed mail")
        };
        let mails = messages.iter().flat_map(|message| &message.mails);
        let texts: usize =
            mails.clone().flat_map(|mail| &mail.attempts).map(|attempt| attempt.text.len()).sum();
        assert!(texts < FAILED_BUDGET_OCTETS + 20 * 4000, "{texts}");
        read.push(mails.clone().count());
        wanted = left_over;
    }
    assert_eq!(read, [14, 14, 14, 14, 8]);
}

#[test]
fn messages_that_differ_far_behind_are_not_compared_without_end() {
    let mut fixture = Fixture::new();
    let alike = 17 * 1024 * 1024;
    let ids: Vec<_> = [1, 1, 2, 3, 1, 1]
        .map(|last| {
            let mut data = octets(alike);
            data.push(last);
            fixture.mail(None, "r@example.org", &data)
        })
        .into();
    // Three of them are as much as is compared; the others wait for the next claim.
    let (transactions, left_over) = claim_of(&mut fixture, &ids);
    assert_eq!(members(&transactions), [vec![1, 2], vec![3]]);
    assert_eq!(left_over, &ids[3..]);
    let (transactions, left_over) = claim_of(&mut fixture, &ids[3..]);
    assert_eq!((members(&transactions), left_over), (vec![vec![4], vec![5, 6]], vec![]));
}

#[test]
fn what_was_compared_is_not_compared_again_until_somebody_writes() {
    let mut fixture = Fixture::new();
    let alike = octets(12 * 1024 * 1024);
    let ids: Vec<_> = (0..8).map(|_| fixture.mail(None, "r@example.org", &alike)).collect();
    let (transactions, left_over) = claim_of(&mut fixture, &ids);
    assert_eq!((members(&transactions), left_over), (vec![vec![1, 2, 3, 4, 5]], ids[5..].to_vec()));
    // Others were compared before, so there is room for the rest.
    let (transactions, left_over) = claim_of(&mut fixture, &ids);
    assert_eq!((members(&transactions), left_over), (vec![vec![1, 2, 3, 4, 5, 6, 7, 8]], vec![]));
    fixture.mail(None, "other@example.org", b"x");
    let (transactions, _) = claim_of(&mut fixture, &ids);
    assert_eq!(members(&transactions), [[1, 2, 3, 4, 5]]);
}

#[test]
fn recipients_of_one_large_message_share_a_bounce_however_many_requests_compare_them() {
    let mut fixture = Fixture::new();
    let alike = octets(12 * 1024 * 1024);
    let ids: Vec<_> = (0..8).map(|_| fixture.mail(None, "r@example.org", &alike)).collect();
    let request = |fixture: &mut Fixture| {
        let request = StoreRequest::ReadFailed { ids: ids.clone(), original_limit_octets: 10 };
        let StoreReply::Failed { messages, left_over, .. } = fixture.answer(request) else {
            panic!("that is no answer to a question for failed mail")
        };
        (messages.iter().map(|message| message.mails.len()).collect::<Vec<_>>(), left_over.len())
    };
    assert_eq!(request(&mut fixture), (vec![], 8));
    assert_eq!(request(&mut fixture), (vec![8], 0));
    // Who writes all the time does not keep bounces from being made.
    fixture.mail(None, "other@example.org", b"x");
    assert_eq!(request(&mut fixture), (vec![5], 3));
}

#[test]
fn of_a_large_original_the_header_section_comes_as_far_as_it_may() {
    let mut fixture = Fixture::new();
    let header = |length: usize| [vec![b'h'; length], b"\n\n".to_vec(), vec![b'b'; 20 * CHUNK]].concat();
    let small = header(10);
    let mails = [header(CHUNK), header(17 * CHUNK), small.clone(), small];
    let ids: Vec<_> = mails.iter().map(|data| fixture.mail(None, "r@example.org", data)).collect();
    let read = |fixture: &mut Fixture, ids: &[MailId]| {
        let messages = failed_of(fixture, ids, 5);
        messages.iter().map(|message| (message.mails.len(), message.original.len())).collect::<Vec<_>>()
    };
    // What goes beyond the budget of a request waits for another one, but the first.
    assert_eq!(read(&mut fixture, &ids), [(1, HEADER_LIMIT_OCTETS)]);
    assert_eq!(read(&mut fixture, &ids[1..2]), [(1, HEADER_LIMIT_OCTETS)]);
    assert_eq!(read(&mut fixture, &[ids[2], ids[0], ids[3]]), [(2, CHUNK)]);
    let (claimed, _) = claim_of(&mut fixture, &ids[..1]);
    assert_eq!(claimed[0].head.len(), CHUNK);
}

#[test]
fn originals_that_differ_after_the_cut_do_not_share_a_bounce() {
    let mut fixture = Fixture::new();
    for size in [10, 3 * CHUNK] {
        let data = [b"\n", &*octets(size - 1)].concat();
        let mut other_end = data.clone();
        other_end[size - 1] ^= 1;
        let ids = [&data, &other_end, &data].map(|data| fixture.mail(None, "r@example.org", data));
        let groups: Vec<Vec<_>> = failed_of(&mut fixture, &ids, 5)
            .iter()
            .map(|message| message.mails.iter().map(|mail| mail.row.id).collect())
            .collect();
        assert_eq!(groups, [vec![ids[0], ids[2]], vec![ids[1]]]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn every_row_is_claimed_once_or_left_over(
        mails in prop::collection::vec((0usize..3, 0u8..3, prop::sample::select(vec![0, 5, 40_000, CHUNK + 9])), 1..30),
    ) {
        let mut fixture = Fixture::new();
        let senders = [None, Some("a@example.net"), Some("b@example.net")];
        let mut stored = Vec::new();
        for (sender, first, size) in mails {
            let mut data = octets(size);
            if let Some(octet) = data.last_mut() { *octet = first }
            let id = fixture.mail(senders[sender], "r@example.org", &data);
            stored.push((id, senders[sender].map(str::as_bytes), data));
        }
        let mut wanted: Vec<_> = stored.iter().map(|(id, ..)| *id).collect();
        let mut claimed = Vec::new();
        while !wanted.is_empty() {
            let (transactions, left_over) = claim_of(&mut fixture, &wanted);
            prop_assert!(!transactions.is_empty() && left_over.len() < wanted.len());
            for transaction in &transactions {
                for row in &transaction.rows {
                    let (_, sender, data) = stored.iter().find(|(id, ..)| *id == row.id).unwrap();
                    prop_assert_eq!(row.sender.as_deref(), *sender);
                    prop_assert_eq!(transaction.data_octets, data.len() as u64);
                    prop_assert!(transaction.head == data[..data.len().min(CHUNK)]);
                    let first = stored.iter().find(|(id, ..)| *id == transaction.rows[0].id).unwrap();
                    prop_assert!(first.2 == *data);
                    claimed.push(row.id);
                }
            }
            wanted = left_over;
        }
        claimed.sort();
        prop_assert_eq!(claimed, stored.iter().map(|(id, ..)| *id).collect::<Vec<_>>());
    }
}
