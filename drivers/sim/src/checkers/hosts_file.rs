//! `/etc/hosts` counts for the names of relays, as it was when the pass began, and for nothing else.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use cmail_delivery::address::Domain;
use cmail_delivery::io::Purpose;
use cmail_delivery::next_hop::{Host, Relay};
use cmail_delivery::settings::Hosts;
use cmail_delivery::time::{Duration, Instant};

use super::Checker;
use crate::facts::{Fact, Link, Scene};

/// After this no lookup is under way any more that was begun before.
const LOOKUP_SPAN: Duration = Duration::from_secs(120);

/// A pass that has lost its connection goes on at once.
const GOING_ON_SPAN: Duration = Duration::from_secs(1);

/// The name of a relay.
#[derive(Debug)]
struct Name {
    name: Domain,
    /// What it leads to by the DNS. It never changes.
    by_dns: Vec<IpAddr>,
    /// What it has ever led to by the file.
    by_file: BTreeSet<IpAddr>,
    /// What it leads to now.
    current: Vec<IpAddr>,
    /// What it led to before, in the pass that may still be running.
    stale: BTreeSet<IpAddr>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HostsFile {
    names: Vec<Name>,
    /// The name that each address is of. It never changes.
    owners: HashMap<IpAddr, Option<usize>>,
    /// The open connections for mail.
    open: HashSet<Link>,
    /// When the last of them was over.
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
    /// A new daemon knows only what it reads.
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

    /// The name that an address is of.
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

    /// Forgets what a name led to before, if no pass can be running that has begun then: no lookup is under way, and
    /// nobody waits for a connection, for whatever reason, because there would be one. A pass for the name that is not connected is no
    /// sign: it may wait for a place at a host to which others are.
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
