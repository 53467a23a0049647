//! How mail goes to a destination: the limits of its connections, what they are made to and from, and what is said on them.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::discriminant;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::destination_pattern::DestinationPattern;
use crate::next_hop::{Host, NextHop, Port, Relay, TlsMode};
use crate::outbox::TRANSACTION_RECIPIENT_LIMIT;
use crate::time::Duration;
use crate::tls::TlsPolicy;

/// How mail goes to one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most connections at once.
    pub concurrency: u32,
    /// Most connections at once to one address and port, whichever destinations they are for.
    pub host_concurrency: u32,
    /// Most transactions that may begin; `None` for no limit.
    pub rate_limit: Option<RateLimit>,
    /// Most recipients of one transaction, up to [`TRANSACTION_RECIPIENT_LIMIT`].
    pub recipients: usize,
    /// Most transactions on one connection; `None` for no limit.
    pub messages: Option<u32>,
    /// The time for which a connection is kept open for further mail when there is none. Zero closes it at once.
    pub idle: Duration,
    /// The ports to try, in this order.
    pub ports: Arc<[Port]>,
    /// The addresses that connections come from.
    pub bind: LocalAddresses,
    /// The addresses that connections are made to.
    pub family: Family,
    /// Most NOOP and RSET that are sent as padding after TLS; 0 for none.
    pub padding: u16,
    /// True if commands may be sent ahead to servers that offer PIPELINING.
    pub pipelining: bool,
    /// What is needed of TLS.
    pub tls: Arc<TlsPolicy>,
}

/// A limit on the transactions that may begin in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The number of transactions, from 1.
    pub transactions: u32,
    /// The time: a second, a minute or an hour.
    pub per: Duration,
}

/// The local addresses that connections come from. If there is none, the executor chooses. A family that has none is not used if the other
/// one has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// For IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// For IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

/// The family of addresses that connections are made to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Both.
    #[default]
    Any,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

/// One thing that a line of the administrator says of destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// [`Policy::concurrency`].
    Concurrency(u32),
    /// [`Policy::host_concurrency`].
    HostConcurrency(u32),
    /// [`Policy::rate_limit`].
    RateLimit(Option<RateLimit>),
    /// [`Policy::recipients`].
    Recipients(usize),
    /// [`Policy::messages`].
    Messages(Option<u32>),
    /// [`Policy::idle`].
    Idle(Duration),
    /// [`Policy::ports`].
    Ports(Arc<[Port]>),
    /// The relay that mail goes to instead; `None` for no relay.
    Via(Option<Relay>),
    /// [`Policy::bind`].
    Bind(LocalAddresses),
    /// [`Policy::family`].
    Family(Family),
    /// [`Policy::padding`].
    Padding(u16),
    /// [`Policy::pipelining`].
    Pipelining(bool),
    /// [`Policy::tls`].
    Tls(Arc<TlsPolicy>),
}

/// A line of the administrator about some destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLine {
    /// The destinations.
    pub destination: DestinationPattern,
    /// What it says of them, each thing once.
    pub choices: Vec<Choice>,
    /// Its line in the configuration file, from 1.
    pub line: u32,
}

/// One thing that a line of the administrator decides of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is decided.
    pub choice: Choice,
    /// The destinations that the line names.
    pub destination: DestinationPattern,
    /// The line in the configuration file, from 1.
    pub line: u32,
}

impl LocalAddresses {
    /// Returns the first address of each family.
    pub fn of(addresses: &[IpAddr]) -> Self {
        let mut local = Self::default();
        for address in addresses {
            match *address {
                IpAddr::V4(address) => local.ipv4 = local.ipv4.or(Some(address)),
                IpAddr::V6(address) => local.ipv6 = local.ipv6.or(Some(address)),
            }
        }
        local
    }

    /// Returns the one that a connection to this address comes from, if the executor does not choose.
    pub fn facing(self, remote: SocketAddr) -> Option<IpAddr> {
        match remote {
            SocketAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            SocketAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        }
    }

    fn can_reach(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.ipv4.is_some() || self.ipv6.is_none(),
            IpAddr::V6(_) => self.ipv6.is_some() || self.ipv4.is_none(),
        }
    }
}

impl Policy {
    /// Returns whether connections to this address are possible.
    pub fn permits(&self, address: IpAddr) -> bool {
        let is_of_family = match self.family {
            Family::Any => true,
            Family::Ipv4 => address.is_ipv4(),
            Family::Ipv6 => address.is_ipv6(),
        };
        is_of_family && self.bind.can_reach(address)
    }

    /// Returns whether connections to any address are possible.
    pub fn permits_some(&self) -> bool {
        self.permits(Ipv4Addr::UNSPECIFIED.into()) || self.permits(Ipv6Addr::UNSPECIFIED.into())
    }

    fn choose(&mut self, choice: &Choice) {
        match choice {
            Choice::Concurrency(count) => self.concurrency = *count,
            Choice::HostConcurrency(count) => self.host_concurrency = *count,
            Choice::RateLimit(limit) => self.rate_limit = *limit,
            Choice::Recipients(count) => self.recipients = *count,
            Choice::Messages(count) => self.messages = *count,
            Choice::Idle(span) => self.idle = *span,
            Choice::Ports(ports) => self.ports = Arc::clone(ports),
            // Where mail goes is decided before: see `Policies::via`.
            Choice::Via(_) => {}
            Choice::Bind(addresses) => self.bind = *addresses,
            Choice::Family(family) => self.family = *family,
            Choice::Padding(limit) => self.padding = *limit,
            Choice::Pipelining(is_allowed) => self.pipelining = *is_allowed,
            Choice::Tls(tls) => self.tls = Arc::clone(tls),
        }
    }

    /// Returns whether candidates are the same under another policy, and what is said to them.
    pub(crate) fn has_same_talk(&self, other: &Self) -> bool {
        let talk = |policy: &Self| {
            let Self { ports, bind, family, padding, pipelining, tls, .. } = policy.clone();
            (ports, bind, family, padding, pipelining, tls)
        };
        talk(self) == talk(other)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            // Large receivers accept this many from one client without pushing back.
            concurrency: 10,
            // Twice that, so that one destination cannot have a host to itself.
            host_concurrency: 20,
            rate_limit: None,
            recipients: TRANSACTION_RECIPIENT_LIMIT,
            messages: None,
            // Long enough for mail that is submitted one by one, and too short to annoy a server.
            idle: Duration::from_secs(5),
            ports: [TlsMode::StartTls, TlsMode::Plain].map(|tls| Port { number: 25, tls }).into(),
            bind: LocalAddresses::default(),
            family: Family::Any,
            // Enough to blur the length of an envelope, and at most ten round trips.
            padding: 10,
            pipelining: true,
            tls: Arc::default(),
        }
    }
}

#[cfg(test)]
impl Policy {
    /// Returns the defaults with one plain port and without padding.
    pub(crate) fn for_tests() -> Self {
        Self { ports: [Port { number: 25, tls: TlsMode::Plain }].into(), padding: 0, ..Self::default() }
    }
}

impl PolicyLine {
    /// Returns the relay that mail goes to by this line.
    fn via(&self) -> Option<&Relay> {
        self.choice_of_relay().flatten()
    }

    /// Returns what the line says of a relay: which one, or that there is to be none. `None` if it says nothing of it.
    fn choice_of_relay(&self) -> Option<Option<&Relay>> {
        self.choices
            .iter()
            .find_map(|choice| if let Choice::Via(relay) = choice { Some(relay.as_ref()) } else { None })
    }

    fn decision(&self, choice: &Choice) -> Decision {
        Decision { choice: choice.clone(), destination: self.destination.clone(), line: self.line }
    }

    /// Returns whether two lines send mail via the same relay, and differ in what they say of it besides.
    pub fn contradicts(&self, other: &Self) -> bool {
        let is_other = |choice: &Choice| {
            other.choices.iter().any(|that| discriminant(that) == discriminant(choice) && that != choice)
        };
        self.via().is_some() && self.via() == other.via() && self.choices.iter().any(is_other)
    }
}

/// The policies of all destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies {
    /// The policy of destinations that no line is about.
    usual: Arc<Policy>,
    /// The lines; those that name destinations more closely come later.
    lines: Arc<[PolicyLine]>,
}

impl Policies {
    /// Returns those that these lines make, with the policy of destinations that no line is about.
    pub fn new(usual: &Policy, lines: &[PolicyLine]) -> Self {
        let mut lines = lines.to_vec();
        // The sort is stable: of lines that name the same, the last one holds.
        lines.sort_by_key(|line| line.destination.specificity());
        Self { usual: Arc::new(usual.clone()), lines: lines.into() }
    }

    /// Returns the next hop that mail goes to which names this one.
    pub fn route(&self, named: NextHop) -> NextHop {
        match self.via(&named) {
            Some((relay, _)) => NextHop::Relay(relay.clone()),
            None => named,
        }
    }

    /// Returns the relay that mail goes to which names this next hop, and the line of the configuration file that says so; `None` if it
    /// goes where it says itself.
    pub fn via(&self, named: &NextHop) -> Option<(&Relay, u32)> {
        let line = self.line_of_relay(named)?;
        Some((line.via()?, line.line))
    }

    /// Returns what a line decides of the relay of mail that names this next hop: which one, or that there is none.
    pub fn decision_of_relay(&self, named: &NextHop) -> Option<Decision> {
        let line = self.line_of_relay(named)?;
        Some(line.decision(&Choice::Via(line.via().cloned())))
    }

    fn line_of_relay(&self, named: &NextHop) -> Option<&PolicyLine> {
        if matches!(named, NextHop::Relay(_)) {
            return None;
        }
        let mut about = self.lines.iter().rev().filter(|line| line.destination.matches(named));
        about.find(|line| line.choice_of_relay().is_some())
    }

    /// Returns whether the MTA-STS policies of any domains count.
    pub fn want_sts(&self) -> bool {
        let of_lines = self.lines.iter().flat_map(|line| &line.choices);
        let wants =
            |choice: &Choice| if let Choice::Tls(tls) = choice { tls.level.wants_sts() } else { false };
        self.usual.tls.level.wants_sts() || of_lines.into_iter().any(wants)
    }

    /// Returns the policy of a next hop, as long as no host of it is known.
    pub fn of_hop(&self, next_hop: &NextHop) -> Arc<Policy> {
        self.merged(next_hop, None)
    }

    /// Returns the policy of a next hop while its mail goes to this host.
    pub fn at(&self, next_hop: &NextHop, host: &Host) -> Arc<Policy> {
        self.merged(next_hop, Some(host))
    }

    /// Returns what lines decide of a next hop while its mail goes to this host, or as long as none is known. The rest is as usual. Whether
    /// mail goes to a relay is decided before, by [`decision_of_relay`](Self::decision_of_relay).
    pub fn decisions(&self, next_hop: &NextHop, host: Option<&Host>) -> Vec<Decision> {
        let mut decisions: Vec<Decision> = Vec::new();
        for (line, choice) in self.choices(next_hop, host) {
            decisions.retain(|known| discriminant(&known.choice) != discriminant(choice));
            if !matches!(choice, Choice::Via(_)) {
                decisions.push(line.decision(choice));
            }
        }
        decisions
    }

    fn merged(&self, next_hop: &NextHop, host: Option<&Host>) -> Arc<Policy> {
        let mut policy = Arc::clone(&self.usual);
        for (_, choice) in self.choices(next_hop, host) {
            Arc::make_mut(&mut policy).choose(choice);
        }
        policy
    }

    /// Returns what lines say of a next hop. What comes later wins.
    fn choices(
        &self,
        next_hop: &NextHop,
        host: Option<&Host>,
    ) -> impl Iterator<Item = (&PolicyLine, &Choice)> {
        let is_about = move |line: &PolicyLine| match host {
            Some(host) => line.destination.matches_at(next_hop, host),
            None => line.destination.matches(next_hop),
        };
        // What a line says besides of the relay that it names is said of that relay.
        let leads_here = move |line: &PolicyLine| match (next_hop, line.via()) {
            (NextHop::Relay(relay), Some(via)) => relay == via,
            _ => false,
        };
        let lines = self.lines.iter().filter(move |line| is_about(line) || leads_here(line));
        // The administrator has named a relay, and what is needed there is said of it by name.
        let is_meant = move |line: &PolicyLine, choice: &Choice| {
            !matches!(choice, Choice::Tls(_))
                || !matches!((next_hop, &line.destination), (NextHop::Relay(_), DestinationPattern::All))
        };
        lines
            .flat_map(|line| line.choices.iter().map(move |choice| (line, choice)))
            .filter(move |(line, choice)| is_meant(line, choice))
    }
}

#[cfg(test)]
mod tests;
