//! What holds mail, in 16 bits, and how much mail each holder has.

use alloc::collections::BTreeMap;

use crate::hold::HeldBy;

/// What holds a mail, as far as the index tells it: a line of the configuration, or a hold of the database. Lines beyond
/// [`LINE_LIMIT`](Self::LINE_LIMIT) are told as that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder(u16);

impl Holder {
    /// The last line that is told apart: files are shorter.
    pub(super) const LINE_LIMIT: u32 = u16::MAX as u32;

    /// Returns the number of the line, if one holds the mail.
    pub(crate) fn line(self) -> Option<u32> {
        (self.0 > 0).then_some(self.0.into())
    }

    /// Returns the number of the line, and 0 for a hold of the database.
    pub(super) fn packed(self) -> u32 {
        self.0.into()
    }

    pub(super) fn unpack(packed: u32) -> Self {
        Self(u16::try_from(packed).unwrap_or(u16::MAX))
    }
}

impl From<HeldBy> for Holder {
    fn from(held_by: HeldBy) -> Self {
        match held_by {
            HeldBy::Hold(_) => Self(0),
            HeldBy::Line(line) => Self::unpack(line.max(1)),
        }
    }
}

/// How much mail is held.
#[derive(Debug, Default)]
pub(super) struct HeldCounts(BTreeMap<Holder, usize>);

impl HeldCounts {
    pub(super) fn add(&mut self, holder: Holder) {
        *self.0.entry(holder).or_default() += 1;
    }

    pub(super) fn remove(&mut self, holder: Holder) {
        if let Some(count) = self.0.get_mut(&holder) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&holder);
            }
        }
    }

    pub(super) fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// Returns how much mail each line holds that holds any, by its number.
    pub(super) fn by_lines(&self) -> impl Iterator<Item = (u32, usize)> {
        self.0.iter().filter_map(|(holder, count)| Some((holder.line()?, *count)))
    }
}
