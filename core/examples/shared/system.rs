//! The needs of every executor beside its sockets.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};

use cmail_delivery::Now;
use cmail_delivery::io::ConnectError;
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
    match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::TimedOut => ConnectError::Remote(error.to_string()),
        _ => ConnectError::Local(error.to_string()),
    }
}
