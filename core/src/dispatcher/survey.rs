//! Counts the mail in the outbox by destination and age, piece by piece, because there may be millions.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::Dispatcher;
use crate::outbox::{Cursor, MailId};
use crate::queue::HopId;

/// A count that is under way, or done. The ages of mail are those of their ids, which ascend: so one mail that was submitted out of
/// order may be counted in the class of its neighbours.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The first mail that is younger than each age, the ages being in ascending order.
    younger: Vec<MailId>,
    after: Cursor,
    hops: BTreeMap<HopId, HopCount>,
    total: Box<[u64]>,
}

/// The mail of one hop.
#[derive(Clone, Debug)]
struct HopCount {
    ages: Box<[u64]>,
    /// That of all ages, by which hops are compared.
    sum: u64,
}

/// The mail for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyRow {
    /// Where the mail goes; without credentials.
    pub name: String,
    /// The number of mails in each class of age, the youngest first.
    pub ages: Box<[u64]>,
}

impl Survey {
    /// Returns a count by these classes of age: the first mail that is younger than each age, the ages being in ascending order. The
    /// last class has no limit.
    pub fn new(younger: Vec<MailId>) -> Self {
        let total = vec![0; younger.len() + 1].into();
        Self { younger, after: Cursor::BeforeFirst, hops: BTreeMap::new(), total }
    }

    /// Returns the number of mails in each class of age, the youngest first.
    pub fn total(&self) -> &[u64] {
        &self.total
    }

    fn count(&mut self, id: MailId, hop: HopId) {
        let class = self.younger.iter().position(|first| id >= *first).unwrap_or(self.younger.len());
        let classes = self.total.len();
        let of_hop =
            self.hops.entry(hop).or_insert_with(|| HopCount { ages: vec![0; classes].into(), sum: 0 });
        of_hop.sum += 1;
        for counts in [&mut of_hop.ages, &mut self.total] {
            if let Some(count) = counts.get_mut(class) {
                *count += 1;
            }
        }
        self.after = Cursor::After(id);
    }
}

impl Dispatcher {
    /// Counts at most so many mails more. Returns whether there are more.
    pub fn go_on_with(&self, survey: &mut Survey, limit: usize) -> bool {
        let mut counted = 0;
        for (id, entry) in self.books.queue.after(survey.after).take(limit) {
            survey.count(id, entry.hop);
            counted += 1;
        }
        counted == limit
    }

    /// Returns the destinations that have the most mail by this count, the largest first.
    pub fn largest_of(&self, survey: &Survey, limit: usize) -> Vec<SurveyRow> {
        let mut hops: Vec<(HopId, &HopCount)> =
            survey.hops.iter().map(|(hop, count)| (*hop, count)).collect();
        let by_rank = |(hop, count): &(HopId, &HopCount)| (Reverse(count.sum), *hop);
        // There may be many hops, of which few are shown: only those are sorted.
        if limit < hops.len() {
            hops.select_nth_unstable_by_key(limit, by_rank);
            hops.truncate(limit);
        }
        hops.sort_unstable_by_key(by_rank);
        let row = |(hop, count): (HopId, &HopCount)| SurveyRow {
            name: self.name_of(hop),
            ages: count.ages.clone(),
        };
        hops.into_iter().map(row).collect()
    }

    fn name_of(&self, hop: HopId) -> String {
        match self.books.queue.next_hop(hop) {
            Some(next_hop) => next_hop.to_string(),
            None if hop == HopId::UNROUTABLE => "no destination".into(),
            None => "no mail any more".into(),
        }
    }
}
