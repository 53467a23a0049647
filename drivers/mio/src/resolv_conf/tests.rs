use super::*;
use proptest::prelude::*;

fn server(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), DNS_PORT)
}

#[test]
fn servers_and_options_are_read_and_the_rest_is_complained_of() {
    let parsed = ResolvConf::parse(
        b"# a comment\n; nameserver 192.0.2.9\nsearch example.org\ndomain example.org\n\
          nameserver 192.0.2.1\nnameserver\t2001:db8::1 # note\n\n nameserver 192.0.2.8\n\
          nameserver dns.example\nnameserver\n\xff\xfe\nnameservers 192.0.2.1\n\
          options rotate ndots:2 timeout:3 attempts:4 edns0 no-such timeout:x # rest\n",
    );
    assert_eq!(parsed.servers, [server("192.0.2.1"), server("2001:db8::1")]);
    assert_eq!((parsed.timeout, parsed.attempts), (Duration::from_secs(3), 4));
    let complaints: Vec<(usize, &str)> =
        parsed.complaints.iter().map(|(line, text)| (*line, text.as_str())).collect();
    assert_eq!(
        complaints,
        [
            (8, "the keyword must be at the beginning of the line"),
            (9, "\"dns.example\" is not the address of a name server"),
            (10, "the address of the name server is missing"),
            (11, "\"\u{fffd}\u{fffd}\" is not a keyword"),
            (12, "\"nameservers\" is not a keyword"),
            (13, "\"no-such\" is not an option"),
            (13, "\"timeout:x\" is not an option"),
        ]
    );
}

#[test]
fn a_server_may_be_behind_an_interface() {
    let parsed =
        ResolvConf::parse(b"nameserver fe80::1%lo\nnameserver fe80::2%7\nnameserver fe80::3%none0\n");
    let scoped =
        |address: &str, scope| SocketAddr::from(SocketAddrV6::new(address.parse().unwrap(), 53, 0, scope));
    let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
    assert_eq!(parsed.servers, [scoped("fe80::1", loopback), scoped("fe80::2", 7)]);
    assert!(parsed.lacks_interface);
    assert_eq!(
        parsed.complaints,
        [(3, "there is no network interface \"none0\", so this name server is not asked".to_owned())]
    );
    assert!(!ResolvConf::parse(b"nameserver fe80::2%7\n").lacks_interface);
    for text in ["192.0.2.1%lo", "fe80::1%", "fe80::1%0", "%lo"] {
        let parsed = ResolvConf::parse(format!("nameserver {text}\n").as_bytes());
        assert_eq!((parsed.servers, parsed.complaints.len()), (vec![server("127.0.0.1")], 1), "{text}");
    }
}

#[test]
fn an_empty_file_means_the_name_server_of_this_machine() {
    let parsed = ResolvConf::default();
    assert_eq!(parsed.servers, [server("127.0.0.1")]);
    assert_eq!((parsed.timeout, parsed.attempts), (Duration::from_secs(5), 2));
    assert!(parsed.complaints.is_empty());
}

#[test]
fn the_limits_of_the_manual_hold() {
    let parsed = ResolvConf::parse(
        b"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n\
          options timeout:31 attempts:99999999999999999999999\n",
    );
    assert_eq!((parsed.servers.len(), parsed.complaints.len()), (3, 1));
    assert_eq!((parsed.timeout, parsed.attempts), (Duration::from_secs(30), 5));
    let parsed = ResolvConf::parse(b"options timeout:0 attempts:0\n");
    assert_eq!((parsed.timeout, parsed.attempts), (Duration::from_secs(1), 1));
}

#[test]
fn the_unspecified_address_is_this_machine() {
    let parsed = ResolvConf::parse(b"nameserver 0.0.0.0\nnameserver ::\n");
    assert_eq!(parsed.servers, [server("127.0.0.1"), server("::1")]);
}

#[test]
fn complaints_have_a_limit() {
    let parsed = ResolvConf::parse("nonsense\n".repeat(1000).as_bytes());
    assert_eq!(parsed.complaints.len(), COMPLAINTS_LIMIT + 1);
    assert_eq!(parsed.complaints.last().unwrap().1, "980 more problems are not shown");
}

proptest! {
    #[test]
    fn any_octets_give_servers_and_sane_limits(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let parsed = ResolvConf::parse(&octets);
        prop_assert!((1..=SERVER_LIMIT).contains(&parsed.servers.len()));
        prop_assert!((1..=ATTEMPTS_LIMIT).contains(&parsed.attempts));
        prop_assert!(parsed.complaints.iter().all(|(_, text)| !text.chars().any(char::is_control)));
    }
}

#[test]
fn those_servers_are_believed_that_the_directive_and_the_file_say() {
    let believed = |text: &str, given: &[&str], dnssec| {
        let given = given.iter().map(|text| server(text)).collect();
        let source = ResolverSource { file: PathBuf::new(), given, dnssec };
        let servers = source.settings(&ResolvConf::parse(text.as_bytes())).servers;
        servers.iter().map(|server| server.is_believed).collect::<Vec<_>>()
    };
    let (plain, trusting) =
        ("nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "nameserver 192.0.2.1\noptions trust-ad\n");
    assert_eq!(believed(plain, &[], Dnssec::Auto), [true, false]);
    assert_eq!(believed(trusting, &[], Dnssec::Auto), [true]);
    // What the file says is about its own servers.
    assert_eq!(believed(trusting, &["192.0.2.9", "::1"], Dnssec::Auto), [false, true]);
    assert_eq!(believed(plain, &[], Dnssec::Trust), [true, true]);
    assert_eq!(believed(trusting, &["127.0.0.1"], Dnssec::Off), [false]);
}
