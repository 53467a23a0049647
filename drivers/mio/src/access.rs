//! Checks whether files could be written, for `check`, which writes none.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

/// Checks that the user of this process could write a file, or create it if it is missing. Changes nothing.
pub fn could_write(path: &Path) -> io::Result<()> {
    let access =
        |path: &Path, flags| faccessat(AT_FDCWD, path, flags, AtFlags::AT_EACCESS).map_err(io::Error::from);
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(Errno::EISDIR.into()),
        Ok(_) => access(path, AccessFlags::W_OK),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(Path::new("/"));
            access(directory, AccessFlags::W_OK | AccessFlags::X_OK)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
