//! The world around the daemon: hosts, the domains that lead to them, and relays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cmail_delivery::address::Domain;
use cmail_delivery::settings::Hosts;
use cmail_delivery::time::Instant;

use crate::dice::Dice;
use crate::host_keys::HostKeys;
use crate::options::Options;
use crate::servers::Temperament;

/// A mail server.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) temperament: Temperament,
    /// Hosts of one group fail together.
    pub(crate) group: usize,
    /// Latency one way, in microseconds.
    pub(crate) latency_us: u64,
    /// Its key in TLS, and its TLSA records.
    pub(crate) keys: HostKeys,
}

/// The DNS records of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// MX records: preferences and hosts.
    Exchanges(Vec<(u16, usize)>),
    /// Addresses only.
    Implicit(usize),
    /// RFC 7505.
    NullMx,
    /// The name does not exist.
    Missing,
    /// The name exists, but has neither.
    Empty,
    /// The name is an alias of another domain.
    Alias(usize),
}

/// A relay as the database names it.
#[derive(Clone, Debug)]
pub(crate) struct RelayEntry {
    /// The remote specification.
    pub(crate) specification: String,
    /// The password in it.
    pub(crate) password: Option<String>,
    /// The hosts it may lead to: the first by the DNS, the others only by `/etc/hosts`.
    pub(crate) hosts: Vec<usize>,
}

/// The whole map.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map {
    pub(crate) hosts: Vec<Host>,
    /// `zone0.example`, `zone1.example`, …
    pub(crate) zones: Vec<Zone>,
    pub(crate) relays: Vec<RelayEntry>,
    /// True if mail goes to address literals, too: each is a next hop of its own.
    pub(crate) has_literals: bool,
    /// Entries of `/etc/hosts` for domains and their hosts, which must have no effect.
    pub(crate) decoys: BTreeMap<String, usize>,
    by_address: BTreeMap<IpAddr, usize>,
    by_name: BTreeMap<String, usize>,
    /// True if DNSSEC vouches for everything.
    pub(crate) is_all_signed: bool,
    /// The zones that it vouches for else.
    signed_zones: BTreeSet<String>,
    /// Zones with names of their own.
    named: BTreeMap<String, Zone>,
}

impl Map {
    /// A random world.
    pub(crate) fn draw(options: &Options, dice: &mut Dice) -> Self {
        let mut map = Self { has_literals: dice.chance(300), ..Self::default() };
        for number in 0..usize::try_from(options.zones).unwrap_or(1) {
            let zone = map.draw_zone(number, options, dice);
            map.zones.push(zone);
        }
        for number in 0..usize::try_from(options.relays).unwrap_or(0) {
            let host = map.add_host(options, dice);
            let mut relay = map.draw_relay(number, host, dice);
            let is_named = map.hosts.get(host).is_some_and(|host| relay.specification.contains(&host.name));
            if options.hosts_file && is_named && dice.chance(700) {
                relay.hosts.extend([map.add_host(options, dice), map.add_host(options, dice)]);
            }
            map.relays.push(relay);
        }
        if options.hosts_file {
            map.draw_decoys(options, dice);
        }
        if options.signed > 0 {
            map.draw_signatures(options.signed, dice);
        }
        map
    }

    /// The name of a zone.
    pub(crate) fn zone_name(number: usize) -> String {
        format!("zone{number}.example")
    }

    /// The zone of a name.
    pub(crate) fn zone(&self, name: &str) -> Option<&Zone> {
        if let Some(zone) = self.named.get(name) {
            return Some(zone);
        }
        let number: usize = name.strip_prefix("zone")?.strip_suffix(".example")?.parse().ok()?;
        self.zones.get(number)
    }

    /// The host at an address.
    pub(crate) fn host_at(&self, address: IpAddr) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// The host of a name.
    pub(crate) fn host_named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Returns whether DNSSEC vouches for the records of a name.
    pub(crate) fn is_signed(&self, name: &str) -> bool {
        let name = name.split_once("._tcp.").map_or(name, |(_, host)| host);
        if self.is_all_signed {
            return true;
        }
        match self.host_named(name).and_then(|host| self.hosts.get(host)) {
            Some(host) => host.keys.is_signed,
            // The root is signed.
            None => self.signed_zones.contains(name) || (name.is_empty() && self.knows_dnssec()),
        }
    }

    /// Returns whether DNSSEC vouches for anything.
    pub(crate) fn knows_dnssec(&self) -> bool {
        self.is_all_signed
            || !self.signed_zones.is_empty()
            || self.hosts.iter().any(|host| host.keys.is_signed)
    }

    /// Returns the next hops whose mail may be brought to a host. Each counts its connections separately.
    pub(crate) fn hops_of_host(&self, host: usize) -> BTreeSet<String> {
        let mut hops = BTreeSet::new();
        for (number, zone) in self.zones.iter().enumerate() {
            if self.leads_to(zone, host) {
                hops.insert(Self::zone_name(number));
            }
        }
        for (name, zone) in &self.named {
            if self.leads_to(zone, host) {
                hops.insert(name.clone());
            }
        }
        for relay in self.relays.iter().filter(|relay| relay.hosts.contains(&host)) {
            hops.insert(relay.specification.clone());
        }
        if self.has_literals {
            hops.insert(format!("[{host}]"));
        }
        hops
    }

    fn leads_to(&self, zone: &Zone, host: usize) -> bool {
        match zone {
            Zone::Exchanges(records) => records.iter().any(|&(_, other)| other == host),
            Zone::Implicit(other) => *other == host,
            Zone::Alias(number) => self.zones.get(*number).is_some_and(|zone| self.leads_to(zone, host)),
            Zone::NullMx | Zone::Missing | Zone::Empty => false,
        }
    }

    /// Makes all servers well-behaved from now on. Invalid recipients stay invalid.
    pub(crate) fn heal(&mut self, now: Instant) {
        for host in &mut self.hosts {
            host.temperament = host.temperament.healed();
            host.keys.settle(now);
        }
    }

    /// Signs some zones and hosts, and gives some of these TLSA records.
    fn draw_signatures(&mut self, permille: u32, dice: &mut Dice) {
        for number in 0..self.zones.len() {
            if dice.chance(permille) {
                self.signed_zones.insert(Self::zone_name(number));
            }
        }
        for (host, key) in self.hosts.iter_mut().zip(1_u64..) {
            if dice.chance(permille) {
                host.keys = HostKeys::signed(key, dice.chance(700));
            }
            if !host.keys.named().is_empty() {
                // Who has such records mostly has TLS.
                host.temperament.extensions.starttls |= dice.chance(900);
            }
        }
    }

    /// Adds a zone with this name.
    pub(crate) fn add_zone(&mut self, name: &str, zone: Zone) {
        self.named.insert(name.to_owned(), zone);
    }

    /// Adds a host of which only its name and addresses matter.
    pub(crate) fn add_named_host(&mut self, name: &str, addresses: Vec<IpAddr>) {
        let number = self.hosts.len();
        self.by_address.extend(addresses.iter().map(|&address| (address, number)));
        self.by_name.insert(name.to_owned(), number);
        let temperament = Temperament::default();
        self.hosts.push(Host {
            name: name.to_owned(),
            addresses,
            temperament,
            group: 0,
            latency_us: 0,
            keys: HostKeys::default(),
        });
    }

    /// Adds a host, and returns its number.
    pub(crate) fn add_host(&mut self, options: &Options, dice: &mut Dice) -> usize {
        let number = self.hosts.len();
        let [high, low] = u16::try_from(number).unwrap_or(0).to_be_bytes();
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::new(10, 1, high, low))];
        if dice.chance(200) {
            addresses.push(IpAddr::V4(Ipv4Addr::new(10, 2, high, low)));
        }
        if dice.chance(300) {
            let low = u16::from_be_bytes([high, low]);
            addresses.push(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, low)));
        }
        let temperament = if dice.chance(options.faults.odd_servers) {
            Temperament::odd(dice)
        } else if dice.chance(options.faults.mute_servers) {
            Temperament::mute(dice)
        } else {
            Temperament::normal(dice)
        };
        let host = Host {
            name: format!("mx{number}.hosts.example"),
            addresses,
            temperament,
            group: dice.index(3),
            latency_us: dice.within(200..=80_000),
            keys: HostKeys::default(),
        };
        for &address in &host.addresses {
            self.by_address.insert(address, number);
        }
        self.by_name.insert(host.name.clone(), number);
        self.hosts.push(host);
        number
    }

    fn draw_zone(&mut self, number: usize, options: &Options, dice: &mut Dice) -> Zone {
        // The first zone, where copies of bounces go, and most of the others are sane.
        let kind = if number == 0 { 0 } else { dice.below(20) };
        match kind {
            0..=12 => {
                let count = dice.within(1..=3);
                let records = (0..count)
                    .map(|position| {
                        // Some servers accept mail for several domains.
                        let host = if dice.chance(150) && !self.hosts.is_empty() {
                            dice.index(self.hosts.len())
                        } else {
                            self.add_host(options, dice)
                        };
                        let preference = if dice.chance(500) { 10 } else { 10 * (1 + position) };
                        (u16::try_from(preference).unwrap_or(10), host)
                    })
                    .collect();
                Zone::Exchanges(records)
            }
            13 | 14 => Zone::Implicit(self.add_host(options, dice)),
            15 => Zone::NullMx,
            16 => Zone::Missing,
            17 => Zone::Empty,
            _ => Zone::Alias(dice.index(number)),
        }
    }

    fn draw_relay(&self, number: usize, host: usize, dice: &mut Dice) -> RelayEntry {
        let password = dice.chance(600).then(|| format!("Pa55word{number}x{:06x}", dice.below(1 << 24)));
        let credentials =
            password.as_ref().map(|password| format!("user{number}:{password}@")).unwrap_or_default();
        let address = self.hosts.get(host).and_then(|host| host.addresses.first()).copied();
        let name = self.hosts.get(host).map_or("nowhere.example", |host| &host.name);
        let target = match address {
            Some(address) if dice.chance(300) => address.to_string(),
            Some(_) | None => name.to_owned(),
        };
        let port = *dice.pick(&["", ":25", ":587/starttls", ":465/tls", ":587/starttls"]).unwrap_or(&"");
        RelayEntry { specification: format!("{credentials}{target}{port}"), password, hosts: vec![host] }
    }

    /// Puts some domains and some of their hosts into `/etc/hosts`, with wrong addresses.
    fn draw_decoys(&mut self, options: &Options, dice: &mut Dice) {
        let of_zones = self.zones.iter().flat_map(|zone| match zone {
            Zone::Exchanges(records) => records.iter().map(|&(_, host)| host).collect(),
            Zone::Implicit(_) | Zone::NullMx | Zone::Missing | Zone::Empty | Zone::Alias(_) => vec![],
        });
        let hosts: BTreeSet<usize> = of_zones.collect();
        let host_names = hosts.iter().filter_map(|&host| self.hosts.get(host)).map(|host| host.name.clone());
        let names: Vec<String> = host_names.chain((0..self.zones.len()).map(Self::zone_name)).collect();
        for name in names {
            if dice.chance(100) {
                let decoy = self.add_host(options, dice);
                self.decoys.insert(name, decoy);
            }
        }
    }

    /// Returns contents of `/etc/hosts` for a while.
    pub(crate) fn draw_hosts_file(&self, dice: &mut Dice) -> Hosts {
        let mut file = Hosts::new();
        let mut list = |name: &str, hosts: &[usize]| {
            let hosts = hosts.iter().filter_map(|&host| self.hosts.get(host));
            let addresses: Vec<IpAddr> = hosts.flat_map(|host| host.addresses.iter().copied()).collect();
            if let (Ok(name), false) = (Domain::parse(name), addresses.is_empty()) {
                file.insert(name, addresses);
            }
        };
        for relay in &self.relays {
            let Some((dns, listed)) = relay.hosts.split_first() else { continue };
            let Some(host) = self.hosts.get(*dns) else { continue };
            match dice.below(4) {
                0 => {}
                1 => list(&host.name, listed.get(..1).unwrap_or_default()),
                2 => list(&host.name, listed.get(1..).unwrap_or_default()),
                _ => list(&host.name, listed),
            }
        }
        for (name, decoy) in &self.decoys {
            if dice.chance(800) {
                list(name, &[*decoy]);
            }
        }
        file
    }

    /// Returns a host that mail may be sent to by its address: one that is not in `/etc/hosts`.
    pub(crate) fn draw_literal(&self, dice: &mut Dice) -> Option<Ipv4Addr> {
        let number = dice.index(self.hosts.len());
        let is_listed = |relay: &RelayEntry| relay.hosts.len() > 1 && relay.hosts.contains(&number);
        if self.decoys.values().any(|&decoy| decoy == number) || self.relays.iter().any(is_listed) {
            return None;
        }
        match self.hosts.get(number)?.addresses.first() {
            Some(IpAddr::V4(address)) => Some(*address),
            Some(IpAddr::V6(_)) | None => None,
        }
    }
}
