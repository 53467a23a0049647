//! The verb `list`.

use std::io;
use std::ops::ControlFlow;

use cmail_delivery::schedule::RetryState;

use super::clock::Span;
use super::outlook::Outlook;
use super::printer::{Printer, recipient, sender};
use super::{Outcome, Tool, ToolError, json};
use crate::selection::{Place, Selection};
use crate::store::QueuedMail;

/// Prints the selected mail, oldest id first.
pub(super) fn list(tool: &Tool, selection: &Selection) -> Result<Outcome, ToolError> {
    let outlook = Outlook::read(tool, &tool.reader()?)?;
    let mut printer = tool.printer();
    let limit = tool.options.limit.unwrap_or(u64::MAX);
    let mut count = 0;
    tool.each_batch(selection, outlook.standing, |mails| {
        for mail in mails {
            if count == limit {
                return Ok(ControlFlow::Break(()));
            }
            if tool.options.json {
                printer.record("mail", json::Mail::new(mail, &outlook))?;
            } else {
                if count == 0 {
                    print_heading(&mut printer)?;
                }
                print(&mut printer, mail, &outlook)?;
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

fn print(printer: &mut Printer, mail: &QueuedMail, outlook: &Outlook<'_>) -> io::Result<()> {
    let (row, standing) = (&mail.row, outlook.standing);
    let age = mail
        .submitted()
        .map_or("?".to_owned(), |time| Span(standing.now.0.saturating_sub(time.0)).to_string());
    let next = match (mail.place(standing), standing.of(row)) {
        (Place::Taken, _) => "taken".to_owned(),
        (_, RetryState::Due) => "now".to_owned(),
        (_, RetryState::NotBefore(time)) => format!("in {}", Span(time.0.saturating_sub(standing.now.0))),
        (_, RetryState::GivenUp) => "given up".to_owned(),
        (_, RetryState::Held(_)) => "held".to_owned(),
    };
    let recipient = match outlook.via(row) {
        Some(relay) => format!("{} (via {relay})", recipient(row)),
        None => recipient(row),
    };
    let reply = mail.failure_text().map(|text| text.to_string());
    // Why it is not tried comes before what happened when it was.
    let told: Vec<String> =
        outlook.held_by(row).map(|holder| format!("held by {holder}")).into_iter().chain(reply).collect();
    let reply = if told.is_empty() { "-".to_owned() } else { told.join("; ") };
    printer.line(format_args!(
        "{:>8} {age:>6} {:>8} {:>5} {next:<9} {:<28} {recipient:<28} {reply}",
        row.id.0,
        row.data_octets,
        row.fail_count,
        sender(row.sender.as_deref()),
    ))
}
