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
mod tests {
    use super::*;

    #[test]
    fn the_file_tells_the_id_and_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let mut pid_file = PidFile::open(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        pid_file.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        drop(pid_file);
        assert!(!path.exists());
    }

    #[test]
    fn the_file_of_another_daemon_is_not_touched() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "4194304\n").unwrap();
        drop(PidFile::open(file.path()).unwrap());
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "4194304\n");
    }

    #[test]
    fn a_stale_file_is_taken_over() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "the id of a process that was killed\n").unwrap();
        let mut pid_file = PidFile::open(file.path()).unwrap();
        pid_file.write().unwrap();
        assert_eq!(fs::read_to_string(file.path()).unwrap(), format!("{}\n", process::id()));
        drop(pid_file);
        assert!(!file.path().exists());
    }

    #[test]
    fn a_start_that_fails_leaves_no_new_file() {
        let directory = tempfile::tempdir().unwrap();
        drop(PidFile::open(&directory.path().join("pid")).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_took_its_place_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let mut pid_file = PidFile::open(&path).unwrap();
        pid_file.write().unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(pid_file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn a_file_that_cannot_be_found_any_more_is_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let mut pid_file = PidFile::open(&path).unwrap();
        pid_file.write().unwrap();
        fs::rename(&path, directory.path().join("moved")).unwrap();
        drop(pid_file);
        assert_eq!(fs::read_to_string(directory.path().join("moved")).unwrap(), "");
    }

    #[test]
    fn only_regular_files_will_do() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(PidFile::open(directory.path()), Err(PidFileError::Open { .. })));
        assert!(matches!(PidFile::open(Path::new("/dev/null")), Err(PidFileError::NotAFile { .. })));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), &link).unwrap();
        assert!(matches!(PidFile::open(&link), Err(PidFileError::NotAFile { .. })));
        assert!(!directory.path().join("elsewhere").exists());
        fs::write(directory.path().join("other"), "").unwrap();
        fs::hard_link(directory.path().join("other"), directory.path().join("pid")).unwrap();
        let second_name = PidFile::open(&directory.path().join("pid"));
        assert!(matches!(second_name, Err(PidFileError::NotAFile { .. })));
        for name in ["link", "pid"] {
            let checked = PidFile::check(&directory.path().join(name));
            assert!(matches!(checked, Err(PidFileError::NotAFile { .. })), "{name}");
        }
    }

    #[test]
    fn a_check_finds_what_a_start_would_find_and_creates_nothing() {
        let directory = tempfile::tempdir().unwrap();
        PidFile::check(&directory.path().join("pid")).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        let missing = PidFile::check(&directory.path().join("missing/pid"));
        assert!(matches!(missing, Err(PidFileError::Open { .. })));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "7\n").unwrap();
        PidFile::check(file.path()).unwrap();
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "7\n");
    }
}
