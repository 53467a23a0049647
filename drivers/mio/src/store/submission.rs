//! Puts mail into the outbox: for the operator's tool, as any program of the suite does, which needs no lock of the daemon; and for the
//! daemon, to which users hand over mail who may not write the database.

use std::path::Path;

use cmail_delivery::dkim::SignMark;
use cmail_delivery::dsn::{DsnWishes, MessageWishes};
use cmail_delivery::outbox::{MailId, StoreError, StoreTrouble};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};
use thiserror::Error;

use super::busy::{BUSY_TIMEOUT, CancelToken};
use super::database::{Database, connect};
use super::database_file::DatabaseFile;
use super::envelopes;
use super::error::OpenError;
use super::rows::AsText;
use super::warnings::unless_lost;
use crate::sysexits;

/// The most that one submission writes, in octets: the message, once for each recipient. The daemon waits for some seconds while that is
/// written.
pub(crate) const SUBMISSION_LIMIT_OCTETS: u64 = 400_000_000;

/// A message for recipients.
#[derive(Debug)]
pub(crate) struct NewMail<'a> {
    /// The sender; `None` for the null path.
    pub(crate) sender: Option<&'a str>,
    pub(crate) recipients: &'a [String],
    pub(crate) submitter: &'a str,
    /// What the sender wants to be told of each.
    pub(crate) wishes: &'a DsnWishes,
    pub(crate) data: &'a [u8],
}

impl NewMail<'_> {
    /// Returns whether so much may be written at once.
    fn is_within_limit(&self) -> bool {
        let octets = u64::try_from(self.data.len()).unwrap_or(u64::MAX);
        let recipients = u64::try_from(self.recipients.len()).unwrap_or(u64::MAX);
        octets.saturating_mul(recipients) <= SUBMISSION_LIMIT_OCTETS
    }
}

/// Why a message is not in the outbox, for any of its recipients.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// The message, times its recipients, is more than one submission may write.
    #[error(
        "a message of {octets} octets for {recipients} recipients is more than {SUBMISSION_LIMIT_OCTETS} octets in the database; submit it for \
         fewer recipients at once"
    )]
    TooLarge {
        /// Those of the message.
        octets: usize,
        /// Their number.
        recipients: usize,
    },
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
    /// The daemon cannot put it there.
    #[error("{0}; try again")]
    Daemon(StoreError),
    /// The daemon has not come to it in time.
    #[error("the database was busy for too long; try again")]
    Late,
    /// The daemon is stopping.
    #[error("the daemon is stopping; try again")]
    Stopping,
}

impl SubmitError {
    /// Returns whether other messages would fare the same now.
    pub(crate) fn is_of_all(&self) -> bool {
        match self {
            Self::Late | Self::Stopping | Self::Busy(_) => true,
            Self::Daemon(error) => error.trouble == StoreTrouble::Busy,
            Self::TooLarge { .. }
            | Self::NoDatabase(_)
            | Self::NotAllowed(_)
            | Self::Full(_)
            | Self::Unusable(_) => false,
        }
    }

    /// Returns the exit status that it means.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::TooLarge { .. } => sysexits::DATA,
            Self::NoDatabase(_) => sysexits::CONFIGURATION,
            Self::NotAllowed(_) => sysexits::NOT_ALLOWED,
            Self::Busy(_) | Self::Full(_) | Self::Late | Self::Stopping => sysexits::TEMPORARY,
            Self::Unusable(_) => sysexits::UNAVAILABLE,
            Self::Daemon(error) => match error.trouble {
                StoreTrouble::Busy | StoreTrouble::Full | StoreTrouble::Other => sysexits::TEMPORARY,
                StoreTrouble::Damaged | StoreTrouble::Impossible => sysexits::UNAVAILABLE,
            },
        }
    }
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
/// returned is on the disk. A mail that cannot be marked to be signed is taken without, with a warning.
pub(crate) fn submit(
    path: &Path,
    mail: &NewMail<'_>,
    warn: &mut dyn FnMut(&str),
) -> Result<Vec<MailId>, SubmitError> {
    if !mail.is_within_limit() {
        return Err(SubmitError::TooLarge { octets: mail.data.len(), recipients: mail.recipients.len() });
    }
    let file = DatabaseFile::open(path)?;
    file.ensure_writable()?;
    let path = file.path().to_path_buf();
    // Closed before SQLite opens it: that would drop SQLite's locks.
    drop(file);
    let mut connection =
        connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, BUSY_TIMEOUT, CancelToken::default())?;
    insert(&mut connection, mail, warn).map_err(|error| match error.sqlite_error_code() {
        // What the table refuses, it refuses always.
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::Unknown) | None => {
            SubmitError::Unusable(error.to_string())
        }
        Some(_) => OpenError::from_sqlite(&path, &error).into(),
    })
}

impl Database {
    /// Puts a message into the outbox, as [`submit`] does.
    pub(super) fn take_in(&mut self, mail: &NewMail<'_>) -> Result<Vec<MailId>, SubmitError> {
        self.ensure_open().map_err(SubmitError::Daemon)?;
        insert(&mut self.connection, mail, &mut |warning| log::warn!("{warning}"))
            .map_err(|error| SubmitError::Daemon(self.failed("put mail into", &error)))
    }
}

fn insert(
    connection: &mut Connection,
    mail: &NewMail<'_>,
    warn: &mut dyn FnMut(&str),
) -> rusqlite::Result<Vec<MailId>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut ids = Vec::with_capacity(mail.recipients.len());
    {
        let mut statement = transaction.prepare(
            "INSERT INTO outbox (mail_envelopefrom, mail_envelopeto, mail_submitter, mail_data) VALUES (?1, ?2, ?3, ?4)",
        )?;
        for recipient in mail.recipients {
            statement.execute(params![mail.sender, recipient, mail.submitter, AsText(mail.data)])?;
            let id = MailId(transaction.last_insert_rowid());
            insert_wishes(&transaction, id, mail.wishes, warn)?;
            ids.push(id);
        }
    }
    transaction.commit()?;
    Ok(ids)
}

/// Stores what is wanted of a mail. Only its mark may be left out.
fn insert_wishes(
    transaction: &Connection,
    id: MailId,
    wishes: &DsnWishes,
    warn: &mut dyn FnMut(&str),
) -> rusqlite::Result<()> {
    let mark = wishes.message.sign;
    let unmarked = MessageWishes { sign: SignMark::Unmarked, ..wishes.message.clone() };
    let is_without =
        unmarked == MessageWishes::default() && (wishes.notify, &wishes.original_recipient) == (None, &None);
    if !is_without {
        envelopes::insert(transaction, id, wishes)?;
    }
    if mark == SignMark::Unmarked {
        return Ok(());
    }
    let marked = unless_lost(transaction, || {
        if is_without {
            envelopes::insert(transaction, id, wishes)?;
        }
        envelopes::mark(transaction, id, mark)
    });
    if let Some(error) = marked? {
        warn(&format!(
            "mail {id} cannot be marked to be signed (DKIM), and leaves unsigned: the table dispatch_envelope cannot be used: {error}; \
             rename it, and restart the daemon, which makes another one"
        ));
    }
    Ok(())
}
