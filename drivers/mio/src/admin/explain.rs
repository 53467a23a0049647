//! The verbs `explain` and `probe`: what happens next, and what would become of a mail.
//!
//! The daemon is asked. If none can be, this process asks its own engine, which has no mail and remembers nothing of servers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use cmail_delivery::dkim::Signing;
use cmail_delivery::explanation::{Answer, Inquiry, Subject};
use cmail_delivery::outbox::{Cursor, MailId, Row};
use cmail_delivery::time::UnixMillis;
use serde_json::Value;

use super::clock::Span;
use super::daemon::{AskError, number, text};
use super::outlook::{Outlook, named_hop};
use super::printer::Printer;
use super::words::{ExplainWords, ProbeWords, Words};
use super::{Outcome, Tool, ToolError, complain, json, now, show};
use crate::config::{Config, Environment, SigningKeys};
use crate::engine;
use crate::explained;
use crate::selection::Selection;
use crate::store::QueuedMail;

/// How long the daemon may be silent: the longest that it waits for a server in one step, and for others before that.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Explains what happens next.
pub(super) fn explain(tool: &Tool, words: &ExplainWords) -> Result<Outcome, ToolError> {
    let subject = explained::subject(&words.what).map_err(|text| usage(&text))?;
    let mail = match subject {
        Subject::Mail(id) => match find(tool, id)? {
            Some(mail) => Some(mail),
            None => {
                complain(&format!(
                    "mail {id} is not in the outbox; cmail-admin-queue show {id} tells what became of it"
                ));
                return Ok(Outcome::Nothing);
            }
        },
        Subject::NextHop(_) => None,
    };
    let mut report = Report::new(tool);
    report.mail(mail.as_ref())?;
    let alone = |tool: &Tool| {
        let subject = match &mail {
            // This process knows of no mail.
            Some(mail) => named_hop(&mail.row).map(Subject::NextHop),
            None => Some(subject.clone()),
        };
        tell_of_no_memory(tool);
        subject.map(Inquiry::Explain)
    };
    report.ask(&["explain", &words.what], alone)?;
    report.end()
}

/// Finds out what would become of a mail.
pub(super) fn probe(tool: &Tool, words: &ProbeWords) -> Result<Outcome, ToolError> {
    let ProbeWords { what, sender, host, port } = words;
    let sender = sender.as_deref().unwrap_or(&tool.settings.bounces.from);
    let probe = explained::probe(what, sender, host, port).map_err(|text| usage(&text))?;
    let mut report = Report::new(tool);
    report.ask(&["probe", what, sender, host, port], |_| Some(Inquiry::Probe(Box::new(probe))))?;
    report.end()
}

fn usage(text: &str) -> ToolError {
    ToolError::Usage(Words::command().error(ErrorKind::ValueValidation, text))
}

fn tell_of_no_memory(tool: &Tool) {
    if !tool.options.json {
        complain("what a daemon remembers of servers, and what it does at present, is not known");
    }
}

/// Returns a mail of the outbox.
fn find(tool: &Tool, id: MailId) -> Result<Option<QueuedMail>, ToolError> {
    let selection = Selection { ids: vec![id.0], ..Selection::default() };
    Ok(tool.reader()?.mails(&selection, tool.standing(), Cursor::BeforeFirst)?.mails.pop())
}

/// Prints the records of an answer as they come.
struct Report<'a> {
    tool: &'a Tool,
    printer: Printer,
    /// When the first step of a probe came.
    began_ms: Option<i64>,
    is_bad: bool,
    has_candidates: bool,
    /// True if no daemon was asked, so that nothing is known of mail and connections.
    is_alone: bool,
}

impl<'a> Report<'a> {
    fn new(tool: &'a Tool) -> Self {
        Self {
            tool,
            printer: tool.printer(),
            began_ms: None,
            is_bad: false,
            has_candidates: false,
            is_alone: false,
        }
    }

    /// Prints what the database says of the mail that is asked about.
    fn mail(&mut self, mail: Option<&QueuedMail>) -> Result<(), ToolError> {
        let Some(mail) = mail else { return Ok(()) };
        let outlook = Outlook::read(self.tool, &self.tool.reader()?)?;
        if self.tool.options.json {
            return Ok(self.printer.record("mail", json::Mail::new(mail, &outlook))?);
        }
        self.printer.line(format_args!("mail {}", mail.row.id))?;
        if let Some(wishes) = show::wishes(&mail.row) {
            self.field("wishes", &wishes)?;
        }
        if let Some(signature) = self.signature(&mail.row)? {
            self.field("signature", &signature)?;
        }
        self.field("state", &show::state(self.tool, mail, &outlook))?;
        Ok(self.field("goes to", &outlook.route(&mail.row))?)
    }

    /// Says by which domain a mail will be signed, or why it will not; `None` if it is not to be signed.
    fn signature(&self, row: &Row) -> Result<Option<String>, ToolError> {
        let rules = &self.tool.settings.signing;
        let signing = Signing { rules: Arc::clone(rules), now: now() };
        let author = self.tool.reader()?.author_to_sign(row, &signing)?;
        Ok(author.map(|author| match author {
            Ok(author) => {
                let selectors: Vec<_> = rules.keys_of(&author).map(|key| key.selector.as_str()).collect();
                format!("of {author}, by the key of {}", selectors.join(" and that of "))
            }
            Err(why) => format!("none (DKIM): {why}"),
        }))
    }

    /// Asks the daemon, or if none can be asked, this process.
    fn ask(&mut self, words: &[&str], alone: impl FnOnce(&Tool) -> Option<Inquiry>) -> Result<(), ToolError> {
        let mut daemon = match self.tool.daemon(Some(PATIENCE)) {
            Ok(daemon) => daemon,
            Err(error @ AskError::TooLong(_) | error @ AskError::Unintelligible { .. }) => {
                return Err(error.into());
            }
            Err(error) => {
                complain(&format!("{error}; so this process finds it out by itself"));
                let inquiry = alone(self.tool);
                return inquiry.map_or(Ok(()), |inquiry| self.ask_alone(inquiry));
            }
        };
        daemon.ask(words)?;
        while let Some(answer) = daemon.answer()? {
            if self.tool.options.json {
                self.printer.raw(&answer.line)?;
                self.judge(&answer.fields);
            } else {
                self.record(text(&answer.fields, "/kind"), &answer.fields)?;
            }
            self.printer.flush()?;
        }
        Ok(())
    }

    fn ask_alone(&mut self, inquiry: Inquiry) -> Result<(), ToolError> {
        self.is_alone = true;
        let file = &self.tool.options.config;
        let config = Config::without_database(file, &Environment::of_this_host(), SigningKeys::Unread);
        let config = config.map_err(|rejection| {
            rejection.errors.iter().for_each(|error| complain(&error.to_string()));
            ToolError::NotDone(
                "the configuration has errors, so it is not known how to ask servers".to_owned(),
            )
        })?;
        engine::inquire(&config, inquiry, |answer: &Answer, at| {
            let mut result = Ok(());
            explained::tell(answer, at, &mut |kind, fields| {
                if result.is_ok() {
                    self.judge(&fields);
                    result = if self.tool.options.json {
                        self.printer.record(kind, fields)
                    } else {
                        self.record(kind, &fields)
                    };
                }
            });
            result.and_then(|()| self.printer.flush())
        })?;
        Ok(())
    }

    fn end(mut self) -> Result<Outcome, ToolError> {
        self.printer.flush()?;
        Ok(if self.is_bad { Outcome::Bad } else { Outcome::Done })
    }

    fn judge(&mut self, fields: &Value) {
        self.is_bad |= matches!(text(fields, "/verdict"), "failed" | "deferred" | "waits");
    }

    fn record(&mut self, kind: &str, fields: &Value) -> io::Result<()> {
        self.judge(fields);
        match kind {
            "explanation" => self.explanation(fields),
            "candidate" => self.candidate(fields),
            "step" => self.step(fields),
            "verdict" => self.printer.line(format_args!("{}", text(fields, "/text"))),
            _ => Ok(()),
        }
    }

    fn field(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.printer.line(format_args!("  {name:<12} {value}"))
    }

    fn explanation(&mut self, fields: &Value) -> io::Result<()> {
        if let Some(clause) = fields["mail_text"].as_str() {
            let until = self.until(fields, "/mail_until_ms");
            self.field("now", &format!("{clause}{until}"))?;
        }
        if !fields["next_hop"].is_string() {
            return Ok(());
        }
        self.printer.line(format_args!("{}", text(fields, "/next_hop")))?;
        if !self.is_alone {
            self.activity(fields)?;
        }
        self.other_decisions(fields)?;
        let mx = fields["mx"].as_array().map_or(&[][..], Vec::as_slice);
        if !mx.is_empty() {
            let shown =
                |record: &Value| format!("{} {}", number(record, "/preference"), text(record, "/host"));
            self.field("MX", &mx.iter().map(shown).collect::<Vec<_>>().join(", "))?;
        }
        if fields["mta_sts"].is_object() {
            self.policy(&fields["mta_sts"])?;
        }
        for problem in fields["host_problems"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.field("trouble", problem)?;
        }
        match fields["problem"].as_str() {
            Some(problem) => self.field("no server", problem),
            None => Ok(()),
        }
    }

    /// Tells which MTA-STS policy holds, from when on, and until when.
    fn policy(&mut self, fields: &Value) -> io::Result<()> {
        let problem = fields["problem"].as_str();
        let Some(mode) = fields["mode"].as_str() else {
            return self.field("MTA-STS", &format!("no policy: {}", problem.unwrap_or("nothing was found")));
        };
        let hosts = fields["hosts"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let hosts: Vec<&str> = hosts.collect();
        let hosts = if hosts.is_empty() { String::new() } else { format!(" for {}", hosts.join(", ")) };
        let fetched = self.tool.clock.show(UnixMillis(number(fields, "/fetched_ms")));
        let until = self.until(fields, "/until_ms");
        let id = text(fields, "/id");
        self.field("MTA-STS", &format!("{mode}{hosts}{until}; id {id}, fetched {fetched}"))?;
        match problem {
            Some(problem) => self.field("", &format!("nothing newer: {problem}")),
            None => Ok(()),
        }
    }

    /// Tells what lines decide besides of what names its line where it is shown.
    fn other_decisions(&mut self, fields: &Value) -> io::Result<()> {
        let is_alone = self.is_alone;
        let is_told = |key| !is_alone && matches!(key, "concurrency" | "ratelimit");
        for decision in decisions(fields) {
            let (key, value) = (text(decision, "/key"), text(decision, "/value"));
            if !is_told(key) || value == "none" {
                self.field(key, &format!("{value}, {}", line_of(decision)))?;
            }
        }
        Ok(())
    }

    /// Tells what is done, and within which limits.
    fn activity(&mut self, fields: &Value) -> io::Result<()> {
        let until = self.until(fields, "/until_ms");
        self.field("now", &format!("{}{until}", text(fields, "/text")))?;
        let mails = self.mails(fields);
        self.field("mail", &mails)?;
        for line in fields["held_by"].as_array().into_iter().flatten() {
            let (count, text) = (number(line, "/mails"), text(line, "/text"));
            self.field("held", &format!("{count} by {text}"))?;
        }
        let [used, most, all, all_most, configured] = [
            "connections",
            "connections_max",
            "all_connections",
            "all_connections_max",
            "destination_concurrency",
        ]
        .map(|name| number(fields, &format!("/{name}")));
        let fewer = if most < configured {
            format!(" ({configured} are configured, but it pushes back)")
        } else {
            String::new()
        };
        self.field(
            "connections",
            &format!("{used} of {most}{fewer}; {all} of {all_most} to all destinations"),
        )?;
        self.field("concurrency", &format!("{configured}, {}", decider(fields, "concurrency")))?;
        if let Some(limit) = fields["ratelimit"].as_str() {
            let limit = format!("{limit}, {}", decider(fields, "ratelimit"));
            let until = self.until(fields, "/ratelimit_until_ms");
            let next = if until.is_empty() {
                "; the next message may go now".to_owned()
            } else {
                format!("; the next message waits{until}")
            };
            self.field("ratelimit", &format!("{limit}{next}"))?;
        }
        Ok(())
    }

    /// Counts the mail of a destination.
    fn mails(&self, fields: &Value) -> String {
        let counts = [
            ("ready", "to be tried now"),
            ("claimed", "being sent"),
            ("waiting", "waiting"),
            ("held", "held"),
            ("given_up", "to be bounced"),
            ("set_aside", "set aside"),
        ];
        let counts = counts.map(|(name, shown)| (number(fields, &format!("/{name}")), shown));
        let shown: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, shown)| format!("{count} {shown}"))
            .collect();
        let next = match fields["next_ms"].as_i64() {
            Some(_) => format!("; the next one waits{}", self.until(fields, "/next_ms")),
            None => String::new(),
        };
        if shown.is_empty() { "none".to_owned() } else { format!("{}{next}", shown.join(", ")) }
    }

    /// Says until when something lasts, if that is known.
    fn until(&self, fields: &Value, pointer: &str) -> String {
        let Some(until_ms) = fields.pointer(pointer).and_then(Value::as_i64) else { return String::new() };
        let left = Span((until_ms - UnixMillis::from(now()).0) / 1000);
        format!(" until {} ({left})", self.tool.clock.show(UnixMillis(until_ms)))
    }

    fn candidate(&mut self, fields: &Value) -> io::Result<()> {
        if !std::mem::replace(&mut self.has_candidates, true) {
            self.printer.line(format_args!("  servers, in the order in which they are tried"))?;
        }
        let [place, port, used, most] =
            ["/place", "/port", "/connections", "/connections_max"].map(|at| number(fields, at));
        let tls = match text(fields, "/tls") {
            "plain" => "without TLS",
            "starttls" => "STARTTLS",
            _ => "TLS from the start",
        };
        let needs = match fields["needs"].as_str() {
            None => "",
            Some("no_tls") => ", TLS is never tried",
            Some("encryption") => ", nothing in plain text",
            Some("verified") => ", the certificate must be verified",
            Some("pinned") => ", the key must be a pinned one",
            Some(_) => ", the certificate must match TLSA records",
        };
        let by = match fields["needs_by"].as_str() {
            None => "",
            Some("tls_policy") => " (tls_policy)",
            // A host with records needs no less than that, whether they prove anything or not.
            Some("dane" | "dane_insecure_mx") if fields["needs"] == "encryption" => {
                " (DANE: its TLSA records cannot prove who it is)"
            }
            Some("dane") => " (DANE)",
            Some("dane_insecure_mx") => " (DANE, but DNSSEC does not vouch for the MX records that name it)",
            Some("mta_sts") => " (MTA-STS)",
            Some(_) => " (REQUIRETLS)",
        };
        let used = if self.is_alone { String::new() } else { format!(", {used} of {most} connections") };
        let (host, address) = (text(fields, "/host"), text(fields, "/address"));
        self.printer.line(format_args!("  {place:>3}  {host} [{address}]:{port}, {tls}{needs}{by}{used}"))?;
        let [ports, most] = ["ports", "host_concurrency"].map(|key| decider(fields, key));
        self.printer.line(format_args!("       ports {ports}; host_concurrency {most}"))?;
        if let Some(trouble) = fields["trouble"].as_str() {
            let since = self.tool.clock.show(UnixMillis(number(fields, "/trouble_since_ms")));
            let until = self.until(fields, "/trouble_until_ms");
            self.printer
                .line(format_args!("       in trouble since {since}: {trouble}; tried last{until}"))?;
        }
        if fields["is_slow"].as_bool() == Some(true) {
            self.printer
                .line(format_args!("       was silent while others needed its connections; tried last"))?;
        }
        if fields["no_pipelining"].as_bool() == Some(true) {
            self.printer.line(format_args!(
                "       gets one command at a time, because it cannot cope with several"
            ))?;
        }
        Ok(())
    }

    fn step(&mut self, fields: &Value) -> io::Result<()> {
        let at_ms = number(fields, "/at_ms");
        let since_ms = at_ms - *self.began_ms.get_or_insert(at_ms);
        let sign = match text(fields, "/said") {
            "by_us" => ">",
            "by_server" => "<",
            _ => "-",
        };
        for line in text(fields, "/text").lines() {
            self.printer.line(format_args!("{:>4}.{:03} {sign} {line}", since_ms / 1000, since_ms % 1000))?;
        }
        Ok(())
    }
}

/// Returns what lines decide.
fn decisions(fields: &Value) -> impl Iterator<Item = &Value> {
    fields["decided"].as_array().into_iter().flatten()
}

/// Says which line decides a key.
fn decider(fields: &Value, key: &str) -> String {
    decisions(fields)
        .find(|decision| text(decision, "/key") == key)
        .map_or_else(|| "global".to_owned(), line_of)
}

fn line_of(decision: &Value) -> String {
    let (line, destination) = (number(decision, "/line"), text(decision, "/destination"));
    format!("by line {line} of the configuration (destination {destination})")
}
