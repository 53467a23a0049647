//! Which `hold` lines were in force last: the key `hold_lines` of the table `dispatch_meta`. Lines hold mail without any note; but when one
//! is gone, also while no daemon ran, an order releases what it has held, so that the age of that mail counts anew.

use std::collections::BTreeSet;

use cmail_delivery::hold::HoldLine;
use cmail_delivery::schedule::RetryTerms;
use cmail_delivery::time::UnixMillis;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::holds::HoldRule;
use super::order_task::{Act, Scope};
use super::own_table::if_present;
use super::run;
use crate::selection::LinePattern;

/// Who gives such orders.
const DAEMON: &str = "cmail-dispatchd";

/// What is known of the lines of this daemon.
#[derive(Debug, Default)]
pub(super) struct LineNotes {
    /// False in a process that is not the daemon, and may have another configuration.
    is_kept: bool,
    /// Those that are noted, as patterns, once that is known.
    noted: Option<BTreeSet<String>>,
}

impl LineNotes {
    /// Makes this the process whose lines count.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Returns whether the lines are others than those that are noted.
    pub(super) fn are_outdated(&self, lines: &[HoldLine]) -> bool {
        self.is_kept && self.noted.as_ref() != Some(&patterns(lines))
    }

    /// Notes the lines, and gives the orders by which those end that are gone. To be called within a transaction; what it has done counts
    /// once that is [committed](Self::committed).
    pub(super) fn write(connection: &Connection, terms: &RetryTerms) -> rusqlite::Result<()> {
        let lines = patterns(terms.rules().hold_lines);
        let before = read(connection)?;
        if lines == before {
            return Ok(());
        }
        connection.execute_batch(run::CREATE)?;
        connection
            .prepare_cached("INSERT OR REPLACE INTO dispatch_meta (key, value) VALUES ('hold_lines', ?1)")?
            .execute([serde_json::to_string(&lines).unwrap_or_default()])?;
        before.difference(&lines).try_for_each(|pattern| give_end(connection, pattern, terms))
    }

    /// Records that the lines are noted.
    pub(super) fn committed(&mut self, lines: &[HoldLine]) {
        self.noted = Some(patterns(lines));
    }
}

fn patterns(lines: &[HoldLine]) -> BTreeSet<String> {
    lines.iter().map(|line| line.mail.to_string()).collect()
}

/// Returns the patterns that are noted. What others have written there counts as none.
fn read(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let select = "SELECT CAST(value AS TEXT) FROM dispatch_meta WHERE key = 'hold_lines'";
    let found = if_present(|| {
        connection.prepare_cached(select)?.query_row([], |row| row.get::<_, Option<String>>(0)).optional()
    })?;
    let text = found.flatten().flatten();
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

/// Gives the order that releases what a line has held.
fn give_end(connection: &Connection, pattern: &str, terms: &RetryTerms) -> rusqlite::Result<()> {
    let Ok(pattern) = pattern.parse::<LinePattern>() else { return Ok(()) };
    let act = Act::LINE_ENDED;
    let (verb, argument) = act.columns();
    let scope = Scope::Rule(HoldRule::Line(pattern)).to_json();
    connection
        .prepare_cached(
            "INSERT INTO dispatch_orders (at_ms, who, verb, scope, argument, reason, last_mail) \
             SELECT ?1, ?2, ?3, ?4, ?5, 'the line is gone', coalesce(max(mail_id), 0) FROM outbox",
        )?
        .execute(params![UnixMillis::from(terms.now).0, DAEMON, verb, scope, argument])
        .map(drop)
}

#[cfg(test)]
mod tests;
