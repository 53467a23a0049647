//! A bounce contains nothing of any other mail. Every message and every recipient has a mark in it that no other has.

use std::collections::BTreeSet;

use memchr::memmem;

use super::Checker;
use crate::facts::{Fact, Scene};

/// The marks of messages and recipients begin with these, and end with the same letter.
pub(crate) const MARKS: [&str; 2] = ["zt", "zr"];

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct BounceContents;

impl Checker for BounceContents {
    fn name(&self) -> &'static str {
        "bounces contain only their own mail"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        let Fact::Committing { commit, bounces } = fact else { return Ok(()) };
        for (replacement, bounce) in commit.replaced.iter().zip(bounces) {
            // If one is gone, nothing is done.
            if replacement.originals.iter().any(|&id| scene.outbox.mail(id).is_none()) {
                continue;
            }
            let mut own = BTreeSet::new();
            for mail in replacement.originals.iter().filter_map(|&id| scene.outbox.mail(id)) {
                own.extend(marks(&mail.data));
                own.extend(marks(&mail.recipient));
            }
            if let Some(other) = marks(bounce).into_iter().find(|mark| !own.contains(mark)) {
                return Err(format!("the bounce of {:?} contains {other}", replacement.originals));
            }
        }
        Ok(())
    }
}

/// Returns all marks in these octets.
fn marks(octets: &[u8]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for prefix in MARKS {
        for position in memmem::find_iter(octets, prefix) {
            let digits = octets.get(position + prefix.len()..).unwrap_or_default();
            let count = digits.iter().take_while(|octet| octet.is_ascii_digit()).count();
            if count > 0 && digits.get(count) == Some(&b'z') {
                let mark = octets.get(position..position + prefix.len() + count).unwrap_or_default();
                found.insert(String::from_utf8_lossy(mark).into_owned());
            }
        }
    }
    found
}
