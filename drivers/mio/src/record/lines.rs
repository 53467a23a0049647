//! The lines of a record: what was given, and what was observed after each.

use std::fmt::Write as _;

/// What the world did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Octets of the server, masked. `is_joined` if they were read together with what the client had not answered yet.
    Server { octets: Vec<u8>, is_joined: bool },
    /// Anything else, as the line that says so.
    Line(String),
}

/// What was observed after a given line.
#[derive(Debug, Default)]
struct Slot {
    given: Option<Given>,
    /// Lines about the client; each with the number of the call that brought it.
    client: Vec<(u64, String)>,
    /// Deliveries come first, because a commit has them first.
    delivered: Vec<String>,
    failed: Vec<String>,
}

/// Lines in the making. What was observed before anything was given stands in a slot of its own.
#[derive(Debug)]
pub(super) struct Lines {
    slots: Vec<Slot>,
    /// Lines about the client that belong to what is given next.
    held: Vec<(u64, String)>,
    /// About how long the text is.
    octets: usize,
    pub(super) has_fixed_reads: bool,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { slots: vec![Slot::default()], held: Vec::new(), octets: 0, has_fixed_reads: false }
    }

    /// About how long the text is.
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// Where the last slot is.
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

    /// A line about the client on a connection that has just been made: in a replay it is made by what is given first.
    pub(super) fn hold(&mut self, call: u64, line: String) {
        self.held.push((call, line));
    }

    /// Takes back what was given last, and what was observed after it.
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

    /// The text of the last given line, if it is the server's.
    pub(super) fn last_of_server(&mut self) -> Option<&mut Vec<u8>> {
        match self.slots.last_mut()?.given.as_mut()? {
            Given::Server { octets, .. } => Some(octets),
            Given::Line(_) => None,
        }
    }

    /// Octets of the server that came in one read with what the last line has, but after the client had something to say to
    /// that.
    pub(super) fn give_joined(&mut self, more: &[u8]) {
        self.octets += more.len();
        self.has_fixed_reads = true;
        if let Some(Slot { given: Some(Given::Server { octets, is_joined }), .. }) = self.slots.last_mut() {
            octets.extend_from_slice(more);
            *is_joined = true;
        }
    }

    /// A line about the client.
    pub(super) fn client(&mut self, call: u64, line: String) {
        self.octets += line.len();
        if let Some(slot) = self.slots.last_mut() {
            slot.client.push((call, line));
        }
    }

    /// What was said in this call was not sent any more.
    pub(super) fn unsay(&mut self, call: u64) {
        if let Some(slot) = self.slots.last_mut() {
            slot.client.retain(|(of, line)| *of != call || !line.starts_with("C: "));
        }
    }

    /// What has become of a mail.
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

/// `S: …` where that says exactly what has come, and `S| "…"` otherwise.
fn server_line(octets: &[u8], is_joined: bool) -> String {
    let line = octets.strip_suffix(b"\r\n").and_then(|line| str::from_utf8(line).ok());
    match line {
        Some(line) if !is_joined && !line.chars().any(char::is_control) => format!("S: {line}"),
        Some(_) | None => format!("S| {}", quoted(octets)),
    }
}

/// In quotation marks, as transcripts have it.
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
