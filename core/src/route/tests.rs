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
    let hosts = mx_hosts(&records(text), own_name, &mut Rng::from_seed([seed; 32]));
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
    let found: Vec<(SocketAddr, TlsMode, bool)> =
        candidates(&host, &addresses, &ports, &Arc::default(), &TlsPlan::for_tests())
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
