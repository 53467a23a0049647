//! A map with a limited number of entries that expire.

use alloc::collections::BTreeMap;

use crate::time::Instant;

/// Values that expire, each at its own time, or earlier if there are too many.
#[derive(Debug)]
pub(crate) struct ExpiringMap<K, V> {
    entries: BTreeMap<K, (Instant, V)>,
    limit: usize,
}

impl<K: Ord + Clone, V> ExpiringMap<K, V> {
    /// Returns an empty map that holds at most `limit` values.
    pub(crate) const fn new(limit: usize) -> Self {
        Self { entries: BTreeMap::new(), limit }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the value of `key`, unless it has expired.
    pub(crate) fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.entries.get(key).filter(|(until, _)| *until > now).map(|(_, value)| value)
    }

    /// Returns the keys of the values that have not expired.
    pub(crate) fn keys(&self, now: Instant) -> impl Iterator<Item = &K> {
        self.entries.iter().filter(move |(_, (until, _))| *until > now).map(|(key, _)| key)
    }

    /// Returns the values that have not expired, with their keys.
    pub(crate) fn iter(&self, now: Instant) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().filter(move |(_, (until, _))| *until > now).map(|(key, (_, value))| (key, value))
    }

    /// Keeps `value` until a time. If the map is full, the value that would expire first is dropped.
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

    /// Forgets `key`. Returns whether it had a value.
    pub(crate) fn forget(&mut self, key: &K) -> bool {
        self.entries.remove(key).is_some()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests;
