//! What a search for candidates has met before a connection, for the top of its transcript: the answers of name servers, and the
//! candidates that were passed over.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use super::DeliveryContext;
use crate::attempt::Tried;
use crate::course::Transcripts;
use crate::next_hop::{Host, NextHop};
use crate::one_line::OneLine;
use crate::resolver::{Answer, MxAnswer, Security};
use crate::route::Candidate;
use crate::shown::truncated;
use crate::sts::{Finding, LocalFindTrouble};
use crate::wording::ServerName;

/// Most octets that stand at the top of a transcript: a quarter of what is kept of the conversation.
const NOTES_LIMIT_OCTETS: usize = 2 * 1024;

/// Most octets of one note: room for the addresses of a large host.
const NOTE_LIMIT_OCTETS: usize = 512;

/// Takes the place of the notes that do not fit.
const REST: &str = "* more is left out\n";

/// The notes of one search, one a line.
#[derive(Debug, Default)]
pub(super) struct SearchNotes {
    text: String,
}

impl SearchNotes {
    /// Notes the answer of name servers about a next hop, or about the host that they were asked for.
    pub(super) fn note_answer(
        &mut self,
        cx: &DeliveryContext<'_>,
        next_hop: &NextHop,
        host: Option<&Host>,
        answer: &Answer,
    ) {
        if !is_wanted(cx) {
            return;
        }
        let host = || host.map_or_else(|| next_hop.to_string(), ToString::to_string);
        match answer {
            Answer::Mx(Ok(answer)) => match &answer.value {
                MxAnswer::Records(records) => {
                    let records: Vec<String> = records
                        .iter()
                        .map(|(preference, host)| alloc::format!("{preference} {host}"))
                        .collect();
                    self.note(format_args!("MX of {next_hop}: {}", records.join(", ")));
                }
                MxAnswer::NullMx => self.note(format_args!("MX of {next_hop}: takes no mail")),
                MxAnswer::NoRecords => self.note(format_args!("MX of {next_hop}: none")),
            },
            Answer::Mx(Err(error)) => self.note(format_args!("MX of {next_hop}: {error}")),
            Answer::Addresses(Ok(addresses)) => {
                let addresses: Vec<String> = addresses.value.iter().map(ToString::to_string).collect();
                self.note(format_args!("addresses of {}: {}", host(), addresses.join(", ")));
            }
            Answer::Addresses(Err(error)) => self.note(format_args!("addresses of {}: {error}", host())),
            Answer::Tlsa(Ok(records)) => {
                let list: Vec<String> = records.value.iter().map(ToString::to_string).collect();
                let list = if list.is_empty() { "none".to_string() } else { list.join(", ") };
                let vouched = match records.security {
                    Security::Secure => "secured by DNSSEC",
                    Security::Insecure => "not secured by DNSSEC",
                    Security::Unknown => "from a name server that does not validate",
                };
                self.note(format_args!("TLSA of {}: {list} ({vouched})", host()));
            }
            Answer::Tlsa(Err(error)) => self.note(format_args!("TLSA of {}: {error}", host())),
            Answer::Alias(Err(error)) => self.note(format_args!("CNAME of {}: {error}", host())),
            // What it comes to is seen from what is asked for next.
            Answer::Alias(Ok(_)) => {}
            // Not asked for.
            Answer::Texts(_) => {}
        }
    }

    /// Notes what was found of the MTA-STS policy of the domain.
    pub(super) fn note_policy(
        &mut self,
        cx: &DeliveryContext<'_>,
        found: &Result<Finding, LocalFindTrouble>,
    ) {
        if !is_wanted(cx) {
            return;
        }
        match found {
            Ok(finding) => self.note(format_args!("{finding}")),
            Err(trouble) => self.note(format_args!("{trouble}")),
        }
    }

    /// Notes that a candidate is tried after all others, and why.
    pub(super) fn note_put_off(&mut self, cx: &DeliveryContext<'_>, candidate: &Candidate) {
        if is_wanted(cx) {
            let server = ServerName(&candidate.host, candidate.remote);
            match cx.reachability.trouble_with(candidate, cx.now) {
                Some(known) => self.note(format_args!("put off: {server}: {}", known.setback)),
                None => {
                    self.note(format_args!("put off: {server}: was silent while others needed its place"))
                }
            }
        }
    }

    /// Returns the top of the transcript of a connection that is made after these candidates were tried; nothing if none is wanted.
    pub(super) fn top<'a>(
        &self,
        cx: &DeliveryContext<'_>,
        tried: impl Iterator<Item = &'a Tried>,
    ) -> Option<Box<str>> {
        if !is_wanted(cx) {
            return None;
        }
        let mut all = Self { text: self.text.clone() };
        tried.for_each(|tried| all.note(format_args!("passed over: {tried}")));
        Some(all.text.into())
    }

    fn note(&mut self, note: fmt::Arguments<'_>) {
        let note = truncated(&OneLine(note).to_string(), NOTE_LIMIT_OCTETS);
        let octets = "* \n".len() + note.len() + REST.len();
        if self.text.ends_with(REST) {
            return;
        }
        // Writing to a String cannot fail.
        let _ = if self.text.len() + octets > NOTES_LIMIT_OCTETS {
            self.text.write_str(REST)
        } else {
            writeln!(self.text, "* {note}")
        };
    }
}

/// Returns whether transcripts are told.
fn is_wanted(cx: &DeliveryContext<'_>) -> bool {
    cx.told.courses && cx.told.transcripts != Transcripts::Never
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_bounded_and_say_that_some_are_left_out() {
        let mut notes = SearchNotes::default();
        for number in 0..1000 {
            notes.note(format_args!("{number}: {}\r\n* forged", "x".repeat(number)));
            assert!(notes.text.len() <= NOTES_LIMIT_OCTETS);
        }
        assert!(notes.text.starts_with("* 0: "), "{}", notes.text);
        assert!(notes.text.ends_with(REST) && notes.text.matches(REST).count() == 1, "{}", notes.text);
        assert!(!notes.text.contains("\n* forged"), "{}", notes.text);
    }
}
