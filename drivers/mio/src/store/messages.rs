//! Answers requests that read mail: claims, recalls, mail data, and failed mail for bounces.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use cmail_delivery::dkim::Signing;
use cmail_delivery::failure::TEXT_LIMIT_OCTETS;
use cmail_delivery::outbox::{
    CLAIM_BUDGET_OCTETS, ClaimedTransaction, DATA_CHUNK_OCTETS, FAILED_BUDGET_OCTETS, FailedMail,
    FailedMessage, FaillogRow, LeftOver, MailId, Row,
};
use cmail_delivery::time::UnixTime;
use rusqlite::{Connection, OptionalExtension, params};

use super::blob::read_chunks;
use super::database::LargeMessages;
use super::digests::Digests;
use super::failures::add_own_failures;
use super::fingerprints::{Fingerprint, FingerprintList};
use super::grouping::{Grouped, Limits, group};
use super::pool::Pool;
use super::read_ahead::{Follows, ReadJob, ReadOutput, has_room};
use super::rows::{self, Found, beginning, limited, number, octets};
use super::signing::Drafter;

/// Most faillog rows that are returned for a mail: the latest ones.
const ATTEMPT_LIMIT: usize = 100;
/// Most faillog rows for all mails of a request together, because each may have a text of 4 KiB.
const ATTEMPTS_LIMIT: usize = 10_000;
/// The faillog rows that each mail may have all the same.
const ATTEMPT_LEAST: usize = 10;

/// How many chunks are handed over together.
const PART_CHUNKS: usize = 16;

/// Answers [`StoreRequest::Claim`](cmail_delivery::outbox::StoreRequest::Claim). To be called within a read transaction, like
/// all functions of this module.
pub(super) fn claim(
    connection: &Connection,
    large: &mut LargeMessages,
    ids: &[MailId],
    limit: usize,
    recipients: usize,
    signing: Option<&Signing>,
) -> rusqlite::Result<(Vec<ClaimedTransaction>, Vec<LeftOver>, FingerprintList)> {
    let limits = Limits {
        groups: limit,
        recipients,
        budget_octets: CLAIM_BUDGET_OCTETS,
        whole_octets: DATA_CHUNK_OCTETS as u64,
        wants_header: false,
    };
    let LargeMessages { pool, digests, bodies } = large;
    let Grouped { groups, mut left_over, mut fingerprints, .. } =
        group(connection, pool, digests, ids, &limits)?;
    let (mut drafter, mut transactions) =
        (Drafter::new(connection, pool, bodies, signing), Vec::with_capacity(groups.len()));
    for group in groups {
        match drafter.transaction(group, &fingerprints)? {
            Ok(transaction) => transactions.push(transaction),
            Err(group) => {
                fingerprints.retain(|(id, _)| group.rows.iter().all(|row| row.id != *id));
                left_over.extend(group.rows.iter().map(|row| LeftOver { id: row.id, message: None }));
            }
        }
    }
    Ok((transactions, left_over, fingerprints))
}

/// Answers [`StoreRequest::Recall`](cmail_delivery::outbox::StoreRequest::Recall), also with the fingerprints of what was read.
pub(super) fn recall(
    connection: &Connection,
    ids: &[MailId],
) -> rusqlite::Result<(Vec<Row>, FingerprintList)> {
    let (mut rows, mut fingerprints) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
    let mut texts = rows::texts();
    for id in ids {
        let Some(Found { mut row, submission, .. }) = rows::row(connection, *id, 0, &mut texts)? else {
            continue;
        };
        add_own_failures(connection, &mut row)?;
        fingerprints.push((*id, Fingerprint::of(&row, submission.as_deref(), None)));
        rows.push(row);
    }
    Ok((rows, fingerprints))
}

/// Reads at most `limit` octets of a mail's data, and at most one chunk.
pub(super) fn read_data(
    connection: &Connection,
    pool: &Pool,
    id: MailId,
    offset: u64,
    limit: u32,
) -> rusqlite::Result<Bytes> {
    let octets = usize::try_from(limit).unwrap_or(usize::MAX).min(DATA_CHUNK_OCTETS);
    let job = ReadJob { id, offset, octets, least_octets: octets, number: 0 };
    let output = run_read_job(connection, pool, job, &mut |_| ControlFlow::Continue(()))?;
    Ok(output.chunks.into_iter().next().unwrap_or_default())
}

/// Reads a range of a mail's data, opening it only once, and hands over all parts but the last one as soon as they are read.
/// Ends early if there is no more memory, or if `hand_over` breaks.
pub(super) fn run_read_job(
    connection: &Connection,
    pool: &Pool,
    job: ReadJob,
    hand_over: &mut dyn FnMut(ReadOutput) -> ControlFlow<()>,
) -> rusqlite::Result<ReadOutput> {
    let ReadJob { id, offset, octets, least_octets, .. } = job;
    let length: Option<i64> = connection
        .prepare_cached("SELECT coalesce(octet_length(mail_data), 0) FROM outbox WHERE mail_id = ?1")?
        .query_row([id.0], |row| row.get(0))
        .optional()?;
    let data_octets = length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
    let end = data_octets.min(offset.saturating_add(octets as u64));
    let (mut chunks, mut read_to) = (Vec::new(), offset);
    read_chunks(connection, pool, id, data_octets, offset..end, &mut |chunk| {
        let flow = if chunks.len() == PART_CHUNKS {
            hand_over(ReadOutput { chunks: std::mem::take(&mut chunks), follows: Follows::MoreChunks })
        } else {
            ControlFlow::Continue(())
        };
        read_to += chunk.len() as u64;
        chunks.push(chunk);
        if has_room(pool, read_to - offset < least_octets as u64) { flow } else { ControlFlow::Break(()) }
    })?;
    Ok(ReadOutput {
        chunks,
        follows: if read_to >= data_octets { Follows::EndOfData } else { Follows::NotRequested },
    })
}

/// Answers [`StoreRequest::ReadFailed`](cmail_delivery::outbox::StoreRequest::ReadFailed).
pub(super) fn read_failed(
    connection: &Connection,
    pool: &Pool,
    digests: &mut Digests,
    ids: &[MailId],
    original_limit_octets: u64,
) -> rusqlite::Result<(Vec<FailedMessage>, Vec<MailId>, FingerprintList)> {
    let limits = Limits {
        groups: usize::MAX,
        recipients: usize::MAX,
        budget_octets: FAILED_BUDGET_OCTETS,
        whole_octets: original_limit_octets,
        wants_header: true,
    };
    let Grouped { groups, left_over, fingerprints, is_partly_compared, .. } =
        group(connection, pool, digests, ids, &limits)?;
    let mut left_over: Vec<MailId> = left_over.into_iter().map(|row| row.id).collect();
    if is_partly_compared && digests.begin_wait() {
        // Recipients of one message share a bounce: so all are compared first, some of them by each request.
        return Ok((Vec::new(), ids.to_vec(), Vec::new()));
    }
    let attempt_limit = attempt_limit(ids.len());
    let mut messages = Vec::with_capacity(groups.len());
    let mut texts_octets = 0;
    for group in groups {
        if texts_octets >= FAILED_BUDGET_OCTETS {
            left_over.extend(group.rows.iter().map(|row| row.id));
            continue;
        }
        let mails = group
            .rows
            .into_iter()
            .map(|row| failed_mail(connection, row, attempt_limit))
            .collect::<rusqlite::Result<Vec<FailedMail>>>()?;
        let attempts = mails.iter().flat_map(|mail| &mail.attempts);
        texts_octets += attempts.map(|attempt| attempt.text.len()).sum::<usize>();
        messages.push(FailedMessage { mails, data_octets: group.data_octets, original: group.head });
    }
    Ok((messages, left_over, fingerprints))
}

/// Returns how many faillog rows of each mail are returned if there are so many mails.
pub(super) fn attempt_limit(mails: usize) -> usize {
    (ATTEMPTS_LIMIT / mails.max(1)).clamp(ATTEMPT_LEAST, ATTEMPT_LIMIT)
}

/// Reads everything of a mail, to find out whether it can be read.
pub(super) fn read_all(connection: &Connection, pool: &Pool, id: MailId) -> rusqlite::Result<()> {
    let Some(found) = rows::row(connection, id, 0, &mut BytesMut::new())? else { return Ok(()) };
    let mut row = found.row;
    let data_octets = row.data_octets;
    add_own_failures(connection, &mut row)?;
    failed_mail(connection, row, ATTEMPT_LIMIT)?;
    read_chunks(connection, pool, id, data_octets, 0..data_octets, &mut |_| ControlFlow::Continue(()))
}

pub(super) fn failed_mail(
    connection: &Connection,
    row: Row,
    attempt_limit: usize,
) -> rusqlite::Result<FailedMail> {
    // Rows are ordered as they were written, not by time: the clock may have been set in between.
    let mut statement = connection.prepare_cached(concat!(
        "SELECT rowid, coalesce(CAST(CAST(",
        number!("fail_time"),
        " AS NUMERIC) AS INTEGER), 0), ",
        limited!("fail_message", "?3"),
        ", coalesce(CAST(",
        number!("fail_fatal"),
        " AS NUMERIC) > 0, 0) FROM faillog WHERE fail_mail = ?1 ORDER BY rowid DESC LIMIT ?2"
    ))?;
    let mut attempts = statement
        .query_map(params![row.id.0, attempt_limit as i64, TEXT_LIMIT_OCTETS as i64], |row| {
            let text = octets(row.get_ref(2)?).unwrap_or_default();
            let text = match text.len() > TEXT_LIMIT_OCTETS {
                true => beginning(connection, c"faillog", c"fail_message", row.get(0)?, TEXT_LIMIT_OCTETS)?,
                false => text.into_owned(),
            };
            Ok(FaillogRow { time: UnixTime(row.get(1)?), text: text.into(), fatal: row.get(3)? })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    attempts.reverse();
    Ok(FailedMail { row, attempts })
}

#[cfg(test)]
mod tests;
