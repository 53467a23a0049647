//! The mail that the database holds for this dispatcher: it has answered a claim, and has got neither a verdict nor a release.
//!
//! Mail that is given up between two requests is released together. The release comes before the next request, so that it never reaches
//! the database after a later claim of the same mail.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::books::Books;
use crate::event::MailFacts;
use crate::io::Output;
use crate::outbox::MailId;
use crate::queue::QueueState;

/// The mail that the database holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// With what is known of it, for those who are told of it.
    mails: BTreeMap<MailId, MailFacts>,
    /// Mail that was given up since the last release.
    given_up: Vec<MailId>,
}

impl Held {
    /// Records that the database holds mail: it has answered a claim with it.
    pub(super) fn begin(&mut self, mails: impl IntoIterator<Item = (MailId, MailFacts)>) {
        self.mails.extend(mails);
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
        self.mails.get(&id).cloned().unwrap_or_default()
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
            self.held.give_up(id);
        }
    }

    /// Releases the mail whose verdicts are set aside, at the end of the program: the next one finds it again.
    pub(super) fn release_set_aside(&mut self) {
        let Self { held, set_aside, .. } = self;
        set_aside.with_verdicts().for_each(|id| held.give_up(id));
        self.release();
    }

    /// Releases what was given up.
    pub(super) fn release(&mut self) {
        if !self.held.is_released() {
            let ids = core::mem::take(&mut self.held.given_up);
            self.output(Output::Release(ids));
        }
    }
}
