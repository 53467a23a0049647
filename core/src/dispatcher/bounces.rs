//! Mail that is given up, on its way to becoming bounces.
//!
//! Recipients of one message and next hop share a bounce if they fail in the same pass. So a message is processed only when no
//! other recipient of it is claimed or ready.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Mode;
use super::books::Books;
use super::requests::Asked;
use super::set_aside::Undone;
use crate::address::Mailbox;
use crate::event::Level;
use crate::outbox::{
    BounceOrder, FAILED_BUDGET_OCTETS, FailedMail, FailedMessage, HEADER_LIMIT_OCTETS, MailId, NewBounce,
    Refused, Replacement, StoreError, StoreRequest,
};
use crate::queue::{HopId, MessageKey, QueueState};
use crate::rng::{Rng, Seed};
use crate::schedule::RetryState;
use crate::settings::BounceRules;
use crate::shown::shortened_octets;
use crate::time::UnixTime;

/// Most messages that are being bounced at once: as many as one commit takes in well under a tenth of a second, because all other
/// requests to the database wait for it. With fewer, there would be a commit for each few bounces, and commits take most of the
/// time.
const OPEN_LIMIT: usize = 500;
/// Most octets of memory for what is read of them together. One request may always be open.
const OPEN_LIMIT_OCTETS: usize = 8 * 1024 * 1024;
/// Most messages that one request reads, so that other requests come in between.
const READ_LIMIT: usize = 64;
/// Most recipients of one message that share a bounce. With this many, a request is full.
const RECIPIENT_LIMIT: usize = 1000;

/// Messages that may be ready to be bounced.
#[derive(Debug)]
pub(super) struct Bounces {
    candidates: BTreeSet<(HopId, MessageKey)>,
    /// Messages that could not be read. They wait for the next regular scan.
    postponed: BTreeSet<(HopId, MessageKey)>,
    /// The messages that are being read.
    reading: Reading,
    /// Common to all bounces.
    pub(super) announce: Arc<str>,
    pub(super) from: Arc<str>,
    rng: Rng,
}

#[derive(Debug, Default)]
struct Reading {
    messages: usize,
    requests: usize,
}

impl Bounces {
    pub(super) fn new(announce: &str, rules: &BounceRules, rng: Rng) -> Self {
        Self {
            candidates: BTreeSet::new(),
            postponed: BTreeSet::new(),
            reading: Reading::default(),
            announce: announce.into(),
            from: rules.from.as_ref().into(),
            rng,
        }
    }

    /// Sets the names that later bounces have in common.
    pub(super) fn reconfigure(&mut self, announce: &str, rules: &BounceRules) {
        self.announce = announce.into();
        self.from = rules.from.as_ref().into();
    }

    /// Returns the contents of the bounce of a message.
    fn order(&mut self, message: FailedMessage, rules: &BounceRules, now: UnixTime) -> BounceOrder {
        BounceOrder {
            announce: Arc::clone(&self.announce),
            bounce_from: Arc::clone(&self.from),
            return_limit_octets: rules.return_limit_octets,
            message,
            now,
            seed: self.draw_seed(),
        }
    }

    /// Returns a source of randomness for what is composed.
    pub(super) fn draw_seed(&mut self) -> Seed {
        self.rng.seed()
    }

    /// Returns the number of open requests for failed mail.
    pub(super) fn open_requests(&self) -> usize {
        self.reading.requests
    }

    /// Makes messages candidates again that could not be read.
    pub(super) fn resume_postponed(&mut self) {
        self.candidates.append(&mut self.postponed);
    }
}

impl Books {
    /// Makes a message a candidate again because one of its recipients has changed, for which others may have waited.
    pub(super) fn reconsider(&mut self, hop: HopId, key: MessageKey) {
        if self.queue.has_given_up(hop, key) {
            self.bounces.candidates.insert((hop, key));
        }
    }

    /// Requests the mail from which bounces are made.
    pub(super) fn generate_bounces(&mut self) {
        while !self.bounces.candidates.is_empty()
            && self.may_open_more_bounces()
            && !self.commits.is_congested()
            && self.scan.is_complete()
        {
            let (ids, messages) = self.claim_candidates();
            if ids.is_empty() {
                continue;
            }
            self.bounces.reading.messages += messages;
            self.bounces.reading.requests += 1;
            let original_limit_octets = self.config.settings.bounces.return_limit_octets;
            self.ask(
                StoreRequest::ReadFailed { ids: ids.clone(), original_limit_octets },
                Asked::Bounce { ids, messages },
            );
        }
    }

    /// Returns whether there is room for the answer to one more request.
    fn may_open_more_bounces(&self) -> bool {
        let Reading { messages, requests } = self.bounces.reading;
        let open = messages + self.commits.replaced().count();
        if open == 0 || open >= OPEN_LIMIT {
            return open == 0;
        }
        let read: usize = self.commits.replaced().map(read_octets).sum();
        let request_octets = request_octets(self.config.settings.bounces.return_limit_octets);
        (requests + 1).saturating_mul(request_octets).saturating_add(read) <= OPEN_LIMIT_OCTETS
    }

    /// Claims mail of some messages that are to be bounced. Returns it with the number of messages.
    fn claim_candidates(&mut self) -> (Vec<MailId>, usize) {
        let (mut ids, mut messages) = (Vec::new(), 0);
        while messages < READ_LIMIT
            && ids.len() < RECIPIENT_LIMIT
            && let Some((hop, key)) = self.bounces.candidates.pop_first()
        {
            // It is reconsidered when the work on the message ends.
            if matches!(self.run.mode(), Mode::Deliver(_)) || self.queue.is_busy_with(hop, key) {
                continue;
            }
            let mut message = self.queue.claim_given_up(hop, key, RECIPIENT_LIMIT);
            messages += usize::from(!message.is_empty());
            ids.append(&mut message);
        }
        (ids, messages)
    }

    /// Records that a request for this many `messages` is answered.
    pub(super) fn end_reading(&mut self, messages: usize) {
        let reading = &mut self.bounces.reading;
        reading.messages = reading.messages.saturating_sub(messages);
        reading.requests = reading.requests.saturating_sub(1);
    }

    pub(super) fn failed_not_read(&mut self, ids: &[MailId], error: &StoreError) {
        self.note(Level::Error, format!("cannot read mail that is to be bounced, trying again: {error}"));
        for &id in ids {
            if self.goes_to_order(id, QueueState::GivenUp) {
                continue;
            }
            self.queue.set_state(id, QueueState::GivenUp);
            let message = self.queue.find(id).map(|known| (known.hop, known.key));
            self.bounces.postponed.extend(message);
        }
    }

    pub(super) fn failed_read(
        &mut self,
        ids: &[MailId],
        messages: Vec<FailedMessage>,
        left_over: Vec<MailId>,
        unreadable: Vec<Refused>,
    ) {
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
            self.requeue(id, QueueState::GivenUp);
        }
        for message in messages {
            for message in self.by_next_hop(message) {
                self.replace(message);
            }
        }
    }

    /// Splits a message by next hop: recipients of different next hops do not share a bounce.
    fn by_next_hop(&self, message: FailedMessage) -> Vec<FailedMessage> {
        let FailedMessage { mails, data_octets, original } = message;
        let mut parts: Vec<(Option<HopId>, FailedMessage)> = Vec::with_capacity(1);
        for mail in mails {
            let hop = self.queue.find(mail.row.id).map(|known| known.hop);
            match parts.iter_mut().find(|(other, _)| *other == hop) {
                Some((_, part)) => part.mails.push(mail),
                None => {
                    let original = original.clone();
                    parts.push((hop, FailedMessage { mails: [mail].into(), data_octets, original }));
                }
            }
        }
        parts.into_iter().map(|(_, part)| part).collect()
    }

    /// Makes the bounce of one message, unless its mail has changed.
    fn replace(&mut self, mut message: FailedMessage) {
        let mut changed = Vec::new();
        message.mails.retain(|mail| {
            let is_given_up = self.retry_state_of(&mail.row) == RetryState::GivenUp;
            if !is_given_up {
                changed.push(mail.row.clone());
            }
            is_given_up
        });
        for row in changed {
            self.reindex_row(&row);
        }
        // RFC 3461 section 5.2.6.
        let wants_failure = |mail: &FailedMail| mail.row.wishes.wants_failure();
        let (wanted, unwanted) = message.mails.into_iter().partition(wants_failure);
        self.drop_unwanted(unwanted);
        message.mails = wanted;
        let Some(first) = message.mails.first() else { return };
        let originals: Vec<MailId> = message.mails.iter().map(|mail| mail.row.id).collect();
        let told = shown_recipients(&message.mails);
        let expired = self.expired(&message.mails);
        let recipients = self.bounce_recipients(first.row.sender.as_ref());
        let bounce = (!recipients.is_empty()).then(|| {
            let order = self.bounces.order(message, &self.config.settings.bounces, self.now.wall);
            NewBounce { recipients, order }
        });
        self.commits.replace(Replacement { originals, expired, bounce }, told);
    }

    /// Ends mail without a bounce, because its sender wants none.
    fn drop_unwanted(&mut self, mails: Vec<FailedMail>) {
        if !mails.is_empty() {
            let originals = mails.iter().map(|mail| mail.row.id).collect();
            let expired = self.expired(&mails);
            self.commits.replace(Replacement { originals, expired, bounce: None }, shown_recipients(&mails));
        }
    }

    /// Returns those of these mails that have reached the age of a line of the configuration, each with the line.
    fn expired(&self, mails: &[FailedMail]) -> Vec<(MailId, u32)> {
        let rules = self.rules();
        mails.iter().filter_map(|mail| Some((mail.row.id, rules.line_of_expiry(&mail.row)?))).collect()
    }

    /// Returns the recipients of a bounce for mail of this sender, each once, however the address is written. An invalid sender
    /// counts as absent, because everything sent to it would fail. The copies are sent all the same: they are for people who want
    /// to know.
    fn bounce_recipients(&self, sender: Option<&Bytes>) -> Vec<Bytes> {
        let Some(sender) = sender else { return Vec::new() };
        let copies =
            self.config.settings.bounces.copies.iter().map(|copy| Bytes::copy_from_slice(copy.as_bytes()));
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

/// Returns the recipients of mail, for the log.
fn shown_recipients(mails: &[FailedMail]) -> Vec<Box<str>> {
    mails.iter().map(|mail| shortened_octets(&mail.row.recipient).into()).collect()
}

/// Returns the largest number of octets that one request may read.
fn request_octets(return_limit_octets: u64) -> usize {
    let original_octets = usize::try_from(return_limit_octets).unwrap_or(usize::MAX);
    original_octets.max(HEADER_LIMIT_OCTETS).max(FAILED_BUDGET_OCTETS)
}

/// Returns how many octets were read for a bounce.
fn read_octets(replacement: &Replacement) -> usize {
    let Some(bounce) = &replacement.bounce else { return 0 };
    let FailedMessage { mails, original, .. } = &bounce.order.message;
    let texts = mails.iter().flat_map(|mail| &mail.attempts).map(|attempt| attempt.text.len());
    original.len() + texts.sum::<usize>()
}
