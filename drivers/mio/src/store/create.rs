//! The word `initdb`: a new database of schema 9.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, fchown};
use rusqlite::Connection;

use super::error::InitError;
use super::paths::{FileId, directory_of, with_suffix};
use super::schema::SCHEMA;

/// Only its owner may read and write a new database, because it holds all users' mail. SQLite gives the files beside it the
/// same permissions, and the same owner if root creates them.
const OWNER_MODE: u32 = 0o600;

/// The other programs of the suite reach the database by its group.
const GROUP_MODE: u32 = 0o660;

/// Most names that are tried for the draft. Killed processes with the same id may have left some behind.
const DRAFT_NAMES: u32 = 1000;

/// The database that was created. It displays as a sentence for the administrator.
#[derive(Debug)]
pub(crate) struct Created {
    path: PathBuf,
    owner: Uid,
    group: Gid,
    mode: u32,
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, owner, group, mode } = self;
        let owner = User::from_uid(*owner).ok().flatten().map_or(owner.to_string(), |user| user.name);
        let group = Group::from_gid(*group).ok().flatten().map_or(group.to_string(), |group| group.name);
        write!(
            f,
            "created the database {}: schema version 9, rollback journal, owner {owner}:{group}, mode {mode:04o}",
            path.display()
        )
    }
}

/// Creates a database of schema 9 with a rollback journal, and gives it to `group` if it is given.
///
/// A write-ahead log would be faster, but the suite's programs that go into the background open the database before they
/// fork: the parent deletes the log when it exits, and what the child writes into it is lost.
///
/// The file appears under its name complete or not at all: it is written under another name, and then linked to its own,
/// which fails if that exists by then. A run that is killed leaves at most that other name behind. Owner and permissions are
/// set by the descriptor that created the file, so that a user who may write the directory cannot swap the file.
pub(crate) fn initdb(path: &Path, group: Option<Gid>) -> Result<Created, InitError> {
    refuse_existing(path)?;
    let image =
        image().map_err(|error| InitError::Sqlite { path: path.to_path_buf(), text: error.to_string() })?;
    let failed = |action| move |source| InitError::from_io(path, action, source);
    let draft = Draft::new(path).map_err(failed("create a file beside it"))?;
    let mut file = &draft.file;
    file.write_all(&image).map_err(failed("write it"))?;
    // In some directories, files belong to the group of the directory at first.
    let is_given = fchown(file, None, Some(group.unwrap_or(Gid::effective())));
    let mode = match group {
        Some(_) if is_given.is_ok() => GROUP_MODE,
        Some(_) | None => OWNER_MODE,
    };
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed("set its permissions"))?;
    file.sync_all().map_err(failed("write it to the disk"))?;
    draft.publish(path).map_err(failed("give it its name"))?;
    let metadata = file.metadata().map_err(failed("look at it"))?;
    drop(draft);
    File::open(directory_of(path))
        .and_then(|directory| directory.sync_all())
        .map_err(failed("write its directory to the disk"))?;
    Ok(Created {
        path: path.to_path_buf(),
        owner: Uid::from_raw(metadata.uid()),
        group: Gid::from_raw(metadata.gid()),
        mode: metadata.mode() & 0o7777,
    })
}

/// Refuses a name that exists, and leftovers of an earlier database: SQLite would play a stale journal into the new file.
fn refuse_existing(path: &Path) -> Result<(), InitError> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(InitError::Exists(path.to_path_buf()));
    }
    for suffix in ["-wal", "-journal", "-shm"] {
        let leftover = with_suffix(path, suffix);
        if fs::symlink_metadata(&leftover).is_ok() {
            return Err(InitError::Leftover(leftover));
        }
    }
    Ok(())
}

/// Returns the octets of an empty database of schema 9. It is created in memory, where SQLite opens no file.
fn image() -> rusqlite::Result<Vec<u8>> {
    let mut connection = Connection::open_in_memory()?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.commit()?;
    let image = connection.serialize(rusqlite::MAIN_DB)?.to_vec();
    Ok(image)
}

/// A file beside the future database. Dropping it removes its temporary name.
struct Draft {
    name: PathBuf,
    file: File,
}

impl Draft {
    /// Creates it under a name that does not exist.
    fn new(path: &Path) -> io::Result<Self> {
        let mut attempt = 0;
        loop {
            let name = with_suffix(path, &format!(".initdb-{}-{attempt}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(OWNER_MODE).open(&name) {
                Ok(file) => return Ok(Self { name, file }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < DRAFT_NAMES => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the file its final name. Fails if that exists.
    fn publish(&self, path: &Path) -> io::Result<()> {
        fs::hard_link(&self.name, path)?;
        let linked = fs::symlink_metadata(path)?;
        if FileId::from(&linked) == FileId::from(&self.file.metadata()?) {
            return Ok(());
        }
        Err(io::Error::other(
            "another program has put another file in its place; check who may write the directory",
        ))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.name) {
            log::warn!("cannot remove the file {}: {error}", self.name.display());
        }
    }
}

#[cfg(test)]
mod tests;
