//! A message as a program hands it over: read, completed, and written as the database holds mail.

use std::io::{self, BufRead};
use std::ops::ControlFlow;

use cmail_delivery::address::Mailbox;
use mail_builder::headers::Header as _;
use mail_builder::headers::address::Address;
use thiserror::Error;

use super::addresses::{ListError, addresses, qualified_list};
use crate::store::SUBMISSION_LIMIT_OCTETS;

/// The largest message, in octets: as much as one submission may write. While it is stored, it is in memory three times: here, and in SQLite as
/// a value and as a row.
const MESSAGE_LIMIT_OCTETS: u64 = SUBMISSION_LIMIT_OCTETS;

/// The largest header section, in octets: enough for 20,000 recipients.
const HEADER_LIMIT_OCTETS: usize = 1_000_000;

/// Fields that are not for the recipients: blind recipients, and what only the last server or a folder of mail may write.
const REMOVED_FIELDS: [&str; 4] = ["Bcc", "Resent-Bcc", "Return-Path", "Content-Length"];

/// The fields that name recipients, and those of a message that is sent on.
const RECIPIENT_FIELDS: [&str; 3] = ["To", "Cc", "Bcc"];
const RESENT_RECIPIENT_FIELDS: [&str; 3] = ["Resent-To", "Resent-Cc", "Resent-Bcc"];

/// The fields with addresses, in which each gets a domain.
const ADDRESS_FIELDS: [&str; 10] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Resent-From",
    "Resent-Sender",
    "Resent-Reply-To",
    "Resent-To",
    "Resent-Cc",
];

/// Why a message is not taken.
#[derive(Debug, Error)]
pub(super) enum MessageError {
    #[error("the message cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("the message is larger than {MESSAGE_LIMIT_OCTETS} octets")]
    TooLarge,
    #[error(
        "the header section is larger than {HEADER_LIMIT_OCTETS} octets; submit the message for fewer recipients at once"
    )]
    HeaderTooLarge,
    #[error("the message has no header section, of which -t would take the recipients")]
    NoHeader,
    #[error("the field {field}: {error}")]
    Recipients { field: String, error: ListError },
    #[error("the field {0}, which names recipients, is not UTF-8 text")]
    NotText(String),
}

/// A message, its lines ended by CRLF.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// The fields, each with all its lines.
    fields: Vec<Vec<u8>>,
    /// All behind the empty line after the header section.
    body: Vec<u8>,
    /// The first line, if it begins with `From ` as that of a message in a folder of mail does.
    envelope_line: Option<Vec<u8>>,
}

/// What is added where a message lacks it.
pub(super) struct Origin<'a> {
    pub(super) from: &'a Mailbox,
    pub(super) full_name: Option<&'a str>,
    /// The value of Date.
    pub(super) date: &'a str,
    /// The value of Message-ID, without angle brackets.
    pub(super) message_id: &'a str,
    /// The domain of addresses that have none.
    pub(super) host: &'a str,
}

impl Message {
    /// Reads a message to the end, or, if `ends_at_dot`, to a line with nothing but a dot.
    pub(super) fn read(input: impl BufRead, ends_at_dot: bool) -> Result<Self, MessageError> {
        let mut input = input.take(MESSAGE_LIMIT_OCTETS + 1);
        let (mut message, mut line, mut is_header) = (Self::default(), Vec::new(), true);
        let mut header_octets = 0_usize;
        loop {
            line.clear();
            if input.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if input.limit() == 0 {
                return Err(MessageError::TooLarge);
            }
            let content = line.strip_suffix(b"\n").unwrap_or(&line);
            let content = content.strip_suffix(b"\r").unwrap_or(content);
            if ends_at_dot && content == b"." {
                break;
            }
            let of_body = match is_header.then(|| message.add_to_header(content)) {
                Some(ControlFlow::Continue(())) => {
                    header_octets = header_octets.saturating_add(line.len());
                    if header_octets > HEADER_LIMIT_OCTETS {
                        return Err(MessageError::HeaderTooLarge);
                    }
                    continue;
                }
                Some(ControlFlow::Break(behind)) => behind,
                None => Some(content),
            };
            is_header = false;
            if let Some(content) = of_body {
                message.add_to_body(content);
            }
        }
        if message.fields.is_empty() && is_header {
            message.keep_first_line();
        }
        Ok(message)
    }

    /// Adds lines to the header section. On the wire a bare CR ends a line too, so that it does here. Where the section ends, breaks off with
    /// what belongs to the body: a line that is no field, and all behind it.
    fn add_to_header<'a>(&mut self, content: &'a [u8]) -> ControlFlow<Option<&'a [u8]>> {
        let mut rest = Some(content);
        while let Some(content) = rest {
            let end = content.iter().position(|&octet| octet == b'\r').unwrap_or(content.len());
            let line = content.get(..end).unwrap_or_default();
            let behind = content.get(end + 1..);
            match self.fields.last_mut() {
                Some(field) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                    field.extend_from_slice(line);
                    field.extend_from_slice(b"\r\n");
                }
                _ if field_name(line).is_some() => self.fields.push([line, b"\r\n"].concat()),
                None if self.envelope_line.is_none() && line.starts_with(b"From ") => {
                    self.envelope_line = Some(line.to_vec());
                }
                None if self.envelope_line.is_some() => {
                    self.keep_first_line();
                    return ControlFlow::Break(Some(content));
                }
                _ if line.is_empty() => return ControlFlow::Break(behind),
                _ => return ControlFlow::Break(Some(content)),
            }
            rest = behind;
        }
        ControlFlow::Continue(())
    }

    /// Keeps a first line that looks like the one with which a folder begins a message: as no field follows, it is text.
    fn keep_first_line(&mut self) {
        if let Some(line) = self.envelope_line.take() {
            self.add_to_body(&line);
        }
    }

    fn add_to_body(&mut self, line: &[u8]) {
        self.body.extend_from_slice(line);
        self.body.extend_from_slice(b"\r\n");
    }

    /// Returns the recipients that the header section names; those of the fields that begin with `Resent-`, if there are any.
    pub(super) fn recipients(&self) -> Result<Vec<String>, MessageError> {
        if self.fields.is_empty() {
            return Err(MessageError::NoHeader);
        }
        let is_resent = RESENT_RECIPIENT_FIELDS.iter().any(|name| self.has(name));
        let names = if is_resent { RESENT_RECIPIENT_FIELDS } else { RECIPIENT_FIELDS };
        let mut recipients = Vec::new();
        for (name, value) in self.fields.iter().filter_map(|field| split_field(field)) {
            if names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted.as_bytes())) {
                let text = String::from_utf8_lossy(value);
                let field = || String::from_utf8_lossy(name).into_owned();
                let found =
                    addresses(&text).map_err(|error| MessageError::Recipients { field: field(), error })?;
                // In a name or a comment any octets may stand.
                if found.iter().any(|address| address.contains(char::REPLACEMENT_CHARACTER)) {
                    return Err(MessageError::NotText(field()));
                }
                recipients.extend(found);
            }
        }
        Ok(recipients)
    }

    /// Removes what recipients should not see, and adds what is missing: fields, and the domain of local addresses.
    pub(super) fn complete(&mut self, origin: &Origin<'_>) {
        self.fields.retain(|field| {
            let name = field_name(field).unwrap_or_default();
            !REMOVED_FIELDS.iter().any(|removed| name.eq_ignore_ascii_case(removed.as_bytes()))
        });
        for field in &mut self.fields {
            if let Some(qualified) = qualified_field(field, origin.host) {
                *field = qualified;
            }
        }
        let mut added = Vec::new();
        if !self.has("Date") {
            added.push(format!("Date: {}\r\n", origin.date).into_bytes());
        }
        if !self.has("Message-ID") {
            added.push(format!("Message-ID: <{}>\r\n", origin.message_id).into_bytes());
        }
        if !self.has("From") {
            let mut field = b"From: ".to_vec();
            let name = origin.full_name.filter(|name| !name.is_empty());
            let column = field.len();
            Address::new_address(name, origin.from.as_str()).write_header(&mut field, column);
            added.push(field);
        }
        self.fields.splice(0..0, added);
    }

    /// Returns the message as the database holds it.
    pub(super) fn into_octets(self) -> Vec<u8> {
        let mut octets = self.fields.concat();
        octets.extend_from_slice(b"\r\n");
        octets.extend_from_slice(&self.body);
        octets
    }

    fn has(&self, name: &str) -> bool {
        let mut names = self.fields.iter().filter_map(|field| field_name(field));
        names.any(|found| found.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// Returns a field in which each address has a domain, if one has none. A field that cannot be read stays as it is.
fn qualified_field(field: &[u8], host: &str) -> Option<Vec<u8>> {
    let (name, value) = split_field(field)?;
    if !ADDRESS_FIELDS.iter().any(|wanted| name.eq_ignore_ascii_case(wanted.as_bytes())) {
        return None;
    }
    let qualified = qualified_list(str::from_utf8(value).ok()?, host)?;
    Some([name, b":", qualified.as_bytes()].concat())
}

/// Returns the name of a field (RFC 5322 section 2.2); `None` if the line is none.
fn field_name(line: &[u8]) -> Option<&[u8]> {
    split_field(line).map(|(name, _)| name)
}

/// Splits a field at its colon, before which older programs may have put white space.
fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&octet| octet == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    let name = name.trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then_some((name, value.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
