//! What the index knows of one mail, packed because there may be millions.

use super::{Holder, HopId, MessageKey, seconds};
use crate::time::UnixTime;

/// The state of a mail in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueState {
    /// It waits for this time.
    Waiting(UnixTime),
    /// It is to be tried now.
    Ready,
    /// It is to be tried now, after all others: it was tried in this pass, and is undecided.
    ReadyAgain,
    /// It is to be bounced.
    GivenUp,
    /// A request, a connection or a commit has it, and returns it with the result.
    Claimed,
    /// The database cannot process it for now.
    SetAside,
    /// It is held until it is released.
    Held(Holder),
}

/// A [`QueueState`] in 32 bits. A Unix time fits into these until the year 2106; the highest numbers stand for the other states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedState(pub(super) u32);

impl PackedState {
    pub(super) const READY: Self = Self(u32::MAX);
    pub(super) const READY_AGAIN: Self = Self(u32::MAX - 1);
    pub(super) const GIVEN_UP: Self = Self(u32::MAX - 2);
    pub(super) const CLAIMED: Self = Self(u32::MAX - 3);
    pub(super) const SET_ASIDE: Self = Self(u32::MAX - 4);
    /// Held by a hold of the database. The numbers below stand for lines of the configuration.
    const HELD: u32 = u32::MAX - 5;
    const FIRST_HELD: u32 = Self::HELD - Holder::LINE_LIMIT;
    pub(super) const LAST_TIME: u32 = Self::FIRST_HELD - 1;

    /// Returns what holds a mail, by a number from `FIRST_HELD` to `HELD`.
    pub(super) fn holder(number: u32) -> Holder {
        Holder::unpack(Self::HELD.saturating_sub(number))
    }
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
            QueueState::Held(holder) => Self(Self::HELD - holder.packed()),
        }
    }
}

/// The index entry of a mail, packed because there may be millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Its next hop.
    pub(crate) hop: HopId,
    /// Its message.
    pub(crate) key: MessageKey,
    pub(super) state: PackedState,
}

impl IndexEntry {
    /// Returns whether a request, a connection or a commit has it.
    pub(crate) fn is_claimed(&self) -> bool {
        self.state == PackedState::CLAIMED
    }

    /// Returns the time for which it waits, if it does.
    pub(crate) fn waits_for(&self) -> Option<UnixTime> {
        (self.state.0 <= PackedState::LAST_TIME).then_some(UnixTime(self.state.0.into()))
    }

    /// Returns the state.
    pub(crate) fn queue_state(&self) -> QueueState {
        match self.state {
            PackedState::READY => QueueState::Ready,
            PackedState::READY_AGAIN => QueueState::ReadyAgain,
            PackedState::GIVEN_UP => QueueState::GivenUp,
            PackedState::CLAIMED => QueueState::Claimed,
            PackedState::SET_ASIDE => QueueState::SetAside,
            PackedState(seconds @ ..=PackedState::LAST_TIME) => QueueState::Waiting(UnixTime(seconds.into())),
            PackedState(held) => QueueState::Held(PackedState::holder(held)),
        }
    }

    /// Returns whether it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, PackedState::READY | PackedState::READY_AGAIN)
    }
}
