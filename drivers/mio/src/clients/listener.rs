//! A socket that clients connect to, and theirs.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::Path;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Uid;

use super::socket_file::SocketFile;

/// The socket that clients connect to.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    /// If it has a path.
    file: Option<SocketFile>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens at an address and port.
    pub(crate) fn at_address(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: Socket::Tcp(TcpListener::bind(address)?), file: None })
    }

    /// Listens at a path, with these rights to it. What a process that was killed has left behind there is replaced.
    pub(crate) fn at_path(path: &Path, mode: u32) -> io::Result<Self> {
        let (socket, file) = SocketFile::bind(path, mode)?;
        Ok(Self { socket: Socket::Unix(socket), file: Some(file) })
    }

    /// Returns the file of the socket if somebody has removed it, so that no client finds it.
    pub(super) fn lost_file(&self) -> Option<&SocketFile> {
        self.file.as_ref().filter(|file| !file.is_in_place())
    }

    /// Listens at the path of a file that was removed.
    pub(super) fn in_place_of(lost: &SocketFile) -> io::Result<Self> {
        let (socket, file) = lost.bind_again()?;
        Ok(Self { socket: Socket::Unix(socket), file: Some(file) })
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

/// The socket of a client.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Tells the client that nothing more comes.
    pub(crate) fn finish(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Returns the user of the process that has connected; nothing if the kernel does not know it.
    pub(crate) fn user(&self) -> Option<Uid> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(stream) => {
                let peer = getsockopt(stream, sockopt::PeerCredentials).ok()?;
                Some(Uid::from_raw(peer.uid()))
            }
        }
    }

    /// Returns whether the client has closed its end, so that it can be told nothing any more. One that only says nothing more has not.
    pub(crate) fn has_hung_up(&self) -> bool {
        let descriptor = match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        };
        // The system tells that without being asked for it.
        let mut polled = [PollFd::new(descriptor, PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    pub(super) fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(octets),
            Self::Unix(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
