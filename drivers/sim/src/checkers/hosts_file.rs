//! `/etc/hosts` applies to the names of relays, in its version at the beginning of the pass, and to nothing else.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use cmail_delivery::address::Domain;
use cmail_delivery::io::Purpose;
use cmail_delivery::next_hop::{Host, Relay};
use cmail_delivery::settings::Hosts;
use cmail_delivery::time::{Duration, Instant};

use super::Checker;
use crate::facts::{Fact, Link, Scene};

/// After this time, no lookup that was begun before is under way.
const LOOKUP_SPAN: Duration = Duration::from_secs(120);

/// Time after which a pass that has lost its connection goes on.
const GOING_ON_SPAN: Duration = Duration::from_secs(1);

/// The name of a relay.
#[derive(Debug)]
struct Name {
    name: Domain,
    /// Its addresses by the DNS. They never change.
    by_dns: Vec<IpAddr>,
    /// All addresses that the file has ever listed.
    by_file: BTreeSet<IpAddr>,
    /// The addresses that the file lists now.
    current: Vec<IpAddr>,
    /// The addresses listed before, in the pass that may still be running.
    stale: BTreeSet<IpAddr>,
}

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct HostsFile {
    names: Vec<Name>,
    /// The name of each address. It never changes.
    owners: HashMap<IpAddr, Option<usize>>,
    /// The open connections for mail.
    open: HashSet<Link>,
    /// The time at which the last of them was closed.
    emptied_at: Instant,
    read_at: Instant,
    has_stale: bool,
}

impl Checker for HostsFile {
    fn name(&self) -> &'static str {
        "the hosts file is for handoff names"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Started { .. } => {
                self.forget();
                self.find_names(scene);
            }
            Fact::HostsRead { file } => self.read(scene, file),
            Fact::Connecting { link, remote, purpose: Purpose::Smtp } => {
                let address = remote.ip();
                let owner = self.owner(address);
                self.open.insert(link);
                return self.check(scene, link, address, owner);
            }
            Fact::Gone { link, .. } => {
                self.open.remove(&link);
                self.emptied_at = scene.now.monotonic;
            }
            Fact::Stopped { .. } => self.open.clear(),
            Fact::Called { .. } if self.has_stale => self.expire(scene),
            _ => {}
        }
        Ok(())
    }
}

impl HostsFile {
    /// Forgets everything, because a new daemon knows only what it reads.
    fn forget(&mut self) {
        self.open.clear();
        self.has_stale = false;
        for name in &mut self.names {
            name.current.clear();
            name.stale.clear();
        }
    }

    fn find_names(&mut self, scene: &Scene<'_>) {
        if !self.names.is_empty() {
            return;
        }
        for relay in &scene.map.relays {
            let Ok(Host::Name(name)) = Relay::parse(relay.specification.as_bytes()).map(|relay| relay.host)
            else {
                continue;
            };
            let host = scene.map.host_named(&name.to_string());
            let host = host.and_then(|host| scene.map.hosts.get(host));
            let by_dns = host.map(|host| host.addresses.clone()).unwrap_or_default();
            let (by_file, current, stale) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
            self.names.push(Name { name, by_dns, by_file, current, stale });
        }
    }

    fn read(&mut self, scene: &Scene<'_>, file: &Hosts) {
        self.read_at = scene.now.monotonic;
        self.owners.clear();
        for name in &mut self.names {
            let listed = file.get(&name.name);
            name.by_file.extend(listed.into_iter().flatten());
            let leads_to = listed.unwrap_or(&name.by_dns).clone();
            if leads_to != name.current {
                name.stale.extend(std::mem::replace(&mut name.current, leads_to));
                self.has_stale |= !name.stale.is_empty();
            }
        }
    }

    /// Returns the name of an address.
    fn owner(&mut self, address: IpAddr) -> Option<usize> {
        let names = &self.names;
        *self.owners.entry(address).or_insert_with(|| {
            names.iter().position(|name| name.by_dns.contains(&address) || name.by_file.contains(&address))
        })
    }

    fn check(
        &self,
        scene: &Scene<'_>,
        link: Link,
        address: IpAddr,
        owner: Option<usize>,
    ) -> Result<(), String> {
        let host = scene.map.host_at(address);
        if scene.map.decoys.values().any(|&decoy| Some(decoy) == host) {
            return Err(format!("[{link}] the address {address} of a domain is from the hosts file"));
        }
        let Some(name) = owner.and_then(|owner| self.names.get(owner)) else { return Ok(()) };
        if name.current.contains(&address) || name.stale.contains(&address) {
            return Ok(());
        }
        Err(format!("[{link}] {} leads to {:?}, but {address} is connected to", name.name, name.current))
    }

    /// Forgets the earlier addresses of a name once no pass that began with them can be running: no lookup is under way, and no
    /// connection is waited for, because there would be one. A pass for the name without a connection is not a sign of that: it
    /// may wait for a slot at a host to which others are connected.
    fn expire(&mut self, scene: &Scene<'_>) {
        let now = scene.now.monotonic;
        let may_be_running = !self.open.is_empty() || now < self.emptied_at + GOING_ON_SPAN;
        if now < self.read_at + LOOKUP_SPAN || may_be_running {
            return;
        }
        self.has_stale = false;
        for name in &mut self.names {
            name.stale.clear();
        }
    }
}
