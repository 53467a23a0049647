//! The slots for connections: a limited number in total, and a limited number for each address and port. Many destinations may
//! share a host without knowing of each other.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::delivery::ConnectionIds;
use crate::explanation::Places;
use crate::fair_queue::{FairQueue, Prospect};
use crate::ids::InquiryId;
use crate::io::ConnectionId;
use crate::next_hop::TlsMode;
use crate::queue::HopId;
use crate::route::Candidate;
use crate::time::Instant;

/// Last resorts may use this fraction of all slots: one in so many.
const LAST_RESORT_FRACTION: usize = 2;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The mail of this next hop.
    Destination(HopId),
    /// This probe.
    Probe(InquiryId),
}

/// An open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenConnection {
    pub(super) owner: Owner,
    pub(super) remote: SocketAddr,
    pub(super) tls: TlsMode,
    pub(super) since: Instant,
    /// True if it is a last resort. It may take all the time that the timeouts allow.
    pub(super) is_last_resort: bool,
    is_established: bool,
    /// True if its server has decided mail.
    has_proved: bool,
    /// True if it ends because a limit was lowered.
    is_retired: bool,
}

impl OpenConnection {
    /// Returns the next hop whose mail it is for.
    pub(super) fn hop(&self) -> Option<HopId> {
        if let Owner::Destination(hop) = self.owner { Some(hop) } else { None }
    }

    /// Returns whether it tries a last resort whose server has not decided mail.
    pub(super) fn is_unproven_last_resort(&self) -> bool {
        self.is_last_resort && !self.has_proved
    }
}

/// A request for a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotRequest<'a> {
    pub(super) candidate: &'a Candidate,
    /// True if the address is known not to answer. Only one connection at a time tries it.
    pub(super) is_in_trouble: bool,
    /// True if no other candidate is left to try.
    pub(super) is_last_resort: bool,
}

/// The reason why a connection gets no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotRefusal {
    /// The address has as many connections as it may.
    Full,
    /// The address is in trouble, and another connection is trying it.
    OnTrial,
    /// There are as many last resorts as there may be.
    LastResorts,
    /// Probes have all the connections that the destination may have.
    Probe,
}

/// The slots of all addresses, and the destinations that wait for one.
#[derive(Debug)]
pub(super) struct HostSlots {
    /// The most connections in total, and of last resorts.
    limit: usize,
    last_resort_limit: usize,
    ids: ConnectionIds,
    open: BTreeMap<ConnectionId, OpenConnection>,
    /// The number of connections that end because a limit was lowered.
    retired: usize,
    hosts: BTreeMap<SocketAddr, HostEntry>,
    /// Destinations that cannot proceed without a connection, to whichever host.
    waiting: FairQueue<HopId>,
    /// Destinations that want a further connection when a slot is free.
    wanting_more: BTreeSet<HopId>,
    /// The number of destinations that wait for hosts.
    waiting_for_hosts: usize,
    /// Addresses that may admit a destination.
    changed: BTreeSet<SocketAddr>,
    /// The number of last resorts whose server has not decided mail.
    last_resorts: usize,
    /// Addresses that could be connected to if there were fewer last resorts.
    held_off: FairQueue<SocketAddr>,
}

/// The slots of one address and port.
#[derive(Debug, Default)]
struct HostEntry {
    open: BTreeSet<ConnectionId>,
    /// The number of connections that are not established.
    on_trial: usize,
    /// The number of connections that end because a limit was lowered.
    retired: usize,
    /// Destinations that cannot proceed without a connection.
    waiting: FairQueue<HopId>,
    /// Destinations that want a further one.
    wanting_more: BTreeSet<HopId>,
    /// True if all that wait must look again, because something was learned about the address.
    has_news: bool,
    /// The limits of the destinations that have come here.
    limits: HostLimits,
}

/// The most connections to one address and port, as the destinations have it that share the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum HostLimits {
    #[default]
    None,
    /// All have this limit.
    Equal(u32),
    /// They have different ones.
    Mixed,
}

impl HostEntry {
    fn note_limit(&mut self, limit: u32) {
        self.limits = match self.limits {
            HostLimits::None => HostLimits::Equal(limit),
            HostLimits::Equal(known) if known == limit => self.limits,
            HostLimits::Equal(_) | HostLimits::Mixed => HostLimits::Mixed,
        };
    }

    /// Returns how many destinations may find a slot. Those that have a lower limit than others wait again.
    fn places(&self) -> usize {
        match self.limits {
            HostLimits::None => 0,
            HostLimits::Equal(limit) => size(limit).saturating_sub(self.open.len()),
            HostLimits::Mixed => usize::MAX,
        }
    }
}

impl HostSlots {
    /// Returns empty slots for so many connections. `at_work` is the most destinations that are worked on at once.
    pub(super) fn new(concurrency: u32, at_work: usize) -> Self {
        let limit = size(concurrency);
        Self {
            limit,
            last_resort_limit: last_resort_limit(limit, at_work),
            ids: ConnectionIds::default(),
            open: BTreeMap::new(),
            retired: 0,
            hosts: BTreeMap::new(),
            waiting: FairQueue::new(),
            wanting_more: BTreeSet::new(),
            waiting_for_hosts: 0,
            changed: BTreeSet::new(),
            last_resorts: 0,
            held_off: FairQueue::new(),
        }
    }

    /// Sets the limits, but for those of addresses, which are to be [noted](Self::note_limit) again. What waits looks again whether there is
    /// a slot for it now.
    pub(super) fn reconfigure(&mut self, concurrency: u32, at_work: usize) {
        self.limit = size(concurrency);
        self.last_resort_limit = last_resort_limit(self.limit, at_work);
        self.hosts.values_mut().for_each(|host| host.limits = HostLimits::None);
        self.announce_news_of_all();
    }

    /// Notes the limit of an address for a destination that has connections to it, or waits for one.
    pub(super) fn note_limit(&mut self, remote: SocketAddr, limit: u32) {
        if let Some(host) = self.hosts.get_mut(&remote) {
            host.note_limit(limit);
        }
    }

    /// Retires a connection that is one too many since a limit was lowered; `host_limit` is that of its address. Returns whether it is to
    /// end.
    pub(super) fn retire_surplus(&mut self, connection: ConnectionId, host_limit: u32) -> bool {
        let is_above_limit = self.open.len() - self.retired > self.limit;
        let Some(open) = self.open.get_mut(&connection) else { return false };
        let Some(host) = self.hosts.get_mut(&open.remote) else { return false };
        if open.is_retired {
            return true;
        }
        let is_surplus = is_above_limit || host.open.len() - host.retired > size(host_limit);
        open.is_retired = is_surplus;
        host.retired += usize::from(is_surplus);
        self.retired += usize::from(is_surplus);
        is_surplus
    }

    /// Returns whether the host of a candidate has a slot, ignoring the limit of all connections.
    pub(super) fn check_host(&self, request: SlotRequest<'_>) -> Result<(), SlotRefusal> {
        self.check_address(request.candidate, request.is_in_trouble)?;
        if request.is_last_resort && self.last_resorts >= self.last_resort_limit {
            return Err(SlotRefusal::LastResorts);
        }
        Ok(())
    }

    /// Returns whether the address of a candidate has a free slot by the limit of its destination. One in trouble has it only if no
    /// other connection is trying it.
    fn check_address(&self, candidate: &Candidate, is_in_trouble: bool) -> Result<(), SlotRefusal> {
        match self.hosts.get(&candidate.remote) {
            Some(host) if host.open.len() >= size(candidate.policy.host_concurrency) => {
                Err(SlotRefusal::Full)
            }
            Some(host) if is_in_trouble && host.on_trial > 0 => Err(SlotRefusal::OnTrial),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns how many connections there are, and may be: in total, to an address, and of last resorts.
    pub(super) fn places(&self) -> Places {
        Places { used: self.open.len(), limit: self.limit }
    }

    pub(super) fn places_at(&self, candidate: &Candidate) -> Places {
        let used = self.hosts.get(&candidate.remote).map_or(0, |host| host.open.len());
        Places { used, limit: size(candidate.policy.host_concurrency) }
    }

    pub(super) fn places_of_last_resorts(&self) -> Places {
        Places { used: self.last_resorts, limit: self.last_resort_limit }
    }

    /// Returns the allocation of the ids of connections.
    pub(super) fn ids(&mut self) -> &mut ConnectionIds {
        &mut self.ids
    }

    /// Takes the slot of a new connection, and returns its id.
    pub(super) fn open(&mut self, owner: Owner, request: SlotRequest<'_>, now: Instant) -> ConnectionId {
        debug_assert!(self.has_slot(), "a connection is opened beyond the limit");
        let connection = self.ids.next();
        let &Candidate { remote, tls, ref policy, .. } = request.candidate;
        let is_last_resort = request.is_last_resort;
        let host = self.hosts.entry(remote).or_default();
        host.note_limit(policy.host_concurrency);
        host.open.insert(connection);
        host.on_trial += 1;
        self.last_resorts += usize::from(is_last_resort);
        let open = OpenConnection {
            owner,
            remote,
            tls,
            since: now,
            is_last_resort,
            is_established: false,
            has_proved: false,
            is_retired: false,
        };
        self.open.insert(connection, open);
        connection
    }

    /// Records that a connection is established. Returns the connection if that is news.
    pub(super) fn establish(&mut self, connection: ConnectionId) -> Option<OpenConnection> {
        let open = self.open.get_mut(&connection).filter(|open| !open.is_established)?;
        open.is_established = true;
        let open = *open;
        if let Some(host) = self.hosts.get_mut(&open.remote) {
            host.on_trial = host.on_trial.saturating_sub(1);
        }
        self.changed.insert(open.remote);
        Some(open)
    }

    /// Gives the slot of a connection back.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        let Some(open) = self.open.remove(&connection) else { return };
        if let Some(host) = self.hosts.get_mut(&open.remote) {
            host.open.remove(&connection);
            host.on_trial = host.on_trial.saturating_sub(usize::from(!open.is_established));
            host.retired -= usize::from(open.is_retired);
        }
        self.retired -= usize::from(open.is_retired);
        self.changed.insert(open.remote);
        if open.is_unproven_last_resort() {
            self.end_trial_of_last_resort();
        }
    }

    /// Returns the number of last resorts whose server has not decided mail.
    pub(super) fn unproven_last_resorts(&self) -> usize {
        self.last_resorts
    }

    /// Returns how many last resorts are too many since the limit was lowered.
    pub(super) fn surplus_last_resorts(&self) -> usize {
        self.last_resorts.saturating_sub(self.last_resort_limit)
    }

    /// Records that the server at an address has decided mail.
    pub(super) fn prove_useful(&mut self, remote: SocketAddr) {
        let connections: Vec<ConnectionId> = self.connections_to(remote).collect();
        for connection in connections {
            let Some(open) = self.open.get_mut(&connection) else { continue };
            if !core::mem::replace(&mut open.has_proved, true) && open.is_last_resort {
                self.end_trial_of_last_resort();
            }
        }
    }

    fn end_trial_of_last_resort(&mut self) {
        self.last_resorts = self.last_resorts.saturating_sub(1);
    }

    /// Returns a connection that is not closed.
    pub(super) fn connection(&self, connection: ConnectionId) -> Option<&OpenConnection> {
        self.open.get(&connection)
    }

    /// Returns the connections to an address.
    pub(super) fn connections_to(&self, remote: SocketAddr) -> impl Iterator<Item = ConnectionId> {
        self.hosts.get(&remote).into_iter().flat_map(|host| host.open.iter().copied())
    }

    /// Returns whether an address has an established connection.
    pub(super) fn is_established(&self, remote: SocketAddr) -> bool {
        self.hosts.get(&remote).is_some_and(|host| host.open.len() > host.on_trial)
    }

    /// Returns how many connections there are.
    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Returns how many connections are not established.
    pub(super) fn on_trial_count(&self) -> usize {
        self.open.values().filter(|open| !open.is_established).count()
    }

    /// Returns the most connections that there may be.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns whether a slot is free.
    pub(super) fn has_slot(&self) -> bool {
        self.open.len() < self.limit
    }

    /// Returns how many connections have to end before so many others can be opened, beside those that end anyway.
    pub(super) fn in_the_way_of(&self, others: usize) -> usize {
        (self.open.len() + others).saturating_sub(self.limit + self.retired)
    }

    /// Returns whether a slot is free that no destination waits for.
    pub(super) fn has_spare_slot(&self) -> bool {
        self.has_slot() && self.waiting.is_empty()
    }

    /// Returns whether the address of a candidate has a free slot, whatever there is in total.
    pub(super) fn has_slot_at(&self, candidate: &Candidate, is_in_trouble: bool) -> bool {
        self.check_address(candidate, is_in_trouble).is_ok()
    }

    /// Returns whether a destination waits for a connection to an address.
    pub(super) fn has_waiters(&self, remote: SocketAddr) -> bool {
        self.hosts.get(&remote).is_some_and(|host| !host.waiting.is_empty())
    }

    /// Returns whether a destination that cannot proceed without a connection waits for the slot of this one.
    pub(super) fn is_needed(&self, connection: ConnectionId) -> bool {
        let is_scarce = !self.has_slot() && !self.waiting.is_empty();
        is_scarce || self.open.get(&connection).is_some_and(|open| self.has_waiters(open.remote))
    }

    /// Queues a destination that cannot proceed without a connection.
    pub(super) fn wait(&mut self, hop: HopId, prospect: Prospect) {
        self.waiting.push(hop, prospect);
    }

    /// Queues a destination ahead of the others, because it has already waited for its host.
    pub(super) fn wait_first(&mut self, hop: HopId, prospect: Prospect) {
        self.waiting.push_front(hop, prospect);
    }

    /// Takes the next destination from the queue, if a slot is free.
    pub(super) fn pop_waiting(&mut self) -> Option<HopId> {
        if self.has_slot() { self.waiting.pop() } else { None }
    }

    /// Returns how many destinations cannot proceed without a connection, to whichever host.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Removes a destination from the queue.
    pub(super) fn end_wait(&mut self, hop: HopId) {
        self.waiting.remove(&hop);
    }

    /// Queues a destination for an address, or, if there are too many last resorts, until there is one less.
    pub(super) fn wait_for_host(
        &mut self,
        remote: SocketAddr,
        hop: HopId,
        prospect: Prospect,
        why: SlotRefusal,
        host_limit: u32,
    ) {
        if why == SlotRefusal::LastResorts {
            self.held_off.push(remote, Prospect::Failed);
        }
        self.waiting_for_hosts += 1;
        let host = self.hosts.entry(remote).or_default();
        host.note_limit(host_limit);
        host.waiting.push(hop, prospect);
    }

    /// Returns how many destinations wait for hosts.
    pub(super) fn waiting_for_hosts_count(&self) -> usize {
        self.waiting_for_hosts
    }

    /// Removes a destination from the queue of an address.
    pub(super) fn end_wait_for_host(&mut self, remote: SocketAddr, hop: HopId) {
        if self.hosts.get_mut(&remote).is_some_and(|host| host.waiting.remove(&hop)) {
            self.waiting_for_hosts = self.waiting_for_hosts.saturating_sub(1);
        }
        self.changed.insert(remote);
    }

    /// Records that a destination wants a further connection.
    pub(super) fn want_more(&mut self, hop: HopId) {
        self.wanting_more.insert(hop);
    }

    /// Records that a destination wants a further connection to an address.
    pub(super) fn want_more_of_host(&mut self, remote: SocketAddr, hop: HopId) {
        self.hosts.entry(remote).or_default().wanting_more.insert(hop);
    }

    /// Records that a destination wants no further connection.
    pub(super) fn want_no_more(&mut self, hop: HopId) {
        self.wanting_more.remove(&hop);
    }

    /// Returns how many destinations want a further connection, to whichever host.
    pub(super) fn wanting_more_count(&self) -> usize {
        self.wanting_more.len()
    }

    /// Takes the destinations that want a further connection, if a slot is to spare.
    pub(super) fn take_wanting_more(&mut self) -> BTreeSet<HopId> {
        if self.has_spare_slot() { core::mem::take(&mut self.wanting_more) } else { BTreeSet::new() }
    }

    /// Makes all destinations that wait for an address look again, because something was learned about it.
    pub(super) fn announce_news(&mut self, remote: SocketAddr) {
        if let Some(host) = self.hosts.get_mut(&remote) {
            host.has_news = true;
            self.changed.insert(remote);
        }
    }

    /// Makes all destinations that wait for any host look again.
    pub(super) fn announce_news_of_all(&mut self) {
        for (&remote, host) in &mut self.hosts {
            host.has_news = true;
            self.changed.insert(remote);
        }
    }

    /// Lets an address admit another destination, because an admitted one made no connection.
    pub(super) fn reconsider(&mut self, remote: SocketAddr) {
        if self.has_waiters(remote) {
            self.changed.insert(remote);
        }
    }

    /// Admits destinations whose hosts have slots. Returns those that cannot proceed without a connection, and those that want a
    /// further one.
    pub(super) fn admit(&mut self) -> (Vec<HopId>, Vec<HopId>) {
        // Addresses that were held off look again, as many at a time as there is room for.
        for _ in self.last_resorts..self.last_resort_limit {
            let Some(remote) = self.held_off.pop() else { break };
            self.changed.insert(remote);
        }
        let (mut waiting, mut wanting_more) = (Vec::new(), Vec::new());
        while let Some(remote) = self.changed.pop_first() {
            let Some(host) = self.hosts.get_mut(&remote) else { continue };
            let has_news = core::mem::take(&mut host.has_news);
            let places = if has_news { usize::MAX } else { host.places() };
            let before = waiting.len();
            while waiting.len() - before < places
                && let Some(hop) = host.waiting.pop()
            {
                self.waiting_for_hosts = self.waiting_for_hosts.saturating_sub(1);
                waiting.push(hop);
            }
            if host.waiting.is_empty() && places > waiting.len() - before {
                wanting_more.extend(core::mem::take(&mut host.wanting_more));
            }
            if host.open.is_empty() && host.waiting.is_empty() && host.wanting_more.is_empty() {
                self.hosts.remove(&remote);
            }
        }
        (waiting, wanting_more)
    }
}

/// Checks in debug builds.
impl HostSlots {
    /// Returns the open connections for mail, with their destinations.
    pub(super) fn connections(&self) -> impl Iterator<Item = (ConnectionId, HopId)> {
        self.open.iter().filter_map(|(&connection, open)| Some((connection, open.hop()?)))
    }

    /// Returns whether a destination waits for a connection to whichever host.
    pub(super) fn is_waiting(&self, hop: HopId) -> bool {
        self.waiting.contains(&hop)
    }

    /// Returns whether a destination is in the queue of an address.
    pub(super) fn is_waiting_for_host(&self, remote: SocketAddr, hop: HopId) -> bool {
        self.hosts.get(&remote).is_some_and(|host| host.waiting.contains(&hop))
    }

    /// Asserts that the counts are correct.
    pub(super) fn check(&self) {
        let last_resorts = self.open.values().filter(|open| open.is_unproven_last_resort()).count();
        assert_eq!(self.last_resorts, last_resorts, "last resorts");
        let retired = self.open.values().filter(|open| open.is_retired).count();
        assert_eq!(self.retired, retired, "connections that end because a limit was lowered");
        let mut open = 0;
        let mut waiting_for_hosts = 0;
        for (remote, host) in &self.hosts {
            let is_here = |connection: &ConnectionId| {
                self.open.get(connection).is_some_and(|open| open.remote == *remote)
            };
            assert!(host.open.iter().all(is_here), "a connection to {remote} is not open");
            let is_on_trial = |connection: &&ConnectionId| {
                self.open.get(connection).is_some_and(|open| !open.is_established)
            };
            let on_trial = host.open.iter().filter(is_on_trial).count();
            assert_eq!(host.on_trial, on_trial, "connections to {remote} on trial");
            let is_retired = |id: &&ConnectionId| self.open.get(id).is_some_and(|open| open.is_retired);
            assert_eq!(
                host.retired,
                host.open.iter().filter(is_retired).count(),
                "those of {remote} that end"
            );
            open += host.open.len();
            waiting_for_hosts += host.waiting.len();
        }
        assert_eq!(
            (open, waiting_for_hosts),
            (self.open.len(), self.waiting_for_hosts),
            "connections, and who waits for hosts"
        );
    }

    /// Returns whether no destination has a connection or waits for one.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.open.is_empty()
            && self.waiting.is_empty()
            && self.waiting_for_hosts == 0
            && self.wanting_more.is_empty()
    }
}

/// Returns the most last resorts, where there are at most `limit` connections and `at_work` destinations that are worked on.
fn last_resort_limit(limit: usize, at_work: usize) -> usize {
    limit.min(at_work).div_ceil(LAST_RESORT_FRACTION)
}

/// Converts a limit to a number of items in memory.
pub(super) fn size(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
