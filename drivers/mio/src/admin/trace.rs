//! The verb `trace`, which shows conversations while they go on.

use std::io;

use cmail_delivery::time::UnixMillis;
use serde_json::Value;

use super::daemon::{AskError, number, text};
use super::printer::{Printer, shortened};
use super::words::TraceWords;
use super::{Outcome, Tool, ToolError};
use crate::control;

/// Prints each line as it is said, until the daemon ends or this process does.
pub(super) fn trace(tool: &Tool, words: &TraceWords) -> Result<Outcome, ToolError> {
    // It may be silent for as long as there is no mail.
    let mut daemon = tool.daemon(None)?;
    daemon.ask(&control::trace(words.destination.as_deref(), words.data))?;
    let mut printer = tool.printer();
    loop {
        match daemon.answer() {
            Ok(Some(answer)) if tool.options.json => printer.raw(&answer.line)?,
            Ok(Some(answer)) => print(tool, &mut printer, &answer.fields)?,
            Ok(None) => return Ok(Outcome::Done),
            Err(AskError::Ended) => return Err(ToolError::NotDone("the daemon has ended".to_owned())),
            Err(error) => return Err(error.into()),
        }
        if !daemon.has_more() {
            printer.flush()?;
        }
    }
}

fn print(tool: &Tool, printer: &mut Printer, line: &Value) -> io::Result<()> {
    match text(line, "/kind") {
        "watching" => {
            return printer.line(format_args!("(each line is shown as it is said; Ctrl-C ends this)"));
        }
        "dropped" => {
            let lines = number(line, "/lines");
            return printer.line(format_args!("({lines} lines are missing: they were not read in time)"));
        }
        _ => {}
    }
    let shown =
        |name: &str, value: &Value| value.as_i64().map_or("-".to_owned(), |value| format!("{name}{value}"));
    let mark = match text(line, "/from") {
        "client" => '>',
        "server" => '<',
        _ => '*',
    };
    let host = if line["host"].is_null() { text(line, "/next_hop") } else { text(line, "/host") };
    printer.line(format_args!(
        "{} {:>9} {:>7} {:<24} {mark} {}",
        tool.clock.show_moment(UnixMillis(number(line, "/at_ms"))),
        shown("mail ", &line["mail_id"]),
        shown("conn ", &line["connection"]),
        shortened(host),
        text(line, "/text")
    ))
}
