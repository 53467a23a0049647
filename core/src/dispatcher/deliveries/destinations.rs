//! All destinations, with indices for those whose turn or time has come.
//!
//! A destination exists as long as it has ready mail, or something is under way or remembered of it. Each change of one is
//! followed by [`Destinations::touch`], and all that were touched are settled before a call of the dispatcher returns.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};

use super::connections::{Connections, WaitLists};
use super::destination::{Destination, DestinationState, ExhaustedPass, Pass, Pause, Then, Waits};
use super::limits::{Limits, RememberedLimits};
use super::start_queue::StartQueue;
use crate::delivery::{Delivery, DeliveryOutput, PassFailure};
use crate::io::ConnectionId;
use crate::next_hop::NextHop;
use crate::outbox::Cursor;
use crate::policy::Policies;
use crate::queue::{HopId, Queue};
use crate::resolver::LookupId;
use crate::time::Instant;

/// The destinations.
#[derive(Debug)]
pub(super) struct Destinations {
    all: BTreeMap<HopId, Destination>,
    /// Destinations that may have outputs, or must be settled.
    touched: BTreeSet<HopId>,
    /// Destinations that wait for their turn.
    start_queue: StartQueue,
    /// Destinations with a pass.
    active: BTreeSet<HopId>,
    /// Destinations with a failure to record, by the time of the failure.
    exhausted: BTreeSet<(Instant, HopId)>,
    timers: Timers,
    /// The destination that waits for each lookup.
    lookups: BTreeMap<LookupId, HopId>,
    /// Destinations that wait for the policies of their domains.
    policy_waits: BTreeSet<HopId>,
    wait_lists: WaitLists,
    remembered: RememberedLimits,
}

/// The timers of destinations.
#[derive(Debug, Default)]
struct Timers {
    /// When to call a delivery.
    deadlines: BTreeSet<(Instant, HopId)>,
    /// When the first idle connection is closed.
    idle_ends: BTreeSet<(Instant, HopId)>,
    pauses: BTreeSet<(Instant, HopId)>,
}

/// The parts of a destination that a delivery works with.
pub(super) struct AtWork<'a> {
    pub(super) delivery: &'a mut Delivery,
    pub(super) connections: &'a mut Connections,
    pub(super) then: &'a mut Then,
    pub(super) limits: &'a mut Limits,
    pub(super) wait_lists: &'a mut WaitLists,
}

impl Timers {
    fn insert(&mut self, hop: HopId, pass: &Pass) {
        let (deadline, idle_end) = pass.timers();
        self.deadlines.extend(deadline.map(|at| (at, hop)));
        self.idle_ends.extend(idle_end.map(|at| (at, hop)));
    }

    fn remove(&mut self, hop: HopId, pass: &Pass) {
        let (deadline, idle_end) = pass.timers();
        deadline.map(|at| self.deadlines.remove(&(at, hop)));
        idle_end.map(|at| self.idle_ends.remove(&(at, hop)));
    }
}

impl Destinations {
    pub(super) fn new() -> Self {
        Self {
            all: BTreeMap::new(),
            touched: BTreeSet::new(),
            start_queue: StartQueue::new(),
            active: BTreeSet::new(),
            exhausted: BTreeSet::new(),
            timers: Timers::default(),
            lookups: BTreeMap::new(),
            policy_waits: BTreeSet::new(),
            wait_lists: WaitLists::default(),
            remembered: RememberedLimits::default(),
        }
    }

    pub(super) fn get(&self, hop: HopId) -> Option<&Destination> {
        self.all.get(&hop)
    }

    /// Returns the pass of a next hop, if one is under way.
    pub(super) fn pass(&self, hop: HopId) -> Option<&Pass> {
        self.get(hop)?.pass()
    }

    pub(super) fn delivery(&self, hop: HopId) -> Option<&Delivery> {
        self.pass(hop).map(Pass::delivery)
    }

    /// Returns the destinations with passes, in the order of their ids.
    pub(super) fn active(&self) -> impl Iterator<Item = (HopId, &Pass)> {
        self.active.iter().filter_map(|&hop| Some((hop, self.pass(hop)?)))
    }

    /// Returns how many destinations wait for their turn, and how many are paused.
    pub(super) fn at_rest(&self) -> (usize, usize) {
        (self.start_queue.len(true), self.timers.pauses.len())
    }

    /// Returns the number of passes.
    pub(super) fn active_count(&self) -> usize {
        self.active.len()
    }

    /// Returns how many destinations wait for name servers.
    pub(super) fn asking_count(&self) -> usize {
        self.lookups.len()
    }

    /// Returns how many destinations wait for the policies of their domains.
    pub(super) fn waiting_for_policies_count(&self) -> usize {
        self.policy_waits.len()
    }

    /// Changes the limits of a next hop, whether there is mail for it or not.
    pub(super) fn with_limits<R>(
        &mut self,
        hop: Option<HopId>,
        next_hop: &NextHop,
        now: Instant,
        change: impl FnOnce(&mut Limits) -> R,
    ) -> R {
        if let Some(destination) = hop.and_then(|hop| self.all.get_mut(&hop)) {
            return change(destination.limits_mut());
        }
        let mut limits = self.remembered.take(next_hop);
        let result = change(&mut limits);
        self.remembered.keep(next_hop, limits, now);
        result
    }

    /// Returns the limits that are remembered of a next hop without mail.
    pub(super) fn remembered(&self, next_hop: &NextHop) -> Option<&Limits> {
        self.remembered.find(next_hop)
    }

    pub(super) fn wait_lists(&self) -> &WaitLists {
        &self.wait_lists
    }

    /// Marks a destination to be settled.
    pub(super) fn touch(&mut self, hop: HopId) {
        self.touched.insert(hop);
    }

    pub(super) fn touch_all(&mut self, hops: impl IntoIterator<Item = HopId>) {
        self.touched.extend(hops);
    }

    pub(super) fn pop_touched(&mut self) -> Option<HopId> {
        self.touched.pop_first()
    }

    /// Returns the parts that a delivery works with, and marks the destination to be settled.
    pub(super) fn work_on(&mut self, hop: HopId) -> Option<AtWork<'_>> {
        let (pass, limits) = self.all.get_mut(&hop)?.pass_mut()?;
        self.touched.insert(hop);
        let (delivery, connections, then) = pass.parts();
        Some(AtWork { delivery, connections, then, limits, wait_lists: &mut self.wait_lists })
    }

    /// Changes a destination, except for its state.
    pub(super) fn update(&mut self, hop: HopId, change: impl FnOnce(&mut Destination)) {
        if let Some(destination) = self.all.get_mut(&hop) {
            change(destination);
        }
    }

    /// Goes by other policies.
    pub(super) fn reconfigure(&mut self, queue: &Queue, policies: &Policies) {
        for (hop, destination) in &mut self.all {
            if let Some(next_hop) = queue.next_hop(*hop) {
                destination.set_policy(policies.of_hop(next_hop));
            }
        }
    }

    /// Queues a destination with ready mail, or forgets one of which nothing must be remembered. `needs_answer` tells whether a
    /// delivery begins with a lookup.
    pub(super) fn settle(
        &mut self,
        hop: HopId,
        queue: &mut Queue,
        policies: &Policies,
        needs_answer: impl FnOnce(&Queue) -> bool,
        now: Instant,
    ) {
        let is_ready = queue.ready_count(hop) > 0;
        if is_ready && !self.all.contains_key(&hop) {
            let Some(next_hop) = queue.next_hop(hop) else { return };
            let limits = self.remembered.take(next_hop);
            self.all.insert(hop, Destination::new(limits, policies.of_hop(next_hop)));
            queue.retain_hop(hop);
        }
        let Some(destination) = self.all.get(&hop) else { return };
        let is_queued = matches!(destination.state(), DestinationState::Queued);
        match destination.state() {
            DestinationState::Idle | DestinationState::Queued if is_ready => {
                if !is_queued {
                    self.set_state(hop, DestinationState::Queued);
                }
                self.start_queue.push(hop, needs_answer(queue), queue.prospect(hop));
            }
            DestinationState::Idle if destination.is_idle() => {
                if let (Some(destination), Some(next_hop)) = (self.all.remove(&hop), queue.next_hop(hop)) {
                    self.remembered.keep(next_hop, destination.into_limits(), now);
                }
                queue.release_hop(hop);
            }
            DestinationState::Idle
            | DestinationState::Queued
            | DestinationState::Paused(_)
            | DestinationState::Active(_)
            | DestinationState::Exhausted(_) => {}
        }
    }

    /// Takes the next destination from the queue, without those that begin with a lookup unless `may_ask`.
    pub(super) fn pop_queued(&mut self, may_ask: bool) -> Option<HopId> {
        let hop = self.start_queue.pop(may_ask)?;
        self.set_state(hop, DestinationState::Idle);
        Some(hop)
    }

    /// Returns how many queued destinations could be worked on.
    pub(super) fn queued(&self, may_ask: bool) -> usize {
        self.start_queue.len(may_ask)
    }

    pub(super) fn begin_pass(&mut self, hop: HopId, delivery: Delivery) {
        let pass = Pass::new(delivery, Connections::new(hop));
        self.set_state(hop, DestinationState::Active(Box::new(pass)));
    }

    /// Records that all mail of a pass, up to this cursor, has failed.
    pub(super) fn fail(&mut self, hop: HopId, failure: PassFailure, end: Cursor, since: Instant) {
        if let Some((pass, _)) = self.all.get_mut(&hop).and_then(Destination::pass_mut) {
            *pass.then() = Then::Fail(Box::new(ExhaustedPass { failure, since, end, only_tried: None }));
        }
    }

    /// Returns the next output of a delivery.
    pub(super) fn poll_output(&mut self, hop: HopId) -> Option<DeliveryOutput> {
        let (pass, _) = self.all.get_mut(&hop)?.pass_mut()?;
        pass.parts().0.poll_output()
    }

    /// Takes an idle connection for new mail.
    pub(super) fn reuse_idle_connection(&mut self, hop: HopId, now: Instant) -> Option<ConnectionId> {
        let (pass, _) = self.all.get_mut(&hop)?.pass_mut()?;
        pass.parts().0.reuse_idle(now)
    }

    /// Lets a delivery set its timers.
    pub(super) fn schedule(&mut self, hop: HopId, set: impl FnOnce(&mut Delivery)) {
        if let Some((pass, _)) = self.all.get_mut(&hop).and_then(Destination::pass_mut) {
            set(pass.parts().0);
            self.timers.remove(hop, pass);
            pass.set_timers();
            self.timers.insert(hop, pass);
        }
    }

    pub(super) fn end_pass(&mut self, hop: HopId) {
        let Some(state) = self.all.get_mut(&hop).map(Destination::state_after_pass) else { return };
        self.set_state(hop, state);
    }

    /// Pauses a next hop until this time; one with a pass, after the pass.
    pub(super) fn pause(&mut self, hop: HopId, pause: Pause) {
        let Some(destination) = self.all.get_mut(&hop) else { return };
        match destination.state() {
            DestinationState::Active(_) => {
                if let Some((pass, _)) = destination.pass_mut() {
                    pass.then().pause(pause);
                }
            }
            DestinationState::Idle | DestinationState::Queued | DestinationState::Paused(_) => {
                self.set_state(hop, DestinationState::Paused(Box::new(pause)));
            }
            // All of its mail has failed, which is about to be recorded.
            DestinationState::Exhausted(_) => {}
        }
    }

    /// Returns when the first pause ends.
    pub(super) fn next_pause_end(&self) -> Option<Instant> {
        self.timers.pauses.first().map(|&(at, _)| at)
    }

    /// Ends the pauses that are over.
    pub(super) fn end_due_pauses(&mut self, now: Instant, queue: &Queue) {
        while let Some(&(_, hop)) = self.timers.pauses.first().filter(|&&(at, _)| at <= now) {
            self.set_state(hop, DestinationState::Idle);
            if queue.ready_count(hop) == 0 {
                self.update(hop, Destination::end_refusing);
            }
        }
    }

    /// Lets no pause that a server has asked for last beyond `server_end`, and no other one beyond `other_end`, if that is given.
    pub(super) fn shorten_pauses(&mut self, server_end: Instant, other_end: Option<Instant>) {
        let end_of = |is_for_server: bool| if is_for_server { Some(server_end) } else { other_end };
        for (until, hop) in self.timers.pauses.clone() {
            let Some(DestinationState::Paused(pause)) = self.get(hop).map(Destination::state) else {
                continue;
            };
            if let Some(end) = end_of(pause.is_for_server()).filter(|end| *end < until) {
                let shortened = Pause { until: end, ..(**pause).clone() };
                self.set_state(hop, DestinationState::Paused(Box::new(shortened)));
            }
        }
        for hop in &self.active {
            if let Some((pass, _)) = self.all.get_mut(hop).and_then(Destination::pass_mut)
                && let Then::Pause(pause) = pass.then()
                && let Some(end) = end_of(pause.is_for_server())
            {
                pause.until = end.min(pause.until);
            }
        }
    }

    /// Ends all pauses, including those that would follow a pass.
    pub(super) fn end_pauses(&mut self) {
        while let Some(&(_, hop)) = self.timers.pauses.first() {
            self.set_state(hop, DestinationState::Idle);
        }
        for hop in &self.active {
            if let Some((pass, _)) = self.all.get_mut(hop).and_then(Destination::pass_mut)
                && matches!(pass.then(), Then::Pause(_))
            {
                *pass.then() = Then::Again;
            }
        }
    }

    /// Forgets what went wrong before.
    pub(super) fn forget_troubles(&mut self) {
        self.end_pauses();
        self.all.values_mut().for_each(Destination::end_refusing);
    }

    /// Takes all connections off the wait lists.
    pub(super) fn free_connections(&mut self) {
        for hop in &self.active {
            if let Some((pass, _)) = self.all.get_mut(hop).and_then(Destination::pass_mut) {
                pass.parts().1.free_all(&mut self.wait_lists);
            }
        }
    }

    /// Removes a connection that is closed.
    pub(super) fn close(&mut self, hop: HopId, connection: ConnectionId) {
        if let Some((pass, _)) = self.all.get_mut(&hop).and_then(Destination::pass_mut) {
            pass.parts().1.remove(connection, &mut self.wait_lists);
        }
    }

    /// Returns whether a connection of a next hop is open.
    pub(super) fn is_open(&self, hop: HopId, connection: ConnectionId) -> bool {
        self.pass(hop).is_some_and(|pass| pass.connections().contains(connection))
    }

    /// Sets what a pass waits for. Returns what it waited for before.
    pub(super) fn set_waits(&mut self, hop: HopId, waits: Waits) -> Waits {
        let Some((pass, _)) = self.all.get_mut(&hop).and_then(Destination::pass_mut) else {
            return Waits::No;
        };
        let before = pass.replace_waits(waits);
        if let Waits::ForDns(lookup) = before {
            self.lookups.remove(&lookup);
        }
        if let Waits::ForDns(lookup) = waits {
            self.lookups.insert(lookup, hop);
        }
        if waits == Waits::ForPolicy {
            self.policy_waits.insert(hop);
        } else {
            self.policy_waits.remove(&hop);
        }
        before
    }

    /// Returns the destination that waits for a lookup.
    pub(super) fn asker(&self, lookup: LookupId) -> Option<HopId> {
        self.lookups.get(&lookup).copied()
    }

    /// Returns when to call the first delivery, or the first connection that is held back.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.timers.deadlines.first().map(|&(at, _)| at);
        let held_back = self.wait_lists.first_held_back().map(|(at, ..)| at);
        deadline.into_iter().chain(held_back).min()
    }

    /// Takes a destination whose delivery is to be called.
    pub(super) fn pop_deadline(&mut self, now: Instant) -> Option<HopId> {
        let &(at, hop) = self.timers.deadlines.first().filter(|&&(at, _)| at <= now)?;
        self.timers.deadlines.remove(&(at, hop));
        Some(hop)
    }

    /// Returns the destination whose connection has been idle for the longest time.
    pub(super) fn first_idle(&self) -> Option<HopId> {
        self.timers.idle_ends.first().map(|&(_, hop)| hop)
    }

    /// Returns the destination that was exhausted first, among those without open claims.
    pub(super) fn first_exhausted(&self) -> Option<HopId> {
        let has_claims = |hop| self.get(hop).is_some_and(|destination| destination.open_claims() > 0);
        self.exhausted.iter().map(|&(_, hop)| hop).find(|&hop| !has_claims(hop))
    }

    /// Returns the exhausted pass of a destination, and whether only the mail that was tried has failed. That is decided once,
    /// when all mail of the pass has been returned.
    pub(super) fn exhausted(&mut self, hop: HopId, is_partly_tried: bool) -> Option<(&ExhaustedPass, bool)> {
        self.all.get_mut(&hop)?.exhausted(is_partly_tried)
    }

    /// Ends the exhausted state: all failures of the destination are recorded.
    pub(super) fn end_exhausted(&mut self, hop: HopId) {
        self.set_state(hop, DestinationState::Idle);
    }

    /// Returns how many destinations there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Asserts that the indices agree with the destinations. `claims` are the open claims.
    #[track_caller]
    pub(super) fn check(&self, queue: &Queue, claims: &BTreeMap<HopId, u32>) {
        assert!(self.touched.is_empty(), "{:?} are not settled", self.touched);
        let open_claims = self.all.iter().filter(|(_, destination)| destination.open_claims() > 0);
        let open_claims: BTreeMap<HopId, u32> =
            open_claims.map(|(&hop, destination)| (hop, destination.open_claims())).collect();
        assert_eq!(&open_claims, claims, "claims that are not answered");
        let (mut queued, mut paused, mut exhausted) = (0, 0, 0);
        let (mut active, mut deadlines, mut idle_ends) = (0, 0, 0);
        let (mut asking, mut for_policies) = (0, 0);
        for (&hop, destination) in &self.all {
            assert!(queue.next_hop(hop).is_some(), "{hop:?} is not retained");
            match destination.state() {
                DestinationState::Idle => assert!(!destination.is_idle(), "{hop:?} is here for nothing"),
                DestinationState::Queued => {
                    assert!(self.start_queue.contains(hop), "{hop:?} has no turn");
                    queued += 1;
                }
                DestinationState::Paused(pause) => {
                    assert!(
                        self.timers.pauses.contains(&(pause.until, hop)),
                        "the pause of {hop:?} has no end"
                    );
                    paused += 1;
                }
                DestinationState::Active(pass) => {
                    assert!(self.active.contains(&hop), "the pass of {hop:?} is lost");
                    let (deadline, idle_end) = pass.timers();
                    assert_eq!(deadline, pass.delivery().poll_timeout(), "the timer of {hop:?}");
                    assert!(deadline.is_none_or(|at| self.timers.deadlines.contains(&(at, hop))));
                    assert!(idle_end.is_none_or(|at| self.timers.idle_ends.contains(&(at, hop))));
                    if let Waits::ForDns(lookup) = pass.waits() {
                        assert_eq!(self.lookups.get(&lookup), Some(&hop), "the lookup of {hop:?}");
                        asking += 1;
                    }
                    let is_waiting = pass.waits() == Waits::ForPolicy;
                    assert_eq!(self.policy_waits.contains(&hop), is_waiting, "the policy of {hop:?}");
                    for_policies += usize::from(is_waiting);
                    active += 1;
                    deadlines += usize::from(deadline.is_some());
                    idle_ends += usize::from(idle_end.is_some());
                }
                DestinationState::Exhausted(pass) => {
                    assert!(self.exhausted.contains(&(pass.since, hop)), "the failure of {hop:?} is lost");
                    exhausted += 1;
                }
            }
        }
        assert_eq!(
            [queued, paused, active, exhausted, deadlines, idle_ends, asking, for_policies],
            [
                self.start_queue.len(true),
                self.timers.pauses.len(),
                self.active.len(),
                self.exhausted.len(),
                self.timers.deadlines.len(),
                self.timers.idle_ends.len(),
                self.lookups.len(),
                self.policy_waits.len()
            ],
            "an index has what is gone"
        );
        self.wait_lists.check(self.active().map(|(_, pass)| pass.connections()));
    }

    /// Changes the state of a destination, and all indices that depend on it. This is the only place that does.
    fn set_state(&mut self, hop: HopId, state: DestinationState) {
        let Some(destination) = self.all.get_mut(&hop) else { return };
        match destination.replace_state(DestinationState::Idle) {
            DestinationState::Idle => {}
            DestinationState::Queued => self.start_queue.remove(hop),
            DestinationState::Paused(pause) => drop(self.timers.pauses.remove(&(pause.until, hop))),
            DestinationState::Active(mut pass) => {
                self.active.remove(&hop);
                self.timers.remove(hop, &pass);
                pass.parts().1.free_all(&mut self.wait_lists);
            }
            DestinationState::Exhausted(pass) => drop(self.exhausted.remove(&(pass.since, hop))),
        }
        match &state {
            DestinationState::Idle => drop(self.touched.insert(hop)),
            DestinationState::Queued => {}
            DestinationState::Paused(pause) => drop(self.timers.pauses.insert((pause.until, hop))),
            DestinationState::Active(pass) => {
                self.active.insert(hop);
                self.timers.insert(hop, pass);
            }
            DestinationState::Exhausted(pass) => drop(self.exhausted.insert((pass.since, hop))),
        }
        destination.replace_state(state);
    }
}
