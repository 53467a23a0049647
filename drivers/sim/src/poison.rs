//! Rows that the database cannot process, as if a trigger of another program or a damaged page were in the way.

use std::collections::BTreeMap;

use cmail_delivery::outbox::{Commit, MailId, Refused};
use cmail_delivery::time::UnixTime;

/// The operation that is impossible for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Poison {
    /// It cannot be deleted, nor can its failures be recorded.
    Record,
    /// It is found, and cannot be read.
    Read,
    /// It is not even found.
    Find,
}

/// The poisoned rows, and the notes made because of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Poisoned {
    rows: BTreeMap<MailId, Poison>,
    /// Mail that was taken and cannot be deleted, with the time of the note. A note concerns mail that was submitted by then.
    stuck: BTreeMap<MailId, UnixTime>,
}

/// The refused part of a commit.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) refused: Vec<Refused>,
    /// Originals whose bounces others prevent.
    pub(crate) remaining: Vec<MailId>,
}

impl Poisoned {
    pub(crate) fn insert(&mut self, id: MailId, poison: Poison) {
        self.rows.insert(id, poison);
    }

    /// Forgets a row: it is gone or replaced.
    pub(crate) fn remove(&mut self, id: MailId) {
        self.rows.remove(&id);
    }

    /// Removes all poison.
    pub(crate) fn heal(&mut self) {
        self.rows.clear();
    }

    pub(crate) fn get(&self, id: MailId) -> Option<Poison> {
        self.rows.get(&id).copied()
    }

    /// Returns the time of the note about a mail that was taken and could not be deleted, if there is one.
    pub(crate) fn noted(&self, id: MailId) -> Option<UnixTime> {
        self.stuck.get(&id).copied()
    }

    /// Notes that a mail was taken, or removes the note.
    pub(crate) fn note(&mut self, id: MailId, since: Option<UnixTime>) {
        match since {
            Some(since) => self.stuck.insert(id, since),
            None => self.stuck.remove(&id),
        };
    }

    /// Returns the readable ones of the wanted rows, and the refusals of the others.
    pub(crate) fn sift(&self, ids: &[MailId]) -> (Vec<MailId>, Vec<Refused>) {
        let is_broken = |id: &&MailId| matches!(self.get(**id), Some(Poison::Read | Poison::Find));
        let (broken, whole): (Vec<&MailId>, Vec<&MailId>) = ids.iter().partition(is_broken);
        (whole.into_iter().copied().collect(), broken.into_iter().map(|id| refused(*id)).collect())
    }

    /// Returns whether something of a commit cannot be recorded.
    pub(crate) fn concerns(&self, commit: &Commit) -> bool {
        commit.ids().any(|id| self.get(id) == Some(Poison::Record))
    }

    /// Removes from a commit what is not recorded.
    pub(crate) fn refuse(&self, commit: &mut Commit) -> Refusals {
        let is_refused = |id: &MailId| self.get(*id) == Some(Poison::Record);
        let mut refusals = Refusals::default();
        let delivered = commit.delivered.extract_if(.., |mail| is_refused(&mail.id));
        refusals.refused.extend(delivered.map(|mail| refused(mail.id)));
        let failed = commit.failed.extract_if(.., |attempt| is_refused(&attempt.id));
        refusals.refused.extend(failed.map(|attempt| refused(attempt.id)));
        let replaced = commit
            .replaced
            .extract_if(.., |replacement| replacement.originals.iter().any(is_refused))
            .flat_map(|replacement| replacement.originals);
        for id in replaced {
            match is_refused(&id) {
                true => refusals.refused.push(refused(id)),
                false => refusals.remaining.push(id),
            }
        }
        refusals
    }
}

fn refused(id: MailId) -> Refused {
    Refused { id, text: format!("nothing can be done for mail {id}") }
}
