//! Where the operator's tool finds the daemon.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::clients::{Listener, PATH_LIMIT_OCTETS, SocketFile};
use crate::shown;

/// What the path of the socket has more than that of the database.
const SUFFIX: &str = ".dispatch-control";

/// The rights to the socket: the user of the daemon and root may connect.
const MODE: u32 = 0o600;

/// Where the socket is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ControlPlace {
    /// Beside the database.
    #[default]
    BesideDatabase,
    /// At this path.
    At(PathBuf),
    /// There is none.
    Off,
}

/// Why there is no socket.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    /// The path is too long.
    #[error(
        "its path has {} octets, and the system allows {PATH_LIMIT_OCTETS}; name a shorter one with the directive control",
        .0.as_os_str().len()
    )]
    TooLong(PathBuf),
    /// The system refuses it.
    #[error("{0}; change the directive control, or remove what is in the way")]
    Refused(#[from] io::Error),
}

impl ControlPlace {
    /// Returns the path of the socket of a database, whose path is canonical; nothing if there is none.
    pub(crate) fn path(&self, database: &Path) -> Option<PathBuf> {
        match self {
            Self::BesideDatabase => {
                let path = [database.as_os_str().as_bytes(), SUFFIX.as_bytes()].concat();
                Some(OsStr::from_bytes(&path).into())
            }
            Self::At(path) => Some(path.clone()),
            Self::Off => None,
        }
    }

    /// Listens, unless there is no socket. What a process that was killed has left behind is replaced. Whatever prevents it is
    /// told as a warning: mail is sent without it.
    pub(crate) fn listen(&self, database: &Path) -> Option<Listener> {
        let path = self.path(database)?;
        match limited(&path).and_then(|()| Ok(Listener::at_path(&path, MODE)?)) {
            Ok(listener) => Some(listener),
            Err(error) => {
                log::warn!("{}", explanation(&path, &error));
                None
            }
        }
    }

    /// Returns what would prevent the user of this process from listening, as a sentence. Changes nothing.
    pub(crate) fn check(&self, database: &Path) -> Option<String> {
        let path = self.path(database)?;
        let checked = limited(&path).and_then(|()| Ok(SocketFile::check(&path)?));
        checked.err().map(|error| explanation(&path, &error))
    }
}

/// Shows a place as the configuration has it.
impl fmt::Display for ControlPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BesideDatabase => f.write_str("beside the database"),
            Self::At(path) => path.display().fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

fn limited(path: &Path) -> Result<(), ControlError> {
    if path.as_os_str().len() > PATH_LIMIT_OCTETS {
        return Err(ControlError::TooLong(path.to_owned()));
    }
    Ok(())
}

fn explanation(path: &Path, error: &ControlError) -> String {
    format!(
        "cmail-admin-queue cannot ask the daemon, which works all the same: the socket {} cannot be made: {error}",
        shown::path(path)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_beside_the_database_or_where_it_is_said() {
        let database = Path::new("/var/lib/cmail/master.db3");
        let beside = ControlPlace::BesideDatabase.path(database);
        assert_eq!(beside, Some("/var/lib/cmail/master.db3.dispatch-control".into()));
        assert_eq!(ControlPlace::At("/run/x".into()).path(database), Some("/run/x".into()));
        assert_eq!(ControlPlace::Off.path(database), None);
    }

    #[test]
    fn a_path_is_as_long_as_the_system_allows() {
        let directory = tempfile::tempdir().unwrap();
        let room = PATH_LIMIT_OCTETS - directory.path().as_os_str().len() - 1;
        let database = Path::new("/nonexistent");
        let longest = ControlPlace::At(directory.path().join("x".repeat(room)));
        assert_eq!(longest.check(database), None);
        assert!(longest.listen(database).is_some());
        let longer = ControlPlace::At(directory.path().join("x".repeat(room + 1)));
        let told = longer.check(database).unwrap();
        assert!(told.contains("its path has 108 octets, and the system allows 107"), "{told}");
        assert!(longer.listen(database).is_none());
    }
}
