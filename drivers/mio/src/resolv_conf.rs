//! Reads `/etc/resolv.conf`: which DNS servers to ask, how long and how often. Its search list is not used.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::Duration;

use cmail_delivery::settings::ResolverSettings;
use thiserror::Error;

use crate::shown;

/// The path of the file.
pub const PATH: &str = "/etc/resolv.conf";

/// The port of DNS servers (RFC 1035 section 4.2).
pub const DNS_PORT: u16 = 53;

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
/// The longest file that is read: far longer than any real one.
const FILE_LIMIT_OCTETS: usize = 1024 * 1024;
/// Most problems that are reported one by one; further ones are only counted.
const COMPLAINTS_LIMIT: usize = 20;

/// Keywords that do not concern name servers, and keywords of other systems than Linux.
const OTHER_KEYWORDS: [&str; 5] = ["domain", "search", "sortlist", "family", "lookup"];

/// Options of libc that change nothing here. Those that end in a colon are followed by a number.
const OTHER_OPTIONS: [&str; 17] = [
    "debug",
    "ndots:",
    "rotate",
    "no-check-names",
    "inet6",
    "ip6-bytestring",
    "ip6-dotint",
    "no-ip6-dotint",
    "edns0",
    "single-request",
    "single-request-reopen",
    "no-tld-query",
    "use-vc",
    "no-reload",
    "trust-ad",
    "no-aaaa",
    "strict-error",
];

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// The name servers, in order of preference; at least one.
    pub servers: Vec<SocketAddr>,
    /// How long to wait for one server.
    pub timeout: Duration,
    /// How often to ask each server.
    pub attempts: u32,
    /// The problems found: the number of the line, from 1, and a sentence.
    pub complaints: Vec<(usize, String)>,
    /// A name server is behind an interface that does not exist, or not yet.
    pub lacks_interface: bool,
}

impl Default for ResolvConf {
    /// Returns what resolv.conf(5) says of an empty or missing file: the name server of this machine.
    fn default() -> Self {
        Self::parse(b"")
    }
}

/// Where the settings of the resolver come from.
#[derive(Clone, Debug)]
pub struct ResolverSource {
    /// The file.
    pub file: PathBuf,
    /// The servers of the directive, which are asked instead of those of the file; empty without it.
    pub given: Vec<SocketAddr>,
}

impl ResolverSource {
    /// Reads the file.
    pub fn read(&self) -> io::Result<ResolvConf> {
        let octets = fs::read(&self.file)?;
        if octets.len() > FILE_LIMIT_OCTETS {
            return Err(io::Error::other("the file is longer than 1 MiB"));
        }
        Ok(ResolvConf::parse(&octets))
    }

    /// Returns the settings of the resolver for this content of the file.
    pub fn settings(&self, file: &ResolvConf) -> ResolverSettings {
        let servers = if self.given.is_empty() { &file.servers } else { &self.given };
        ResolverSettings { servers: servers.clone(), timeout: file.timeout, attempts: file.attempts }
    }

    /// Returns the problems of the file that the administrator should know.
    pub fn complaints(&self, mut file: ResolvConf) -> Vec<(usize, String)> {
        // The servers of the file are not asked, so problems with them do not matter.
        if !self.given.is_empty() {
            file.complaints.clear();
        }
        file.complaints
    }
}

impl ResolvConf {
    /// Parses the octets of the file. Lines that are not valid are skipped, as by libc, and reported.
    pub fn parse(octets: &[u8]) -> Self {
        let mut parser = Parser::default();
        for (index, line) in String::from_utf8_lossy(octets).lines().enumerate() {
            parser.line = index + 1;
            parser.take_line(line);
        }
        parser.finish()
    }
}

#[derive(Default)]
struct Parser {
    line: usize,
    servers: Vec<SocketAddr>,
    timeout_s: Option<u64>,
    attempts: Option<u32>,
    complaints: Vec<(usize, String)>,
    more_complaints: usize,
    lacks_interface: bool,
}

impl Parser {
    fn take_line(&mut self, line: &str) {
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else { return };
        if keyword.starts_with(['#', ';']) {
            return;
        }
        if !line.starts_with(keyword) {
            return self.complain("the keyword must be at the beginning of the line".to_owned());
        }
        match keyword {
            "nameserver" => match words.next() {
                Some(server) => self.take_server(server),
                None => self.complain("the address of the name server is missing".to_owned()),
            },
            "options" => {
                words.take_while(|word| !word.starts_with(['#', ';'])).for_each(|word| self.take_option(word))
            }
            _ if OTHER_KEYWORDS.contains(&keyword) => {}
            _ => self.complain(format!("\"{}\" is not a keyword", shown::value(keyword))),
        }
    }

    fn take_server(&mut self, text: &str) {
        let server = match parse_server(text) {
            Ok(server) => server,
            Err(complaint) => {
                self.lacks_interface |= matches!(complaint, ServerComplaint::NoInterface(_));
                return self.complain(complaint.to_string());
            }
        };
        if self.servers.len() < SERVER_LIMIT {
            self.servers.push(server);
        } else {
            self.complain(format!("only the first {SERVER_LIMIT} name servers are used"));
        }
    }

    fn take_option(&mut self, option: &str) {
        if let Some(seconds) = option.strip_prefix("timeout:").and_then(parse_count) {
            self.timeout_s = Some(seconds.clamp(1, TIMEOUT_LIMIT_S));
        } else if let Some(count) = option.strip_prefix("attempts:").and_then(parse_count) {
            self.attempts = Some(u32::try_from(count).unwrap_or(ATTEMPTS_LIMIT).clamp(1, ATTEMPTS_LIMIT));
        } else if !is_other_option(option) {
            self.complain(format!("\"{}\" is not an option", shown::value(option)));
        }
    }

    fn complain(&mut self, text: String) {
        if self.complaints.len() < COMPLAINTS_LIMIT {
            self.complaints.push((self.line, text));
        } else {
            self.more_complaints += 1;
        }
    }

    fn finish(mut self) -> ResolvConf {
        if self.servers.is_empty() {
            self.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
        }
        if self.more_complaints > 0 {
            self.complaints
                .push((self.line, format!("{} more problems are not shown", self.more_complaints)));
        }
        ResolvConf {
            servers: self.servers,
            timeout: Duration::from_secs(self.timeout_s.unwrap_or(TIMEOUT_DEFAULT_S)),
            attempts: self.attempts.unwrap_or(ATTEMPTS_DEFAULT),
            complaints: self.complaints,
            lacks_interface: self.lacks_interface,
        }
    }
}

/// Why a name server cannot be asked.
#[derive(Debug, Error)]
enum ServerComplaint {
    #[error("\"{}\" is not the address of a name server", shown::value(.0))]
    NoAddress(String),
    #[error("there is no network interface \"{}\", so this name server is not asked", shown::value(.0))]
    NoInterface(String),
}

/// Parses an address, which may name an interface if it is valid only on that link (RFC 4007 section 11). The unspecified
/// address means this machine, as in libc: no answer ever comes from the unspecified address.
fn parse_server(text: &str) -> Result<SocketAddr, ServerComplaint> {
    let (address, interface) = match text.split_once('%') {
        Some((address, interface)) => (address, Some(interface)),
        None => (text, None),
    };
    let no_address = |_| ServerComplaint::NoAddress(text.to_owned());
    match (address.parse().map_err(no_address)?, interface) {
        (IpAddr::V6(address), Some(interface)) => {
            let no_interface = || ServerComplaint::NoInterface(interface.to_owned());
            let scope = interface_index(interface).ok_or_else(no_interface)?;
            Ok(SocketAddrV6::new(address, DNS_PORT, 0, scope).into())
        }
        (IpAddr::V4(_), Some(_)) => Err(ServerComplaint::NoAddress(text.to_owned())),
        (IpAddr::V4(address), None) if address.is_unspecified() => {
            Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT))
        }
        (IpAddr::V6(address), None) if address.is_unspecified() => {
            Ok(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), DNS_PORT))
        }
        (address, None) => Ok(SocketAddr::new(address, DNS_PORT)),
    }
}

/// Returns the number of an interface that is given by name or number.
fn interface_index(text: &str) -> Option<u32> {
    match parse_count(text) {
        Some(number) => u32::try_from(number).ok().filter(|&number| number > 0),
        None => nix::net::if_::if_nametoindex(text).ok(),
    }
}

fn is_other_option(option: &str) -> bool {
    OTHER_OPTIONS.iter().any(|&known| match known.strip_suffix(':') {
        Some(_) => option.strip_prefix(known).and_then(parse_count).is_some(),
        None => option == known,
    })
}

/// Parses digits. A number that is too large becomes the largest one, and is capped later.
fn parse_count(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
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
        let scoped = |address: &str, scope| {
            SocketAddr::from(SocketAddrV6::new(address.parse().unwrap(), 53, 0, scope))
        };
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
}
