//! The answers that a delivery gets at once: a slot for a connection, and permission to begin a transaction.

use super::connections::{Connections, WaitLists};
use super::destination::{Pause, Then};
use super::flights::Flights;
use super::host_slots::{HostSlots, Owner, SlotRequest, size};
use super::limits::Limits;
use crate::delivery::{Admission, Permission, Upcoming};
use crate::explanation::PauseReason;
use crate::io::ConnectionId;
use crate::policy::RateLimit;
use crate::queue::HopId;
use crate::reachability::Reachability;
use crate::rng::Seed;
use crate::route::Candidate;
use crate::time::{Duration, Instant};

/// Longest time that a connection is kept open although the rate limit forbids its next transaction.
const RATE_LIMIT_HOLD: Duration = Duration::from_secs(2);

/// The state of mail while a delivery works.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    pub(super) now: Instant,
    pub(super) is_draining: bool,
    /// True if mail of the next hop is ready.
    pub(super) has_mail: bool,
    /// The number of connections that probes have to the next hop.
    pub(super) probe_connections: usize,
    /// The number of the latest change that another program made to the outbox.
    pub(super) changes: u64,
    /// How many mails servers may take before some of them must be recorded.
    pub(super) room_for_taken: usize,
    /// True if mail is noted before it is sent.
    pub(super) notes_mail: bool,
}

/// Returns whether this many connections of probes are all that a destination may have while its mail goes to a candidate.
pub(super) fn are_all(probe_connections: usize, candidate: &Candidate) -> bool {
    probe_connections > 0 && probe_connections >= size(candidate.policy.concurrency)
}

/// The admission of one destination.
pub(super) struct DestinationAdmission<'a> {
    pub(super) hop: HopId,
    pub(super) situation: Situation,
    pub(super) reachability: &'a Reachability,
    pub(super) slots: &'a mut HostSlots,
    pub(super) connections: &'a mut Connections,
    pub(super) then: &'a mut Then,
    pub(super) limits: &'a mut Limits,
    pub(super) flights: &'a mut Flights,
    pub(super) wait_lists: &'a mut WaitLists,
}

impl Admission for DestinationAdmission<'_> {
    fn try_open(&mut self, candidate: &Candidate, is_last_resort: bool) -> Option<ConnectionId> {
        let has_turn = self.slots.has_spare_slot() && !self.slots.has_waiters(candidate.remote);
        let Situation { is_draining, has_mail, probe_connections, .. } = self.situation;
        if is_draining || !has_mail || are_all(probe_connections, candidate) || !has_turn {
            return None;
        }
        self.slots.check_host(self.request(candidate, is_last_resort)).ok()?;
        Some(self.open(candidate, is_last_resort))
    }

    fn open(&mut self, candidate: &Candidate, is_last_resort: bool) -> ConnectionId {
        let request = self.request(candidate, is_last_resort);
        let owner = Owner::Destination(self.hop);
        let connection = self.slots.open(owner, request, self.situation.now);
        self.connections.insert(connection);
        connection
    }

    fn permit_transaction(
        &mut self,
        connection: ConnectionId,
        limit: Option<RateLimit>,
        upcoming: &Upcoming<'_>,
    ) -> Permission {
        let Situation { now, is_draining, changes, room_for_taken, notes_mail, .. } = self.situation;
        self.connections.free(connection, self.wait_lists);
        if room_for_taken == 0 && !is_draining {
            self.connections.stop(connection, self.wait_lists);
            return Permission::Later;
        }
        if self.connections.is_outdated(connection, changes) {
            return Permission::ClaimAgain;
        }
        if notes_mail && !self.flights.prepare(connection, upcoming) {
            self.connections.stop(connection, self.wait_lists);
            return Permission::Later;
        }
        let may_begin = match limit {
            Some(limit) => self.limits.take_transaction(limit, now),
            None => Ok(()),
        };
        match may_begin {
            Ok(()) => {
                self.flights.begin(connection);
                Permission::Granted
            }
            Err(at) if at <= now + RATE_LIMIT_HOLD => {
                self.connections.hold_back(connection, at, self.wait_lists);
                Permission::Later
            }
            Err(at) => {
                self.then.pause(Pause { until: at, why: PauseReason::Rate });
                Permission::NotInThisPass
            }
        }
    }

    fn note_taken(&mut self) {
        self.situation.room_for_taken = self.situation.room_for_taken.saturating_sub(1);
    }

    fn preset_seed(&mut self) -> Option<Seed> {
        self.slots.ids().take_preset_seed()
    }
}

impl DestinationAdmission<'_> {
    /// Makes a request for a slot. A candidate is a last resort if no other is left, or if it is known not to answer.
    fn request<'c>(&self, candidate: &'c Candidate, is_last_resort: bool) -> SlotRequest<'c> {
        let is_in_trouble = self.reachability.is_in_trouble(candidate, self.situation.now);
        SlotRequest { candidate, is_in_trouble, is_last_resort: is_last_resort || is_in_trouble }
    }
}
