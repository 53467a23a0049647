//! Decides which servers to try for a next hop, and in which order.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use crate::address::Domain;
use crate::next_hop::{Host, NextHop, Port, TlsMode};
use crate::policy::{Policies, Policy};
use crate::rng::Rng;
use crate::tls::{Lack, Need, TlsPlan};

/// One way to reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The server, by the name under which it was found.
    pub host: Host,
    /// The address and port to connect to.
    pub remote: SocketAddr,
    /// How the connection is protected.
    pub tls: TlsMode,
    /// True if the candidate after this one differs only in that it needs no TLS.
    pub plain_twin_follows: bool,
    /// How mail goes there.
    pub policy: Arc<Policy>,
    /// What must hold of TLS there, and the terms on which it begins.
    pub plan: Arc<TlsPlan>,
}

impl Candidate {
    /// Goes by other policies, unless it is no candidate by them or is talked to otherwise. Returns whether it does.
    pub(crate) fn reconfigure(&mut self, next_hop: &NextHop, policies: &Policies) -> bool {
        let policy = policies.at(next_hop, &self.host);
        let is_same = policy.has_same_talk(&self.policy);
        if is_same {
            self.policy = policy;
        }
        is_same
    }
}

/// Returns the hosts of MX records in the order in which they are to be tried (RFC 5321 section 5.1).
///
/// The most preferred hosts come first, equally preferred ones in random order. If this host itself is among the most preferred
/// ones, it is used like any other, because bounces to local users travel by SMTP to the local server. If better hosts exist,
/// this host is a backup. Then it is left out, and so are all hosts that are no better, since otherwise mail would loop.
pub fn mx_hosts(records: &[(u16, Domain)], own_name: &str, rng: &mut Rng) -> Vec<Domain> {
    let best = records.iter().map(|&(preference, _)| preference).min();
    let own = records
        .iter()
        .filter(|(_, host)| host.as_str().eq_ignore_ascii_case(own_name.trim_end_matches('.')))
        .map(|&(preference, _)| preference)
        .min()
        .filter(|&preference| Some(preference) != best);
    let mut usable: Vec<&(u16, Domain)> =
        records.iter().filter(|&&(preference, _)| own.is_none_or(|own| preference < own)).collect();
    // A stable sort of shuffled records leaves equals in random order.
    rng.shuffle(&mut usable);
    usable.sort_by_key(|&&(preference, _)| preference);
    let mut hosts: Vec<Domain> = Vec::new();
    for (_, host) in usable {
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    hosts
}

/// Returns the ports that are protected as is needed, each once.
pub fn usable_ports(ports: &[Port], need: Need) -> Vec<Port> {
    let mut usable: Vec<Port> = Vec::new();
    for &port in ports {
        let port = match (need, port.tls) {
            (Need::Never, TlsMode::Implicit) => continue,
            (Need::Never, TlsMode::StartTls) => Port { tls: TlsMode::Plain, ..port },
            (Need::Required(_), TlsMode::Plain) if need.enforces(Lack::Tls) => continue,
            (Need::Never | Need::Optional | Need::Required(_), _) => port,
        };
        if need == Need::Optional || !usable.contains(&port) {
            usable.push(port);
        }
    }
    usable
}

/// Returns the candidates of one host: each port in turn, and on it each address.
pub fn candidates(
    host: &Host,
    addresses: &[IpAddr],
    ports: &[Port],
    policy: &Arc<Policy>,
    plan: &Arc<TlsPlan>,
) -> Vec<Candidate> {
    let ports = usable_ports(ports, plan.need);
    let mut candidates: Vec<Candidate> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let plain_twin = Port { number: port.number, tls: TlsMode::Plain };
        let plain_twin_follows = port.tls == TlsMode::StartTls && ports.get(index + 1) == Some(&plain_twin);
        candidates.extend(addresses.iter().map(|&address| Candidate {
            host: host.clone(),
            remote: SocketAddr::new(address, port.number),
            tls: port.tls,
            plain_twin_follows,
            policy: Arc::clone(policy),
            plan: Arc::clone(plan),
        }));
    }
    candidates
}

#[cfg(test)]
mod tests;
