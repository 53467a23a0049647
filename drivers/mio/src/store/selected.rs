//! The mail of the outbox that a [`Selection`] means. The verbs that look and the orders that change use the same statement, so that what
//! is counted is what is changed.
//!
//! The statement narrows by what it can compare; what only our own code can decide (when mail is tried next, what a failure
//! says) is decided on each row that is left.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bytes::Bytes;
use cmail_delivery::address::ADDRESS_LIMIT_OCTETS;
use cmail_delivery::bounce::message_id;
use cmail_delivery::hold::{HeldBy, HoldId};
use cmail_delivery::next_hop::REMOTE_LIMIT_OCTETS;
use cmail_delivery::one_line::Octets;
use cmail_delivery::outbox::{Cursor, DATA_CHUNK_OCTETS, MailId, Refused, Row};
use cmail_delivery::schedule::{RetryRules, RetryState};
use cmail_delivery::time::UnixTime;
use rusqlite::types::Value;
use rusqlite::{Connection, MAIN_DB, OptionalExtension as _, ToSql, params};

use super::envelopes;
use super::error::{ReadError, trouble};
use super::failures::{add_own_failures, add_told_failures, latest_text};
use super::reader::Reader;
use super::rows::{limited, number, octets, outbox_row, row_columns, texts, time};
use super::scan::{Scan, scan};
use super::stuck;
use crate::selection::{AddressPattern, DomainPattern, Place, Selection};

/// Most mails that one transaction looks at: some ten milliseconds, for which a writer may have to wait.
const BATCH_MAILS: usize = 10_000;

/// Of how many mails one transaction reads the Message-ID: each may take a read of 64 KiB.
const FEW_MESSAGE_IDS: usize = 100;

/// With fewer mails than this, the failures of each are read by themselves, and not those of the whole range of ids.
const FEW_MAILS: usize = 64;

/// Selects the mail of a range of ids; the conditions follow.
const SELECT: &str = concat!(
    "SELECT ",
    row_columns!(),
    ", ",
    limited!("mail_submitter", "?3"),
    " FROM outbox WHERE mail_id >= ?1 AND mail_id <= ?2"
);

/// How many parameters `SELECT` has before those of the conditions.
const SELECT_PARAMETERS: usize = 4;

/// By what the state of mail is decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing<'a> {
    pub(crate) rules: RetryRules<'a>,
    pub(crate) now: UnixTime,
}

impl Standing<'_> {
    /// Returns when a mail is tried, by the function that decides it in the daemon.
    pub(crate) fn of(&self, row: &Row) -> RetryState {
        self.rules.retry_state(row, self.now)
    }
}

/// A mail of the outbox, with its last failure.
#[derive(Debug)]
pub(crate) struct QueuedMail {
    pub(crate) row: Row,
    /// `mail_submitter`.
    pub(crate) submitter: Option<Bytes>,
    /// Whether a server has taken it, and it could not be deleted: it is not sent again.
    is_taken: bool,
    /// The `fail_message` of its last failure, if there was one.
    last_failure: Option<Vec<u8>>,
}

impl QueuedMail {
    /// Returns whether it is in a state. Mail in doubt is among the mail that is held.
    fn is_at(&self, place: Place, standing: Standing<'_>) -> bool {
        let doubt = RetryState::Held(HeldBy::Hold(HoldId::UNCERTAIN));
        let now = self.place(standing);
        now == place || place == Place::Uncertain && now == Place::Held && standing.of(&self.row) == doubt
    }

    /// Returns its state; [`Place::Held`] also of mail in doubt.
    pub(crate) fn place(&self, standing: Standing<'_>) -> Place {
        if self.is_taken {
            return Place::Taken;
        }
        match standing.of(&self.row) {
            RetryState::Due => Place::Ready,
            RetryState::NotBefore(_) => Place::Waiting,
            RetryState::GivenUp => Place::GivenUp,
            RetryState::Held(_) => Place::Held,
        }
    }

    /// Returns when it was submitted, if that is known.
    pub(crate) fn submitted(&self) -> Option<UnixTime> {
        Some(self.row.submission).filter(|time| *time > UnixTime(0))
    }

    /// Returns the text of its last failure as it is stored, if there was one.
    pub(crate) fn failure_text(&self) -> Option<Octets<'_>> {
        self.last_failure.as_deref().map(Octets)
    }
}

/// Mail that was read in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) mails: Vec<QueuedMail>,
    /// Where the next batch begins; `None` after the last mail.
    pub(crate) next: Option<Cursor>,
}

impl Reader {
    /// Reads the selected mail that follows `after`, in the order of ids. Looks at a limited number of mails.
    pub(crate) fn mails(
        &self,
        selection: &Selection,
        standing: Standing<'_>,
        after: Cursor,
    ) -> Result<Batch, ReadError> {
        // The first mails are told at once.
        if after != Cursor::BeforeFirst {
            self.prepare_faillog()?;
        }
        let is_indexed = self.is_faillog_indexed.get();
        let place = (after, BATCH_MAILS);
        // To read those of a whole batch would keep a writer waiting for seconds.
        let of_columns = &Selection { message_id: None, ..selection.clone() };
        let mut batch =
            self.read(|connection| match select(connection, of_columns, standing, place, is_indexed) {
                Err(error) if trouble(connection, &error).is_about_a_row() => {
                    select_readable(connection, of_columns, standing, (after, BATCH_MAILS), is_indexed)
                }
                result => result,
            })?;
        if let Some(wanted) = &selection.message_id {
            batch.mails = self.with_message_id(batch.mails, wanted.as_str())?;
        }
        Ok(batch)
    }

    /// Keeps the mails that have a Message-ID.
    fn with_message_id(&self, mails: Vec<QueuedMail>, wanted: &str) -> Result<Vec<QueuedMail>, ReadError> {
        let mut are_meant = Vec::with_capacity(mails.len());
        for few in mails.chunks(FEW_MESSAGE_IDS) {
            self.read(|connection| {
                for mail in few {
                    are_meant.push(read_message_id(connection, mail.row.id)?.as_deref() == Some(wanted));
                }
                Ok(())
            })?;
        }
        let meant = mails.into_iter().zip(are_meant).filter(|(_, is_meant)| *is_meant);
        Ok(meant.map(|(mail, _)| mail).collect())
    }
}

/// Reads the selected mail that follows a place, in the order of ids, and looks at a limited number of mails. To be called within a
/// transaction.
pub(super) fn select(
    connection: &Connection,
    selection: &Selection,
    standing: Standing<'_>,
    (after, limit): (Cursor, usize),
    is_faillog_indexed: bool,
) -> rusqlite::Result<Batch> {
    let Some(Range { first, last, ids, next }) = Range::following(connection, selection, after, limit)?
    else {
        return Ok(Batch::default());
    };
    let mut conditions = Conditions::new(SELECT_PARAMETERS);
    conditions.narrow(selection, standing.now, ids.as_deref());
    let mut statement = connection.prepare_cached(&format!("{SELECT}{} ORDER BY mail_id", conditions.sql))?;
    let limits = [ADDRESS_LIMIT_OCTETS as i64, REMOTE_LIMIT_OCTETS as i64];
    let fixed: [&dyn ToSql; SELECT_PARAMETERS] = [&first, &last, &limits[0], &limits[1]];
    let values: Vec<&dyn ToSql> =
        fixed.into_iter().chain(conditions.values.iter().map(|value| value as &dyn ToSql)).collect();
    let mut found = statement.query(&values[..])?;
    let (mut rows, mut submitters, mut shared) = (Vec::new(), Vec::new(), texts());
    while let Some(columns) = found.next()? {
        let row = outbox_row(connection, columns, &mut shared)?;
        if !selection.fits_envelope(&row) {
            continue;
        }
        let submitter = octets(columns.get_ref(6)?).map(|text| Bytes::copy_from_slice(&text));
        rows.push(row);
        submitters.push(submitter);
    }
    let last_failures = read_failures(connection, &mut rows, is_faillog_indexed)?;
    let taken = match (rows.first(), rows.last()) {
        (Some(first), Some(last)) if stuck::exists(connection)? => {
            stuck::between(connection, first.id, last.id)?
        }
        _ => Vec::new(),
    };
    let taken: BTreeSet<MailId> = taken.into_iter().collect();
    let mut mails = Vec::with_capacity(rows.len());
    for ((row, submitter), last_failure) in rows.into_iter().zip(submitters).zip(last_failures) {
        let is_taken = taken.contains(&row.id);
        let mail = QueuedMail { row, submitter, is_taken, last_failure };
        if is_meant(connection, selection, standing, &mail)? {
            mails.push(mail);
        }
    }
    Ok(Batch { mails, next })
}

/// The same, mail by mail, where a page is damaged: what cannot be read is told and left out.
pub(super) fn select_readable(
    connection: &Connection,
    selection: &Selection,
    standing: Standing<'_>,
    (after, limit): (Cursor, usize),
    is_faillog_indexed: bool,
) -> rusqlite::Result<Batch> {
    let Some(first) = after.next_id() else { return Ok(Batch::default()) };
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let Scan { rows, unreadable, next } = scan(connection, first, limit, is_faillog_indexed)?;
    for Refused { text, .. } in unreadable {
        log::warn!("{text}");
    }
    let mut mails = Vec::new();
    let is_wanted = |id: i64| selection.ids.is_empty() || selection.ids.contains(&id);
    for id in rows.into_iter().map(|row| row.id.0).filter(|id| is_wanted(*id)) {
        let only = Selection { ids: vec![id], ..selection.clone() };
        mails
            .extend(select(connection, &only, standing, (Cursor::BeforeFirst, 1), is_faillog_indexed)?.mails);
    }
    Ok(Batch { mails, next })
}

/// Decides what the statement cannot.
fn is_meant(
    connection: &Connection,
    selection: &Selection,
    standing: Standing<'_>,
    mail: &QueuedMail,
) -> rusqlite::Result<bool> {
    if selection.place.is_some_and(|place| !mail.is_at(place, standing)) {
        return Ok(false);
    }
    if let Some(pattern) = &selection.status {
        let fits = mail.row.last_failure.is_some_and(|failure| pattern.fits(failure.code, failure.status));
        if !fits {
            return Ok(false);
        }
    }
    match &selection.message_id {
        Some(wanted) => Ok(read_message_id(connection, mail.row.id)?.as_deref() == Some(wanted.as_str())),
        None => Ok(true),
    }
}

/// Reads the Message-ID of a mail, if it stands in the beginning of its data.
pub(super) fn read_message_id(connection: &Connection, id: MailId) -> rusqlite::Result<Option<String>> {
    let mut statement =
        connection.prepare_cached("SELECT mail_data IS NULL FROM outbox WHERE mail_id = ?1")?;
    if statement.query_row([id.0], |row| row.get(0)).optional()?.unwrap_or(true) {
        return Ok(None);
    }
    let blob = connection.blob_open(MAIN_DB, c"outbox", c"mail_data", id.0, true)?;
    let mut head = vec![0; blob.len().min(DATA_CHUNK_OCTETS)];
    blob.read_at_exact(&mut head, 0)?;
    Ok(message_id(&head))
}

/// The part of the outbox that one batch looks at.
struct Range {
    first: i64,
    last: i64,
    /// The ids that are meant; `None` for all.
    ids: Option<Vec<i64>>,
    next: Option<Cursor>,
}

impl Range {
    fn following(
        connection: &Connection,
        selection: &Selection,
        after: Cursor,
        limit: usize,
    ) -> rusqlite::Result<Option<Self>> {
        let Some(MailId(first)) = after.next_id() else { return Ok(None) };
        if selection.ids.is_empty() {
            let last = connection
                .prepare_cached(
                    "SELECT mail_id FROM outbox WHERE mail_id >= ?1 ORDER BY mail_id LIMIT 1 OFFSET ?2",
                )?
                .query_row(params![first, i64::try_from(limit).unwrap_or(i64::MAX) - 1], |row| row.get(0))
                .optional()?;
            let next = last.map(|last| Cursor::After(MailId(last)));
            return Ok(Some(Self { first, last: last.unwrap_or(i64::MAX), ids: None, next }));
        }
        let mut ids: Vec<i64> = selection.ids.iter().copied().filter(|&id| id >= first).collect();
        ids.sort_unstable();
        ids.dedup();
        let is_cut = ids.len() > limit;
        ids.truncate(limit);
        let (Some(&first), Some(&last)) = (ids.first(), ids.last()) else { return Ok(None) };
        let next = is_cut.then_some(Cursor::After(MailId(last)));
        Ok(Some(Self { first, last, ids: Some(ids), next }))
    }
}

/// Adds their failures, and what their senders want, to rows in the order of their ids, and returns the text of the last failure of each.
fn read_failures(
    connection: &Connection,
    rows: &mut [Row],
    is_indexed: bool,
) -> rusqlite::Result<Vec<Option<Vec<u8>>>> {
    envelopes::add_wishes(connection, rows)?;
    if is_indexed && rows.len() <= FEW_MAILS {
        let each = rows.iter_mut().map(|row| {
            add_own_failures(connection, row)?;
            (row.fail_count > 0).then(|| latest_text(connection, row.id)).transpose()
        });
        return each.collect();
    }
    let mut told = Vec::new();
    add_told_failures(connection, rows, |id, text| told.push((id, text)))?;
    let mut told = told.into_iter().peekable();
    Ok(rows.iter().map(|row| told.next_if(|(id, _)| *id == row.id).map(|(_, text)| text)).collect())
}

/// SQL conditions with their values.
pub(super) struct Conditions {
    /// ` AND …` for each.
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
    /// How many parameters come before the values.
    parameters_before: usize,
}

impl Conditions {
    pub(super) fn new(parameters_before: usize) -> Self {
        Self { sql: String::new(), values: Vec::new(), parameters_before }
    }

    /// Adds the conditions on a mail of the outbox.
    fn narrow(&mut self, selection: &Selection, now: UnixTime, ids: Option<&[i64]>) {
        if let Some(ids) = ids {
            self.ids(ids);
        }
        if let Some(domain) = &selection.domain {
            self.domain("mail_envelopeto", domain);
        }
        if let Some(recipient) = &selection.recipient {
            self.address("mail_envelopeto", recipient);
        }
        if let Some(sender) = &selection.sender {
            self.address("mail_envelopefrom", sender);
        }
        if let Some(remote) = &selection.remote {
            self.like("mail_remote", vec![format!("%{}%", escaped(&remote.ascii_part()))]);
        }
        if let Some(older_s) = selection.older_s {
            let limit = self.value(now.0.saturating_sub(older_s.into()));
            // Mail of unknown age is not older than anything.
            let submission = time!("mail_submission");
            self.add(&format!("{submission} > 0 AND {submission} < {limit}"));
        }
    }

    /// Adds a condition.
    pub(super) fn add(&mut self, condition: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.sql, " AND ({condition})");
    }

    /// Adds a value, and returns its parameter.
    pub(super) fn value(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("?{}", self.parameters_before + self.values.len())
    }

    /// The mail is one of these.
    pub(super) fn ids(&mut self, ids: &[i64]) {
        let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
        let ids = self.value(format!("[{}]", ids.join(",")));
        self.add(&format!("mail_id IN (SELECT value FROM json_each({ids}))"));
    }

    /// The address in a column may be one of this domain: it ends with `@` and the domain, or is the domain. That an address has it, however
    /// it is written, only our own code can decide.
    pub(super) fn domain(&mut self, column: &str, domain: &DomainPattern) {
        let ends = match domain.ascii_forms() {
            Some(forms) => forms.iter().map(|form| escaped(form)).collect(),
            None => vec!["[%]".to_owned()],
        };
        self.like(
            column,
            ends.iter()
                .flat_map(|end| [format!("%@{end}."), format!("%@{end}"), end.clone(), format!("{end}.")])
                .collect(),
        );
    }

    /// A column is like one of these patterns, or has octets above 127, of which LIKE does not know the upper case, nor A-labels.
    fn like(&mut self, column: &str, patterns: Vec<String>) {
        let patterns = patterns.into_iter();
        let mut conditions: Vec<String> =
            patterns.map(|pattern| format!("{column} LIKE {} ESCAPE '\\'", self.value(pattern))).collect();
        conditions.push(format!("octet_length({column}) <> length(CAST({column} AS TEXT))"));
        self.add(&conditions.join(" OR "));
    }

    /// The address in a column may be meant.
    pub(super) fn address(&mut self, column: &str, pattern: &AddressPattern) {
        match (pattern, pattern.domain()) {
            (AddressPattern::Null, _) => {
                self.add(&format!(
                    "trim(coalesce(CAST({column} AS TEXT), ''), ' ' || char(9, 10, 12, 13)) IN ('', '<>')"
                ));
            }
            (_, Some(domain)) => self.domain(column, &domain),
            (AddressPattern::Domain(domain), None) => self.domain(column, domain),
            (AddressPattern::Exact(address), None) => self.like(column, vec![escaped(address)]),
        }
    }
}

/// Returns a text in which LIKE finds no wildcard.
pub(super) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

#[cfg(test)]
mod tests;
