//! The mails of a record, in the order in which they appeared.

use std::collections::{BTreeMap, BTreeSet};

use cmail_delivery::outbox::MailId;

use super::scene::RecordedMail;

/// The mails. There may be thousands, and each is looked up several times.
#[derive(Debug, Default)]
pub(super) struct Mails {
    list: Vec<RecordedMail>,
    positions: BTreeMap<MailId, usize>,
    /// The mails without a verdict.
    undecided: BTreeSet<usize>,
}

impl Mails {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn has_undecided(&self) -> bool {
        !self.undecided.is_empty()
    }

    pub(super) fn as_slice(&self) -> &[RecordedMail] {
        &self.list
    }

    pub(super) fn position(&self, id: MailId) -> Option<usize> {
        self.positions.get(&id).copied()
    }

    pub(super) fn get_mut(&mut self, position: usize) -> Option<&mut RecordedMail> {
        self.list.get_mut(position)
    }

    /// Adds a new mail, and returns its position.
    pub(super) fn push(&mut self, id: MailId, mail: RecordedMail) -> usize {
        let position = self.list.len();
        self.list.push(mail);
        self.positions.insert(id, position);
        self.undecided.insert(position);
        position
    }

    /// Notes that a mail has a verdict.
    pub(super) fn decide(&mut self, position: usize) {
        self.undecided.remove(&position);
    }
}
