use super::*;
use alloc::format;
use alloc::string::String;
use proptest::prelude::*;

fn relay(text: &str) -> Relay {
    Relay::parse(text.as_bytes()).unwrap()
}

#[test]
fn a_bare_host_has_no_port_and_no_credentials() {
    let relay = relay("Smart.Example");
    assert_eq!(relay.host, Host::Name(Domain::parse("smart.example").unwrap()));
    assert_eq!((relay.port, relay.credentials), (None, None));
}

#[test]
fn a_port_without_a_mode_is_plain_text() {
    assert_eq!(relay("h:25").port, Some(Port { number: 25, tls: TlsMode::Plain }));
    assert_eq!(relay("h:587/StartTLS").port, Some(Port { number: 587, tls: TlsMode::StartTls }));
    assert_eq!(relay("h:465/TLS").port, Some(Port { number: 465, tls: TlsMode::Implicit }));
}

#[test]
fn credentials_end_at_the_last_at_and_the_user_at_the_first_colon() {
    let relay = relay("user@example.org:p:a@ss@[2001:db8::1]:465/tls");
    let credentials = relay.credentials.unwrap();
    assert_eq!((&*credentials.user, &*credentials.password), ("user@example.org", "p:a@ss"));
    assert_eq!(relay.host, Host::Address("2001:db8::1".parse().unwrap()));
}

#[test]
fn everything_else_is_malformed() {
    for (text, error) in [
        ("", RelayError::Host),
        ("@h", RelayError::Credentials),
        ("user@h", RelayError::Credentials),
        (":secret@h", RelayError::Credentials),
        ("user:@h", RelayError::Credentials),
        ("::1", RelayError::Host),
        ("[::1", RelayError::Host),
        ("[::1]25", RelayError::Host),
        ("[192.0.2.1]", RelayError::Host),
        ("192.0.2.1.", RelayError::Host),
        ("a b", RelayError::Host),
        ("0.0.0.0", RelayError::NoDestination),
        ("u:p@0.0.0.0:25/tls", RelayError::NoDestination),
        ("[::]:25", RelayError::NoDestination),
        ("[::ffff:255.255.255.255]", RelayError::NoDestination),
        ("h:", RelayError::Port),
        ("h:0", RelayError::Port),
        ("h:65536", RelayError::Port),
        ("h:+25", RelayError::Port),
        ("h:smtp", RelayError::Port),
        ("h:25/", RelayError::Mode),
        ("h:25/ssl", RelayError::Mode),
        ("h:25:26", RelayError::Port),
    ] {
        assert_eq!(Relay::parse(text.as_bytes()), Err(error), "{text:?}");
    }
}

#[test]
fn what_is_too_long_is_malformed() {
    let most = "x".repeat(CREDENTIAL_LIMIT_OCTETS);
    let more = "x".repeat(CREDENTIAL_LIMIT_OCTETS + 1);
    assert!(Relay::parse(format!("u:{most}@h").as_bytes()).is_ok());
    for credentials in [format!("u:{more}"), format!("{more}:p")] {
        let specification = format!("{credentials}@h");
        assert_eq!(Relay::parse(specification.as_bytes()), Err(RelayError::CredentialsTooLong));
    }
    let zeros = "0".repeat(REMOTE_LIMIT_OCTETS - "h:25".len());
    assert!(Relay::parse(format!("h:{zeros}25").as_bytes()).is_ok());
    assert_eq!(Relay::parse(format!("h:0{zeros}25").as_bytes()), Err(RelayError::TooLong));
}

#[test]
fn no_output_shows_a_password() {
    let relay = relay("user:hunter2@h:25");
    assert!(!format!("{relay:?} {relay}").contains("hunter2"));
}

proptest! {
    #[test]
    fn a_printed_relay_parses_to_itself(
        host in "[a-z][a-z0-9]{0,8}(\\.[a-z][a-z0-9]{0,8}){0,2}|\\[2001:db8::[0-9a-f]{1,4}\\]|192\\.0\\.2\\.[1-9]",
        port in 1..=u16::MAX,
        mode in prop_oneof![Just(""), Just("/tls"), Just("/starttls")],
        credentials in prop::option::of("[^:\\r\\n]{1,8}:\\PC{1,8}"),
    ) {
        let prefix = credentials.as_ref().map_or_else(String::new, |credentials| format!("{credentials}@"));
        let bare = format!("{host}:{port}{mode}");
        let parsed = relay(&format!("{prefix}{bare}"));
        let again = relay(&format!("{prefix}{parsed}"));
        prop_assert_eq!(parsed.credentials.is_some(), credentials.is_some());
        prop_assert_eq!(again, parsed);
    }
}
