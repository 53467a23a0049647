//! What must not stand in any text, and how a server's echo of it is masked.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// Stands where a secret was.
const MASK: &[u8] = b"***";
/// So many octets of a secret in a row give something away: servers cut long lines short.
const PIECE_OCTETS: usize = 8;
/// Shorter secrets occur in other words: to mask them there would tell what they are.
const WORD_LEAST_OCTETS: usize = 4;

/// The secrets of a conversation. Case does not count: some servers echo in capitals.
///
/// What masking costs grows with the length of the text, and hardly with that of the secrets.
#[derive(Clone, Default)]
pub struct Secrets {
    /// All pieces of long secrets: whatever part of one is echoed is covered by them.
    pieces: BTreeSet<[u8; PIECE_OCTETS]>,
    /// Secrets that are shorter than a piece.
    words: Vec<Box<[u8]>>,
    /// Secrets that are shorter than a word: a line in which one occurs is masked as a whole.
    short: Vec<Box<[u8]>>,
}

impl Secrets {
    /// Masks this from now on.
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

    /// The line with every occurrence of a secret, and of any part of one that is long enough to be of use, replaced.
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

    /// The text with each of its lines [masked](Self::mask_line).
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

/// All pieces of a text, one for each octet at which one begins.
fn pieces(octets: &[u8]) -> impl Iterator<Item = [u8; PIECE_OCTETS]> {
    octets.windows(PIECE_OCTETS).filter_map(|piece| piece.try_into().ok())
}

#[cfg(test)]
mod tests;
