//! Writes the lines of the output.

use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, StdoutLock, Write as _};

use cmail_delivery::next_hop::Relay;
use cmail_delivery::one_line::{Octets, OneLine};
use cmail_delivery::outbox::Row;
use cmail_delivery::shown::truncated;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::json::Record;

/// How much is collected before it is written.
const BUFFER_OCTETS: usize = 64 * 1024;

/// Most octets of an address in a line for people. In JSON it is whole.
const ADDRESS_LIMIT_OCTETS: usize = 200;

/// Writes lines on standard output.
pub(super) struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    /// The line that is being written.
    text: String,
}

impl Printer {
    pub(super) fn new() -> Self {
        Self { out: BufWriter::with_capacity(BUFFER_OCTETS, io::stdout().lock()), text: String::new() }
    }

    /// Writes a line for people, on which no text from outside can do anything to a terminal.
    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) -> io::Result<()> {
        self.text.clear();
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(line);
        if self.text.chars().any(char::is_control) {
            writeln!(self.out, "{}", OneLine(&self.text))
        } else {
            writeln!(self.out, "{}", self.text)
        }
    }

    /// Writes a record in JSON.
    pub(super) fn record(&mut self, kind: &'static str, fields: impl Serialize) -> io::Result<()> {
        Record::new(kind, fields).serialize(&mut Serializer::with_formatter(&mut self.out, Plain))?;
        self.out.write_all(b"\n")
    }

    /// Writes what was collected.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes JSON without control characters: JSON itself allows those from U+007F on, and a terminal obeys some of them.
struct Plain;

impl Formatter for Plain {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        for part in fragment.split_inclusive(char::is_control) {
            match part.char_indices().next_back().filter(|(_, last)| last.is_control()) {
                Some((at, last)) => {
                    writer.write_all(part.get(..at).unwrap_or_default().as_bytes())?;
                    write!(writer, "\\u{:04x}", u32::from(last))?;
                }
                None => writer.write_all(part.as_bytes())?,
            }
        }
        Ok(())
    }
}

/// Shows an address of the database in a line for people.
pub(super) fn address(octets: &[u8]) -> String {
    // One octet more than is shown, so that the cut is marked.
    let octets = octets.get(..=ADDRESS_LIMIT_OCTETS).unwrap_or(octets);
    truncated(&Octets(octets).to_string(), ADDRESS_LIMIT_OCTETS)
}

/// Shows a sender in a line for people.
pub(super) fn sender(octets: Option<&[u8]>) -> String {
    octets.map_or("<>".to_owned(), address)
}

/// Shows a recipient in a line for people, with the relay that its mail goes by.
pub(super) fn recipient(row: &Row) -> String {
    let mut recipient = address(&row.recipient);
    if let Some(remote) = &row.remote {
        // A specification that is malformed may hold a password anywhere.
        let _ = match Relay::parse(remote) {
            Ok(relay) => write!(recipient, " via {relay}"),
            Err(_) => write!(recipient, " via a malformed relay"),
        };
    }
    recipient
}
