use super::*;
use proptest::prelude::*;

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).unwrap()
}

#[test]
fn addresses_are_the_same_however_their_domain_is_written() {
    let canonical = |text: &str| Mailbox::parse(text.as_bytes()).unwrap().canonical();
    assert_eq!(canonical("A@Example.ORG."), "A@example.org");
    assert_eq!(canonical("a@B\u{fc}cher.example"), canonical("a@xn--BCHER-kva.example"));
    assert_eq!(canonical("a@[ipv6:2001:DB8::1]"), canonical("a@[IPv6:2001:db8:0::1]"));
    assert_ne!(canonical("A@example.org"), canonical("a@example.org"));
    assert_eq!(canonical("root"), "root");
}

#[test]
fn domains_are_compared_without_case_and_trailing_dot() {
    assert_eq!(Domain::parse("Example.ORG.").unwrap(), Domain::parse("example.org").unwrap());
}

#[test]
fn u_labels_become_a_labels() {
    assert_eq!(Domain::parse("Bücher.example").unwrap().as_str(), "xn--bcher-kva.example");
    assert_eq!(mailbox("info@bücher.example").as_str(), "info@xn--bcher-kva.example");
    assert!(!mailbox("info@bücher.example").needs_smtputf8());
    assert!(mailbox("bücher@bücher.example").needs_smtputf8());
}

#[test]
fn a_dot_at_the_end_of_the_domain_is_not_sent() {
    assert_eq!(mailbox("a@example.org.").as_str(), "a@example.org");
    assert_eq!(mailbox("a@bücher.example.").as_str(), "a@xn--bcher-kva.example");
    assert_eq!(mailbox("no-domain.").as_str(), "no-domain.");
    assert!(mailbox("a@.").domain().is_err());
}

#[test]
fn invalid_domains_are_refused() {
    let long_label = "a".repeat(64) + ".example";
    let long_name = "abcdefg.".repeat(40) + "example";
    for text in ["", ".", "a..b", "-a.example", "a-.example", "a b", "a,b", "a@b", &long_label, &long_name] {
        assert!(Domain::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn what_is_too_long_is_invalid_whatever_it_says() {
    let domain = "@example.org";
    let most = "a".repeat(ADDRESS_LIMIT_OCTETS - domain.len());
    assert!(Mailbox::parse(format!("{most}{domain}").as_bytes()).is_ok());
    assert_eq!(Mailbox::parse(format!("a{most}{domain}").as_bytes()), Err(AddressError::TooLong));
    let long = "\u{fc}".repeat(ADDRESS_LIMIT_OCTETS);
    let error = Domain::parse(&long).unwrap_err();
    assert!(format!("{error}").len() < 300, "{error}");
}

#[test]
fn the_domain_begins_after_the_last_at() {
    let name = |text: &str| MailDomain::Name(Domain::parse(text).unwrap());
    assert_eq!(mailbox("a@b@example.org").domain().unwrap(), name("example.org"));
    assert_eq!(mailbox("\"a@b\"@Example.org").domain().unwrap(), name("example.org"));
    assert_eq!(mailbox("\"a@b\"@Example.org").local_part(), "\"a@b\"");
    assert_eq!(mailbox("\"a@b\"").domain(), Err(AddressError::NoDomain));
    assert_eq!(mailbox("root").domain(), Err(AddressError::NoDomain));
}

#[test]
fn address_literals_are_addresses() {
    let literal = |text: &str| mailbox(text).domain();
    assert_eq!(literal("u@[192.0.2.1]").unwrap(), MailDomain::Literal("192.0.2.1".parse().unwrap()));
    assert_eq!(literal("u@[ipv6:2001:db8::1]").unwrap(), MailDomain::Literal("2001:db8::1".parse().unwrap()));
    for text in ["u@[2001:db8::1]", "u@[IPv6:192.0.2.1]", "u@[192.0.2.1", "u@[]", "u@[x400:1]"] {
        assert!(literal(text).is_err(), "{text}");
    }
}

#[test]
fn what_is_no_address_of_one_host_is_no_destination() {
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "::",
        "ff02::1",
        "::ffff:0.0.0.0",
        "::ffff:224.0.0.1",
        "::ffff:255.255.255.255",
    ] {
        let address: IpAddr = text.parse().unwrap();
        assert!(!is_destination(address), "{text}");
        let tag = if address.is_ipv6() { "IPv6:" } else { "" };
        let domain = mailbox(&format!("u@[{tag}{text}]")).domain();
        assert_eq!(domain, Err(AddressError::NoDestination(address)));
    }
    for text in
        ["1.0.0.0", "127.0.0.1", "192.0.2.255", "255.255.255.254", "::1", "::ffff:127.0.0.1", "fe80::1"]
    {
        assert!(is_destination(text.parse().unwrap()), "{text}");
    }
}

#[test]
fn nothing_that_could_split_a_command_passes() {
    for octets in [
        &b"a\r\nRSET@example.org"[..],
        b"a\n@example.org",
        b"a\0@example.org",
        b"\"a\\\r\"@example.org",
        b"a b@example.org",
        b"a\t@example.org",
        b"\"a\tb\"@example.org",
        b"<a@example.org>",
        b"a@example.org> SIZE=1",
        b"\"a@example.org",
        b"\xff@example.org",
        b"",
        b"@example.org",
        b"a@",
    ] {
        assert!(Mailbox::parse(octets).is_err(), "{octets:?}");
    }
    assert_eq!(mailbox("\"a <b> \\\" c\"@example.org").local_part(), "\"a <b> \\\" c\"");
}

proptest! {
    #[test]
    fn what_passes_is_safe_and_parses_to_itself(octets in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(mailbox) = Mailbox::parse(&octets) {
            prop_assert!(!mailbox.as_str().bytes().any(|octet| matches!(octet, b'\r' | b'\n' | 0)));
            prop_assert_eq!(Mailbox::parse(mailbox.as_str().as_bytes()).unwrap(), mailbox);
        }
    }

    #[test]
    fn a_parsed_domain_parses_to_itself(text in "\\PC{0,20}") {
        if let Ok(domain) = Domain::parse(&text) {
            prop_assert!(domain.as_str().is_ascii());
            prop_assert_eq!(Domain::parse(domain.as_str()).unwrap(), domain);
        }
    }
}
