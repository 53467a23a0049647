//! The digest of a body that is canonicalized by `relaxed` (RFC 6376 section 3.4.4), piece by piece.

use sha2::{Digest as _, Sha256};

use super::Digest;
use super::wire_lines::Part;

/// The line ends that are hashed at once.
const LINE_ENDS: &[u8] = b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n";

/// The digest so far.
#[derive(Debug, Default)]
pub(super) struct BodyHash {
    sha256: Sha256,
    /// The empty lines that count only if more text follows.
    empty_lines: u64,
    /// White space that counts only if more text follows in the line.
    has_space: bool,
    /// The line has text.
    has_text: bool,
}

impl BodyHash {
    pub(super) fn add(&mut self, part: &Part<'_>) {
        match part {
            Part::Text(text) => self.add_text(text),
            Part::End if self.has_text => {
                self.sha256.update(b"\r\n");
                (self.has_space, self.has_text) = (false, false);
            }
            Part::End => {
                self.empty_lines += 1;
                self.has_space = false;
            }
        }
    }

    fn add_text(&mut self, text: &[u8]) {
        let mut rest = text;
        while let Some(first) = rest.first() {
            if matches!(first, b' ' | b'\t') {
                let end = rest.iter().position(|octet| !matches!(octet, b' ' | b'\t')).unwrap_or(rest.len());
                rest = rest.get(end..).unwrap_or_default();
                self.has_space = true;
                continue;
            }
            let end = memchr::memchr2(b' ', b'\t', rest).unwrap_or(rest.len());
            let (word, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            self.add_word(word);
            rest = behind;
        }
    }

    fn add_word(&mut self, word: &[u8]) {
        while self.empty_lines > 0 {
            let lines = self.empty_lines.min(LINE_ENDS.len() as u64 / 2);
            let octets = usize::try_from(2 * lines).unwrap_or(LINE_ENDS.len());
            self.sha256.update(LINE_ENDS.get(..octets).unwrap_or(LINE_ENDS));
            self.empty_lines -= lines;
        }
        if core::mem::take(&mut self.has_space) {
            self.sha256.update(b" ");
        }
        self.sha256.update(word);
        self.has_text = true;
    }

    /// Returns the digest of the whole body.
    pub(super) fn finish(mut self) -> Digest {
        if self.has_text {
            self.sha256.update(b"\r\n");
        }
        self.sha256.finalize().into()
    }
}
