//! Tells senders that their mail was delivered, where they want to know it and the server does not tell them (RFC 3461 section 5.2.2).
//!
//! The database makes the report in the transaction that deletes the mail, so that each is made exactly once.

use alloc::sync::Arc;

use crate::address::Mailbox;
use crate::attempt::{Acceptance, Attempt};
use crate::bounce::compose_relayed;
use crate::outbox::{FailedMessage, NewNotice};
use crate::rng::{Rng, Seed};
use crate::time::UnixTime;

/// How reports are made of the deliveries of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayReports {
    /// The name of this host.
    pub announce: Arc<str>,
    /// The address in From.
    pub bounce_from: Arc<str>,
    /// The time.
    pub now: UnixTime,
    /// The source of all randomness in them.
    pub seed: Seed,
}

impl RelayReports {
    /// Returns the report of the attempt that has delivered a mail. Returns `None` for mail without a valid sender.
    pub fn report(&self, attempt: &Attempt<Acceptance>, message: &FailedMessage) -> Option<NewNotice> {
        let first = &message.mails.first()?.row;
        let recipient = first.sender.clone().filter(|sender| Mailbox::parse(sender).is_ok())?;
        // The reports of one commit have one seed, and must differ.
        let mut rng = Rng::for_mail(&self.seed, first.id);
        let (announce, bounce_from) = (&self.announce, &self.bounce_from);
        let data = compose_relayed(attempt, announce, bounce_from, message, self.now, &mut rng)?;
        Some(NewNotice { recipient, data })
    }
}
