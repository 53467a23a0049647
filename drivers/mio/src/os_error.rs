//! Describes errors of sockets, and tells local trouble from failures of the peer.

use std::io;

use cmail_delivery::io::ConnectError;
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
    let is_local = match error.raw_os_error().map(Errno::from_raw) {
        Some(
            Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOBUFS
            | Errno::ENOMEM
            | Errno::EADDRNOTAVAIL
            | Errno::EADDRINUSE
            | Errno::EAGAIN,
        ) => true,
        Some(_) | None => false,
    };
    let text = os_text(error);
    if is_local { ConnectError::Local(text) } else { ConnectError::Remote(text) }
}
