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

    /// Whether there is nothing to mask.
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(secrets: &[&str], line: &str) -> String {
        let mut kept = Secrets::default();
        secrets.iter().for_each(|secret| kept.keep(secret.as_bytes()));
        String::from_utf8(kept.mask_line(line.as_bytes()).into()).unwrap()
    }

    #[test]
    fn secrets_are_masked_wherever_they_are_echoed() {
        let secrets = ["c2VjcmV0", "hunter2"];
        assert_eq!(masked(&secrets, "AUTH PLAIN c2VjcmV0 c2VjcmV0?"), "AUTH PLAIN *** ***?");
        assert_eq!(masked(&secrets, "hunter2 c2VjcmV0hunter2"), "*** ***");
        assert_eq!(masked(&secrets, "hunter"), "hunter");
    }

    #[test]
    fn an_echo_that_was_cut_short_or_put_into_other_case_is_masked_too() {
        let secrets = ["AHVzZXIAcGFzcy13b3Jk", "tiger"];
        for (echo, expected) in [
            ("What is \"AUTH PLAIN AHVzZXIAcGFz...\"?", "What is \"AUTH PLAIN ***...\"?"),
            ("AHVzZXIA...zcy13b3Jk", "***...***"),
            ("AUTH PLAIN AHVZZXIACGFZCY13B3JK", "AUTH PLAIN ***"),
            ("AHVzZXI TIGER tige", "AHVzZXI *** tige"),
        ] {
            assert_eq!(masked(&secrets, echo), expected);
        }
    }

    #[test]
    fn a_line_in_which_a_short_secret_occurs_is_masked_as_a_whole() {
        for secret in ["x", "yx", "5X!"] {
            assert_eq!(masked(&[secret], "the 5yx 5x! is no password"), "***");
            assert_eq!(masked(&[secret], "no such thing"), "no such thing");
        }
        let mut secrets = Secrets::default();
        secrets.keep(b"ab");
        assert_eq!(secrets.mask_text("one\ntwo AB\n\nthree"), "one\n***\n\nthree");
        assert_eq!(masked(&[""], "nothing is no secret"), "nothing is no secret");
    }

    #[test]
    fn the_octets_of_an_echo_are_looked_up_once_however_long_the_secret_is() {
        // Every piece of the text is one of the secret, and of the secret in all of its places.
        let mut secrets = Secrets::default();
        secrets.keep(&[b'a'; 100_000]);
        assert_eq!(secrets.pieces.len(), 1);
        assert_eq!(&*secrets.mask_line(&[b'a'; 100_000]), MASK);
    }

    proptest! {
        #[test]
        fn no_part_of_a_secret_that_is_of_use_is_left(
            secret in "[a-cA-C]{1,12}", before in "[a-d ]{0,8}", after in "[a-d ]{0,8}", cut in 0..5_usize,
        ) {
            let part = &secret[..secret.len() - cut.min(secret.len().saturating_sub(PIECE_OCTETS))];
            let line = masked(&[&secret], &alloc::format!("{before}{part}{after}"));
            prop_assert!(!line.to_ascii_lowercase().contains(&part.to_ascii_lowercase()), "{}", line);
        }
    }
}
