//! The master database, in memory, with the semantics that the core counts on.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cmail_delivery::bounce::{compose_ordered, needed_octets};
use cmail_delivery::delay_warning::{DelayWarnings, NewWarning};
use cmail_delivery::failure_pattern::LastFailure;
use cmail_delivery::memory_outbox::{FlightBook, OrderBook};
use cmail_delivery::order::Hold;
use cmail_delivery::outbox::{
    CLAIM_BUDGET_OCTETS, Charge, Claimed, ClaimedTransaction, Commit, Committed, Cursor, DATA_CHUNK_OCTETS,
    DeliveredMail, FAILED_BUDGET_OCTETS, FailState, FailedMail, FailedMessage, FaillogRow, LeftOver, MailId,
    Refused, Row, Scanned, StoreReply, StoreRequest, Warned, is_null_path,
};
use cmail_delivery::time::UnixTime;

use crate::canonical::canonical;
use crate::poison::{Poison, Poisoned, Refusals};

mod flights;
mod orders;

/// Most faillog rows of a mail that are read for a bounce.
const ATTEMPT_LIMIT: usize = 100;

/// What tells a message from others, once it was computed; shared by the rows of a message.
pub(crate) type Digest = Arc<OnceLock<u64>>;

/// A row of the outbox and its faillog.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) remote: Option<Bytes>,
    pub(crate) sender: Option<Bytes>,
    pub(crate) recipient: Bytes,
    pub(crate) submission: UnixTime,
    pub(crate) data: Bytes,
    pub(crate) faillog: Vec<FaillogRow>,
    /// The last failure that the daemon recorded, and its time.
    pub(crate) last_failure: Option<(UnixTime, LastFailure)>,
    /// Whether an order holds it.
    pub(crate) hold: Hold,
    /// Of the data, which never changes.
    pub(crate) digest: Digest,
}

/// What makes two rows the same mail for a server: recipient and message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MailKey {
    pub(crate) recipient: Bytes,
    digest: u64,
}

impl MailKey {
    /// The keys of recipients and a message as it was received.
    pub(crate) fn all(recipients: &[String], canonical_data: &[u8]) -> Vec<Self> {
        let digest = digest(canonical_data);
        recipients
            .iter()
            .map(|recipient| Self { recipient: Bytes::copy_from_slice(recipient.as_bytes()), digest })
            .collect()
    }
}

/// The data of the bounces of a commit, in the order of its replacements; empty where there is none.
pub(crate) fn compose_bounces(commit: &Commit) -> Vec<Bytes> {
    let bounces = commit.replaced.iter().map(|replacement| replacement.bounce.as_ref());
    bounces
        .map(|bounce| bounce.and_then(|bounce| compose_ordered(&bounce.order)).unwrap_or_default())
        .collect()
}

/// Tells messages apart. Nobody tries to find two with equal digests.
fn digest(octets: &[u8]) -> u64 {
    let mix = |digest: u64, word: u64| (digest.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let (words, rest) = octets.as_chunks::<8>();
    let digest =
        words.iter().fold(octets.len() as u64, |digest, word| mix(digest, u64::from_le_bytes(*word)));
    rest.iter().fold(digest, |digest, &octet| mix(digest, u64::from(octet)))
}

impl Mail {
    /// Returns what a server will know this mail by.
    pub(crate) fn key(&self) -> MailKey {
        let digest = *self.digest.get_or_init(|| digest(&canonical(&self.data)));
        MailKey { recipient: self.recipient.clone(), digest }
    }

    /// Returns what makes two rows the same message.
    pub(crate) fn message(&self) -> (Option<Bytes>, u64) {
        (self.sender.clone(), self.key().digest)
    }

    /// Returns how it has failed so far.
    pub(crate) fn fail_state(&self, id: MailId) -> FailState {
        FailState {
            id,
            fail_count: u32::try_from(self.faillog.len()).unwrap_or(u32::MAX),
            last_try: self.faillog.iter().map(|attempt| attempt.time).max().unwrap_or(UnixTime(0)),
            fatal: self.faillog.iter().any(|attempt| attempt.fatal),
        }
    }

    /// Returns the row that a scan reports.
    pub(crate) fn row(&self, id: MailId) -> Row {
        let state = self.fail_state(id);
        Row {
            id,
            remote: self.remote.clone(),
            sender: self.sender.clone().filter(|sender| !is_null_path(sender)),
            recipient: self.recipient.clone(),
            submission: self.submission,
            data_octets: self.data.len() as u64,
            fail_count: state.fail_count,
            last_try: state.last_try,
            fatal: state.fatal,
            last_failure: self.faillog.last().map(|failed| match self.last_failure {
                Some((at, failure)) if at == state.last_try => failure,
                Some(_) | None => LastFailure::of_text(&failed.text),
            }),
            hold: self.hold,
        }
    }
}

/// What a commit has done besides its answer.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// New rows, and the rows that they are bounces of.
    pub(crate) bounces: Vec<(MailId, Vec<MailId>)>,
    /// New rows, and the late mail that they tell of.
    pub(crate) warnings: Vec<(MailId, Vec<MailId>)>,
}

/// What becomes of a commit.
#[derive(Debug)]
pub(crate) struct Sifted {
    /// What is recorded.
    pub(crate) commit: Commit,
    /// Originals of bounces that cannot be made.
    pub(crate) remaining: Vec<MailId>,
    /// Mail that others have changed, as it is now.
    pub(crate) changed: Vec<Row>,
    /// Mail for which the database can do nothing.
    pub(crate) refused: Vec<Refused>,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    mails: BTreeMap<MailId, Mail>,
    last_id: i64,
    data_version: i64,
    poisoned: Poisoned,
    /// What mail was when the daemon claimed it, recalled it, or read it for a bounce.
    claimed: BTreeMap<MailId, Row>,
    orders: OrderBook,
    flights: FlightBook,
}

impl Outbox {
    /// An empty table.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A row, if it exists.
    pub(crate) fn mail(&self, id: MailId) -> Option<&Mail> {
        self.mails.get(&id)
    }

    /// All rows.
    pub(crate) fn mails(&self) -> impl Iterator<Item = (MailId, &Mail)> {
        self.mails.iter().map(|(&id, mail)| (id, mail))
    }

    /// Returns how many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.mails.len()
    }

    /// Another process inserts a row.
    pub(crate) fn submit(&mut self, mail: Mail) -> MailId {
        self.data_version += 1;
        self.insert(mail)
    }

    /// A row that is there from the beginning.
    pub(crate) fn put(&mut self, id: MailId, mail: Mail) {
        self.last_id = self.last_id.max(id.0);
        self.mails.insert(id, mail);
    }

    /// From now on the database can do nothing for a row.
    pub(crate) fn poison(&mut self, id: MailId, poison: Poison) {
        self.poisoned.insert(id, poison);
    }

    /// Returns what cannot be done for a row, if something cannot.
    pub(crate) fn poison_of(&self, id: MailId) -> Option<Poison> {
        self.poisoned.get(id)
    }

    /// Returns whether mail that was submitted then would be taken for what a server has taken from this row.
    pub(crate) fn is_noted(&self, id: MailId, submission: UnixTime) -> bool {
        self.poisoned.noted(id).is_some_and(|since| submission <= since)
    }

    /// Returns whether a server has taken a row that cannot be deleted.
    fn is_stuck(&self, id: MailId) -> bool {
        self.mails.get(&id).is_some_and(|mail| self.is_noted(id, mail.submission))
    }

    /// The administrator mends what is wrong.
    pub(crate) fn heal(&mut self) {
        self.poisoned.heal();
    }

    /// Returns whether a commit cannot be done as a whole.
    pub(crate) fn is_poisoned(&self, commit: &Commit) -> bool {
        self.poisoned.concerns(commit)
    }

    /// Another process deletes a row.
    pub(crate) fn remove(&mut self, id: MailId) -> Option<Mail> {
        self.data_version += 1;
        self.poisoned.remove(id);
        self.mails.remove(&id)
    }

    /// Another process puts other mail in the place of a row.
    pub(crate) fn exchange(&mut self, id: MailId, mail: Mail) {
        self.data_version += 1;
        self.poisoned.remove(id);
        self.mails.insert(id, mail);
    }

    /// Another process changes a row.
    pub(crate) fn change(&mut self, id: MailId, change: impl FnOnce(&mut Mail)) {
        if let Some(mail) = self.mails.get_mut(&id) {
            self.data_version += 1;
            change(mail);
        }
    }

    /// A random row.
    pub(crate) fn some_id(&self, dice: &mut crate::dice::Dice) -> Option<MailId> {
        self.mails.keys().nth(dice.index(self.mails.len())).copied()
    }

    /// Reads what is asked for; nothing if the request is to write.
    pub(crate) fn read(&self, request: &StoreRequest) -> Option<StoreReply> {
        Some(match request {
            StoreRequest::Scan { after, limit } => self.scan(*after, *limit),
            StoreRequest::Claim { ids, transactions, recipients } => {
                self.claim(ids, *transactions, *recipients)
            }
            StoreRequest::ReadData { id, offset, limit } => {
                StoreReply::Data(self.piece(*id, *offset, *limit))
            }
            StoreRequest::ReadFailed { ids, original_limit_octets } => {
                self.read_failed(ids, *original_limit_octets)
            }
            StoreRequest::Recall { ids } => {
                let (ids, unreadable) = self.poisoned.sift(ids);
                let rows = self.untaken(&ids).map(|(id, mail)| mail.row(id)).collect();
                StoreReply::Recalled { rows, unreadable }
            }
            StoreRequest::ReadOrders { known, .. } => {
                StoreReply::Orders(self.orders.read(known, |id| self.mails.contains_key(id)))
            }
            StoreRequest::Commit(_) | StoreRequest::CarryOut(_) | StoreRequest::Recover { .. } => {
                return None;
            }
        })
    }

    /// Remembers what the daemon was told of mail that it works on from now on.
    pub(crate) fn remember(&mut self, reply: &StoreReply) {
        let rows: Vec<&Row> = match reply {
            StoreReply::Claimed(Claimed { transactions, .. }) => {
                transactions.iter().flat_map(|transaction| &transaction.rows).collect()
            }
            StoreReply::Failed { messages, .. } => {
                messages.iter().flat_map(|message| &message.mails).map(|mail| &mail.row).collect()
            }
            StoreReply::Recalled { rows, .. } => rows.iter().collect(),
            StoreReply::Scanned(_)
            | StoreReply::Data(_)
            | StoreReply::Committed(_)
            | StoreReply::Recovered(_)
            | StoreReply::Orders(_)
            | StoreReply::CarriedOut(_) => return,
        };
        self.claimed.extend(rows.into_iter().map(|row| (row.id, row.clone())));
    }

    /// Whether the daemon has claimed a mail, and neither a verdict nor a release has ended that.
    pub(crate) fn holds(&self, id: MailId) -> bool {
        self.claimed.contains_key(&id)
    }

    /// All such mail.
    pub(crate) fn held(&self) -> impl Iterator<Item = MailId> {
        self.claimed.keys().copied()
    }

    /// The daemon gives up mail.
    pub(crate) fn release(&mut self, ids: &[MailId]) {
        for id in ids {
            self.claimed.remove(id);
        }
    }

    /// The daemon that was told is no more.
    pub(crate) fn forget_claims(&mut self) {
        self.claimed.clear();
    }

    /// Returns what can be recorded of a commit, since others have changed the rest or it is refused, and that rest as it is now.
    pub(crate) fn sift(&mut self, commit: &Commit, now: UnixTime) -> Sifted {
        let asked = commit;
        let mut commit = asked.clone();
        let Refusals { refused, mut remaining } = self.poisoned.refuse(&mut commit);
        let mut changed = Vec::new();
        // Of what an earlier process has sent nothing is known but its note.
        commit.delivered.retain(|DeliveredMail { id, .. }| {
            let is_known = self.claimed.contains_key(id) || self.poisoned.noted(*id).is_none();
            let is_other = !is_known && !self.is_stuck(*id);
            changed.extend(self.mails.get(id).filter(|_| is_other).map(|mail| mail.row(*id)));
            !is_other
        });
        for DeliveredMail { id, .. } in &asked.delivered {
            let submission = self.mails.get(id).map(|mail| mail.submission);
            let is_refused = refused.iter().any(|refused| refused.id == *id);
            self.poisoned.note(*id, submission.filter(|_| is_refused).map(|submission| submission.max(now)));
        }
        let mut is_as_claimed = |id: MailId, with_remote: bool| {
            let before = self.claimed.remove(&id);
            let now = self.mails.get(&id).map(|mail| mail.row(id));
            let (Some(before), Some(now)) = (before, now) else { return true };
            let is_same = is_same_message(&before, &now) && (!with_remote || before.remote == now.remote);
            changed.extend((!is_same).then_some(now));
            is_same
        };
        commit.delivered.retain(|mail| is_as_claimed(mail.id, false));
        commit.failed.retain(|attempt| is_as_claimed(attempt.id, true));
        commit.replaced.retain(|replacement| {
            let as_claimed: Vec<MailId> =
                replacement.originals.iter().copied().filter(|id| is_as_claimed(*id, true)).collect();
            let is_whole = as_claimed.len() == replacement.originals.len();
            if !is_whole {
                remaining.extend(as_claimed);
            }
            is_whole
        });
        // Also of bounces that others keep from being made; a verdict that is refused is tried again.
        let ended = asked.ids().filter(|id| !refused.iter().any(|refused| refused.id == *id));
        ended.for_each(|id| drop(self.claimed.remove(&id)));
        remaining.retain(|id| self.mails.contains_key(id));
        Sifted { commit, remaining, changed, refused }
    }

    /// Makes verdicts durable, with [these bounces](compose_bounces).
    pub(crate) fn commit(
        &mut self,
        commit: &Commit,
        composed: Vec<Bytes>,
        now: UnixTime,
    ) -> (StoreReply, Effects) {
        self.release(&commit.ids().collect::<Vec<_>>());
        commit.flights.iter().for_each(|mark| self.flights.note(mark));
        let mut effects = Effects::default();
        for mail in &commit.delivered {
            self.mails.remove(&mail.id);
        }
        let mut late = Vec::new();
        for failed in &commit.failed {
            if let Some(mail) = self.mails.get_mut(&failed.id) {
                match failed.charge {
                    Charge::Counts => {}
                    Charge::Early => continue,
                    Charge::Holds => {
                        mail.hold = Hold::Held;
                        continue;
                    }
                }
                let before = mail.faillog.iter().map(|attempt| attempt.time).max();
                let (attempt, text) = (&failed.attempt, failed.text().into_bytes().into());
                mail.faillog.push(FaillogRow { time: attempt.at, text, fatal: attempt.is_fatal() });
                mail.last_failure = Some((attempt.at, attempt.facts().into()));
                let row = mail.row(failed.id);
                if commit.warnings.as_ref().is_some_and(|warnings| warnings.is_due(before, &row)) {
                    late.push(failed.id);
                }
            }
        }
        for originals in self.messages_of(&late) {
            self.warn(commit.warnings.as_deref(), originals, now, &mut effects);
        }
        let (mut not_replaced, mut bounces) = (Vec::new(), Vec::new());
        for (replacement, data) in commit.replaced.iter().zip(composed) {
            let mut inserted = Vec::new();
            let exists = |id: &&MailId| self.mails.contains_key(id);
            let existing: Vec<MailId> = replacement.originals.iter().filter(exists).copied().collect();
            if existing.len() < replacement.originals.len() {
                not_replaced.extend(existing);
                bounces.push(inserted);
                continue;
            }
            for id in &existing {
                self.mails.remove(id);
            }
            let digest = Digest::default();
            for recipient in replacement.bounce.iter().flat_map(|bounce| &bounce.recipients) {
                let data = data.clone();
                let recipient = recipient.clone();
                let id = self.insert_notice(recipient, data, now, &digest);
                inserted.push(id);
                effects.bounces.push((id, existing.clone()));
            }
            bounces.push(inserted);
        }
        let row = |id: MailId| self.mails.get(&id).map(|mail| mail.row(id));
        let failed = commit.failed.iter().filter_map(|attempt| row(attempt.id)).collect();
        (
            StoreReply::Committed(Committed {
                failed,
                not_replaced,
                changed: Vec::new(),
                bounces,
                refused: Vec::new(),
                not_noted: Vec::new(),
                warned: effects
                    .warnings
                    .iter()
                    .map(|(warning, originals)| Warned { originals: originals.clone(), warning: *warning })
                    .collect(),
                is_unmarked: false,
            }),
            effects,
        )
    }

    /// Groups mail by message.
    fn messages_of(&self, ids: &[MailId]) -> Vec<Vec<MailId>> {
        let mut messages: BTreeMap<(Option<Bytes>, Bytes), Vec<MailId>> = BTreeMap::new();
        for (id, mail) in self.existing(ids) {
            messages.entry((mail.sender.clone(), mail.data.clone())).or_default().push(id);
        }
        messages.into_values().collect()
    }

    /// Tells the sender of a message that it is late.
    fn warn(
        &mut self,
        warnings: Option<&DelayWarnings>,
        originals: Vec<MailId>,
        now: UnixTime,
        effects: &mut Effects,
    ) {
        let mails: Vec<FailedMail> = self
            .existing(&originals)
            .map(|(id, mail)| FailedMail { row: mail.row(id), attempts: mail.faillog.clone() })
            .collect();
        let original = originals.first().and_then(|id| self.mail(*id)).map(|mail| mail.data.clone());
        let original = original.unwrap_or_default();
        let message = FailedMessage { mails, data_octets: original.len() as u64, original };
        let Some(NewWarning { recipient, data }) = warnings.and_then(|warnings| warnings.warning(&message))
        else {
            return;
        };
        let id = self.insert_notice(recipient, data, now, &Digest::default());
        effects.warnings.push((id, originals));
    }

    /// Inserts mail of the daemon's own.
    fn insert_notice(&mut self, recipient: Bytes, data: Bytes, now: UnixTime, digest: &Digest) -> MailId {
        self.insert(Mail {
            remote: None,
            sender: None,
            recipient,
            submission: now,
            data,
            faillog: vec![],
            last_failure: None,
            hold: Hold::Unset,
            digest: Arc::clone(digest),
        })
    }

    fn insert(&mut self, mail: Mail) -> MailId {
        self.last_id += 1;
        let id = MailId(self.last_id);
        self.mails.insert(id, mail);
        id
    }

    fn scan(&self, after: Cursor, limit: u32) -> StoreReply {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut found = after.next_id().into_iter().flat_map(|first| self.mails.range(first..));
        let ids: Vec<MailId> = found.by_ref().take(limit).map(|(&id, _)| id).collect();
        let next = found.next().and(ids.last()).map(|id| Cursor::After(*id));
        let (taken, ids): (Vec<MailId>, Vec<MailId>) = ids.into_iter().partition(|id| self.is_stuck(*id));
        let (lost, ids): (Vec<MailId>, Vec<MailId>) =
            ids.into_iter().partition(|id| self.poisoned.get(*id) == Some(Poison::Find));
        StoreReply::Scanned(Scanned {
            rows: self.existing(&ids).map(|(id, mail)| mail.row(id)).collect(),
            taken,
            unreadable: self.poisoned.sift(&lost).1,
            next,
            data_version: self.data_version,
        })
    }

    fn claim(&self, ids: &[MailId], limit: usize, recipients: usize) -> StoreReply {
        let mut transactions: Vec<ClaimedTransaction> = Vec::new();
        let (ids, unreadable) = self.poisoned.sift(ids);
        let mut left_over = Vec::new();
        let mut heads_octets = 0;
        for (id, mail) in self.untaken(&ids) {
            let row = mail.row(id);
            let of_message = |transaction: &&mut ClaimedTransaction| {
                transaction.rows.len() < recipients
                    && transaction.rows.first().is_some_and(|first| {
                        first.sender == row.sender
                            && self.mails.get(&first.id).is_some_and(|other| other.data == mail.data)
                    })
            };
            if let Some(transaction) = transactions.iter_mut().find(of_message) {
                transaction.rows.push(row);
                continue;
            }
            let head = mail.data.slice(..mail.data.len().min(DATA_CHUNK_OCTETS));
            let is_too_much = transactions.len() >= limit || heads_octets + head.len() > CLAIM_BUDGET_OCTETS;
            if !transactions.is_empty() && is_too_much {
                left_over.push(LeftOver { id, message: Some(digest(&mail.data)) });
                continue;
            }
            heads_octets += head.len();
            let data_octets = mail.data.len() as u64;
            transactions.push(ClaimedTransaction { rows: vec![row], data_octets, head });
        }
        StoreReply::Claimed(Claimed { transactions, left_over, unreadable })
    }

    fn piece(&self, id: MailId, offset: u64, limit: u32) -> Bytes {
        let Some(mail) = self.mails.get(&id) else { return Bytes::new() };
        if self.claimed.get(&id).is_some_and(|before| !is_same_message(before, &mail.row(id))) {
            return Bytes::new();
        }
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(mail.data.len());
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        mail.data.slice(begin..begin.saturating_add(limit).min(mail.data.len()))
    }

    fn read_failed(&self, ids: &[MailId], original_limit_octets: u64) -> StoreReply {
        let mut messages: Vec<(Bytes, FailedMessage)> = Vec::new();
        let (ids, unreadable) = self.poisoned.sift(ids);
        let mut left_over = Vec::new();
        let mut originals_octets = 0;
        for (id, mail) in self.existing(&ids) {
            let skipped = mail.faillog.len().saturating_sub(ATTEMPT_LIMIT);
            let attempts = mail.faillog.iter().skip(skipped).cloned().collect();
            let failed = FailedMail { row: mail.row(id), attempts };
            let of_message = |message: &&mut (Bytes, FailedMessage)| {
                message.0 == mail.data
                    && message.1.mails.first().is_some_and(|first| first.row.sender == failed.row.sender)
            };
            if let Some((_, message)) = messages.iter_mut().find(of_message) {
                message.mails.push(failed);
                continue;
            }
            let data_octets = mail.data.len() as u64;
            let needed = needed_octets(&mail.data, data_octets, original_limit_octets);
            let original = mail.data.slice(..usize::try_from(needed).unwrap_or(usize::MAX));
            if !messages.is_empty() && originals_octets + original.len() > FAILED_BUDGET_OCTETS {
                left_over.push(id);
                continue;
            }
            originals_octets += original.len();
            let message = FailedMessage { mails: vec![failed], data_octets, original };
            messages.push((mail.data.clone(), message));
        }
        let messages = messages.into_iter().map(|(_, message)| message).collect();
        StoreReply::Failed { messages, left_over, unreadable }
    }

    /// Those that exist, without what servers have taken.
    fn untaken<'a>(&'a self, ids: &'a [MailId]) -> impl Iterator<Item = (MailId, &'a Mail)> {
        self.existing(ids).filter(|(id, _)| !self.is_stuck(*id))
    }

    fn existing<'a>(&'a self, ids: &'a [MailId]) -> impl Iterator<Item = (MailId, &'a Mail)> {
        ids.iter().filter_map(|&id| self.mails.get(&id).map(|mail| (id, mail)))
    }
}

/// Returns whether a row stands for the same message and recipient as before.
fn is_same_message(before: &Row, now: &Row) -> bool {
    (&before.sender, &before.recipient, before.data_octets) == (&now.sender, &now.recipient, now.data_octets)
}

#[cfg(test)]
mod tests;
