//! The verb `top`, which shows again and again what the daemon does.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::clock::Span;
use super::daemon::{Answer, number, text};
use super::printer::{Printer, shortened};
use super::status::{PATIENCE, Queue};
use super::{Outcome, Tool, ToolError};
use cmail_delivery::time::UnixMillis;

/// The time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Most destinations and most hosts that are shown, unless a limit is given.
const ROWS: usize = 8;

/// Results of attempts, in the order in which they are shown.
const RESULTS: [&str; 4] = ["delivered", "deferred", "failed", "uncertain"];

/// Prints how mail goes every two seconds: a screen on a terminal, and else a line.
pub(super) fn top(tool: &Tool) -> Result<Outcome, ToolError> {
    let mut daemon = tool.daemon(Some(PATIENCE))?;
    let mut printer = tool.printer();
    let is_terminal = io::stdout().is_terminal();
    let limit = tool.options.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut before: Option<Value> = None;
    for round in 0_u64.. {
        if round > 0 {
            thread::sleep(INTERVAL);
        }
        let Answer { line, fields } = daemon.ask_one(&["status"])?;
        if tool.options.json {
            printer.raw(&line)?;
        } else if is_terminal {
            printer.clear_screen()?;
            print_screen(&mut printer, tool, &fields, before.as_ref(), limit.unwrap_or(ROWS))?;
        } else {
            if round == 0 {
                print_heading(&mut printer)?;
            }
            print_line(&mut printer, tool, &fields, before.as_ref())?;
        }
        printer.flush()?;
        before = Some(fields);
        // So many lines were wanted.
        if !is_terminal && limit.is_some_and(|limit| round + 1 >= limit as u64) {
            break;
        }
    }
    Ok(Outcome::Done)
}

/// Returns how many attempts with each result there were in a second since the last look, or since the start.
fn rates(now: &Value, before: Option<&Value>) -> [f64; 4] {
    // Without a look before, and after a restart, it is the mean since the start.
    let before = before.filter(|before| before["start_ms"] == now["start_ms"]);
    let count = |status: &Value, result: &str| number(&status["attempts"], &format!("/{result}"));
    let since_ms = before.map_or(number(now, "/start_ms"), |before| number(before, "/now_ms"));
    let span_s = (number(now, "/now_ms") - since_ms).max(1) as f64 / 1000.0;
    RESULTS.map(|result| {
        let attempts = count(now, result) - before.map_or(0, |before| count(before, result));
        attempts as f64 / span_s
    })
}

fn connections(status: &Value) -> i64 {
    ["/connecting", "/busy", "/resting"].iter().map(|at| number(&status["connections"], at)).sum()
}

fn print_heading(printer: &mut Printer) -> io::Result<()> {
    let [time, delivered, deferred, failed, uncertain, mails, connections, active, slow] = [
        "TIME",
        "DELIVERED/s",
        "DEFERRED/s",
        "FAILED/s",
        "UNCERTAIN/s",
        "MAILS",
        "CONNS",
        "ACTIVE",
        "SLOWEST HOST",
    ];
    printer.line(format_args!(
        "{time:<25} {delivered:>11} {deferred:>10} {failed:>8} {uncertain:>11} {mails:>8} {connections:>5} {active:>6}  {slow}"
    ))
}

fn print_line(printer: &mut Printer, tool: &Tool, status: &Value, before: Option<&Value>) -> io::Result<()> {
    let [delivered, deferred, failed, uncertain] = rates(status, before);
    let slowest = status["slow"].as_array().and_then(|slow| slow.first());
    let slowest = slowest.map_or("-".to_owned(), |slow| {
        format!("{} {}s {}", text(slow, "/address"), number(slow, "/for_s"), text(slow, "/waits_for"))
    });
    printer.line(format_args!(
        "{:<25} {delivered:>11.1} {deferred:>10.1} {failed:>8.1} {uncertain:>11.1} {:>8} {:>5} {:>6}  {slowest}",
        tool.clock.show(UnixMillis(number(status, "/now_ms"))),
        Queue(status).total(),
        connections(status),
        number(status, "/connections/destinations/active"),
    ))
}

fn print_screen(
    printer: &mut Printer,
    tool: &Tool,
    status: &Value,
    before: Option<&Value>,
    rows: usize,
) -> io::Result<()> {
    let [delivered, deferred, failed, uncertain] = rates(status, before);
    let at = tool.clock.show(UnixMillis(number(status, "/now_ms")));
    printer.line(format_args!("cmail-dispatchd {}, {at}", text(status, "/version")))?;
    printer.line(format_args!(
        "rate/s        {delivered:.1} delivered, {deferred:.1} deferred, {failed:.1} failed, {uncertain:.1} uncertain"
    ))?;
    printer.line(format_args!("queue         {}", Queue(status).line()))?;
    let counts = &status["connections"];
    let [busy, resting, limit] = ["/busy", "/resting", "/max"].map(|at| number(counts, at));
    let [active, waiting, paused] =
        ["/active", "/waiting", "/paused"].map(|at| number(&counts["destinations"], at));
    printer.line(format_args!(
        "connections   {} of {limit}: {busy} busy, {resting} resting; destinations {active} active, {waiting} waiting, {paused} paused",
        connections(status)
    ))?;
    printer.line(format_args!(""))?;
    printer.line(format_args!("   MAILS  DESTINATIONS WITH MOST MAIL"))?;
    match status["queue"]["destinations"].as_array() {
        None => printer.line(format_args!("          (being counted)"))?,
        Some(destinations) => {
            for destination in destinations.iter().take(rows) {
                let ages = destination["ages"].as_array().into_iter().flatten();
                let mails: i64 = ages.filter_map(Value::as_i64).sum();
                printer.line(format_args!("{mails:>8}  {}", shortened(text(destination, "/name"))))?;
            }
        }
    }
    printer.line(format_args!(""))?;
    printer.line(format_args!("    WAIT  CONNS  SLOWEST HOSTS"))?;
    for slow in status["slow"].as_array().into_iter().flatten().take(rows) {
        printer.line(format_args!(
            "{:>8} {:>6}  {} [{}]: {}",
            Span(number(slow, "/for_s")).to_string(),
            number(slow, "/connections"),
            shortened(text(slow, "/host")),
            text(slow, "/address"),
            text(slow, "/waits_for"),
        ))?;
    }
    Ok(())
}
