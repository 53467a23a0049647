//! What is known of one next hop.

use alloc::boxed::Box;

use super::connections::Connections;
use super::limits::Limits;
use crate::attempt::Failure;
use crate::delivery::Delivery;
use crate::outbox::Cursor;
use crate::queue::Order;
use crate::resolver::LookupId;
use crate::time::{Duration, Instant};
use core::net::SocketAddr;

/// So many passes in a row in which mail ended every connection put the blame on that mail; with the next it is on the next hop.
const STALLED_PASSES_LIMIT: u32 = 3;

/// A next hop that has ready mail, or of which something is remembered. One whose mail only waits has none.
#[derive(Debug)]
pub(super) struct Destination {
    state: DestinationState,
    /// How many claims the database has not answered.
    open_claims: u32,
    /// How many passes in a row have ended because mail ended every connection, so that nothing was decided.
    stalled_passes: u32,
    /// How many passes in a row have ended because the server had enough.
    refusing_passes: u32,
    limits: Limits,
}

/// What is done about the mail of a next hop.
#[derive(Debug)]
pub(super) enum DestinationState {
    /// Nothing.
    Idle,
    /// It waits for its turn.
    Queued,
    /// It is left alone until then.
    Paused(Instant),
    /// It is worked on.
    Active(Box<Pass>),
    /// All of it has failed, which is still to be recorded.
    Exhausted(Box<ExhaustedPass>),
}

/// The work on the mail of one next hop, from the lookup until the last connection is closed.
#[derive(Debug)]
pub(super) struct Pass {
    delivery: Delivery,
    connections: Connections,
    waits: Waits,
    then: Then,
    /// When the delivery wants to be called.
    deadline: Option<Instant>,
    /// When the first connection without work is not kept any more.
    idle_end: Option<Instant>,
}

/// What a pass cannot go on without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Waits {
    /// It goes on.
    #[default]
    No,
    ForDns(LookupId),
    ForConnection,
    /// The same, to this address.
    ForHost(SocketAddr),
}

/// What comes after a pass.
#[derive(Debug, Default)]
pub(super) enum Then {
    /// Another one, if there is mail.
    #[default]
    Again,
    /// A pause, perhaps because the server has had enough.
    Pause { until: Instant, is_for_server: bool },
    /// All mail has failed.
    Fail(Box<ExhaustedPass>),
}

/// Mail that has failed as a whole.
#[derive(Debug)]
pub(super) struct ExhaustedPass {
    pub(super) failure: Failure,
    /// When: who has waited for longest is recorded first.
    pub(super) since: Instant,
    /// Where the mail ends that is concerned.
    pub(super) end: Cursor,
    /// Whether it is only about mail that was tried; not known before all mail of the pass is back.
    pub(super) only_tried: Option<bool>,
}

impl Then {
    /// A pause is wanted. That all mail has failed is not undone by it.
    pub(super) fn pause(&mut self, until: Instant, is_for_server: bool) {
        let was_for_server = match self {
            Self::Fail(_) => return,
            Self::Again => false,
            Self::Pause { is_for_server, .. } => *is_for_server,
        };
        *self = Self::Pause { until, is_for_server: is_for_server || was_for_server };
    }
}

impl Pass {
    pub(super) fn new(delivery: Delivery, connections: Connections) -> Self {
        Self { delivery, connections, waits: Waits::No, then: Then::Again, deadline: None, idle_end: None }
    }

    pub(super) fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(super) fn waits(&self) -> Waits {
        self.waits
    }

    /// Sets what it waits for; returns what it waited for.
    pub(super) fn replace_waits(&mut self, waits: Waits) -> Waits {
        core::mem::replace(&mut self.waits, waits)
    }

    /// Returns when the delivery wants to be called, and when its first connection without work is not kept any more.
    pub(super) fn timers(&self) -> (Option<Instant>, Option<Instant>) {
        (self.deadline, self.idle_end)
    }

    /// Sets the timers as the delivery wants them.
    pub(super) fn set_timers(&mut self) {
        self.deadline = self.delivery.poll_timeout();
        self.idle_end = self.delivery.first_idle().map(|(until, _)| until);
    }

    pub(super) fn then(&mut self) -> &mut Then {
        &mut self.then
    }

    /// Splits it into what a delivery works with.
    pub(super) fn parts(&mut self) -> (&mut Delivery, &mut Connections, &mut Then) {
        (&mut self.delivery, &mut self.connections, &mut self.then)
    }
}

impl Destination {
    pub(super) fn new(limits: Limits) -> Self {
        Self { state: DestinationState::Idle, open_claims: 0, stalled_passes: 0, refusing_passes: 0, limits }
    }

    pub(super) fn state(&self) -> &DestinationState {
        &self.state
    }

    pub(super) fn replace_state(&mut self, state: DestinationState) -> DestinationState {
        core::mem::replace(&mut self.state, state)
    }

    pub(super) fn pass(&self) -> Option<&Pass> {
        if let DestinationState::Active(pass) = &self.state { Some(pass) } else { None }
    }

    pub(super) fn pass_mut(&mut self) -> Option<(&mut Pass, &mut Limits)> {
        if let DestinationState::Active(pass) = &mut self.state {
            Some((pass, &mut self.limits))
        } else {
            None
        }
    }

    /// Returns what has failed, and whether that is only the mail that was tried: decided once, when all mail of the pass is back.
    pub(super) fn exhausted(&mut self, is_partly_tried: bool) -> Option<(&ExhaustedPass, bool)> {
        let DestinationState::Exhausted(exhausted) = &mut self.state else { return None };
        let only_tried = *exhausted.only_tried.get_or_insert_with(|| {
            self.stalled_passes = self.stalled_passes.saturating_add(1);
            self.stalled_passes <= STALLED_PASSES_LIMIT && is_partly_tried
        });
        if !only_tried {
            self.stalled_passes = 0;
        }
        Some((exhausted, only_tried))
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn limits_mut(&mut self) -> &mut Limits {
        &mut self.limits
    }

    pub(super) fn into_limits(self) -> Limits {
        self.limits
    }

    /// Returns whether nothing is done about it, and nothing is asked for it.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, DestinationState::Idle) && self.open_claims == 0
    }

    pub(super) fn open_claims(&self) -> u32 {
        self.open_claims
    }

    pub(super) fn open_claim(&mut self) {
        self.open_claims = self.open_claims.saturating_add(1);
    }

    pub(super) fn close_claim(&mut self) {
        self.open_claims = self.open_claims.saturating_sub(1);
    }

    /// Returns which mail it is wise to begin with.
    pub(super) fn order(&self) -> Order {
        if self.stalled_passes > 0 { Order::NewestFirst } else { Order::OldestFirst }
    }

    /// Some of its mail has been decided, so its connections are of use.
    pub(super) fn end_stall(&mut self) {
        self.stalled_passes = 0;
    }

    /// The server has had enough. Returns how long it is left alone, where that is `first` the first time, and doubles up to `most`.
    pub(super) fn note_refusing(&mut self, first: Duration, most: Duration) -> Duration {
        let doubled = first.saturating_mul(2_u32.saturating_pow(self.refusing_passes));
        self.refusing_passes = self.refusing_passes.saturating_add(1);
        doubled.min(most)
    }

    /// The server has not had enough.
    pub(super) fn end_refusing(&mut self) {
        self.refusing_passes = 0;
    }

    /// The pass is over. Returns the state that follows.
    pub(super) fn state_after_pass(&mut self) -> DestinationState {
        let DestinationState::Active(pass) = &mut self.state else { return DestinationState::Idle };
        let then = core::mem::take(&mut pass.then);
        if !matches!(then, Then::Pause { is_for_server: true, .. }) {
            self.refusing_passes = 0;
        }
        match then {
            Then::Again => DestinationState::Idle,
            Then::Pause { until, .. } => DestinationState::Paused(until),
            Then::Fail(exhausted) => DestinationState::Exhausted(exhausted),
        }
    }
}

#[cfg(test)]
mod tests;
