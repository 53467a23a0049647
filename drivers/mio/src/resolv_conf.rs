//! `/etc/resolv.conf`: which DNS servers to ask, how long and how often. Its search list is not used.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

/// Where it is.
pub const PATH: &str = "/etc/resolv.conf";

/// Most name servers that are used, as `MAXNS` of resolv.conf(5).
const SERVER_LIMIT: usize = 3;
/// `timeout` without an option, as `RES_TIMEOUT` of resolv.conf(5).
const TIMEOUT_DEFAULT_S: u64 = 5;
/// The longest `timeout`, to which longer ones are capped as resolv.conf(5) says.
const TIMEOUT_LIMIT_S: u64 = 30;
/// `attempts` without an option, as `RES_DFLRETRY` of resolv.conf(5).
const ATTEMPTS_DEFAULT: u32 = 2;
/// The most `attempts`, to which more are capped as resolv.conf(5) says.
const ATTEMPTS_LIMIT: u32 = 5;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// The name servers, in order of preference; at least one.
    pub servers: Vec<IpAddr>,
    /// How long one server is waited for.
    pub timeout: Duration,
    /// How often each server is asked.
    pub attempts: u32,
}

impl Default for ResolvConf {
    /// What resolv.conf(5) says of an empty or missing file: the name server of this machine.
    fn default() -> Self {
        Self::parse(b"")
    }
}

impl ResolvConf {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self::parse(&fs::read(path)?))
    }

    /// Parses the octets of the file. What is not understood is skipped, as libc does.
    pub fn parse(octets: &[u8]) -> Self {
        let mut servers = Vec::new();
        let mut timeout_s = TIMEOUT_DEFAULT_S;
        let mut attempts = ATTEMPTS_DEFAULT;
        for line in String::from_utf8_lossy(octets).lines() {
            // A keyword begins its line, so that comments, which begin with ";" or "#", are skipped like anything else.
            let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
            match words.next() {
                Some("nameserver") if line.starts_with("nameserver") => {
                    servers.extend(words.next().and_then(parse_server));
                }
                Some("options") if line.starts_with("options") => {
                    for option in words {
                        if let Some(seconds) = option.strip_prefix("timeout:").and_then(parse_count) {
                            timeout_s = seconds.clamp(1, TIMEOUT_LIMIT_S);
                        } else if let Some(count) = option.strip_prefix("attempts:").and_then(parse_count) {
                            attempts =
                                u32::try_from(count).unwrap_or(ATTEMPTS_LIMIT).clamp(1, ATTEMPTS_LIMIT);
                        }
                    }
                }
                Some(_) | None => {}
            }
        }
        servers.truncate(SERVER_LIMIT);
        if servers.is_empty() {
            servers.push(Ipv4Addr::LOCALHOST.into());
        }
        Self { servers, timeout: Duration::from_secs(timeout_s), attempts }
    }
}

/// An address without a scope; libc takes the unspecified address for this machine, and so do we, because an answer
/// never comes from the unspecified address.
fn parse_server(text: &str) -> Option<IpAddr> {
    match text.parse().ok()? {
        IpAddr::V4(address) if address.is_unspecified() => Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(address) if address.is_unspecified() => Some(Ipv6Addr::LOCALHOST.into()),
        address @ (IpAddr::V4(_) | IpAddr::V6(_)) => Some(address),
    }
}

/// Digits; a number that is too large is the largest there is, and capped later.
fn parse_count(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn servers_and_options_are_read_and_the_rest_is_skipped() {
        let parsed = ResolvConf::parse(
            b"# a comment\n; nameserver 192.0.2.9\nsearch example.org\ndomain example.org\n\
              nameserver 192.0.2.1\nnameserver\t2001:db8::1 # note\n nameserver 192.0.2.8\n\
              nameserver fe80::1%eth0\nnameserver dns.example\nnameserver\n\xff\xfe\n\
              options rotate timeout:3 attempts:4 edns0\n",
        );
        assert_eq!(parsed.servers, [ip("192.0.2.1"), ip("2001:db8::1")]);
        assert_eq!((parsed.timeout, parsed.attempts), (Duration::from_secs(3), 4));
    }

    #[test]
    fn an_empty_file_means_the_name_server_of_this_machine() {
        let parsed = ResolvConf::default();
        assert_eq!(parsed.servers, [ip("127.0.0.1")]);
        assert_eq!((parsed.timeout, parsed.attempts), (Duration::from_secs(5), 2));
    }

    #[test]
    fn the_limits_of_the_manual_hold() {
        let parsed = ResolvConf::parse(
            b"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n\
              options timeout:31 attempts:99999999999999999999999\n",
        );
        assert_eq!(parsed.servers.len(), 3);
        assert_eq!((parsed.timeout, parsed.attempts), (Duration::from_secs(30), 5));
        let parsed = ResolvConf::parse(b"options timeout:0 attempts:0\n");
        assert_eq!((parsed.timeout, parsed.attempts), (Duration::from_secs(1), 1));
    }

    #[test]
    fn the_unspecified_address_is_this_machine() {
        let parsed = ResolvConf::parse(b"nameserver 0.0.0.0\nnameserver ::\n");
        assert_eq!(parsed.servers, [ip("127.0.0.1"), ip("::1")]);
    }

    #[test]
    fn a_missing_file_is_an_error_that_the_caller_may_forgive() {
        let missing = ResolvConf::read(Path::new("/nonexistent/resolv.conf")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn any_octets_give_servers_and_sane_limits(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let parsed = ResolvConf::parse(&octets);
            prop_assert!((1..=SERVER_LIMIT).contains(&parsed.servers.len()));
            prop_assert!((1..=ATTEMPTS_LIMIT).contains(&parsed.attempts));
        }
    }
}
