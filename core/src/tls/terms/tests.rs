use alloc::string::ToString as _;

use super::*;
use crate::tls::certificate::tests::{certificate, key};

#[test]
fn a_name_is_accepted_as_it_is_or_by_a_whole_leftmost_label() {
    for (pattern, presented, is_accepted) in [
        ("mx.example.org", "mx.example.org", true),
        ("mx.example.org", "MX.Example.ORG.", true),
        ("mx.example.org", "*.example.org", true),
        ("mx.example.org", "*.org", false),
        ("a.mx.example.org", "*.example.org", false),
        ("mx.example.org", "m*.example.org", false),
        ("mx.example.org", "*x.example.org", false),
        ("mx.example.org", "mx.*.org", false),
        ("mx.example.org", ".example.org", false),
        ("mx.example.org", "example.org", false),
        ("mx.example.org", "*", false),
        ("mx.example.org", "", false),
        ("example.org", "*.org", false),
        (".example.org", "mx.example.org", true),
        (".example.org", "*.example.org", true),
        (".example.org", "example.org", false),
        (".example.org", "a.mx.example.org", false),
        (".example.org", "m*.example.org", false),
        (".example.org", ".example.org", false),
    ] {
        let found = NamePattern::parse(pattern).unwrap().accepts(presented);
        assert_eq!(found, is_accepted, "{pattern} {presented}");
    }
}

#[test]
fn patterns_and_pins_are_written_as_they_are_read() {
    for text in ["mx.example.org", ".example.org"] {
        assert_eq!(NamePattern::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(NamePattern::parse(""), None);
    assert_eq!(NamePattern::parse("."), None);
    let text = "00ff".repeat(16);
    assert_eq!(Pin::parse(&text).unwrap().to_string(), text);
    assert_eq!(Pin::parse(&text.to_uppercase()), Pin::parse(&text));
    for wrong in [&text[1..], &text[2..], &"0g".repeat(32), &"+1".repeat(32), ""] {
        assert_eq!(Pin::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn a_pin_is_the_digest_of_a_key_whatever_the_certificate() {
    let pin = Pin(Sha256::digest(key(7)).into());
    assert!(pin.matches(&Certificate::parse(&certificate(7, &["a.example.org"])).unwrap()));
    assert!(pin.matches(&Certificate::parse(&certificate(7, &[])).unwrap()));
    assert!(!pin.matches(&Certificate::parse(&certificate(8, &[])).unwrap()));
}
