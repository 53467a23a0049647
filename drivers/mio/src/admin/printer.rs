//! Writes the lines of the output.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, StdoutLock, Write as _};

use cmail_delivery::next_hop::Relay;
use cmail_delivery::one_line::{Octets, OneLine};
use cmail_delivery::outbox::Row;
use cmail_delivery::shown::truncated;
use serde::Serialize;

use crate::json_record::{self, is_obeyed};

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
        writeln!(self.out, "{}", visible(&self.text))
    }

    /// Writes a record in JSON.
    pub(super) fn record(&mut self, kind: &'static str, fields: impl Serialize) -> io::Result<()> {
        json_record::write(&mut self.out, kind, fields)
    }

    /// Clears the screen of a terminal, and goes on at its top.
    pub(super) fn clear_screen(&mut self) -> io::Result<()> {
        self.out.write_all(b"\x1b[H\x1b[2J")
    }

    /// Writes a record that is JSON already.
    pub(super) fn raw(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{}", visible(line.trim_end()))
    }

    /// Writes what was collected.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Shows a text on one line, on which it can do nothing to a terminal, nor look like another text.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return text.into();
    }
    let mut visible = String::new();
    for character in OneLine(text).to_string().chars() {
        if is_obeyed(character) {
            visible.extend(character.escape_unicode());
        } else {
            visible.push(character);
        }
    }
    visible.into()
}

/// Shows an address of the database in a line for people.
pub(super) fn address(octets: &[u8]) -> String {
    // One octet more than is shown, so that the cut is marked.
    let octets = octets.get(..=ADDRESS_LIMIT_OCTETS).unwrap_or(octets);
    shortened(&Octets(octets).to_string())
}

/// Shows a text of an address in a line for people.
pub(super) fn shortened(text: &str) -> String {
    truncated(text, ADDRESS_LIMIT_OCTETS)
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
