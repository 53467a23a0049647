//! Opens the log file, such that root is not led to another file, and such that the daemon's user can reopen it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::{self, Gid, Uid};

use super::LogError;
use super::place::{Place, PlaceError};
use crate::access::could_write;

/// The permissions of a new log file: not all users may see what mail goes where.
const FILE_MODE: u32 = 0o640;

/// The owner of log files that root creates: the user that the daemon runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: Uid,
    /// The user's group.
    pub gid: Gid,
}

/// A log file that can be reopened.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    owner: Option<Owner>,
}

impl LogFile {
    pub(super) fn new(path: &Path, owner: Option<Owner>) -> Self {
        Self { path: path.to_owned(), owner }
    }

    /// Opens the file to append to it, and creates it if it is missing. Never waits for the reader of a named pipe.
    pub(super) fn open(&self) -> Result<File, LogError> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let opened = if Uid::effective().is_root() {
            self.open_as_root(flags)
        } else {
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(FILE_MODE).custom_flags(flags.bits());
            options.open(&self.path).map_err(PlaceError::from)
        };
        let file = opened.map_err(|error| self.failed(error))?;
        // `O_NONBLOCK` was for opening only. Writes may wait for the slow reader of a pipe: a separate thread does them.
        let flags = fcntl(&file, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
        let blocking = flags.and_then(|flags| fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK)));
        blocking.map_err(|errno| self.failed(errno.into()))?;
        Ok(file)
    }

    /// Opens the file as root. A new file is given to the user, who may have to reopen it. So is a file that an earlier start
    /// by root left in a directory of that user, who controls the directory anyway. In any other directory a file of root
    /// stays root's: `logfile` may name it by mistake.
    fn open_as_root(&self, flags: OFlag) -> Result<File, PlaceError> {
        let place = Place::find(&self.path)?;
        let (file, is_new) = place.open(flags, Mode::from_bits_truncate(FILE_MODE))?;
        let file = File::from(file);
        if let Some(Owner { uid, gid }) = self.owner {
            let metadata = file.metadata()?;
            let is_left_over = metadata.is_file()
                && metadata.nlink() == 1
                && Uid::from_raw(metadata.uid()).is_root()
                && place.directory_owner() == uid;
            if is_new || is_left_over {
                // Some file systems have no owners. The log is open all the same.
                let _ = unistd::fchown(&file, Some(uid), Some(gid));
            }
        }
        Ok(file)
    }

    /// Checks that the file could be opened. Changes nothing.
    pub(super) fn check(&self) -> Result<(), LogError> {
        let checked = if Uid::effective().is_root() {
            Place::find(&self.path).and_then(|place| place.check())
        } else {
            could_write(&self.path).map_err(PlaceError::from)
        };
        checked.map_err(|error| self.failed(error))
    }

    fn failed(&self, source: PlaceError) -> LogError {
        LogError::Open { path: self.path.clone(), source }
    }
}

/// Returns whether a file ends in the middle of a line, after a program was killed or the disk was full.
pub(super) fn is_torn(file: &File) -> bool {
    let Ok(metadata) = file.metadata() else { return false };
    let (true, Some(last)) = (metadata.is_file(), metadata.len().checked_sub(1)) else { return false };
    // The file itself is open for writing only.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    let mut octet = [b'\n'];
    File::open(path).is_ok_and(|file| file.read_exact_at(&mut octet, last).is_ok()) && octet != [b'\n']
}

#[cfg(test)]
mod tests;
