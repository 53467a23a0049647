//! A socket that has a path: it is the daemon's as long as it is there.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{self, SocketAddr};
use std::path::{Path, PathBuf};

use mio::net::{UnixListener, UnixStream};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};

use crate::access;

/// How many clients may wait to be accepted.
const BACKLOG: i32 = 128;

/// The longest path of a socket: what `sun_path` of unix(7) holds, without the octet that ends it.
pub(crate) const PATH_LIMIT_OCTETS: usize = 107;

/// The file of a socket. It is removed when it is dropped, unless another socket has taken its path.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    mode: u32,
    /// The device and the inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Listens at a path, with these rights to it, whatever the umask is. What a process that was killed has left behind there
    /// is replaced.
    pub(super) fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, Self)> {
        let listener = match bind_with(path, mode) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
                fs::remove_file(path)?;
                bind_with(path, mode)?
            }
            bound => bound?,
        };
        let file = Self { path: path.to_owned(), mode, identity: identity(path)? };
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        Ok((listener, file))
    }

    /// Returns whether clients can still find the socket.
    pub(super) fn is_in_place(&self) -> bool {
        identity(&self.path).is_ok_and(|found| found == self.identity)
    }

    /// Listens at the same path with the same rights, once the file is gone.
    pub(super) fn bind_again(&self) -> io::Result<(UnixListener, Self)> {
        Self::bind(&self.path, self.mode)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the user of this process could listen at a path. A socket that somebody listens at is taken for that of a
    /// daemon which is at work. Changes nothing.
    pub(crate) fn check(path: &Path) -> io::Result<()> {
        SocketAddr::from_pathname(path)?;
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => Err(Errno::EADDRINUSE.into()),
            Ok(_) => access::could_create_beside(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => access::could_create_beside(path),
            Err(error) => Err(error),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let removed = match identity(&self.path) {
            Ok(found) if found == self.identity => fs::remove_file(&self.path),
            Ok(_) => return,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            log::debug!("the socket {} cannot be removed: {error}", self.path.display());
        }
    }
}

/// Listens at a path that is free. There is no moment at which others than `mode` says could connect: the file gets the rights of the
/// socket, as far as the umask allows them.
fn bind_with(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&socket, Mode::from_bits_truncate(mode))?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(UnixListener::from_std(net::UnixListener::from(socket)))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Returns whether a path is a socket that no process listens at. A process that listens and is slow to accept is not waited for.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    is_socket
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net;

    use super::*;

    #[test]
    fn those_may_connect_who_are_meant_from_the_first_moment_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        for mode in [0o600, 0o660] {
            let listener = bind_with(&path, mode).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777 & !mode, 0);
            drop(listener);
            let (_listener, _file) = SocketFile::bind(&path, mode).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn the_socket_of_another_process_is_neither_removed_nor_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (listener, file) = SocketFile::bind(&path, 0o660).unwrap();
        fs::remove_file(&path).unwrap();
        let other = net::UnixListener::bind(&path).unwrap();
        drop((listener, file));
        assert!(path.exists());
        // So many that a connection that waits for room would hang.
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path) {
            waiting.push(stream);
        }
        assert_eq!(SocketFile::bind(&path, 0o660).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(other);
        SocketFile::bind(&path, 0o660).unwrap();
    }

    #[test]
    fn what_cannot_be_bound_is_found_beforehand() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        SocketFile::check(&path).unwrap();
        assert!(!path.exists());
        drop(net::UnixListener::bind(&path).unwrap());
        SocketFile::check(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        let missing = directory.path().join("missing/socket");
        let long = directory.path().join("x".repeat(108));
        for refused in [&path, &missing, &long] {
            SocketFile::check(refused).unwrap_err();
            SocketFile::bind(refused, 0o660).unwrap_err();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
    }
}
