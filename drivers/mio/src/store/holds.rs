//! Which mail is held: the tables `dispatch_state` and `dispatch_holds`.
//!
//! A row of `dispatch_holds` without a mail is a rule: it also holds what comes later. Its scope names a destination or a sender. Of other
//! holds `dispatch_state` says which mail they hold. Where its `hold_id` is 0, no rule and no line of the configuration holds the mail
//! either: an order that named the mail has released it.

use std::fmt;
use std::sync::Once;

use cmail_delivery::hold::{HeldBy, HoldId, HoldLine, HoldState};
use cmail_delivery::one_line::OneLine;
use cmail_delivery::outbox::{MailId, Row};
use cmail_delivery::time::{UnixMillis, UnixTime};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use super::error::{ReadError, advice};
use super::ledger::now;
use super::own_table::{if_present, or_created};
use super::reader::Reader;
use super::verdicts::within_savepoint;
use crate::selection::{AddressPattern, Destination, LinePattern};

/// The value of `hold_id` of mail that was released from every rule.
pub(super) const RELEASED: i64 = 0;

/// The hold of mail that may have arrived already.
const UNCERTAIN: i64 = HoldId::UNCERTAIN.0;

/// Its reason.
const UNCERTAIN_REASON: &str = "it may have arrived already";

/// The tables. `dispatch_state` has what is known of a mail beside its row: its own hold, and when a hold of it has ended last.
pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS dispatch_holds (
    hold_id INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    until_ms INTEGER,
    who TEXT,
    reason TEXT
);
CREATE TABLE IF NOT EXISTS dispatch_state (
    mail_id INTEGER PRIMARY KEY,
    hold_id INTEGER,
    released_ms INTEGER
);
";

/// The column that tables of earlier versions do not have.
const ADD_RELEASED: &str = "ALTER TABLE dispatch_state ADD COLUMN released_ms INTEGER";

/// Adds to a row whether it is held. To be called within a transaction.
pub(super) fn add_own_hold(connection: &Connection, row: &mut Row) -> rusqlite::Result<()> {
    add_holds(connection, std::slice::from_mut(row))
}

/// Adds to rows, which are in the order of their ids, whether they are held. To be called within a transaction.
pub(super) fn add_holds(connection: &Connection, rows: &mut [Row]) -> rusqlite::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let rules = rules(connection)?;
    for row in rows.iter_mut() {
        if let Some((hold, _)) = rules.iter().find(|(_, rule)| rule.fits(row)) {
            row.hold.state = HoldState::Held(*hold);
        }
    }
    match if_present(|| add_states(connection, rows, "released_ms"))? {
        Some(()) => Ok(()),
        // A table of an earlier version has no such column.
        None => if_present(|| add_states(connection, rows, "NULL")).map(drop),
    }
}

/// Adds to rows what `dispatch_state` says of them, where `released` is the column or expression for the end of the last hold.
fn add_states(connection: &Connection, rows: &mut [Row], released: &str) -> rusqlite::Result<()> {
    let ([Row { id: first, .. }, ..], [.., Row { id: last, .. }]) = (&*rows, &*rows) else { return Ok(()) };
    let (first, last) = (first.0, last.0);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT mail_id, hold_id, hold_id IN (SELECT hold_id FROM dispatch_holds), {released} FROM dispatch_state \
         WHERE mail_id BETWEEN ?1 AND ?2 ORDER BY mail_id",
    ))?;
    let mut found = statement.query(params![first, last])?;
    let mut rows = rows.iter_mut().peekable();
    while let Some(state) = found.next()? {
        let (id, hold_id, is_held): (i64, _, Option<bool>) =
            (state.get(0)?, state.get_ref(1)?.as_i64(), state.get(2)?);
        while rows.next_if(|row| row.id.0 < id).is_some() {}
        if let Some(row) = rows.next_if(|row| row.id.0 == id) {
            match hold_id {
                Ok(RELEASED) => row.hold.state = HoldState::Exempt,
                Ok(hold) if is_held == Some(true) => row.hold.state = HoldState::Held(HoldId(hold)),
                // Its hold has ended. A rule may be about it all the same.
                Ok(_) | Err(_) => {}
            }
            // What others write there may be no time at all.
            let released_ms = state.get_ref(3)?.as_i64().ok();
            row.hold.released = released_ms.map(|at_ms| UnixTime(at_ms.div_euclid(1000)));
        }
    }
    Ok(())
}

/// Returns the rules with their numbers. Without our tables there is none.
pub(super) fn rules(connection: &Connection) -> rusqlite::Result<Vec<(HoldId, HoldRule)>> {
    Ok(if_present(|| read_rules(connection))?.unwrap_or_default())
}

fn read_rules(connection: &Connection) -> rusqlite::Result<Vec<(HoldId, HoldRule)>> {
    let mut statement = connection.prepare_cached(
        "SELECT hold_id, scope FROM dispatch_holds WHERE CASE WHEN json_valid(scope) THEN \
         coalesce(json_type(scope, '$.destination'), json_type(scope, '$.from'), json_type(scope, '$.line')) IS NOT NULL END ORDER BY hold_id",
    )?;
    // What is no rule of ours, or no text at all, holds nothing.
    let rule = |row: &rusqlite::Row<'_>| {
        let rule = serde_json::from_str(row.get_ref(1)?.as_str().unwrap_or_default()).ok();
        Ok(rule.zip(row.get(0).ok()).map(|(rule, hold_id)| (HoldId(hold_id), rule)))
    };
    let rules = statement.query_map([], rule)?;
    Ok(rules.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Notes that a hold of a mail has ended: from now on its age counts anew. Where that cannot be written, the age goes on counting, which is
/// told once. Fails only if the transaction is lost.
pub(super) fn note_release(connection: &Connection, id: MailId, at: UnixMillis) -> rusqlite::Result<()> {
    let insert = "INSERT INTO dispatch_state (mail_id, released_ms) VALUES (?1, ?2) \
        ON CONFLICT (mail_id) DO UPDATE SET released_ms = excluded.released_ms";
    let write = || connection.prepare_cached(insert)?.execute([id.0, at.0]).map(drop);
    let written = within_savepoint(connection, || {
        connection.execute_batch(CREATE)?;
        match if_present(write)? {
            Some(()) => Ok(()),
            None => connection.execute_batch(ADD_RELEASED).and_then(|()| write()),
        }
    });
    let Err(error) = written else { return Ok(()) };
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!(
            "cannot note in the table dispatch_state when mail is released: {error}; its age goes on counting from its submission; {}",
            advice(connection, &error)
        );
    });
    // SQLite ends the transaction after some errors: without it, nothing may be written.
    if connection.is_autocommit() { Err(error) } else { Ok(()) }
}

/// Holds a mail that may have arrived already, until the administrator decides. Returns whether it could. Fails only if the transaction
/// is lost.
pub(super) fn hold_uncertain(connection: &Connection, id: MailId) -> rusqlite::Result<bool> {
    let held = connection.execute_batch(CREATE).and_then(|()| {
        // What it has held before is told no more.
        end_empty_uncertain(connection)?;
        connection
            .prepare_cached(
                "INSERT OR IGNORE INTO dispatch_holds (hold_id, scope, since_ms, reason) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![UNCERTAIN, r#"{"uncertain":true}"#, now().0, UNCERTAIN_REASON])?;
        set(connection, id, Some(UNCERTAIN))
    });
    let Err(error) = held else { return Ok(true) };
    log::error!(
        "mail {id} may have arrived already and cannot be held, so it is sent again: {error}; {}",
        advice(connection, &error)
    );
    // SQLite ends the transaction after some errors: without it, nothing may be written.
    if connection.is_autocommit() { Err(error) } else { Ok(false) }
}

/// Ends the hold of mail that may have arrived already, if it holds nothing.
pub(super) fn end_empty_uncertain(connection: &Connection) -> rusqlite::Result<()> {
    let delete = "DELETE FROM dispatch_holds WHERE hold_id = ?1 \
        AND NOT EXISTS (SELECT 1 FROM dispatch_state JOIN outbox USING (mail_id) WHERE dispatch_state.hold_id = ?1)";
    if_present(|| connection.prepare_cached(delete)?.execute([UNCERTAIN])).map(drop)
}

/// Sets by which hold a mail is held: none, or [`RELEASED`].
pub(super) fn set(connection: &Connection, id: MailId, hold_id: Option<i64>) -> rusqlite::Result<()> {
    let end = "UPDATE dispatch_state SET hold_id = NULL WHERE mail_id = ?1";
    let begin = "INSERT INTO dispatch_state (mail_id, hold_id) VALUES (?1, ?2) \
        ON CONFLICT (mail_id) DO UPDATE SET hold_id = excluded.hold_id";
    match hold_id {
        None => if_present(|| connection.prepare_cached(end)?.execute([id.0])).map(drop),
        Some(hold_id) => {
            or_created(connection, CREATE, || connection.prepare_cached(begin)?.execute([id.0, hold_id]))
                .map(drop)
        }
    }
}

/// Returns until when a mail is held by a hold of its own: `Some(None)` is for ever.
pub(super) fn until(connection: &Connection, id: MailId) -> rusqlite::Result<Option<Option<i64>>> {
    let select = "SELECT until_ms FROM dispatch_state JOIN dispatch_holds USING (hold_id) WHERE mail_id = ?1";
    let found =
        if_present(|| connection.prepare_cached(select)?.query_row([id.0], |row| row.get(0)).optional())?;
    Ok(found.flatten())
}

/// Ends the hold of a mail that belongs to a hold that is no more. What else holds it goes on.
pub(super) fn clear_ended(connection: &Connection, id: MailId) -> rusqlite::Result<()> {
    let end = "UPDATE dispatch_state SET hold_id = NULL WHERE mail_id = ?1 AND hold_id <> 0 \
        AND hold_id NOT IN (SELECT hold_id FROM dispatch_holds)";
    if_present(|| connection.prepare_cached(end)?.execute([id.0])).map(drop)
}

/// What holds mail: a hold as it is stored, or a line of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HoldRow {
    pub(crate) by: HeldBy,
    /// What it is about: JSON, or the pattern of a line.
    pub(crate) scope: String,
    /// Whether it also holds what comes later.
    pub(crate) is_rule: bool,
    pub(crate) since_ms: Option<i64>,
    pub(crate) until_ms: Option<i64>,
    pub(crate) who: Option<String>,
    pub(crate) reason: Option<String>,
    /// How many mails of the outbox have its number; of a rule, those that were there when it was made.
    pub(crate) mails: u64,
}

impl HoldRow {
    /// Returns the hold that a line is.
    pub(crate) fn of_line(line: &HoldLine) -> Self {
        Self {
            by: HeldBy::Line(line.line),
            scope: line.mail.to_string(),
            is_rule: true,
            since_ms: None,
            until_ms: None,
            who: None,
            reason: Some(line.reason.to_string()),
            mails: 0,
        }
    }
}

impl fmt::Display for HoldRow {
    /// Names it, and says why it holds mail.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, scope, who, reason, .. } = self;
        let reason = reason.as_deref().unwrap_or("no reason was given");
        match (by, who) {
            (HeldBy::Line(line), _) => {
                write!(f, "line {line} of the configuration (hold {scope}): {}", OneLine(reason))
            }
            (HeldBy::Hold(HoldId(hold)), Some(who)) => {
                write!(f, "hold {hold} of {}: {}", OneLine(who), OneLine(reason))
            }
            (HeldBy::Hold(HoldId(hold)), None) => write!(f, "hold {hold}: {}", OneLine(reason)),
        }
    }
}

/// Selects all holds. What others have stored there may have any type.
const SELECT_HOLDS: &str = "
SELECT hold_id, CAST(scope AS TEXT), CAST(since_ms AS INTEGER), CAST(until_ms AS INTEGER), CAST(who AS TEXT), CAST(reason AS TEXT),
    (SELECT count(*) FROM dispatch_state JOIN outbox USING (mail_id) WHERE dispatch_state.hold_id = dispatch_holds.hold_id)
FROM dispatch_holds ORDER BY hold_id";

impl Reader {
    /// Returns everything that holds mail: the lines, and the holds of the database, the oldest first. Without our tables there are only
    /// lines.
    pub(crate) fn holds(&self, lines: &[HoldLine]) -> Result<Vec<HoldRow>, ReadError> {
        self.read(|connection| {
            let found: Option<Vec<HoldRow>> =
                if_present(|| connection.prepare_cached(SELECT_HOLDS)?.query_map([], hold_row)?.collect())?;
            Ok(lines.iter().map(HoldRow::of_line).chain(found.into_iter().flatten()).collect())
        })
    }
}

fn hold_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<HoldRow> {
    let text = |column| -> rusqlite::Result<Option<String>> {
        let value = row.get_ref(column)?.as_bytes_or_null()?;
        Ok(value.map(|octets| String::from_utf8_lossy(octets).into_owned()))
    };
    let scope = text(1)?.unwrap_or_default();
    Ok(HoldRow {
        by: HeldBy::Hold(HoldId(row.get(0)?)),
        is_rule: serde_json::from_str::<HoldRule>(&scope).is_ok(),
        scope,
        since_ms: row.get(2)?,
        until_ms: row.get(3)?,
        who: text(4)?,
        reason: text(5)?,
        mails: u64::try_from(row.get::<_, i64>(6)?).unwrap_or_default(),
    })
}

/// Mail that is held whenever it comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum HoldRule {
    /// Mail that goes by the MX of this domain, or by the relay of this name.
    Destination(Destination),
    /// Mail of this sender.
    From(AddressPattern),
    /// Mail that a line of the configuration is about.
    Line(LinePattern),
}

impl HoldRule {
    /// Returns whether the rule is about the mail of a row.
    pub(crate) fn fits(&self, row: &Row) -> bool {
        match self {
            Self::Destination(destination) => destination.fits(row),
            Self::From(pattern) => pattern.fits(row.sender.as_deref()),
            Self::Line(pattern) => pattern.fits(row),
        }
    }
}
