//! Reads `/etc/hosts`, which is consulted for the names of relays.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use cmail_delivery::address::Domain;
use cmail_delivery::settings::Hosts;

/// The path of the file.
pub const PATH: &str = "/etc/hosts";

/// Reads the file at `path`; a missing one counts as empty.
pub fn read(path: &Path) -> io::Result<Hosts> {
    match fs::read(path) {
        Ok(octets) => Ok(parse(&octets)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Hosts::new()),
        Err(error) => Err(error),
    }
}

/// Parses the octets of the file: an address and its names per line. Invalid lines are skipped, and so are addresses with a
/// scope, which are valid on one link only.
pub fn parse(octets: &[u8]) -> Hosts {
    let mut hosts = Hosts::new();
    for line in String::from_utf8_lossy(octets).lines() {
        let code = line.split('#').next().unwrap_or_default();
        let mut words = code.split_ascii_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        for name in words.filter_map(|word| Domain::parse(word).ok()) {
            let addresses = hosts.entry(name).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    hosts
}

#[cfg(test)]
mod tests;
