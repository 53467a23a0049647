//! The outbox of the tests: what it may do wrong, and what was asked of it.

use core::ops::Index;
use std::collections::BTreeSet;

use super::*;
use crate::flight::Cargo;
pub(super) use crate::memory_outbox::Mail;
use crate::memory_outbox::{Flaw, GivenOrder, MemoryOutbox};
use crate::order::{OrderId, OrderVerb};
use crate::outbox::{Claimed, Commit, Committed, DATA_CHUNK_OCTETS, DeliveredMail, Scanned};
use crate::sts::StoredPolicy;

/// The mail, by the numbers of its ids.
#[derive(Debug, Default)]
pub(super) struct Mails(MemoryOutbox);

impl Mails {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains_key(&self, id: &i64) -> bool {
        self.0.mail(MailId(*id)).is_some()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = i64> {
        self.0.mails().map(|(id, _)| id.0)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Mail> {
        self.0.mails().map(|(_, mail)| mail)
    }

    pub(super) fn get_mut(&mut self, id: &i64) -> Option<&mut Mail> {
        self.0.mail_mut(MailId(*id))
    }

    pub(super) fn insert(&mut self, id: i64, mail: Mail) {
        self.0.put(MailId(id), mail);
    }

    pub(super) fn remove(&mut self, id: &i64) -> Option<Mail> {
        self.0.remove(MailId(*id))
    }

    pub(super) fn clear(&mut self) {
        self.keys().collect::<Vec<_>>().iter().for_each(|id| drop(self.remove(id)));
    }
}

impl Index<&i64> for Mails {
    type Output = Mail;

    fn index(&self, id: &i64) -> &Mail {
        self.0.mail(MailId(*id)).unwrap()
    }
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) mails: Mails,
    pub(super) last_id: i64,
    /// Whether the test gives other answers than it has got from here.
    pub(super) is_misquoted: bool,
    /// Changes when a test says so, and not with each change of the mail: that may be seen late.
    pub(super) data_version: i64,
    /// Kinds of requests that fail, and how often still.
    pub(super) failing: BTreeMap<&'static str, u32>,
    /// Why they fail, if the database is not locked.
    pub(super) trouble: Option<StoreTrouble>,
    /// Everything that was asked, by kind.
    pub(super) asked: BTreeMap<&'static str, u32>,
    /// What was released at a time.
    pub(super) releases: Vec<Vec<i64>>,
    pub(super) deleted: Vec<i64>,
    pub(super) replaced: Vec<i64>,
    pub(super) largest_data_octets: usize,
    /// Rows that claims were about, each as often as it was asked for.
    pub(super) claimed_rows: usize,
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
    /// True if such mail is noted when it was taken.
    pub(super) notes_taken: bool,
    /// Mail that can be indexed, but not be read to be sent.
    pub(super) unreadable: BTreeSet<i64>,
    /// Mail on a page that cannot be read, so that it is not even found.
    pub(super) lost: BTreeSet<i64>,
    had_flaws: bool,
    /// True if nothing of policies can be stored.
    pub(super) lacks_policies: bool,
}

pub(super) fn kind(request: &StoreRequest) -> &'static str {
    match request {
        // The walk over known rows takes smaller steps than the look for new ones.
        StoreRequest::Scan { limit: ..4096, .. } => "rescan",
        StoreRequest::Scan { .. } => "scan",
        StoreRequest::Claim { .. } => "claim",
        StoreRequest::ReadData { .. } => "data",
        // Nothing but what connections send next.
        StoreRequest::Commit(commit) if commit.has_no_verdict() => "mark",
        StoreRequest::Commit(_) => "commit",
        StoreRequest::ReadFailed { .. } => "failed",
        StoreRequest::Recall { .. } => "recall",
        StoreRequest::ReadOrders { .. } => "orders",
        StoreRequest::CarryOut(_) => "step",
        StoreRequest::Recover { .. } => "recover",
        StoreRequest::ReadPolicy(_) => "policy",
        StoreRequest::ReadStalePolicies { .. } => "stale",
    }
}

impl Outbox {
    pub(super) fn insert(&mut self, mail: Mail) -> i64 {
        self.last_id = self.mails.0.insert(mail).unwrap().0;
        self.last_id
    }

    /// A server has taken a mail, which could not be deleted.
    pub(super) fn take(&mut self, id: i64) {
        self.mails.0.set_flaw(MailId(id), Some(Flaw::Unrecordable));
        let commit = Commit { delivered: vec![MailId(id).into()], ..Commit::default() };
        self.mails.0.answer(StoreRequest::Commit(commit)).unwrap();
    }

    /// Lets one answer bring at most this much of mail data, beside its first message.
    pub(super) fn set_budget(&mut self, octets: usize) {
        self.mails.0.set_budget(octets);
    }

    /// Returns how much mail is noted as taken.
    pub(super) fn taken(&self) -> usize {
        self.mails.0.taken().count()
    }

    fn is_taken(&self, id: MailId) -> bool {
        self.mails.0.taken().any(|taken| taken == id)
    }

    pub(super) fn answer(&mut self, request: StoreRequest) -> Result<StoreReply, StoreError> {
        let kind = kind(&request);
        *self.asked.entry(kind).or_default() += 1;
        if let Some(times) = self.failing.get_mut(kind).filter(|times| **times > 0) {
            *times -= 1;
            let (trouble, text) = match self.trouble {
                None | Some(StoreTrouble::Busy) => (StoreTrouble::Busy, "the database is locked"),
                Some(trouble) => (trouble, "the database is broken"),
            };
            return Err(StoreError { trouble, text: text.into() });
        }
        self.set_flaws(&request);
        if !self.is_misquoted {
            self.mails.0.check(&request);
        }
        if let StoreRequest::Commit(commit) = request {
            return self.commit(commit);
        }
        match &request {
            StoreRequest::Claim { ids, .. } => self.claimed_rows += ids.len(),
            StoreRequest::ReadData { limit, .. } => assert!(*limit as usize <= DATA_CHUNK_OCTETS),
            StoreRequest::Scan { .. }
            | StoreRequest::Commit(_)
            | StoreRequest::ReadFailed { .. }
            | StoreRequest::Recall { .. }
            | StoreRequest::ReadOrders { .. }
            | StoreRequest::CarryOut(_)
            | StoreRequest::ReadPolicy(_)
            | StoreRequest::ReadStalePolicies { .. }
            | StoreRequest::Recover { .. } => {}
        }
        let mut reply = self.mails.0.answer(request)?;
        self.read(&mut reply);
        Ok(reply)
    }

    pub(super) fn release(&mut self, ids: &[MailId]) {
        if !self.is_misquoted {
            self.mails.0.check_release(ids);
        }
        self.mails.0.release(ids);
        self.releases.push(ids.iter().map(|id| id.0).collect());
    }

    /// Gives an order.
    pub(super) fn order(&mut self, verb: OrderVerb, mails: impl IntoIterator<Item = i64>) -> OrderId {
        self.data_version += 1;
        self.mails.0.order(GivenOrder::new(verb, mails.into_iter().map(MailId)))
    }

    /// What has come of an order, if it is done.
    pub(super) fn result(&self, number: OrderId) -> Option<&str> {
        self.mails.0.orders().find(number)?.result.as_deref()
    }

    /// The MTA-STS policies.
    pub(super) fn policies(&self) -> impl Iterator<Item = &StoredPolicy> {
        self.mails.0.policies()
    }

    pub(super) fn delete_policies(&mut self) {
        for domain in self.policies().map(|stored| stored.domain.clone()).collect::<Vec<_>>() {
            self.mails.0.remove_policy(&domain);
        }
    }

    /// Makes all MTA-STS policies unreadable.
    pub(super) fn garble_policies(&mut self) {
        for stored in self.policies().cloned().collect::<Vec<_>>() {
            self.mails.0.put_policy(StoredPolicy { text: "garbled".into(), ..stored });
        }
    }

    /// The mail of each flight that is noted.
    pub(super) fn noted(&self) -> Vec<Vec<i64>> {
        let ids = |cargo: &Cargo| cargo.mails.iter().map(|id| id.0).collect();
        self.mails.0.flights().cargos().map(ids).collect()
    }

    /// The mail that is held.
    pub(super) fn held(&self) -> Vec<MailId> {
        self.mails.0.held().collect()
    }

    fn set_flaws(&mut self, request: &StoreRequest) {
        let has_flaws = [&self.poisoned, &self.unreadable, &self.lost].iter().any(|ids| !ids.is_empty());
        if !has_flaws && !self.had_flaws {
            return;
        }
        self.had_flaws = has_flaws;
        let reads_to_send = matches!(request, StoreRequest::Claim { .. } | StoreRequest::Recall { .. });
        let of_poisoned = if self.notes_taken { Flaw::Unrecordable } else { Flaw::Unnotable };
        for id in self.mails.keys().collect::<Vec<_>>() {
            let is_unreadable = self.lost.contains(&id) || (reads_to_send && self.unreadable.contains(&id));
            let flaw = if is_unreadable {
                Some(Flaw::Unreadable)
            } else {
                self.poisoned.contains(&id).then_some(of_poisoned)
            };
            self.mails.0.set_flaw(MailId(id), flaw);
        }
    }

    fn read(&mut self, reply: &mut StoreReply) {
        match reply {
            StoreReply::Scanned(Scanned { data_version, .. }) => *data_version = self.data_version,
            StoreReply::Claimed(Claimed { transactions, .. }) => {
                let heads = transactions.iter().map(|transaction| transaction.head.len()).sum();
                self.largest_data_octets = self.largest_data_octets.max(heads);
            }
            StoreReply::Data(octets) if self.data_is_gone => octets.clear(),
            StoreReply::Failed { messages, .. } => {
                self.originals_octets += messages.iter().map(|message| message.original.len()).sum::<usize>();
                self.most_originals_octets = self.most_originals_octets.max(self.originals_octets);
            }
            StoreReply::Data(_)
            | StoreReply::Committed(_)
            | StoreReply::Recalled { .. }
            | StoreReply::Recovered(_)
            | StoreReply::Orders(_)
            | StoreReply::CarriedOut(_)
            | StoreReply::Policy(_)
            | StoreReply::StalePolicies(_) => {}
        }
    }

    fn commit(&mut self, mut commit: Commit) -> Result<StoreReply, StoreError> {
        // Of what an earlier process has sent nothing is known but its note.
        let is_other = |mail: &DeliveredMail| mail.attempt.is_none() && !self.is_taken(mail.id);
        let successors: Vec<DeliveredMail> = commit.delivered.extract_if(.., |mail| is_other(mail)).collect();
        self.most_replaced = self.most_replaced.max(commit.replaced.len());
        let recorded = commit.replaced.iter().filter_map(|replacement| replacement.bounce.as_ref());
        let recorded = recorded.map(|bounce| bounce.order.message.original.len()).sum::<usize>();
        // Bounces of several next hops may share one.
        self.originals_octets = self.originals_octets.saturating_sub(recorded);
        for id in commit.delivered.iter().map(|mail| mail.id).filter(|_| self.is_meddled_with) {
            if let Some(mail) = self.mails.get_mut(&id.0) {
                mail.recipient = [&b"x"[..], &mail.recipient].concat().into();
            }
        }
        let delivered: Vec<i64> = commit.delivered.iter().map(|mail| mail.id.0).collect();
        let originals = commit.replaced.iter().flat_map(|replacement| &replacement.originals).map(|id| id.0);
        let originals: Vec<i64> = originals.filter(|id| self.mails.contains_key(id)).collect();
        assert!(!delivered.iter().any(|id| originals.contains(id)), "delivered and given up");
        if self.lacks_policies {
            commit.policies.clear();
        }
        let mut reply = self.mails.0.answer(StoreRequest::Commit(commit))?;
        if let StoreReply::Committed(Committed { bounces, changed, refused, lacks_policies, .. }) = &mut reply
        {
            *lacks_policies = self.lacks_policies;
            let rows = successors
                .iter()
                .filter_map(|DeliveredMail { id, .. }| Some(self.mails.0.mail(*id)?.row(*id)));
            changed.extend(rows);
            let is_left = |id: &i64| {
                changed.iter().any(|row| row.id.0 == *id) || refused.iter().any(|refused| refused.id.0 == *id)
            };
            self.deleted.extend(delivered.into_iter().filter(|id| !is_left(id)));
            self.replaced.extend(originals.into_iter().filter(|id| !self.mails.contains_key(id)));
            self.last_id = bounces.iter().flatten().map(|id| id.0).fold(self.last_id, i64::max);
        }
        Ok(reply)
    }
}
