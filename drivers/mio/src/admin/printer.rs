//! Writes the lines of the output.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};

use cmail_delivery::one_line::{Octets, OneLine};
use cmail_delivery::outbox::is_null_path;
use cmail_delivery::shown::truncated;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// How much is collected before it is written.
const BUFFER_OCTETS: usize = 64 * 1024;

/// Most octets of an address in a line for people. In JSON it is whole.
const ADDRESS_LIMIT_OCTETS: usize = 200;

/// Writes lines on standard output.
pub(super) struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    /// The width of the terminal, if standard output is one: longer lines are cut.
    width: Option<usize>,
}

impl Printer {
    pub(super) fn new() -> Self {
        let stdout = io::stdout();
        let width = stdout.is_terminal().then(terminal_size::terminal_size).flatten();
        Self {
            out: BufWriter::with_capacity(BUFFER_OCTETS, stdout.lock()),
            width: width.map(|(width, _)| width.0.into()),
        }
    }

    /// Writes a line for people, on which no text from outside can do anything to a terminal.
    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) -> io::Result<()> {
        let Some(width) = self.width else { return writeln!(self.out, "{}", OneLine(line)) };
        let text = OneLine(line).to_string();
        match text.char_indices().nth(width) {
            None => writeln!(self.out, "{text}"),
            Some(_) => {
                let shown: String = text.chars().take(width.saturating_sub(1)).collect();
                writeln!(self.out, "{shown}…")
            }
        }
    }

    /// Writes a line of JSON.
    pub(super) fn json(&mut self, record: &impl Serialize) -> io::Result<()> {
        record.serialize(&mut Serializer::with_formatter(&mut self.out, Plain))?;
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
    match octets {
        Some(octets) if !is_null_path(octets) => address(octets),
        _ => "<>".to_owned(),
    }
}
