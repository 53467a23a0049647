//! Remote specifications: one that is shown reads as itself, and no output ever shows the part before the host.

use cmail_delivery::next_hop::{Host, NextHop, Port, Relay, TlsMode};

use crate::script::secret_for;

/// Checks a specification as it is, and with credentials that it cannot hold by chance.
pub fn check(octets: &[u8]) {
    let relay = Relay::parse(octets);
    let server = octets.rsplit(|&octet| octet == b'@').next().unwrap_or_default();
    let secret = secret_for(octets);
    let with_secret = |user: &str| [user.as_bytes(), b":", secret.as_bytes(), b"@", server].concat();
    let spied = Relay::parse(&with_secret("user"));
    let shown = match &spied {
        Ok(relay) => format!("{relay} {relay:?} {} {0:?}", NextHop::Relay(relay.clone())),
        Err(error) => format!("{error} {error:?}"),
    };
    assert!(!shown.contains(&secret), "{shown}");

    let Ok(relay) = relay else { return };
    let text = str::from_utf8(octets).expect("what parses is UTF-8");
    check_model(text, &relay);
    let mut spied = spied.expect("other credentials change nothing");
    let credentials = spied.credentials.take().expect("they were given");
    assert_eq!((&*credentials.user, &*credentials.password), ("user", secret.as_str()));
    assert_eq!(spied, Relay { credentials: None, ..relay.clone() });

    let bare = relay.to_string();
    let again = match &relay.credentials {
        Some(credentials) => format!("{}:{}@{bare}", credentials.user, credentials.password),
        None => bare,
    };
    assert_eq!(Relay::parse(again.as_bytes()), Ok(relay));
}

/// Parses the parts from the right end on, and compares.
fn check_model(text: &str, relay: &Relay) {
    let (credentials, server) = match text.rfind('@') {
        Some(at) => (Some(&text[..at]), &text[at + 1..]),
        None => (None, text),
    };
    assert_eq!(credentials.is_some(), relay.credentials.is_some());
    if let (Some(text), Some(credentials)) = (credentials, &relay.credentials) {
        assert!(!credentials.user.contains(':') && !credentials.user.is_empty());
        assert!(!credentials.password.is_empty());
        assert_eq!(format!("{}:{}", credentials.user, credentials.password), text);
    }
    match relay.port {
        None => assert!(!server.ends_with(':') && !server.contains('/')),
        Some(Port { number, tls }) => {
            assert_ne!(number, 0);
            let (_, port) = server.rsplit_once(':').expect("a port stands after a colon");
            let mode = port.split_once('/').map(|(_, mode)| mode.to_ascii_lowercase());
            let expected = match tls {
                TlsMode::Plain => None,
                TlsMode::StartTls => Some("starttls"),
                TlsMode::Implicit => Some("tls"),
            };
            assert_eq!(mode.as_deref(), expected);
        }
    }
    if let Host::Address(address) = &relay.host {
        assert_eq!(address.is_ipv6(), server.starts_with('['));
    }
}
