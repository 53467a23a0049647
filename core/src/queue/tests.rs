use super::*;
use crate::address::Domain;
use crate::hold::{HeldBy, HoldId};

const KEY: MessageKey = MessageKey(7);

fn domain(name: &str) -> NextHop {
    NextHop::Domain(Domain::parse(name).unwrap())
}

fn ids(numbers: &[i64]) -> Vec<MailId> {
    numbers.iter().map(|&number| MailId(number)).collect()
}

#[test]
fn mail_is_due_when_its_time_comes() {
    let mut queue = Queue::new();
    let hop = queue.insert(MailId(1), Some(&domain("a")), KEY, QueueState::Waiting(UnixTime(100)));
    assert_eq!(queue.find(MailId(1)).unwrap().waits_for(), Some(UnixTime(100)));
    assert_eq!(queue.next_due(), Some(UnixTime(100)));
    assert!(queue.due(UnixTime(99), 10).is_empty());
    assert_eq!(queue.due(UnixTime(100), 10), [MailId(1)]);
    queue.set_state(MailId(1), QueueState::Ready);
    assert_eq!((queue.ready_count(hop), queue.next_due()), (1, None));
    assert_eq!(queue.find(MailId(1)).unwrap().waits_for(), None);
}

#[test]
fn the_oldest_mail_is_claimed_first_and_brings_its_message_along() {
    let mut queue = Queue::new();
    let mut hop = HopId::UNROUTABLE;
    for (id, key) in [(1, 9), (2, 8), (3, 9), (4, 8), (5, 7)] {
        hop = queue.insert(MailId(id), Some(&domain("a")), MessageKey(key), QueueState::Ready);
    }
    assert_eq!(queue.claim(hop, Order::OldestFirst, 9, 3), ids(&[1, 3]), "the next message does not fit");
    assert_eq!(queue.claim(hop, Order::OldestFirst, 1, 3), ids(&[2, 4]));
    assert_eq!(queue.claim(hop, Order::OldestFirst, 9, 3), ids(&[5]));
    assert!(queue.claim(hop, Order::OldestFirst, 9, 3).is_empty());
    assert!(queue.find(MailId(1)).unwrap().is_claimed());
}

#[test]
fn a_message_with_more_recipients_than_fit_is_claimed_in_parts() {
    let mut queue = Queue::new();
    let hop = queue.insert(MailId(1), Some(&domain("a")), KEY, QueueState::Ready);
    for id in 2..=5 {
        queue.insert(MailId(id), Some(&domain("a")), KEY, QueueState::Ready);
    }
    assert_eq!(queue.claim(hop, Order::OldestFirst, 1, 3), ids(&[1, 2, 3]));
    assert_eq!(queue.claim(hop, Order::OldestFirst, 1, 3), ids(&[4, 5]));
}

#[test]
fn mail_that_is_due_is_claimed_though_it_is_not_among_the_first_recipients_of_its_message() {
    let mut queue = Queue::new();
    let mut hop = HopId::UNROUTABLE;
    for id in 1..=4 {
        hop = queue.insert(MailId(id), Some(&domain("a")), KEY, QueueState::ReadyAgain);
    }
    queue.insert(MailId(9), Some(&domain("a")), KEY, QueueState::Ready);
    assert_eq!(queue.claim(hop, Order::OldestFirst, 1, 3), ids(&[9, 1, 2]));
    assert_eq!(queue.claim(hop, Order::OldestFirst, 1, 3), ids(&[3, 4]));
}

#[test]
fn the_newest_mail_is_claimed_first_if_that_is_wanted() {
    let mut queue = Queue::new();
    let mut hop = HopId::UNROUTABLE;
    for id in 1..=3 {
        hop = queue.insert(MailId(id), Some(&domain("a")), MessageKey(id as u32), QueueState::Ready);
    }
    assert_eq!(queue.claim(hop, Order::NewestFirst, 2, 9), ids(&[3, 2]));
}

#[test]
fn tried_mail_is_told_from_untried() {
    let mut queue = Queue::new();
    let hop = queue.insert(MailId(1), Some(&domain("a")), MessageKey(1), QueueState::ReadyAgain);
    assert!(!queue.is_partly_tried(hop));
    queue.insert(MailId(2), Some(&domain("a")), MessageKey(2), QueueState::Ready);
    assert!(queue.is_partly_tried(hop));
    assert_eq!(queue.claim_tried(hop, 9), ids(&[1]));
    assert!(!queue.is_partly_tried(hop));
}

#[test]
fn mail_that_was_tried_already_comes_last() {
    let mut queue = Queue::new();
    queue.insert(MailId(1), Some(&domain("a")), MessageKey(1), QueueState::ReadyAgain);
    let hop = queue.insert(MailId(2), Some(&domain("a")), MessageKey(2), QueueState::Ready);
    assert_eq!(queue.claim(hop, Order::OldestFirst, 9, 9), ids(&[2, 1]));
}

#[test]
fn claiming_up_to_an_id_leaves_what_came_later() {
    let mut queue = Queue::new();
    let hop = queue.insert(MailId(1), Some(&domain("a")), MessageKey(1), QueueState::Ready);
    queue.insert(MailId(2), Some(&domain("a")), MessageKey(2), QueueState::ReadyAgain);
    queue.insert(MailId(3), Some(&domain("a")), MessageKey(3), QueueState::Ready);
    assert_eq!(queue.claim_up_to(hop, Cursor::After(MailId(2)), 9), ids(&[1, 2]));
    assert_eq!(queue.ready_count(hop), 1);
}

#[test]
fn a_next_hop_that_nobody_needs_is_forgotten() {
    let mut queue = Queue::new();
    let hop = queue.insert(MailId(1), Some(&domain("a")), KEY, QueueState::Ready);
    queue.retain_hop(hop);
    let moved = queue.insert(MailId(1), Some(&domain("b")), KEY, QueueState::Ready);
    assert_eq!(queue.next_hop(hop), Some(&domain("a")), "it is retained");
    assert_eq!(queue.insert(MailId(2), Some(&domain("a")), KEY, QueueState::Ready), hop);
    queue.remove(MailId(2));
    queue.release_hop(hop);
    assert_eq!((queue.next_hop(hop), queue.next_hop(moved)), (None, Some(&domain("b"))));
    queue.remove(MailId(1));
    assert_eq!((queue.len(), queue.hops.len(), queue.hop_ids.len()), (0, 1, 0));
}

#[test]
fn a_message_is_busy_while_a_recipient_is_ready_or_claimed() {
    let mut queue = Queue::new();
    let hop = queue.insert(MailId(1), Some(&domain("a")), KEY, QueueState::GivenUp);
    queue.insert(MailId(2), Some(&domain("a")), KEY, QueueState::Ready);
    assert!(queue.is_busy_with(hop, KEY));
    queue.set_state(MailId(2), QueueState::Claimed);
    assert!(queue.is_busy_with(hop, KEY));
    queue.set_state(MailId(2), QueueState::GivenUp);
    assert!(!queue.is_busy_with(hop, KEY));
    assert_eq!(queue.claim_given_up(hop, KEY, 9), ids(&[1, 2]));
}

#[test]
fn mail_that_is_told_apart_still_looks_as_it_did() {
    let looks = [1, 2, u64::MAX, 0x1234_5678_9abc_def0].map(MessageKey::from_hash);
    let mut queue = Queue::new();
    let hop = queue.insert(MailId(1), Some(&domain("a")), looks[3], QueueState::Ready);
    for (id, message) in [(2, 7), (3, 7), (4, 8)] {
        queue.insert(MailId(id), Some(&domain("a")), looks[3], QueueState::Ready);
        queue.tell_apart(MailId(id), message);
        queue.tell_apart(MailId(id), message);
        let key = queue.find(MailId(id)).unwrap().key;
        assert_eq!(looks.map(|look| key.may_look_like(look)), [false, false, false, true]);
    }
    assert!(looks.iter().all(|look| look.may_look_like(*look)));
    assert_eq!(queue.claim(hop, Order::OldestFirst, 1, 9), ids(&[1]));
    assert_eq!(queue.claim(hop, Order::OldestFirst, 1, 9), ids(&[2, 3]));
    assert_eq!(queue.claim(hop, Order::OldestFirst, 1, 9), ids(&[4]));
}

#[test]
fn what_is_known_stays_small() {
    assert_eq!((size_of::<IndexEntry>(), size_of::<(HopId, PackedId)>()), (12, 12));
}

#[test]
fn packed_ids_have_the_same_order_and_come_back() {
    let ids = [i64::MIN, -1 << 32, -1, 0, 1, u32::MAX.into(), 1 << 32, i64::MAX].map(MailId);
    let packed = ids.map(PackedId::from);
    assert!(packed.is_sorted());
    assert_eq!(packed.map(MailId::from), ids);
}

#[test]
fn each_mail_is_counted_at_the_place_where_it_is() {
    let states = [
        QueueState::Ready,
        QueueState::ReadyAgain,
        QueueState::Waiting(UnixTime(100)),
        QueueState::Claimed,
        QueueState::GivenUp,
        QueueState::Held(HeldBy::Hold(HoldId(3)).into()),
        QueueState::Held(HeldBy::Line(12).into()),
        QueueState::Held(HeldBy::Line(u32::MAX).into()),
        QueueState::SetAside,
    ];
    let mut queue = Queue::new();
    for (before, after) in states.into_iter().flat_map(|before| states.map(|after| (before, after))) {
        queue.insert(MailId(1), Some(&domain("a")), KEY, before);
        queue.set_state(MailId(1), after);
        let places = queue.places(core::iter::empty());
        let MailPlaces { ready, waiting, claimed, given_up, held, set_aside, uncertain: _ } = places;
        let expected = match after {
            QueueState::Ready | QueueState::ReadyAgain => [1, 0, 0, 0, 0, 0],
            QueueState::Waiting(_) => [0, 1, 0, 0, 0, 0],
            QueueState::Claimed => [0, 0, 1, 0, 0, 0],
            QueueState::GivenUp => [0, 0, 0, 1, 0, 0],
            QueueState::Held(_) => [0, 0, 0, 0, 1, 0],
            QueueState::SetAside => [0, 0, 0, 0, 0, 1],
        };
        assert_eq!(queue.find(MailId(1)).unwrap().queue_state(), after);
        let by_lines: Vec<(u32, usize)> = queue.held_by_lines().collect();
        let line = if let QueueState::Held(holder) = after { holder.line() } else { None };
        assert_eq!(by_lines, line.map(|line| (line, 1)).into_iter().collect::<Vec<_>>());
        assert_eq!([ready, waiting, claimed, given_up, held, set_aside], expected, "{before:?} to {after:?}");
        let apart = queue.places([MailId(1), MailId(99)].into_iter());
        assert_eq!(apart, MailPlaces { uncertain: 1, ..MailPlaces::default() });
        queue.remove(MailId(1));
        assert_eq!(queue.places(core::iter::empty()), MailPlaces::default());
    }
}

#[test]
fn mail_is_counted_by_its_next_hop_in_every_state() {
    let mut queue = Queue::new();
    let count = |queue: &Queue, hop: Option<&NextHop>| {
        queue.mails_by_hop().filter(|(found, _)| *found == hop).map(|(_, mails)| mails).sum::<u32>()
    };
    let (a, b) = (domain("a"), domain("b"));
    queue.insert(MailId(1), Some(&a), KEY, QueueState::Ready);
    queue.insert(MailId(2), Some(&a), KEY, QueueState::Waiting(UnixTime(100)));
    queue.insert(MailId(3), None, KEY, QueueState::GivenUp);
    assert_eq!([Some(&a), Some(&b), None].map(|hop| count(&queue, hop)), [2, 0, 1]);
    queue.set_state(MailId(1), QueueState::Claimed);
    queue.set_state(MailId(2), QueueState::SetAside);
    queue.tell_apart(MailId(2), 9);
    assert_eq!(count(&queue, Some(&a)), 2);
    queue.insert(MailId(1), Some(&b), KEY, QueueState::Ready);
    queue.remove(MailId(3));
    assert_eq!([Some(&a), Some(&b), None].map(|hop| count(&queue, hop)), [1, 1, 0]);
}
