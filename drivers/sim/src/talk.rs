//! The observed part of one conversation: lines for the transcript, and the messages that the server has accepted.

use std::collections::VecDeque;

use crate::facts::Verb;
use crate::scram::Scram;
use crate::wire::{Sight, Wire};

/// A conversation.
#[derive(Debug)]
pub(crate) struct Talk {
    wire: Wire,
    /// The transactions that have begun and that the server has not decided, the oldest first.
    transactions: VecDeque<Transaction>,
    begun: u32,
    /// RCPTs that are not replied to yet, each with its transaction and recipient.
    asked: VecDeque<(u32, String)>,
    /// The number of messages that the server has decided.
    decided: u32,
    scram: Scram,
}

#[derive(Debug)]
struct Transaction {
    number: u32,
    recipients: Vec<String>,
    /// The message, once all of it is sent.
    message: Option<Vec<u8>>,
}

/// A message that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Its number among those of the connection, from 1.
    pub(crate) number: u32,
    pub(crate) recipients: Vec<String>,
    pub(crate) data: Vec<u8>,
}

impl Talk {
    pub(crate) fn new() -> Self {
        Self {
            wire: Wire::with_messages(),
            transactions: VecDeque::new(),
            begun: 0,
            asked: VecDeque::new(),
            decided: 0,
            scram: Scram::default(),
        }
    }

    pub(crate) fn tls_established(&mut self) {
        self.wire.tls_established();
    }

    /// Returns the server's octets, with its proof filled in.
    pub(super) fn filled_in(&mut self, octets: &[u8], password: &str) -> Result<Vec<u8>, String> {
        match str::from_utf8(octets) {
            Ok(text) if text.contains("{scram-") => {
                let lines = text.split_inclusive('\n');
                let lines: Result<Vec<_>, _> =
                    lines.map(|line| self.scram.filled_in(line, password)).collect();
                Ok(lines?.concat().into_bytes())
            }
            Ok(_) | Err(_) => Ok(octets.to_vec()),
        }
    }

    /// Returns the octets of an unfinished message.
    pub(super) fn data_octets(&self) -> Option<usize> {
        self.wire.unfinished().map(|octets| usize::try_from(octets).unwrap_or(usize::MAX))
    }

    /// Returns the lines for these octets of the client.
    pub(crate) fn sent(&mut self, octets: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for sight in self.wire.sent(octets) {
            match sight {
                Sight::Command(verb, line) => {
                    lines.push(format!("C: {}", masked(verb, &line)));
                    self.take_command(verb, &line);
                }
                Sight::FinalDot { message, .. } => {
                    // The dot and its line end count.
                    lines.push(format!("C. {} octets, final dot", message.len() + 3));
                    let message = unstuffed(&message);
                    match self.transactions.back_mut().filter(|transaction| transaction.message.is_none()) {
                        Some(transaction) => transaction.message = Some(message),
                        // An end without a beginning is decided, too.
                        None => self.begin(Some(message)),
                    }
                }
                Sight::Reply(..) => {}
            }
        }
        lines
    }

    /// Returns what the end of the connection leaves unfinished: a message without its end.
    pub(crate) fn end(&mut self) -> Option<String> {
        self.wire.unfinished().map(|octets| format!("C. {octets} octets, no final dot"))
    }

    /// Processes octets of the server. Returns the messages that it accepts by them.
    pub(crate) fn received(&mut self, octets: &[u8]) -> Vec<Accepted> {
        let mut accepted = Vec::new();
        for sight in self.wire.received(octets) {
            let Sight::Reply(to, code, _) = sight else { continue };
            let is_success = code / 100 == 2;
            if to == Verb::Rcpt
                && let Some((number, recipient)) = self.asked.pop_front()
                && let Some(transaction) = self.transactions.iter_mut().find(|other| other.number == number)
                && is_success
            {
                transaction.recipients.push(recipient);
            } else if to == Verb::FinalDot && !is_doubtful(code) {
                accepted.extend(self.decide().filter(|_| is_success));
            } else if to == Verb::Quit {
                // The server may still have taken what it refused out of step.
                accepted.extend(self.decide().filter(|_| is_success && code != 221));
            }
        }
        accepted
    }

    fn take_command(&mut self, verb: Verb, line: &[u8]) {
        if let Verb::Mail | Verb::Rset = verb {
            self.transactions.retain(|transaction| transaction.message.is_some());
        }
        if verb == Verb::Mail {
            self.begin(None);
        } else if verb == Verb::Rcpt {
            self.asked.push_back((self.begun, path_of(line)));
        } else if let Verb::Auth | Verb::AuthLine = verb {
            let words = String::from_utf8_lossy(line);
            self.scram.said(words.rsplit(' ').next().unwrap_or_default());
        }
    }

    fn begin(&mut self, message: Option<Vec<u8>>) {
        self.begun += 1;
        self.transactions.push_back(Transaction { number: self.begun, recipients: Vec::new(), message });
    }

    /// Decides the oldest message that was sent.
    fn decide(&mut self) -> Option<Accepted> {
        self.decided += 1;
        let position = self.transactions.iter().position(|transaction| transaction.message.is_some())?;
        let Transaction { recipients, message, .. } = self.transactions.remove(position)?;
        Some(Accepted { number: self.decided, recipients, data: message.unwrap_or_default() })
    }
}

/// Returns whether a refusal of a message may answer one of its lines (RFC 5321 section 4.3.2).
fn is_doubtful(code: u16) -> bool {
    (500..=504).contains(&code)
}

/// Returns the message without doubled dots.
fn unstuffed(message: &[u8]) -> Vec<u8> {
    message
        .split_inclusive(|&octet| octet == b'\n')
        .flat_map(|line| line.strip_prefix(b".").unwrap_or(line))
        .copied()
        .collect()
}

fn masked(verb: Verb, line: &[u8]) -> String {
    let text = line.escape_ascii().to_string();
    if verb == Verb::AuthLine && text != "*" {
        return "***".to_owned();
    }
    let words: Vec<&str> = text.splitn(3, ' ').collect();
    match words.as_slice() {
        [command, mechanism, _] if verb == Verb::Auth => format!("{command} {mechanism} ***"),
        _ => text,
    }
}

fn path_of(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let begin = text.find('<').map_or(0, |position| position + 1);
    // Parameters may have one, too.
    let end = text.rfind("> ").or(text.rfind('>')).unwrap_or(text.len());
    text.get(begin..end).unwrap_or_default().to_owned()
}
