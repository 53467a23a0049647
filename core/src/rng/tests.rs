use super::*;

#[test]
fn below_stays_below_and_reaches_every_number() {
    let mut rng = Rng::from_seed([7; 32]);
    let mut seen = [false; 11];
    for _ in 0..1000 {
        seen[usize::try_from(rng.below(11)).unwrap()] = true;
    }
    assert_eq!(seen, [true; 11]);
    assert_eq!(rng.below(0), 0);
    assert_eq!(rng.below(1), 0);
}

#[test]
fn equal_seeds_give_equal_forks() {
    let (mut a, mut b) = (Rng::from_seed([1; 32]), Rng::from_seed([1; 32]));
    let (mut fork_of_a, mut fork_of_b) = (a.fork(), b.fork());
    assert_eq!(fork_of_a.next_u64(), fork_of_b.next_u64());
    assert_eq!(a.next_u64(), b.next_u64());
}

#[test]
fn shuffle_keeps_the_items() {
    let mut items = [1, 2, 3, 4, 5];
    Rng::from_seed([3; 32]).shuffle(&mut items);
    items.sort_unstable();
    assert_eq!(items, [1, 2, 3, 4, 5]);
}
