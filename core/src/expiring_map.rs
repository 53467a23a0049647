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

    /// Returns what is remembered of `key`.
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
mod tests;
