//! The index of the outbox: the time for which each mail waits, or the next hop for which it is ready.
//!
//! It holds no text of any mail, and costs less than 100 octets for each mail; a test measures that.

mod entry;
mod holder;
mod places;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use self::entry::PackedState;
pub(crate) use self::entry::{IndexEntry, QueueState};
use self::holder::HeldCounts;
pub(crate) use self::holder::Holder;
pub use self::places::MailPlaces;
use crate::fair_queue::Prospect;
use crate::next_hop::NextHop;
use crate::outbox::{Cursor, MailId};
use crate::time::UnixTime;

/// Identifies a next hop as long as the queue holds mail for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HopId(u32);

impl HopId {
    /// Stands for mail without a next hop: its address or relay specification is invalid.
    pub(crate) const UNROUTABLE: Self = Self(0);
}

/// Distinguishes messages. Rows of equal messages have equal keys, rows of different ones hardly ever do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MessageKey(pub(crate) u32);

impl MessageKey {
    /// Set in the keys of mail that only looked like one message. The bits below tell in part what it looked like, and in part
    /// which message it is.
    const APART: u32 = 1 << 31;
    const IS: u32 = (1 << 19) - 1;
    const LOOKS: u32 = !(Self::APART | Self::IS);

    /// Folds a hash of what the rows of one message have in common.
    pub(crate) fn from_hash(hash: u64) -> Self {
        Self((hash ^ (hash >> 32)) as u32 & !Self::APART)
    }

    /// Returns the key of mail that looks like this, once its message is known.
    fn apart(self, message: u64) -> Self {
        Self(Self::APART | (self.0 & Self::LOOKS) | (Self::from_hash(message).0 & Self::IS))
    }

    /// Returns whether a row that looks like `look` may be this message.
    pub(crate) fn may_look_like(self, look: Self) -> bool {
        let known = if self.0 & Self::APART == 0 { u32::MAX } else { Self::LOOKS };
        (self.0 ^ look.0) & known == 0
    }
}

/// The order in which ready mail is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The oldest mail first, which is fair.
    OldestFirst,
    /// The newest mail first, which is prudent if the oldest may be to blame for lost connections.
    NewestFirst,
}

/// A [`MailId`] in two halves, in the same order. Beside 32 other bits it needs no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PackedId(u32, u32);

impl From<MailId> for PackedId {
    fn from(id: MailId) -> Self {
        let ordered = (id.0 as u64) ^ (1 << 63);
        Self((ordered >> 32) as u32, ordered as u32)
    }
}

impl From<PackedId> for MailId {
    fn from(PackedId(upper, lower): PackedId) -> Self {
        Self((((u64::from(upper) << 32) | u64::from(lower)) ^ (1 << 63)) as i64)
    }
}

#[derive(Debug)]
struct Hop {
    next_hop: Option<Arc<NextHop>>,
    /// The number of mails, and of others that retain the next hop.
    users: u32,
    mails: u32,
    ready: u32,
    /// The result of the latest attempt, if there was one.
    prospect: Option<Prospect>,
}

/// The index.
#[derive(Debug)]
pub(crate) struct Queue {
    mails: BTreeMap<MailId, IndexEntry>,
    timeline: BTreeSet<(u32, PackedId)>,
    /// Ready mail, ordered by id.
    ready: BTreeSet<(HopId, PackedId)>,
    /// Ready mail that was already tried in this pass.
    ready_again: BTreeSet<(HopId, PackedId)>,
    /// All ready mail, the recipients of a message side by side.
    ready_messages: BTreeSet<(HopId, MessageKey, MailId)>,
    /// Claimed mail, the recipients of a message side by side.
    claimed: BTreeSet<(HopId, MessageKey, MailId)>,
    /// Mail to be bounced, the recipients of a message side by side.
    given_up: BTreeSet<(HopId, MessageKey, MailId)>,
    /// The number of held mails, by what holds them.
    held: HeldCounts,
    hops: BTreeMap<HopId, Hop>,
    hop_ids: BTreeMap<Arc<NextHop>, HopId>,
    last_hop_id: HopId,
    /// Next hops with mail that has become ready since they were last taken.
    newly_ready: BTreeSet<HopId>,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            mails: BTreeMap::new(),
            timeline: BTreeSet::new(),
            ready: BTreeSet::new(),
            ready_again: BTreeSet::new(),
            ready_messages: BTreeSet::new(),
            claimed: BTreeSet::new(),
            given_up: BTreeSet::new(),
            held: HeldCounts::default(),
            hops: BTreeMap::from([(
                HopId::UNROUTABLE,
                Hop { next_hop: None, users: 0, mails: 0, ready: 0, prospect: None },
            )]),
            hop_ids: BTreeMap::new(),
            last_hop_id: HopId::UNROUTABLE,
            newly_ready: BTreeSet::new(),
        }
    }

    /// Returns the index entry of a mail, if it has one.
    pub(crate) fn find(&self, id: MailId) -> Option<IndexEntry> {
        self.mails.get(&id).copied()
    }

    /// Adds a mail, or changes its next hop, key and state. Returns its next hop.
    pub(crate) fn insert(
        &mut self,
        id: MailId,
        next_hop: Option<&NextHop>,
        key: MessageKey,
        state: QueueState,
    ) -> HopId {
        let hop = self.intern(next_hop);
        self.set(id, hop, key, state);
        hop
    }

    /// Changes the state of a mail. Returns its next hop, if it is in the index.
    pub(crate) fn set_state(&mut self, id: MailId, state: QueueState) -> Option<HopId> {
        let known = *self.mails.get(&id)?;
        self.set(id, known.hop, known.key, state);
        Some(known.hop)
    }

    /// Records that mail that looks like others has a message number of its own, shared with the mail that is equal to it.
    /// Returns the entry that it had before.
    pub(crate) fn tell_apart(&mut self, id: MailId, message: u64) -> Option<IndexEntry> {
        let known = *self.mails.get(&id)?;
        let apart = IndexEntry { key: known.key.apart(message), ..known };
        self.unlink(id, known);
        self.mails.insert(id, apart);
        self.link(id, apart);
        Some(known)
    }

    /// Forgets a mail.
    pub(crate) fn remove(&mut self, id: MailId) {
        let Some(known) = self.mails.remove(&id) else { return };
        self.unlink(id, known);
        self.release_hop(known.hop);
    }

    /// Returns the next hop of an id, or `None` for [`HopId::UNROUTABLE`] and ids that are gone.
    pub(crate) fn next_hop(&self, hop: HopId) -> Option<&NextHop> {
        self.hops.get(&hop)?.next_hop.as_deref()
    }

    /// Returns the id of a next hop, if there is mail for it.
    pub(crate) fn hop_of(&self, next_hop: &NextHop) -> Option<HopId> {
        self.hop_ids.get(next_hop).copied()
    }

    /// Returns the next hops that there is mail for.
    pub(crate) fn next_hops(&self) -> impl Iterator<Item = &NextHop> {
        self.hop_ids.keys().map(Arc::as_ref)
    }

    /// Returns how much mail there is for each next hop, in whatever state; `None` stands for mail that has none.
    pub(crate) fn mails_by_hop(&self) -> impl Iterator<Item = (Option<&NextHop>, u32)> {
        self.hops.values().map(|hop| (hop.next_hop.as_deref(), hop.mails))
    }

    /// Returns the number of ready mails of a next hop.
    pub(crate) fn ready_count(&self, hop: HopId) -> u32 {
        self.hops.get(&hop).map_or(0, |hop| hop.ready)
    }

    /// Takes the next hops with mail that has become ready.
    pub(crate) fn take_newly_ready(&mut self) -> BTreeSet<HopId> {
        core::mem::take(&mut self.newly_ready)
    }

    /// Returns the prospect of a next hop.
    pub(crate) fn prospect(&self, hop: HopId) -> Prospect {
        self.hops.get(&hop).and_then(|hop| hop.prospect).unwrap_or(Prospect::Fresh)
    }

    /// Sets the prospect of a next hop, as a row suggests it, unless an attempt has set it already.
    pub(crate) fn suppose(&mut self, hop: HopId, prospect: Prospect) {
        if let Some(hop) = self.hops.get_mut(&hop) {
            hop.prospect.get_or_insert(prospect);
        }
    }

    /// Sets the prospect of a next hop after an attempt.
    pub(crate) fn note_attempt(&mut self, hop: HopId, prospect: Prospect) {
        if let Some(hop) = self.hops.get_mut(&hop) {
            hop.prospect = Some(prospect);
        }
    }

    /// Returns the number of mails.
    pub(crate) fn len(&self) -> usize {
        self.mails.len()
    }

    /// Returns the mail with the highest id.
    pub(crate) fn last(&self) -> Option<MailId> {
        self.mails.last_key_value().map(|(&id, _)| id)
    }

    /// Returns at most `limit` mails whose time has come.
    pub(crate) fn due(&self, now: UnixTime, limit: usize) -> Vec<MailId> {
        let now = seconds(now);
        let due = self.timeline.iter().take_while(|&&(time, _)| time <= now);
        due.take(limit).map(|&(_, id)| id.into()).collect()
    }

    /// Returns the time at which the first waiting mail becomes due.
    pub(crate) fn next_due(&self) -> Option<UnixTime> {
        self.timeline.first().map(|&(time, _)| UnixTime(i64::from(time)))
    }

    /// Claims ready mail of a next hop in this order, and with each mail the other recipients of its message: at most `messages`
    /// messages, and at most `limit` mails. A message that does not fit is left for the next time, unless it is the first.
    pub(crate) fn claim(&mut self, hop: HopId, order: Order, messages: usize, limit: usize) -> Vec<MailId> {
        let mut claimed = Vec::new();
        for _ in 0..messages {
            let mut ready = self.ready.range(whole(hop));
            let first = match order {
                Order::OldestFirst => ready.next(),
                Order::NewestFirst => ready.next_back(),
            };
            let first = first.or_else(|| self.ready_again.range(whole(hop)).next());
            let Some(&(_, first)) = first else { break };
            let first = MailId::from(first);
            let Some(key) = self.mails.get(&first).map(|known| known.key) else { break };
            let mut message = vec_of_message(&self.ready_messages, hop, key, limit);
            if !claimed.is_empty() && claimed.len() + message.len() > limit {
                break;
            }
            // If a message has more recipients than fit, this mail may not be among the first.
            if !message.contains(&first) {
                message.pop();
                message.insert(0, first);
            }
            self.claim_all(&message);
            claimed.append(&mut message);
        }
        claimed
    }

    /// Claims those of these mails that are ready for this next hop. Returns them.
    pub(crate) fn claim_ready(&mut self, hop: HopId, ids: &[MailId]) -> Vec<MailId> {
        let is_ready = |id: &MailId| {
            let entry = (hop, PackedId::from(*id));
            self.ready.contains(&entry) || self.ready_again.contains(&entry)
        };
        let ids: Vec<MailId> = ids.iter().copied().filter(is_ready).collect();
        self.claim_all(&ids);
        ids
    }

    /// Claims at most `limit` ready mails of a next hop that stand before `end`.
    pub(crate) fn claim_up_to(&mut self, hop: HopId, end: Cursor, limit: usize) -> Vec<MailId> {
        let Cursor::After(last) = end else { return Vec::new() };
        let range = (hop, PackedId::from(MailId(i64::MIN)))..=(hop, last.into());
        let ready = self.ready.range(range.clone()).chain(self.ready_again.range(range));
        let ids: Vec<MailId> = ready.take(limit).map(|&(_, id)| id.into()).collect();
        self.claim_all(&ids);
        ids
    }

    /// Claims at most `limit` ready mails of a next hop that were tried in this pass.
    pub(crate) fn claim_tried(&mut self, hop: HopId, limit: usize) -> Vec<MailId> {
        let ids: Vec<MailId> =
            self.ready_again.range(whole(hop)).take(limit).map(|&(_, id)| id.into()).collect();
        self.claim_all(&ids);
        ids
    }

    /// Returns whether some ready mail of a next hop was tried in this pass, and some was not.
    pub(crate) fn is_partly_tried(&self, hop: HopId) -> bool {
        self.ready.range(whole(hop)).next().is_some() && self.ready_again.range(whole(hop)).next().is_some()
    }

    /// Claims at most `limit` mails of a message that are to be bounced.
    pub(crate) fn claim_given_up(&mut self, hop: HopId, key: MessageKey, limit: usize) -> Vec<MailId> {
        let message = vec_of_message(&self.given_up, hop, key, limit);
        self.claim_all(&message);
        message
    }

    /// Returns whether mail of this message is to be bounced.
    pub(crate) fn has_given_up(&self, hop: HopId, key: MessageKey) -> bool {
        self.given_up.range(message_range(hop, key)).next().is_some()
    }

    /// Returns whether mail of this message is ready for this next hop, or claimed.
    pub(crate) fn is_busy_with(&self, hop: HopId, key: MessageKey) -> bool {
        let of_message = message_range(hop, key);
        self.ready_messages.range(of_message.clone()).next().is_some()
            || self.claimed.range(of_message).next().is_some()
    }

    /// Retains a next hop, and the validity of its id, until it is released as often as it was retained.
    pub(crate) fn retain_hop(&mut self, hop: HopId) {
        if let Some(hop) = self.hops.get_mut(&hop) {
            hop.users = hop.users.saturating_add(1);
        }
    }

    /// Undoes [`Queue::retain_hop`].
    pub(crate) fn release_hop(&mut self, hop: HopId) {
        let Some(found) = self.hops.get_mut(&hop) else { return };
        found.users = found.users.saturating_sub(1);
        if found.users == 0
            && hop != HopId::UNROUTABLE
            && let Some(next_hop) = self.hops.remove(&hop).and_then(|hop| hop.next_hop)
        {
            self.hop_ids.remove(&next_hop);
        }
    }

    /// Returns the waiting mail.
    pub(crate) fn waiting(&self) -> Vec<MailId> {
        self.timeline.iter().map(|&(_, id)| id.into()).collect()
    }

    /// Returns the mail between two cursors that is not claimed.
    pub(crate) fn unclaimed_between(&self, after: Cursor, end: Cursor) -> Vec<MailId> {
        let (Some(first), Cursor::After(last)) = (after.next_id(), end) else { return Vec::new() };
        if first > last {
            return Vec::new();
        }
        self.mails
            .range(first..=last)
            .filter(|(_, known)| known.state != PackedState::CLAIMED)
            .map(|(&id, _)| id)
            .collect()
    }

    /// Returns the mail after a cursor, in the order of ids.
    pub(crate) fn after(&self, after: Cursor) -> impl Iterator<Item = (MailId, &IndexEntry)> {
        let first = after.next_id();
        let rest = first.map(|first| self.mails.range(first..));
        rest.into_iter().flatten().map(|(&id, entry)| (id, entry))
    }

    /// Returns how many next hops have mail, and have failed when they were last tried.
    pub(crate) fn failed_hops(&self) -> usize {
        self.hops.values().filter(|hop| hop.prospect == Some(Prospect::Failed)).count()
    }

    /// Returns the number of claimed mails.
    pub(crate) fn claimed_count(&self) -> usize {
        self.claimed.len()
    }

    fn claim_all(&mut self, ids: &[MailId]) {
        for &id in ids {
            self.set_state(id, QueueState::Claimed);
        }
    }

    fn set(&mut self, id: MailId, hop: HopId, key: MessageKey, state: QueueState) {
        let known = IndexEntry { hop, key, state: state.into() };
        let before = self.mails.insert(id, known);
        if before == Some(known) {
            return;
        }
        // The new hop is retained first, so that it does not vanish if it is the old one.
        self.retain_hop(hop);
        if let Some(before) = before {
            self.unlink(id, before);
            self.release_hop(before.hop);
        }
        self.link(id, known);
    }

    fn intern(&mut self, next_hop: Option<&NextHop>) -> HopId {
        let Some(next_hop) = next_hop else { return HopId::UNROUTABLE };
        if let Some(&hop) = self.hop_ids.get(next_hop) {
            return hop;
        }
        // Ids wrap around, so one that is still in use after four billion next hops is skipped.
        let mut hop = self.last_hop_id;
        loop {
            hop = HopId(hop.0.checked_add(1).filter(|&next| next != u32::MAX).unwrap_or(1));
            if !self.hops.contains_key(&hop) {
                break;
            }
        }
        self.last_hop_id = hop;
        let next_hop = Arc::new(next_hop.clone());
        self.hops.insert(
            hop,
            Hop { next_hop: Some(Arc::clone(&next_hop)), users: 0, mails: 0, ready: 0, prospect: None },
        );
        self.hop_ids.insert(next_hop, hop);
        hop
    }

    fn link(&mut self, id: MailId, known: IndexEntry) {
        if let Some(hop) = self.hops.get_mut(&known.hop) {
            hop.mails = hop.mails.saturating_add(1);
        }
        match known.state {
            PackedState(time @ ..=PackedState::LAST_TIME) => {
                self.timeline.insert((time, id.into()));
            }
            PackedState::READY | PackedState::READY_AGAIN => {
                let order =
                    if known.state == PackedState::READY { &mut self.ready } else { &mut self.ready_again };
                order.insert((known.hop, id.into()));
                self.ready_messages.insert((known.hop, known.key, id));
                if known.hop != HopId::UNROUTABLE {
                    self.newly_ready.insert(known.hop);
                }
                if let Some(hop) = self.hops.get_mut(&known.hop) {
                    hop.ready = hop.ready.saturating_add(1);
                }
            }
            PackedState::GIVEN_UP => {
                self.given_up.insert((known.hop, known.key, id));
            }
            PackedState::CLAIMED => {
                self.claimed.insert((known.hop, known.key, id));
            }
            PackedState::SET_ASIDE => {}
            PackedState(held) => self.held.add(PackedState::holder(held)),
        }
    }

    fn unlink(&mut self, id: MailId, known: IndexEntry) {
        if let Some(hop) = self.hops.get_mut(&known.hop) {
            hop.mails = hop.mails.saturating_sub(1);
        }
        match known.state {
            PackedState(time @ ..=PackedState::LAST_TIME) => {
                self.timeline.remove(&(time, id.into()));
            }
            PackedState::READY | PackedState::READY_AGAIN => {
                let order =
                    if known.state == PackedState::READY { &mut self.ready } else { &mut self.ready_again };
                order.remove(&(known.hop, id.into()));
                self.ready_messages.remove(&(known.hop, known.key, id));
                if let Some(hop) = self.hops.get_mut(&known.hop) {
                    hop.ready = hop.ready.saturating_sub(1);
                }
            }
            PackedState::GIVEN_UP => {
                self.given_up.remove(&(known.hop, known.key, id));
            }
            PackedState::CLAIMED => {
                self.claimed.remove(&(known.hop, known.key, id));
            }
            PackedState::SET_ASIDE => {}
            PackedState(held) => self.held.remove(PackedState::holder(held)),
        }
    }
}

/// Converts a Unix time to 32 bits. Times before 1970 and after 2106 become the nearest one.
fn seconds(time: UnixTime) -> u32 {
    u32::try_from(time.0.max(0)).unwrap_or(u32::MAX)
}

fn whole(hop: HopId) -> RangeInclusive<(HopId, PackedId)> {
    (hop, MailId(i64::MIN).into())..=(hop, MailId(i64::MAX).into())
}

fn message_range(hop: HopId, key: MessageKey) -> RangeInclusive<(HopId, MessageKey, MailId)> {
    (hop, key, MailId(i64::MIN))..=(hop, key, MailId(i64::MAX))
}

fn vec_of_message(
    set: &BTreeSet<(HopId, MessageKey, MailId)>,
    hop: HopId,
    key: MessageKey,
    limit: usize,
) -> Vec<MailId> {
    set.range(message_range(hop, key)).take(limit).map(|&(_, _, id)| id).collect()
}

#[cfg(test)]
mod tests;
