//! Tells senders that their mail is late, while it is still tried.
//!
//! The database makes the warnings in the transaction that records a failed attempt, so that each is made exactly once. Whether one is due
//! is a pure function of the faillog: the failure is the first one since the mail has reached one of the ages. Nothing has to be
//! remembered for it.

use alloc::sync::Arc;

use crate::address::Mailbox;
use crate::bounce::compose_warning;
use crate::outbox::{FailedMessage, NewNotice, Row};
use crate::retry_rule::EARLIEST_SUBMISSION;
use crate::rng::{Rng, Seed};
use crate::schedule::{RetryState, RetryTerms};
use crate::time::{Duration, UnixTime};

/// How warnings are made of the failed attempts of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayWarnings {
    /// The ages at which a sender is told.
    pub ages: Arc<[Duration]>,
    /// The name of this host.
    pub announce: Arc<str>,
    /// The address in From.
    pub bounce_from: Arc<str>,
    /// The rules by which the mail is tried again, and the time.
    pub terms: RetryTerms,
    /// The source of all randomness in them.
    pub seed: Seed,
}

impl DelayWarnings {
    /// Returns whether the sender of a mail is to be told that it is late. `row` is the mail with the failure that has just been
    /// recorded; before that, it was last tried at `tried_before`, or never.
    pub fn is_due(&self, tried_before: Option<UnixTime>, row: &Row) -> bool {
        let Row { submission, last_try, .. } = *row;
        let has_reached = |age: &Duration| {
            let age_s = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
            let late = UnixTime(submission.0.saturating_add(age_s));
            late <= last_try && tried_before.is_none_or(|before| before < late)
        };
        submission >= EARLIEST_SUBMISSION
            && self.ages.iter().any(has_reached)
            // RFC 3461 section 5.2.5.
            && row.wishes.wants_delay()
            && row.sender.as_deref().is_some_and(|sender| Mailbox::parse(sender).is_ok())
            // Mail that is given up is bounced instead, and held mail is not tried.
            && matches!(
                self.terms.rules().retry_state(row, self.terms.now),
                RetryState::Due | RetryState::NotBefore(_)
            )
    }

    /// Returns the warning about a message, which names all recipients that it has here. Returns `None` for a message without
    /// recipient or sender.
    pub fn warning(&self, message: &FailedMessage) -> Option<NewNotice> {
        let first = &message.mails.first()?.row;
        let recipient = first.sender.clone()?;
        // The warnings of one commit have one seed, and must differ.
        let mut rng = Rng::for_mail(&self.seed, first.id);
        let (announce, bounce_from) = (&self.announce, &self.bounce_from);
        let data =
            compose_warning(announce, bounce_from, self.terms.rules(), message, self.terms.now, &mut rng)?;
        Some(NewNotice { recipient, data })
    }
}

#[cfg(test)]
mod tests;
