//! Where clients connect.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use thiserror::Error;

use super::client::Stream;

/// Where clients connect to ask for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// An address and port.
    Tcp(SocketAddr),
    /// The path of a socket.
    Unix(PathBuf),
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Why clients cannot connect.
#[derive(Debug, Error)]
#[error(
    "metrics cannot be served at {address}: {source}; change the directive metrics, or end what is in the way"
)]
pub struct MetricsError {
    address: MetricsAddress,
    source: io::Error,
}

/// The socket that clients connect to. The file of a path is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    path: Option<PathBuf>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens. What a process that was killed has left behind at a path is replaced.
    pub fn bind(address: &MetricsAddress) -> Result<Self, MetricsError> {
        let bound = match address {
            MetricsAddress::Tcp(address) => {
                TcpListener::bind(*address).map(|socket| (Socket::Tcp(socket), None))
            }
            MetricsAddress::Unix(path) => {
                bind_path(path).map(|socket| (Socket::Unix(socket), Some(path.clone())))
            }
        };
        match bound {
            Ok((socket, path)) => Ok(Self { socket, path }),
            Err(source) => Err(MetricsError { address: address.clone(), source }),
        }
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        match &mut self.socket {
            Socket::Tcp(socket) => socket,
            Socket::Unix(socket) => socket,
        }
    }

    pub(super) fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(socket) => socket.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Socket::Unix(socket) => socket.accept().map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            log::debug!("the socket {} cannot be removed: {error}", path.display());
        }
    }
}

fn bind_path(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

/// Returns whether a path is a socket that no process listens at.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let answer = std::os::unix::net::UnixStream::connect(path);
    is_socket && answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let address = MetricsAddress::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&address).unwrap();
        let error = Listener::bind(&address).unwrap_err().to_string();
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        Listener::bind(&address).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
    }
}
