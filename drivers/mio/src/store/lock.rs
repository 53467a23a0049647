//! The lock that lets only one process work on a database at a time.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, Gid, Uid, fchown};

use super::database_file::DatabaseFile;
use super::error::LockError;
use super::lock_holder::{described, flock_holder, holder};
use super::paths::{FileId, access, with_suffix};

/// How often a lock file that names no living process is read: its holder may be about to write its id.
const HOLDER_ATTEMPTS: u32 = 20;

/// The pause between two such attempts.
const HOLDER_PAUSE: Duration = Duration::from_millis(10);

/// The right to work on a database. It ends when this is dropped, or when the process ends or is killed.
///
/// It is a lock on the file `<database>.dispatch-lock` beside the database (after its symbolic links are followed), and it
/// belongs to the open file: a child process inherits it by fork and keeps it when its parent ends. The file is never
/// removed, because then two processes could lock two files of that name. The [`DatabaseFile`] is locked as well, because
/// the same file may have several names.
#[derive(Debug)]
pub(crate) struct DatabaseLock {
    file: File,
    path: PathBuf,
}

impl DatabaseLock {
    /// Takes the lock, without waiting for it, and locks the database too. The lock file gets the permissions and the owner of
    /// the database, so that the lock can be taken again after privileges are dropped.
    pub(crate) fn acquire(database: &DatabaseFile) -> Result<Self, LockError> {
        let path = lock_file_of(database.path());
        let failed = |source| LockError::Io { path: path.clone(), source };
        let file = open_lock_file(database.path(), &path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        // A user who may write the directory must not make this program write to another file.
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Err(LockError::NotALockFile(path));
        }
        for attempt in 1.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(LockError::Io { path, source }),
                Err(TryLockError::WouldBlock) => {}
            }
            if let Some(pid) = holder(&path) {
                return Err(LockError::held(database.path(), Some(pid)));
            }
            if attempt >= HOLDER_ATTEMPTS {
                return Err(LockError::held(database.path(), flock_holder(FileId::from(&metadata))));
            }
            std::thread::sleep(HOLDER_PAUSE);
        }
        database.lock()?;
        let mut lock = Self { file, path };
        lock.record_pid()?;
        Ok(lock)
    }

    /// Checks that the lock file of a database could be used if it were free. Creates nothing.
    pub(crate) fn check(database: &Path) -> Result<(), LockError> {
        let path = lock_file_of(database);
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(LockError::Io { path, source }),
            Ok(metadata) if !metadata.is_file() || metadata.nlink() != 1 => {
                Err(LockError::NotALockFile(path))
            }
            Ok(_) => access(&path, AccessFlags::R_OK | AccessFlags::W_OK)
                .map_err(|errno| LockError::Io { path, source: errno.into() }),
        }
    }

    /// Writes the id of this process into the lock file; to be called again after a fork, by the child.
    pub(crate) fn record_pid(&mut self) -> Result<(), LockError> {
        self.write(&format!("{}\n", std::process::id()))
            .map_err(|source| LockError::Io { path: self.path.clone(), source })
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())
    }
}

/// Names the process that works on a database, whose path is canonical.
pub(crate) fn holder_of(database: &Path) -> Option<String> {
    FileId::of(&lock_file_of(database)).ok().and_then(flock_holder).map(described)
}

/// Opens or creates the lock file; never follows a symbolic link, and never waits for a fifo.
fn open_lock_file(database: &Path, path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    loop {
        match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        match options.clone().create_new(true).mode(Mode::S_IRUSR.bits() | Mode::S_IWUSR.bits()).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                let model = std::fs::metadata(database)?;
                // Its owner must be able to write it even if the database is read-only for now.
                let mode = (model.mode() & 0o666) | Mode::S_IRUSR.bits() | Mode::S_IWUSR.bits();
                file.set_permissions(Permissions::from_mode(mode))?;
                if Uid::effective().is_root() {
                    fchown(&file, Some(Uid::from_raw(model.uid())), Some(Gid::from_raw(model.gid())))?;
                }
                return Ok(file);
            }
        }
    }
}

fn lock_file_of(database: &Path) -> PathBuf {
    with_suffix(database, ".dispatch-lock")
}

#[cfg(test)]
mod tests;
