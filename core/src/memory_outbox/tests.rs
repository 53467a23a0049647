use std::collections::{BTreeMap, BTreeSet};
use std::string::ToString as _;
use std::vec;

use proptest::prelude::*;

use super::*;
use crate::address::AddressError;
use crate::attempt::{Attempt, Failure, Unsendable};
use crate::next_hop::RelayError;
use crate::outbox::{
    BounceOrder, Charge, Claimed, Commit, Committed, Cursor, DATA_CHUNK_OCTETS, DeliveredMail, FailedAttempt,
    FailedMessage, NewBounce, Refused, Replacement, Scanned, TRANSACTION_RECIPIENT_LIMIT,
};
use crate::rng::Seed;

const SENDERS: [&str; 3] = ["", "a@example.org", "b@example.org"];
/// Two of one length, one that does not come whole, and one that differs from it only at its end.
fn data(number: usize) -> Bytes {
    let long = |end: &str| Bytes::from(["x".repeat(DATA_CHUNK_OCTETS), end.into()].concat());
    match number {
        0 => Bytes::new(),
        1 => "one".into(),
        2 => "two".into(),
        3 => long("one"),
        _ => long("two"),
    }
}

fn mail(sender: usize, data_number: usize) -> Mail {
    Mail::new(SENDERS[sender], "r@example.net", data(data_number), UnixTime(1))
}

fn outbox(count: usize) -> (MemoryOutbox, Vec<MailId>) {
    let mut outbox = MemoryOutbox::new();
    let ids = (0..count).map(|_| outbox.insert(mail(1, 1)).unwrap()).collect();
    (outbox, ids)
}

fn failure(id: MailId, fatal: bool) -> FailedAttempt {
    let failure = match fatal {
        true => Failure::Unsendable(Unsendable::Sender(AddressError::Empty)),
        false => Failure::MalformedRelay(RelayError::Host),
    };
    FailedAttempt {
        id,
        attempt: Attempt {
            at: UnixTime(5),
            recipient: crate::shown::ShownAddress::default(),
            course: None,
            result: failure,
        },
        charge: Charge::Counts,
        line: None,
    }
}

fn bounce(outbox: &mut MemoryOutbox, ids: &[MailId]) -> NewBounce {
    let request = StoreRequest::ReadFailed { ids: ids.to_vec(), original_limit_octets: 100 };
    let Ok(StoreReply::Failed { mut messages, .. }) = outbox.answer(request) else {
        panic!("it cannot be read")
    };
    let order = BounceOrder {
        announce: "me.example".into(),
        bounce_from: "postmaster@me.example".into(),
        return_limit_octets: 100,
        message: messages.remove(0),
        now: UnixTime(9),
        seed: Seed([1; 32]),
    };
    NewBounce { recipients: vec!["a@example.org".into(), "copy@example.org".into()], order }
}

/// The fields of the answer to a commit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Recorded {
    failed: Vec<Row>,
    not_replaced: Vec<MailId>,
    changed: Vec<Row>,
    bounces: Vec<Vec<MailId>>,
    refused: Vec<MailId>,
    not_noted: Vec<MailId>,
}

fn commit(outbox: &mut MemoryOutbox, commit: Commit) -> Recorded {
    let answer = outbox.answer(StoreRequest::Commit(commit));
    let Ok(StoreReply::Committed(Committed {
        failed,
        not_replaced,
        changed,
        bounces,
        refused,
        not_noted,
        warned: _,
        reported: _,
        is_unmarked: _,
        lacks_policies: _,
    })) = answer
    else {
        panic!("{answer:?}")
    };
    let refused = refused.into_iter().map(|Refused { id, .. }| id).collect();
    Recorded { failed, not_replaced, changed, bounces, refused, not_noted }
}

fn delivered(ids: &[MailId]) -> Commit {
    Commit { delivered: ids.iter().copied().map(DeliveredMail::from).collect(), ..Commit::default() }
}

fn claim(
    outbox: &mut MemoryOutbox,
    ids: &[MailId],
    transactions: usize,
) -> (Vec<Vec<MailId>>, Vec<MailId>, Vec<MailId>) {
    let answer = outbox.answer(StoreRequest::Claim {
        signing: None,
        ids: ids.to_vec(),
        transactions,
        recipients: 100,
    });
    let Ok(StoreReply::Claimed(Claimed { transactions, left_over, unreadable })) = answer else {
        panic!("{answer:?}")
    };
    let ids_of = |rows: Vec<Row>| rows.into_iter().map(|row| row.id).collect();
    let transactions = transactions.into_iter().map(|transaction| ids_of(transaction.rows)).collect();
    let left_over = left_over.into_iter().map(|row| row.id).collect();
    (transactions, left_over, unreadable.into_iter().map(|refused| refused.id).collect())
}

fn scan(outbox: &mut MemoryOutbox, limit: u32) -> (Vec<MailId>, Vec<MailId>, Vec<MailId>) {
    let (mut found, mut taken_all, mut unreadable_all) = (Vec::new(), Vec::new(), Vec::new());
    let mut after = Cursor::BeforeFirst;
    loop {
        let answer = outbox.answer(StoreRequest::Scan { after, limit });
        let Ok(StoreReply::Scanned(Scanned { rows, taken, unreadable, next, .. })) = answer else {
            panic!("{answer:?}")
        };
        assert!(rows.len() <= limit as usize);
        found.extend(rows.iter().map(|row| row.id));
        taken_all.extend(taken);
        unreadable_all.extend(unreadable.into_iter().map(|refused| refused.id));
        let Some(next) = next else { return (found, taken_all, unreadable_all) };
        assert!(next > after);
        after = next;
    }
}

#[test]
fn rows_of_one_message_go_together_up_to_what_every_server_takes() {
    let (mut outbox, ids) = outbox(2 * TRANSACTION_RECIPIENT_LIMIT + 50);
    let (transactions, left_over, _) = claim(&mut outbox, &ids, 2);
    assert_eq!(transactions.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100]);
    assert_eq!(left_over, ids[200..]);
}

#[test]
fn what_is_told_of_mail_can_be_recorded_of_that_mail_only() {
    type Change = fn(&mut Mail);
    let changes: [(Change, bool, bool); 6] = [
        (|_| {}, true, true),
        (|mail| mail.remote = Some("relay.example".into()), true, false),
        (|mail| mail.recipient = "other@example.net".into(), false, false),
        (|mail| mail.sender = None, false, false),
        (|mail| mail.submission = UnixTime(2), false, false),
        (|mail| mail.data = "two".into(), false, false),
    ];
    for (change, counts_as_delivered, counts_as_failed) in changes {
        let (mut outbox, ids) = outbox(3);
        let bounce = bounce(&mut outbox, &ids[2..]);
        claim(&mut outbox, &ids, 10);
        for &id in &ids {
            change(outbox.mail_mut(id).unwrap());
        }
        let rows: Vec<Row> = outbox.mails().map(|(id, mail)| mail.row(id)).collect();
        let recorded = commit(
            &mut outbox,
            Commit {
                delivered: vec![ids[0].into()],
                failed: vec![failure(ids[1], false)],
                replaced: vec![Replacement {
                    originals: vec![ids[2]],
                    expired: Vec::new(),
                    bounce: Some(bounce),
                }],
                ..Commit::default()
            },
        );
        assert_eq!(outbox.mail(ids[0]).is_none(), counts_as_delivered);
        assert_eq!(recorded.failed.len(), usize::from(counts_as_failed));
        assert_eq!(outbox.mail(ids[1]).unwrap().faillog.len(), usize::from(counts_as_failed));
        assert_eq!(outbox.mail(ids[2]).is_none(), counts_as_failed);
        assert_eq!(recorded.bounces[0].len(), if counts_as_failed { 2 } else { 0 });
        let skipped = usize::from(counts_as_delivered);
        assert_eq!(recorded.changed, if counts_as_failed { &[] } else { &rows[skipped..] });
        assert_eq!((recorded.not_replaced, recorded.refused), (vec![], vec![]));
        // What was changed was told of once more, and is known from now on.
        assert_eq!(commit(&mut outbox, delivered(&ids[1..2])), Recorded::default());
        assert!(outbox.mail(ids[1]).is_none());
    }
}

#[test]
fn a_bounce_takes_the_place_of_all_its_originals_or_of_none() {
    let (mut outbox, ids) = outbox(3);
    for is_whole in [false, true] {
        let bounce = bounce(&mut outbox, &ids);
        let originals = if is_whole { ids[..2].to_vec() } else { vec![ids[0], MailId(77), ids[1]] };
        let replaced = vec![Replacement { originals, expired: Vec::new(), bounce: Some(bounce) }];
        let recorded = commit(&mut outbox, Commit { replaced, ..Commit::default() });
        if !is_whole {
            assert_eq!((recorded.not_replaced, recorded.bounces), (ids[..2].to_vec(), vec![vec![]]));
            assert_eq!(outbox.len(), 3);
            continue;
        }
        assert_eq!((recorded.not_replaced, recorded.bounces), (vec![], vec![vec![MailId(4), MailId(5)]]));
        assert_eq!(outbox.mails().map(|(id, _)| id.0).collect::<Vec<_>>(), [3, 4, 5]);
        let copy = outbox.mail(MailId(5)).unwrap();
        assert_eq!((&copy.sender, &copy.remote, &*copy.recipient), (&None, &None, &b"copy@example.org"[..]));
        let text = String::from_utf8_lossy(&copy.data);
        assert!(text.contains("postmaster@me.example") && text.contains("r@example.net"), "{text}");
        assert_eq!(copy.submission, UnixTime(9));
    }
}

#[test]
fn mail_of_which_nothing_can_be_recorded_costs_only_itself() {
    let (mut outbox, ids) = outbox(4);
    outbox.set_flaw(ids[1], Some(Flaw::Unrecordable));
    outbox.set_flaw(ids[2], Some(Flaw::Unnotable));
    let recorded = commit(&mut outbox, delivered(&ids[..3]));
    assert_eq!((recorded.refused, recorded.not_noted), (ids[1..3].to_vec(), vec![ids[2]]));
    // What was noted is not handed out again.
    assert_eq!(scan(&mut outbox, 10), (ids[2..].to_vec(), vec![ids[1]], vec![]));
    assert_eq!(claim(&mut outbox, &ids, 10).0, [ids[2..].to_vec()]);
    let recorded = commit(
        &mut outbox,
        Commit { failed: vec![failure(ids[2], true), failure(ids[3], true)], ..Commit::default() },
    );
    assert_eq!((recorded.refused, recorded.failed.len()), (vec![ids[2]], 1));
    let bounce = bounce(&mut outbox, &ids[2..]);
    let replaced =
        vec![Replacement { originals: ids[2..].to_vec(), expired: Vec::new(), bounce: Some(bounce) }];
    let recorded = commit(&mut outbox, Commit { replaced, ..Commit::default() });
    assert_eq!(
        (recorded.refused, recorded.not_replaced, recorded.bounces),
        (vec![ids[2]], vec![ids[3]], vec![vec![]])
    );
    outbox.set_flaw(ids[1], None);
    assert_eq!(outbox.taken().collect::<Vec<_>>(), [ids[1]]);
    assert_eq!(commit(&mut outbox, delivered(&ids[1..2])), Recorded::default());
    assert_eq!(outbox.taken().count(), 0);
}

#[test]
fn mail_that_cannot_be_read_is_named_beside_the_rest() {
    let (mut outbox, ids) = outbox(3);
    outbox.set_flaw(ids[1], Some(Flaw::Unreadable));
    assert_eq!(scan(&mut outbox, 1), (vec![ids[0], ids[2]], vec![], vec![ids[1]]));
    assert_eq!(claim(&mut outbox, &ids, 10), (vec![vec![ids[0], ids[2]]], vec![], vec![ids[1]]));
    let error = outbox.answer(StoreRequest::ReadData { id: ids[1], offset: 0, limit: 1 }).unwrap_err();
    assert!(
        error.trouble.is_about_a_row() && error.to_string().contains("mail 2 to <r@example.net>"),
        "{error}"
    );
    for request in [
        StoreRequest::Recall { ids: ids.clone() },
        StoreRequest::ReadFailed { ids: ids.clone(), original_limit_octets: 9 },
    ] {
        match outbox.answer(request) {
            Ok(StoreReply::Recalled { rows, unreadable }) => {
                assert_eq!((rows.len(), unreadable.len()), (2, 1))
            }
            Ok(StoreReply::Failed { messages, unreadable, .. }) => {
                assert_eq!((messages.len(), unreadable.len()), (1, 1));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn other_mail_in_the_place_of_what_was_claimed_has_no_data_for_it() {
    let (mut outbox, ids) = outbox(1);
    claim(&mut outbox, &ids, 1);
    let read =
        |outbox: &mut MemoryOutbox| outbox.answer(StoreRequest::ReadData { id: ids[0], offset: 1, limit: 9 });
    assert_eq!(read(&mut outbox), Ok(StoreReply::Data("ne".into())));
    outbox.put(ids[0], mail(1, 2));
    assert_eq!(read(&mut outbox), Ok(StoreReply::Data(Bytes::new())));
    claim(&mut outbox, &ids, 1);
    assert_eq!(read(&mut outbox), Ok(StoreReply::Data("wo".into())));
}

#[test]
fn mail_is_held_until_its_verdict_is_recorded_or_it_is_released() {
    let (mut outbox, ids) = outbox(4);
    outbox.set_flaw(ids[1], Some(Flaw::Unrecordable));
    claim(&mut outbox, &ids[..3], 1);
    assert!(outbox.held().eq(ids[..3].iter().copied()));
    commit(&mut outbox, delivered(&ids[..2]));
    assert!(outbox.held().eq(ids[1..3].iter().copied()), "a verdict that was refused is tried again");
    outbox.check_release(&ids[1..3]);
    outbox.release(&ids[1..3]);
    assert_eq!(outbox.held().count(), 0);
    // Nothing is known of what was released.
    outbox.put(ids[2], mail(0, 2));
    assert_eq!(commit(&mut outbox, delivered(&ids[2..3])), Recorded::default());
    assert!(outbox.mail(ids[2]).is_none());
}

#[test]
#[should_panic(expected = "mail 1 is asked for, and held already")]
fn what_is_held_must_not_be_claimed_again() {
    let (mut outbox, ids) = outbox(1);
    claim(&mut outbox, &ids, 1);
    outbox.check(&StoreRequest::Recall { ids });
}

#[test]
#[should_panic(expected = "a verdict on mail 1, which is not held")]
fn a_verdict_must_be_about_what_is_held() {
    let (outbox, ids) = outbox(1);
    outbox.check(&StoreRequest::Commit(Commit { failed: vec![failure(ids[0], true)], ..Commit::default() }));
}

#[test]
#[should_panic(expected = "mail 1 is released, and not held")]
fn a_claim_must_not_end_twice() {
    let (mut outbox, ids) = outbox(1);
    claim(&mut outbox, &ids, 1);
    outbox.release(&ids);
    outbox.check_release(&ids);
}

#[test]
fn a_note_is_about_the_mail_that_was_taken_and_not_about_other_mail_in_its_place() {
    let (mut outbox, ids) = outbox(1);
    outbox.set_flaw(ids[0], Some(Flaw::Unrecordable));
    claim(&mut outbox, &ids, 1);
    assert_eq!(commit(&mut outbox, delivered(&ids)).refused, ids);
    assert_eq!(scan(&mut outbox, 9).1, ids);
    outbox.put(ids[0], mail(1, 2));
    outbox.release_all();
    assert_eq!((scan(&mut outbox, 9).0, outbox.taken().count()), (ids.clone(), 0));
    // What an earlier process knows only by its note is not taken for the other mail.
    let again = delivered(&ids);
    assert_eq!(outbox.recordable(&again).delivered, []);
    let changed = commit(&mut outbox, again).changed;
    assert!(changed.iter().map(|row| row.id).eq(ids.iter().copied()));
    assert!(outbox.mail(ids[0]).is_some());
}

#[test]
fn what_is_recorded_is_foretold() {
    let (mut outbox, ids) = outbox(4);
    claim(&mut outbox, &ids, 4);
    outbox.set_flaw(ids[1], Some(Flaw::Unrecordable));
    outbox.put(ids[2], mail(1, 2));
    let all = Commit { failed: vec![failure(ids[3], false)], ..delivered(&ids[..3]) };
    let foretold = outbox.recordable(&all);
    assert_eq!(foretold, Commit { failed: all.failed.clone(), ..delivered(&ids[..1]) });
    let recorded = commit(&mut outbox, all);
    assert_eq!((recorded.refused, recorded.changed.len()), (vec![ids[1]], 1));
    assert!(outbox.mail(ids[0]).is_none() && outbox.mail(ids[3]).is_some_and(|mail| mail.faillog.len() == 1));
}

#[test]
fn ids_are_never_given_twice_and_where_none_is_left_only_what_needs_one_is_refused() {
    let (mut outbox, ids) = outbox(2);
    outbox.remove(ids[1]);
    assert_eq!(outbox.insert(mail(1, 1)), Ok(MailId(3)));
    outbox.put(MailId(i64::MAX - 1), mail(1, 1));
    let bounce = bounce(&mut outbox, &ids[..1]);
    let replaced =
        vec![Replacement { originals: ids[..1].to_vec(), expired: Vec::new(), bounce: Some(bounce) }];
    let recorded =
        commit(&mut outbox, Commit { replaced, delivered: vec![MailId(3).into()], ..Commit::default() });
    assert_eq!((recorded.refused, recorded.bounces), (ids[..1].to_vec(), vec![vec![]]));
    assert_eq!(outbox.len(), 2, "the delivery was recorded");
    assert_eq!(outbox.insert(mail(1, 1)), Ok(MailId(i64::MAX)));
    assert_eq!(outbox.insert(mail(1, 1)).unwrap_err().trouble, StoreTrouble::Impossible);
    assert_eq!(scan(&mut outbox, 1).0, [ids[0], MailId(i64::MAX - 1), MailId(i64::MAX)]);
}

#[test]
fn nothing_that_may_hold_a_password_is_shown() {
    let mut outbox = MemoryOutbox::new();
    let remote = Some("user:hunter2@relay.example".into());
    outbox.insert(Mail { remote, ..mail(1, 1) }).unwrap();
    assert!(!format!("{outbox:?}").contains("hunter2"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_row_is_scanned_once_and_claimed_once_with_all_of_its_data(
        rows in prop::collection::vec((0usize..3, 0usize..5, -9i64..60), 1..30),
        limit in 1u32..7,
        transactions in 1usize..5,
        budget in prop::option::of(1usize..100_000),
    ) {
        let mut outbox = MemoryOutbox::new();
        let mut expected = BTreeMap::new();
        for (sender, data_number, id) in rows {
            outbox.put(MailId(id), mail(sender, data_number));
            expected.insert(MailId(id), (sender, data_number));
        }
        if let Some(octets) = budget { outbox.set_budget(octets) }
        let budget = budget.unwrap_or(CLAIM_BUDGET_OCTETS);
        let (found, ..) = scan(&mut outbox, limit);
        prop_assert!(found.iter().eq(expected.keys()));
        let (mut wanted, mut claimed) = (found, BTreeSet::new());
        while !wanted.is_empty() {
            let answer = outbox.answer(StoreRequest::Claim { signing: None, ids: wanted.clone(), transactions, recipients: 100 });
            let Ok(StoreReply::Claimed(Claimed { transactions: groups, left_over, .. })) = answer else { panic!("{answer:?}") };
            prop_assert!((1..=transactions).contains(&groups.len()));
            let heads: usize = groups.iter().map(|group| group.head.len()).sum();
            prop_assert!(heads <= budget || groups.len() == 1);
            for group in &groups {
                let (sender, data_number) = expected[&group.rows[0].id];
                let mut octets = group.head.to_vec();
                while let Ok(StoreReply::Data(piece)) = outbox.answer(StoreRequest::ReadData {
                    id: group.rows[0].id, offset: octets.len() as u64, limit: 7,
                }) {
                    if piece.is_empty() { break }
                    octets.extend_from_slice(&piece);
                }
                prop_assert!(octets == data(data_number) && octets.len() as u64 == group.data_octets);
                for row in &group.rows {
                    prop_assert_eq!(expected[&row.id], (sender, data_number));
                    prop_assert_eq!(row.sender.as_deref().unwrap_or_default(), SENDERS[sender].as_bytes());
                    prop_assert!(claimed.insert(row.id));
                }
            }
            for one in &left_over {
                prop_assert!(wanted.contains(&one.id) && !claimed.contains(&one.id));
                for other in &left_over {
                    let is_one_message = expected[&one.id] == expected[&other.id];
                    prop_assert_eq!(one.message == other.message, is_one_message);
                }
            }
            wanted = left_over.into_iter().map(|row| row.id).collect();
        }
        prop_assert!(claimed.iter().eq(expected.keys()));
    }

    #[test]
    fn failed_mail_comes_by_message_within_the_budget(
        rows in prop::collection::vec((0usize..3, 0usize..5, 0usize..3), 1..20),
        budget in 1usize..200_000,
        original_limit_octets in 0u64..100_000,
    ) {
        let mut outbox = MemoryOutbox::new();
        outbox.set_budget(budget);
        for (sender, data_number, failures) in rows {
            let id = outbox.insert(mail(sender, data_number)).unwrap();
            let failed = vec![failure(id, false); failures];
            commit(&mut outbox, Commit { failed, ..Commit::default() });
        }
        let mut wanted: Vec<MailId> = outbox.mails().map(|(id, _)| id).collect();
        let mut seen = BTreeSet::new();
        while !wanted.is_empty() {
            let request = StoreRequest::ReadFailed { ids: wanted, original_limit_octets };
            let answer = outbox.answer(request);
            let Ok(StoreReply::Failed { messages, left_over, .. }) = answer else { panic!("{answer:?}") };
            prop_assert!(!messages.is_empty());
            let originals: usize = messages.iter().map(|message| message.original.len()).sum();
            prop_assert!(originals <= budget || messages.len() == 1);
            for FailedMessage { mails, data_octets, original } in &messages {
                prop_assert!(*data_octets > original_limit_octets || original.len() as u64 == *data_octets);
                for failed in mails {
                    let stored = outbox.mail(failed.row.id).unwrap();
                    prop_assert!(stored.data.starts_with(original) && stored.data.len() as u64 == *data_octets);
                    prop_assert_eq!(&failed.row, &stored.row(failed.row.id));
                    prop_assert_eq!(&failed.attempts, &stored.faillog);
                    prop_assert!(seen.insert(failed.row.id));
                }
            }
            wanted = left_over;
        }
        prop_assert_eq!(seen.len(), outbox.len());
    }
}
