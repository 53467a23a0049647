//! Which servers to try for a next hop, and in which order.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use crate::address::Domain;
use crate::next_hop::{Host, Port, TlsMode};
use crate::rng::Rng;

/// One way to reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The server, by the name it was found under.
    pub host: Host,
    /// Where it is connected to.
    pub remote: SocketAddr,
    /// How the connection is protected.
    pub tls: TlsMode,
    /// Whether the candidate after this one differs only in that it needs no TLS.
    pub plain_twin_follows: bool,
}

/// The hosts of MX records in the order in which they are to be tried (RFC 5321 section 5.1).
///
/// The most preferred come first, equally preferred ones in random order. If this host itself is among the most
/// preferred ones it is used like any other: bounces to local users travel by SMTP to the local server. If better
/// hosts exist, this host is a backup, and neither it nor anything that is not better may be tried, or mail would go
/// in circles.
pub fn exchanges(records: &[(u16, Domain)], own_name: &str, rng: &mut Rng) -> Vec<Domain> {
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

/// The ways to reach one host: each port in turn, and on it each address.
pub fn candidates(host: &Host, addresses: &[IpAddr], ports: &[Port]) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let plain_twin = Port { number: port.number, tls: TlsMode::Plain };
        let plain_twin_follows = port.tls == TlsMode::StartTls && ports.get(index + 1) == Some(&plain_twin);
        candidates.extend(addresses.iter().map(|&address| Candidate {
            host: host.clone(),
            remote: SocketAddr::new(address, port.number),
            tls: port.tls,
            plain_twin_follows,
        }));
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;

    fn records(text: &str) -> Vec<(u16, Domain)> {
        text.split_whitespace()
            .map(|record| {
                let (preference, host) = record.split_once(':').unwrap();
                (preference.parse().unwrap(), Domain::parse(host).unwrap())
            })
            .collect()
    }

    fn order(text: &str, own_name: &str, seed: u8) -> String {
        let hosts = exchanges(&records(text), own_name, &mut Rng::from_seed([seed; 32]));
        hosts.iter().map(Domain::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn lower_preferences_come_first() {
        assert_eq!(order("20:b 10:a 30:c", "me", 1), "a b c");
    }

    #[test]
    fn equal_preferences_are_shuffled() {
        let orders: Vec<String> = (0..40).map(|seed| order("10:a 10:b 20:c", "me", seed)).collect();
        assert!(orders.iter().any(|order| order == "a b c"));
        assert!(orders.iter().any(|order| order == "b a c"));
        assert!(orders.iter().all(|order| order.ends_with(" c")));
    }

    #[test]
    fn the_own_host_is_used_if_nothing_is_better() {
        assert_eq!(order("10:me 20:b", "ME.", 1), "me b");
    }

    #[test]
    fn a_backup_never_sends_to_itself_or_to_what_is_not_better() {
        assert_eq!(order("10:a 20:me 20:b 30:c", "me", 1), "a");
        assert_eq!(order("10:a 20:me 30:me", "me", 1), "a");
    }

    #[test]
    fn a_host_that_is_named_twice_is_tried_once() {
        assert_eq!(order("10:a 20:a 20:b", "me", 1), "a b");
    }

    #[test]
    fn every_address_is_tried_on_a_port_before_the_next_port() {
        let host = Host::Name(Domain::parse("a").unwrap());
        let addresses = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let ports = [Port { number: 25, tls: TlsMode::StartTls }, Port { number: 25, tls: TlsMode::Plain }];
        let found: Vec<(SocketAddr, TlsMode, bool)> = candidates(&host, &addresses, &ports)
            .into_iter()
            .map(|candidate| (candidate.remote, candidate.tls, candidate.plain_twin_follows))
            .collect();
        assert_eq!(
            found,
            vec![
                ("192.0.2.1:25".parse().unwrap(), TlsMode::StartTls, true),
                ("[2001:db8::1]:25".parse().unwrap(), TlsMode::StartTls, true),
                ("192.0.2.1:25".parse().unwrap(), TlsMode::Plain, false),
                ("[2001:db8::1]:25".parse().unwrap(), TlsMode::Plain, false),
            ]
        );
    }
}
