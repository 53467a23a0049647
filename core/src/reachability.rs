//! Which servers are known not to answer, or not to cope with what they offer, so that not everybody has to find it out
//! for himself.
//!
//! Nothing is ever left out for being in here: a candidate in trouble is merely tried after all others, and by one
//! connection at a time. What that one meets with counts for everybody who has been waiting for it.

use alloc::boxed::Box;
use core::net::SocketAddr;

use crate::attempt::Setback;
use crate::expiring_map::ExpiringMap;
use crate::next_hop::{Credentials, Host, TlsMode};
use crate::route::Candidate;
use crate::sasl::Mechanism;
use crate::time::{Duration, Instant};

/// Most troubles that are remembered.
const TROUBLES_LIMIT: usize = 1024;
/// How long it is remembered at first that nobody listens: to find out anew costs next to nothing.
const REFUSED_SPAN: Duration = Duration::from_secs(60);
/// How long it is remembered at first that nobody answers: to find out anew costs a whole timeout.
const SILENT_SPAN: Duration = Duration::from_secs(5 * 60);
/// How long it is remembered that a server cannot cope with what it offers.
const NO_PIPELINING_SPAN: Duration = Duration::from_secs(60 * 60);
/// How long it is remembered by which mechanism a relay takes credentials.
const MECHANISM_SPAN: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest that a trouble is remembered when it occurs again and again.
const LONGEST_SPAN: Duration = Duration::from_secs(15 * 60);

/// What is wrong with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It could not be connected to, as was known soon.
    Refused,
    /// It did not take the connection in time.
    Unreachable,
    /// It took the connection, and never said its greeting, or nothing after that.
    NoGreeting,
    /// It took the connection, and TLS never came about. Without TLS it may do better.
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

/// An address and port, and the kind of TLS if the trouble is with that alone.
type TroubleKey = (SocketAddr, Option<TlsMode>);

/// What an attempt met with.
#[derive(Debug)]
pub(crate) struct KnownTrouble {
    pub(crate) trouble: Trouble,
    pub(crate) setback: Setback,
    began: Instant,
    /// Until then it counts.
    until: Instant,
    /// For how long it counts. When it occurs again, it is for twice as long.
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

/// The servers that are known not to answer.
#[derive(Debug)]
pub(crate) struct Reachability {
    troubles: ExpiringMap<TroubleKey, KnownTrouble>,
    /// Servers that were silent for so long that others got the places of their connections. Nothing has failed there.
    slow: ExpiringMap<SocketAddr, ()>,
    /// Servers that get one command at a time.
    no_pipelining: ExpiringMap<SocketAddr, ()>,
    /// By which mechanism relays have taken credentials. It may not be the first that they offer.
    mechanisms: ExpiringMap<Login, Mechanism>,
}

impl Reachability {
    pub(crate) const fn new() -> Self {
        Self {
            troubles: ExpiringMap::new(TROUBLES_LIMIT),
            slow: ExpiringMap::new(TROUBLES_LIMIT),
            no_pipelining: ExpiringMap::new(TROUBLES_LIMIT),
            mechanisms: ExpiringMap::new(TROUBLES_LIMIT),
        }
    }

    /// Returns whether a candidate is known not to answer, or to take its time.
    pub(crate) fn is_in_trouble(&self, candidate: &Candidate, now: Instant) -> bool {
        self.known(candidate, now).is_some() || self.slow.get(&candidate.remote, now).is_some()
    }

    /// Returns what an attempt met with that began at `since` or later, by whomever it was made.
    pub(crate) fn failure_since(
        &self,
        candidate: &Candidate,
        since: Instant,
        now: Instant,
    ) -> Option<&KnownTrouble> {
        self.known(candidate, now).filter(|attempt| attempt.began >= since)
    }

    /// An attempt that began at `began` has failed.
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
        // It is known for longer than it counts, so that it is recognized when it occurs again.
        self.troubles.keep(key, attempt, until + LONGEST_SPAN, now);
    }

    /// A connection to an address was taken and answered; whether that is news.
    pub(crate) fn note_answer(&mut self, remote: SocketAddr) -> bool {
        self.troubles.forget(&(remote, None))
    }

    /// A conversation of this kind was agreed on; whether that is news.
    pub(crate) fn note_agreement(&mut self, remote: SocketAddr, tls: TlsMode) -> bool {
        self.troubles.forget(&(remote, Some(tls))) | self.note_answer(remote)
    }

    /// A server has been silent for so long that others got the place of its connection.
    pub(crate) fn note_slowness(&mut self, remote: SocketAddr, now: Instant) {
        self.slow.keep(remote, (), now + SILENT_SPAN, now);
    }

    /// Returns whether any server is known to take its time.
    pub(crate) fn knows_slow_ones(&self) -> bool {
        !self.slow.is_empty()
    }

    /// A server has decided mail; whether that is news.
    pub(crate) fn note_verdict(&mut self, remote: SocketAddr) -> bool {
        self.slow.forget(&remote)
    }

    /// Returns whether a server gets no batches of commands, whatever it offers.
    pub(crate) fn no_pipelining(&self, remote: SocketAddr, now: Instant) -> bool {
        self.no_pipelining.get(&remote, now).is_some()
    }

    /// A server could not cope with batches of commands.
    pub(crate) fn note_no_pipelining(&mut self, remote: SocketAddr, now: Instant) {
        self.no_pipelining.keep(remote, (), now + NO_PIPELINING_SPAN, now);
    }

    /// By which mechanism these credentials were taken the last time, if they were.
    pub(crate) fn mechanism(&self, login: &Login, now: Instant) -> Option<Mechanism> {
        self.mechanisms.get(login, now).copied()
    }

    /// Takes note of the mechanism by which credentials were taken, or, with nothing, that they were not.
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
