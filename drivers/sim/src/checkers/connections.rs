//! Never more connections than configured, overall, to an address, and to a destination.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use cmail_delivery::io::Purpose;

use super::Checker;
use crate::facts::{Fact, Link, Scene};

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// The open connections for mail, with their addresses and hosts.
    open: BTreeMap<Link, (SocketAddr, Option<usize>)>,
    /// For each host, the hosts that are counted together with it, and for how many destinations. This never changes.
    groups: HashMap<usize, (Vec<usize>, usize)>,
}

impl Checker for Connections {
    fn name(&self) -> &'static str {
        "the limits of connections are kept"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Connecting { link, remote, purpose: Purpose::Smtp } => {
                let host = scene.map.host_at(remote.ip());
                self.open.insert(link, (remote, host));
                self.check(scene, remote, host)
            }
            Fact::Gone { link, .. } => {
                self.open.remove(&link);
                Ok(())
            }
            Fact::Stopped { .. } => {
                self.open.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Connections {
    fn check(&mut self, scene: &Scene<'_>, remote: SocketAddr, host: Option<usize>) -> Result<(), String> {
        // What is open from before a limit was lowered stays until it comes to rest, but nothing is added to it.
        let limit_of = |limit| scene.limit_since(scene.said_since, limit);
        let limit = limit_of(|settings| settings.concurrency);
        if self.open.len() > limit {
            return Err(format!("{} connections are open, {limit} are allowed", self.open.len()));
        }
        let count = self.open.values().filter(|(other, _)| *other == remote).count();
        let allowed = limit_of(|settings| settings.policy.host_concurrency);
        if count > allowed {
            return Err(format!("{count} connections are open to {remote}, {allowed} are allowed"));
        }
        let Some(host) = host else { return Ok(()) };
        let (hosts, hops) = self.groups.entry(host).or_insert_with(|| group(scene, host));
        let of_hosts = |open: &&(SocketAddr, Option<usize>)| open.1.is_some_and(|open| hosts.contains(&open));
        let count = self.open.values().filter(of_hosts).count();
        let per_hop = limit_of(|settings| settings.policy.concurrency);
        let allowed = per_hop.saturating_mul((*hops).max(1));
        if count > allowed {
            return Err(format!("{count} connections are open to one destination, {allowed} are allowed"));
        }
        Ok(())
    }
}

fn group(scene: &Scene<'_>, host: usize) -> (Vec<usize>, usize) {
    let hops = scene.map.hops_of_host(host);
    // A destination may have several hosts. If this one belongs to no other, all hosts of its destination are counted.
    let hosts = match hops.first() {
        Some(hop) if hops.len() == 1 => (0..scene.map.hosts.len())
            .filter(|&other| scene.map.hops_of_host(other).iter().eq([hop]))
            .collect(),
        _ => vec![host],
    };
    (hosts, hops.len())
}
