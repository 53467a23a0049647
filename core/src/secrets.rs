//! Secrets that must not appear in any text. Masks a server's echo of them.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// Stands for a masked secret.
const MASK: &[u8] = b"***";
/// This many consecutive octets of a secret give something away: servers cut long lines short.
const PIECE_OCTETS: usize = 8;
/// Shorter secrets occur in other words, so masking only them would reveal what they are.
const WORD_LEAST_OCTETS: usize = 4;

/// The secrets of a conversation. Case does not matter, because some servers echo in capitals.
///
/// The cost of masking grows with the length of the text, and hardly with that of the secrets.
#[derive(Clone, Default)]
pub struct Secrets {
    /// All pieces of long secrets. Whatever part of one is echoed, pieces cover it.
    pieces: BTreeSet<[u8; PIECE_OCTETS]>,
    /// Secrets that are shorter than a piece.
    words: Vec<Box<[u8]>>,
    /// Secrets that are shorter than a word. A line that contains one is masked as a whole.
    short: Vec<Box<[u8]>>,
}

impl Secrets {
    /// Masks this secret from now on.
    pub fn keep(&mut self, secret: &[u8]) {
        let secret = secret.to_ascii_lowercase();
        match secret.len() {
            0 => {}
            1..WORD_LEAST_OCTETS => self.short.push(secret.into()),
            WORD_LEAST_OCTETS..PIECE_OCTETS => self.words.push(secret.into()),
            PIECE_OCTETS.. => self.pieces.extend(pieces(&secret)),
        }
    }

    /// Returns whether there is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.words.is_empty() && self.short.is_empty()
    }

    /// Returns the line with every secret replaced, and every part of one that is long enough to be useful.
    pub fn mask_line(&self, line: &[u8]) -> Box<[u8]> {
        let folded = line.to_ascii_lowercase();
        let occurs = |secret: &[u8]| memchr::memmem::find(&folded, secret).is_some();
        if self.short.iter().any(|secret| occurs(secret)) {
            return MASK.into();
        }
        let mut is_secret = vec![false; line.len()];
        let mut cover = |begin: usize, octets: usize| {
            if let Some(covered) = is_secret.get_mut(begin..begin + octets) {
                covered.fill(true);
            }
        };
        for (begin, piece) in pieces(&folded).enumerate() {
            if self.pieces.contains(&piece) {
                cover(begin, PIECE_OCTETS);
            }
        }
        for word in &self.words {
            memchr::memmem::find_iter(&folded, word).for_each(|begin| cover(begin, word.len()));
        }
        let mut masked = Vec::with_capacity(line.len());
        let mut was_secret = false;
        for (octet, is_secret) in line.iter().zip(is_secret) {
            match (is_secret, was_secret) {
                (false, _) => masked.push(*octet),
                (true, false) => masked.extend_from_slice(MASK),
                (true, true) => {}
            }
            was_secret = is_secret;
        }
        masked.into()
    }

    /// Returns the text with each of its lines [masked](Self::mask_line).
    pub fn mask_text(&self, text: &str) -> String {
        let lines: Vec<Box<[u8]>> = text.split('\n').map(|line| self.mask_line(line.as_bytes())).collect();
        String::from_utf8_lossy(&lines.join(&b'\n')).into_owned()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(hidden)")
    }
}

/// Returns all pieces of a text, one for each octet at which one begins.
fn pieces(octets: &[u8]) -> impl Iterator<Item = [u8; PIECE_OCTETS]> {
    octets.windows(PIECE_OCTETS).filter_map(|piece| piece.try_into().ok())
}

#[cfg(test)]
mod tests;
