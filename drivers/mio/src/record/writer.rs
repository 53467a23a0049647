//! The directory that records are written to.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use cmail_delivery::time::UnixTime;
use jiff::Timestamp;
use log::{debug, warn};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use thiserror::Error;

/// The permissions of a record: although it is masked, it shows when mail was sent.
const FILE_MODE: u32 = 0o600;
/// Longest part of a file name that names the destination.
const NAME_LIMIT_OCTETS: usize = 100;

/// Why conversations cannot be recorded.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The directory cannot be used.
    #[error("the directory {path} of the directive record cannot be used: {source}", path = .path.display())]
    Directory {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A directory for records.
#[derive(Debug)]
pub struct RecordDirectory {
    path: PathBuf,
    /// The number of the last file.
    number: u32,
    /// Whether the last file could not be written.
    is_failing: bool,
}

impl RecordDirectory {
    /// Checks that the user of this process can create files in the directory. Creates none.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let unusable = |source| RecordError::Directory { path: path.to_owned(), source };
        if !fs::metadata(path).map_err(unusable)?.is_dir() {
            return Err(unusable(io::ErrorKind::NotADirectory.into()));
        }
        let access = AccessFlags::W_OK | AccessFlags::X_OK;
        faccessat(AT_FDCWD, path, access, AtFlags::AT_EACCESS).map_err(|errno| unusable(errno.into()))?;
        Ok(Self { path: path.to_owned(), number: 0, is_failing: false })
    }

    /// Writes a record of a pass that began at `begun` to a new file. A failure is logged once, until a record is written again.
    pub(super) fn write(&mut self, begun: UnixTime, destination: &str, text: impl FnOnce(&str) -> String) {
        // A clock beyond the year 9999 is no reason to record nothing.
        let begun = Timestamp::from_second(begun.0).unwrap_or_default();
        let date = begun.strftime("%F");
        let head = format!(
            "Recorded on {date} by cmail-dispatchd {}. Names, addresses, secrets and mail data are not the real ones.",
            env!("CARGO_PKG_VERSION")
        );
        let stamp = begun.strftime("%Y%m%dT%H%M%SZ").to_string();
        match self.write_new(&stamp, &file_name(destination), text(&head).as_bytes()) {
            Ok(path) => {
                debug!("recorded {}", path.display());
                self.is_failing = false;
            }
            Err((path, error)) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    warn!(
                        "the record {} cannot be written, so nothing is recorded until that is possible: {error}",
                        path.display()
                    );
                }
            }
        }
    }

    fn write_new(&mut self, stamp: &str, name: &str, text: &[u8]) -> Result<PathBuf, (PathBuf, io::Error)> {
        loop {
            self.number += 1;
            let path = self.path.join(format!("{stamp}-{:04}-{name}.smtp", self.number));
            match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path) {
                Ok(mut file) => {
                    return match file.write_all(text) {
                        Ok(()) => Ok(path),
                        Err(error) => {
                            // A part of a record is useless. If it cannot be removed, it stays.
                            let _ = fs::remove_file(&path);
                            Err((path, error))
                        }
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.number < u32::MAX => {}
                Err(error) => return Err((path, error)),
            }
        }
    }
}

/// Converts a destination to a part of a file name.
fn file_name(destination: &str) -> String {
    let bare = destination.strip_prefix("relay ").unwrap_or(destination);
    let signs =
        bare.chars().map(|sign| if sign.is_ascii_alphanumeric() || ".-".contains(sign) { sign } else { '_' });
    let name: String = signs.take(NAME_LIMIT_OCTETS).collect();
    name.trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests;
