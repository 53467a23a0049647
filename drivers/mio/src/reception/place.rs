//! Where programs hand over messages.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::clients::{Listener, SocketFile};
use crate::shown;

/// The rights to the socket: everybody may connect.
const MODE: u32 = 0o666;

/// A socket, and what is taken there.
#[derive(Debug)]
pub(crate) struct Reception {
    pub(super) listener: Listener,
    /// The most octets of a message, counted once for each recipient.
    pub(super) limit_octets: usize,
}

/// Why no message can be handed over.
#[derive(Debug, Error)]
#[error(
    "messages cannot be taken at {}: {source}; change the directive submit, or remove what is in the way",
    shown::path(.path)
)]
pub struct ReceptionError {
    path: PathBuf,
    source: io::Error,
}

impl Reception {
    /// Listens. What a process that was killed has left behind is replaced.
    pub(crate) fn open(path: &Path, limit_octets: usize) -> Result<Self, ReceptionError> {
        let listener = Listener::at_path(path, MODE);
        let listener = listener.map_err(|source| ReceptionError { path: path.to_owned(), source })?;
        Ok(Self { listener, limit_octets })
    }

    /// Checks that the user of this process could listen. Changes nothing.
    pub(crate) fn check(path: &Path) -> Result<(), ReceptionError> {
        SocketFile::check(path).map_err(|source| ReceptionError { path: path.to_owned(), source })
    }
}
