//! The needs of every executor beside its sockets.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};

use cmail_delivery::Now;
use cmail_delivery::io::ConnectError;
use cmail_delivery::system_error::{Breakage, MachineTrouble, NetworkTrouble, SystemError};
use cmail_delivery::time::{Instant, UnixTime};

/// Reads both clocks. The monotonic one begins with `clock`.
pub(crate) fn now(clock: Clock) -> Now {
    let monotonic = Instant::from_micros(u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX));
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = UnixTime(i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX));
    Now { monotonic, wall, since_second: Duration::from_nanos(since_1970.subsec_nanos().into()) }
}

/// Returns the address of a socket that sends to another. The system chooses its port.
pub(crate) fn any_address(to: SocketAddr) -> SocketAddr {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, 0)
}

/// Distinguishes failures of the network or the peer from trouble of this machine, which costs no mail an attempt.
#[allow(clippy::wildcard_enum_match_arm, reason = "the kinds are not all known")]
pub(crate) fn connect_error(error: &io::Error) -> ConnectError {
    match network_trouble(error) {
        NetworkTrouble::Other => ConnectError::local(MachineTrouble::Other, error.to_string()),
        trouble => ConnectError::remote(trouble, error.to_string()),
    }
}

/// Tells why a connection broke.
pub(crate) fn broken(error: &io::Error) -> SystemError<Breakage> {
    SystemError::new(network_trouble(error), error.to_string())
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the kinds are not all known")]
fn network_trouble(error: &io::Error) -> NetworkTrouble {
    match error.kind() {
        ErrorKind::ConnectionRefused => NetworkTrouble::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => NetworkTrouble::Reset,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => NetworkTrouble::Unreachable,
        ErrorKind::TimedOut => NetworkTrouble::TimedOut,
        _ => NetworkTrouble::Other,
    }
}
