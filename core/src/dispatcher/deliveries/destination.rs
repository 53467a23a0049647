//! All that is known of one next hop.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::connections::Connections;
use super::limits::Limits;
use crate::delivery::{Delivery, PassFailure};
use crate::explanation::PauseReason;
use crate::outbox::Cursor;
use crate::policy::Policy;
use crate::queue::Order;
use crate::resolver::LookupId;
use crate::time::{Duration, Instant};
use core::net::SocketAddr;

/// If mail ended every connection in this many consecutive passes, the mail is blamed. After one more such pass, the next hop is.
const STALLED_PASSES_LIMIT: u32 = 3;

/// A next hop that has ready mail, or of which something must be remembered. A next hop whose mail only waits has none.
#[derive(Debug)]
pub(super) struct Destination {
    state: DestinationState,
    /// The number of open claims.
    open_claims: u32,
    /// Consecutive passes that ended because mail ended every connection, so that nothing was decided.
    stalled_passes: u32,
    /// Consecutive passes that ended because the server took no more mail.
    refusing_passes: u32,
    limits: Limits,
    /// How its mail goes, as long as no host of it is known.
    policy: Arc<Policy>,
}

/// The work on the mail of a next hop.
#[derive(Debug)]
pub(super) enum DestinationState {
    /// None.
    Idle,
    /// It waits for its turn.
    Queued,
    /// It is left alone for a while.
    Paused(Box<Pause>),
    /// A pass is under way.
    Active(Box<Pass>),
    /// All of it has failed, and that is still to be recorded.
    Exhausted(Box<ExhaustedPass>),
}

/// One pass over the mail of a next hop, from the lookup until the last connection is closed.
#[derive(Debug)]
pub(super) struct Pass {
    delivery: Delivery,
    connections: Connections,
    waits: Waits,
    then: Then,
    /// When to call the delivery.
    deadline: Option<Instant>,
    /// When the first idle connection is closed.
    idle_end: Option<Instant>,
}

/// What a pass waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Waits {
    /// It proceeds.
    #[default]
    No,
    ForDns(LookupId),
    /// The MTA-STS policy of its domain.
    ForPolicy,
    ForConnection,
    /// A connection to this address.
    ForHost(SocketAddr),
}

/// What follows a pass.
#[derive(Debug, Default)]
pub(super) enum Then {
    /// Another pass, if there is mail.
    #[default]
    Again,
    /// A pause.
    Pause(Box<Pause>),
    /// All mail has failed.
    Fail(Box<ExhaustedPass>),
}

/// A time in which a next hop is left alone.
#[derive(Clone, Debug)]
pub(super) struct Pause {
    pub(super) until: Instant,
    pub(super) why: PauseReason,
}

impl Pause {
    pub(super) fn is_for_server(&self) -> bool {
        matches!(self.why, PauseReason::Server(_))
    }
}

/// A pass in which all mail has failed.
#[derive(Debug)]
pub(super) struct ExhaustedPass {
    pub(super) failure: PassFailure,
    /// When it failed. The oldest failure is recorded first.
    pub(super) since: Instant,
    /// The end of the mail that has failed.
    pub(super) end: Cursor,
    /// True if only the mail that was tried has failed. Unknown until all mail of the pass has been returned.
    pub(super) only_tried: Option<bool>,
}

impl Then {
    /// Requests a pause after the pass. It does not undo that all mail has failed, nor that the server takes no more.
    pub(super) fn pause(&mut self, pause: Pause) {
        match self {
            Self::Fail(_) => {}
            Self::Pause(known) if known.is_for_server() && !pause.is_for_server() => {
                known.until = pause.until;
            }
            Self::Again | Self::Pause(_) => *self = Self::Pause(Box::new(pause)),
        }
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

    /// Sets what the pass waits for. Returns what it waited for before.
    pub(super) fn replace_waits(&mut self, waits: Waits) -> Waits {
        core::mem::replace(&mut self.waits, waits)
    }

    /// Returns when to call the delivery, and when its first idle connection is closed.
    pub(super) fn timers(&self) -> (Option<Instant>, Option<Instant>) {
        (self.deadline, self.idle_end)
    }

    /// Copies the timers from the delivery.
    pub(super) fn set_timers(&mut self) {
        self.deadline = self.delivery.poll_timeout();
        self.idle_end = self.delivery.first_idle().map(|(until, _)| until);
    }

    pub(super) fn then(&mut self) -> &mut Then {
        &mut self.then
    }

    /// Splits the pass into what a delivery works with.
    pub(super) fn parts(&mut self) -> (&mut Delivery, &mut Connections, &mut Then) {
        (&mut self.delivery, &mut self.connections, &mut self.then)
    }
}

impl Destination {
    pub(super) fn new(limits: Limits, policy: Arc<Policy>) -> Self {
        Self {
            state: DestinationState::Idle,
            open_claims: 0,
            stalled_passes: 0,
            refusing_passes: 0,
            limits,
            policy,
        }
    }

    /// Returns how its mail goes: to the host that connections are made to, if there is one.
    pub(super) fn policy(&self) -> &Policy {
        let candidate = self.pass().and_then(|pass| pass.delivery.candidate());
        candidate.map_or(&self.policy, |candidate| &candidate.policy)
    }

    /// Goes by another policy, as long as no host is known.
    pub(super) fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
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

    /// Returns the exhausted pass, and whether only the mail that was tried has failed. That is decided once, when all mail of
    /// the pass has been returned.
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

    /// Returns whether the destination does nothing and has no open claim.
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

    /// Returns the order in which mail is claimed.
    pub(super) fn order(&self) -> Order {
        if self.stalled_passes > 0 { Order::NewestFirst } else { Order::OldestFirst }
    }

    /// Records that some of its mail has been decided, so its connections work.
    pub(super) fn end_stall(&mut self) {
        self.stalled_passes = 0;
    }

    /// Records that the server takes no more mail for now. Returns the length of the pause: `first`, doubled each time up to
    /// `most`.
    pub(super) fn note_refusing(&mut self, first: Duration, most: Duration) -> Duration {
        let doubled = first.saturating_mul(2_u32.saturating_pow(self.refusing_passes));
        self.refusing_passes = self.refusing_passes.saturating_add(1);
        doubled.min(most)
    }

    /// Records that the server still takes mail.
    pub(super) fn end_refusing(&mut self) {
        self.refusing_passes = 0;
    }

    /// Ends the pass. Returns the state that follows.
    pub(super) fn state_after_pass(&mut self) -> DestinationState {
        let DestinationState::Active(pass) = &mut self.state else { return DestinationState::Idle };
        let then = core::mem::take(&mut pass.then);
        let is_refused = matches!(&then, Then::Pause(pause) if pause.is_for_server());
        if !is_refused {
            self.refusing_passes = 0;
        }
        match then {
            Then::Again => DestinationState::Idle,
            Then::Pause(pause) => DestinationState::Paused(pause),
            Then::Fail(exhausted) => DestinationState::Exhausted(exhausted),
        }
    }
}

#[cfg(test)]
mod tests;
