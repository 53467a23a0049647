//! Commands come only in legal order, and not before the reply to the one before, unless PIPELINING is offered
//! (RFC 2920); and a message is sent only while no reply is owed.

use std::collections::{BTreeMap, VecDeque};

use super::Checker;
use crate::facts::{Fact, Link, Scene, Verb};

/// Longest command line in octets, with its CRLF and what extensions add (RFC 5321 section 4.5.3.1.4).
const LINE_LIMIT: usize = 1024;

/// The state of a command that begins something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Unsaid,
    Awaited,
    Accepted,
    Refused,
}

/// The state of the message of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Content {
    #[default]
    None,
    /// DATA, whatever the reply is.
    Data,
    /// All of it was sent.
    Ended,
}

/// A transaction, from MAIL to RSET or to the end of its message.
#[derive(Clone, Copy, Debug, Default)]
struct Transaction {
    mail: Standing,
    /// RCPTs that are not replied to yet, and those that were accepted.
    asked: u32,
    accepted: u32,
    content: Content,
}

/// A conversation.
#[derive(Debug, Default)]
struct Talk {
    /// The commands that are not replied to yet, and the transaction of each.
    awaited: VecDeque<(Verb, u32)>,
    was_greeted: bool,
    /// True if EHLO or HELO was accepted since the connection, or TLS, began.
    is_introduced: bool,
    /// The extensions that are offered.
    offered: Vec<String>,
    /// The number of the transaction that was begun last.
    number: u32,
    transaction: Transaction,
    /// True if the next line goes on with an authentication.
    is_challenged: bool,
    /// True if a message was refused before it was sent whole. Another reply may follow or not, so QUIT need not wait.
    is_refused_early: bool,
    has_quit: bool,
}

/// The checker of this module's invariant.
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
                    // RFC 3207 section 4.2: earlier knowledge no longer counts.
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
            Fact::FinalDot { link, octets, .. } => {
                let talk = self.talks.get_mut(&link);
                return talk
                    .map_or(Ok(()), |talk| talk.end_message(octets))
                    .map_err(|e| format!("[{link}] {e}"));
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
        if self.has_quit {
            return Err("a command after QUIT".into());
        }
        if line.len() + 2 > LINE_LIMIT || line.iter().any(u8::is_ascii_control) {
            return Err("an overlong line or a control character".into());
        }
        self.check_batch(verb)?;
        if !self.is_legal(verb, line) {
            return Err("a command where it is not allowed".into());
        }
        self.awaited.push_back((verb, self.number + u32::from(verb == Verb::Mail)));
        self.follow(verb);
        Ok(())
    }

    /// Fails if a command may not be sent before the replies that are still owed.
    fn check_batch(&self, verb: Verb) -> Result<(), String> {
        let Some((awaited, _)) = self.awaited.back() else { return Ok(()) };
        if verb == Verb::Quit && *awaited == Verb::FinalDot && self.is_refused_early {
            return Ok(());
        }
        // RFC 2920 section 3: only where it is offered, and in the EHLO that counts.
        if !self.offers("PIPELINING") {
            return Err(format!("a command before the reply to {awaited:?}"));
        }
        match self.awaited.iter().find(|(verb, _)| ends_batch(*verb)) {
            Some((verb, _)) => Err(format!("a command in one batch with {verb:?}, which has to be its last")),
            None => Ok(()),
        }
    }

    fn is_legal(&self, verb: Verb, line: &[u8]) -> bool {
        let Transaction { mail, asked, accepted, content } = self.transaction;
        let is_idle = matches!(mail, Standing::Unsaid | Standing::Refused) || content == Content::Ended;
        let is_open = matches!(mail, Standing::Awaited | Standing::Accepted);
        // As far as is known, the message must have a recipient.
        let has_recipient = is_open && asked + accepted > 0;
        match verb {
            Verb::Ehlo | Verb::Helo => is_idle,
            Verb::StartTls => self.is_introduced && is_idle && self.offers("STARTTLS"),
            Verb::Auth => self.is_introduced && is_idle && self.offers_mechanism(line),
            Verb::AuthLine => self.is_challenged,
            Verb::Noop | Verb::Rset => self.is_introduced,
            Verb::Mail => self.is_introduced && is_idle && self.offers_parameters(line),
            Verb::Rcpt => is_open && content == Content::None && self.offers_parameters(line),
            Verb::Data => has_recipient && content == Content::None,
            Verb::Quit => true,
            Verb::Greeting | Verb::FinalDot | Verb::Unknown => false,
        }
    }

    /// Updates the state after a legal command.
    fn follow(&mut self, verb: Verb) {
        match verb {
            Verb::Mail => {
                self.number += 1;
                self.transaction = Transaction { mail: Standing::Awaited, ..Transaction::default() };
            }
            Verb::Rcpt => self.transaction.asked += 1,
            Verb::Data => self.transaction.content = Content::Data,
            Verb::Rset => {
                self.number += 1;
                self.transaction = Transaction::default();
            }
            Verb::Quit => self.has_quit = true,
            _ => {}
        }
    }

    /// Handles the end of a message, the final dot.
    fn end_message(&mut self, octets: u64) -> Result<(), String> {
        let content = std::mem::replace(&mut self.transaction.content, Content::Ended);
        let accepted = self.transaction.accepted;
        if content == Content::Data {
            if let Some((awaited, _)) = self.awaited.front() {
                return Err(format!("a message before the reply to {awaited:?}"));
            }
            self.awaited.push_back((Verb::FinalDot, self.number));
            // RFC 2920 section 3.1: a client that has sent DATA in advance sends a lone dot.
            if accepted == 0 && octets > 0 {
                return Err(format!("a message of {octets} octets, though no recipient was accepted"));
            }
        }
        Ok(())
    }

    fn hear(&mut self, to: Verb, code: u16, text: &[u8]) {
        let number = match self.awaited.front() {
            Some(&(verb, number)) if verb == to => {
                self.awaited.pop_front();
                number
            }
            Some(_) | None => self.number,
        };
        let is_success = code / 100 == 2;
        self.is_challenged = matches!(to, Verb::Auth | Verb::AuthLine) && code == 334;
        match to {
            Verb::Greeting => self.was_greeted = true,
            Verb::Unknown => self.is_refused_early |= code / 100 == 5,
            Verb::Ehlo | Verb::Helo if is_success => {
                self.is_introduced = true;
                let text = String::from_utf8_lossy(text).to_ascii_uppercase();
                let keyword = |line: &str| line.get(4..).unwrap_or_default().trim_end().to_owned();
                // Only the reply to EHLO lists extensions (RFC 5321 section 4.1.1.1).
                let count = if to == Verb::Ehlo { usize::MAX } else { 0 };
                self.offered = text.lines().skip(1).take(count).map(keyword).collect();
            }
            _ if number == self.number => self.hear_of_transaction(to, code),
            _ => {}
        }
    }

    /// Handles the reply to a command of the latest transaction.
    fn hear_of_transaction(&mut self, to: Verb, code: u16) {
        let is_success = code / 100 == 2;
        let transaction = &mut self.transaction;
        match to {
            Verb::Mail if transaction.mail == Standing::Awaited => {
                transaction.mail = if is_success { Standing::Accepted } else { Standing::Refused };
            }
            Verb::Rcpt => {
                transaction.asked = transaction.asked.saturating_sub(1);
                transaction.accepted += u32::from(is_success);
            }
            _ => {}
        }
    }

    fn offers(&self, name: &str) -> bool {
        self.offered.iter().any(|line| line.split(' ').next() == Some(name))
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
        // A parameter may contain a bracket, too.
        let parameters = line.split_once("> ").map_or("", |(_, parameters)| parameters);
        parameters.split_ascii_whitespace().all(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            self.offers(match name {
                "BODY" => "8BITMIME",
                "RET" | "ENVID" | "NOTIFY" | "ORCPT" => "DSN",
                other => other,
            })
        })
    }
}

/// Returns whether no command may be sent before the reply to this one (RFC 2920 section 3.1; RFC 3207 section 4; RFC 4954
/// section 4).
fn ends_batch(verb: Verb) -> bool {
    match verb {
        Verb::Greeting
        | Verb::Ehlo
        | Verb::Helo
        | Verb::StartTls
        | Verb::Auth
        | Verb::AuthLine
        | Verb::Noop
        | Verb::Data
        | Verb::Quit
        | Verb::Unknown => true,
        Verb::Rset | Verb::Mail | Verb::Rcpt | Verb::FinalDot => false,
    }
}

#[cfg(test)]
mod tests;
