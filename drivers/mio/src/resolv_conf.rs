//! Reads `/etc/resolv.conf`: which DNS servers to ask, how long and how often. Its search list is not used.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::Duration;

use cmail_delivery::settings::{NameServer, ResolverSettings};
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
const OTHER_OPTIONS: [&str; 16] = [
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
    /// True if the servers validate by DNSSEC, and the way to them is safe: the option `trust-ad`.
    pub trusts_ad: bool,
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

/// Which name servers are believed if they say that DNSSEC vouches for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dnssec {
    /// Those of this machine, and those of a file with the option `trust-ad`.
    #[default]
    Auto,
    /// All.
    Trust,
    /// None.
    Off,
}

/// Where the settings of the resolver come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverSource {
    /// The file.
    pub file: PathBuf,
    /// The servers of the directive, which are asked instead of those of the file; empty without it.
    pub given: Vec<SocketAddr>,
    /// Which of them are believed. [`Dnssec::Off`] if nobody wants to know.
    pub dnssec: Dnssec,
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
        let (servers, trusts_ad) =
            if self.given.is_empty() { (&file.servers, file.trusts_ad) } else { (&self.given, false) };
        let is_believed = |address: SocketAddr| match self.dnssec {
            Dnssec::Auto => trusts_ad || address.ip().is_loopback(),
            Dnssec::Trust => true,
            Dnssec::Off => false,
        };
        let servers =
            servers.iter().map(|&address| NameServer { address, is_believed: is_believed(address) });
        ResolverSettings { servers: servers.collect(), timeout: file.timeout, attempts: file.attempts }
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
    trusts_ad: bool,
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
        } else if option == "trust-ad" {
            self.trusts_ad = true;
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
            trusts_ad: self.trusts_ad,
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
mod tests;
