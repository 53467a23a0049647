//! A file with the credentials of a relay: one line, `USER:PASSWORD`.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use cmail_delivery::next_hop::{CREDENTIAL_LIMIT_OCTETS, Credentials};
use nix::fcntl::OFlag;
use thiserror::Error;

/// What nobody but the owner of the file and its group may do, and what the group may not.
const FORBIDDEN_MODE: u32 = 0o027;

/// Longest file that is read: both parts, the colon, and line ends.
const FILE_LIMIT_OCTETS: u64 = 2 * CREDENTIAL_LIMIT_OCTETS as u64 + 16;

/// Why a file of credentials cannot be used. It tells nothing of the content.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is a directory, a device or the like.
    #[error("it is no regular file")]
    NoFile,
    /// Others may read or write it.
    #[error(
        "its mode {0:04o} lets other users read or change it: `chmod 640` it, and give it to the group of the daemon"
    )]
    Open(u32),
    /// It is not what it should be.
    #[error(
        "it must have one line, USER:PASSWORD, each part of at most {CREDENTIAL_LIMIT_OCTETS} octets of UTF-8 text"
    )]
    Form,
}

/// Reads the credentials of a relay.
pub(super) fn read(path: &Path) -> Result<Credentials, CredentialsError> {
    // A named pipe would keep the program waiting for somebody who writes.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(CredentialsError::NoFile);
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & FORBIDDEN_MODE != 0 {
        return Err(CredentialsError::Open(mode));
    }
    let mut octets = Vec::new();
    file.take(FILE_LIMIT_OCTETS + 1).read_to_end(&mut octets)?;
    parse(&octets).ok_or(CredentialsError::Form)
}

fn parse(octets: &[u8]) -> Option<Credentials> {
    let text = str::from_utf8(octets).ok()?.trim_end_matches(['\r', '\n']);
    let (user, password) = text.split_once(':')?;
    let is_usable = |part: &str| {
        (1..=CREDENTIAL_LIMIT_OCTETS).contains(&part.len()) && !part.contains(['\r', '\n', '\0'])
    };
    (is_usable(user) && is_usable(password))
        .then(|| Credentials { user: user.into(), password: password.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_two_parts_is_read_and_nothing_else() {
        let parsed =
            |octets: &[u8]| parse(octets).map(|found| (found.user.to_string(), found.password.to_string()));
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(parsed(b"user:secret"), pair("user", "secret"));
        assert_eq!(parsed(b"u@example.org:a:b c \r\n"), pair("u@example.org", "a:b c "));
        let long = [b"u:", &vec![b'p'; CREDENTIAL_LIMIT_OCTETS + 1][..]].concat();
        let wrong: [&[u8]; 8] =
            [b"", b"user", b":secret", b"user:", b"user:a\nother:b\n", b"u:\0", b"u:\xff", &long];
        for octets in wrong {
            assert_eq!(parsed(octets), None, "{}", octets.escape_ascii());
        }
    }
}
