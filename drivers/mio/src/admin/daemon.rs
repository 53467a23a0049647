//! Asks the daemon that works on the database, over its socket.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{Uid, User};
use serde_json::Value;
use thiserror::Error;

use crate::clients::{self, PATH_LIMIT_OCTETS};
use crate::control::ControlPlace;
use crate::shown;
use crate::store;

/// The longest record that is read.
const RECORD_LIMIT_OCTETS: u64 = 1024 * 1024;

/// Why the daemon does not answer.
#[derive(Debug, Error)]
pub(super) enum AskError {
    #[error("no database is named, so it is not known which daemon is to be asked")]
    NoDatabase,
    #[error(
        "the configuration says `control off`, so the daemon cannot be asked; SIGHUP lets it read its configuration again, and a restart \
         with another `control` makes a socket"
    )]
    Off,
    #[error("no daemon works on the database {}, so there is none to ask; it would be asked at {}", shown::path(.database), shown::path(.socket))]
    NoDaemon { database: PathBuf, socket: PathBuf },
    #[error(
        "{holder} works on the database {}, but cannot be asked at {}: its configuration says `control off` or names another place, it \
         makes a single pass, or its log says why there is no socket; SIGHUP lets it read its configuration again, and after a restart it \
         is where `control` says",
        shown::path(.database),
        shown::path(.socket)
    )]
    Elsewhere { holder: String, database: PathBuf, socket: PathBuf },
    #[error("you may not ask the daemon: only {owner} and root may connect to {}", shown::path(.socket))]
    NotAllowed { owner: String, socket: PathBuf },
    #[error(
        "the path {} of the socket has more than the {PATH_LIMIT_OCTETS} octets that the system allows; name a shorter one with the directive control, and restart the daemon",
        shown::path(.0)
    )]
    TooLong(PathBuf),
    #[error("the daemon cannot be asked at {}: {error}", shown::path(.socket))]
    Connect { socket: PathBuf, error: io::Error },
    #[error("the daemon has ended before it has answered")]
    Ended,
    #[error("the daemon has not answered within {} s; its log may say why, and whether it does later", .0.as_secs())]
    Silent(Duration),
    #[error("the daemon: {0}")]
    Refused(String),
    #[error("what answers at {} is no daemon: it has said \"{}\"", shown::path(.socket), shown::value(.said))]
    Unintelligible { socket: PathBuf, said: String },
}

/// A record of the answer.
pub(super) struct Answer {
    /// As the daemon has written it.
    pub(super) line: String,
    pub(super) fields: Value,
}

/// A connection to the daemon.
pub(super) struct DaemonLink {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
    patience: Option<Duration>,
}

impl DaemonLink {
    /// Connects to the daemon that works on a database: at its place, or beside the database, where it still is if `control` was changed
    /// since it has started. `patience` is how long it may be silent.
    pub(super) fn connect(
        database: &Path,
        place: &ControlPlace,
        patience: Option<Duration>,
    ) -> Result<Self, AskError> {
        let database = &fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
        Self::connect_at(database, place, patience).or_else(|error| {
            let beside = ControlPlace::BesideDatabase;
            // What is wrong with the place that is configured tells more.
            Self::connect_at(database, &beside, patience).map_err(|_| error)
        })
    }

    fn connect_at(
        database: &Path,
        place: &ControlPlace,
        patience: Option<Duration>,
    ) -> Result<Self, AskError> {
        let socket = place.path(database).ok_or(AskError::Off)?;
        if socket.as_os_str().len() > PATH_LIMIT_OCTETS {
            return Err(AskError::TooLong(socket));
        }
        // A daemon that accepts nothing more is not waited for.
        let connected = mio::net::UnixStream::connect(&socket).map(UnixStream::from);
        let prepared = connected.and_then(|stream| {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(patience)?;
            stream.set_write_timeout(patience)?;
            Ok(stream)
        });
        match prepared {
            Ok(stream) => Ok(Self { socket, stream: BufReader::new(stream), patience }),
            Err(error) => Err(explained(error, database.to_owned(), socket)),
        }
    }

    /// Sends a request.
    pub(super) fn ask(&mut self, words: &[&str]) -> Result<(), AskError> {
        let sent = self.stream.get_mut().write_all(clients::line(words).as_bytes());
        sent.map_err(|error| self.failed(&error))
    }

    /// Returns the next record of the answer; nothing at its end.
    pub(super) fn answer(&mut self) -> Result<Option<Answer>, AskError> {
        let mut line = String::new();
        let read = (&mut self.stream).take(RECORD_LIMIT_OCTETS).read_line(&mut line);
        if read.map_err(|error| self.failed(&error))? == 0 {
            return Err(AskError::Ended);
        }
        let unintelligible = |said| AskError::Unintelligible { socket: self.socket.clone(), said };
        let Ok(fields) = serde_json::from_str::<Value>(&line) else { return Err(unintelligible(line)) };
        match fields.get("kind").and_then(Value::as_str) {
            Some("end") => Ok(None),
            Some("error") => Err(AskError::Refused(text(&fields, "/text").to_owned())),
            Some(_) => Ok(Some(Answer { line, fields })),
            None => Err(unintelligible(line)),
        }
    }

    /// Returns whether there may be another record that needs not be waited for.
    pub(super) fn has_more(&self) -> bool {
        !self.stream.buffer().is_empty()
    }

    /// Asks what is answered by one record.
    pub(super) fn ask_one(&mut self, words: &[&str]) -> Result<Answer, AskError> {
        self.ask(words)?;
        let Some(answer) = self.answer()? else {
            return Err(AskError::Unintelligible { socket: self.socket.clone(), said: "end".to_owned() });
        };
        while self.answer()?.is_some() {}
        Ok(answer)
    }

    fn failed(&self, error: &io::Error) -> AskError {
        match (error.kind(), self.patience) {
            (io::ErrorKind::WouldBlock, Some(patience)) => AskError::Silent(patience),
            (io::ErrorKind::InvalidData, _) => {
                AskError::Unintelligible { socket: self.socket.clone(), said: error.to_string() }
            }
            _ => AskError::Ended,
        }
    }
}

/// Returns why nobody could be asked.
fn explained(error: io::Error, database: PathBuf, socket: PathBuf) -> AskError {
    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        return match store::holder_of(&database) {
            Some(holder) => AskError::Elsewhere { holder, database, socket },
            None => AskError::NoDaemon { database, socket },
        };
    }
    if error.kind() != io::ErrorKind::PermissionDenied {
        return AskError::Connect { socket, error };
    }
    let uid = fs::metadata(&socket).or_else(|_| fs::metadata(&database)).ok().map(|found| found.uid());
    let owner = uid.and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    let owner = owner.map_or("its user".to_owned(), |owner| format!("the user {}", owner.name));
    AskError::NotAllowed { owner, socket }
}

/// Returns a text of a record; none if it has none there.
pub(super) fn text<'a>(fields: &'a Value, pointer: &str) -> &'a str {
    fields.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns a number of a record; 0 if it has none there.
pub(super) fn number(fields: &Value, pointer: &str) -> i64 {
    fields.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}
