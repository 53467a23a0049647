//! Inserts the reports that mail was delivered, in the transaction that deletes the mail.

use cmail_delivery::dkim::SignMark;
use cmail_delivery::outbox::{DeliveredMail, FailedMail, FailedMessage, MailId, Reported};
use cmail_delivery::relay_report::RelayReports;
use rusqlite::Connection;

use super::error::{advice, ids_are_used_up};
use super::failures::row_with_failures;
use super::rows;
use super::verdicts::within_savepoint;
use super::warnings::{header, insert_notice};

/// Inserts the report of a delivery, if its sender is to be told, before its mail is deleted. One that cannot be made costs nothing else.
/// Fails only if the transaction is lost.
pub(super) fn insert(
    connection: &Connection,
    reports: &RelayReports,
    mark: SignMark,
    mail: &DeliveredMail,
) -> rusqlite::Result<Option<Reported>> {
    if !mail.is_reported {
        return Ok(None);
    }
    let id = mail.id;
    if ids_are_used_up(connection) {
        // Trying to insert it would end the transaction.
        log::warn!(
            "the sender of mail {id} cannot be told that it was delivered, because the ids of the outbox are used up"
        );
        return Ok(None);
    }
    match within_savepoint(connection, || insert_for(connection, reports, mark, mail)) {
        Ok(report) => Ok(report.map(|report| Reported { original: id, report })),
        Err(error) if connection.is_autocommit() => Err(error),
        Err(error) => {
            let advice = advice(connection, &error);
            log::warn!("the sender of mail {id} cannot be told that it was delivered: {error}; {advice}");
            Ok(None)
        }
    }
}

fn insert_for(
    connection: &Connection,
    reports: &RelayReports,
    mark: SignMark,
    mail: &DeliveredMail,
) -> rusqlite::Result<Option<MailId>> {
    let Some(attempt) = &mail.attempt else { return Ok(None) };
    let Some(row) = row_with_failures(connection, mail.id, &mut rows::texts())? else { return Ok(None) };
    let data_octets = row.data_octets;
    let original = header(connection, row.id, data_octets)?;
    let mails = vec![FailedMail { row, attempts: Vec::new() }];
    let report = reports.report(attempt, &FailedMessage { mails, data_octets, original });
    report.map(|report| insert_notice(connection, &report, mark)).transpose()
}

#[cfg(test)]
mod tests;
