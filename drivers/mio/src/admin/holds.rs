//! The verb `holds`: what is held, by whom, and for how long.

use std::io;
use std::ops::ControlFlow;

use cmail_delivery::outbox::Row;
use cmail_delivery::time::UnixMillis;
use serde::Serialize;
use serde_json::Value;

use super::printer::Printer;
use super::{Outcome, Tool, ToolError};
use crate::selection::{Place, Selection};
use crate::store::HoldRow;

/// A hold: the fields of the record `hold`.
#[derive(Debug, Serialize)]
struct Hold<'a> {
    hold_id: i64,
    scope: Value,
    /// Whether it also holds what comes later.
    rule: bool,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
    who: Option<&'a str>,
    reason: Option<&'a str>,
    mails: u64,
}

/// Prints each hold, with the mail that it holds.
pub(super) fn holds(tool: &Tool) -> Result<Outcome, ToolError> {
    let mut holds = tool.reader()?.holds()?;
    if holds.iter().any(|hold| hold.rule.is_some()) {
        count_ruled(tool, &mut holds)?;
    }
    let mut printer = tool.printer();
    let limit = tool.options.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    for hold in holds.iter().take(limit) {
        if tool.options.json {
            let HoldRow { hold_id, since_ms, until_ms, who, reason, mails, .. } = hold;
            let (who, reason) = (who.as_deref(), reason.as_deref());
            let scope = serde_json::from_str(&hold.scope).unwrap_or_else(|_| hold.scope.clone().into());
            let (rule, hold_id) = (hold.rule.is_some(), *hold_id);
            let (since_ms, until_ms, mails) = (*since_ms, *until_ms, *mails);
            let fields = Hold { hold_id, scope, rule, since_ms, until_ms, who, reason, mails };
            printer.record("hold", fields)?;
        } else {
            print(tool, &mut printer, hold)?;
        }
    }
    printer.flush()?;
    Ok(Outcome::found(holds.len() as u64))
}

/// Counts the held mail that each rule is about.
fn count_ruled(tool: &Tool, holds: &mut [HoldRow]) -> Result<(), ToolError> {
    // It is also about what has come later, and not about what has gone elsewhere.
    holds.iter_mut().filter(|hold| hold.rule.is_some()).for_each(|hold| hold.mails = 0);
    let held = Selection { place: Some(Place::Held), ..Selection::default() };
    tool.each_batch(&held, tool.standing(), |mails| {
        for mail in mails {
            holds.iter_mut().filter(|hold| is_about(hold, &mail.row)).for_each(|hold| hold.mails += 1);
        }
        Ok(ControlFlow::Continue(()))
    })
}

fn is_about(hold: &HoldRow, row: &Row) -> bool {
    hold.rule.as_ref().is_some_and(|rule| rule.fits(row))
}

fn print(tool: &Tool, printer: &mut Printer, hold: &HoldRow) -> io::Result<()> {
    let HoldRow { hold_id, scope, rule, since_ms, until_ms, who, reason, mails } = hold;
    let at = |at_ms: i64| tool.clock.show(UnixMillis(at_ms));
    let since = since_ms.map_or("an unknown time".to_owned(), at);
    let until = until_ms.map_or("it is released".to_owned(), at);
    let (who, reason) = (who.as_deref().unwrap_or("nobody who is known"), reason.as_deref().unwrap_or("-"));
    let mails = if *mails == 1 { "1 mail".to_owned() } else { format!("{mails} mails") };
    let kind = if rule.is_some() { ", and what comes later" } else { "" };
    printer.line(format_args!(
        "hold {hold_id}: {mails}{kind}; {scope}; since {since} by {who}, until {until}; reason: {reason}"
    ))
}
