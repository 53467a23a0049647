//! MTA-STS policies.

use cmail_delivery::address::Domain;
use cmail_delivery::sts::{MAX_AGE_LIMIT_SECONDS, Mode, POLICY_LIMIT_OCTETS, PolicyTrouble, StsPolicy};
use cmail_delivery::tls::NamePattern;

/// Checks a policy as it is fetched.
pub fn check(octets: &[u8]) {
    let parsed = StsPolicy::parse(octets);
    let Ok(policy) = &parsed else {
        let is_long = octets.len() > POLICY_LIMIT_OCTETS;
        return assert_eq!(parsed == Err(PolicyTrouble::TooLong), is_long);
    };
    assert!(policy.max_age.as_secs() <= MAX_AGE_LIMIT_SECONDS);
    assert!(policy.mode == Mode::None || !policy.hosts.is_empty());
    policy.hosts.iter().for_each(|host| check_host(policy, host));
    let written = written(policy);
    let expected = StsPolicy { unreadable_hosts: 0, ..policy.clone() };
    assert_eq!(StsPolicy::parse(written.as_bytes()), Ok(expected), "what is read can be written: {written}");
    let with = |more: &[u8]| StsPolicy::parse(&[octets, more].concat());
    if octets.len() + 100 < POLICY_LIMIT_OCTETS {
        assert_eq!(with(b"\nversion: STSv2\nmode: none\nmax_age: 0\nother: value\n"), parsed);
        let more = with(b"\r\nmx: 192.0.2.1\r\n").expect("a host that does not count spoils nothing");
        assert_eq!(
            (more.hosts.len(), more.unreadable_hosts),
            (policy.hosts.len(), policy.unreadable_hosts + 1)
        );
    }
}

/// Checks that a policy permits the hosts that it names, and of those below a name only the next ones.
fn check_host(policy: &StsPolicy, host: &NamePattern) {
    let is_permitted = |name: &str| Domain::parse(name).map(|name| policy.permits(&name));
    match host {
        NamePattern::Exactly(name) => assert!(policy.permits(name)),
        NamePattern::Below(above) => {
            assert_ne!(is_permitted(&format!("x.{above}")), Ok(false));
            let alone = StsPolicy { hosts: [host.clone()].into(), ..policy.clone() };
            assert!(!alone.permits(above));
            if let Ok(far) = Domain::parse(&format!("x.y.{above}")) {
                assert!(!alone.permits(&far));
            }
        }
    }
}

/// Writes a policy with the hosts that count.
fn written(policy: &StsPolicy) -> String {
    let mut text =
        format!("version: STSv1\r\nmode: {}\r\nmax_age: {}\r\n", policy.mode, policy.max_age.as_secs());
    for host in policy.hosts.iter() {
        let star = if matches!(host, NamePattern::Below(_)) { "*" } else { "" };
        text += &format!("mx: {star}{host}\r\n");
    }
    text
}
