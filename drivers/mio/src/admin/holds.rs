//! The verb `holds`: what is held, by what, and for how long. Orders and lines of the configuration hold mail alike.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use cmail_delivery::hold::{HeldBy, HoldId};
use cmail_delivery::outbox::Row;
use cmail_delivery::schedule::RetryState;
use cmail_delivery::time::UnixMillis;
use serde::Serialize;
use serde_json::Value;

use super::printer::Printer;
use super::{Outcome, Tool, ToolError};
use crate::selection::{Place, Selection};
use crate::store::{HoldRow, Reader, Standing};

/// A hold: the fields of the record `hold`.
#[derive(Debug, Serialize)]
struct Hold<'a> {
    /// Its number, if it is one of the database.
    hold_id: Option<i64>,
    /// Its line, if it is one of the configuration.
    line: Option<u32>,
    scope: Value,
    /// Whether it also holds what comes later.
    rule: bool,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
    who: Option<&'a str>,
    reason: Option<&'a str>,
    mails: u64,
}

/// Everything that holds mail, by what it is called in the state of a mail.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<HeldBy, HoldRow>);

impl Holders {
    /// Reads what holds mail.
    pub(super) fn read(reader: &Reader, standing: Standing<'_>) -> Result<Self, ToolError> {
        let holds = reader.holds(standing.rules.hold_lines)?;
        Ok(Self(holds.into_iter().map(|hold| (hold.by, hold)).collect()))
    }

    /// Says what holds a mail, and why; `None` if it is not held.
    pub(super) fn of(&self, row: &Row, standing: Standing<'_>) -> Option<String> {
        let RetryState::Held(by) = standing.of(row) else { return None };
        Some(self.0.get(&by).map_or_else(|| "a hold that has just ended".to_owned(), ToString::to_string))
    }
}

/// Prints each hold, with the mail that it holds.
pub(super) fn holds(tool: &Tool) -> Result<Outcome, ToolError> {
    let standing = tool.standing();
    let mut holds = tool.reader()?.holds(standing.rules.hold_lines)?;
    if holds.iter().any(|hold| hold.is_rule) {
        count_ruled(tool, standing, &mut holds)?;
    }
    let mut printer = tool.printer();
    let limit = tool.options.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    for hold in holds.iter().take(limit) {
        if tool.options.json {
            let HoldRow { by, is_rule, since_ms, until_ms, who, reason, mails, .. } = hold;
            let (hold_id, line) = match *by {
                HeldBy::Hold(HoldId(hold)) => (Some(hold), None),
                HeldBy::Line(line) => (None, Some(line)),
            };
            let (who, reason) = (who.as_deref(), reason.as_deref());
            let scope = serde_json::from_str(&hold.scope).unwrap_or_else(|_| hold.scope.clone().into());
            let (rule, since_ms, until_ms, mails) = (*is_rule, *since_ms, *until_ms, *mails);
            let fields = Hold { hold_id, line, scope, rule, since_ms, until_ms, who, reason, mails };
            printer.record("hold", fields)?;
        } else {
            print(tool, &mut printer, hold)?;
        }
    }
    printer.flush()?;
    Ok(Outcome::found(holds.len() as u64))
}

/// Counts the held mail that each rule and each line is about. What several are about counts for the one that is told of it.
fn count_ruled(tool: &Tool, standing: Standing<'_>, holds: &mut [HoldRow]) -> Result<(), ToolError> {
    // It is also about what has come later, and not about what has gone elsewhere.
    holds.iter_mut().filter(|hold| hold.is_rule).for_each(|hold| hold.mails = 0);
    let held = Selection { place: Some(Place::Held), ..Selection::default() };
    tool.each_batch(&held, standing, |mails| {
        for mail in mails {
            let RetryState::Held(by) = standing.of(&mail.row) else { continue };
            holds.iter_mut().filter(|hold| hold.is_rule && hold.by == by).for_each(|hold| hold.mails += 1);
        }
        Ok(ControlFlow::Continue(()))
    })
}

fn print(tool: &Tool, printer: &mut Printer, hold: &HoldRow) -> io::Result<()> {
    let HoldRow { by, scope, is_rule, since_ms, until_ms, who, reason, mails } = hold;
    let mails = if *mails == 1 { "1 mail".to_owned() } else { format!("{mails} mails") };
    let kind = if *is_rule { ", and what comes later" } else { "" };
    let HeldBy::Hold(HoldId(hold_id)) = by else {
        return printer.line(format_args!("{hold}: {mails}{kind}"));
    };
    let at = |at_ms: i64| tool.clock.show(UnixMillis(at_ms));
    let since = since_ms.map_or("an unknown time".to_owned(), at);
    let until = until_ms.map_or("it is released".to_owned(), at);
    let (who, reason) = (who.as_deref().unwrap_or("nobody who is known"), reason.as_deref().unwrap_or("-"));
    printer.line(format_args!(
        "hold {hold_id}: {mails}{kind}; {scope}; since {since} by {who}, until {until}; reason: {reason}"
    ))
}
