//! What is seen of one conversation: lines for the transcript, and what the server has accepted.

use super::scram::Scram;
use crate::facts::Verb;
use crate::wire::{Sight, Wire};

/// A conversation.
#[derive(Debug)]
pub(super) struct Talk {
    wire: Wire,
    /// Mail data, while it is being sent.
    data: Option<Vec<u8>>,
    asked: Option<String>,
    recipients: Vec<String>,
    scram: Scram,
}

/// A message that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) recipients: Vec<String>,
    pub(super) data: Vec<u8>,
}

impl Talk {
    pub(super) fn new() -> Self {
        Self { wire: Wire::new(), data: None, asked: None, recipients: Vec::new(), scram: Scram::default() }
    }

    pub(super) fn tls_established(&mut self) {
        self.wire.tls_established();
    }

    /// The server's octets, with what it has to prove filled in.
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

    /// How many octets of a message are sent that has not come to its end.
    pub(super) fn data_octets(&self) -> Option<usize> {
        self.data.as_ref().map(Vec::len)
    }

    /// The lines that these octets of the client make.
    pub(super) fn sent(&mut self, octets: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(data) = &mut self.data {
            data.extend_from_slice(octets);
        }
        for sight in self.wire.sent(octets) {
            match sight {
                Sight::Command(verb, line) => {
                    if verb == Verb::Rcpt {
                        self.asked = Some(path_of(&line));
                    } else if verb == Verb::Mail {
                        self.recipients.clear();
                    } else if matches!(verb, Verb::Auth | Verb::AuthLine) {
                        let words = String::from_utf8_lossy(&line);
                        self.scram.said(words.rsplit(' ').next().unwrap_or_default());
                    }
                    lines.push(format!("C: {}", masked(verb, &line)));
                }
                Sight::FinalDot => {
                    let octets = self.data.as_ref().map_or(0, Vec::len);
                    lines.push(format!("C. {octets} octets, final dot"));
                }
                Sight::Reply(..) => {}
            }
        }
        lines
    }

    /// What is left when the connection is over: mail data without its end.
    pub(super) fn end(&mut self) -> Option<String> {
        let data = self.data.take()?;
        let is_ended = data.ends_with(b"\r\n.\r\n") || data == b".\r\n";
        (!is_ended).then(|| format!("C. {} octets, no final dot", data.len()))
    }

    /// Takes in what the server says; the message that it accepts thereby.
    pub(super) fn received(&mut self, octets: &[u8]) -> Option<Accepted> {
        let mut accepted = None;
        for sight in self.wire.received(octets) {
            let Sight::Reply(to, code, _) = sight else { continue };
            match (to, code / 100) {
                (Verb::Rcpt, 2) => self.recipients.extend(self.asked.take()),
                (Verb::Data, 3) => self.data = Some(Vec::new()),
                (Verb::FinalDot, class) => {
                    let data = self.data.take().unwrap_or_default();
                    let recipients = std::mem::take(&mut self.recipients);
                    if class == 2 {
                        accepted = Some(Accepted { recipients, data: unstuffed(&data) });
                    }
                }
                _ => {}
            }
        }
        accepted
    }
}

/// The message without its final dot and as it was before the dots were doubled.
fn unstuffed(data: &[u8]) -> Vec<u8> {
    let message = data.strip_suffix(b".\r\n").unwrap_or(data);
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
    let end = text.rfind('>').unwrap_or(text.len());
    text.get(begin..end).unwrap_or_default().to_owned()
}
