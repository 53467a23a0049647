//! Who may connect to which address: many destinations may share one host, and none of them knows of the others.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::io::ConnectionId;
use crate::next_hop::TlsMode;
use crate::queue::HopId;
use crate::route::Candidate;
use crate::time::Instant;
use crate::turns::{Prospect, Turns};

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) remote: SocketAddr,
    pub(super) tls: TlsMode,
    pub(super) since: Instant,
    /// Whether it is a last resort, which gets all the time there is.
    pub(super) is_patient: bool,
    is_established: bool,
    /// Whether its server has decided mail.
    has_proved: bool,
}

/// The connections to all addresses, and who waits for one.
#[derive(Debug)]
pub(super) struct Gates {
    open: BTreeMap<ConnectionId, Open>,
    gates: BTreeMap<SocketAddr, Gate>,
    /// For which address a delivery waits.
    awaited: BTreeMap<HopId, SocketAddr>,
    /// Addresses that may let somebody in.
    changed: BTreeSet<SocketAddr>,
    /// How many connections are last resorts that have not proved to be of use.
    patient: usize,
    /// Addresses that could be connected to, if there were not so many last resorts.
    held_off: Turns<SocketAddr>,
}

/// One address and port.
#[derive(Debug, Default)]
struct Gate {
    open: BTreeSet<ConnectionId>,
    /// How many connections have not proved to be of use.
    on_trial: usize,
    /// Deliveries that cannot go on without a connection.
    waiting: Turns<HopId>,
    /// Deliveries that would like a further one.
    crowded: BTreeSet<HopId>,
    /// Whether all who wait are to look again, as something was learned about the address.
    has_news: bool,
}

impl Gates {
    pub(super) const fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            gates: BTreeMap::new(),
            awaited: BTreeMap::new(),
            changed: BTreeSet::new(),
            patient: 0,
            held_off: Turns::new(),
        }
    }

    pub(super) fn opened(
        &mut self,
        connection: ConnectionId,
        candidate: &Candidate,
        is_patient: bool,
        now: Instant,
    ) {
        let Candidate { remote, tls, .. } = *candidate;
        let gate = self.gates.entry(remote).or_default();
        gate.open.insert(connection);
        gate.on_trial += 1;
        self.patient += usize::from(is_patient);
        let open = Open { remote, tls, since: now, is_patient, is_established: false, has_proved: false };
        self.open.insert(connection, open);
    }

    /// A connection has proved to be of use; what is known of it if that is news.
    pub(super) fn established(&mut self, connection: ConnectionId) -> Option<Open> {
        let open = self.open.get_mut(&connection).filter(|open| !open.is_established)?;
        open.is_established = true;
        let open = *open;
        if let Some(gate) = self.gates.get_mut(&open.remote) {
            gate.on_trial = gate.on_trial.saturating_sub(1);
        }
        self.changed.insert(open.remote);
        Some(open)
    }

    pub(super) fn closed(&mut self, connection: ConnectionId) {
        let Some(open) = self.open.remove(&connection) else { return };
        if let Some(gate) = self.gates.get_mut(&open.remote) {
            gate.open.remove(&connection);
            gate.on_trial = gate.on_trial.saturating_sub(usize::from(!open.is_established));
        }
        self.changed.insert(open.remote);
        if open.is_patient && !open.has_proved {
            self.end_patience();
        }
    }

    /// How many connections are last resorts of which it is not known whether they are of use.
    pub(super) fn patient_count(&self) -> usize {
        self.patient
    }

    /// The server at an address has decided mail.
    pub(super) fn prove_useful(&mut self, remote: SocketAddr) {
        let connections: Vec<ConnectionId> = self.connections_to(remote).collect();
        for connection in connections {
            let Some(open) = self.open.get_mut(&connection) else { continue };
            if !core::mem::replace(&mut open.has_proved, true) && open.is_patient {
                self.end_patience();
            }
        }
    }

    fn end_patience(&mut self) {
        self.patient = self.patient.saturating_sub(1);
    }

    /// There is room for so many more last resorts: those who were held off look again, as many of them at a time.
    pub(super) fn admit_held_off(&mut self, room: usize) {
        for _ in 0..room {
            let Some(remote) = self.held_off.pop() else { break };
            self.changed.insert(remote);
        }
    }

    pub(super) fn connection(&self, connection: ConnectionId) -> Option<&Open> {
        self.open.get(&connection)
    }

    /// The connections to an address.
    pub(super) fn connections_to(&self, remote: SocketAddr) -> impl Iterator<Item = ConnectionId> {
        self.gates.get(&remote).into_iter().flat_map(|gate| gate.open.iter().copied())
    }

    /// Whether there is a connection to an address that has proved to be of use.
    pub(super) fn is_established(&self, remote: SocketAddr) -> bool {
        self.gates.get(&remote).is_some_and(|gate| gate.open.len() > gate.on_trial)
    }

    /// Whether a connection to an address can be made, where `limit` are allowed; to one that is in trouble, only if
    /// nobody else is trying.
    pub(super) fn is_open(&self, remote: SocketAddr, limit: usize, is_in_trouble: bool) -> bool {
        self.gates
            .get(&remote)
            .is_none_or(|gate| gate.open.len() < limit && (!is_in_trouble || gate.on_trial == 0))
    }

    /// Whether somebody waits for a connection to an address.
    pub(super) fn is_awaited(&self, remote: SocketAddr) -> bool {
        self.gates.get(&remote).is_some_and(|gate| !gate.waiting.is_empty())
    }

    /// Whether somebody waits for a connection to where this one leads.
    pub(super) fn is_needed(&self, connection: ConnectionId) -> bool {
        self.open.get(&connection).is_some_and(|open| self.is_awaited(open.remote))
    }

    /// Whether a delivery waits for an address.
    pub(super) fn is_waiting(&self, hop: HopId) -> bool {
        self.awaited.contains_key(&hop)
    }

    /// A delivery waits for a connection to an address; or, if it is held off, for others to have one less.
    pub(super) fn wait(&mut self, remote: SocketAddr, hop: HopId, prospect: Prospect, is_held_off: bool) {
        self.forget(hop);
        if is_held_off {
            self.held_off.push(remote, Prospect::Failed);
        }
        self.awaited.insert(hop, remote);
        self.gates.entry(remote).or_default().waiting.push(hop, prospect);
    }

    /// A delivery would like a further connection to an address.
    pub(super) fn crowd(&mut self, remote: SocketAddr, hop: HopId) {
        self.gates.entry(remote).or_default().crowded.insert(hop);
    }

    /// How many deliveries wait.
    pub(super) fn waiting_count(&self) -> usize {
        self.awaited.len()
    }

    /// A delivery does not wait any more.
    pub(super) fn forget(&mut self, hop: HopId) {
        let Some(remote) = self.awaited.remove(&hop) else { return };
        if let Some(gate) = self.gates.get_mut(&remote) {
            gate.waiting.remove(&hop);
        }
        self.changed.insert(remote);
    }

    /// Something was learned about an address that all who wait for it should know.
    pub(super) fn announce_news(&mut self, remote: SocketAddr) {
        if let Some(gate) = self.gates.get_mut(&remote) {
            gate.has_news = true;
            self.changed.insert(remote);
        }
    }

    /// Something was learned about all addresses.
    pub(super) fn all_have_news(&mut self) {
        for (&remote, gate) in &mut self.gates {
            gate.has_news = true;
            self.changed.insert(remote);
        }
    }

    /// Somebody who was let in has made no connection.
    pub(super) fn reconsider(&mut self, remote: SocketAddr) {
        if self.is_awaited(remote) {
            self.changed.insert(remote);
        }
    }

    /// Lets in who can be let in, where `limit` connections to an address are allowed: those who cannot go on without,
    /// and those who would like a further one.
    pub(super) fn let_in(&mut self, limit: usize) -> (Vec<HopId>, Vec<HopId>) {
        let (mut waiting, mut crowded) = (Vec::new(), Vec::new());
        while let Some(remote) = self.changed.pop_first() {
            let Some(gate) = self.gates.get_mut(&remote) else { continue };
            let has_news = core::mem::take(&mut gate.has_news);
            let places = if has_news { usize::MAX } else { limit.saturating_sub(gate.open.len()) };
            let before = waiting.len();
            while waiting.len() - before < places
                && let Some(hop) = gate.waiting.pop()
            {
                self.awaited.remove(&hop);
                waiting.push(hop);
            }
            if gate.waiting.is_empty() && places > waiting.len() - before {
                crowded.extend(core::mem::take(&mut gate.crowded));
            }
            if gate.open.is_empty() && gate.waiting.is_empty() && gate.crowded.is_empty() {
                self.gates.remove(&remote);
            }
        }
        (waiting, crowded)
    }
}
