//! The verbs `status` and `reload`, which ask the daemon.

use std::io;
use std::time::Duration;

use cmail_delivery::time::UnixMillis;
use serde_json::Value;

use super::clock::{Clock, Span};
use super::daemon::{Answer, number, text};
use super::printer::Printer;
use super::{Outcome, Tool, ToolError, complain};

/// How long the daemon may take to say how everything stands.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to read its configuration, for which names may have to be looked up.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);

/// How many reasons of failures are named, so that they fit into a line.
const SHOWN_REASONS: usize = 2;

/// The places of mail, as they are named in the record and for people.
const PLACES: [(&str, &str); 6] = [
    ("ready", "ready"),
    ("waiting", "waiting"),
    ("claimed", "being sent"),
    ("given_up", "given up"),
    ("held", "held"),
    ("set_aside", "set aside"),
];

/// Prints one screen.
pub(super) fn status(tool: &Tool) -> Result<Outcome, ToolError> {
    let answer = tool.daemon(Some(PATIENCE))?.ask_one(&["status"])?;
    let mut printer = tool.printer();
    if tool.options.json {
        printer.raw(&answer.line)?;
    } else {
        print(&mut printer, &tool.clock, &answer.fields)?;
    }
    printer.flush()?;
    Ok(Outcome::Done)
}

/// Lets the daemon read its configuration again, and prints what has come of it.
pub(super) fn reload(tool: &Tool) -> Result<Outcome, ToolError> {
    let Answer { line, fields } = tool.daemon(Some(RELOAD_PATIENCE))?.ask_one(&["reload"])?;
    let mut printer = tool.printer();
    let is_taken = fields["taken"].as_bool() == Some(true);
    let file = text(&fields, "/file");
    if tool.options.json {
        printer.raw(&line)?;
    } else {
        texts(&fields, "errors").for_each(complain);
        texts(&fields, "warnings").for_each(complain);
        for change in fields["changes"].as_array().into_iter().flatten() {
            let [directive, before, after] = ["/directive", "/before", "/after"].map(|at| text(change, at));
            printer.line(format_args!("{directive} is {after} now, it was {before}"))?;
        }
        match fields["changes"].as_array().map_or(0, Vec::len) {
            0 if is_taken => printer.line(format_args!("{file} was read again, and nothing changes"))?,
            1 => printer.line(format_args!("{file} was read again: 1 directive has changed"))?,
            count if is_taken => {
                printer.line(format_args!("{file} was read again: {count} directives have changed"))?;
            }
            _ => {}
        }
    }
    printer.flush()?;
    if is_taken {
        return Ok(Outcome::Done);
    }
    let count = number(&fields, "/error_count");
    let text = format!("{file} is not taken (errors: {count}); the configuration from before stays in force");
    Err(ToolError::NotDone(text))
}

fn texts<'a>(fields: &'a Value, name: &str) -> impl Iterator<Item = &'a str> {
    fields[name].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn print(printer: &mut Printer, clock: &Clock, status: &Value) -> io::Result<()> {
    let (now_ms, start_ms) = (number(status, "/now_ms"), number(status, "/start_ms"));
    let stopping = if status["is_stopping"].as_bool() == Some(true) { ", and stops now" } else { "" };
    printer.line(format_args!(
        "cmail-dispatchd {}, process {}, since {} ({}){stopping}",
        text(status, "/version"),
        number(status, "/pid"),
        clock.show(UnixMillis(start_ms)),
        Span((now_ms - start_ms) / 1000),
    ))?;
    printer.line(format_args!("database      {}", text(status, "/database")))?;
    printer.line(format_args!("queue         {}", Queue(status).line()))?;
    for line in status["queue"]["held_by_lines"].as_array().into_iter().flatten() {
        let (mails, text) = (number(line, "/mails"), text(line, "/text"));
        printer.line(format_args!("held          {mails} by {text}"))?;
    }
    let [delivered, deferred, failed, uncertain] = ["delivered", "deferred", "failed", "uncertain"]
        .map(|result| number(&status["attempts"], &format!("/{result}")));
    printer.line(format_args!(
        "attempts      {delivered} delivered, {deferred} deferred, {failed} failed, {uncertain} uncertain since the start"
    ))?;
    print_network(printer, status)?;
    let reload = &status["reload"];
    let at_ms = number(reload, "/at_ms");
    let when = if at_ms == start_ms { "at the start".to_owned() } else { clock.show(UnixMillis(at_ms)) };
    let result = match reload["taken"].as_bool() {
        Some(true) => "taken",
        Some(false) | None => "NOT TAKEN; the one from before is in force",
    };
    printer.line(format_args!("configuration read {when}: {result}"))?;
    let (pending, errors) = (number(status, "/queue/pending_verdicts"), number(status, "/store_errors"));
    let lost = number(status, "/log_lines_lost");
    printer.line(format_args!(
        "database work {pending} verdicts not recorded yet, {errors} errors since the start"
    ))?;
    printer.line(format_args!("log           {lost} lines lost since the start"))
}

fn print_network(printer: &mut Printer, status: &Value) -> io::Result<()> {
    let connections = &status["connections"];
    let [connecting, busy, resting, limit] =
        ["/connecting", "/busy", "/resting", "/max"].map(|at| number(connections, at));
    let open = connecting + busy + resting;
    printer.line(format_args!(
        "connections   {open} of {limit}: {connecting} connecting, {busy} busy, {resting} resting"
    ))?;
    let destinations = &connections["destinations"];
    let [active, waiting, paused, troubled] =
        ["/active", "/waiting", "/paused", "/troubled"].map(|at| number(destinations, at));
    printer.line(format_args!(
        "destinations  {active} active, {waiting} waiting, {paused} paused; {troubled} have failed when last tried"
    ))?;
    let hosts = status["troubled"].as_array().map_or(&[][..], Vec::as_slice);
    if hosts.is_empty() {
        printer.line(format_args!("hosts         no host is unreachable"))?;
    }
    for (number_of, host) in hosts.iter().enumerate() {
        let name = if number_of == 0 { "in trouble" } else { "" };
        let left = Span(number(host, "/for_s"));
        printer.line(format_args!(
            "{name:<13} {}: {}; tried last for another {left}",
            text(host, "/address"),
            text(host, "/reason")
        ))?;
    }
    print_failures(printer, &status["failures"])
}

/// Names the reasons for which most attempts have failed, and the way to the mail.
fn print_failures(printer: &mut Printer, failures: &Value) -> io::Result<()> {
    let of_kind = |(kind, count): (&String, &Value)| Some((count.as_u64()?, kind.clone()));
    let mut kinds: Vec<(u64, String)> =
        failures.as_object().into_iter().flatten().filter_map(of_kind).collect();
    kinds.retain(|(count, _)| *count > 0);
    let total: u64 = kinds.iter().map(|(count, _)| count).sum();
    if total == 0 {
        return Ok(());
    }
    kinds.sort_unstable_by(|one, other| other.cmp(one));
    let most: Vec<String> =
        kinds.iter().take(SHOWN_REASONS).map(|(count, kind)| format!("{count} {kind}")).collect();
    printer.line(format_args!(
        "failures      {total} since the start ({}); cmail-admin-queue list --place waiting",
        most.join(", ")
    ))
}

/// The queue of a status.
pub(super) struct Queue<'a>(pub(super) &'a Value);

impl Queue<'_> {
    /// Returns how many mails there are at each place.
    fn counts(&self) -> [(i64, &'static str); PLACES.len()] {
        let places = &self.0["queue"]["places"];
        PLACES.map(|(name, shown)| (number(places, &format!("/{name}")), shown))
    }

    /// Returns how many mails there are.
    pub(super) fn total(&self) -> i64 {
        self.counts().iter().map(|(count, _)| count).sum()
    }

    /// Describes it in one line.
    pub(super) fn line(&self) -> String {
        let (queue, counts, total) = (&self.0["queue"], self.counts(), self.total());
        let mut line = format!("{total} {}", if total == 1 { "mail" } else { "mails" });
        let present: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, shown)| format!("{count} {shown}"))
            .collect();
        if !present.is_empty() {
            line.push_str(": ");
            line.push_str(&present.join(", "));
        }
        if let (1.., Some(age)) = (total, queue["oldest_s"].as_i64()) {
            line.push_str(&format!("; the oldest is {} old", Span(age)));
        }
        line
    }
}
