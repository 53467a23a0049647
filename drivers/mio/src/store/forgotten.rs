//! Blanks an address in what is recorded: in the ledger, in transcripts, and in orders that are done. Mail, the faillog and the log are left
//! alone.
//!
//! It goes through the tables piece by piece, so that others need not wait. A place in them is a number: connections come first, the
//! last one first, as negative numbers; then the attempts by theirs, which are positive.

use cmail_delivery::address::Mailbox;
use cmail_delivery::order::OrderPlace;
use cmail_delivery::outbox::{Cursor, MailId};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::own_table::if_present;
use super::selected::escaped;

/// What stands in the place of an address.
const BLANK: &str = "[forgotten]";

/// Most rows that are looked at in one step: that takes some ten milliseconds.
const PART_ROWS: i64 = 2000;

/// An address that is to be forgotten, in the forms in which it may stand somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForgottenAddress {
    written: String,
    forms: Vec<String>,
}

/// A table, its key, and the columns that may hold an address.
struct Table {
    name: &'static str,
    key: &'static str,
    columns: &'static [&'static str],
    /// How many of them, the first ones, hold an address and nothing else.
    addresses: usize,
}

const CONNECTIONS: Table = Table {
    name: "dispatch_connections",
    key: "connection_id",
    columns: &["transcript", "greeting"],
    addresses: 0,
};

const ATTEMPTS: Table = Table {
    name: "dispatch_attempts",
    key: "attempt_id",
    columns: &["sender", "recipient", "text", "message_id", "why"],
    addresses: 2,
};

const ORDERS: Table = Table {
    name: "dispatch_orders",
    key: "order_id",
    columns: &["scope", "argument", "reason", "result"],
    addresses: 0,
};

impl ForgottenAddress {
    /// Parses an address, with or without angle brackets.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
        let mailbox = Mailbox::parse(bare.as_bytes()).ok()?;
        mailbox.domain().ok()?;
        let local_part = mailbox.local_part();
        let is_quoted = local_part.starts_with('"');
        if !is_quoted && (local_part == "*" || local_part.contains('@')) {
            return None;
        }
        let mut forms = vec![bare.to_owned(), mailbox.canonical(), mailbox.as_str().to_owned()];
        // As it stands in an order, which is JSON.
        forms.extend(forms.clone().iter().map(|form| form.replace('\\', "\\\\").replace('"', "\\\"")));
        forms.sort_unstable();
        forms.dedup();
        Some(Self { written: bare.to_owned(), forms })
    }

    /// Returns the address as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.written
    }

    /// Returns whether a value is the address.
    fn is(&self, value: &str) -> bool {
        self.forms.iter().any(|form| form.eq_ignore_ascii_case(value))
    }

    /// Returns a text without the address, if it stands there as an address of its own, and not as a part of a longer one.
    fn blanked(&self, text: &str) -> Option<String> {
        let mut rest = text;
        let mut blanked = String::new();
        // Each form is as long in whichever case.
        let lower = text.to_ascii_lowercase();
        while !rest.is_empty() {
            let at = text.len() - rest.len();
            let found = self.forms.iter().filter_map(|form| {
                let form = form.to_ascii_lowercase();
                let begin = at + lower.get(at..)?.find(&form)?;
                Some((begin, begin + form.len()))
            });
            let Some((begin, end)) = found.min_by_key(|&(begin, end)| (begin, usize::MAX - end)) else {
                break;
            };
            blanked.push_str(text.get(at..begin)?);
            let is_whole = is_whole(text.get(..begin)?, text.get(end..)?);
            blanked.push_str(if is_whole { BLANK } else { text.get(begin..end)? });
            rest = text.get(end..)?;
        }
        blanked.push_str(rest);
        (blanked != text).then_some(blanked)
    }
}

/// Returns whether an address ends where these texts begin and end.
fn is_whole(before: &str, after: &str) -> bool {
    // Other characters of a local part stand before addresses that are values: "to=".
    let of_local_part = |c: char| c.is_alphanumeric() || "+-_.".contains(c);
    let mut after = after.chars();
    let ends = match after.next() {
        Some('.') => !after.next().is_some_and(char::is_alphanumeric),
        Some(c) => !c.is_alphanumeric() && c != '-',
        None => true,
    };
    ends && !before.chars().next_back().is_some_and(of_local_part)
}

/// Returns where the part ends that begins at a place.
pub(super) fn end_of_part(connection: &Connection, after: Cursor) -> rusqlite::Result<OrderPlace> {
    let Some(MailId(first)) = after.next_id() else { return Ok(OrderPlace::End) };
    if first <= 0 {
        let select = "SELECT min(connection_id) FROM (SELECT connection_id FROM dispatch_connections \
            WHERE connection_id > 0 AND connection_id <= ?1 ORDER BY connection_id DESC LIMIT ?2)";
        return Ok(OrderPlace::At(Cursor::After(
            match last_of(connection, select, first.saturating_neg())? {
                Some(last) => MailId(-last),
                None => MailId(0),
            },
        )));
    }
    let select = "SELECT max(attempt_id) FROM (SELECT attempt_id FROM dispatch_attempts WHERE attempt_id >= ?1 \
        ORDER BY attempt_id LIMIT ?2)";
    let last = last_of(connection, select, first)?;
    Ok(last.map_or(OrderPlace::End, |last| OrderPlace::At(Cursor::After(MailId(last)))))
}

fn last_of(connection: &Connection, select: &str, first: i64) -> rusqlite::Result<Option<i64>> {
    let found =
        if_present(|| connection.prepare_cached(select)?.query_row([first, PART_ROWS], |row| row.get(0)))?;
    Ok(found.flatten())
}

/// Blanks an address in the part between two places. Returns the number of rows.
pub(super) fn blank_part(
    connection: &Connection,
    address: &ForgottenAddress,
    (after, end): (OrderPlace, OrderPlace),
) -> rusqlite::Result<u64> {
    let OrderPlace::At(after) = after else { return Ok(0) };
    let Some(MailId(first)) = after.next_id() else { return Ok(0) };
    let last = match end {
        OrderPlace::At(Cursor::After(MailId(last))) => last,
        OrderPlace::At(Cursor::BeforeFirst) => return Ok(0),
        OrderPlace::End => i64::MAX,
    };
    let mut rows = 0;
    if first <= 0 {
        let range = (last.min(0).saturating_neg(), first.saturating_neg());
        rows += blank(connection, address, &CONNECTIONS, range)?;
    }
    if last > 0 {
        rows += blank(connection, address, &ATTEMPTS, (first.max(1), last))?;
    }
    Ok(rows)
}

/// Blanks an address in all orders, that by which it is forgotten among them. Returns the number of rows.
pub(super) fn blank_orders(connection: &Connection, address: &ForgottenAddress) -> rusqlite::Result<u64> {
    blank(connection, address, &ORDERS, (i64::MIN, i64::MAX))
}

/// Blanks an address in the rows of a table whose keys are in a range.
fn blank(
    connection: &Connection,
    address: &ForgottenAddress,
    table: &Table,
    (first, last): (i64, i64),
) -> rusqlite::Result<u64> {
    if first > last {
        return Ok(0);
    }
    if_present(|| blank_present(connection, address, table, (first, last))).map(Option::unwrap_or_default)
}

fn blank_present(
    connection: &Connection,
    address: &ForgottenAddress,
    Table { name, key, columns, addresses }: &Table,
    (first, last): (i64, i64),
) -> rusqlite::Result<u64> {
    let is_done = if *name == ORDERS.name { " AND done_ms IS NOT NULL" } else { "" };
    // The upper case of other letters than those of ASCII is not known to LIKE, so that such forms are found in their own case only.
    let patterns: Vec<String> = address.forms.iter().map(|form| format!("%{}%", escaped(form))).collect();
    let fits: Vec<String> = columns
        .iter()
        .flat_map(|column| (0..patterns.len()).map(move |n| format!("{column} LIKE ?{} ESCAPE '\\'", n + 3)))
        .collect();
    let select = format!(
        "SELECT {key}, {} FROM {name} WHERE {key} BETWEEN ?1 AND ?2{is_done} AND ({})",
        columns.join(", "),
        fits.join(" OR ")
    );
    let values =
        [Value::from(first), Value::from(last)].into_iter().chain(patterns.into_iter().map(Value::from));
    let mut statement = connection.prepare_cached(&select)?;
    let mut found = statement.query(params_from_iter(values))?;
    let mut changes: Vec<Vec<Value>> = Vec::new();
    while let Some(row) = found.next()? {
        let mut is_changed = false;
        let mut values = Vec::with_capacity(columns.len() + 1);
        for index in 0..columns.len() {
            let value = row.get_ref(index + 1)?;
            let blanked = value.as_str().ok().and_then(|text| match index < *addresses {
                true => address.is(text).then(|| BLANK.to_owned()),
                false => address.blanked(text),
            });
            is_changed |= blanked.is_some();
            values.push(blanked.map_or(Value::Null, Value::from));
        }
        values.push(row.get::<_, i64>(0)?.into());
        changes.extend(is_changed.then_some(values));
    }
    let sets: Vec<String> =
        columns.iter().zip(1..).map(|(column, n)| format!("{column} = coalesce(?{n}, {column})")).collect();
    let update = format!("UPDATE {name} SET {} WHERE {key} = ?{}", sets.join(", "), columns.len() + 1);
    let mut statement = connection.prepare_cached(&update)?;
    for values in &changes {
        statement.execute(params_from_iter(values))?;
    }
    Ok(changes.len() as u64)
}

#[cfg(test)]
mod tests;
