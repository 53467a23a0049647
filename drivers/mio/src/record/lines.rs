//! The lines of a record: each input ("given"), with what was observed after it.

use std::fmt::Write as _;

/// An input from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Octets of the server, masked. `is_joined` says that they came in one read with a line that the client had not answered.
    Server { octets: Vec<u8>, is_joined: bool },
    /// Anything else, as its line.
    Line(String),
}

/// A given line, and what was observed after it.
#[derive(Debug, Default)]
struct Slot {
    given: Option<Given>,
    /// Lines about the client; each with the number of the call that brought it.
    client: Vec<(u64, String)>,
    /// Deliveries come first, because a commit has them first.
    delivered: Vec<String>,
    failed: Vec<String>,
}

/// The lines of an unfinished record. The first slot holds what was observed before anything was given.
#[derive(Debug)]
pub(super) struct Lines {
    slots: Vec<Slot>,
    /// Lines about the client that belong to what is given next.
    held: Vec<(u64, String)>,
    /// The approximate length of the text.
    octets: usize,
    pub(super) has_fixed_reads: bool,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { slots: vec![Slot::default()], held: Vec::new(), octets: 0, has_fixed_reads: false }
    }

    /// Returns the approximate length of the text.
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// Returns the position of the last slot.
    pub(super) fn position(&self) -> usize {
        self.slots.len() - 1
    }

    pub(super) fn give(&mut self, given: Given) {
        self.octets += match &given {
            Given::Server { octets, .. } => octets.len(),
            Given::Line(line) => line.len(),
        };
        let client = std::mem::take(&mut self.held);
        self.slots.push(Slot { given: Some(given), client, ..Slot::default() });
    }

    /// Holds back a line about the client on a new connection until something is given, which establishes it in a replay.
    pub(super) fn hold(&mut self, call: u64, line: String) {
        self.held.push((call, line));
    }

    /// Removes the last given line, and what was observed after it.
    pub(super) fn drop_last(&mut self) {
        if self.slots.len() > 1 {
            self.slots.pop();
        }
    }

    /// Inserts a given line before the slot at a position.
    pub(super) fn give_before(&mut self, position: usize, line: String) {
        let slot = Slot { given: Some(Given::Line(line)), ..Slot::default() };
        self.slots.insert(position.min(self.slots.len()), slot);
    }

    /// Returns the octets of the last given line, if it is the server's.
    pub(super) fn last_of_server(&mut self) -> Option<&mut Vec<u8>> {
        match self.slots.last_mut()?.given.as_mut()? {
            Given::Server { octets, .. } => Some(octets),
            Given::Line(_) => None,
        }
    }

    /// Adds octets of the server that came in one read with the last line, although the client answered that line first.
    pub(super) fn give_joined(&mut self, more: &[u8]) {
        self.octets += more.len();
        self.has_fixed_reads = true;
        if let Some(Slot { given: Some(Given::Server { octets, is_joined }), .. }) = self.slots.last_mut() {
            octets.extend_from_slice(more);
            *is_joined = true;
        }
    }

    /// Adds a line about the client.
    pub(super) fn client(&mut self, call: u64, line: String) {
        self.octets += line.len();
        if let Some(slot) = self.slots.last_mut() {
            slot.client.push((call, line));
        }
    }

    /// Removes the commands of this call, which were not sent after all.
    pub(super) fn unsay(&mut self, call: u64) {
        if let Some(slot) = self.slots.last_mut() {
            slot.client.retain(|(of, line)| *of != call || !line.starts_with("C: "));
        }
    }

    /// Adds the verdict on a mail.
    pub(super) fn effect(&mut self, is_delivered: bool, line: String) {
        self.octets += line.len();
        if let Some(slot) = self.slots.last_mut() {
            if is_delivered { slot.delivered.push(line) } else { slot.failed.push(line) }
        }
    }

    pub(super) fn write(&self, text: &mut String) {
        for slot in &self.slots {
            match &slot.given {
                Some(Given::Line(line)) => put(text, line),
                Some(Given::Server { octets, is_joined }) => put(text, &server_line(octets, *is_joined)),
                None => {}
            }
            let client = slot.client.iter().map(|(_, line)| line);
            for line in client.chain(&slot.delivered).chain(&slot.failed) {
                put(text, line);
            }
        }
    }
}

fn put(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// Writes octets of the server as `S: …` if that is exact, and as `S| "…"` otherwise.
fn server_line(octets: &[u8], is_joined: bool) -> String {
    let line = octets.strip_suffix(b"\r\n").and_then(|line| str::from_utf8(line).ok());
    match line {
        Some(line) if !is_joined && !line.chars().any(char::is_control) => format!("S: {line}"),
        Some(_) | None => format!("S| {}", quoted(octets)),
    }
}

/// Quotes octets as transcripts do.
pub(super) fn quoted(octets: &[u8]) -> String {
    let mut text = String::from("\"");
    for &octet in octets {
        match octet {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(octet)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(text, "\\x{octet:02x}");
            }
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests;
