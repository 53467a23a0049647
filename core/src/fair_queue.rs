//! Who comes next where there is no room for all.

use alloc::collections::BTreeMap;

/// One turn in so many is for those that have failed before, if others wait too: they come later, and are never starved.
const TURNS_PER_FAILED: u32 = 8;

/// What is known of something that waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prospect {
    /// No attempt has failed.
    Fresh,
    /// An attempt has failed.
    Failed,
}

/// Two queues, each first in, first out. Thousands may wait for one host, and leave from any place: so nothing here takes
/// longer than a search in a tree.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    fresh: BTreeMap<i64, T>,
    failed: BTreeMap<i64, T>,
    places: BTreeMap<T, (Prospect, i64)>,
    /// The numbers of the next place at the end and at the front.
    last: i64,
    first: i64,
    /// How many turns have gone to fresh ones since one that has failed had its turn.
    passed_over: u32,
}

impl<T: Copy + Ord> Default for FairQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy + Ord> FairQueue<T> {
    pub(crate) const fn new() -> Self {
        Self {
            fresh: BTreeMap::new(),
            failed: BTreeMap::new(),
            places: BTreeMap::new(),
            last: 0,
            first: -1,
            passed_over: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn contains(&self, item: &T) -> bool {
        self.places.contains_key(item)
    }

    /// Puts something at the end of its queue. What waits already keeps its place, or gets a better queue.
    pub(crate) fn push(&mut self, item: T, prospect: Prospect) {
        if self.places.get(&item).is_some_and(|&(known, _)| known <= prospect) {
            return;
        }
        self.remove(&item);
        self.insert(item, prospect, self.last);
        self.last += 1;
    }

    /// Puts something at the front of its queue.
    pub(crate) fn push_front(&mut self, item: T, prospect: Prospect) {
        self.remove(&item);
        self.insert(item, prospect, self.first);
        self.first -= 1;
    }

    /// Takes whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let prefers_fresh = self.passed_over + 1 < TURNS_PER_FAILED || self.failed.is_empty();
        let (from, other) = if prefers_fresh {
            (&mut self.fresh, &mut self.failed)
        } else {
            (&mut self.failed, &mut self.fresh)
        };
        let (_, item) = from.pop_first().or_else(|| other.pop_first())?;
        let (prospect, _) = self.places.remove(&item)?;
        self.passed_over = match prospect {
            Prospect::Fresh if !self.failed.is_empty() => self.passed_over + 1,
            Prospect::Fresh | Prospect::Failed => 0,
        };
        Some(item)
    }

    /// Takes what has come last, from those without a failed attempt if there are such.
    pub(crate) fn pop_newest(&mut self) -> Option<T> {
        let (_, item) = self.fresh.pop_last().or_else(|| self.failed.pop_last())?;
        self.places.remove(&item);
        Some(item)
    }

    /// Takes something out, wherever it stands; whether it waited.
    pub(crate) fn remove(&mut self, item: &T) -> bool {
        let Some((prospect, number)) = self.places.remove(item) else { return false };
        self.queue(prospect).remove(&number);
        true
    }

    fn insert(&mut self, item: T, prospect: Prospect, number: i64) {
        self.queue(prospect).insert(number, item);
        self.places.insert(item, (prospect, number));
    }

    fn queue(&mut self, prospect: Prospect) -> &mut BTreeMap<i64, T> {
        match prospect {
            Prospect::Fresh => &mut self.fresh,
            Prospect::Failed => &mut self.failed,
        }
    }
}

#[cfg(test)]
mod tests;
