//! Counts the faillog rows of a mail, as the view `outbound` does.

use bytes::BytesMut;
use cmail_delivery::failure_pattern::LastFailure;
use cmail_delivery::outbox::{FailState, MailId, Row};
use cmail_delivery::time::UnixTime;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use super::holds::{add_holds, add_own_hold};
use super::last_failures;
use super::rows::{self, number, octets};

/// SQL: the columns of the view `outbound` about a mail's faillog rows. `fail_time` is text, and the view takes the greatest
/// one as text; SQLite then converts it to a number. `total` is a `sum` that cannot overflow.
macro_rules! fail_columns {
    () => {
        concat!(
            "count(fail_mail), CAST(CAST(coalesce(max(",
            number!("fail_time"),
            "), 0) AS NUMERIC) AS INTEGER), coalesce(total(",
            number!("fail_fatal"),
            "), 0) > 0"
        )
    };
}

/// SQL: the text of a faillog row, of which the end is needed too; nothing if it is longer than those that we write.
macro_rules! text_beginning {
    () => {
        "CASE WHEN octet_length(fail_message) <= 4096 THEN fail_message END"
    };
}

/// The most digits of a number that surely fits into an `i64`.
const DIGITS_LIMIT: usize = 18;

/// Reads the failures of a mail, even if it does not exist.
fn failures(connection: &Connection, id: MailId) -> rusqlite::Result<FailState> {
    connection
        .prepare_cached(concat!("SELECT ", fail_columns!(), " FROM faillog WHERE fail_mail = ?1"))?
        .query_row([id.0], |row| fail_state(row, id))
}

/// Reads a row with its failures, but without its data, if it exists. To be called within a transaction.
pub(super) fn row_with_failures(
    connection: &Connection,
    id: MailId,
    texts: &mut BytesMut,
) -> rusqlite::Result<Option<Row>> {
    let found = rows::row(connection, id, 0, texts)?;
    let Some(mut row) = found.map(|found| found.row) else { return Ok(None) };
    add_own_failures(connection, &mut row)?;
    Ok(Some(row))
}

/// Adds to a row its failures, and whether it is held.
pub(super) fn add_own_failures(connection: &Connection, row: &mut Row) -> rusqlite::Result<()> {
    apply(row, failures(connection, row.id)?);
    if row.fail_count > 0 {
        row.last_failure = Some(match last_failures::recorded(connection, row.id, row.last_try) {
            Some(failure) => failure,
            None => LastFailure::of_text(&latest_text(connection, row.id)?),
        });
    }
    add_own_hold(connection, row)
}

/// Returns the text of the faillog row of a mail that was written last.
pub(super) fn latest_text(connection: &Connection, id: MailId) -> rusqlite::Result<Vec<u8>> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        text_beginning!(),
        " FROM faillog WHERE fail_mail = ?1 ORDER BY rowid DESC LIMIT 1"
    ))?;
    statement.query_row([id.0], |row| Ok(octets(row.get_ref(0)?).unwrap_or_default().into_owned()))
}

/// Adds to `rows`, which are in the order of their ids, their failures, and whether they are held. One pass over the faillog of their
/// range, so that mail without failures costs nothing.
pub(super) fn add_failures(connection: &Connection, rows: &mut [Row]) -> rusqlite::Result<()> {
    add_told_failures(connection, rows, |_, _| {})
}

/// The same, and tells the text of the last failure of each mail that has failed, in the order of ids; an empty one if it is longer than
/// those that we write.
pub(super) fn add_told_failures(
    connection: &Connection,
    rows: &mut [Row],
    mut tell: impl FnMut(MailId, Vec<u8>),
) -> rusqlite::Result<()> {
    add_holds(connection, rows)?;
    let ([Row { id: first, .. }, ..], [.., Row { id: last, .. }]) = (&*rows, &*rows) else { return Ok(()) };
    let mut statement = connection.prepare_cached(concat!(
        "SELECT fail_mail, ",
        number!("fail_time"),
        ", ",
        number!("fail_fatal"),
        ", ",
        text_beginning!(),
        " FROM faillog WHERE fail_mail >= ?1 AND fail_mail <= ?2 ORDER BY fail_mail, rowid"
    ))?;
    let mut found = statement.query(params![first.0, last.0])?;
    let mut rows = rows.iter_mut().peekable();
    let mut counted: Option<(&mut Row, Tally)> = None;
    while let Some(failure) = found.next()? {
        // Ids of mail are integers.
        let Ok(id) = failure.get_ref(0)?.as_i64() else { continue };
        if counted.as_ref().is_none_or(|(row, _)| row.id.0 != id) {
            write_down(connection, counted.take(), &mut tell)?;
            while rows.next_if(|row| row.id.0 < id).is_some() {}
            // There may be failures of a mail that does not exist.
            counted = rows.next_if(|row| row.id.0 == id).map(|row| (row, Tally::default()));
        }
        if let Some((_, tally)) = &mut counted {
            tally.add(failure.get_ref(1)?, failure.get_ref(2)?, failure.get_ref(3)?);
        }
    }
    write_down(connection, counted, &mut tell)
}

fn write_down(
    connection: &Connection,
    counted: Option<(&mut Row, Tally)>,
    tell: &mut impl FnMut(MailId, Vec<u8>),
) -> rusqlite::Result<()> {
    let Some((row, tally)) = counted else { return Ok(()) };
    let state = match tally.state(row.id) {
        Some(state) => state,
        // This is rare. Without the index it reads the whole faillog.
        None => failures(connection, row.id)?,
    };
    apply(row, state);
    let failure = last_failures::recorded(connection, row.id, row.last_try);
    row.last_failure = Some(failure.unwrap_or_else(|| LastFailure::of_text(&tally.latest_text)));
    tell(row.id, tally.latest_text);
    Ok(())
}

/// Stores the failures in a row.
fn apply(row: &mut Row, state: FailState) {
    row.fail_count = state.fail_count;
    row.last_try = state.last_try;
    row.fatal = state.fatal;
}

/// Converts the columns of `fail_columns`.
fn fail_state(row: &rusqlite::Row<'_>, id: MailId) -> rusqlite::Result<FailState> {
    Ok(FailState {
        id,
        fail_count: u32::try_from(row.get::<_, i64>(0)?).unwrap_or(u32::MAX),
        last_try: UnixTime(row.get(1)?),
        fatal: row.get(2)?,
    })
}

/// Returns when a mail was last tried, if it was.
pub(super) fn last_try(connection: &Connection, id: MailId) -> rusqlite::Result<Option<UnixTime>> {
    let state = failures(connection, id)?;
    Ok((state.fail_count > 0).then_some(state.last_try))
}

/// Counts the failures of one mail without SQLite, which would take several times as long. It can do so only if all of them
/// have the form in which the programs of the suite write them; others are left to SQLite.
#[derive(Default)]
struct Tally {
    count: u32,
    last_try: i64,
    /// The length of all times: texts of one length have the same order as their numbers.
    digits: Option<usize>,
    fatal: bool,
    is_odd: bool,
    /// The text that was written last.
    latest_text: Vec<u8>,
}

impl Tally {
    fn add(&mut self, time: ValueRef<'_>, fatal: ValueRef<'_>, text: ValueRef<'_>) {
        self.latest_text.clear();
        self.latest_text.extend_from_slice(&octets(text).unwrap_or_default());
        self.count = self.count.saturating_add(1);
        // Not a blob, which is greater than any text.
        let text = time.as_str().unwrap_or_default();
        let digits = if text.bytes().all(|octet| octet.is_ascii_digit()) { text } else { "" };
        self.is_odd |= !(1..=DIGITS_LIMIT).contains(&digits.len());
        self.is_odd |= *self.digits.get_or_insert(digits.len()) != digits.len();
        self.last_try = self.last_try.max(digits.parse().unwrap_or_default());
        let fatal = fatal.as_i64().ok();
        self.fatal |= fatal == Some(1);
        self.is_odd |= !matches!(fatal, Some(0 | 1));
    }

    fn state(&self, id: MailId) -> Option<FailState> {
        let Self { count, last_try, fatal, .. } = *self;
        (!self.is_odd).then_some(FailState { id, fail_count: count, last_try: UnixTime(last_try), fatal })
    }
}

#[cfg(test)]
mod tests;
