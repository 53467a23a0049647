//! Where clients connect.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use thiserror::Error;

use crate::clients::{Listener, SocketFile};

/// The rights to a socket: the user of the daemon and its group may connect.
const MODE: u32 = 0o660;

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

impl MetricsAddress {
    /// Returns the path of the socket, if it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// Listens. What a process that was killed has left behind at a path is replaced.
    pub(crate) fn listen(&self) -> Result<Listener, MetricsError> {
        let listener = match self {
            Self::Tcp(address) => Listener::at_address(*address),
            Self::Unix(path) => Listener::at_path(path, MODE),
        };
        listener.map_err(|source| MetricsError { address: self.clone(), source })
    }

    /// Checks that the user of this process could listen. What is in use already may be in use by a daemon at work. Changes
    /// nothing.
    pub(crate) fn check(&self) -> Result<(), MetricsError> {
        let checked = match self {
            Self::Tcp(address) => check_address(*address),
            Self::Unix(path) => SocketFile::check(path),
        };
        checked.map_err(|source| MetricsError { address: self.clone(), source })
    }
}

/// Binds an address as a listener does, and does not listen: nobody can connect meanwhile.
fn check_address(address: SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    match bind(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EADDRINUSE) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
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
        let listener = address.listen().unwrap();
        let error = address.listen().unwrap_err().to_string();
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        address.listen().unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
    }

    #[test]
    fn an_address_of_another_host_is_found_beforehand() {
        // Of a documentation network (RFC 5737), which no host has.
        let foreign = MetricsAddress::Tcp("192.0.2.1:9125".parse().unwrap());
        let error = foreign.check().unwrap_err().to_string();
        assert!(error.starts_with("metrics cannot be served at 192.0.2.1:9125: "), "{error}");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = MetricsAddress::Tcp(taken.local_addr().unwrap());
        taken.check().unwrap();
    }
}
