//! The verb `history`: what was tried, and what became of it.

use std::fmt;
use std::io;

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use cmail_delivery::time::UnixMillis;

use super::clock::Clock;
use super::printer::Printer;
use super::words::{HistoryWords, Words};
use super::{Outcome, Tool, ToolError};
use crate::store::{AttemptRow, Direction, HistoryQuery, Reader};

/// Prints the entries of the ledger that are meant, the newest last. With a limit, the newest ones.
pub(super) fn history(tool: &Tool, words: &HistoryWords) -> Result<Outcome, ToolError> {
    if words.selection.place.is_some() {
        let text = "--place is about mail in the outbox: what was tried has no place; say --result, or use the verb list";
        return Err(ToolError::Usage(Words::command().error(ErrorKind::ArgumentConflict, text)));
    }
    let now = tool.standing().now;
    let query = HistoryQuery {
        selection: words.selection.clone(),
        since: words.since.map(|since| tool.clock.resolve(since, now)),
        result: words.result.map(|result| result.as_str()),
        remote_id: words.remote_id.clone(),
        now,
    };
    let reader = tool.reader()?;
    let mut printer = tool.printer();
    let mut count = 0;
    match tool.options.limit {
        None => {
            let mut from = None;
            loop {
                let batch = reader.history(&query, Direction::OldestFirst, from)?;
                for attempt in &batch.attempts {
                    print(tool, &mut printer, attempt)?;
                    count += 1;
                }
                printer.flush()?;
                from = batch.next;
                if from.is_none() {
                    break;
                }
            }
        }
        Some(limit) => {
            for attempt in newest(&reader, &query, limit)?.iter().rev() {
                print(tool, &mut printer, attempt)?;
                count += 1;
            }
            printer.flush()?;
        }
    }
    Ok(Outcome::found(count))
}

/// Returns the newest entries that are meant, the newest first.
fn newest(reader: &Reader, query: &HistoryQuery, limit: u64) -> Result<Vec<AttemptRow>, ToolError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut newest, mut from) = (Vec::new(), None);
    while newest.len() < limit {
        let batch = reader.history(query, Direction::NewestFirst, from)?;
        newest.extend(batch.attempts);
        from = batch.next;
        if from.is_none() {
            break;
        }
    }
    newest.truncate(limit);
    Ok(newest)
}

fn print(tool: &Tool, printer: &mut Printer, attempt: &AttemptRow) -> io::Result<()> {
    if tool.options.json {
        return printer.record("attempt", attempt);
    }
    let sender = attempt.sender.as_deref().unwrap_or_default();
    let recipient = attempt.recipient.as_deref().unwrap_or_default();
    printer.line(format_args!(
        "{} mail {} <{sender}> to <{recipient}> {}",
        at(&tool.clock, attempt),
        attempt.mail_id.unwrap_or_default(),
        What(attempt)
    ))
}

/// Shows when an entry was decided.
pub(super) fn at(clock: &Clock, attempt: &AttemptRow) -> String {
    attempt.at_ms.map_or("at an unknown time".to_owned(), |at_ms| clock.show(UnixMillis(at_ms)))
}

/// Shows what happened: the result, the server, what was said, and how long it took.
pub(super) struct What<'a>(pub(super) &'a AttemptRow);

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempt = self.0;
        f.write_str(attempt.result.as_deref().unwrap_or("?"))?;
        if let (Some(host), Some(address), Some(port)) = (&attempt.host, &attempt.address, attempt.port) {
            let by = if attempt.result.as_deref() == Some("delivered") { "to" } else { "by" };
            write!(f, " {by} {host} [{address}]:{port}")?;
            match &attempt.tls_version {
                Some(version) => write!(f, " over {version}")?,
                None => f.write_str(" without TLS")?,
            }
        }
        if let Some(text) = &attempt.text {
            write!(f, ": {text}")?;
        }
        if let Some(why) = &attempt.why {
            write!(f, " ({why})")?;
        }
        if let (Some(a), Some(b), Some(c), Some(d)) = (attempt.a_ms, attempt.b_ms, attempt.c_ms, attempt.d_ms)
        {
            let [a, b, c, d] = [a, b, c, d].map(Seconds);
            write!(f, " (delays {a}/{b}/{c}/{d} s)")?;
        }
        Ok(())
    }
}

/// Shows a number of milliseconds as seconds.
struct Seconds(i64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 1000, self.0 % 1000) {
            (seconds, 0) => write!(f, "{seconds}"),
            (seconds, millis) => write!(f, "{seconds}.{:03}", millis.abs()),
        }
    }
}
