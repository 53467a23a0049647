//! Hands a message over to the daemon, where the user may not write the database.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cmail_delivery::outbox::MailId;
use serde::Deserialize;
use thiserror::Error;

use crate::reception::{self, envelope};
use crate::shown;
use crate::store::NewMail;
use crate::sysexits;

/// How long the daemon may be silent. It answers once the message is on the disk, or has waited for too long: so this is longer than the
/// message may wait there, another program may keep the database locked, and the disk may take.
const PATIENCE: Duration = Duration::from_secs(3 * reception::PATIENCE.as_secs());

/// How long a place is waited for where the daemon has none. Nothing was handed over then, so that it may be tried again.
const PLACE_PATIENCE: Duration = Duration::from_secs(20);

/// The first pause before a place is asked for again. Pauses double.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest such pause.
const LAST_PAUSE: Duration = Duration::from_secs(1);

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
    /// Nothing was taken, because there is no place.
    #[error("the daemon: {0}")]
    Full(String),
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
            Self::Connect { .. } | Self::Full(_) | Self::Silent(_) => sysexits::TEMPORARY,
            Self::Refused { status, .. } => *status,
            Self::Unintelligible { .. } => sysexits::CONFIGURATION,
        }
    }

    /// Returns whether there was only no place for the message.
    fn is_full(&self) -> bool {
        match self {
            // More clients than the system lets wait.
            Self::Connect { error, .. } => error.kind() == io::ErrorKind::WouldBlock,
            Self::Full(_) => true,
            Self::Refused { .. } | Self::Silent(_) | Self::Unintelligible { .. } => false,
        }
    }
}

/// What the daemon answers.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Answer {
    Submitted {
        mails: Vec<i64>,
    },
    Error {
        status: u8,
        text: String,
        #[serde(default)]
        full: bool,
    },
}

/// Hands a message over, as soon as there is a place. Returns the ids of its mails, in the order of the recipients, once the daemon has it on
/// the disk.
pub(super) fn hand_over(socket: &Path, mail: &NewMail<'_>) -> Result<Vec<MailId>, HandoverError> {
    let end = Instant::now() + PLACE_PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        match hand_over_once(socket, mail) {
            Err(error) if error.is_full() && Instant::now() + pause < end => thread::sleep(pause),
            result => return result,
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

fn hand_over_once(socket: &Path, mail: &NewMail<'_>) -> Result<Vec<MailId>, HandoverError> {
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
        Ok(Answer::Error { text, full: true, .. }) => Err(HandoverError::Full(text)),
        Ok(Answer::Error { status, text, .. }) => Err(HandoverError::Refused { status, text }),
        Err(_) => {
            let said = String::from_utf8_lossy(&said).trim_end().to_owned();
            Err(HandoverError::Unintelligible { socket: socket.to_owned(), said })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use cmail_delivery::dsn::DsnWishes;

    use super::*;

    #[test]
    fn a_place_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("submit");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = thread::spawn(move || {
            let answers = [
                r#""kind":"error","status":75,"text":"no","full":true"#,
                r#""kind":"submitted","mails":[7]"#,
            ];
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                writeln!(stream, "{{\"v\":1,{answer}}}").unwrap();
            }
            // What is refused for another reason is not tried again.
            let (mut stream, _) = listener.accept().unwrap();
            writeln!(stream, r#"{{"v":1,"kind":"error","status":75,"text":"busy"}}"#).unwrap();
        });
        let recipients = ["b@example.org".to_owned()];
        let wishes = DsnWishes::default();
        let mail =
            NewMail { sender: None, recipients: &recipients, submitter: "", wishes: &wishes, data: b"" };
        assert_eq!(hand_over(&path, &mail).unwrap(), [MailId(7)]);
        let refused = hand_over(&path, &mail).unwrap_err();
        assert_eq!((refused.status(), refused.to_string()), (75, "the daemon: busy".to_owned()));
        daemon.join().unwrap();
    }
}
