//! Describes errors of sockets, and tells local trouble from failures of the peer.

use std::io;

use cmail_delivery::io::ConnectError;
use cmail_delivery::system_error::{Breakage, MachineTrouble, NetworkTrouble, SystemError};
use nix::errno::Errno;

/// Returns the system's description of an error, without numbers and file names.
pub fn os_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}

/// Tells whether an error is the peer's or this machine's. If this machine lacks resources, no mail has failed.
pub fn classify(error: &io::Error) -> ConnectError {
    match machine_trouble(error) {
        Some(lack) => ConnectError::local(lack, os_text(error)),
        None => ConnectError::remote(network_trouble(error), os_text(error)),
    }
}

/// Returns what this machine lacks, if that is the reason of an error.
pub fn machine_trouble(error: &io::Error) -> Option<MachineTrouble> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE) => Some(MachineTrouble::Descriptors),
        Some(Errno::ENOBUFS | Errno::ENOMEM) => Some(MachineTrouble::Memory),
        Some(Errno::EADDRNOTAVAIL | Errno::EADDRINUSE | Errno::EAGAIN) => Some(MachineTrouble::Ports),
        Some(_) | None => None,
    }
}

/// Describes why a connection broke.
pub fn broken(error: &io::Error) -> SystemError<Breakage> {
    SystemError::new(network_trouble(error), os_text(error))
}

fn network_trouble(error: &io::Error) -> NetworkTrouble {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => NetworkTrouble::Refused,
        Some(Errno::ECONNRESET | Errno::ECONNABORTED | Errno::EPIPE) => NetworkTrouble::Reset,
        Some(Errno::ETIMEDOUT) => NetworkTrouble::TimedOut,
        Some(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN | Errno::ENETDOWN) => {
            NetworkTrouble::Unreachable
        }
        Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT) => NetworkTrouble::NoLocalAddress,
        Some(Errno::EACCES | Errno::EPERM) => NetworkTrouble::Forbidden,
        Some(_) | None => NetworkTrouble::Other,
    }
}
