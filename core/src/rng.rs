//! The only source of randomness: a keyed generator that the driver seeds once.

use core::fmt;

use crate::ids::MailId;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

/// The seed of a generator, which determines everything it draws. It never appears in any output of `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(hidden)")
    }
}

/// A cryptographic generator. Equal seeds give equal numbers.
#[derive(Clone)]
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// Returns a generator that is determined by `seed`.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// Returns a generator for what is composed about a mail, where one seed is for many.
    pub(crate) fn for_mail(seed: &Seed, id: MailId) -> Self {
        let mut octets = seed.0;
        for (octet, of_id) in octets.iter_mut().zip(id.0.to_le_bytes()) {
            *octet ^= of_id;
        }
        Self::from_seed(octets)
    }

    /// Returns a separate generator for a child, so that draws of one child never change the draws of another.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.seed().0)
    }

    /// Returns the seed of a child.
    #[must_use]
    pub fn seed(&mut self) -> Seed {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        Seed(seed)
    }

    /// Returns 64 uniformly random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Fills `octets` with random bits.
    pub fn fill(&mut self, octets: &mut [u8]) {
        self.0.fill_bytes(octets);
    }

    /// Returns a uniformly random number from 0 to `bound` - 1, or 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Rejection keeps it uniform: the last, incomplete run of `bound` numbers is drawn again.
        let Some(remainder) = (u64::MAX % bound.max(1)).checked_add(1) else { return 0 };
        let zone = if remainder == bound { u64::MAX } else { u64::MAX - remainder };
        loop {
            let drawn = self.next_u64();
            if drawn <= zone {
                return drawn.checked_rem(bound).unwrap_or(0);
            }
        }
    }

    /// Puts `items` into a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or(last);
            items.swap(last, other);
        }
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng")
    }
}

#[cfg(test)]
mod tests;
