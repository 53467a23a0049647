//! The UDP socket of one DNS query.

use std::io;
use std::net::{IpAddr, SocketAddr};

use cmail_delivery::io::ConnectError;
use mio::net::UdpSocket;

use crate::os_error::{classify, os_text};

/// What a turn of [`Query::receive`] came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A datagram of so many octets is in the buffer.
    Datagram(usize),
    /// The server is unreachable, as far as the network says. The socket goes on.
    Failed(ConnectError),
    /// Nothing before the socket's next event.
    Idle,
}

/// A socket of its own for each query, connected to its server: the kernel refuses what others send, and tells when the
/// server's host answers that nobody listens there.
#[derive(Debug)]
pub struct Query {
    socket: UdpSocket,
    server: SocketAddr,
    /// The socket may hold more: its events come once only (edge-triggered).
    readable: bool,
}

impl Query {
    /// Sends a datagram from a fresh socket whose port the kernel draws (RFC 5452 section 9.2).
    pub fn send(server: SocketAddr, octets: &[u8]) -> Result<Self, ConnectError> {
        let any: IpAddr = if server.is_ipv4() { [0_u8; 4].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))
            .and_then(|socket| socket.connect(server).map(|()| socket))
            .map_err(|error| {
                // Here no port is missing, but an address of this family: the server is out of reach.
                let is_unreachable = error.kind() == io::ErrorKind::AddrNotAvailable;
                if is_unreachable { ConnectError::Remote(os_text(&error)) } else { classify(&error) }
            })?;
        socket.send(octets).map_err(|error| classify(&error))?;
        Ok(Self { socket, server, readable: false })
    }

    /// Where the datagrams come from.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// For the registration with the poll; only reading is to be watched.
    pub fn source(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }

    /// The socket had an event.
    pub fn on_event(&mut self) {
        self.readable = true;
    }

    /// Takes one datagram. What is longer than `buffer` is cut.
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
