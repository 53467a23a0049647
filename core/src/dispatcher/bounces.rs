//! Mail that is given up, on its way to becoming bounces.
//!
//! Recipients of one message and next hop share a bounce if they fail in the same pass: so a message is looked at only
//! when nobody works, or is about to work, on another recipient of it.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::set_aside::Undone;
use super::{Asked, Dispatcher, Mode};
use crate::address::Mailbox;
use crate::event::Level;
use crate::outbox::{
    BounceOrder, FailedMessage, MailId, NewBounce, Replacement, StoreError, StoreReply, StoreRequest,
};
use crate::queue::{HopId, MessageKey, Place};
use crate::rng::Rng;
use crate::schedule::Standing;
use crate::settings::Settings;
use crate::shown::shortened_octets;
use crate::time::UnixTime;

/// Most messages that are being bounced at once.
const OPEN_LIMIT: u64 = 8;
/// Memory for their originals together, in octets. There is room for one in any case.
const OPEN_LIMIT_OCTETS: u64 = 64 * 1024 * 1024;
/// Most recipients of one message that share a bounce.
const RECIPIENT_LIMIT: usize = 1000;

/// Messages that may be ready to be bounced.
#[derive(Debug)]
pub(super) struct Bounces {
    candidates: BTreeSet<(HopId, MessageKey)>,
    /// Messages that could not be read, until the next look at the outbox.
    postponed: BTreeSet<(HopId, MessageKey)>,
    open: usize,
    /// All bounces have these in common.
    announce: Arc<str>,
    bounce_from: Arc<str>,
    rng: Rng,
}

impl Bounces {
    pub(super) fn new(settings: &Settings, rng: Rng) -> Self {
        Self {
            candidates: BTreeSet::new(),
            postponed: BTreeSet::new(),
            open: 0,
            announce: settings.announce.as_ref().into(),
            bounce_from: settings.bounce_from.as_ref().into(),
            rng,
        }
    }

    /// What the bounce of a message is to be composed of.
    fn order(&mut self, message: FailedMessage, settings: &Settings, now: UnixTime) -> BounceOrder {
        BounceOrder {
            announce: Arc::clone(&self.announce),
            bounce_from: Arc::clone(&self.bounce_from),
            return_limit_octets: settings.bounce_return_limit_octets,
            message,
            now,
            seed: self.rng.seed(),
        }
    }

    /// Tries again what could not be read.
    pub(super) fn resume_postponed(&mut self) {
        self.candidates.append(&mut self.postponed);
    }
}

impl Dispatcher {
    /// Something has happened to a recipient of this message, for which others may have waited.
    pub(super) fn reconsider(&mut self, hop: HopId, key: MessageKey) {
        if self.queue.has_given_up(hop, key) {
            self.bounces.candidates.insert((hop, key));
        }
    }

    /// Asks for what is needed to make bounces.
    pub(super) fn generate_bounces(&mut self) {
        let limit = open_limit(self.settings.bounce_return_limit_octets);
        while self.bounces.open + self.ledger.replacement_count() < limit
            && !self.ledger.is_congested()
            && self.intake.is_complete()
        {
            let Some((hop, key)) = self.bounces.candidates.pop_first() else { return };
            // Whoever works on the message has it reconsidered afterwards.
            if matches!(self.mode, Mode::Deliver(_)) || self.queue.is_busy_with(hop, key) {
                continue;
            }
            let ids = self.queue.claim_given_up(hop, key, RECIPIENT_LIMIT);
            if ids.is_empty() {
                continue;
            }
            self.bounces.open += 1;
            let original_limit_octets = self.settings.bounce_return_limit_octets;
            self.ask(
                StoreRequest::ReadFailed { ids: ids.clone(), original_limit_octets },
                Asked::Bounce { ids },
            );
        }
    }

    pub(super) fn failed_read(&mut self, ids: &[MailId], result: Result<StoreReply, StoreError>) {
        self.bounces.open = self.bounces.open.saturating_sub(1);
        let (messages, left_over, unreadable) = match result {
            Ok(StoreReply::Failed { messages, left_over, unreadable }) => (messages, left_over, unreadable),
            Ok(_) => return,
            Err(error) => {
                self.note(
                    Level::Error,
                    format!("cannot read mail that is to be bounced, trying again: {error}"),
                );
                for &id in ids {
                    self.queue.place(id, Place::GivenUp);
                    let message = self.queue.find(id).map(|known| (known.hop, known.key));
                    self.bounces.postponed.extend(message);
                }
                return;
            }
        };
        let mut found: BTreeSet<MailId> = left_over.iter().copied().collect();
        found.extend(messages.iter().flat_map(|message| message.mails.iter().map(|mail| mail.row.id)));
        found.extend(unreadable.iter().map(|refused| refused.id));
        for &id in ids {
            if !found.contains(&id) {
                self.forget(id);
            }
        }
        self.set_aside_unreadable(unreadable, &Undone::Bounce);
        for id in left_over {
            self.put(id, Place::GivenUp);
        }
        for message in messages {
            self.replace(message);
        }
    }

    /// Makes the bounce of one message, if it still is to be bounced.
    fn replace(&mut self, mut message: FailedMessage) {
        let mut changed = Vec::new();
        message.mails.retain(|mail| {
            let is_given_up =
                self.rules.standing(mail.row.fail_count, mail.row.last_try, mail.row.fatal, self.now.wall)
                    == Standing::GivenUp;
            if !is_given_up {
                changed.push(mail.row.clone());
            }
            is_given_up
        });
        for row in changed {
            self.settle(&row);
        }
        let Some(first) = message.mails.first() else { return };
        let originals: Vec<MailId> = message.mails.iter().map(|mail| mail.row.id).collect();
        let told = message.mails.iter().map(|mail| shortened_octets(&mail.row.recipient).into()).collect();
        let recipients = self.bounce_recipients(first.row.sender.as_ref());
        if recipients.is_empty() {
            return self.ledger.replaced(Replacement { originals, bounce: None }, told);
        }
        let order = self.bounces.order(message, &self.settings, self.now.wall);
        self.ledger.replaced(Replacement { originals, bounce: Some(NewBounce { recipients, order }) }, told);
    }

    /// Who is told of mail of this sender, each once, however the address is written. A sender that is no address is like one
    /// that is not there: whatever is sent to it fails. But the copies are for people who want to know.
    fn bounce_recipients(&self, sender: Option<&Bytes>) -> Vec<Bytes> {
        let Some(sender) = sender else { return Vec::new() };
        let copies = self.settings.bounce_copy.iter().map(|copy| Bytes::copy_from_slice(copy.as_bytes()));
        let valid = Some(sender.clone()).filter(|sender| Mailbox::parse(sender).is_ok());
        let mut seen = BTreeSet::new();
        let is_new = |recipient: &Bytes| {
            seen.insert(match Mailbox::parse(recipient) {
                Ok(mailbox) => mailbox.canonical().into(),
                Err(_) => recipient.clone(),
            })
        };
        valid.into_iter().chain(copies).filter(is_new).collect()
    }
}

/// How many messages may be bounced at once, where so much of an original is returned.
fn open_limit(return_limit_octets: u64) -> usize {
    let limit = (OPEN_LIMIT_OCTETS / return_limit_octets.max(1)).clamp(1, OPEN_LIMIT);
    usize::try_from(limit).unwrap_or(1)
}
