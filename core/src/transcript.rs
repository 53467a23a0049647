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

/// Most octets of memory for the beginning.
const HEAD_LIMIT_OCTETS: usize = 4 * 1024;
/// Most octets of memory for the end.
const TAIL_LIMIT_OCTETS: usize = 4 * 1024;
/// Most octets that are kept of one line: as much as a server may say in a reply (RFC 5321 section 4.5.3.1.5), and room for what
/// the many say who exceed that.
const LINE_LIMIT_OCTETS: usize = 1024;
/// Stands at the end of a line that was cut.
const CUT_MARK: &str = " [...]";

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
    const fn mark(self) -> char {
        match self {
            Self::Client => '>',
            Self::Server => '<',
            Self::Remark => '*',
        }
    }
}

/// A line of a transcript, without its text.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// The time since the connection was opened, at most seven weeks.
    millis: u32,
    /// The length of its text.
    octets: u16,
    speaker: Speaker,
    is_cut: bool,
}

/// Octets that a line takes besides its text.
const LINE_OCTETS: usize = size_of::<Line>();

/// The beginning and the end of what was said on one connection.
///
/// In its text each line begins with the seconds since the connection was opened, and with `>` for what we said, `<` for what the server
/// said, or `*` for a remark. The owner masks secrets before it notes a line. Most transcripts are never read, so lines are kept as they
/// come, and the text is made when it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Transcript {
    opened: Instant,
    head: Lines,
    tail: Lines,
    /// Lines that stood between the beginning and the end.
    omitted_lines: u64,
    /// Octets of mail data that were sent since the last line.
    data_octets: u64,
}

/// Consecutive lines.
#[derive(Clone, Debug, Default)]
struct Lines {
    lines: VecDeque<Line>,
    texts: VecDeque<u8>,
}

impl Lines {
    /// Returns how much memory they take.
    fn octets(&self) -> usize {
        self.lines.len() * LINE_OCTETS + self.texts.len()
    }

    fn push(&mut self, line: Line, text: &[u8]) {
        self.lines.push_back(line);
        self.texts.extend(text);
    }

    fn drop_first(&mut self) {
        if let Some(line) = self.lines.pop_front() {
            self.texts.drain(..usize::from(line.octets).min(self.texts.len()));
        }
    }

    /// Appends them as text.
    fn write(&self, to: &mut String) {
        let mut texts = self.texts.iter().copied();
        for Line { millis, speaker, octets, is_cut } in &self.lines {
            let text: Vec<u8> = texts.by_ref().take(usize::from(*octets)).collect();
            let (text, mark) = (String::from_utf8_lossy(&text), speaker.mark());
            let cut_mark = if *is_cut { CUT_MARK } else { "" };
            let (seconds, millis) = (millis / 1000, millis % 1000);
            let _ = writeln!(to, "{seconds}.{millis:03} {mark} {}{cut_mark}", OneLine(text));
        }
    }
}

impl Transcript {
    /// Returns an empty transcript of a connection that was opened at this instant.
    pub(crate) fn new(opened: Instant) -> Self {
        let (head, tail) = (Lines::default(), Lines::default());
        Self { opened, head, tail, omitted_lines: 0, data_octets: 0 }
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
        let kept = text.get(..LINE_LIMIT_OCTETS).unwrap_or(text);
        let since = now.saturating_duration_since(self.opened);
        let line = Line {
            millis: u32::try_from(since.as_millis()).unwrap_or(u32::MAX),
            octets: u16::try_from(kept.len()).unwrap_or(u16::MAX),
            speaker,
            is_cut: kept.len() < text.len(),
        };
        let octets = LINE_OCTETS + kept.len();
        if self.tail.lines.is_empty() && self.head.octets() + octets <= HEAD_LIMIT_OCTETS {
            return self.head.push(line, kept);
        }
        while self.tail.octets() + octets > TAIL_LIMIT_OCTETS {
            self.tail.drop_first();
            self.omitted_lines += 1;
        }
        self.tail.push(line, kept);
    }

    /// Returns the transcript as text: a line for each line that was said, without control characters.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(self.head.octets() + self.tail.octets());
        self.head.write(&mut text);
        if self.omitted_lines > 0 {
            let _ = writeln!(text, "[{} lines are left out]", self.omitted_lines);
        }
        self.tail.write(&mut text);
        if self.data_octets > 0 {
            let _ = writeln!(text, "[{} octets of mail data, and no reply]", self.data_octets);
        }
        text
    }
}

#[cfg(test)]
mod tests;
