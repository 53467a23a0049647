//! Nothing is lost: a mail leaves the outbox only when a server has accepted it, octet for octet, or when it is given
//! up, and then its sender is told in the same transaction.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use cmail_delivery::address::Mailbox;
use cmail_delivery::outbox::{Commit, MailId, Replacement, StoreReply, is_null_path};
use cmail_delivery::schedule::RetryState;
use cmail_delivery::settings::Settings;
use cmail_delivery::time::Instant;

use super::Checker;
use super::standing::retry_state;
use crate::facts::{Fact, Scene};
use crate::outbox::MailKey;

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Loss {
    /// The number of times that servers have accepted each mail, less the number of its deletions for that.
    accepted: HashMap<MailKey, u32>,
    /// Rows whose faillog was changed by others, perhaps just when they were given up.
    meddled: HashSet<MailId>,
    /// When the daemon has read mail that is to be bounced: it decides by the settings that hold then, or later.
    read_at: HashMap<MailId, Instant>,
}

impl Checker for Loss {
    fn name(&self) -> &'static str {
        "nothing is lost"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        if let Fact::Meddled { id } = fact {
            self.meddled.insert(id);
        }
        if let Fact::Accepted { keys, .. } = fact {
            for key in keys {
                *self.accepted.entry(key.clone()).or_default() += 1;
            }
        }
        if let Fact::Answered { reply: StoreReply::Failed { messages, .. } } = fact {
            let mails = messages.iter().flat_map(|message| &message.mails);
            self.read_at.extend(mails.map(|mail| (mail.row.id, scene.now.monotonic)));
        }
        if let Fact::Committing { commit, bounces } = fact {
            self.commit(scene, commit, bounces)?;
        }
        Ok(())
    }
}

impl Loss {
    fn commit(&mut self, scene: &Scene<'_>, commit: &Commit, bounces: &[Bytes]) -> Result<(), String> {
        for id in commit.delivered.iter().map(|mail| mail.id) {
            // The current row counts: other mail may have replaced it.
            let Some(mail) = scene.outbox.mail(id) else { continue };
            match self.accepted.get_mut(&MailKey::of(mail)).filter(|count| **count > 0) {
                Some(count) => *count -= 1,
                None => return Err(format!("mail {id} is deleted, but no server has accepted it as it is")),
            }
        }
        let check = |(replacement, data): (_, &Bytes)| self.check_replacement(scene, replacement, data);
        commit.replaced.iter().zip(bounces).try_for_each(check)
    }

    fn check_replacement(
        &self,
        scene: &Scene<'_>,
        replacement: &Replacement,
        data: &[u8],
    ) -> Result<(), String> {
        let read_at = replacement.originals.iter().filter_map(|id| self.read_at.get(id)).min();
        let since = read_at.copied().unwrap_or(scene.now.monotonic);
        scene.right_by_one_since(since, |settings| self.check_by(settings, scene, replacement, data))
    }

    fn check_by(
        &self,
        settings: &Settings,
        scene: &Scene<'_>,
        replacement: &Replacement,
        data: &[u8],
    ) -> Result<(), String> {
        let mails: Option<Vec<_>> =
            replacement.originals.iter().map(|&id| scene.outbox.mail(id).map(|mail| (id, mail))).collect();
        // If one is gone, nothing is done.
        let Some(mails) = mails else { return Ok(()) };
        for (id, mail) in mails {
            let is_given_up =
                retry_state(&settings.schedule, id, mail, scene.now.wall) == RetryState::GivenUp;
            if !is_given_up && !self.meddled.contains(&id) {
                let attempts = mail.fail_state(id).fail_count;
                return Err(format!("mail {id} is given up after {attempts} attempts"));
            }
            let Some(sender) = mail.sender.as_deref().filter(|sender| !is_null_path(sender)) else {
                continue;
            };
            // Mail to an invalid address fails.
            let sender = Some(sender).filter(|sender| Mailbox::parse(sender).is_ok());
            let copies = settings.bounces.copies.iter().map(|copy| copy.as_bytes());
            let copies = copies.filter(|copy| Some(*copy) != sender);
            let expected: Vec<&[u8]> = sender.into_iter().chain(copies).collect();
            // RFC 3461 section 5.2.6.
            let is_wanted = mail.wishes.notify.is_none_or(|notify| notify.failure);
            let Some(bounce) = &replacement.bounce else {
                if expected.is_empty() || !is_wanted {
                    continue;
                }
                return Err(format!("mail {id} is deleted, and its sender is not told"));
            };
            if !is_wanted {
                return Err(format!("mail {id} is bounced, and its sender wants to know nothing of that"));
            }
            let told: Vec<&[u8]> = bounce.recipients.iter().map(|recipient| &**recipient).collect();
            if told != expected {
                return Err(format!("the bounce of mail {id} goes to others than its sender and the copies"));
            }
            let recipient = String::from_utf8_lossy(&mail.recipient);
            let is_plain = recipient.bytes().all(|octet| octet.is_ascii_graphic());
            if is_plain && memchr::memmem::find(data, recipient.as_bytes()).is_none() {
                return Err(format!("the bounce of mail {id} does not name its recipient"));
            }
        }
        Ok(())
    }
}
