//! What is printed, for a terminal of 100 columns.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::check::{Evidence, Verdict};
use crate::smtp::Record;
use crate::story::{self, Mail};

const COLUMNS: usize = 100;

/// What is going to happen, in two lines.
pub(crate) fn opening(mails: usize, servers: usize) -> String {
    format!(
        "{mails} mails go into a new outbox; a DNS server and {servers} SMTP servers start on loopback, on free ports.\n\
         The daemon delivers. Then you read what was said on every connection, and how each mail ended.\n"
    )
}

/// The configuration and the outbox before the daemon starts.
pub(crate) fn beginning(configuration: &str, mails: &[Mail]) -> String {
    let mut text = heading("The configuration");
    for line in configuration.lines() {
        push(&mut text, 2, line);
    }
    text.push_str(&heading(&format!("The outbox, all of it from {}", story::SENDER)));
    for mail in mails {
        let route = mail.remote.as_deref().map_or("by MX".to_owned(), |remote| {
            // The password is not for everybody who looks over a shoulder.
            format!("by {}", remote.rsplit_once('@').map_or(remote, |(_, host)| host))
        });
        push(&mut text, 2, &format!("{}  {:<26}{route}", mail.id, mail.recipient));
    }
    text
}

/// Everything that happened.
pub(crate) fn events(evidence: &Evidence, dns: &[String], began: Instant) -> String {
    let mut text = heading("What DNS was asked");
    for line in dns {
        push(&mut text, 2, line);
    }
    for record in &evidence.records {
        text.push_str(&conversations(record, began));
    }
    text.push_str(&heading("What the daemon wrote into faillog"));
    for failure in &evidence.failures {
        let kind = if failure.fatal { "fatal" } else { "temporary" };
        push(&mut text, 2, &format!("mail {}, {kind}:", failure.mail));
        for line in failure.message.lines() {
            push(&mut text, 4, line);
        }
    }
    for bounce in &evidence.bounces {
        let title = format!("The bounce, mail {} of the outbox, to {}", bounce.mail, bounce.recipient);
        text.push_str(&heading(&title));
        for line in bounce.data.lines() {
            push(&mut text, 2, line);
        }
    }
    text
}

fn conversations(record: &Record, began: Instant) -> String {
    let manners = &record.manners;
    let mut text = heading(&format!("{} ({}): {}", manners.name, record.ip(), manners.about));
    if record.conversations.is_empty() {
        push(&mut text, 2, "Nobody connected.");
    }
    for conversation in &record.conversations {
        let after = conversation.began.saturating_duration_since(began);
        push(&mut text, 2, &format!("connection after {:.2} s", after.as_secs_f64()));
        for line in &conversation.lines {
            push(&mut text, 4, line);
        }
    }
    text
}

/// The log of the daemon, which is of interest when something went wrong.
pub(crate) fn log(log: &str) -> String {
    let mut text = heading("The log of the daemon");
    text.push_str(log);
    text
}

/// What became of each mail, as a table.
pub(crate) fn summary(verdicts: &[Verdict], took: Duration) -> String {
    let mut text = heading("What became of it");
    push(&mut text, 2, &format!("{:<6}{:<26}{:<54}as expected", "mail", "recipient", "outcome"));
    for verdict in verdicts {
        let mail = verdict.mail.map_or(String::new(), |mail| mail.to_string());
        let expected = if verdict.problems.is_empty() { "yes" } else { "NO" };
        let Verdict { recipient, outcome, .. } = verdict;
        push(&mut text, 2, &format!("{mail:<6}{recipient:<26}{outcome:<54}{expected}"));
        for problem in &verdict.problems {
            push(&mut text, 8, &format!("! {problem}"));
        }
    }
    let failed = verdicts.iter().filter(|verdict| !verdict.problems.is_empty()).count();
    let end = if failed == 0 {
        "Everything came to the end that it should".to_owned()
    } else {
        format!("{failed} of these did NOT come to the end that they should")
    };
    let _ = writeln!(text, "\n{end}, in {:.1} s. Nothing is left behind.", took.as_secs_f64());
    text
}

fn heading(title: &str) -> String {
    let rule = "-".repeat(COLUMNS.saturating_sub(title.chars().count().saturating_add(4)));
    format!("\n-- {title} {rule}\n")
}

/// Adds a line, indented; what does not fit into the terminal goes on in the next one.
fn push(text: &mut String, indent: usize, line: &str) {
    let mut margin = indent;
    let mut rest = line;
    loop {
        let room = COLUMNS.saturating_sub(margin);
        let (now, later) = split(rest, room);
        if !now.is_empty() {
            text.extend(std::iter::repeat_n(' ', margin));
            text.push_str(now);
        }
        text.push('\n');
        if later.is_empty() {
            return;
        }
        rest = later;
        margin = indent.saturating_add(2);
    }
}

/// As many words as there is room for, and the others.
fn split(line: &str, room: usize) -> (&str, &str) {
    let Some((end, _)) = line.char_indices().nth(room) else { return (line, "") };
    let at = line.get(..end).and_then(|fitting| fitting.rfind(' ')).filter(|&at| at > 0).unwrap_or(end);
    let (now, later) = line.split_at(at);
    (now, later.trim_start())
}
