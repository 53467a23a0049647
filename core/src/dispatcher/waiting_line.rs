//! A line of those who wait for their turn.

use alloc::collections::BTreeMap;

use crate::queue::HopId;

/// Next hops in the order in which they have come, each at most once. Thousands may wait for one host, and leave the line from
/// any place: so nothing here takes longer than a search in a tree.
#[derive(Debug, Default)]
pub(super) struct WaitingLine {
    line: BTreeMap<i64, HopId>,
    places: BTreeMap<HopId, i64>,
}

impl WaitingLine {
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    pub(super) fn contains(&self, hop: HopId) -> bool {
        self.places.contains_key(&hop)
    }

    /// Puts one at the end, wherever it was before.
    pub(super) fn push_back(&mut self, hop: HopId) {
        self.remove(hop);
        let place = self.line.last_key_value().map_or(0, |(&last, _)| last + 1);
        self.insert(place, hop);
    }

    /// Puts one at the front, wherever it was before.
    pub(super) fn push_front(&mut self, hop: HopId) {
        self.remove(hop);
        let place = self.line.first_key_value().map_or(0, |(&first, _)| first - 1);
        self.insert(place, hop);
    }

    pub(super) fn pop_front(&mut self) -> Option<HopId> {
        let (_, hop) = self.line.pop_first()?;
        self.places.remove(&hop);
        Some(hop)
    }

    pub(super) fn remove(&mut self, hop: HopId) {
        if let Some(place) = self.places.remove(&hop) {
            self.line.remove(&place);
        }
    }

    fn insert(&mut self, place: i64, hop: HopId) {
        self.line.insert(place, hop);
        self.places.insert(hop, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Domain;
    use crate::next_hop::NextHop;
    use crate::outbox::MailId;
    use crate::queue::{MessageKey, Place, Queue};
    use alloc::vec::Vec;

    fn hops<const COUNT: usize>() -> [HopId; COUNT] {
        let mut queue = Queue::new();
        core::array::from_fn(|number| {
            let domain = Domain::parse(&alloc::format!("d{number}.example")).unwrap();
            let id = MailId(i64::try_from(number).unwrap());
            queue.insert(id, Some(&NextHop::Domain(domain)), MessageKey(0), Place::Ready)
        })
    }

    #[test]
    fn who_comes_first_goes_first_and_each_has_one_place() {
        let [a, b, c, d] = hops();
        let mut line = WaitingLine::default();
        [a, b, c, a].into_iter().for_each(|hop| line.push_back(hop));
        line.push_front(d);
        line.push_front(c);
        line.remove(b);
        assert_eq!((line.len(), line.contains(a), line.contains(b)), (3, true, false));
        let order: Vec<HopId> = core::iter::from_fn(|| line.pop_front()).collect();
        assert_eq!(order, [c, d, a]);
        assert!(line.is_empty() && !line.contains(a));
    }
}
