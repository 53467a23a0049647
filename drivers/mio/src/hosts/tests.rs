use super::*;
use proptest::prelude::*;

fn addresses(hosts: &Hosts, name: &str) -> Vec<String> {
    let found = hosts.get(&Domain::parse(name).unwrap());
    found.into_iter().flatten().map(IpAddr::to_string).collect()
}

#[test]
fn every_name_of_a_line_has_its_address() {
    let hosts = parse(
        b"127.0.0.1\tlocalhost\n::1 localhost ip6-localhost # loopback\n192.0.2.1  Relay.Example. relay\n",
    );
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
