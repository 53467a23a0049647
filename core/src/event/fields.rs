//! What an event says, as names and values: for those who search logs, and for the parenthesis that ends a line about a mail.

use alloc::borrow::Cow;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use super::{Event, EventName, FailureKind, MailFacts};
use crate::attempt::{AttemptFacts, AttemptKind, Server};
use crate::course::Course;
use crate::one_line::OneLine;
use crate::outbox::MailId;
use crate::remote_id::remote_id;
use crate::schedule::Outlook;
use crate::time::Duration;
use crate::wording::{faillog_text, retry_line};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// A text, which may come from outside.
    Text(Cow<'a, str>),
    /// A number.
    Number(i64),
    /// A time in seconds.
    Seconds(f64),
}

impl fmt::Display for Value<'_> {
    /// Writes it on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => OneLine(text).fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Seconds(seconds) => seconds.fmt(f),
        }
    }
}

/// Names and values, in the order in which they are told.
#[derive(Debug, Default)]
pub struct Fields<'a>(Vec<(&'static str, Value<'a>)>);

impl<'a> Fields<'a> {
    /// Returns all of them.
    pub fn iter(&self) -> impl Iterator<Item = &(&'static str, Value<'a>)> {
        self.0.iter()
    }

    fn text(&mut self, name: &'static str, text: impl Into<Cow<'a, str>>) {
        self.0.push((name, Value::Text(text.into())));
    }

    fn number(&mut self, name: &'static str, number: impl TryInto<i64>) {
        self.0.push((name, Value::Number(number.try_into().unwrap_or(i64::MAX))));
    }

    /// Adds the line of the configuration that decides.
    fn why(&mut self, line: Option<u32>) {
        if let Some(line) = line {
            self.text("why", retry_line(line));
        }
    }

    fn seconds(&mut self, name: &'static str, duration: Duration) {
        self.0.push((name, Value::Seconds(rounded(duration))));
    }

    fn mail(&mut self, id: MailId, recipient: &'a str, facts: &'a MailFacts, course: Option<&'a Course>) {
        self.number("mail", id.0);
        self.text("sender", facts.shown_sender());
        self.text("recipient", recipient);
        if let Some(message_id) = facts.message_id(course) {
            self.text("message_id", message_id);
        }
        self.number("size", facts.data_octets);
    }

    fn attempt(&mut self, id: MailId, attempt: &AttemptFacts<'a>, facts: &'a MailFacts) {
        let course = attempt.course;
        self.mail(id, attempt.recipient.as_str(), facts, course);
        self.text("kind", attempt.kind.name());
        if let Some((reply, _)) = attempt.reply {
            self.number("code", reply.code().as_u16());
        }
        if let Some(status) = attempt.status {
            self.text("status", status.to_string());
        }
        if let Some(server) = attempt.server {
            self.server(server);
        }
        if let Some(course) = course {
            self.number("conn", course.conversation.connection.0);
        }
        if let Some(transaction) = course.and_then(|course| course.transaction.as_ref()) {
            self.number("n", transaction.number);
        }
        self.number("try", facts.attempts_before.saturating_add(1));
        let delays = facts.delays(course);
        for (name, delay) in ["a", "b", "c", "d"].into_iter().zip(delays) {
            if let Some(delay) = delay {
                self.seconds(name, delay);
            }
        }
    }

    fn server(&mut self, server: &'a Server) {
        self.text("host", server.host.to_string());
        self.text("address", server.address.ip().to_canonical().to_string());
        self.number("port", server.address.port());
        let Some(tls) = &server.tls else { return self.text("tls", "none") };
        self.text("tls", tls.version.to_string());
        if let Some(suite) = tls.cipher_suite {
            self.text("tls_cipher", suite);
        }
        if let Some(group) = tls.group {
            self.text("tls_group", group);
        }
        self.text("tls_peer", tls.proved.name());
    }
}

impl Event {
    /// Returns the word for what has happened.
    pub fn name(&self) -> EventName {
        match self {
            Self::Delivered { .. } => EventName::Delivered,
            Self::Failed { attempt, .. } if attempt.facts().kind == AttemptKind::Uncertain => {
                EventName::Uncertain
            }
            Self::Failed { kind: FailureKind::Permanent, .. } => EventName::Failed,
            Self::Failed {
                kind: FailureKind::Temporary | FailureKind::Early | FailureKind::Held, ..
            } => EventName::Deferred,
            Self::Bounced { expired: Some(_), .. } | Self::Dropped { expired: Some(_), .. } => {
                EventName::Expired
            }
            Self::Bounced { .. } => EventName::Bounced,
            Self::Dropped { .. } => EventName::Dropped,
            Self::Warned { .. } => EventName::Warned,
            Self::Relayed { .. } => EventName::Relayed,
            Self::Note { about, .. } => *about,
            Self::Yielded { .. } | Self::Sent(..) | Self::SentData(..) | Self::Received(..) => {
                EventName::Connection
            }
        }
    }

    /// Returns what becomes of a mail whose attempt has failed temporarily.
    fn outlook(&self) -> Option<Outlook> {
        match self {
            Self::Failed { kind: FailureKind::Permanent, .. } => None,
            Self::Failed { outlook, .. } => *outlook,
            Self::Delivered { .. }
            | Self::Bounced { .. }
            | Self::Dropped { .. }
            | Self::Warned { .. }
            | Self::Relayed { .. }
            | Self::Yielded { .. }
            | Self::Note { .. }
            | Self::Sent(..)
            | Self::SentData(..)
            | Self::Received(..) => None,
        }
    }

    /// Returns what it says, by names. The sentence is not among them.
    pub fn fields(&self) -> Fields<'_> {
        let mut fields = Fields::default();
        match self {
            Self::Delivered { id, attempt, facts } => {
                fields.attempt(*id, &attempt.facts(), facts);
                let reply = attempt.result.reply.text();
                if let Some(id) = remote_id(&reply) {
                    fields.text("remote_id", id.to_string());
                }
                fields.text("text", reply);
            }
            Self::Failed { id, attempt, facts, .. } => {
                fields.attempt(*id, &attempt.facts(), facts);
                fields.text("text", faillog_text(&attempt.result));
                if let Some(Outlook { next, line }) = self.outlook() {
                    fields.text("next", next.to_string());
                    fields.why(line);
                }
            }
            Self::Bounced { id, recipient, expired, facts, .. }
            | Self::Dropped { id, recipient, expired, facts } => {
                fields.mail(*id, recipient, facts, None);
                fields.number("try", facts.attempts_before);
                fields.why(*expired);
            }
            Self::Warned { id, recipient, facts, .. } | Self::Relayed { id, recipient, facts, .. } => {
                fields.mail(*id, recipient, facts, None);
                fields.number("try", facts.attempts_before.saturating_add(1));
            }
            Self::Yielded { .. }
            | Self::Note { .. }
            | Self::Sent(..)
            | Self::SentData(..)
            | Self::Received(..) => {}
        }
        fields
    }

    /// Returns the parenthesis that ends a line about a mail in the log, so that it is found by whatever is known of the mail; nothing
    /// for other events.
    pub fn parenthesis(&self) -> Option<String> {
        let (facts, course, server, is_attempt) = match self {
            Self::Delivered { attempt, facts, .. } => {
                (facts, attempt.course.as_deref(), Some(&attempt.result.server), true)
            }
            Self::Failed { attempt, facts, .. } => (facts, attempt.course.as_deref(), None, true),
            Self::Bounced { facts, .. }
            | Self::Dropped { facts, .. }
            | Self::Warned { facts, .. }
            | Self::Relayed { facts, .. } => (facts, None, None, false),
            Self::Yielded { .. }
            | Self::Note { .. }
            | Self::Sent(..)
            | Self::SentData(..)
            | Self::Received(..) => return None,
        };
        let server = server.map(|server| &**server);
        // What is told of mail that was given up is told after its last attempt.
        let is_over = matches!(self, Self::Bounced { .. } | Self::Dropped { .. });
        let tries = facts.attempts_before.saturating_add(u32::from(!is_over));
        let outlook = self.outlook();
        Some(Parenthesis { facts, course, server, is_attempt, tries, outlook }.to_string())
    }
}

/// What stands at the end of a line about a mail.
struct Parenthesis<'a> {
    facts: &'a MailFacts,
    course: Option<&'a Course>,
    server: Option<&'a Server>,
    /// False if the line tells of the end of a mail, and not of an attempt.
    is_attempt: bool,
    tries: u32,
    outlook: Option<Outlook>,
}

impl fmt::Display for Parenthesis<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { facts, course, server, is_attempt, tries, outlook } = self;
        write!(f, "(from=<{}>", OneLine(facts.shown_sender()))?;
        if let Some(message_id) = facts.message_id(*course) {
            write!(f, " message_id=<{}>", OneLine(message_id))?;
        }
        write!(f, " size={}", facts.data_octets)?;
        let delays = facts.delays(*course);
        if *is_attempt && delays.iter().any(Option::is_some) {
            let shown = |delay: &Option<Duration>| {
                delay.map_or_else(|| "-".into(), |delay| rounded(delay).to_string())
            };
            let shown: Vec<String> = delays.iter().map(shown).collect();
            write!(f, " delays={}", shown.join("/"))?;
        }
        if let Some(tls) = server.and_then(|server| server.tls) {
            let suite = tls.cipher_suite.unwrap_or("-");
            let group = tls.group.unwrap_or("-");
            write!(f, " tls={} {suite} {group} {}", tls.version, tls.proved.name())?;
        }
        if let Some(course) = course {
            write!(f, " conn={}", course.conversation.connection.0)?;
        }
        if let Some(transaction) = course.and_then(|course| course.transaction.as_ref()) {
            write!(f, " n={}", transaction.number)?;
        }
        write!(f, " try={tries}")?;
        if let Some(Outlook { next, line }) = outlook {
            write!(f, " next={next}")?;
            if let Some(line) = line {
                write!(f, " why={}", retry_line(*line))?;
            }
        }
        f.write_char(')')
    }
}

/// Returns a time in seconds: of less than ten seconds to two digits, as people write it.
fn rounded(duration: Duration) -> f64 {
    let millis = duration.as_millis();
    let step: u128 = match millis {
        0..100 => 1,
        100..1000 => 10,
        1000..10_000 => 100,
        _ => 1000,
    };
    let rounded = (millis + step / 2) / step * step;
    // Exact up to 285,000 years.
    rounded as f64 / 1000.0
}
