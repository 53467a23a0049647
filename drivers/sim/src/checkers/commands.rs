//! Commands come only in legal order, and never before the reply to the one before: no extension that would allow it
//! is used.

use std::collections::BTreeMap;

use super::Checker;
use crate::facts::{Fact, Link, Scene, Verb};

/// Longest command line in octets, with its CRLF and what extensions add (RFC 5321 section 4.5.3.1.4).
const LINE_LIMIT: usize = 1024;

/// How far a transaction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Transaction {
    #[default]
    None,
    Begun,
    HasRecipient,
    Data,
}

/// A conversation.
#[derive(Debug, Default)]
struct Talk {
    /// What was said and not yet replied to.
    awaited: Option<Verb>,
    was_greeted: bool,
    /// Whether EHLO or HELO was accepted since the connection, or TLS, began.
    is_introduced: bool,
    /// The extensions that are offered.
    offered: Vec<String>,
    transaction: Transaction,
    /// The last code of an authentication.
    challenged: bool,
    has_quit: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Commands {
    talks: BTreeMap<Link, Talk>,
}

impl Checker for Commands {
    fn name(&self) -> &'static str {
        "commands are in order"
    }

    fn see(&mut self, _: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Connecting { link, .. } => {
                self.talks.insert(link, Talk::default());
            }
            Fact::Gone { link, .. } => {
                self.talks.remove(&link);
            }
            Fact::Stopped { .. } => self.talks.clear(),
            Fact::TlsEstablished { link, .. } => {
                if let Some(talk) = self.talks.get_mut(&link) {
                    // RFC 3207 section 4.2: what was known before does not count any more.
                    talk.is_introduced = false;
                    talk.offered.clear();
                }
            }
            Fact::Command { link, verb, line, .. } => {
                let Some(talk) = self.talks.get_mut(&link) else {
                    return Err(format!("[{link}] something is said on a connection that is over"));
                };
                talk.say(verb, line).map_err(|error| format!("[{link}] {error}: {}", line.escape_ascii()))?;
            }
            Fact::FinalDot { link, .. } => {
                if let Some(talk) = self.talks.get_mut(&link) {
                    talk.awaited = Some(Verb::FinalDot);
                    talk.transaction = Transaction::None;
                }
            }
            Fact::Reply { link, to, code, text } => {
                if let Some(talk) = self.talks.get_mut(&link) {
                    talk.hear(to, code, text);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Talk {
    fn say(&mut self, verb: Verb, line: &[u8]) -> Result<(), String> {
        if !self.was_greeted {
            return Err("a command before the greeting".into());
        }
        if let Some(awaited) = self.awaited {
            return Err(format!("a command before the reply to {awaited:?}"));
        }
        if self.has_quit {
            return Err("a command after QUIT".into());
        }
        if line.len() + 2 > LINE_LIMIT || line.iter().any(u8::is_ascii_control) {
            return Err("an overlong line or a control character".into());
        }
        self.awaited = Some(verb);
        let offers = |name: &str| self.offered.iter().any(|line| line.split(' ').next() == Some(name));
        let is_idle = self.transaction == Transaction::None;
        let is_legal = match verb {
            Verb::Ehlo | Verb::Helo => is_idle,
            Verb::StartTls => self.is_introduced && is_idle && offers("STARTTLS"),
            Verb::Auth => self.is_introduced && is_idle && self.offers_mechanism(line),
            Verb::AuthLine => self.challenged,
            Verb::Noop => self.is_introduced,
            Verb::Rset => {
                self.transaction = Transaction::None;
                self.is_introduced
            }
            Verb::Mail => self.is_introduced && is_idle && self.offers_parameters(line),
            Verb::Rcpt => matches!(self.transaction, Transaction::Begun | Transaction::HasRecipient),
            Verb::Data => self.transaction == Transaction::HasRecipient,
            Verb::Quit => {
                self.has_quit = true;
                true
            }
            Verb::Greeting | Verb::FinalDot | Verb::Unknown => false,
        };
        if is_legal { Ok(()) } else { Err("a command where it is not allowed".into()) }
    }

    fn hear(&mut self, to: Verb, code: u16, text: &[u8]) {
        if self.awaited == Some(to) {
            self.awaited = None;
        }
        let is_success = code / 100 == 2;
        self.challenged = matches!(to, Verb::Auth | Verb::AuthLine) && code == 334;
        match to {
            Verb::Greeting => self.was_greeted = true,
            Verb::Ehlo | Verb::Helo if is_success => {
                self.is_introduced = true;
                let text = String::from_utf8_lossy(text).to_ascii_uppercase();
                let keyword = |line: &str| line.get(4..).unwrap_or_default().trim_end().to_owned();
                self.offered = text.lines().skip(1).map(keyword).collect();
            }
            Verb::Mail if is_success => self.transaction = Transaction::Begun,
            Verb::Rcpt if is_success => self.transaction = Transaction::HasRecipient,
            Verb::Data if code / 100 == 3 => self.transaction = Transaction::Data,
            Verb::FinalDot | Verb::Rset => self.transaction = Transaction::None,
            _ => {}
        }
    }

    fn offers_mechanism(&self, line: &[u8]) -> bool {
        let line = String::from_utf8_lossy(line).to_ascii_uppercase();
        let mechanism = line.split(' ').nth(1).unwrap_or_default();
        let offers = |line: &String| {
            line.split([' ', '=']).next() == Some("AUTH")
                && line.split([' ', '=']).any(|word| word == mechanism)
        };
        self.offered.iter().any(offers)
    }

    fn offers_parameters(&self, line: &[u8]) -> bool {
        let line = String::from_utf8_lossy(line).to_ascii_uppercase();
        let offers = |name: &str| self.offered.iter().any(|line| line.split(' ').next() == Some(name));
        let parameters = line.rsplit_once('>').map_or("", |(_, parameters)| parameters);
        parameters.split_ascii_whitespace().all(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            offers(match name {
                "BODY" => "8BITMIME",
                other => other,
            })
        })
    }
}
