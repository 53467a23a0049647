//! The destination of a mail: a domain, by its MX records, an address literal, or a fixed relay.

use alloc::boxed::Box;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::address::{Domain, MailDomain, is_destination};

/// Longest remote specification in octets.
pub const REMOTE_LIMIT_OCTETS: usize = 2048;
/// Longest user and longest password of a remote specification in octets. Mechanisms of authentication need no more (RFC 4616
/// section 2 requires servers to accept 255).
pub const CREDENTIAL_LIMIT_OCTETS: usize = 1024;

/// The protection of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsMode {
    /// No TLS.
    #[default]
    Plain,
    /// STARTTLS in the conversation (RFC 3207).
    StartTls,
    /// TLS from the first octet on (RFC 8314 section 3).
    Implicit,
}

impl TlsMode {
    /// Returns the mode with this name in a remote specification or a `portprio` entry, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("starttls") {
            Some(Self::StartTls)
        } else if name.eq_ignore_ascii_case("tls") {
            Some(Self::Implicit)
        } else {
            None
        }
    }
}

/// A TCP port and its protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The port number, 1 to 65535.
    pub number: u16,
    /// Its protection.
    pub tls: TlsMode,
}

/// The name or address of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name.
    Name(Domain),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// The credentials of a client. They never appear in any output of `Debug`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Credentials {
    /// The authentication identity.
    pub user: Box<str>,
    /// Its secret.
    pub password: Box<str>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

/// A fixed relay: `[USER:PASSWORD@]HOST[:PORT[/MODE]]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relay {
    /// The host: its addresses are looked up, its MX records are not.
    pub host: Host,
    /// The port; `None` if the list of ports to try decides.
    pub port: Option<Port>,
    /// The credentials. A relay that has some is never used without them.
    pub credentials: Option<Credentials>,
}

/// The reason why a remote specification is malformed. No text in it comes from the specification, which may contain a password.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RelayError {
    /// Beyond [`REMOTE_LIMIT_OCTETS`].
    #[error("malformed remote specification: it is longer than {REMOTE_LIMIT_OCTETS} octets")]
    TooLong,
    /// Beyond [`CREDENTIAL_LIMIT_OCTETS`].
    #[error(
        "malformed remote specification: USER or PASSWORD is longer than {CREDENTIAL_LIMIT_OCTETS} octets"
    )]
    CredentialsTooLong,
    /// The part before an `@` is not USER:PASSWORD.
    #[error("malformed remote specification: the part before the last \"@\" must be USER:PASSWORD")]
    Credentials,
    /// The host is neither a name nor an address.
    #[error(
        "malformed remote specification: the host must be a name, an IPv4 address or an IPv6 address in brackets"
    )]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("malformed remote specification: the port must be a number from 1 to 65535")]
    Port,
    /// The mode is not known.
    #[error("malformed remote specification: the mode after the port must be \"starttls\" or \"tls\"")]
    Mode,
    /// The host is an address that mail cannot be sent to, see [`is_destination`].
    #[error("malformed remote specification: mail cannot be sent to the address that is given as the host")]
    NoDestination,
    /// The text is not UTF-8.
    #[error("malformed remote specification: it is not UTF-8 text")]
    NotUtf8,
}

impl Relay {
    /// Parses a remote specification as the database holds it.
    pub fn parse(octets: &[u8]) -> Result<Self, RelayError> {
        if octets.len() > REMOTE_LIMIT_OCTETS {
            return Err(RelayError::TooLong);
        }
        let text = core::str::from_utf8(octets).map_err(|_| RelayError::NotUtf8)?;
        let (credentials, server) = match text.rsplit_once('@') {
            None => (None, text),
            Some((credentials, server)) => match credentials.split_once(':') {
                Some((user, password)) if user.len().max(password.len()) > CREDENTIAL_LIMIT_OCTETS => {
                    return Err(RelayError::CredentialsTooLong);
                }
                Some((user, password)) if !user.is_empty() && !password.is_empty() => {
                    (Some(Credentials { user: user.into(), password: password.into() }), server)
                }
                _ => return Err(RelayError::Credentials),
            },
        };
        let (host, port) = split_host(server)?;
        if let Host::Address(address) = host
            && !is_destination(address)
        {
            return Err(RelayError::NoDestination);
        }
        let port = port.map(parse_port).transpose()?;
        Ok(Self { host, port, credentials })
    }
}

impl fmt::Display for Relay {
    /// Writes the specification without its credentials, for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        let Some(port) = self.port else { return Ok(()) };
        write!(f, ":{}", port.number)?;
        match port.tls {
            TlsMode::Plain => Ok(()),
            TlsMode::StartTls => f.write_str("/starttls"),
            TlsMode::Implicit => f.write_str("/tls"),
        }
    }
}

/// Splits `HOST[:REST]`; the host may be an IPv6 address in brackets.
fn split_host(server: &str) -> Result<(Host, Option<&str>), RelayError> {
    if let Some(bracketed) = server.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']').ok_or(RelayError::Host)?;
        let address = address.parse::<Ipv6Addr>().map_err(|_| RelayError::Host)?;
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return Err(RelayError::Host),
            Some(port) => Some(port),
        };
        return Ok((Host::Address(address.into()), port));
    }
    let (host, port) = match server.split_once(':') {
        None => (server, None),
        Some((host, port)) => (host, Some(port)),
    };
    let host = match host.parse() {
        Ok(address) => Host::Address(IpAddr::V4(address)),
        Err(_) => {
            let name = Domain::parse(host).map_err(|_| RelayError::Host)?;
            // With a dot at its end an address is not an address, but it is not a host name either (RFC 1123 section 2.1).
            if name.as_str().parse::<Ipv4Addr>().is_ok() {
                return Err(RelayError::Host);
            }
            Host::Name(name)
        }
    };
    Ok((host, port))
}

/// Parses `PORT[/MODE]`.
fn parse_port(text: &str) -> Result<Port, RelayError> {
    let (number, mode) = match text.split_once('/') {
        None => (text, None),
        Some((number, mode)) => (number, Some(mode)),
    };
    if number.is_empty() || !number.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(RelayError::Port);
    }
    let number = number.parse().ok().filter(|&number| number != 0).ok_or(RelayError::Port)?;
    let tls = match mode {
        None => TlsMode::Plain,
        Some(mode) => TlsMode::parse(mode).ok_or(RelayError::Mode)?,
    };
    Ok(Port { number, tls })
}

/// The destination of a mail. Mail with equal next hops shares connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// By the MX records of a domain.
    Domain(Domain),
    /// The address of an address literal.
    Literal(IpAddr),
    /// A fixed relay.
    Relay(Relay),
}

impl From<MailDomain> for NextHop {
    fn from(domain: MailDomain) -> Self {
        match domain {
            MailDomain::Name(name) => Self::Domain(name),
            MailDomain::Literal(address) => Self::Literal(address),
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(name) => name.fmt(f),
            Self::Literal(address) => write!(f, "[{address}]"),
            Self::Relay(relay) => write!(f, "relay {relay}"),
        }
    }
}

#[cfg(test)]
mod tests;
