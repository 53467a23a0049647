//! The verb `show`: all that is known of one mail, also after it has left the outbox.

use std::collections::BTreeSet;
use std::io;

use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::hold::HoldState;
use cmail_delivery::outbox::{Cursor, MailId, Row};
use cmail_delivery::schedule::RetryState;
use cmail_delivery::time::UnixMillis;

use super::clock::Span;
use super::history::{What, at};
use super::outlook::Outlook;
use super::printer::{Printer, recipient, sender};
use super::{Outcome, Tool, ToolError, complain, json};
use crate::selection::{Place, Selection};
use crate::store::{AttemptRow, Direction, FaillogRow, HistoryQuery, QueuedMail, Reader, Standing};

/// What is known of a mail.
struct Known {
    id: MailId,
    /// The mail, if it is still in the outbox.
    mail: Option<QueuedMail>,
    message_id: Option<String>,
    /// The entries of the ledger, oldest first.
    attempts: Vec<AttemptRow>,
    /// Failures that the ledger does not have.
    failures: Vec<FaillogRow>,
}

/// Prints each of these mails.
pub(super) fn show(tool: &Tool, ids: &[i64]) -> Result<Outcome, ToolError> {
    let reader = tool.reader()?;
    let outlook = Outlook::read(tool, &reader)?;
    let mut printer = tool.printer();
    let mut shown = 0;
    for &id in ids {
        let known = Known::read(&reader, outlook.standing, MailId(id))?;
        if known.mail.is_none() && known.attempts.is_empty() {
            complain(&format!("mail {id} is neither in the outbox nor in the ledger"));
            continue;
        }
        if tool.options.json {
            known.print_json(&reader, &mut printer, &outlook)?;
        } else {
            if shown > 0 {
                printer.line(format_args!(""))?;
            }
            known.print(tool, &reader, &mut printer, &outlook)?;
        }
        printer.flush()?;
        shown += 1;
    }
    Ok(Outcome::found(shown))
}

impl Known {
    fn read(reader: &Reader, standing: Standing<'_>, id: MailId) -> Result<Self, ToolError> {
        let selection = Selection { ids: vec![id.0], ..Selection::default() };
        let mail = reader.mails(&selection, standing, Cursor::BeforeFirst)?.mails.pop();
        let message_id = if mail.is_some() { reader.message_id(id)? } else { None };
        let query = HistoryQuery { selection, since: None, result: None, remote_id: None, now: standing.now };
        let attempts = reader.history(&query, Direction::OldestFirst, None)?.attempts;
        let mut failures = reader.faillog(id)?;
        failures.retain(|failure| !attempts.iter().any(|attempt| is_the_same(attempt, failure)));
        Ok(Self { id, mail, message_id, attempts, failures })
    }

    /// Returns the ids of the conversations in which the mail was tried.
    fn conversations(&self) -> BTreeSet<i64> {
        self.attempts.iter().filter_map(|attempt| attempt.connection_id).collect()
    }

    fn print_json(
        &self,
        reader: &Reader,
        printer: &mut Printer,
        outlook: &Outlook<'_>,
    ) -> Result<(), ToolError> {
        if let Some(mail) = &self.mail {
            printer.record("mail", json::Mail::new(mail, outlook))?;
        }
        for failure in &self.failures {
            printer.record("failure", json::Failure::new(self.id.0, failure))?;
        }
        for attempt in &self.attempts {
            printer.record("attempt", attempt)?;
        }
        for conversation in reader.conversations(&self.conversations())? {
            printer.record("connection", conversation)?;
        }
        Ok(())
    }

    fn print(
        &self,
        tool: &Tool,
        reader: &Reader,
        printer: &mut Printer,
        outlook: &Outlook<'_>,
    ) -> Result<(), ToolError> {
        printer.line(format_args!("mail {}", self.id.0))?;
        match &self.mail {
            Some(mail) => self.print_mail(tool, printer, mail, outlook)?,
            None => self.print_gone(tool, printer)?,
        }
        if !self.failures.is_empty() {
            printer.line(format_args!("failures that only the faillog has"))?;
        }
        for FaillogRow { at, is_fatal, failure } in &self.failures {
            let at = at.map_or("at an unknown time".to_owned(), |at| tool.clock.show(at.into()));
            let fate = if *is_fatal { "failed" } else { "deferred" };
            printer.line(format_args!("  {at} {fate}: {}", failure.text))?;
        }
        if !self.attempts.is_empty() {
            printer.line(format_args!("attempts"))?;
        }
        for attempt in &self.attempts {
            printer.line(format_args!("  {} {}", at(&tool.clock, attempt), What(attempt)))?;
        }
        self.print_conversation(tool, reader, printer)
    }

    fn print_mail(
        &self,
        tool: &Tool,
        printer: &mut Printer,
        mail: &QueuedMail,
        outlook: &Outlook<'_>,
    ) -> io::Result<()> {
        let (row, standing) = (&mail.row, outlook.standing);
        let mut field = |name: &str, value: &str| printer.line(format_args!("  {name:<12} {value}"));
        field("state", &state(tool, mail, outlook))?;
        field("sender", &sender(row.sender.as_deref()))?;
        field("recipient", &recipient(row))?;
        field("goes to", &outlook.route(row))?;
        field("size", &format!("{} octets", row.data_octets))?;
        if let Some(time) = mail.submitted() {
            let age = Span(standing.now.0.saturating_sub(time.0));
            let submitter =
                mail.submitter.as_deref().map(|name| format!(", by {}", super::printer::address(name)));
            let at = tool.clock.show(time.into());
            field("submitted", &format!("{at}, {age} ago{}", submitter.unwrap_or_default()))?;
        }
        if let Some(wishes) = wishes(row) {
            field("wishes", &wishes)?;
        }
        field("Message-ID", self.message_id.as_deref().unwrap_or("none"))
    }

    /// Of a mail that has left the outbox, the ledger knows the envelope.
    fn print_gone(&self, tool: &Tool, printer: &mut Printer) -> io::Result<()> {
        let Some(last) = self.attempts.last() else { return Ok(()) };
        let mut field = |name: &str, value: &str| printer.line(format_args!("  {name:<12} {value}"));
        let result = last.result.as_deref().unwrap_or("?");
        field(
            "state",
            &format!(
                "it has left the outbox; the last entry of the ledger: {result}, {}",
                at(&tool.clock, last)
            ),
        )?;
        field("sender", last.sender.as_deref().filter(|sender| !sender.is_empty()).unwrap_or("<>"))?;
        field("recipient", last.recipient.as_deref().unwrap_or_default())?;
        let sizes = self.attempts.iter().rev();
        if let Some(octets) = sizes.clone().find_map(|attempt| attempt.octets) {
            field("size", &format!("{octets} octets"))?;
        }
        if let Some(submitted) = sizes.clone().find_map(|attempt| attempt.submitted) {
            field("submitted", &tool.clock.show(UnixMillis(submitted.saturating_mul(1000))))?;
        }
        let message_id = sizes.clone().find_map(|attempt| attempt.message_id.as_deref());
        field("Message-ID", message_id.unwrap_or("none"))
    }

    /// Prints the last conversation that was kept.
    fn print_conversation(
        &self,
        tool: &Tool,
        reader: &Reader,
        printer: &mut Printer,
    ) -> Result<(), ToolError> {
        let conversations = reader.conversations(&self.conversations())?;
        let Some(last) = conversations.iter().rev().find(|found| found.transcript.is_some()) else {
            return Ok(());
        };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        printer.line(format_args!(
            "conversation with {} [{}]:{}, {}",
            text(&last.host),
            text(&last.address),
            last.port.unwrap_or_default(),
            last.opened_ms.map_or(String::new(), |opened_ms| tool.clock.show(UnixMillis(opened_ms))),
        ))?;
        for line in text(&last.transcript).lines() {
            printer.line(format_args!("  {line}"))?;
        }
        Ok(())
    }
}

/// Returns whether the ledger tells of the failure that a row of the faillog tells of.
fn is_the_same(attempt: &AttemptRow, failure: &FaillogRow) -> bool {
    let at_s = attempt.at_ms.map(|at_ms| at_ms.div_euclid(1000));
    let text = attempt.text.as_deref().unwrap_or_default();
    at_s == failure.at.map(|at| at.0) && text.lines().eq(failure.failure.text.lines())
}

/// Says what the sender of a mail wants to be told of it, if that is said.
pub(super) fn wishes(row: &Row) -> Option<String> {
    let DsnWishes { notify, original_recipient, message } = &row.wishes;
    let words = [
        notify.map(|notify| format!("NOTIFY={notify}")),
        message.extent.map(|extent| format!("RET={extent}")),
        message.envelope_id.as_ref().map(|id| format!("ENVID={}", id.as_str())),
        original_recipient.as_ref().map(|original| format!("ORCPT={}", original.as_str())),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Says whether a mail is tried again, when, and by which rule, and why no line holds it.
pub(super) fn state(tool: &Tool, mail: &QueuedMail, outlook: &Outlook<'_>) -> String {
    let (row, rules) = (&mail.row, outlook.standing.rules);
    let mut text = fate(tool, mail, outlook);
    if row.hold.state == HoldState::Exempt && rules.has_hold_line_about(row) {
        text += "; no hold line holds it, because an order has released this mail";
    }
    text
}

fn fate(tool: &Tool, mail: &QueuedMail, outlook: &Outlook<'_>) -> String {
    let (row, standing) = (&mail.row, outlook.standing);
    let rule = rule(row, standing);
    let failed = match row.fail_count {
        1 => "1 attempt has failed".to_owned(),
        count => format!("{count} attempts have failed"),
    };
    if mail.place(standing) == Place::Taken {
        return "taken: a server has taken it, so that it is not sent again; it cannot be deleted, and dispatch_stuck says why".to_owned();
    }
    match standing.of(row) {
        RetryState::Due if row.fail_count == 0 => "ready: it was not tried yet".to_owned(),
        RetryState::Due => format!("ready: it is to be tried now; {failed}; {rule}"),
        RetryState::NotBefore(time) => {
            let left = Span(time.0.saturating_sub(standing.now.0));
            let at = tool.clock.show(time.into());
            format!("waiting: it is tried again in {left}, {at}; {failed}; {rule}")
        }
        RetryState::Held(_) => format!(
            "held by {}; it is neither tried nor given up until it is released (cmail-admin-queue release {})",
            outlook.held_by(row).unwrap_or_default(),
            row.id
        ),
        RetryState::GivenUp => {
            let end = match row.sender {
                Some(_) if !row.wishes.wants_failure() => {
                    "it is to be dropped, as its sender wants no bounce"
                }
                Some(_) => "it is to be bounced",
                None => "it is to be dropped, as its sender is null",
            };
            let why = if row.fatal { "one of them for good".to_owned() } else { rule };
            format!("given up: {end}; {failed}; {why}")
        }
    }
}

/// Names the rule that decides when a mail is tried, and whether it is given up.
fn rule(row: &Row, standing: Standing<'_>) -> String {
    let rules = standing.rules;
    match rules.line_about(row) {
        Some(line) => {
            let age = Span(i64::try_from(line.until.as_secs()).unwrap_or(i64::MAX));
            format!("by line {} of the configuration (retry), which gives up after {age}", line.line)
        }
        None => format!(
            "by retryinterval, {} between attempts, and retries, at most {} attempts",
            Span(rules.interval_s),
            rules.retries
        ),
    }
}
