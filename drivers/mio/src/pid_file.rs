//! The file with the daemon's process id.
//!
//! It is opened while there are privileges, but not changed before the daemon holds the lock of the database: until then
//! it may contain the id of another daemon.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use thiserror::Error;

use crate::access::could_write;

/// The permissions of a new pid file: all users may read it.
const FILE_MODE: u32 = 0o644;

/// Why the pid file cannot be used.
#[derive(Debug, Error)]
pub enum PidFileError {
    /// It cannot be opened or created.
    #[error("the pid file {path} cannot be opened: {source}", path = .path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is a symbolic link, a file with a second name, a device or the like.
    #[error("the pid file {path} is not a regular file with a single name; remove it", path = .path.display())]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("the pid file {path} cannot be written: {source}", path = .path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The pid file of this process. Dropping it removes the file, or empties it where it cannot be removed.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
    /// Whether the file is this process's to remove.
    is_own: bool,
}

impl PidFile {
    /// Opens the file, or creates it empty. A file that exists is not changed yet.
    pub fn open(path: &Path) -> Result<Self, PidFileError> {
        let failed = |source| PidFileError::Open { path: path.to_owned(), source };
        let refused = |source: io::Error| match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP) => PidFileError::NotAFile { path: path.to_owned() },
            Some(_) | None => failed(source),
        };
        // A symbolic link of another user could lead root to any file.
        let mut options = OpenOptions::new();
        options.write(true).mode(FILE_MODE).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
        let (file, is_own) = match options.clone().create_new(true).open(path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (options.create(true).truncate(false).open(path).map_err(refused)?, false)
            }
            Err(error) => return Err(failed(error)),
        };
        // So could a second name (hard link).
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Err(PidFileError::NotAFile { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), file, is_own })
    }

    /// Checks that [`open`](Self::open) would succeed. Changes nothing.
    pub fn check(path: &Path) -> Result<(), PidFileError> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.is_file() || found.nlink() != 1 => {
                Err(PidFileError::NotAFile { path: path.to_owned() })
            }
            Ok(_) | Err(_) => {
                could_write(path).map_err(|source| PidFileError::Open { path: path.to_owned(), source })
            }
        }
    }

    /// Writes the id of this process. From now on the file is this process's own.
    pub fn write(&mut self) -> Result<(), PidFileError> {
        let line = format!("{}\n", process::id());
        let mut write = || {
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(line.as_bytes())
        };
        write().map_err(|source| PidFileError::Write { path: self.path.clone(), source })?;
        self.is_own = true;
        Ok(())
    }

    /// Returns whether the path still leads to the file that was opened.
    fn is_in_place(&self) -> bool {
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(opened), Ok(found)) => (opened.dev(), opened.ino()) == (found.dev(), found.ino()),
            _ => false,
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if !self.is_own {
            return;
        }
        let is_removed = self.is_in_place() && fs::remove_file(&self.path).is_ok();
        if !is_removed {
            // The daemon's user may not change the directory, but can still empty the open file.
            let _ = self.file.set_len(0);
        }
    }
}

#[cfg(test)]
mod tests;
