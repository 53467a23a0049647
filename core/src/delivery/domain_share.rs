//! The domains of the recipients that go on one connection, where the server accepts only some (RCPTDOMAINMAX, RFC 9422 section 4.3).
//!
//! Such a server may hand all mail of a connection to what it has chosen at the first recipient. Mail of further domains goes on other
//! connections.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::address::MailDomain;
use crate::outbox::MailId;
use crate::session::Transaction;

/// The domains of one connection.
#[derive(Debug, Default)]
pub(super) struct DomainShare {
    /// `None` stands for addresses without a domain.
    domains: BTreeSet<Option<MailDomain>>,
    /// True if mail of other domains was returned. The same mail would come again.
    is_used_up: bool,
}

impl DomainShare {
    /// Returns whether the connection is to get no further mail.
    pub(super) fn is_used_up(&self) -> bool {
        self.is_used_up
    }

    /// Takes out of transactions the recipients beyond `most` domains on the connection.
    pub(super) fn take_unfit(&mut self, most: u32, transactions: &mut Vec<Transaction>) -> Vec<MailId> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut unfit = Vec::new();
        for transaction in transactions.iter_mut() {
            transaction.recipients.retain(|recipient| {
                let domain = recipient.mailbox.domain().ok();
                let fits = self.domains.contains(&domain) || self.domains.len() < most;
                if fits {
                    self.domains.insert(domain);
                } else {
                    unfit.push(recipient.id);
                }
                fits
            });
        }
        transactions.retain(|transaction| !transaction.recipients.is_empty());
        self.is_used_up |= !unfit.is_empty();
        unfit
    }
}
