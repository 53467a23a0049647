//! The UDP socket of one DNS query.

use std::io;
use std::net::{IpAddr, SocketAddr};

use cmail_delivery::io::ConnectError;
use cmail_delivery::system_error::NetworkTrouble;
use mio::net::UdpSocket;

use crate::os_error::{classify, os_text};

/// The result of [`Query::receive`].
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A datagram of this many octets is in the buffer.
    Datagram(usize),
    /// The network reports that the server is unreachable. The socket stays usable.
    Failed(ConnectError),
    /// There is nothing to do before the socket's next event.
    Idle,
}

/// The socket of one query, connected to its server: the kernel drops datagrams from other addresses, and reports if the
/// server's host answers that the port is closed.
#[derive(Debug)]
pub struct Query {
    socket: UdpSocket,
    server: SocketAddr,
    /// Whether the socket may hold more: its events come only once (edge-triggered).
    readable: bool,
}

impl Query {
    /// Sends a datagram from a new socket whose port the kernel chooses at random (RFC 5452 section 9.2).
    pub fn send(server: SocketAddr, octets: &[u8]) -> Result<Self, ConnectError> {
        let any: IpAddr = if server.is_ipv4() { [0_u8; 4].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))
            .and_then(|socket| socket.connect(server).map(|()| socket))
            .map_err(|error| {
                // Not the port is missing, but a local address of this family: the server is unreachable.
                let is_unreachable = error.kind() == io::ErrorKind::AddrNotAvailable;
                if is_unreachable {
                    ConnectError::remote(NetworkTrouble::NoLocalAddress, os_text(&error))
                } else {
                    classify(&error)
                }
            })?;
        socket.send(octets).map_err(|error| classify(&error))?;
        Ok(Self { socket, server, readable: false })
    }

    /// Returns the server, which the datagrams come from.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// Returns the socket for its registration with the poll, for reading only.
    pub fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    /// Takes in an event of the socket.
    pub fn on_event(&mut self) {
        self.readable = true;
    }

    /// Receives one datagram. A longer one than `buffer` is cut.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Arrival {
        while self.readable {
            match self.socket.recv(buffer) {
                Ok(count) => return Arrival::Datagram(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Arrival::Failed(classify(&error)),
            }
        }
        Arrival::Idle
    }
}
