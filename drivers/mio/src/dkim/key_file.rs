//! Files of private keys.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use thiserror::Error;

use super::key::{KeyError, PrivateKey};

/// What makes a file one that others than its owner and its group can read or change.
const OPEN_MODE: u32 = 0o007;

/// Longest file that is read: many times what a key of the longest kind takes.
const FILE_LIMIT_OCTETS: u64 = 64 * 1024;

/// Why a file gives no key.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is a directory, a device or the like.
    #[error("it is no regular file")]
    NoFile,
    /// It holds nothing to sign with.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl PrivateKey {
    /// Reads a key from a file. Also returns a warning about the file, if there is one.
    pub fn read(path: &Path) -> Result<(Self, Option<String>), KeyFileError> {
        // A named pipe would keep the program waiting for somebody who writes.
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(KeyFileError::NoFile);
        }
        let mode = metadata.permissions().mode() & 0o7777;
        let warning = (mode & OPEN_MODE != 0).then(|| {
            format!(
                "the mode {mode:04o} of the key file {} lets other users read or change it, who could sign as this domain: `chmod 640` it, and \
                 give it to the group of the daemon",
                path.display()
            )
        });
        let mut octets = Vec::new();
        file.take(FILE_LIMIT_OCTETS).read_to_end(&mut octets)?;
        Ok((Self::from_pem(&octets)?, warning))
    }
}
