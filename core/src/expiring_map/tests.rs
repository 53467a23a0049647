use super::*;

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

#[test]
fn values_are_forgotten_in_their_time() {
    let mut map = ExpiringMap::new(2);
    map.keep("a", 1, at(10), at(0));
    assert_eq!(map.get(&"a", at(9)), Some(&1));
    assert_eq!(map.get(&"a", at(10)), None);
    map.keep("a", 2, at(20), at(10));
    assert_eq!(map.get(&"a", at(10)), Some(&2));
    assert!(map.forget(&"a") && !map.forget(&"a"));
    assert!(map.is_empty());
}

#[test]
fn there_are_never_more_than_the_limit() {
    let mut map = ExpiringMap::new(2);
    map.keep("long", 1, at(30), at(0));
    map.keep("short", 2, at(10), at(0));
    map.keep("new", 3, at(20), at(1));
    assert_eq!(map.get(&"short", at(1)), None, "what would have gone first has gone");
    assert_eq!(map.get(&"long", at(1)), Some(&1));
    map.keep("new", 4, at(40), at(1));
    assert_eq!(map.get(&"long", at(1)), Some(&1), "what is known needs no room");
    assert_eq!(map.get(&"new", at(1)), Some(&4));
}
