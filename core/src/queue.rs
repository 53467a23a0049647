//! The index of the outbox: which mail waits for which time, and which is ready for which next hop.
//!
//! It holds no text of any mail, and costs less than 100 octets for each; a test measures that.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::fair_queue::Prospect;
use crate::next_hop::NextHop;
use crate::outbox::{Cursor, MailId};
use crate::time::UnixTime;

/// Names a next hop as long as the queue holds mail for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HopId(u32);

impl HopId {
    /// Mail that has no next hop, because its address or its remote specification is invalid.
    pub(crate) const UNROUTABLE: Self = Self(0);
}

/// Tells messages apart: rows of equal messages have equal keys, rows of different ones hardly ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MessageKey(pub(crate) u32);

impl MessageKey {
    /// Set in the keys of mail that only looked like one message. The bits below are in part what it looked like, and in part what
    /// it is.
    const APART: u32 = 1 << 31;
    const IS: u32 = (1 << 19) - 1;
    const LOOKS: u32 = !(Self::APART | Self::IS);

    /// Folds a hash of what rows of one message have in common.
    pub(crate) fn from_hash(hash: u64) -> Self {
        Self((hash ^ (hash >> 32)) as u32 & !Self::APART)
    }

    /// Returns the key of mail that looks so, and of which it is known which message it is.
    fn apart(self, message: u64) -> Self {
        Self(Self::APART | (self.0 & Self::LOOKS) | (Self::from_hash(message).0 & Self::IS))
    }

    /// Returns whether a row that looks so may be this message.
    pub(crate) fn may_look_like(self, look: Self) -> bool {
        let known = if self.0 & Self::APART == 0 { u32::MAX } else { Self::LOOKS };
        (self.0 ^ look.0) & known == 0
    }
}

/// Which ready mail is claimed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As is fair.
    OldestFirst,
    /// As is wise when the oldest is suspected of doing harm.
    NewestFirst,
}

/// Where a mail stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueState {
    /// It waits for this time.
    Waiting(UnixTime),
    /// It is to be tried now.
    Ready,
    /// It is to be tried now, after all others: it was tried in this pass and nothing was decided.
    ReadyAgain,
    /// It is to be bounced.
    GivenUp,
    /// Somebody works on it, and it comes back with what has become of it.
    Claimed,
    /// The database can do nothing with it for now.
    SetAside,
}

/// [`QueueState`], as it is stored. A Unix time fits into 32 bits until the year 2106; its last numbers stand for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackedState(u32);

impl PackedState {
    const READY: Self = Self(u32::MAX);
    const READY_AGAIN: Self = Self(u32::MAX - 1);
    const GIVEN_UP: Self = Self(u32::MAX - 2);
    const CLAIMED: Self = Self(u32::MAX - 3);
    const SET_ASIDE: Self = Self(u32::MAX - 4);
    const LAST_TIME: u32 = u32::MAX - 5;
}

impl From<QueueState> for PackedState {
    fn from(state: QueueState) -> Self {
        match state {
            QueueState::Waiting(time) => Self(seconds(time).min(Self::LAST_TIME)),
            QueueState::Ready => Self::READY,
            QueueState::ReadyAgain => Self::READY_AGAIN,
            QueueState::GivenUp => Self::GIVEN_UP,
            QueueState::Claimed => Self::CLAIMED,
            QueueState::SetAside => Self::SET_ASIDE,
        }
    }
}

/// What is known of a mail, packed: there may be millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Its next hop.
    pub(crate) hop: HopId,
    /// Its message.
    pub(crate) key: MessageKey,
    state: PackedState,
}

impl IndexEntry {
    /// Returns whether somebody works on it.
    pub(crate) fn is_claimed(&self) -> bool {
        self.state == PackedState::CLAIMED
    }

    /// Returns what it waits for, if it waits.
    pub(crate) fn waits_for(&self) -> Option<UnixTime> {
        (self.state.0 <= PackedState::LAST_TIME).then_some(UnixTime(self.state.0.into()))
    }

    /// Returns whether it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, PackedState::READY | PackedState::READY_AGAIN)
    }
}

/// A [`MailId`] in two halves, of the same order: beside 32 other bits it takes no room for alignment.
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
    /// Mail, and others that need it to stay.
    users: u32,
    ready: u32,
    /// How its latest attempt ended, as far as there was one.
    prospect: Option<Prospect>,
}

/// The index.
#[derive(Debug)]
pub(crate) struct Queue {
    mails: BTreeMap<MailId, IndexEntry>,
    timeline: BTreeSet<(u32, PackedId)>,
    /// Ready mail in the order of its ids.
    ready: BTreeSet<(HopId, PackedId)>,
    /// Ready mail that was tried in this pass already.
    ready_again: BTreeSet<(HopId, PackedId)>,
    /// All ready mail, the recipients of a message side by side.
    ready_messages: BTreeSet<(HopId, MessageKey, MailId)>,
    /// Claimed mail, the recipients of a message side by side.
    claimed: BTreeSet<(HopId, MessageKey, MailId)>,
    /// Mail to be bounced, the recipients of a message side by side.
    given_up: BTreeSet<(HopId, MessageKey, MailId)>,
    hops: BTreeMap<HopId, Hop>,
    hop_ids: BTreeMap<Arc<NextHop>, HopId>,
    last_hop_id: HopId,
    /// Next hops of which mail has become ready, until somebody takes note.
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
            hops: BTreeMap::from([(
                HopId::UNROUTABLE,
                Hop { next_hop: None, users: 0, ready: 0, prospect: None },
            )]),
            hop_ids: BTreeMap::new(),
            last_hop_id: HopId::UNROUTABLE,
            newly_ready: BTreeSet::new(),
        }
    }

    /// Returns what is known of a mail, if anything is.
    pub(crate) fn find(&self, id: MailId) -> Option<IndexEntry> {
        self.mails.get(&id).copied()
    }

    /// Puts a mail where it belongs, whether it was known or not. Returns its next hop.
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

    /// Puts a known mail elsewhere. Returns its next hop, if it is known.
    pub(crate) fn set_state(&mut self, id: MailId, state: QueueState) -> Option<HopId> {
        let known = *self.mails.get(&id)?;
        self.set(id, known.hop, known.key, state);
        Some(known.hop)
    }

    /// Takes note that mail that looks like one message has a number of its own, with those that are equal to it. Returns what
    /// was known of it.
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

    /// The next hop that an id stands for; nothing for [`HopId::UNROUTABLE`] and ids that are gone.
    pub(crate) fn next_hop(&self, hop: HopId) -> Option<&NextHop> {
        self.hops.get(&hop)?.next_hop.as_deref()
    }

    /// Returns how much mail of a next hop is ready.
    pub(crate) fn ready_count(&self, hop: HopId) -> u32 {
        self.hops.get(&hop).map_or(0, |hop| hop.ready)
    }

    /// Takes the next hops of which mail has become ready.
    pub(crate) fn take_newly_ready(&mut self) -> BTreeSet<HopId> {
        core::mem::take(&mut self.newly_ready)
    }

    /// Returns how promising a next hop is.
    pub(crate) fn prospect(&self, hop: HopId) -> Prospect {
        self.hops.get(&hop).and_then(|hop| hop.prospect).unwrap_or(Prospect::Fresh)
    }

    /// A row tells of an attempt, or of none: that counts for its next hop unless something is known of it already.
    pub(crate) fn suppose(&mut self, hop: HopId, prospect: Prospect) {
        if let Some(hop) = self.hops.get_mut(&hop) {
            hop.prospect.get_or_insert(prospect);
        }
    }

    /// An attempt at a next hop has ended.
    pub(crate) fn note_attempt(&mut self, hop: HopId, prospect: Prospect) {
        if let Some(hop) = self.hops.get_mut(&hop) {
            hop.prospect = Some(prospect);
        }
    }

    /// Returns how much mail is known.
    pub(crate) fn len(&self) -> usize {
        self.mails.len()
    }

    /// Waiting mail whose time has come, at most `limit` of it.
    pub(crate) fn due(&self, now: UnixTime, limit: usize) -> Vec<MailId> {
        let now = seconds(now);
        let due = self.timeline.iter().take_while(|&&(time, _)| time <= now);
        due.take(limit).map(|&(_, id)| id.into()).collect()
    }

    /// Returns when the first waiting mail becomes due.
    pub(crate) fn next_due(&self) -> Option<UnixTime> {
        self.timeline.first().map(|&(time, _)| UnixTime(i64::from(time)))
    }

    /// Takes ready mail of a next hop in this order, and with each mail the other recipients of its message. At most
    /// `messages`, and at most `limit` mails; a message that does not fit is left for the next time, unless it is the first.
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
            // A message may have more recipients than fit, of which this one would not be among the first.
            if !message.contains(&first) {
                message.pop();
                message.insert(0, first);
            }
            self.claim_all(&message);
            claimed.append(&mut message);
        }
        claimed
    }

    /// Takes ready mail of a next hop that stands before `end`, at most `limit`.
    pub(crate) fn claim_up_to(&mut self, hop: HopId, end: Cursor, limit: usize) -> Vec<MailId> {
        let Cursor::After(last) = end else { return Vec::new() };
        let range = (hop, PackedId::from(MailId(i64::MIN)))..=(hop, last.into());
        let ready = self.ready.range(range.clone()).chain(self.ready_again.range(range));
        let ids: Vec<MailId> = ready.take(limit).map(|&(_, id)| id.into()).collect();
        self.claim_all(&ids);
        ids
    }

    /// Takes ready mail of a next hop that was tried in this pass, at most `limit`.
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

    /// Takes mail of one message of a next hop that is to be bounced, if nobody works on other recipients of it.
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

    /// Keeps a next hop known, and its id valid, until it is released as often as it was retained.
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

    /// The waiting mail.
    pub(crate) fn waiting(&self) -> Vec<MailId> {
        self.timeline.iter().map(|&(_, id)| id.into()).collect()
    }

    /// The known mail between two places that nobody has claimed.
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

    /// Returns how much mail somebody works on.
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
        // Retained before an old one is released, so that the hop does not vanish in between.
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
        // Numbers go round, so one that is in use after four billion next hops is passed over.
        let mut hop = self.last_hop_id;
        loop {
            hop = HopId(hop.0.checked_add(1).filter(|&next| next != u32::MAX).unwrap_or(1));
            if !self.hops.contains_key(&hop) {
                break;
            }
        }
        self.last_hop_id = hop;
        let next_hop = Arc::new(next_hop.clone());
        self.hops
            .insert(hop, Hop { next_hop: Some(Arc::clone(&next_hop)), users: 0, ready: 0, prospect: None });
        self.hop_ids.insert(next_hop, hop);
        hop
    }

    fn link(&mut self, id: MailId, known: IndexEntry) {
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
        }
    }

    fn unlink(&mut self, id: MailId, known: IndexEntry) {
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
        }
    }
}

/// Unix time without what came before it and what comes after the year 2106.
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
