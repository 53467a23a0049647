//! Finds the file that a path leads to, for root to write to it safely.
//!
//! The owner of a directory controls its content. If the daemon starts as root and writes a file in a directory of another
//! user, a symbolic link could lead it to any file of the system. So root follows only root's links, and opens first the
//! directory and then the file in it, so that no other process can replace either in between.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::{self, FileStat, Mode, SFlag};
use nix::sys::statfs::{self, PROC_SUPER_MAGIC};
use nix::unistd::Uid;
use thiserror::Error;

/// Most symbolic links in a path, as many as the system itself follows.
const LINKS_LIMIT: u32 = 40;

/// Why root does not use a path.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// The system refuses.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// A symbolic link that is not root's.
    #[error("{link} is a symbolic link of user {owner}, which root does not follow", link = .link.display())]
    ForeignLink {
        /// Its path.
        link: PathBuf,
        /// The id of its owner.
        owner: Uid,
    },
    /// A file with several names, in a directory where other users than root can create names.
    #[error(
        "the file has a second name (hard link), which root does not trust where other users can create names"
    )]
    SecondName,
}

impl From<Errno> for PlaceError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

/// A name in an open directory: the end of a path, after all links are followed.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    directory_is: FileStat,
    name: OsString,
    /// Whether the name is a link in /proc that leads to an open file, not to a path.
    is_magic: bool,
}

impl Place {
    /// Follows a path, which must be absolute.
    pub(super) fn find(path: &Path) -> Result<Self, PlaceError> {
        let mut walk = Walk { rest: names(path), shown: PathBuf::from("/"), links: 0 };
        let mut directory = root()?;
        while let Some(name) = walk.rest.pop_front() {
            let is_last = walk.rest.is_empty();
            let place = |directory: OwnedFd, is_magic| -> Result<Self, PlaceError> {
                let directory_is = stat::fstat(&directory)?;
                Ok(Self { directory, directory_is, name: name.clone(), is_magic })
            };
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let found = match fcntl::openat(&directory, &*name, flags, Mode::empty()) {
                Err(Errno::ENOENT) if is_last => return place(directory, false),
                found => found?,
            };
            let found_is = stat::fstat(&found)?;
            if kind(&found_is) != SFlag::S_IFLNK {
                if is_last {
                    return place(directory, false);
                }
                walk.shown.push(&name);
                directory = found;
                continue;
            }
            walk.check_link(&name, &found_is)?;
            let is_of_proc = statfs::fstatfs(&directory)?.filesystem_type() == PROC_SUPER_MAGIC;
            if is_last && is_of_proc {
                return place(directory, true);
            }
            let target = PathBuf::from(fcntl::readlinkat(&found, "")?);
            if target.is_absolute() {
                directory = root()?;
                walk.shown = PathBuf::from("/");
            }
            walk.rest = names(&target).into_iter().chain(walk.rest).collect();
        }
        Err(Errno::EISDIR.into())
    }

    /// Opens the file, or creates it. Returns it, and whether it was created.
    pub(super) fn open(&self, flags: OFlag, mode: Mode) -> Result<(OwnedFd, bool), PlaceError> {
        let name = &*self.name;
        let flags = flags | OFlag::O_CLOEXEC;
        if self.is_magic {
            return Ok((fcntl::openat(&self.directory, name, flags, Mode::empty())?, false));
        }
        match fcntl::openat(&self.directory, name, flags | OFlag::O_CREAT | OFlag::O_EXCL, mode) {
            Err(Errno::EEXIST) => {}
            created => return Ok((created?, true)),
        }
        let file = fcntl::openat(&self.directory, name, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
        self.check_names(&stat::fstat(&file)?)?;
        Ok((file, false))
    }

    /// Checks that [`open`](Self::open) would succeed. Changes nothing.
    pub(super) fn check(&self) -> Result<(), PlaceError> {
        let access = |name: &Path| {
            let flags = nix::unistd::AccessFlags::W_OK;
            nix::unistd::faccessat(&self.directory, name, flags, fcntl::AtFlags::AT_EACCESS)
        };
        match stat::fstatat(&self.directory, &*self.name, fcntl::AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(access(Path::new("."))?),
            Err(errno) => Err(errno.into()),
            Ok(found) if kind(&found) == SFlag::S_IFDIR => Err(Errno::EISDIR.into()),
            Ok(found) => {
                self.check_names(&found)?;
                Ok(access(Path::new(&self.name))?)
            }
        }
    }

    /// Returns the owner of the directory.
    pub(super) fn directory_owner(&self) -> Uid {
        Uid::from_raw(self.directory_is.st_uid)
    }

    /// Refuses a file with a second name, unless only root can create names here: any user who can may link a file of root.
    fn check_names(&self, file: &FileStat) -> Result<(), PlaceError> {
        let others = Mode::S_IWGRP | Mode::S_IWOTH;
        let is_roots = self.directory_owner().is_root()
            && !Mode::from_bits_truncate(self.directory_is.st_mode).intersects(others);
        if kind(file) == SFlag::S_IFREG && file.st_nlink != 1 && !is_roots {
            return Err(PlaceError::SecondName);
        }
        Ok(())
    }
}

/// A path on the way to its end.
struct Walk {
    /// The names that are not followed yet.
    rest: VecDeque<OsString>,
    /// The path so far, for errors.
    shown: PathBuf,
    links: u32,
}

impl Walk {
    fn check_link(&mut self, name: &OsString, link: &FileStat) -> Result<(), PlaceError> {
        let owner = Uid::from_raw(link.st_uid);
        if !owner.is_root() {
            return Err(PlaceError::ForeignLink { link: self.shown.join(name), owner });
        }
        self.links += 1;
        if self.links > LINKS_LIMIT { Err(Errno::ELOOP.into()) } else { Ok(()) }
    }
}

fn root() -> Result<OwnedFd, Errno> {
    fcntl::open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Returns the names in a path, without the root and `.`.
fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

fn kind(file: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(file.st_mode) & SFlag::S_IFMT
}

#[cfg(test)]
mod tests;
