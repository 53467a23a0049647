//! Errors of sockets: what they are called, and whose fault they are.

use std::io;

use cmail_delivery::io::ConnectError;
use nix::errno::Errno;

/// What the system says about an error, without numbers and file names.
pub fn os_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}

/// Whose fault an error of a socket is. What this machine lacks is no failure of any mail.
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
