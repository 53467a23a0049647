//! Mail data as it goes over the wire: CRLF line ends, doubled dots, the final dot (RFC 5321 section 4.5.2).

use bytes::{BufMut as _, BytesMut};

/// How much of a message is looked through at once for what has to be changed.
const BLOCK_OCTETS: usize = 2048;

/// Turns stored mail data into what stands between `354` and the final reply, piece by piece.
///
/// Bare CR and bare LF become CRLF (RFC 5321 section 2.3.8), a dot at the beginning of a line is doubled after that. No other
/// octet is added or lost, NUL and 8-bit octets included. The last line end stays here until more is known to follow, so that
/// it is handed out with the final dot: some servers see the end of a message only if they read CRLF . CRLF in one piece.
#[derive(Clone, Debug)]
pub struct MailDataEncoder {
    held: LineEnd,
    at_line_start: bool,
}

/// A line end that is not yet handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    None,
    /// The last octet was a CR: a LF that follows belongs to it.
    Open,
    /// Whatever follows begins the next line.
    Whole,
}

impl Default for MailDataEncoder {
    fn default() -> Self {
        Self { held: LineEnd::None, at_line_start: true }
    }
}

impl MailDataEncoder {
    /// Appends what `data` becomes to `out`, but for a line end at its end: at most two octets for each, and two more.
    pub fn encode(&mut self, data: &[u8], out: &mut BytesMut) {
        let Some((first, behind)) = data.split_first() else { return };
        // With some room for line ends that are not whole, so that the buffer hardly ever has to grow on the way.
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
            // Every line that is whole ends with CRLF here.
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

    /// Appends the beginning of `data` in which nothing is to be changed, block by block, and returns what follows. Most
    /// messages are like that from end to end, and to see it takes a fraction of the time of going from line to line.
    fn encode_unchanged<'a>(&mut self, data: &'a [u8], out: &mut BytesMut) -> &'a [u8] {
        // What the octet before the block would have to be.
        let mut before = if self.at_line_start { b'\n' } else { b' ' };
        let mut rest = data;
        loop {
            let block = rest.get(..BLOCK_OCTETS).unwrap_or(rest);
            // Whether a LF belongs to a CR at the end is seen with what follows.
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

    /// Ends the last line if it has no end, and appends the final dot.
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

/// Returns whether a line end is not whole, or a line begins with a dot that is to be doubled, among all octets but the first and
/// the last one, which depend on what stands before and behind. Without branches, so that many octets are compared at once.
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

/// The size of a message as RFC 1870 section 3 counts it: every line end two octets, doubled dots not counted.
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
