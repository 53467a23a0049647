use super::*;
use crate::next_hop::Relay;
use std::string::ToString;

fn pattern(text: &str) -> DestinationPattern {
    DestinationPattern::parse(text).unwrap()
}

fn domain(name: &str) -> NextHop {
    NextHop::Domain(Domain::parse(name).unwrap())
}

fn host(name: &str) -> Host {
    Host::Name(Domain::parse(name).unwrap())
}

#[test]
fn a_pattern_means_its_destinations_and_is_written_as_it_is_read() {
    let relay = NextHop::Relay(Relay::parse(b"u:p@relay.example:587/starttls").unwrap());
    let hops = [domain("example.org"), domain("a.example.org"), domain("other.example"), relay];
    for (text, meant) in [
        ("*", [true; 4]),
        ("example.org", [true, false, false, false]),
        (".example.org", [true, true, false, false]),
        ("remote:relay.example", [false, false, false, true]),
        ("mx:mx.example.org", [false; 4]),
    ] {
        let pattern = pattern(text);
        assert_eq!(hops.each_ref().map(|hop| pattern.matches(hop)), meant, "{text}");
        assert_eq!(pattern.to_string(), text);
    }
}

#[test]
fn a_host_is_meant_only_where_it_is_the_host_of_a_domain() {
    let below = pattern("mx:*.example.net");
    assert_eq!(below.to_string(), "mx:*.example.net");
    assert!(below.matches_at(&domain("example.org"), &host("MX.Example.Net")));
    assert!(!below.matches_at(&domain("example.org"), &host("example.net")));
    assert!(!below.matches_at(&domain("example.org"), &host("mx.badexample.net")));
    let relay = NextHop::Relay(Relay::parse(b"mx.example.net").unwrap());
    assert!(!below.matches_at(&relay, &host("mx.example.net")), "remote: is for relays");
    assert!(pattern("mx:mx.example.net").matches_at(&domain("example.org"), &host("mx.example.net")));
    assert!(!pattern("mx:mx.example.net").matches_at(&domain("example.org"), &host("a.mx.example.net")));
}

#[test]
fn what_is_no_destination_is_refused_with_a_reason() {
    for (text, reason) in [
        ("sender:a@example.org", "\"sender:\" is not known here"),
        ("sender:<>", "\"sender:\" is not known here"),
        ("mx:", "after \"mx:\" must come"),
        ("mx:*.", "after \"mx:\" must come"),
        ("mx:*.*.example.org", "after \"mx:\" must come"),
        ("remote:host:25", "after \"remote:\" must come a host"),
        ("a b", "it must be \"*\", a domain"),
        ("user@example.org", "it must be \"*\", a domain"),
    ] {
        let error = DestinationPattern::parse(text).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{text}: {error}");
    }
}

#[test]
fn a_closer_name_is_the_greater_one() {
    let mut all = [
        "example.org",
        "*",
        ".a.example.org",
        "mx:mx.example.org",
        ".org",
        "mx:*.example.org",
        ".example.org",
        "mx:*.org",
    ]
    .map(pattern);
    all.sort_by_key(DestinationPattern::specificity);
    let sorted = all.each_ref().map(ToString::to_string);
    let expected = [
        "*",
        "mx:*.org",
        "mx:*.example.org",
        "mx:mx.example.org",
        ".org",
        ".example.org",
        ".a.example.org",
        "example.org",
    ];
    assert_eq!(sorted, expected);
}
