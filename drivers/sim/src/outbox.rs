//! How the mail of an outbox is told apart, and what a commit makes of it.

use bytes::Bytes;
use cmail_delivery::bounce::compose_ordered;
use cmail_delivery::dsn::MessageWishes;
use cmail_delivery::memory_outbox::{Flaw, Mail, MemoryOutbox};
use cmail_delivery::outbox::{Commit, Committed, MailId, Replacement};

use crate::canonical::canonical;
use crate::facts::Origin;

/// What makes two rows the same mail for a server: recipient and message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MailKey {
    pub(crate) recipient: Bytes,
    digest: u64,
}

impl MailKey {
    /// Returns the key of a mail.
    pub(crate) fn of(mail: &Mail) -> Self {
        Self { recipient: mail.recipient.clone(), digest: digest(&canonical(&mail.data)) }
    }

    /// Returns the keys of recipients and a message as it was received.
    pub(crate) fn all(recipients: &[String], canonical_data: &[u8]) -> Vec<Self> {
        let digest = digest(canonical_data);
        recipients
            .iter()
            .map(|recipient| Self { recipient: Bytes::copy_from_slice(recipient.as_bytes()), digest })
            .collect()
    }
}

/// Returns what makes two rows the same message.
pub(crate) fn message(mail: &Mail) -> (Option<Bytes>, MessageWishes, u64) {
    (mail.sender.clone(), mail.wishes.message.clone(), digest(&mail.data))
}

/// Tells messages apart. Nobody tries to find two with equal digests.
fn digest(octets: &[u8]) -> u64 {
    let mix = |digest: u64, word: u64| (digest.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let (words, rest) = octets.as_chunks::<8>();
    let digest =
        words.iter().fold(octets.len() as u64, |digest, word| mix(digest, u64::from_le_bytes(*word)));
    rest.iter().fold(digest, |digest, &octet| mix(digest, u64::from(octet)))
}

/// Returns the data of the bounces of a commit, in the order of its replacements; empty where there is none.
pub(crate) fn compose_bounces(commit: &Commit) -> Vec<Bytes> {
    let bounces = commit.replaced.iter().map(|replacement| replacement.bounce.as_ref());
    bounces
        .map(|bounce| bounce.and_then(|bounce| compose_ordered(&bounce.order)).unwrap_or_default())
        .collect()
}

/// Returns the rows that a commit with these replacements has inserted, and where each comes from.
pub(crate) fn inserted<'a>(
    replaced: &'a [Replacement],
    committed: &'a Committed,
) -> impl Iterator<Item = (MailId, Origin<'a>)> {
    let warnings =
        committed.warned.iter().map(|warned| (warned.warning, Origin::WarningOf(&warned.originals)));
    let bounces = replaced.iter().zip(&committed.bounces);
    let bounces = bounces.flat_map(|(replacement, bounces)| {
        bounces.iter().map(|bounce| (*bounce, Origin::BounceOf(&replacement.originals)))
    });
    let reports =
        committed.reported.iter().map(|reported| (reported.report, Origin::ReportOf(reported.original)));
    reports.chain(warnings).chain(bounces)
}

/// Returns whether a commit cannot be recorded as a whole.
pub(crate) fn is_impossible(outbox: &MemoryOutbox, commit: &Commit) -> bool {
    commit.ids().any(|id| outbox.flaw(id) == Some(Flaw::Unrecordable))
}
