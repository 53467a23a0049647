use super::*;
use proptest::prelude::*;

#[test]
fn a_number_is_digits_within_its_range() {
    assert_eq!(number("007", 0, 10), Ok(7));
    for text in ["", "+1", "-1", "1 ", "0x1", "1e3", "ten", "١"] {
        assert_eq!(number(text, 0, 10), Err(ValueError::NotANumber(text.into())), "{text}");
    }
    for text in ["0", "11", "4294967296", "99999999999999999999999999"] {
        assert!(matches!(number(text, 1, 10), Err(ValueError::OutOfRange { .. })), "{text}");
    }
}

#[test]
fn a_span_of_time_is_seconds_or_has_a_unit() {
    for (text, expected) in [("0", 0), ("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("5d", 432_000)] {
        assert_eq!(seconds(text, 0, 1_000_000), Ok(expected), "{text}");
    }
    for text in ["", "s", "1w", "1.5h", "-1s", "1 h", "1hh", "m1", "1M"] {
        assert_eq!(seconds(text, 0, 10), Err(ValueError::Span(text.into())), "{text}");
    }
    for text in ["0s", "11s", "1m", "99999999999999d", "4294967295d"] {
        assert!(matches!(seconds(text, 1, 10), Err(ValueError::OutOfRange { .. })), "{text}");
    }
}

#[test]
fn an_announced_name_is_safe_in_a_command_line() {
    assert_eq!(&*announce("Mail.Example.ORG.").unwrap(), "Mail.Example.ORG");
    assert_eq!(&*announce("bücher.example").unwrap(), "xn--bcher-kva.example");
    assert_eq!(&*announce("[IPv6:2001:db8::1]").unwrap(), "[IPv6:2001:db8::1]");
    for text in ["a b", "a\rb", "<a>", "a\u{1}", "a@b", "[a]", "-a", "(none)", "a,b"] {
        assert!(announce(text).is_err(), "{text:?}");
    }
}

#[test]
fn port_suffixes_have_no_case_and_no_others_exist() {
    assert_eq!(port("465@TLS"), Ok(Port { number: 465, tls: TlsMode::Implicit }));
    assert_eq!(port("25@StartTLS"), Ok(Port { number: 25, tls: TlsMode::StartTls }));
    assert_eq!(port("25"), Ok(Port { number: 25, tls: TlsMode::Plain }));
    assert_eq!(port("25@ssl"), Err(ValueError::PortSuffix("25@ssl".into())));
    assert_eq!(port("25@"), Err(ValueError::PortSuffix("25@".into())));
    for text in ["0", "65536", "@tls", "smtp", "25/tls", "-25"] {
        assert_eq!(port(text), Err(ValueError::Port(text.into())));
    }
}

#[test]
fn a_plain_rate_is_accepted_and_means_nothing() {
    assert_eq!(rate("100"), Ok(None));
    let per_minute = RateLimit { transactions: 5, per: Duration::from_secs(60) };
    assert_eq!(rate("5/min"), Ok(Some(per_minute)));
    for text in ["0/s", "5/", "/s", "5/d", "5/S", "x", "-1", "1000001/s"] {
        assert_eq!(rate(text), Err(ValueError::Rate(text.into())));
    }
}

#[test]
fn a_resolver_is_an_address_with_or_without_a_port() {
    for (text, expected) in [
        ("192.0.2.1", "192.0.2.1:53"),
        ("192.0.2.1:5353", "192.0.2.1:5353"),
        ("2001:db8::1", "[2001:db8::1]:53"),
        ("[2001:db8::1]", "[2001:db8::1]:53"),
        ("[::1]:5353", "[::1]:5353"),
    ] {
        assert_eq!(resolver(text).unwrap(), expected.parse().unwrap());
    }
    for text in ["dns.example", "192.0.2.1:0", "192.0.2.1:", "192.0.2.1:65536", "[192.0.2.1]", "[::1"] {
        assert_eq!(resolver(text), Err(ValueError::Resolver(text.into())));
    }
}

proptest! {
    #[test]
    fn shown_ports_and_rates_parse_to_themselves(text in "[0-9]{1,6}(@[tlsar]{1,8}|/(s|min|h))?") {
        if let Ok(parsed) = port(&text) {
            prop_assert_eq!(port(&show_port(&parsed)), Ok(parsed));
        }
        if let Ok(Some(parsed)) = rate(&text) {
            prop_assert_eq!(rate(&show_rate(&parsed)), Ok(Some(parsed)));
        }
    }
}
