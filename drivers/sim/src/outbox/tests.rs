use super::*;
use cmail_delivery::outbox::Replacement;

fn outbox(count: usize) -> Outbox {
    let mut outbox = Outbox::new();
    for number in 0..count {
        outbox.submit(Mail {
            remote: None,
            sender: Some(b"s@example.org"[..].into()),
            recipient: format!("r{number}@example.net").into(),
            submission: UnixTime(1),
            data: Bytes::from_static(b"text"),
            faillog: vec![],
            last_failure: None,
            hold: Hold::Unset,
            digest: Digest::default(),
        });
    }
    outbox
}

#[test]
fn nothing_of_a_replacement_is_done_if_an_original_is_gone() {
    let mut outbox = outbox(3);
    outbox.remove(MailId(2));
    let originals = vec![MailId(1), MailId(2)];
    let commit = Commit { replaced: vec![Replacement { originals, bounce: None }], ..Commit::default() };
    let (reply, effects) = outbox.commit(&commit, compose_bounces(&commit), UnixTime(5));
    assert_eq!(
        reply,
        StoreReply::Committed(Committed {
            failed: vec![],
            not_replaced: vec![MailId(1)],
            changed: vec![],
            bounces: vec![vec![]],
            refused: vec![],
            not_noted: vec![],
            warned: vec![],
            is_unmarked: false,
        })
    );
    assert!(effects.bounces.is_empty());
    assert_eq!(outbox.len(), 2);
}

#[test]
fn rows_of_one_message_are_claimed_together() {
    let outbox = outbox(3);
    let ids = vec![MailId(3), MailId(1), MailId(9)];
    let request = StoreRequest::Claim { ids, transactions: 1, recipients: 100 };
    let Some(StoreReply::Claimed(Claimed { transactions, .. })) = outbox.read(&request) else {
        panic!("it is no claim");
    };
    let ids: Vec<i64> = transactions.iter().flat_map(|claimed| &claimed.rows).map(|row| row.id.0).collect();
    assert_eq!((transactions.len(), ids), (1, vec![3, 1]));
}

#[test]
fn a_note_is_about_what_was_submitted_by_then_and_not_about_what_came_later() {
    let mut outbox = outbox(1);
    let commit = Commit { delivered: vec![MailId(1).into()], ..Commit::default() };
    outbox.poison(MailId(1), Poison::Record);
    assert_eq!(outbox.sift(&commit, UnixTime(5)).refused.len(), 1);
    let scan = StoreRequest::Scan { after: Cursor::BeforeFirst, limit: 9 };
    let taken = |outbox: &Outbox| match outbox.read(&scan) {
        Some(StoreReply::Scanned(Scanned { taken, .. })) => taken.len(),
        _ => panic!("that is no answer to a scan"),
    };
    assert_eq!(taken(&outbox), 1);
    let mail = outbox.mail(MailId(1)).unwrap().clone();
    outbox.exchange(MailId(1), Mail { submission: UnixTime(6), ..mail });
    assert_eq!(taken(&outbox), 0);
    // What an earlier process knows only by its note is not taken for the other mail.
    let sifted = outbox.sift(&commit, UnixTime(7));
    assert_eq!((sifted.changed.len(), sifted.commit.delivered), (1, vec![]));
}
