//! Who may connect to where: so many connections are allowed at all, and so many to one address and port. Many destinations
//! may share a host, and none of them knows of the others.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::fair_queue::{FairQueue, Prospect};
use crate::io::ConnectionId;
use crate::next_hop::TlsMode;
use crate::queue::HopId;
use crate::route::Candidate;
use crate::settings::Settings;
use crate::time::Instant;

/// The part of all places that last resorts may have: one in so many.
const LAST_RESORT_FRACTION: usize = 2;

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenConnection {
    pub(super) hop: HopId,
    pub(super) remote: SocketAddr,
    pub(super) tls: TlsMode,
    pub(super) since: Instant,
    /// True if it is a last resort, which gets all the time there is.
    pub(super) is_last_resort: bool,
    is_established: bool,
    /// True if its server has decided mail.
    has_proved: bool,
}

/// How a destination asks for a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotRequest<'a> {
    pub(super) candidate: &'a Candidate,
    /// True if the address is known not to answer: then only one tries it at a time.
    pub(super) is_in_trouble: bool,
    /// True if there is nothing else left to try.
    pub(super) is_last_resort: bool,
}

/// Why a connection is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotRefusal {
    /// There are as many to this address as are allowed, or somebody else is trying it.
    Host,
    /// There are as many last resorts as are allowed.
    LastResorts,
}

/// The connections to all addresses, and who waits for one.
#[derive(Debug)]
pub(super) struct HostSlots {
    /// Most connections, most to one address and port, and most last resorts.
    limit: usize,
    host_limit: usize,
    last_resort_limit: usize,
    open: BTreeMap<ConnectionId, OpenConnection>,
    hosts: BTreeMap<SocketAddr, HostEntry>,
    /// Destinations that cannot go on without a connection, whatever the host.
    waiting: FairQueue<HopId>,
    /// Destinations that would like a further connection, if there were one to be had.
    wanting_more: BTreeSet<HopId>,
    /// How many destinations wait for hosts.
    waiting_for_hosts: usize,
    /// Addresses that may let somebody in.
    changed: BTreeSet<SocketAddr>,
    /// How many connections are last resorts that have not proved to be of use.
    last_resorts: usize,
    /// Addresses that could be connected to, if there were not so many last resorts.
    held_off: FairQueue<SocketAddr>,
}

/// One address and port.
#[derive(Debug, Default)]
struct HostEntry {
    open: BTreeSet<ConnectionId>,
    /// How many connections have not proved to be of use.
    on_trial: usize,
    /// Destinations that cannot go on without a connection.
    waiting: FairQueue<HopId>,
    /// Destinations that would like a further one.
    wanting_more: BTreeSet<HopId>,
    /// True if all who wait are to look again, as something was learned about the address.
    has_news: bool,
}

impl HostSlots {
    /// `at_work` is how many destinations are worked on at most.
    pub(super) fn new(settings: &Settings, at_work: usize) -> Self {
        let limit = size(settings.concurrency);
        Self {
            limit,
            host_limit: size(settings.host_concurrency),
            last_resort_limit: limit.min(at_work).div_ceil(LAST_RESORT_FRACTION),
            open: BTreeMap::new(),
            hosts: BTreeMap::new(),
            waiting: FairQueue::new(),
            wanting_more: BTreeSet::new(),
            waiting_for_hosts: 0,
            changed: BTreeSet::new(),
            last_resorts: 0,
            held_off: FairQueue::new(),
        }
    }

    /// Says whether the host of a candidate can be connected to, whatever the limit of all connections.
    pub(super) fn check_host(&self, request: SlotRequest<'_>) -> Result<(), SlotRefusal> {
        if !self.has_slot_at(request.candidate.remote, request.is_in_trouble) {
            Err(SlotRefusal::Host)
        } else if request.is_last_resort && self.last_resorts >= self.last_resort_limit {
            Err(SlotRefusal::LastResorts)
        } else {
            Ok(())
        }
    }

    /// Takes the place of a connection.
    pub(super) fn open(
        &mut self,
        connection: ConnectionId,
        hop: HopId,
        request: SlotRequest<'_>,
        now: Instant,
    ) {
        let Candidate { remote, tls, .. } = *request.candidate;
        let is_last_resort = request.is_last_resort;
        let host = self.hosts.entry(remote).or_default();
        host.open.insert(connection);
        host.on_trial += 1;
        self.last_resorts += usize::from(is_last_resort);
        let open = OpenConnection {
            hop,
            remote,
            tls,
            since: now,
            is_last_resort,
            is_established: false,
            has_proved: false,
        };
        self.open.insert(connection, open);
    }

    /// A connection has proved to be of use; returns what is known of it if that is news.
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

    /// Gives the place of a connection back.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        let Some(open) = self.open.remove(&connection) else { return };
        if let Some(host) = self.hosts.get_mut(&open.remote) {
            host.open.remove(&connection);
            host.on_trial = host.on_trial.saturating_sub(usize::from(!open.is_established));
        }
        self.changed.insert(open.remote);
        if open.is_last_resort && !open.has_proved {
            self.end_trial_of_last_resort();
        }
    }

    /// Returns how many connections are last resorts of which it is not known whether they are of use.
    pub(super) fn unproven_last_resorts(&self) -> usize {
        self.last_resorts
    }

    /// The server at an address has decided mail.
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

    /// Returns what is known of a connection that is not closed.
    pub(super) fn connection(&self, connection: ConnectionId) -> Option<&OpenConnection> {
        self.open.get(&connection)
    }

    /// Returns the connections to an address.
    pub(super) fn connections_to(&self, remote: SocketAddr) -> impl Iterator<Item = ConnectionId> {
        self.hosts.get(&remote).into_iter().flat_map(|host| host.open.iter().copied())
    }

    /// Returns whether there is a connection to an address that has proved to be of use.
    pub(super) fn is_established(&self, remote: SocketAddr) -> bool {
        self.hosts.get(&remote).is_some_and(|host| host.open.len() > host.on_trial)
    }

    /// Returns whether there may be one connection more.
    pub(super) fn has_slot(&self) -> bool {
        self.open.len() < self.limit
    }

    /// Returns whether there may be one connection more that nobody waits for.
    pub(super) fn has_spare_slot(&self) -> bool {
        self.has_slot() && self.waiting.is_empty()
    }

    /// Returns whether an address can be connected to; one that is in trouble, only if nobody else is trying.
    pub(super) fn has_slot_at(&self, remote: SocketAddr, is_in_trouble: bool) -> bool {
        self.hosts
            .get(&remote)
            .is_none_or(|host| host.open.len() < self.host_limit && (!is_in_trouble || host.on_trial == 0))
    }

    /// Returns whether somebody waits for a connection to an address.
    pub(super) fn has_waiters(&self, remote: SocketAddr) -> bool {
        self.hosts.get(&remote).is_some_and(|host| !host.waiting.is_empty())
    }

    /// Returns whether somebody who cannot go on without waits for the place of this connection.
    pub(super) fn is_needed(&self, connection: ConnectionId) -> bool {
        let is_scarce = !self.has_slot() && !self.waiting.is_empty();
        is_scarce || self.open.get(&connection).is_some_and(|open| self.has_waiters(open.remote))
    }

    /// Puts a destination into the line of those that cannot go on without a connection.
    pub(super) fn wait(&mut self, hop: HopId, prospect: Prospect) {
        self.waiting.push(hop, prospect);
    }

    /// The same, for one that has waited already, for its host.
    pub(super) fn wait_first(&mut self, hop: HopId, prospect: Prospect) {
        self.waiting.push_front(hop, prospect);
    }

    /// Takes whose turn it is, if there is a connection to be had.
    pub(super) fn pop_waiting(&mut self) -> Option<HopId> {
        if self.has_slot() { self.waiting.pop() } else { None }
    }

    /// Returns how many destinations cannot go on without a connection, whatever the host.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// A destination does not wait any more.
    pub(super) fn end_wait(&mut self, hop: HopId) {
        self.waiting.remove(&hop);
    }

    /// Puts a destination into the line of those that wait for an address; or, if there are too many last resorts, for there to
    /// be one less.
    pub(super) fn wait_for_host(
        &mut self,
        remote: SocketAddr,
        hop: HopId,
        prospect: Prospect,
        why: SlotRefusal,
    ) {
        if why == SlotRefusal::LastResorts {
            self.held_off.push(remote, Prospect::Failed);
        }
        self.waiting_for_hosts += 1;
        self.hosts.entry(remote).or_default().waiting.push(hop, prospect);
    }

    /// Returns how many destinations wait for hosts.
    pub(super) fn waiting_for_hosts_count(&self) -> usize {
        self.waiting_for_hosts
    }

    /// A destination does not wait for an address any more.
    pub(super) fn end_wait_for_host(&mut self, remote: SocketAddr, hop: HopId) {
        if self.hosts.get_mut(&remote).is_some_and(|host| host.waiting.remove(&hop)) {
            self.waiting_for_hosts = self.waiting_for_hosts.saturating_sub(1);
        }
        self.changed.insert(remote);
    }

    /// A destination would like a further connection.
    pub(super) fn want_more(&mut self, hop: HopId) {
        self.wanting_more.insert(hop);
    }

    /// A destination would like a further connection to an address.
    pub(super) fn want_more_of_host(&mut self, remote: SocketAddr, hop: HopId) {
        self.hosts.entry(remote).or_default().wanting_more.insert(hop);
    }

    /// A destination would not any more.
    pub(super) fn want_no_more(&mut self, hop: HopId) {
        self.wanting_more.remove(&hop);
    }

    /// Returns how many destinations would like a further connection, whatever the host.
    pub(super) fn wanting_more_count(&self) -> usize {
        self.wanting_more.len()
    }

    /// Takes those that would like a further connection, if there is one to spare.
    pub(super) fn take_wanting_more(&mut self) -> BTreeSet<HopId> {
        if self.has_spare_slot() { core::mem::take(&mut self.wanting_more) } else { BTreeSet::new() }
    }

    /// Something was learned about an address that all who wait for it should know.
    pub(super) fn announce_news(&mut self, remote: SocketAddr) {
        if let Some(host) = self.hosts.get_mut(&remote) {
            host.has_news = true;
            self.changed.insert(remote);
        }
    }

    /// Something was learned about all addresses.
    pub(super) fn announce_news_of_all(&mut self) {
        for (&remote, host) in &mut self.hosts {
            host.has_news = true;
            self.changed.insert(remote);
        }
    }

    /// Somebody who was let in has made no connection.
    pub(super) fn reconsider(&mut self, remote: SocketAddr) {
        if self.has_waiters(remote) {
            self.changed.insert(remote);
        }
    }

    /// Lets in who can be let in by their hosts: those who cannot go on without, and those who would like a further connection.
    pub(super) fn admit(&mut self) -> (Vec<HopId>, Vec<HopId>) {
        // Those who were held off look again, as many of them at a time as there is room for.
        for _ in self.last_resorts..self.last_resort_limit {
            let Some(remote) = self.held_off.pop() else { break };
            self.changed.insert(remote);
        }
        let (mut waiting, mut wanting_more) = (Vec::new(), Vec::new());
        while let Some(remote) = self.changed.pop_first() {
            let Some(host) = self.hosts.get_mut(&remote) else { continue };
            let has_news = core::mem::take(&mut host.has_news);
            let places = if has_news { usize::MAX } else { self.host_limit.saturating_sub(host.open.len()) };
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

/// What is checked in debug builds.
impl HostSlots {
    /// Returns the open connections and whose they are.
    pub(super) fn connections(&self) -> impl Iterator<Item = (ConnectionId, HopId)> {
        self.open.iter().map(|(&connection, open)| (connection, open.hop))
    }

    /// Returns whether a destination is in the line of those that wait for a connection, whatever the host.
    pub(super) fn is_waiting(&self, hop: HopId) -> bool {
        self.waiting.contains(&hop)
    }

    /// Returns whether a destination is in the line of an address.
    pub(super) fn is_waiting_for_host(&self, remote: SocketAddr, hop: HopId) -> bool {
        self.hosts.get(&remote).is_some_and(|host| host.waiting.contains(&hop))
    }

    /// Asserts that what is counted is there.
    pub(super) fn check(&self) {
        assert!(self.open.len() <= self.limit, "there are more connections than are allowed");
        let is_last_resort = |open: &&OpenConnection| open.is_last_resort && !open.has_proved;
        assert_eq!(self.last_resorts, self.open.values().filter(is_last_resort).count(), "last resorts");
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
            open += host.open.len();
            waiting_for_hosts += host.waiting.len();
        }
        assert_eq!(
            (open, waiting_for_hosts),
            (self.open.len(), self.waiting_for_hosts),
            "connections, and who waits for hosts"
        );
    }

    /// Returns whether nobody has a connection, and nobody waits for one.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.open.is_empty()
            && self.waiting.is_empty()
            && self.waiting_for_hosts == 0
            && self.wanting_more.is_empty()
    }
}

/// A limit as a number of things in memory.
pub(super) fn size(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
