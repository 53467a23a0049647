//! Where clients connect.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use thiserror::Error;

use super::client::Stream;
use super::socket_file::SocketFile;

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

/// The socket that clients connect to.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// If it has a path.
    _file: Option<SocketFile>,
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
                SocketFile::bind(path).map(|(socket, file)| (Socket::Unix(socket), Some(file)))
            }
        };
        match bound {
            Ok((socket, file)) => Ok(Self { socket, _file: file }),
            Err(source) => Err(MetricsError { address: address.clone(), source }),
        }
    }

    /// Checks that the user of this process could listen. What is in use already may be in use by a daemon at work. Changes
    /// nothing.
    pub fn check(address: &MetricsAddress) -> Result<(), MetricsError> {
        let checked = match address {
            MetricsAddress::Tcp(address) => check_address(*address),
            MetricsAddress::Unix(path) => SocketFile::check(path),
        };
        checked.map_err(|source| MetricsError { address: address.clone(), source })
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
        let listener = Listener::bind(&address).unwrap();
        let error = Listener::bind(&address).unwrap_err().to_string();
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        Listener::bind(&address).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
    }

    #[test]
    fn an_address_of_another_host_is_found_beforehand() {
        // Of a documentation network (RFC 5737), which no host has.
        let foreign = MetricsAddress::Tcp("192.0.2.1:9125".parse().unwrap());
        let error = Listener::check(&foreign).unwrap_err().to_string();
        assert!(error.starts_with("metrics cannot be served at 192.0.2.1:9125: "), "{error}");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = MetricsAddress::Tcp(taken.local_addr().unwrap());
        Listener::check(&taken).unwrap();
    }
}
