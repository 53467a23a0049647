//! The file of the database: checks that it is a database, and locks it against other processes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::statfs::fstatfs;
use nix::unistd::AccessFlags;

use super::error::{LockError, OpenError};
use super::lock_holder::flock_holder;
use super::paths::{FileId, access, directory_of};

/// How every SQLite database begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Filesystems that implement `flock` by the same locks that SQLite uses for parts of a file, so that both would collide:
/// NFS, three of SMB, 9P, two of AFS, and Lustre (`f_type` of statfs(2)).
const WITHOUT_FLOCK: [u32; 8] =
    [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x5346_414f, 0x6b41_4653, 0x0bd0_0bd0];

/// The file of a database that exists, open for reading.
///
/// It is opened before SQLite opens the file, and closed after SQLite has closed it: when a process closes any descriptor of
/// a file, POSIX drops all its locks on that file. For the same reason nothing else in this program opens the file while
/// SQLite has it open.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    path: PathBuf,
    file: File,
}

impl DatabaseFile {
    /// Opens an existing database, and follows symbolic links. Changes nothing.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let unreadable = |source: io::Error| {
            if source.kind() == io::ErrorKind::NotFound {
                OpenError::Missing(path.to_path_buf())
            } else {
                OpenError::Unreadable { path: path.to_path_buf(), source }
            }
        };
        if !fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(OpenError::NotAFile(path.to_path_buf()));
        }
        let path = fs::canonicalize(path).map_err(unreadable)?;
        // If it has become a named pipe meanwhile, opening it does not wait.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
        let mut file = options.open(&path).map_err(unreadable)?;
        let mut beginning = Vec::new();
        file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut beginning).map_err(unreadable)?;
        match &beginning[..] {
            found if found == MAGIC => Ok(Self { path, file }),
            [] => Err(OpenError::WrongSchema { path, found: "it is an empty file".to_owned() }),
            _ => Err(OpenError::NotADatabase(path)),
        }
    }

    /// Returns the canonical path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the path still leads to this file.
    pub(super) fn is_in_place(&self) -> bool {
        let found = FileId::of(&self.path).ok();
        found.is_some() && found == self.id()
    }

    /// Returns the file's id. It is not stored, because on an overlay filesystem the first write can change it.
    fn id(&self) -> Option<FileId> {
        self.file.metadata().ok().map(|metadata| FileId::from(&metadata))
    }

    /// Checks that this process may write the file, and the journal beside it.
    pub(crate) fn ensure_writable(&self) -> Result<(), OpenError> {
        if access(&self.path, AccessFlags::W_OK).is_err() {
            return Err(OpenError::ReadOnly(self.path.clone()));
        }
        let directory = directory_of(&self.path);
        if access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
            return Err(OpenError::DirectoryReadOnly(directory.to_path_buf()));
        }
        Ok(())
    }

    /// Locks the file itself, because a hard link or a second mount of it has another lock file. The lock lasts until this is
    /// dropped.
    pub(super) fn lock(&self) -> Result<(), LockError> {
        let path = self.path.display();
        if !self.has_flock() {
            log::warn!(
                "the database {path} is on a network filesystem, so a second daemon is kept off only if it uses the \
                 same name; start no daemon for it on another host"
            );
            return Ok(());
        }
        match self.file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => {
                Err(LockError::held(&self.path, self.id().and_then(flock_holder)))
            }
            Err(TryLockError::Error(error)) => {
                log::warn!(
                    "the database {path} cannot be locked by flock ({error}), so a second daemon is kept off only if \
                     it uses the same name"
                );
                Ok(())
            }
        }
    }

    fn has_flock(&self) -> bool {
        fstatfs(&self.file).map_or(true, |found| {
            // A magic number has 32 bits, though its type may be wider.
            u32::try_from(found.filesystem_type().0).is_ok_and(|kind| !WITHOUT_FLOCK.contains(&kind))
        })
    }
}

#[cfg(test)]
mod tests;
