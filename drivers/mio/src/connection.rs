//! One TCP connection, in plain text or with TLS. It never blocks, and holds only a bounded number of octets.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use bytes::{Buf, BytesMut};
use cmail_delivery::io::{CloseReason, ConnectError, Tls};
use cmail_delivery::system_error::{Breakage, MachineTrouble, NetworkTrouble, SystemError, TlsTrouble};
use mio::event::Event;
use mio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, setsockopt, sockopt,
};

use crate::os_error::{broken, classify};
use crate::tls::{TlsRead, TlsSession};

/// Octets of mail that are pulled at a time, and so the most that wait here for the socket.
pub const PULL_OCTETS: usize = 64 * 1024;

/// With fewer octets to write, more are pulled first.
const TOGETHER_OCTETS: usize = PULL_OCTETS / 2;

/// Octets that one connection sends before it is the others' turn.
pub const TURN_OCTETS: usize = 4 * PULL_OCTETS;

/// The result of [`Connection::advance`].
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is nothing to do before the socket's next event.
    Idle,
    /// There is nothing to report, but more to do.
    Again,
    /// The connection is established.
    Connected,
    /// The connection could not be established. This is final.
    ConnectFailed(ConnectError),
    /// This many octets are in the buffer.
    Received(usize),
    /// The TLS handshake is done.
    TlsEstablished(Tls),
    /// The TLS handshake failed. This is final.
    TlsFailed(SystemError<Breakage>),
    /// The connection is closed. This is final.
    Closed(CloseReason),
}

impl Progress {
    /// Returns whether the connection has ended.
    pub fn is_final(&self) -> bool {
        match self {
            Self::ConnectFailed(_) | Self::TlsFailed(_) | Self::Closed(_) => true,
            Self::Idle | Self::Again | Self::Connected | Self::Received(_) | Self::TlsEstablished(_) => false,
        }
    }
}

#[derive(Debug)]
enum Stage {
    Connecting,
    Clear,
    Tls(Box<TlsSession>),
    /// TLS could not begin.
    NoTls(SystemError<Breakage>),
}

/// A socket, and the octets that wait for it.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    remote: SocketAddr,
    stage: Stage,
    /// Octets that go to the socket unencrypted.
    clear: BytesMut,
    /// Octets that are not encrypted yet.
    plaintext: BytesMut,
    /// Whether the dispatcher may have more to send.
    wants_transmit: bool,
    /// Whether the socket may hold more: its events come only once (edge-triggered).
    readable: bool,
    writable: bool,
    /// Whether the peer has closed, or the connection has broken: that is read last, and causes no further event.
    is_ending: bool,
    /// Why nothing more can be sent. The peer's last words are read before this is reported.
    send_failure: Option<SystemError<Breakage>>,
}

impl Connection {
    /// Begins to connect, from `local` if it is given.
    pub fn open(remote: SocketAddr, local: Option<IpAddr>) -> Result<Self, ConnectError> {
        let socket = connect(remote, local)?;
        Ok(Self {
            socket,
            remote,
            stage: Stage::Connecting,
            clear: BytesMut::new(),
            plaintext: BytesMut::new(),
            wants_transmit: false,
            readable: false,
            writable: false,
            is_ending: false,
            send_failure: None,
        })
    }

    /// Returns the address of the peer.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Returns the socket for its registration with the poll, for both directions.
    pub fn source(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Takes in an event of the socket.
    pub fn on_event(&mut self, event: &Event) {
        let has_failed = event.is_error();
        self.is_ending |= event.is_read_closed() || has_failed;
        self.readable |= event.is_readable() || self.is_ending;
        self.writable |= event.is_writable() || event.is_write_closed() || has_failed;
    }

    /// Notes that the dispatcher has something to send.
    pub fn request_transmit(&mut self) {
        self.wants_transmit = true;
    }

    /// Begins TLS: everything that is received or pulled from now on goes through `session`.
    pub fn start_tls(&mut self, session: Result<TlsSession, SystemError<Breakage>>) {
        self.stage = match (&self.stage, session) {
            (Stage::Clear, Ok(session)) => Stage::Tls(Box::new(session)),
            (Stage::Clear, Err(reason)) => Stage::NoTls(reason),
            (Stage::Connecting, _) => {
                Stage::NoTls(not_begun("TLS was requested before the connection was established"))
            }
            (Stage::Tls(_) | Stage::NoTls(_), _) => Stage::NoTls(not_begun("TLS was requested twice")),
        };
    }

    /// Does what can be done without waiting, up to the first thing to report. `pull` appends up to about the given number
    /// of octets to send, and returns false if it has none. `buffer` must not be empty.
    pub fn advance(&mut self, buffer: &mut [u8], pull: impl FnMut(usize, &mut BytesMut) -> bool) -> Progress {
        match &mut self.stage {
            Stage::Connecting => return self.finish_connecting(),
            Stage::NoTls(reason) => return Progress::TlsFailed(reason.clone()),
            Stage::Clear | Stage::Tls(_) => {}
        }
        if self.send_failure.is_none()
            && let Err(error) = self.send(pull)
        {
            self.send_failure = Some(broken(&error));
            self.clear = BytesMut::new();
            self.plaintext = BytesMut::new();
            // The peer's last words, and its end of the stream, can be read even without an event.
            self.readable = true;
        }
        let progress = self.receive(buffer);
        if progress != Progress::Idle {
            return progress;
        }
        if let Some(reason) = self.send_failure.take() {
            return self.broken(reason);
        }
        let has_more_to_send = self.wants_transmit && self.writable && self.is_open_for_mail();
        if has_more_to_send { Progress::Again } else { Progress::Idle }
    }

    /// Closes the connection, after writing as much of the pulled octets as the socket takes at once.
    pub fn close(mut self) {
        if self.send_failure.is_some() {
            return;
        }
        // The connection is closed next, whether this is flushed or not.
        let is_flushed = self.flush().unwrap_or(false);
        if let Stage::Tls(session) = &mut self.stage
            && is_flushed
        {
            session.close(&mut self.socket);
        }
    }

    fn finish_connecting(&mut self) -> Progress {
        if !self.writable && !self.readable {
            return Progress::Idle;
        }
        let failure = match self.socket.take_error() {
            Ok(None) => match self.socket.peer_addr() {
                Ok(_) => return self.begin_conversation(),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    // A spurious event.
                    (self.readable, self.writable) = (false, false);
                    return Progress::Idle;
                }
                Err(error) => error,
            },
            // A connection that was not made is refused: this one was, and what the peer has said before it left can be read.
            Ok(Some(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                return self.begin_conversation();
            }
            Ok(Some(error)) | Err(error) => error,
        };
        Progress::ConnectFailed(classify(&failure))
    }

    fn begin_conversation(&mut self) -> Progress {
        self.stage = Stage::Clear;
        (self.readable, self.writable) = (true, true);
        Progress::Connected
    }

    /// Returns whether octets can be pulled: not before a handshake is done.
    fn is_open_for_mail(&self) -> bool {
        match &self.stage {
            Stage::Connecting | Stage::NoTls(_) => false,
            Stage::Clear => true,
            Stage::Tls(session) => session.is_established(),
        }
    }

    /// Pulls and writes until the socket takes no more, there is no more, or it is the others' turn. It pulls only after the
    /// kernel has taken all that was pulled before: this is the backpressure.
    fn send(&mut self, mut pull: impl FnMut(usize, &mut BytesMut) -> bool) -> io::Result<()> {
        let mut sent = 0;
        while self.writable {
            if !self.flush()? {
                self.writable = false;
                break;
            }
            if !self.wants_transmit || !self.is_open_for_mail() {
                self.release_buffers();
                break;
            }
            if sent >= TURN_OCTETS {
                break;
            }
            let outgoing = match &self.stage {
                Stage::Tls(_) => &mut self.plaintext,
                Stage::Connecting | Stage::Clear | Stage::NoTls(_) => &mut self.clear,
            };
            // Small pieces, such as commands and a short message, are written together.
            let mut has_more = true;
            while has_more && outgoing.len() < TOGETHER_OCTETS {
                let before = outgoing.len();
                has_more = pull(PULL_OCTETS - before, outgoing) && outgoing.len() > before;
            }
            sent += outgoing.len();
            self.wants_transmit = has_more;
        }
        Ok(())
    }

    /// Writes what was pulled; returns false if the socket does not take all of it now.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.clear.is_empty() {
            match self.socket.write(&self.clear) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.clear.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let Stage::Tls(session) = &mut self.stage else { return Ok(true) };
        loop {
            if !session.flush(&mut self.socket)? {
                return Ok(false);
            }
            if self.plaintext.is_empty() || !session.is_established() {
                return Ok(true);
            }
            session.encrypt(&mut self.plaintext);
        }
    }

    /// Frees empty buffers, so that an idle connection costs little.
    fn release_buffers(&mut self) {
        if self.clear.is_empty() {
            self.clear = BytesMut::new();
        }
        if self.plaintext.is_empty() {
            self.plaintext = BytesMut::new();
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Progress {
        if !self.readable {
            return Progress::Idle;
        }
        let Stage::Tls(session) = &mut self.stage else { return self.receive_clear(buffer) };
        match session.read(&mut self.socket, buffer) {
            TlsRead::Established(tls) => Progress::TlsEstablished(tls),
            TlsRead::Octets(count) => Progress::Received(count),
            TlsRead::EndOfFile => Progress::Closed(CloseReason::EndOfFile),
            TlsRead::Again => Progress::Again,
            TlsRead::Failed(reason) => self.broken(reason),
            TlsRead::Blocked => {
                self.readable = false;
                self.answer_records()
            }
        }
    }

    /// Sends what TLS wants to send after reading: its part of the handshake, or a key update.
    fn answer_records(&mut self) -> Progress {
        if !self.writable || self.send_failure.is_some() {
            return Progress::Idle;
        }
        match self.flush() {
            Ok(is_flushed) => {
                self.writable = is_flushed;
                Progress::Idle
            }
            Err(error) => {
                self.send_failure = Some(broken(&error));
                self.readable = true;
                Progress::Again
            }
        }
    }

    fn receive_clear(&mut self, buffer: &mut [u8]) -> Progress {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Progress::Closed(CloseReason::EndOfFile),
                Ok(count) => {
                    // A short read of a stream means that there is no more for now (epoll(7)).
                    self.readable = count == buffer.len() || self.is_ending;
                    return Progress::Received(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Progress::Idle;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.broken(broken(&error)),
            }
        }
    }

    fn broken(&self, reason: SystemError<Breakage>) -> Progress {
        match &self.stage {
            Stage::Tls(session) if !session.is_established() => Progress::TlsFailed(reason),
            Stage::Tls(_) | Stage::Connecting | Stage::Clear | Stage::NoTls(_) => {
                Progress::Closed(CloseReason::Broken(reason))
            }
        }
    }
}

fn not_begun(words: &str) -> SystemError<Breakage> {
    SystemError::new(TlsTrouble::NotBegun, words)
}

fn connect(remote: SocketAddr, local: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
    let family = if remote.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(family, SockType::Stream, flags, SockProtocol::Tcp)
        .map_err(|e| classify(&e.into()))?;
    // Commands are written whole, so delaying them only costs time. The option is not essential.
    let _ = setsockopt(&socket, sockopt::TcpNoDelay, &true);
    if let Some(local) = local {
        bind(&socket, local).map_err(|errno| {
            let text = format!("the local address {local} cannot be used: {}", errno.desc());
            ConnectError::local(MachineTrouble::LocalAddress, text)
        })?;
    }
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(remote)) {
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {
            Ok(TcpStream::from_std(std::net::TcpStream::from(socket)))
        }
        Err(Errno::EADDRNOTAVAIL) if local.is_none() && !has_source_address(remote) => {
            Err(ConnectError::remote(
                NetworkTrouble::NoLocalAddress,
                "there is no local address to reach it from",
            ))
        }
        Err(errno) => Err(classify(&errno.into())),
    }
}

fn bind(socket: &OwnedFd, local: IpAddr) -> nix::Result<()> {
    // The kernel chooses the port when the peer is known, so that connections to different peers can share the ports of one
    // local address. The option is not essential.
    #[cfg(target_os = "linux")]
    let _ = setsockopt(socket, sockopt::IpBindAddressNoPort, &true);
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(local, 0)))
}

/// Returns whether the kernel has an address to reach `remote` from. EADDRNOTAVAIL means two things: all ports are in use,
/// which is trouble of this machine, or there is no address of this family, which makes `remote` unreachable. Connections
/// do not use up the ports of datagrams, so a datagram socket tells the two apart.
fn has_source_address(remote: SocketAddr) -> bool {
    let any: IpAddr = if remote.is_ipv4() { [0_u8; 4].into() } else { [0_u16; 8].into() };
    match UdpSocket::bind((any, 0)).and_then(|probe| probe.connect(remote)) {
        Ok(()) => true,
        Err(error) => error.raw_os_error() != Some(Errno::EADDRNOTAVAIL as i32),
    }
}

#[cfg(test)]
mod tests;
