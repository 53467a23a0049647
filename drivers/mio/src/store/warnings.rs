//! Inserts the warnings about late mail, in the transaction that records its failures.

use bytes::Bytes;
use cmail_delivery::bounce::{header_section, needed_octets};
use cmail_delivery::delay_warning::DelayWarnings;
use cmail_delivery::dkim::SignMark;
use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::outbox::{DATA_CHUNK_OCTETS, FailedMessage, MailId, NewNotice, Row, Warned};
use cmail_delivery::time::UnixTime;
use rusqlite::Connection;

use super::error::{advice, ids_are_used_up};
use super::messages::{attempt_limit, failed_mail};
use super::rows::AsText;
use super::verdicts::within_savepoint;
use super::{blob, envelopes};

/// A mail as it is with the failure that was recorded in this transaction, and when it was tried before.
pub(super) type Failed = (Row, Option<UnixTime>);

/// Inserts the warnings that are due. One that cannot be made costs no other. Fails only if the transaction is lost.
pub(super) fn insert(
    connection: &Connection,
    warnings: &DelayWarnings,
    mark: SignMark,
    failed: &[Failed],
) -> rusqlite::Result<Vec<Warned>> {
    let mut late: Vec<&Row> =
        failed.iter().filter(|(row, before)| warnings.is_due(*before, row)).map(|(row, _)| row).collect();
    if late.is_empty() {
        return Ok(Vec::new());
    }
    if ids_are_used_up(connection) {
        // Trying to insert one would end the transaction.
        log::warn!("senders of late mail cannot be told, because the ids of the outbox are used up");
        return Ok(Vec::new());
    }
    let look = |row: &&Row| (row.sender.clone(), row.submission, row.data_octets, row.wishes.message.clone());
    late.sort_by_key(look);
    let mut warned = Vec::new();
    for alike in late.chunk_by(|one, other| look(one) == look(other)) {
        match within_savepoint(connection, || insert_for(connection, warnings, mark, alike)) {
            Ok(mut more) => warned.append(&mut more),
            Err(error) if connection.is_autocommit() => return Err(error),
            Err(error) => {
                let ids: Vec<String> = alike.iter().map(|row| row.id.to_string()).collect();
                log::warn!(
                    "the sender of mail {} cannot be told that it is late: {error}; {}",
                    ids.join(", "),
                    advice(connection, &error)
                );
            }
        }
    }
    Ok(warned)
}

/// Inserts the warnings about mail of one sender, submission and length, with the same wishes: one for each message, which is told by its header section.
fn insert_for(
    connection: &Connection,
    warnings: &DelayWarnings,
    mark: SignMark,
    alike: &[&Row],
) -> rusqlite::Result<Vec<Warned>> {
    let mut messages: Vec<(Bytes, Vec<&Row>)> = Vec::new();
    for row in alike {
        let header = header(connection, row.id, row.data_octets)?;
        match messages.iter_mut().find(|(other, _)| *other == header) {
            Some((_, rows)) => rows.push(row),
            None => messages.push((header, vec![row])),
        }
    }
    let mut warned = Vec::with_capacity(messages.len());
    for (original, rows) in messages {
        let limit = attempt_limit(rows.len());
        let mails = rows.iter().map(|row| failed_mail(connection, (*row).clone(), limit));
        let mails = mails.collect::<rusqlite::Result<Vec<_>>>()?;
        let data_octets = rows.first().map_or(0, |row| row.data_octets);
        let message = FailedMessage { mails, data_octets, original };
        if let Some(warning) = warnings.warning(&message) {
            let originals = message.ids().collect();
            warned.push(Warned { originals, warning: insert_notice(connection, &warning, mark)? });
        }
    }
    Ok(warned)
}

/// Inserts a notice, and returns its row.
pub(super) fn insert_notice(
    connection: &Connection,
    notice: &NewNotice,
    mark: SignMark,
) -> rusqlite::Result<MailId> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO outbox (mail_remote, mail_envelopefrom, mail_envelopeto, mail_data) VALUES (NULL, NULL, ?1, ?2)",
    )?;
    match statement.execute([AsText(&notice.recipient), AsText(&notice.data)])? {
        1 => {
            let id = MailId(connection.last_insert_rowid());
            mark_own(connection, id, mark)?;
            Ok(id)
        }
        count => Err(rusqlite::Error::StatementChangedRows(count)),
    }
}

/// Marks mail of our own to be signed. If that is impossible, it leaves unsigned. Fails only if the transaction is lost.
pub(super) fn mark_own(connection: &Connection, id: MailId, mark: SignMark) -> rusqlite::Result<()> {
    if mark == SignMark::Unmarked {
        return Ok(());
    }
    let store = || {
        envelopes::insert(connection, id, &DsnWishes::default())?;
        envelopes::mark(connection, id, mark)
    };
    if let Some(error) = unless_lost(connection, store)? {
        let advice = advice(connection, &error);
        log::warn!(
            "bounce or report {id} leaves without a signature, because it cannot be marked: {error}; {advice}"
        );
    }
    Ok(())
}

/// Does something that may fail, and returns the error. Fails only if the transaction is lost.
pub(super) fn unless_lost(
    connection: &Connection,
    act: impl FnOnce() -> rusqlite::Result<()>,
) -> rusqlite::Result<Option<rusqlite::Error>> {
    match within_savepoint(connection, act) {
        Err(error) if connection.is_autocommit() => Err(error),
        result => Ok(result.err()),
    }
}

/// Reads the header section of a message.
pub(super) fn header(connection: &Connection, id: MailId, data_octets: u64) -> rusqlite::Result<Bytes> {
    let mut beginning = blob::read(connection, id, data_octets, 0, DATA_CHUNK_OCTETS)?;
    let needed = usize::try_from(needed_octets(&beginning, data_octets, 0)).unwrap_or(usize::MAX);
    if needed > beginning.len() {
        beginning = blob::read(connection, id, data_octets, 0, needed)?;
    }
    Ok(Bytes::copy_from_slice(header_section(&beginning)))
}

#[cfg(test)]
mod tests;
