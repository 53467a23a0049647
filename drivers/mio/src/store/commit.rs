//! Records the outcomes of a commit within a transaction.

use std::collections::HashSet;

use bytes::Bytes;
use cmail_delivery::bounce::compose_ordered;
use cmail_delivery::dkim::SignMark;
use cmail_delivery::outbox::{
    Charge, Commit, Committed, DeliveredMail, FailedAttempt, MailId, Replacement, Reported, Row,
};
use cmail_delivery::wording::{order_in, retry_line};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::failures::{last_try, row_with_failures};
use super::fingerprints::{Compared, Fingerprints};
use super::ledger::{Fate, Ledger};
use super::rows::octets;
use super::warnings::Failed;
use super::{envelopes, holds, last_failures, relay_reports, rows, stuck, warnings};

/// Composes the data of the bounces of a commit, in their order.
pub(super) fn compose_bounces(commit: &Commit) -> Vec<Option<Bytes>> {
    let bounces = commit.replaced.iter().map(|replacement| replacement.bounce.as_ref());
    bounces.map(|bounce| compose_ordered(&bounce?.order)).collect()
}

/// Records outcomes, with these [bounces](compose_bounces), except those of mail that has changed since it was read.
pub(super) fn record(
    transaction: &Transaction<'_>,
    commit: &Commit,
    bounces: Vec<Option<Bytes>>,
    fingerprints: &Fingerprints,
    version: i64,
    ledger: &mut Ledger,
) -> rusqlite::Result<Committed> {
    let committed = Committed::default();
    let done_with = Vec::with_capacity(commit.delivered.len() + commit.replaced.len());
    let mut recorder = Recorder {
        transaction,
        commit,
        fingerprints,
        version,
        ledger,
        committed,
        done_with,
        successors: Vec::new(),
    };
    recorder.record_delivered()?;
    let failed = recorder.record_failed()?;
    recorder.warn_senders(&failed)?;
    recorder.record_replaced(bounces)?;
    recorder.finish(failed)
}

/// Records the verdicts of a commit.
struct Recorder<'a> {
    transaction: &'a Transaction<'a>,
    commit: &'a Commit,
    fingerprints: &'a Fingerprints,
    version: i64,
    ledger: &'a mut Ledger,
    committed: Committed,
    /// Deleted last: SQLite has to save a page in its journal if one transaction frees it and uses it again.
    done_with: Vec<MailId>,
    /// The mail that has taken the ids of mail which an earlier process has sent.
    successors: Vec<Row>,
}

impl Recorder<'_> {
    /// Returns whether a mail is as it was when it was claimed. Notes it as changed if it is not.
    fn is_as_claimed(&mut self, id: MailId, part: Compared) -> rusqlite::Result<bool> {
        let now = self.fingerprints.changed(self.transaction, id, part, self.version)?;
        let is_as_claimed = now.is_none();
        self.committed.changed.extend(now);
        Ok(is_as_claimed)
    }

    /// Records what was delivered.
    fn record_delivered(&mut self) -> rusqlite::Result<()> {
        let (transaction, commit) = (self.transaction, self.commit);
        let has_stuck = stuck::exists(transaction)?;
        for mail in &commit.delivered {
            let DeliveredMail { id, attempt, .. } = mail;
            if let Some(attempt) = attempt {
                let submission = self.fingerprints.submission(*id);
                self.ledger.add_attempt(transaction, *id, &attempt.facts(), submission, None, || {
                    attempt.result.reply.text()
                })?;
            }
            // Of what an earlier process has sent nothing is known but its note.
            let is_known = self.fingerprints.knows(*id) || !has_stuck;
            let successor = if is_known { None } else { stuck::successor(transaction, *id)? };
            if successor.is_none() && self.is_as_claimed(*id, Compared::MessageAndRecipient)? {
                self.committed.reported.extend(report(transaction, commit, mail, self.ledger)?);
                self.done_with.push(*id);
            }
            self.successors.extend(successor);
            if has_stuck {
                stuck::end(transaction, *id)?;
            }
        }
        Ok(())
    }

    /// Records the failed attempts. Returns the rows as they are now.
    fn record_failed(&mut self) -> rusqlite::Result<Vec<Failed>> {
        let (transaction, commit) = (self.transaction, self.commit);
        let mut attempts = Vec::with_capacity(commit.failed.len());
        for attempt in &commit.failed {
            let submission = self.fingerprints.submission(attempt.id);
            self.ledger.add_attempt(
                transaction,
                attempt.id,
                &attempt.attempt.facts(),
                submission,
                attempt.line,
                || attempt.text(),
            )?;
            if self.is_as_claimed(attempt.id, Compared::WholeRow)? {
                let tried_before = match commit.warnings {
                    Some(_) => last_try(transaction, attempt.id)?,
                    None => None,
                };
                let counts = match attempt.charge {
                    Charge::Counts => true,
                    Charge::Early => false,
                    Charge::Holds => !holds::hold_uncertain(transaction, attempt.id)?,
                };
                if counts {
                    record_failure(transaction, attempt)?;
                }
                attempts.push((attempt.id, tried_before));
            }
        }
        let (mut failed, mut texts) = (Vec::with_capacity(attempts.len()), rows::texts());
        for (id, tried_before) in attempts {
            let row = row_with_failures(transaction, id, &mut texts)?;
            failed.extend(row.map(|row| (row, tried_before)));
        }
        Ok(failed)
    }

    /// Tells the senders of late mail.
    fn warn_senders(&mut self, failed: &[Failed]) -> rusqlite::Result<()> {
        if let Some(warnings) = &self.commit.warnings {
            self.committed.warned =
                warnings::insert(self.transaction, warnings, self.commit.own_mark, failed)?;
        }
        Ok(())
    }

    /// Replaces mail that is given up by its bounces, unless some of it has changed.
    fn record_replaced(&mut self, bounces: Vec<Option<Bytes>>) -> rusqlite::Result<()> {
        let (transaction, commit) = (self.transaction, self.commit);
        for (replacement, bounce) in commit.replaced.iter().zip(bounces) {
            let mut remaining = Vec::with_capacity(replacement.originals.len());
            for id in &replacement.originals {
                if exists(transaction, *id)? && self.is_as_claimed(*id, Compared::WholeRow)? {
                    remaining.push(*id);
                }
            }
            if remaining.len() == replacement.originals.len() {
                for id in &remaining {
                    let why = why_replaced(transaction, replacement, *id)?;
                    self.ledger.add_end(transaction, *id, replacement.fate(*id).into(), why.as_deref())?;
                }
                let inserted = insert_bounce(transaction, replacement, commit.own_mark, bounce)?;
                self.committed.bounces.push(inserted);
                self.done_with.append(&mut remaining);
            } else {
                self.committed.bounces.push(Vec::new());
                self.committed.not_replaced.append(&mut remaining);
            }
        }
        Ok(())
    }

    /// Deletes what is done with. Returns what has come of the commit.
    fn finish(mut self, failed: Vec<Failed>) -> rusqlite::Result<Committed> {
        self.done_with.iter().try_for_each(|id| delete(self.transaction, *id))?;
        self.committed.changed.append(&mut self.successors);
        let deleted: HashSet<MailId> =
            if failed.is_empty() { HashSet::new() } else { self.done_with.into_iter().collect() };
        let failed = failed.into_iter().map(|(row, _)| row).filter(|row| !deleted.contains(&row.id));
        Ok(Committed { failed: failed.collect(), ..self.committed })
    }
}

/// Tells the sender of delivered mail, where that is wanted, before it is deleted.
fn report(
    transaction: &Connection,
    commit: &Commit,
    mail: &DeliveredMail,
    ledger: &mut Ledger,
) -> rusqlite::Result<Option<Reported>> {
    let Some(reports) = &commit.reports else { return Ok(None) };
    let reported = relay_reports::insert(transaction, reports, commit.own_mark, mail)?;
    if let Some(Reported { original, report }) = reported {
        let why = format!("mail {report} tells its sender");
        ledger.add_end(transaction, original, Fate::Relayed, Some(&why))?;
    }
    Ok(reported)
}

/// Returns the order by which a mail was given up, if one was.
fn ordered_by(connection: &Connection, id: MailId) -> rusqlite::Result<Option<String>> {
    let text = connection
        .prepare_cached(
            "SELECT substr(fail_message, 1, 1000) FROM faillog WHERE fail_mail = ?1 AND fail_fatal = 1 ORDER BY rowid DESC LIMIT 1",
        )?
        .query_row([id.0], |row| Ok(octets(row.get_ref(0)?).unwrap_or_default().into_owned()))
        .optional()?;
    Ok(text.and_then(|text| order_in(&String::from_utf8_lossy(&text)).map(str::to_owned)))
}

/// Returns what has ended a mail that is given up, and why it has no bounce, as far as there is something to say.
fn why_replaced(
    connection: &Connection,
    replacement: &Replacement,
    id: MailId,
) -> rusqlite::Result<Option<String>> {
    let ended_by = match replacement.expired(id) {
        Some(line) => Some(retry_line(line)),
        None => ordered_by(connection, id)?,
    };
    let unwanted = if replacement.bounce.is_none() { unwanted(connection, id)? } else { None };
    let clauses: Vec<String> = ended_by.into_iter().chain(unwanted).collect();
    Ok((!clauses.is_empty()).then(|| clauses.join("; ")))
}

/// Returns why a mail that is given up has no bounce, if its sender wants none.
fn unwanted(connection: &Connection, id: MailId) -> rusqlite::Result<Option<String>> {
    let (wishes, _) = envelopes::wishes(connection, id)?;
    let notify = wishes.notify.filter(|notify| !notify.failure);
    Ok(notify.map(|notify| format!("its sender wants no bounce (NOTIFY={notify})")))
}

/// Deletes a mail, and with it its faillog rows.
pub(super) fn delete(connection: &Connection, id: MailId) -> rusqlite::Result<()> {
    let count = connection.prepare_cached("DELETE FROM outbox WHERE mail_id = ?1")?.execute([id.0])?;
    // A trigger of another program may suppress the statement without an error.
    if count == 0 && exists(connection, id)? { Err(rusqlite::Error::StatementChangedRows(0)) } else { Ok(()) }
}

/// Adds a faillog row for a mail, if it still exists.
fn record_failure(transaction: &Transaction<'_>, failed: &FailedAttempt) -> rusqlite::Result<()> {
    let attempt = &failed.attempt;
    let mut statement = transaction.prepare_cached(
        "INSERT INTO faillog (fail_mail, fail_message, fail_time, fail_fatal) \
         SELECT ?1, ?2, CAST(?3 AS TEXT), ?4 WHERE EXISTS (SELECT 1 FROM outbox WHERE mail_id = ?1)",
    )?;
    let count = statement.execute(params![failed.id.0, failed.text(), attempt.at.0, attempt.is_fatal()])?;
    if count == 0 && exists(transaction, failed.id)? {
        return Err(rusqlite::Error::StatementChangedRows(0));
    }
    if count == 0 {
        return Ok(());
    }
    last_failures::record(transaction, failed.id, attempt.at, attempt.facts().into())
}

pub(super) fn exists(transaction: &Connection, id: MailId) -> rusqlite::Result<bool> {
    transaction.prepare_cached("SELECT 1 FROM outbox WHERE mail_id = ?1")?.exists([id.0])
}

/// Inserts the bounce of some originals, and returns its rows.
fn insert_bounce(
    transaction: &Transaction<'_>,
    replacement: &Replacement,
    mark: SignMark,
    data: Option<Bytes>,
) -> rusqlite::Result<Vec<MailId>> {
    let (Some(bounce), Some(data)) = (&replacement.bounce, data) else { return Ok(Vec::new()) };
    let mut insert = transaction.prepare_cached(
        "INSERT INTO outbox (mail_remote, mail_envelopefrom, mail_envelopeto, mail_data) VALUES (NULL, NULL, ?1, ?2)",
    )?;
    insert.raw_bind_parameter(2, rows::AsText(&data))?;
    // SQLite has its own copy now, and makes another one for each row.
    drop(data);
    let mut inserted = Vec::with_capacity(bounce.recipients.len());
    for recipient in &bounce.recipients {
        insert.raw_bind_parameter(1, rows::AsText(recipient))?;
        match insert.raw_execute()? {
            1 => {
                let id = MailId(transaction.last_insert_rowid());
                warnings::mark_own(transaction, id, mark)?;
                inserted.push(id);
            }
            count => return Err(rusqlite::Error::StatementChangedRows(count)),
        }
    }
    Ok(inserted)
}
