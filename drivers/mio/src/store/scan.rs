//! Scans the outbox from an id on, and skips damaged pages, so that a damaged page costs only the mail on it.
//!
//! SQLite cannot skip such a page. But the index that `UNIQUE` creates also holds each id, so the scan looks up each following
//! mail by its id until one can be read. If that index is damaged too, it tries ids one by one.

use cmail_delivery::address::ADDRESS_LIMIT_OCTETS;
use cmail_delivery::next_hop::REMOTE_LIMIT_OCTETS;
use cmail_delivery::outbox::{Cursor, MailId, Refused, Row};
use rusqlite::ffi::{Error as Code, SQLITE_CORRUPT};
use rusqlite::{Connection, Error, Rows, params};

use super::envelopes;
use super::error::{advice, trouble};
use super::failures::{add_failures, add_own_failures};
use super::rows::{self, limited, number, outbox_row, row_columns, time};
use super::stuck;
use super::verdicts::unreadable_mail;

const SCAN: &str =
    concat!("SELECT ", row_columns!(), " FROM outbox WHERE mail_id >= ?1 ORDER BY mail_id LIMIT ?2");

/// The same without mail that a server has taken.
const SCAN_UNTAKEN: &str = concat!(
    "SELECT ",
    row_columns!(),
    " FROM outbox WHERE mail_id >= ?1 AND NOT EXISTS (SELECT 1 FROM dispatch_stuck AS stuck WHERE \
     stuck.mail_id = outbox.mail_id AND CAST(mail_submission AS INTEGER) <= since) ORDER BY mail_id LIMIT ?2"
);

/// The ids in the index.
const INDEXED_IDS: &str = "SELECT mail_id FROM outbox INDEXED BY sqlite_autoindex_outbox_1 WHERE mail_id >= ?1 \
    ORDER BY mail_id";

/// The first id of the table itself.
const PROBE: &str = "SELECT mail_id FROM outbox NOT INDEXED WHERE mail_id >= ?1 ORDER BY mail_id LIMIT 1";

/// Most mails that one request looks up by id, in about 100 ms. The next request goes on from there.
const SINGLE_LIMIT: usize = 4096;
/// How many ids are tried in a row if the index is damaged too; after that the steps double. A page usually holds fewer.
const ROW_OF_PROBES: usize = 256;

/// The result of a scan.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) rows: Vec<Row>,
    pub(super) unreadable: Vec<Refused>,
    /// Where the next scan begins, if there is more.
    pub(super) next: Option<Cursor>,
}

/// Reads at most `limit` rows to be sent from the id `first` on, with their failures. To be called within a read transaction.
pub(super) fn scan(
    connection: &Connection,
    first: MailId,
    limit: u32,
    is_faillog_indexed: bool,
) -> rusqlite::Result<Scan> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).max(1);
    let (mut scan, mut from, mut budget) = (Scan::default(), Some(first), SINGLE_LIMIT);
    while let Some(first) = from {
        let error = match read(connection, first, limit, &mut scan.rows) {
            Ok(more) => {
                scan.next = scan.rows.last().filter(|_| more).map(|row| Cursor::After(row.id));
                break;
            }
            Err(error) if !trouble(connection, &error).is_about_a_row() => return Err(error),
            Err(error) => error,
        };
        let last = scan.rows.last().map(|row| row.id).filter(|last| *last >= first);
        let Some(begin) = last.map_or(Some(first), following) else { break };
        from = step_over(connection, begin, &error, &mut budget, &mut scan.unreadable)?;
        if let Some(end) = from.filter(|_| budget == 0) {
            scan.next = end.0.checked_sub(1).map(|id| Cursor::After(MailId(id)));
            break;
        }
    }
    envelopes::add_wishes(connection, &mut scan.rows)?;
    count_failures(connection, is_faillog_indexed, &mut scan)?;
    Ok(scan)
}

/// Adds rows up to the limit, without their failures, until one cannot be read. Returns whether there are more.
fn read(connection: &Connection, first: MailId, limit: usize, rows: &mut Vec<Row>) -> rusqlite::Result<bool> {
    let mut statement =
        connection.prepare_cached(if stuck::exists(connection)? { SCAN_UNTAKEN } else { SCAN })?;
    let wanted = i64::try_from((limit - rows.len()).saturating_add(1)).unwrap_or(i64::MAX);
    let limits = (ADDRESS_LIMIT_OCTETS as i64, REMOTE_LIMIT_OCTETS as i64);
    let mut found = statement.query(params![first.0, wanted, limits.0, limits.1])?;
    let (mut texts, mut least) = (rows::texts(), Some(first));
    while let Some(row) = found.next()? {
        if rows.len() == limit {
            return Ok(true);
        }
        let row = outbox_row(connection, row, &mut texts)?;
        // An overwritten page may contain anything.
        if least.is_none_or(|least| row.id < least) {
            return Err(corrupt("ids are not in order"));
        }
        least = following(row.id);
        rows.push(row);
    }
    Ok(false)
}

/// Returns the first readable mail after an id, and adds the unreadable ones before it to the result; or returns where to go on
/// when the budget is used up.
fn step_over(
    connection: &Connection,
    begin: MailId,
    error: &Error,
    budget: &mut usize,
    unreadable: &mut Vec<Refused>,
) -> rusqlite::Result<Option<MailId>> {
    let mut statement = connection.prepare_cached(INDEXED_IDS);
    let mut ids = statement.as_mut().ok().map(|statement| statement.query([begin.0])).transpose()?;
    let (mut gap, mut least): (Option<Gap>, _) = (None, begin);
    let end = loop {
        let id = match ids.as_mut().map(|ids| next_id(ids, least)) {
            Some(Ok(None)) => break None,
            Some(Ok(Some(id))) => id,
            Some(Err(error)) if !trouble(connection, &error).is_about_a_row() => return Err(error),
            Some(Err(_)) | None => {
                let end = find_end(connection, least)?;
                unreadable.push(refused(connection, &Gap::Range(least, end), error));
                *budget = budget.saturating_sub(ROW_OF_PROBES);
                break end;
            }
        };
        *budget = budget.saturating_sub(1);
        match rows::row(connection, id, 0, &mut rows::texts()) {
            // The first one has just failed, and would fail again.
            Ok(Some(_)) if id != begin => break Some(id),
            Err(error) if !trouble(connection, &error).is_about_a_row() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        gap = Some(Gap::with(gap, id));
        match following(id) {
            Some(next) if *budget > 0 => least = next,
            next => break next,
        }
    };
    unreadable.extend(gap.map(|gap| refused(connection, &gap, error)));
    Ok(end)
}

/// Returns the next id of the index, which must not be below `least`.
fn next_id(ids: &mut Rows<'_>, least: MailId) -> rusqlite::Result<Option<MailId>> {
    let id = ids.next()?.map(|row| row.get(0).map(MailId)).transpose()?;
    if id.is_some_and(|id| id < least) { Err(corrupt("ids are not in order")) } else { Ok(id) }
}

/// Returns the first id from which the table can be read, after one from which it cannot. It need not be the id of a mail.
fn find_end(connection: &Connection, begin: MailId) -> rusqlite::Result<Option<MailId>> {
    let can_read = |id: i64| match probe(connection, id) {
        Ok(()) => Ok(true),
        Err(error) if trouble(connection, &error).is_about_a_row() => Ok(false),
        Err(error) => Err(error),
    };
    // Ids start at 1.
    let mut low = if begin.0 < 1 && !can_read(1)? { 1 } else { begin.0 };
    let (mut step, mut probes) = (1_i64, 0);
    let mut high = loop {
        let high = low.saturating_add(step);
        if can_read(high)? {
            break high;
        }
        if high == i64::MAX {
            return Ok(None);
        }
        (low, probes) = (high, probes + 1);
        step = if probes < ROW_OF_PROBES { 1 } else { step.saturating_mul(2) };
    };
    while high.abs_diff(low) > 1 {
        let middle = low.midpoint(high);
        if can_read(middle)? { high = middle } else { low = middle }
    }
    Ok(Some(MailId(high)))
}

fn probe(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(PROBE)?;
    let mut found = statement.query([id])?;
    match found.next()?.map(|row| row.get::<_, i64>(0)).transpose()? {
        Some(found) if found < id => Err(corrupt("ids are not in order")),
        Some(_) | None => Ok(()),
    }
}

/// Adds the failures to the rows; rows whose failures cannot be read are left out.
fn count_failures(connection: &Connection, is_indexed: bool, scan: &mut Scan) -> rusqlite::Result<()> {
    match add_failures(connection, &mut scan.rows) {
        // Without an index, each would need the whole faillog.
        Err(error) if is_indexed && trouble(connection, &error).is_about_a_row() => {}
        result => return result,
    }
    let mut gap: Option<(Gap, Error)> = None;
    for mut row in std::mem::take(&mut scan.rows) {
        match add_own_failures(connection, &mut row) {
            Ok(()) => {
                scan.unreadable.extend(gap.take().map(|(gap, error)| refused(connection, &gap, &error)));
                scan.rows.push(row);
            }
            Err(error) if trouble(connection, &error).is_about_a_row() => {
                gap = Some((Gap::with(gap.map(|(gap, _)| gap), row.id), error));
            }
            Err(error) => return Err(error),
        }
    }
    scan.unreadable.extend(gap.map(|(gap, error)| refused(connection, &gap, &error)));
    Ok(())
}

/// Unreadable mail between readable mail.
enum Gap {
    /// A number of mails, with the first and the last id.
    Mails(MailId, MailId, usize),
    /// An unknown number of mails, from an id up to before another, if there is one.
    Range(MailId, Option<MailId>),
}

impl Gap {
    /// Extends a gap by the mail after it.
    fn with(before: Option<Self>, id: MailId) -> Self {
        match before {
            Some(Self::Mails(first, _, count)) => Self::Mails(first, id, count + 1),
            Some(Self::Range(..)) | None => Self::Mails(id, id, 1),
        }
    }
}

fn refused(connection: &Connection, gap: &Gap, error: &Error) -> Refused {
    let advice = advice(connection, error);
    match gap {
        Gap::Mails(id, _, 1) => unreadable_mail(connection, *id, error),
        Gap::Mails(id, last, count) => Refused {
            id: *id,
            text: format!("{count} mails with ids from {id} to {last} cannot be read: {error}; {advice}"),
        },
        Gap::Range(id, end) => {
            let to = end.map(|end| format!(" and below {end}")).unwrap_or_default();
            let text = format!("mails with ids from {id} on{to} cannot be read: {error}; {advice}");
            Refused { id: *id, text }
        }
    }
}

fn following(id: MailId) -> Option<MailId> {
    id.0.checked_add(1).map(MailId)
}

fn corrupt(text: &str) -> Error {
    Error::SqliteFailure(Code::new(SQLITE_CORRUPT), Some(text.to_owned()))
}

#[cfg(test)]
mod tests;
