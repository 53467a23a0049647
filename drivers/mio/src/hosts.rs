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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addresses(hosts: &Hosts, name: &str) -> Vec<String> {
        let found = hosts.get(&Domain::parse(name).unwrap());
        found.into_iter().flatten().map(IpAddr::to_string).collect()
    }

    #[test]
    fn every_name_of_a_line_has_its_address() {
        let hosts = parse(b"127.0.0.1\tlocalhost\n::1 localhost ip6-localhost # loopback\n192.0.2.1  Relay.Example. relay\n");
        assert_eq!(addresses(&hosts, "localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(addresses(&hosts, "ip6-localhost"), ["::1"]);
        assert_eq!(addresses(&hosts, "relay.example"), ["192.0.2.1"]);
        assert_eq!(addresses(&hosts, "RELAY"), ["192.0.2.1"]);
    }

    #[test]
    fn what_is_not_understood_is_skipped() {
        let hosts = parse(
            b"# c\n\nrelay 192.0.2.1\nfe80::1%lo0 scoped\n192.0.2.1\n192.0.2.2 a..b ok\n\xff\n192.0.2.2 ok",
        );
        assert_eq!(hosts.len(), 1);
        assert_eq!(addresses(&hosts, "ok"), ["192.0.2.2"]);
    }

    #[test]
    fn a_missing_file_says_nothing() {
        assert!(read(Path::new("/nonexistent/hosts")).unwrap().is_empty());
        assert!(read(Path::new("/")).is_err());
    }

    proptest! {
        #[test]
        fn no_name_is_without_an_address(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&octets).values().all(|addresses| !addresses.is_empty()));
        }
    }
}
