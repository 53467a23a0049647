//! Hands a message over to the daemon, where the user may not write the database.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cmail_delivery::outbox::MailId;
use serde::Deserialize;
use thiserror::Error;

use crate::reception::envelope;
use crate::shown;
use crate::store::NewMail;
use crate::sysexits;

/// How long the daemon may be silent. It answers once the message is on the disk, and other programs may keep the database locked.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest answer that is read.
const ANSWER_LIMIT_OCTETS: u64 = 1024 * 1024;

/// Why the daemon has not taken a message.
#[derive(Debug, Error)]
pub(super) enum HandoverError {
    #[error(
        "this user may not write the database, and the daemon does not take the message at {}: {error}",
        shown::path(.socket)
    )]
    Connect { socket: PathBuf, error: io::Error },
    #[error("the daemon: {text}")]
    Refused { status: u8, text: String },
    #[error(
        "the daemon has not said whether it has taken the message ({0}); it may be sent twice if it is submitted again"
    )]
    Silent(io::Error),
    #[error("what answers at {} is no daemon: it has said \"{}\"", shown::path(.socket), shown::value(.said))]
    Unintelligible { socket: PathBuf, said: String },
}

impl HandoverError {
    /// Returns the exit status that it means.
    pub(super) fn status(&self) -> u8 {
        match self {
            Self::Connect { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                sysexits::NOT_ALLOWED
            }
            Self::Connect { .. } | Self::Silent(_) => sysexits::TEMPORARY,
            Self::Refused { status, .. } => *status,
            Self::Unintelligible { .. } => sysexits::CONFIGURATION,
        }
    }
}

/// What the daemon answers.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Answer {
    Submitted { mails: Vec<i64> },
    Error { status: u8, text: String },
}

/// Hands a message over. Returns the ids of its mails, in the order of the recipients, once the daemon has it on the disk.
pub(super) fn hand_over(socket: &Path, mail: &NewMail<'_>) -> Result<Vec<MailId>, HandoverError> {
    // A daemon that accepts nothing more is not waited for.
    let connected = mio::net::UnixStream::connect(socket).map(UnixStream::from);
    let prepared = connected.and_then(|stream| {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    });
    let mut stream = prepared.map_err(|error| HandoverError::Connect { socket: socket.to_owned(), error })?;
    let sent = stream.write_all(envelope(mail).as_bytes()).and_then(|()| stream.write_all(mail.data));
    let mut said = Vec::new();
    // It says why it does not read on.
    let read = BufReader::new(stream.take(ANSWER_LIMIT_OCTETS)).read_until(b'\n', &mut said);
    match (sent, read) {
        _ if !said.is_empty() => {}
        (Err(error), _) | (Ok(()), Err(error)) => return Err(HandoverError::Silent(error)),
        (Ok(()), Ok(_)) => return Err(HandoverError::Silent(io::ErrorKind::UnexpectedEof.into())),
    }
    match serde_json::from_slice(&said) {
        Ok(Answer::Submitted { mails }) => Ok(mails.into_iter().map(MailId).collect()),
        Ok(Answer::Error { status, text }) => Err(HandoverError::Refused { status, text }),
        Err(_) => {
            let said = String::from_utf8_lossy(&said).trim_end().to_owned();
            Err(HandoverError::Unintelligible { socket: socket.to_owned(), said })
        }
    }
}
