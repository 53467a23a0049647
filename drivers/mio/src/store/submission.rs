//! Puts mail into the outbox for the operator's tool, as any program of the suite does. It needs no lock of the daemon.

use std::path::Path;

use cmail_delivery::outbox::MailId;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};
use thiserror::Error;

use super::busy::{BUSY_TIMEOUT, CancelToken};
use super::database::connect;
use super::database_file::DatabaseFile;
use super::error::OpenError;

/// A message for recipients.
#[derive(Debug)]
pub(crate) struct NewMail<'a> {
    /// The sender; `None` for the null path.
    pub(crate) sender: Option<&'a str>,
    pub(crate) recipients: &'a [String],
    pub(crate) submitter: &'a str,
    pub(crate) data: &'a [u8],
}

/// Why a message is not in the outbox, for any of its recipients.
#[derive(Debug, Error)]
pub(crate) enum SubmitError {
    /// There is none, or another file.
    #[error(transparent)]
    NoDatabase(OpenError),
    /// This user may not write it.
    #[error(transparent)]
    NotAllowed(OpenError),
    /// Another process has kept it locked for as long as this one waits.
    #[error("{0}; try again")]
    Busy(OpenError),
    /// There is no room.
    #[error(transparent)]
    Full(OpenError),
    /// It is damaged, or refuses the mail.
    #[error("the mail cannot be put into the database: {0}")]
    Unusable(String),
}

impl From<OpenError> for SubmitError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Missing(_)
            | OpenError::NotAFile(_)
            | OpenError::NotADatabase(_)
            | OpenError::WrongSchema { .. } => Self::NoDatabase(error),
            OpenError::Unreadable { .. }
            | OpenError::ReadOnly(_)
            | OpenError::DirectoryReadOnly(_)
            | OpenError::StuckJournal { .. }
            | OpenError::Inaccessible { .. } => Self::NotAllowed(error),
            OpenError::Busy(_) | OpenError::Lock(_) => Self::Busy(error),
            OpenError::Other { .. } => Self::Full(error),
            OpenError::Damaged { .. } | OpenError::HotJournal(_) | OpenError::ForeignLog(_) => {
                Self::Unusable(error.to_string())
            }
        }
    }
}

/// Puts a message into the outbox for all its recipients, or for none. Returns the ids of its mails, in the order of the recipients. What is
/// returned is on the disk.
pub(crate) fn submit(path: &Path, mail: &NewMail<'_>) -> Result<Vec<MailId>, SubmitError> {
    let file = DatabaseFile::open(path)?;
    file.ensure_writable()?;
    let path = file.path().to_path_buf();
    // Closed before SQLite opens it: that would drop SQLite's locks.
    drop(file);
    let mut connection =
        connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, BUSY_TIMEOUT, CancelToken::default())?;
    insert(&mut connection, mail).map_err(|error| match error.sqlite_error_code() {
        // What the table refuses, it refuses always.
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::Unknown) | None => {
            SubmitError::Unusable(error.to_string())
        }
        Some(_) => OpenError::from_sqlite(&path, &error).into(),
    })
}

fn insert(connection: &mut Connection, mail: &NewMail<'_>) -> rusqlite::Result<Vec<MailId>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut ids = Vec::with_capacity(mail.recipients.len());
    {
        let mut statement = transaction.prepare(
            "INSERT INTO outbox (mail_envelopefrom, mail_envelopeto, mail_submitter, mail_data) VALUES (?1, ?2, ?3, CAST(?4 AS TEXT))",
        )?;
        for recipient in mail.recipients {
            statement.execute(params![mail.sender, recipient, mail.submitter, mail.data])?;
            ids.push(MailId(transaction.last_insert_rowid()));
        }
    }
    transaction.commit()?;
    Ok(ids)
}
