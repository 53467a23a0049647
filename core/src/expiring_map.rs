//! What is remembered for a while, and of which there is never more than a limit.

use alloc::collections::BTreeMap;

use crate::time::Instant;

/// Values that are forgotten at a time of their own, or earlier where there are too many.
#[derive(Debug)]
pub(crate) struct ExpiringMap<K, V> {
    entries: BTreeMap<K, (Instant, V)>,
    limit: usize,
}

impl<K: Ord + Clone, V> ExpiringMap<K, V> {
    /// Remembers nothing yet, and never more than `limit` values.
    pub(crate) const fn new(limit: usize) -> Self {
        Self { entries: BTreeMap::new(), limit }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is remembered of `key`.
    pub(crate) fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.entries.get(key).filter(|(until, _)| *until > now).map(|(_, value)| value)
    }

    /// Remembers `value` until a time. Where there is no room, what would have been forgotten first goes first.
    pub(crate) fn keep(&mut self, key: K, value: V, until: Instant, now: Instant) {
        if self.entries.len() >= self.limit && !self.entries.contains_key(&key) {
            self.entries.retain(|_, (until, _)| *until > now);
        }
        if self.entries.len() >= self.limit && !self.entries.contains_key(&key) {
            let first = self.entries.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| key.clone());
            if let Some(first) = first {
                self.entries.remove(&first);
            }
        }
        self.entries.insert(key, (until, value));
    }

    /// Forgets `key`; whether there was something to forget.
    pub(crate) fn forget(&mut self, key: &K) -> bool {
        self.entries.remove(key).is_some()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
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
}
