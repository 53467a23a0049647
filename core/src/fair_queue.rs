//! A queue in which those that have failed before come later, but are never starved.

use alloc::collections::BTreeMap;

/// One turn in this many goes to those that have failed before, if others wait too.
const TURNS_PER_FAILED: u32 = 8;

/// The chances of what waits for its turn, judged by its attempts so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prospect {
    /// No attempt has failed.
    Fresh,
    /// An attempt has failed.
    Failed,
}

/// Two queues, each first in, first out. Thousands of items may wait for one host, and leave from any position, so every
/// operation is a search in a tree.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    fresh: BTreeMap<i64, T>,
    failed: BTreeMap<i64, T>,
    places: BTreeMap<T, (Prospect, i64)>,
    /// The numbers of the next position at the end and at the front.
    last: i64,
    first: i64,
    /// The number of turns that fresh items took since the last turn of one that has failed.
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

    /// Appends an item to its queue. An item that waits already keeps its position, or moves to the better queue.
    pub(crate) fn push(&mut self, item: T, prospect: Prospect) {
        if self.places.get(&item).is_some_and(|&(known, _)| known <= prospect) {
            return;
        }
        self.remove(&item);
        self.insert(item, prospect, self.last);
        self.last += 1;
    }

    /// Puts an item at the front of its queue.
    pub(crate) fn push_front(&mut self, item: T, prospect: Prospect) {
        self.remove(&item);
        self.insert(item, prospect, self.first);
        self.first -= 1;
    }

    /// Takes the next item.
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

    /// Takes the newest item, from those without a failed attempt if there are any.
    pub(crate) fn pop_newest(&mut self) -> Option<T> {
        let (_, item) = self.fresh.pop_last().or_else(|| self.failed.pop_last())?;
        self.places.remove(&item);
        Some(item)
    }

    /// Removes an item. Returns whether it was in the queue.
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
