//! Writes the lines of the output.

use std::borrow::Cow;
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
        writeln!(self.out, "{}", visible(&self.text))
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

/// Returns whether a terminal obeys a character instead of showing it: a control character, an end of a line or a paragraph, or a mark that
/// turns the direction of the text around it (UAX #9).
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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

/// Writes JSON without control characters: JSON itself allows those from U+007F on, and a terminal obeys some of them.
struct Plain;

impl Formatter for Plain {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        for part in fragment.split_inclusive(is_obeyed) {
            match part.char_indices().next_back().filter(|(_, last)| is_obeyed(*last)) {
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
