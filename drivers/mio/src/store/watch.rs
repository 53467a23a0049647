//! Reports writes to the files of the database, by this process or another.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};

use super::paths::{directory_of, with_suffix};

/// A watch on a database's files. Its descriptor is readable when [`drain`](Self::drain) has something to do.
///
/// The database, its write-ahead log and its rollback journal are watched for writes, and their directory for files of these
/// names that appear or disappear. The shared memory of a database in WAL mode is not watched for writes, because readers
/// write it too.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: Inotify,
    directory: PathBuf,
    /// The names of the files in it that are written to when something changes.
    names: [OsString; 3],
    /// The name of the shared memory.
    index: OsString,
}

impl Watch {
    /// Watches the database of this canonical path, [`Database::path`](super::Database::path). Returns `None`, with a warning,
    /// if the system has no more watches: then the outbox is scanned once in each interval.
    pub(crate) fn new(database: &Path) -> Option<Self> {
        Self::try_new(database)
            .inspect_err(|errno| {
                log::warn!(
                    "cannot watch the files of the database {}: {}; new mail waits for the next interval",
                    database.display(),
                    errno.desc()
                );
            })
            .ok()
    }

    fn try_new(database: &Path) -> nix::Result<Self> {
        let name =
            |suffix| with_suffix(database, suffix).file_name().map(OsStr::to_owned).ok_or(Errno::EINVAL);
        let watch = Self {
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
            directory: directory_of(database).to_path_buf(),
            names: [name("")?, name("-wal")?, name("-journal")?],
            index: name("-shm")?,
        };
        watch.inotify.add_watch(
            &watch.directory,
            AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_MOVED_FROM
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_DELETE_SELF
                | AddWatchFlags::IN_MOVE_SELF
                | AddWatchFlags::IN_ONLYDIR,
        )?;
        for name in &watch.names {
            watch.add_file(name)?;
        }
        Ok(watch)
    }

    /// Reads all events, and returns whether one concerned the database.
    pub(crate) fn drain(&mut self) -> bool {
        let mut is_ours = false;
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in &events {
                        is_ours |= self.take_in(event);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return is_ours,
                Err(errno) => {
                    log::warn!(
                        "cannot read the changes of the files in {}: {}",
                        self.directory.display(),
                        errno.desc()
                    );
                    return true;
                }
            }
        }
    }

    fn take_in(&self, event: &InotifyEvent) -> bool {
        let Some(name) = &event.name else {
            // A write to one of the files, or the loss of events. The end of a watch is no news: the event of the directory
            // has reported it.
            return !event.mask.contains(AddWatchFlags::IN_IGNORED);
        };
        if *name == self.index {
            return true;
        }
        if !self.names.contains(name) {
            return false;
        }
        if event.mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)
            && let Err(errno) = self.add_file(name)
        {
            log::warn!("cannot watch {}: {}", self.directory.join(name).display(), errno.desc());
        }
        true
    }

    /// Watches a file of the directory, if it exists.
    fn add_file(&self, name: &OsStr) -> nix::Result<()> {
        let path = self.directory.join(name);
        match self.inotify.add_watch(&path, AddWatchFlags::IN_MODIFY) {
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
