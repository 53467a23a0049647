//! Rows for which the database can do nothing: as if a trigger of another program, or a damaged page, were in the way.

use std::collections::{BTreeMap, BTreeSet};

use cmail_delivery::outbox::{Commit, MailId, Refused};

/// What cannot be done for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Poison {
    /// It cannot be deleted, nor can its failures be recorded.
    Record,
    /// It is found, and cannot be read.
    Read,
    /// It is not even found.
    Find,
}

/// What is wrong with rows, and what was noted because of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Poisoned {
    rows: BTreeMap<MailId, Poison>,
    /// Mail that was taken and cannot be deleted.
    stuck: BTreeSet<MailId>,
}

/// What is not recorded of a commit.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) refused: Vec<Refused>,
    /// Rows of bounces that others keep from being made.
    pub(crate) remaining: Vec<MailId>,
}

impl Poisoned {
    pub(crate) fn insert(&mut self, id: MailId, poison: Poison) {
        self.rows.insert(id, poison);
    }

    /// The row is gone, or is another one now.
    pub(crate) fn remove(&mut self, id: MailId) {
        self.rows.remove(&id);
        self.stuck.remove(&id);
    }

    /// Nothing is wrong any more.
    pub(crate) fn heal(&mut self) {
        self.rows.clear();
    }

    pub(crate) fn get(&self, id: MailId) -> Option<Poison> {
        self.rows.get(&id).copied()
    }

    pub(crate) fn is_stuck(&self, id: MailId) -> bool {
        self.stuck.contains(&id)
    }

    /// Those that can be read, of rows that are wanted.
    pub(crate) fn sift(&self, ids: &[MailId]) -> (Vec<MailId>, Vec<Refused>) {
        let is_broken = |id: &&MailId| matches!(self.get(**id), Some(Poison::Read | Poison::Find));
        let (broken, whole): (Vec<&MailId>, Vec<&MailId>) = ids.iter().partition(is_broken);
        (whole.into_iter().copied().collect(), broken.into_iter().map(|id| refused(*id)).collect())
    }

    /// Whether something of a commit cannot be recorded.
    pub(crate) fn concerns(&self, commit: &Commit) -> bool {
        let failed = commit.failed.iter().map(|attempt| &attempt.id);
        let replaced = commit.replaced.iter().flat_map(|replacement| &replacement.originals);
        commit.delivered.iter().chain(failed).chain(replaced).any(|id| self.get(*id) == Some(Poison::Record))
    }

    /// Takes out of a commit what is not recorded, and notes what was taken all the same.
    pub(crate) fn refuse(&mut self, commit: &mut Commit) -> Refusals {
        let Self { rows, stuck } = self;
        let is_refused = |id: &MailId| rows.get(id) == Some(&Poison::Record);
        let mut refusals = Refusals::default();
        commit.delivered.retain(|id| {
            if is_refused(id) {
                stuck.insert(*id);
                refusals.refused.push(refused(*id));
            } else {
                stuck.remove(id);
            }
            !is_refused(id)
        });
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
