//! Records: JSON objects of one line each, by which the daemon and the operator's tool tell what they know. `docs/json.md` lists
//! their fields; within a version fields are only added.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// The version of all records.
const VERSION: u8 = 1;

/// A record: its version and kind, and its fields.
#[derive(Debug, Serialize)]
struct Record<T> {
    v: u8,
    kind: &'static str,
    #[serde(flatten)]
    fields: T,
}

/// Writes a record, and ends its line.
pub(crate) fn write(out: &mut impl io::Write, kind: &'static str, fields: impl Serialize) -> io::Result<()> {
    let record = Record { v: VERSION, kind, fields };
    record.serialize(&mut Serializer::with_formatter(&mut *out, Plain))?;
    out.write_all(b"\n")
}

/// Returns a record as a line of text, without its end.
pub(crate) fn line(kind: &'static str, fields: impl Serialize) -> String {
    let mut line = Vec::new();
    // Writing to memory fails only where the fields are no object, and then there is nothing to tell.
    let _ = write(&mut line, kind, fields);
    line.pop();
    String::from_utf8(line).unwrap_or_default()
}

/// Returns whether a terminal obeys a character instead of showing it: a control character, an end of a line or a paragraph, or a mark that
/// turns the direction of the text around it (UAX #9).
pub(crate) fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
