//! Records outcomes one by one within a transaction, each in a savepoint, and describes those that cannot be recorded.

use cmail_delivery::outbox::{Commit, Committed, DeliveredMail, MailId, Refused, Replacement};
use cmail_delivery::shown::shortened_octets;
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::commit::{compose_bounces, delete, record};
use super::error::{advice, ids_are_used_up, trouble};
use super::fingerprints::Fingerprints;
use super::ledger::Ledger;
use super::rows::octets;
use super::stuck;

/// Describes mail that cannot be read.
pub(super) fn unreadable_mail(connection: &Connection, id: MailId, error: &rusqlite::Error) -> Refused {
    let whom = recipient(connection, id);
    let advice = advice(connection, error);
    Refused { id, text: format!("mail {id}{whom} cannot be read: {error}; {advice}") }
}

/// Splits a commit into commits of one outcome each.
pub(super) fn verdicts(commit: &Commit) -> Vec<Commit> {
    let delivered = commit.delivered.iter().map(|mail| Commit {
        delivered: vec![mail.clone()],
        reports: commit.reports.clone(),
        own_mark: commit.own_mark,
        ..Commit::default()
    });
    let failed = commit.failed.iter().map(|attempt| Commit {
        failed: vec![attempt.clone()],
        warnings: commit.warnings.clone(),
        own_mark: commit.own_mark,
        ..Commit::default()
    });
    let replaced = commit.replaced.iter().map(|replacement| Commit {
        replaced: vec![replacement.clone()],
        own_mark: commit.own_mark,
        ..Commit::default()
    });
    delivered.chain(failed).chain(replaced).collect()
}

/// Records outcomes one by one, except those that cannot be recorded. Fails if one of them ends the whole transaction.
pub(super) fn record_each(
    transaction: &Transaction<'_>,
    verdicts: &[Commit],
    fingerprints: &Fingerprints,
    version: i64,
    ledger: &mut Ledger,
) -> rusqlite::Result<Committed> {
    let mut recorded = Committed::default();
    for verdict in verdicts {
        // Trying to insert a bounce would end the transaction.
        if verdict.replaced.iter().any(|replacement| replacement.bounce.is_some())
            && ids_are_used_up(transaction)
        {
            refuse(transaction, verdict, &used_up(), &mut recorded);
            continue;
        }
        match within_savepoint(transaction, || {
            record(transaction, verdict, compose_bounces(verdict), fingerprints, version, ledger)
        }) {
            Ok(more) => recorded.append(more),
            Err(error) if is_only_about_a_row(transaction, &error) => {
                ledger.forget();
                refuse(transaction, verdict, &error, &mut recorded);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(recorded)
}

/// Returns the error by which SQLite reports that no id is left.
fn used_up() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None)
}

fn is_only_about_a_row(transaction: &Connection, error: &rusqlite::Error) -> bool {
    !transaction.is_autocommit() && trouble(transaction, error).is_about_a_row()
}

/// Does something completely or not at all.
pub(super) fn within_savepoint<T>(
    connection: &Connection,
    act: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("SAVEPOINT verdict")?;
    let result = act();
    if connection.is_autocommit() {
        return result;
    }
    let end = if result.is_ok() { "RELEASE verdict" } else { "ROLLBACK TO verdict; RELEASE verdict" };
    connection.execute_batch(end)?;
    result
}

/// Adds an outcome that cannot be recorded to the result.
pub(super) fn refuse(
    connection: &Connection,
    verdict: &Commit,
    error: &rusqlite::Error,
    recorded: &mut Committed,
) {
    let advice = advice(connection, error);
    let text = |id: MailId, what: &str| {
        let whom = recipient(connection, id);
        Refused { id, text: format!("{what} mail {id}{whom} cannot be recorded: {error}; {advice}") }
    };
    for DeliveredMail { id, .. } in &verdict.delivered {
        let mut refused = text(*id, "the delivery of");
        if let Err(error) = within_savepoint(connection, || stuck::note(connection, *id, &error.to_string()))
        {
            recorded.not_noted.push(*id);
            refused.text = format!(
                "{}; it cannot be noted in the table dispatch_stuck either ({error}), so it is sent again after a restart",
                refused.text
            );
        } else {
            refused.text = format!("{}; it is not sent again", refused.text);
        }
        recorded.refused.push(refused);
    }
    let failed = verdict.failed.iter().map(|attempt| text(attempt.id, "a failed attempt of"));
    recorded.refused.extend(failed);
    for replacement in &verdict.replaced {
        let culprits = undeletable(connection, replacement);
        let (to_blame, others): (Vec<MailId>, Vec<MailId>) = replacement
            .originals
            .iter()
            .copied()
            .partition(|id| culprits.is_empty() || culprits.contains(id));
        recorded.refused.extend(to_blame.into_iter().map(|id| text(id, "the bounce of")));
        recorded.not_replaced.extend(others);
        recorded.bounces.push(Vec::new());
    }
}

/// Finds the originals that cannot be deleted, and so prevent a replacement.
fn undeletable(connection: &Connection, replacement: &Replacement) -> Vec<MailId> {
    if connection.is_autocommit() || replacement.originals.len() == 1 {
        return Vec::new();
    }
    let is_undeletable = |id: &&MailId| {
        let tried: rusqlite::Result<bool> = within_savepoint(connection, || {
            delete(connection, **id)?;
            // It was only an attempt: roll it back.
            Err(rusqlite::Error::StatementChangedRows(usize::MAX))
        });
        !matches!(tried, Err(rusqlite::Error::StatementChangedRows(usize::MAX)))
    };
    replacement.originals.iter().filter(is_undeletable).copied().collect()
}

/// Returns the recipient of a mail, to be shown after its id.
fn recipient(connection: &Connection, id: MailId) -> String {
    let found = connection
        .prepare_cached("SELECT substr(mail_envelopeto, 1, 200) FROM outbox WHERE mail_id = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([id.0], |row| Ok(octets(row.get_ref(0)?).map(|octets| octets.into_owned())))
                .optional()
        });
    match found {
        Ok(Some(Some(recipient))) => format!(" to <{}>", shortened_octets(&recipient)),
        Ok(_) | Err(_) => String::new(),
    }
}
