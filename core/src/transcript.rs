//! The transcript of a conversation: what both sides said and when, for an administrator who wants to know why mail failed.
//!
//! Only the beginning and the end are kept, so that a connection that carries mail for hours costs a few KiB. The beginning
//! shows what was negotiated, the end shows what went wrong.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use crate::one_line::OneLine;
use crate::time::Instant;

/// Most octets that are kept of the beginning.
const HEAD_LIMIT_OCTETS: usize = 4 * 1024;
/// Most octets that are kept of the end.
const TAIL_LIMIT_OCTETS: usize = 4 * 1024;
/// Most octets that are kept of one line: as much as a server may say in a reply (RFC 5321 section 4.5.3.1.5), and room for what
/// the many say who exceed that.
const LINE_LIMIT_OCTETS: usize = 1024;
/// Stands at the end of a line that was cut.
const CUT_MARK: &[u8] = b" [...]";

/// Who said a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// We did.
    Client,
    /// The server did.
    Server,
    /// Nobody: it is a remark.
    Remark,
}

impl Speaker {
    const fn mark(self) -> &'static [u8] {
        match self {
            Self::Client => b" > ",
            Self::Server => b" < ",
            Self::Remark => b" * ",
        }
    }
}

/// The beginning and the end of what was said on one connection.
///
/// Each line begins with the seconds since the connection was opened, and with `>` for what we said, `<` for what the server
/// said, or `*` for a remark. The owner masks secrets before it notes a line.
#[derive(Clone, Debug)]
pub(crate) struct Transcript {
    opened: Instant,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    /// Lines that stood between the beginning and the end.
    omitted_lines: u64,
    /// Octets of mail data that were sent since the last line.
    data_octets: u64,
}

impl Transcript {
    /// Returns an empty transcript of a connection that was opened at this instant.
    pub(crate) fn new(opened: Instant) -> Self {
        Self { opened, head: Vec::new(), tail: VecDeque::new(), omitted_lines: 0, data_octets: 0 }
    }

    /// Adds what was said, line by line.
    pub(crate) fn note(&mut self, now: Instant, speaker: Speaker, text: &[u8]) {
        self.end_data(now);
        for line in text.split(|octet| *octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)) {
            if !line.is_empty() {
                self.push(now, speaker, line);
            }
        }
    }

    /// Adds mail data that was sent: they are counted, not kept.
    pub(crate) fn note_data(&mut self, octets: usize) {
        self.data_octets += octets as u64;
    }

    /// Adds the line that stands for the mail data before it.
    fn end_data(&mut self, now: Instant) {
        let octets = core::mem::take(&mut self.data_octets);
        if octets > 0 {
            self.push(now, Speaker::Client, format!("[{octets} octets of mail data]").as_bytes());
        }
    }

    fn push(&mut self, now: Instant, speaker: Speaker, text: &[u8]) {
        let (kept, cut_mark) = match text.get(..LINE_LIMIT_OCTETS) {
            Some(kept) if kept.len() < text.len() => (kept, CUT_MARK),
            Some(_) | None => (text, &b""[..]),
        };
        let millis = now.saturating_duration_since(self.opened).as_millis();
        let time = format!("{}.{:03}", millis / 1000, millis % 1000);
        let parts = [time.as_bytes(), speaker.mark(), kept, cut_mark, b"\n"];
        let octets: usize = parts.iter().map(|part| part.len()).sum();
        if self.tail.is_empty() && self.head.len() + octets <= HEAD_LIMIT_OCTETS {
            parts.into_iter().for_each(|part| self.head.extend_from_slice(part));
            return;
        }
        while self.tail.len() + octets > TAIL_LIMIT_OCTETS {
            let end =
                self.tail.iter().position(|octet| *octet == b'\n').map_or(self.tail.len(), |end| end + 1);
            self.tail.drain(..end);
            self.omitted_lines += 1;
        }
        parts.into_iter().for_each(|part| self.tail.extend(part));
    }

    /// Returns the transcript as text: a line for each line that was said, without control characters.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(self.head.len() + self.tail.len());
        put_lines(&mut text, &self.head);
        if self.omitted_lines > 0 {
            let _ = writeln!(text, "[{} lines are left out]", self.omitted_lines);
        }
        put_lines(&mut text, &self.tail.iter().copied().collect::<Vec<_>>());
        if self.data_octets > 0 {
            let _ = writeln!(text, "[{} octets of mail data, and no reply]", self.data_octets);
        }
        text
    }
}

fn put_lines(text: &mut String, lines: &[u8]) {
    for line in lines.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()) {
        let _ = writeln!(text, "{}", OneLine(String::from_utf8_lossy(line)));
    }
}

#[cfg(test)]
mod tests;
