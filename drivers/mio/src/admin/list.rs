//! The verb `list`.

use std::io;
use std::ops::ControlFlow;

use cmail_delivery::schedule::RetryState;

use super::clock::Span;
use super::printer::{Printer, recipient, sender};
use super::{Outcome, Tool, ToolError, json};
use crate::selection::{Place, Selection};
use crate::store::{QueuedMail, Standing};

/// Prints the selected mail, oldest id first.
pub(super) fn list(tool: &Tool, selection: &Selection) -> Result<Outcome, ToolError> {
    let standing = tool.standing();
    let mut printer = tool.printer();
    let limit = tool.options.limit.unwrap_or(u64::MAX);
    let mut count = 0;
    tool.each_batch(selection, standing, |mails| {
        for mail in mails {
            if count == limit {
                return Ok(ControlFlow::Break(()));
            }
            if tool.options.json {
                printer.record("mail", json::Mail::new(mail, standing))?;
            } else {
                if count == 0 {
                    print_heading(&mut printer)?;
                }
                print(&mut printer, mail, standing)?;
            }
            count += 1;
        }
        // What is known is shown while the rest is read.
        printer.flush()?;
        Ok(ControlFlow::Continue(()))
    })?;
    printer.flush()?;
    Ok(Outcome::found(count))
}

fn print_heading(printer: &mut Printer) -> io::Result<()> {
    let [id, age, size, tries, next, sender, recipient] =
        ["ID", "AGE", "SIZE", "TRIES", "NEXT", "SENDER", "RECIPIENT"];
    printer.line(format_args!(
        "{id:>8} {age:>6} {size:>8} {tries:>5} {next:<9} {sender:<28} {recipient:<28} LAST REPLY"
    ))
}

fn print(printer: &mut Printer, mail: &QueuedMail, standing: Standing<'_>) -> io::Result<()> {
    let row = &mail.row;
    let age = mail
        .submitted()
        .map_or("?".to_owned(), |time| Span(standing.now.0.saturating_sub(time.0)).to_string());
    let next = match (mail.place(standing), standing.of(row)) {
        (Place::Taken, _) => "taken".to_owned(),
        (_, RetryState::Due) => "now".to_owned(),
        (_, RetryState::NotBefore(time)) => format!("in {}", Span(time.0.saturating_sub(standing.now.0))),
        (_, RetryState::GivenUp) => "given up".to_owned(),
        (_, RetryState::Held) => "held".to_owned(),
    };
    let recipient = recipient(row);
    let reply = mail.failure_text().map_or("-".to_owned(), |text| text.to_string());
    printer.line(format_args!(
        "{:>8} {age:>6} {:>8} {:>5} {next:<9} {:<28} {recipient:<28} {reply}",
        row.id.0,
        row.data_octets,
        row.fail_count,
        sender(row.sender.as_deref()),
    ))
}
