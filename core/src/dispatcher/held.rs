//! The mail that the database holds for this dispatcher: it has answered a claim, and has got neither a verdict nor a release.
//!
//! Mail that is given up between two requests is released together. The release comes before the next request, so that it never reaches
//! the database after a later claim of the same mail.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::books::Books;
use crate::bounce::message_id;
use crate::event::MailFacts;
use crate::outbox::{FailedMessage, MailId, Row};
use crate::queue::QueueState;
use crate::time::UnixTime;

/// The mail that the database holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    mails: BTreeMap<MailId, HeldMail>,
    /// Mail that was given up since the last release.
    given_up: Vec<MailId>,
}

/// A mail that the database holds, as it was claimed.
#[derive(Debug)]
struct HeldMail {
    row: Row,
    /// What is told of it.
    facts: MailFacts,
}

impl Held {
    /// Records that the database holds mail: it has answered a claim with it.
    pub(super) fn begin<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>, now: UnixTime) {
        for row in rows {
            let row = row.detached();
            self.mails.insert(row.id, HeldMail { facts: MailFacts::of(&row, now), row });
        }
    }

    /// Records the same of a message that has failed.
    pub(super) fn begin_failed(&mut self, message: &FailedMessage, now: UnixTime) {
        self.begin(message.mails.iter().map(|mail| &mail.row), now);
        let Some(message_id) = message_id(&message.original) else { return };
        for id in message.ids() {
            if let Some(held) = self.mails.get_mut(&id) {
                held.facts.message_id = Some(message_id.as_str().into());
            }
        }
    }

    /// Ends the hold of a mail whose verdict the database has recorded, which has ended it there too.
    pub(super) fn end_by_verdict(&mut self, id: MailId) {
        self.mails.remove(&id);
    }

    /// Gives up a mail, if it is held: the next release tells the database.
    pub(super) fn give_up(&mut self, id: MailId) {
        if self.mails.remove(&id).is_some() {
            self.given_up.push(id);
        }
    }

    pub(super) fn mails(&self) -> impl Iterator<Item = MailId> {
        self.mails.keys().copied()
    }

    /// Returns what is known of a mail; nothing but defaults if it is not held.
    pub(super) fn facts(&self, id: MailId) -> MailFacts {
        self.mails.get(&id).map(|held| held.facts.clone()).unwrap_or_default()
    }

    /// Returns the row of a mail as it was claimed, if it is held.
    pub(super) fn row(&self, id: MailId) -> Option<&Row> {
        self.mails.get(&id).map(|held| &held.row)
    }

    /// Takes the mail that was given up since the last release.
    pub(super) fn take_given_up(&mut self) -> Vec<MailId> {
        core::mem::take(&mut self.given_up)
    }

    /// Whether everything that was given up is released.
    pub(super) fn is_released(&self) -> bool {
        self.given_up.is_empty()
    }
}

impl Books {
    /// Gives up a mail that gets this state, unless its verdict is still to be recorded.
    pub(super) fn give_up_unless_kept(&mut self, id: MailId, state: QueueState) {
        let is_kept = match state {
            QueueState::Claimed => true,
            QueueState::SetAside => self.set_aside.awaits_verdict(id),
            QueueState::Waiting(_)
            | QueueState::Ready
            | QueueState::ReadyAgain
            | QueueState::GivenUp
            | QueueState::Held(_) => false,
        };
        if !is_kept {
            self.store.held.give_up(id);
        }
    }

    /// Releases the mail whose verdicts are set aside, at the end of the program: the next one finds it again.
    pub(super) fn release_set_aside(&mut self) {
        let Self { store, set_aside, .. } = self;
        set_aside.with_verdicts().for_each(|id| store.held.give_up(id));
        self.release();
    }

    /// Releases what was given up.
    pub(super) fn release(&mut self) {
        self.store.release(&mut self.outlet);
    }
}
