//! Checks whether files could be written, for `check`, which writes none.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

/// Checks that the user of this process could write a file, or create it if it is missing. Changes nothing.
pub fn could_write(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(Errno::EISDIR.into()),
        Ok(_) => access(path, AccessFlags::W_OK),
        Err(error) if error.kind() == io::ErrorKind::NotFound => could_create_beside(path),
        Err(error) => Err(error),
    }
}

/// Checks that the user of this process could create a file in the directory of this one. Changes nothing.
pub fn could_create_beside(path: &Path) -> io::Result<()> {
    access(path.parent().unwrap_or(Path::new("/")), AccessFlags::W_OK | AccessFlags::X_OK)
}

fn access(path: &Path, flags: AccessFlags) -> io::Result<()> {
    faccessat(AT_FDCWD, path, flags, AtFlags::AT_EACCESS).map_err(io::Error::from)
}

#[cfg(test)]
mod tests;
