//! Mail data in the form in which it is sent: CRLF line ends, doubled dots, the final dot (RFC 5321 section 4.5.2).

use bytes::{BufMut as _, BytesMut};

/// Octets of a message that are searched at once for something to change.
const BLOCK_OCTETS: usize = 2048;

/// Encodes stored mail data as it is sent between `354` and the final reply, piece by piece.
///
/// Bare CR and bare LF become CRLF (RFC 5321 section 2.3.8), and then a dot at the beginning of a line is doubled. No other octet
/// is added or lost, including NUL and 8-bit octets. The last line end is held back until more follows, so that it is output
/// together with the final dot: some servers recognize the end of a message only if they read CRLF . CRLF in one piece.
#[derive(Clone, Debug)]
pub struct MailDataEncoder {
    held: LineEnd,
    at_line_start: bool,
}

/// A line end that is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    None,
    /// The last octet was a CR. A LF that follows belongs to it.
    Open,
    /// The line end is complete: the next octet begins a line.
    Whole,
}

impl Default for MailDataEncoder {
    fn default() -> Self {
        Self { held: LineEnd::None, at_line_start: true }
    }
}

impl MailDataEncoder {
    /// Appends the encoding of `data` to `out`, except for a line end at its end: at most two octets for each, and two more.
    pub fn encode(&mut self, data: &[u8], out: &mut BytesMut) {
        let Some((first, behind)) = data.split_first() else { return };
        // With some room for incomplete line ends, so that the buffer hardly ever has to grow.
        out.reserve(data.len() + data.len() / 32 + 2);
        let begin = out.len();
        let mut rest = data;
        if self.held != LineEnd::None {
            if self.held == LineEnd::Open && *first == b'\n' {
                rest = behind;
            }
            self.end_line(out);
        }
        self.encode_lines(rest, out);
        if self.at_line_start && self.held == LineEnd::None && out.len() > begin {
            // Every complete line ends with CRLF here.
            out.truncate(out.len() - 2);
            self.held = LineEnd::Whole;
        }
    }

    fn encode_lines(&mut self, data: &[u8], out: &mut BytesMut) {
        let mut rest = self.encode_unchanged(data, out);
        while let Some(first) = rest.first() {
            if self.at_line_start && *first == b'.' {
                out.put_u8(b'.');
            }
            let end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            let (line, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            out.put_slice(line);
            self.at_line_start &= line.is_empty();
            rest = match behind {
                [] => return,
                [b'\r'] => {
                    self.held = LineEnd::Open;
                    return;
                }
                [b'\r', b'\n', behind @ ..] | [_, behind @ ..] => behind,
            };
            self.end_line(out);
        }
    }

    /// Appends the beginning of `data` that needs no change, block by block, and returns the rest. Most messages need no change
    /// at all, and to check that takes a fraction of the time of going from line to line.
    fn encode_unchanged<'a>(&mut self, data: &'a [u8], out: &mut BytesMut) -> &'a [u8] {
        // The octet that stands before the block.
        let mut before = if self.at_line_start { b'\n' } else { b' ' };
        let mut rest = data;
        loop {
            let block = rest.get(..BLOCK_OCTETS).unwrap_or(rest);
            // The next octets show whether a LF belongs to a CR at the end.
            let end = block.iter().rposition(|&octet| octet != b'\r').map_or(0, |last| last + 1);
            let block = block.get(..end).unwrap_or_default();
            let (Some(first), Some(last)) = (block.first(), block.last()) else { break };
            if has_to_change(&[before, *first]) || has_to_change(block) {
                break;
            }
            before = *last;
            rest = rest.get(block.len()..).unwrap_or_default();
        }
        let unchanged = data.get(..data.len() - rest.len()).unwrap_or_default();
        out.put_slice(unchanged);
        self.at_line_start = before == b'\n';
        rest
    }

    /// Ends the last line, if it has no end, and appends the final dot.
    pub fn finish(&mut self, out: &mut BytesMut) {
        if self.held != LineEnd::None || !self.at_line_start {
            self.end_line(out);
        }
        out.put_slice(b".\r\n");
    }

    fn end_line(&mut self, out: &mut BytesMut) {
        out.put_slice(b"\r\n");
        self.held = LineEnd::None;
        self.at_line_start = true;
    }
}

/// Returns whether a line end is incomplete, or a line begins with a dot that must be doubled, among all octets but the first and
/// the last, which depend on their neighbours. There are no branches, so that many octets are compared at once.
fn has_to_change(octets: &[u8]) -> bool {
    let (Some((_, behind)), Some((_, before))) = (octets.split_first(), octets.split_last()) else {
        return false;
    };
    let pairs = before.iter().zip(behind);
    pairs.fold(false, |has_to_change, (&before, &octet)| {
        let is_broken = (before == b'\r') != (octet == b'\n');
        let is_dotted = (before == b'\n') & (octet == b'.');
        has_to_change | is_broken | is_dotted
    })
}

/// Returns the size of a message as RFC 1870 section 3 counts it: two octets for every line end, and doubled dots not counted.
pub fn transmitted_octets(data: &[u8]) -> u64 {
    let is_bare = |position: &usize| match data.get(*position) {
        Some(b'\r') => data.get(position + 1) != Some(&b'\n'),
        _ => position.checked_sub(1).and_then(|before| data.get(before)) != Some(&b'\r'),
    };
    let added = memchr::memchr2_iter(b'\r', b'\n', data).filter(is_bare).count();
    let final_line_end = if matches!(data.last(), None | Some(b'\r' | b'\n')) { 0 } else { 2 };
    (data.len() + added) as u64 + final_line_end
}

#[cfg(test)]
mod tests;
