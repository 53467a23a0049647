//! Servers that are known not to answer, or not to cope with what they offer, so that each delivery need not find out by itself.
//!
//! A server is never left out for being in here. A candidate in trouble is only tried after all others, and by one connection at
//! a time. The result of that one counts for all deliveries that have waited for it.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use core::net::SocketAddr;

use crate::attempt::Setback;
use crate::expiring_map::ExpiringMap;
use crate::next_hop::{Credentials, Host, TlsMode};
use crate::route::Candidate;
use crate::sasl::Mechanism;
use crate::time::{Duration, Instant};
use crate::tls::Groups;

/// Most troubles that are remembered.
const TROUBLES_LIMIT: usize = 1024;
/// How long a refused connection is remembered at first. Finding out again costs next to nothing.
const REFUSED_SPAN: Duration = Duration::from_secs(60);
/// How long silence is remembered at first. Finding out again costs a whole timeout.
const SILENT_SPAN: Duration = Duration::from_secs(5 * 60);
/// How long it is remembered that a server cannot cope with pipelining.
const NO_PIPELINING_SPAN: Duration = Duration::from_secs(60 * 60);
/// How long it is remembered which mechanism a relay accepts.
const MECHANISM_SPAN: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it is remembered that a server cannot cope with a large first message of the TLS handshake. Finding out again may cost a
/// whole timeout.
const CLASSIC_GROUPS_SPAN: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest time for which a trouble is remembered when it occurs again and again.
const LONGEST_SPAN: Duration = Duration::from_secs(15 * 60);

/// The trouble with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection failed at once.
    Refused,
    /// The connection timed out.
    Unreachable,
    /// It accepted the connection, but never sent a greeting, or nothing after that.
    NoGreeting,
    /// It accepted the connection, but the TLS handshake never finished. Without TLS it may do better.
    TlsStalled,
}

impl Trouble {
    fn span(self) -> Duration {
        match self {
            Self::Refused => REFUSED_SPAN,
            Self::Unreachable | Self::NoGreeting | Self::TlsStalled => SILENT_SPAN,
        }
    }
}

/// An address and port, and the kind of TLS if the trouble is only with that.
type TroubleKey = (SocketAddr, Option<TlsMode>);

/// The result of a failed attempt.
#[derive(Debug)]
pub(crate) struct KnownTrouble {
    pub(crate) trouble: Trouble,
    pub(crate) setback: Setback,
    /// When the attempt began that has failed last.
    pub(crate) began: Instant,
    /// The time until which it counts.
    pub(crate) until: Instant,
    /// The time for which it counts. When it occurs again, this doubles.
    span: Duration,
}

/// The credentials of one user at one relay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Login {
    host: Host,
    port: u16,
    user: Box<str>,
}

impl Login {
    pub(crate) fn new(candidate: &Candidate, credentials: &Credentials) -> Self {
        let (host, port) = (candidate.host.clone(), candidate.remote.port());
        Self { host, port, user: credentials.user.clone() }
    }
}

/// Knowledge of servers that is shared by all deliveries.
#[derive(Debug)]
pub(crate) struct Reachability {
    troubles: ExpiringMap<TroubleKey, KnownTrouble>,
    /// Servers that were silent for so long that others got the slots of their connections. That is not a failure.
    slow: ExpiringMap<SocketAddr, ()>,
    /// Servers that get one command at a time.
    no_pipelining: ExpiringMap<SocketAddr, ()>,
    /// Servers that are offered classic groups of key exchange alone.
    classic_groups: ExpiringMap<SocketAddr, ()>,
    /// The mechanism by which each relay has accepted credentials. It may not be the first that the relay offers.
    mechanisms: ExpiringMap<Login, Mechanism>,
}

impl Reachability {
    pub(crate) const fn new() -> Self {
        Self {
            troubles: ExpiringMap::new(TROUBLES_LIMIT),
            slow: ExpiringMap::new(TROUBLES_LIMIT),
            no_pipelining: ExpiringMap::new(TROUBLES_LIMIT),
            classic_groups: ExpiringMap::new(TROUBLES_LIMIT),
            mechanisms: ExpiringMap::new(TROUBLES_LIMIT),
        }
    }

    /// Returns whether a candidate is known not to answer, or to be slow.
    pub(crate) fn is_in_trouble(&self, candidate: &Candidate, now: Instant) -> bool {
        self.known(candidate, now).is_some() || self.is_slow(candidate.remote, now)
    }

    /// Returns what has failed at a candidate, and still counts.
    pub(crate) fn trouble_with(&self, candidate: &Candidate, now: Instant) -> Option<&KnownTrouble> {
        self.known(candidate, now)
    }

    /// Returns whether a server was silent for so long that others got its slots.
    pub(crate) fn is_slow(&self, remote: SocketAddr, now: Instant) -> bool {
        self.slow.get(&remote, now).is_some()
    }

    /// Returns how many addresses and ports are known not to answer, or to be slow.
    pub(crate) fn hosts_in_trouble(&self, now: Instant) -> usize {
        let troubles = self.troubles.keys(now).map(|(remote, _)| remote);
        troubles.chain(self.slow.keys(now)).collect::<BTreeSet<_>>().len()
    }

    /// Returns at most `limit` addresses and ports that are known not to answer, each with what happened there, and for how long it
    /// counts.
    pub(crate) fn troubles(
        &self,
        now: Instant,
        limit: usize,
    ) -> impl Iterator<Item = (SocketAddr, &Setback, Duration)> {
        let counting = self.troubles.iter(now).filter(move |(_, known)| known.until > now);
        counting.take(limit).map(move |((remote, _), known)| {
            (*remote, &known.setback, known.until.saturating_duration_since(now))
        })
    }

    /// Returns the trouble of an attempt that began at `since` or later, whichever delivery made it.
    pub(crate) fn failure_since(
        &self,
        candidate: &Candidate,
        since: Instant,
        now: Instant,
    ) -> Option<&KnownTrouble> {
        self.known(candidate, now).filter(|attempt| attempt.began >= since)
    }

    /// Records the failure of an attempt that began at `began`.
    pub(crate) fn record_failure(
        &mut self,
        candidate: &Candidate,
        began: Instant,
        trouble: Trouble,
        setback: Setback,
        now: Instant,
    ) {
        let key = (candidate.remote, (trouble == Trouble::TlsStalled).then_some(candidate.tls));
        let before = self.troubles.get(&key, now);
        let span = before.map_or(trouble.span(), |before| {
            // Attempts that were under way together are one trouble.
            let again =
                if began > before.began && now >= before.until { before.span * 2 } else { before.span };
            again.max(trouble.span()).min(LONGEST_SPAN)
        });
        let until = now + span;
        let attempt = KnownTrouble { trouble, setback, began, until, span };
        // It is remembered for longer than it counts, so that a recurrence is recognized.
        self.troubles.keep(key, attempt, until + LONGEST_SPAN, now);
    }

    /// Records that a connection to an address was accepted and answered. Returns whether that is news.
    pub(crate) fn note_answer(&mut self, remote: SocketAddr) -> bool {
        self.troubles.forget(&(remote, None))
    }

    /// Records that a session of this kind was negotiated. Returns whether that is news.
    pub(crate) fn note_agreement(&mut self, remote: SocketAddr, tls: TlsMode) -> bool {
        self.troubles.forget(&(remote, Some(tls))) | self.note_answer(remote)
    }

    /// Records that a server was silent for so long that others got the slot of its connection.
    pub(crate) fn note_slowness(&mut self, remote: SocketAddr, now: Instant) {
        self.slow.keep(remote, (), now + SILENT_SPAN, now);
    }

    /// Returns whether any server is known to be slow.
    pub(crate) fn knows_slow_ones(&self) -> bool {
        !self.slow.is_empty()
    }

    /// Records that a server has decided mail. Returns whether that is news.
    pub(crate) fn note_verdict(&mut self, remote: SocketAddr) -> bool {
        self.slow.forget(&remote)
    }

    /// Returns whether a server gets one command at a time, whatever it offers.
    pub(crate) fn no_pipelining(&self, remote: SocketAddr, now: Instant) -> bool {
        self.no_pipelining.get(&remote, now).is_some()
    }

    /// Records that a server could not cope with batches of commands.
    pub(crate) fn note_no_pipelining(&mut self, remote: SocketAddr, now: Instant) {
        self.no_pipelining.keep(remote, (), now + NO_PIPELINING_SPAN, now);
    }

    /// Returns the groups of key exchange that a server is offered.
    pub(crate) fn groups(&self, remote: SocketAddr, now: Instant) -> Groups {
        if self.classic_groups.get(&remote, now).is_some() { Groups::Classic } else { Groups::All }
    }

    /// Records that a server did not answer the first message of the TLS handshake with all groups.
    pub(crate) fn note_classic_groups(&mut self, remote: SocketAddr, now: Instant) {
        self.classic_groups.keep(remote, (), now + CLASSIC_GROUPS_SPAN, now);
    }

    /// Returns the mechanism by which these credentials were last accepted.
    pub(crate) fn mechanism(&self, login: &Login, now: Instant) -> Option<Mechanism> {
        self.mechanisms.get(login, now).copied()
    }

    /// Records the mechanism by which credentials were accepted, or, with `None`, that they were not.
    pub(crate) fn record_login(&mut self, login: Login, mechanism: Option<Mechanism>, now: Instant) {
        match mechanism {
            Some(mechanism) => self.mechanisms.keep(login, mechanism, now + MECHANISM_SPAN, now),
            None => drop(self.mechanisms.forget(&login)),
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.troubles.clear();
        self.slow.clear();
        self.no_pipelining.clear();
        self.classic_groups.clear();
        self.mechanisms.clear();
    }

    fn known(&self, candidate: &Candidate, now: Instant) -> Option<&KnownTrouble> {
        [None, Some(candidate.tls)]
            .into_iter()
            .filter_map(|tls| self.troubles.get(&(candidate.remote, tls), now))
            .find(|attempt| attempt.until > now)
    }
}

#[cfg(test)]
mod tests;
