//! Inserts the warnings about late mail, in the transaction that records its failures.

use bytes::Bytes;
use cmail_delivery::bounce::needed_octets;
use cmail_delivery::delay_warning::{DelayWarnings, NewWarning};
use cmail_delivery::outbox::{DATA_CHUNK_OCTETS, FailedMail, FailedMessage, MailId, Warned};
use cmail_delivery::time::UnixTime;
use rusqlite::{Connection, OptionalExtension};

use super::blob;
use super::error::{advice, ids_are_used_up};
use super::failures::row_with_failures;
use super::messages::failed_mail;
use super::rows;
use super::verdicts::within_savepoint;

/// Most faillog rows that a warning tells of: the latest ones.
const ATTEMPT_LIMIT: usize = 100;

/// Mail that has failed in this transaction, and when it was tried before.
pub(super) type Failed = Vec<(MailId, Option<UnixTime>)>;

/// Inserts the warnings that are due. What cannot be made costs nothing else. Fails only if the transaction is lost.
pub(super) fn insert(
    connection: &Connection,
    warnings: &DelayWarnings,
    failed: &Failed,
) -> rusqlite::Result<Vec<Warned>> {
    if ids_are_used_up(connection) {
        // Trying to insert one would end the transaction.
        return Ok(Vec::new());
    }
    let made = within_savepoint(connection, || try_to_insert(connection, warnings, failed));
    match made {
        Ok(warned) => Ok(warned),
        Err(error) if connection.is_autocommit() => Err(error),
        Err(error) => {
            log::warn!("senders of late mail cannot be told: {error}; {}", advice(connection, &error));
            Ok(Vec::new())
        }
    }
}

fn try_to_insert(
    connection: &Connection,
    warnings: &DelayWarnings,
    failed: &Failed,
) -> rusqlite::Result<Vec<Warned>> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO outbox (mail_remote, mail_envelopefrom, mail_envelopeto, mail_data) VALUES (NULL, NULL, ?1, ?2)",
    )?;
    let mut warned = Vec::new();
    for message in late_messages(connection, warnings, failed)? {
        let Some(NewWarning { recipient, data }) = warnings.warning(&message) else { continue };
        statement.raw_bind_parameter(1, rows::AsText(&recipient))?;
        statement.raw_bind_parameter(2, rows::AsText(&data))?;
        match statement.raw_execute()? {
            1 => warned.push(Warned {
                originals: message.ids().collect(),
                warning: MailId(connection.last_insert_rowid()),
            }),
            count => return Err(rusqlite::Error::StatementChangedRows(count)),
        }
    }
    Ok(warned)
}

/// Returns the mail whose sender is to be told, by message. Messages that begin alike, and have the same sender and length, are told of
/// together.
fn late_messages(
    connection: &Connection,
    warnings: &DelayWarnings,
    failed: &Failed,
) -> rusqlite::Result<Vec<FailedMessage>> {
    let mut messages: Vec<FailedMessage> = Vec::new();
    let mut texts = rows::texts();
    for (id, tried_before) in failed {
        let Some(row) = row_with_failures(connection, *id, &mut texts)? else { continue };
        if !warnings.is_due(*tried_before, &row) {
            continue;
        }
        let data_octets = row.data_octets;
        let original = header(connection, *id, data_octets)?;
        let mail = failed_mail(connection, row, ATTEMPT_LIMIT)?;
        let is_same = |message: &&mut FailedMessage| {
            message.data_octets == data_octets
                && message.original == original
                && message.mails.first().is_some_and(|first: &FailedMail| first.row.sender == mail.row.sender)
        };
        match messages.iter_mut().find(is_same) {
            Some(message) => message.mails.push(mail),
            None => messages.push(FailedMessage { mails: vec![mail], data_octets, original }),
        }
    }
    Ok(messages)
}

/// Reads the beginning of a message that has its header section.
fn header(connection: &Connection, id: MailId, data_octets: u64) -> rusqlite::Result<Bytes> {
    let beginning = blob::read(connection, id, data_octets, 0, DATA_CHUNK_OCTETS)?;
    let needed = usize::try_from(needed_octets(&beginning, data_octets, 0)).unwrap_or(usize::MAX);
    if needed <= beginning.len() { Ok(beginning) } else { blob::read(connection, id, data_octets, 0, needed) }
}

/// Returns when a mail was last tried, if it was.
pub(super) fn last_try(connection: &Connection, id: MailId) -> rusqlite::Result<Option<UnixTime>> {
    let row = row_with_failures(connection, id, &mut rows::texts()).optional()?.flatten();
    Ok(row.filter(|row| row.fail_count > 0).map(|row| row.last_try))
}

#[cfg(test)]
mod tests;
