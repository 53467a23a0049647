//! An outbox in memory that answers requests as the documentation of [`crate::outbox`] says.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::bounce::needed_octets;
use crate::outbox::{
    Attempt, CLAIM_BUDGET_OCTETS, ClaimedTransaction, Commit, Cursor, DATA_CHUNK_OCTETS,
    FAILED_BUDGET_OCTETS, FailState, FailedMail, FailedMessage, Refused, Row, is_null_path,
};

/// A row and its faillog.
#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub(super) remote: Option<String>,
    pub(super) sender: Option<String>,
    pub(super) recipient: String,
    pub(super) data: Bytes,
    pub(super) submission: UnixTime,
    pub(super) faillog: Vec<Attempt>,
}

impl Mail {
    pub(super) fn row(&self, id: i64) -> Row {
        let octets = |text: &String| Bytes::copy_from_slice(text.as_bytes());
        Row {
            id: MailId(id),
            remote: self.remote.as_ref().map(octets),
            sender: self.sender.as_ref().filter(|sender| !is_null_path(sender.as_bytes())).map(octets),
            recipient: octets(&self.recipient),
            data_octets: self.data.len() as u64,
            fail_count: u32::try_from(self.faillog.len()).unwrap(),
            last_try: self.faillog.iter().map(|attempt| attempt.time).max().unwrap_or_default(),
            fatal: self.faillog.iter().any(|attempt| attempt.fatal),
        }
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.faillog.iter().map(|attempt| String::from_utf8_lossy(&attempt.text).into()).collect()
    }
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) mails: BTreeMap<i64, Mail>,
    pub(super) last_id: i64,
    pub(super) data_version: i64,
    /// Kinds of requests that fail, and how often still.
    pub(super) failing: BTreeMap<&'static str, u32>,
    /// Everything that was asked, by kind.
    pub(super) asked: BTreeMap<&'static str, u32>,
    pub(super) deleted: Vec<i64>,
    pub(super) replaced: Vec<i64>,
    pub(super) largest_data_octets: usize,
    /// Originals of failed mail that were read, and not recorded yet.
    pub(super) originals_octets: usize,
    /// Most of them at any time, and most replacements of one commit.
    pub(super) most_originals_octets: usize,
    pub(super) most_replaced: usize,
    /// Pieces of data come with the wrong content from now on, as if the mail had vanished.
    pub(super) data_is_gone: bool,
    /// Another program gives mail another recipient while it is sent.
    pub(super) is_meddled_with: bool,
    /// Mail of which another program lets nothing be recorded.
    pub(super) poisoned: BTreeSet<i64>,
    /// Mail that cannot be read.
    pub(super) unreadable: BTreeSet<i64>,
    /// Mail on a page that cannot be read, so that it is not even found.
    pub(super) lost: BTreeSet<i64>,
    /// Mail that was taken, and noted because it could not be deleted; nothing is noted if that is impossible, too.
    pub(super) stuck: Option<BTreeSet<i64>>,
    /// What mail was when it was claimed, recalled, or read for a bounce.
    claimed: BTreeMap<MailId, Row>,
}

pub(super) fn kind(request: &StoreRequest) -> &'static str {
    match request {
        // The walk over known rows takes smaller steps than the look for new ones.
        StoreRequest::Scan { limit: ..4096, .. } => "walk",
        StoreRequest::Scan { .. } => "scan",
        StoreRequest::Claim { .. } => "claim",
        StoreRequest::ReadData { .. } => "data",
        StoreRequest::Commit(_) => "commit",
        StoreRequest::ReadFailed { .. } => "failed",
        StoreRequest::Recall { .. } => "recall",
    }
}

impl Outbox {
    pub(super) fn insert(&mut self, mail: Mail) -> i64 {
        self.last_id += 1;
        self.mails.insert(self.last_id, mail);
        self.last_id
    }

    pub(super) fn answer(&mut self, request: StoreRequest) -> Result<StoreReply, StoreError> {
        let kind = kind(&request);
        *self.asked.entry(kind).or_default() += 1;
        if let Some(times) = self.failing.get_mut(kind).filter(|times| **times > 0) {
            *times -= 1;
            return Err(StoreError { trouble: StoreTrouble::Busy, text: "the database is locked".into() });
        }
        Ok(match request {
            StoreRequest::Scan { after, limit } => self.scan(after, limit as usize),
            StoreRequest::Claim { ids, transactions } => self.claim(&ids, transactions),
            StoreRequest::ReadData { id, offset, limit } => {
                assert!(limit as usize <= DATA_CHUNK_OCTETS);
                let data = self.mails.get(&id.0).map(|mail| mail.data.clone()).unwrap_or_default();
                let begin = data.len().min(offset as usize);
                let end = data.len().min(begin + limit as usize);
                StoreReply::Data(if self.data_is_gone { Bytes::new() } else { data.slice(begin..end) })
            }
            StoreRequest::Commit(commit) => self.commit(commit),
            StoreRequest::Recall { ids } => self.recall(&ids),
            StoreRequest::ReadFailed { ids, original_limit_octets } => {
                self.read_failed(&ids, original_limit_octets as usize)
            }
        })
    }

    fn scan(&self, after: Cursor, limit: usize) -> StoreReply {
        let (mut rows, mut unreadable, mut next) = (Vec::new(), Vec::new(), None);
        for (&id, mail) in self.mails.range(after.next_id().map_or(i64::MAX, |first| first.0)..) {
            if Cursor::After(MailId(id)) <= after || self.stuck.iter().any(|stuck| stuck.contains(&id)) {
                continue;
            }
            if rows.len() + unreadable.len() == limit {
                next = Some(Cursor::After(MailId(id - 1)));
                break;
            }
            match self.lost.contains(&id) {
                true => unreadable.push(refused(MailId(id))),
                false => rows.push(mail.row(id)),
            }
        }
        let taken = self.stuck.iter().flatten().map(|&id| MailId(id)).collect();
        StoreReply::Rows { rows, taken, unreadable, next, data_version: self.data_version }
    }

    fn claim(&mut self, ids: &[MailId], limit: usize) -> StoreReply {
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "each id once");
        let mut transactions: Vec<(Option<String>, Bytes, ClaimedTransaction)> = Vec::new();
        let (mut left_over, mut unreadable, mut budget) = (Vec::new(), Vec::new(), 0);
        for &id in ids {
            let Some(mail) = self.mails.get(&id.0) else { continue };
            if self.unreadable.contains(&id.0) || self.lost.contains(&id.0) {
                unreadable.push(refused(id));
                continue;
            }
            let fitting = transactions.iter_mut().find(|(sender, data, transaction)| {
                *sender == mail.sender
                    && *data == mail.data
                    && transaction.rows.len() < TRANSACTION_RECIPIENT_LIMIT
            });
            if let Some((_, _, transaction)) = fitting {
                transaction.rows.push(mail.row(id.0));
                continue;
            }
            let head = mail.data.slice(..mail.data.len().min(DATA_CHUNK_OCTETS));
            let is_too_much = transactions.len() >= limit || budget + head.len() > CLAIM_BUDGET_OCTETS;
            if is_too_much && !transactions.is_empty() {
                left_over.push(id);
                continue;
            }
            budget += head.len();
            let data_octets = mail.data.len() as u64;
            let transaction = ClaimedTransaction { rows: vec![mail.row(id.0)], data_octets, head };
            transactions.push((mail.sender.clone(), mail.data.clone(), transaction));
        }
        self.largest_data_octets = self.largest_data_octets.max(budget);
        let transactions: Vec<_> = transactions.into_iter().map(|(_, _, transaction)| transaction).collect();
        let rows = transactions.iter().flat_map(|transaction| &transaction.rows);
        self.claimed.extend(rows.map(|row| (row.id, row.clone())));
        StoreReply::Claimed { transactions, left_over, unreadable }
    }

    fn recall(&mut self, ids: &[MailId]) -> StoreReply {
        let existing = ids.iter().filter_map(|&id| Some((id, self.mails.get(&id.0)?)));
        let (broken, whole): (Vec<_>, Vec<_>) = existing.partition(|(id, _)| self.unreadable.contains(&id.0));
        let rows: Vec<Row> = whole.into_iter().map(|(id, mail)| mail.row(id.0)).collect();
        let unreadable = broken.into_iter().map(|(id, _)| refused(id)).collect();
        self.claimed.extend(rows.iter().map(|row| (row.id, row.clone())));
        StoreReply::Recalled { rows, unreadable }
    }

    /// Takes what stands now where other mail was claimed.
    fn take_changed(&mut self, id: MailId, changed: &mut Vec<Row>, is_same: fn(&Row, &Row) -> bool) -> bool {
        let before = self.claimed.remove(&id);
        let now = self.mails.get(&id.0).map(|mail| mail.row(id.0));
        let (Some(before), Some(now)) = (before, now) else { return false };
        let is_changed = !is_same(&before, &now);
        changed.extend(is_changed.then_some(now));
        is_changed
    }

    fn commit(&mut self, mut commit: Commit) -> StoreReply {
        self.most_replaced = self.most_replaced.max(commit.replaced.len());
        let recorded = commit.replaced.iter().filter_map(|replacement| replacement.bounce.as_ref());
        let recorded = recorded.map(|bounce| bounce.order.message.original.len()).sum::<usize>();
        // Bounces of several next hops may share one.
        self.originals_octets = self.originals_octets.saturating_sub(recorded);
        let mut changed = Vec::new();
        for id in commit.delivered.iter().filter(|_| self.is_meddled_with) {
            self.mails.entry(id.0).and_modify(|mail| mail.recipient.insert(0, 'x'));
        }
        let is_same_message = |before: &Row, now: &Row| {
            (&before.sender, &before.recipient, before.data_octets)
                == (&now.sender, &now.recipient, now.data_octets)
        };
        commit.delivered.retain(|id| !self.take_changed(*id, &mut changed, is_same_message));
        commit.failed.retain(|attempt| {
            !self.take_changed(attempt.id, &mut changed, |before, now| {
                (&before.remote, &before.sender, &before.recipient, before.data_octets)
                    == (&now.remote, &now.sender, &now.recipient, now.data_octets)
            })
        });
        let (refused, not_noted) = self.refuse(&mut commit);
        for id in commit.delivered {
            assert!(self.mails.remove(&id.0).is_none() || !self.replaced.contains(&id.0));
            self.deleted.push(id.0);
        }
        let mut failed = Vec::new();
        for attempt in commit.failed {
            let Some(mail) = self.mails.get_mut(&attempt.id.0) else { continue };
            let text = attempt.text.into_bytes().into();
            mail.faillog.push(Attempt { time: attempt.time, text, fatal: attempt.fatal });
            let row = mail.row(attempt.id.0);
            let Row { id, fail_count, last_try, fatal, .. } = row;
            failed.push(FailState { id, fail_count, last_try, fatal });
        }
        let (mut not_replaced, mut bounces) = (Vec::new(), Vec::new());
        for replacement in commit.replaced {
            bounces.push(Vec::new());
            let existing: Vec<MailId> =
                replacement.originals.iter().copied().filter(|id| self.mails.contains_key(&id.0)).collect();
            if existing.len() < replacement.originals.len() {
                not_replaced.extend(existing);
                continue;
            }
            for id in replacement.originals {
                self.mails.remove(&id.0);
                self.replaced.push(id.0);
            }
            let Some(bounce) = replacement.bounce else { continue };
            let data = crate::bounce::compose_ordered(&bounce.order).unwrap();
            for recipient in bounce.recipients {
                let id = self.insert(Mail {
                    remote: None,
                    sender: None,
                    recipient: String::from_utf8(recipient.into()).unwrap(),
                    data: data.clone(),
                    submission: UnixTime(0),
                    faillog: Vec::new(),
                });
                bounces.last_mut().unwrap().push(MailId(id));
            }
        }
        StoreReply::Committed { failed, not_replaced, changed, bounces, refused, not_noted }
    }

    /// Takes out of a commit what is not recorded.
    fn refuse(&mut self, commit: &mut Commit) -> (Vec<Refused>, Vec<MailId>) {
        let (mut ids, mut not_noted) = (Vec::new(), Vec::new());
        let poisoned = &self.poisoned;
        commit.delivered.retain(|id| {
            let is_poisoned = poisoned.contains(&id.0);
            if is_poisoned {
                ids.push(*id);
                match &mut self.stuck {
                    Some(stuck) => drop(stuck.insert(id.0)),
                    None => not_noted.push(*id),
                }
            } else if let Some(stuck) = &mut self.stuck {
                stuck.remove(&id.0);
            }
            !is_poisoned
        });
        let failed = commit.failed.extract_if(.., |attempt| poisoned.contains(&attempt.id.0));
        ids.extend(failed.map(|attempt| attempt.id));
        let replaced = commit
            .replaced
            .extract_if(.., |replacement| replacement.originals.iter().any(|id| poisoned.contains(&id.0)));
        ids.extend(replaced.flat_map(|replacement| replacement.originals));
        (ids.into_iter().map(refused).collect(), not_noted)
    }

    fn read_failed(&mut self, ids: &[MailId], limit: usize) -> StoreReply {
        let mut messages: Vec<(Option<String>, Bytes, FailedMessage)> = Vec::new();
        let (mut left_over, mut budget) = (Vec::new(), 0);
        for &id in ids {
            let Some(mail) = self.mails.get(&id.0) else { continue };
            let failed = FailedMail {
                row: self.claimed.entry(id).insert_entry(mail.row(id.0)).get().clone(),
                submission: mail.submission,
                attempts: mail.faillog.clone(),
            };
            let same =
                messages.iter_mut().find(|(sender, data, _)| *sender == mail.sender && *data == mail.data);
            if let Some((_, _, message)) = same {
                message.mails.push(failed);
                continue;
            }
            let needed = needed_octets(&mail.data, mail.data.len() as u64, limit as u64);
            let original = mail.data.slice(..needed as usize);
            if !messages.is_empty() && budget + original.len() > FAILED_BUDGET_OCTETS {
                left_over.push(id);
                continue;
            }
            budget += original.len();
            let message =
                FailedMessage { mails: vec![failed], data_octets: mail.data.len() as u64, original };
            messages.push((mail.sender.clone(), mail.data.clone(), message));
        }
        self.originals_octets += budget;
        self.most_originals_octets = self.most_originals_octets.max(self.originals_octets);
        let messages = messages.into_iter().map(|(_, _, message)| message).collect();
        StoreReply::Failed { messages, left_over, unreadable: Vec::new() }
    }
}

fn refused(id: MailId) -> Refused {
    Refused { id, text: format!("nothing can be done with mail {id}") }
}
