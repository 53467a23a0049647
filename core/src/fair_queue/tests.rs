use super::*;
use alloc::vec::Vec;

fn order(turns: &mut FairQueue<u32>) -> Vec<u32> {
    core::iter::from_fn(|| turns.pop()).collect()
}

#[test]
fn the_first_comes_first() {
    let mut turns = FairQueue::new();
    for item in [3, 1, 2] {
        turns.push(item, Prospect::Fresh);
    }
    turns.push_front(9, Prospect::Fresh);
    turns.push(3, Prospect::Failed);
    assert_eq!((turns.len(), turns.contains(&1)), (4, true));
    assert!(turns.remove(&1) && !turns.remove(&1));
    assert_eq!(order(&mut turns), [9, 3, 2], "what waits keeps its place");
    assert!(turns.is_empty() && turns.fresh.is_empty() && turns.failed.is_empty());
}

#[test]
fn what_has_failed_comes_later_and_is_not_starved() {
    let mut turns = FairQueue::new();
    (100..103).for_each(|item| turns.push(item, Prospect::Failed));
    (0..16).for_each(|item| turns.push(item, Prospect::Fresh));
    let expected = [0, 1, 2, 3, 4, 5, 6, 100, 7, 8, 9, 10, 11, 12, 13, 101, 14, 15, 102];
    assert_eq!(order(&mut turns), expected);
}

#[test]
fn what_is_asked_for_by_somebody_without_a_failure_moves_up() {
    let mut turns = FairQueue::new();
    (0..3).for_each(|item| turns.push(item, Prospect::Failed));
    turns.push(2, Prospect::Fresh);
    assert_eq!(order(&mut turns), [2, 0, 1]);
    (0..3).for_each(|item| turns.push(item, Prospect::Fresh));
    turns.push(7, Prospect::Failed);
    assert_eq!(
        [turns.pop_newest(), turns.pop(), turns.pop(), turns.pop_newest()],
        [Some(2), Some(0), Some(1), Some(7)]
    );
}
