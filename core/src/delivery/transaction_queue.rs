//! The transactions of a connection that have not begun, and the requests for more.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::outbox::MailId;
use crate::session::Transaction;
use crate::time::Instant;

/// A connection requests its next batch once less than this fraction of the last one remains, one in so many, so that it need not
/// wait for the database in between. With a small batch there is nothing to gain by that, and other connections may take the
/// mail.
const REFILL_AT_FRACTION: usize = 4;

/// Transactions that a connection still has to begin.
#[derive(Debug, Default)]
pub(super) struct TransactionQueue {
    /// Each with the time of its claim.
    waiting: VecDeque<(Instant, Transaction)>,
    /// The number of transactions in the last batch.
    last_batch: usize,
    /// True while a request for transactions is unanswered.
    has_asked: bool,
    /// True if the session waits for a transaction, and there was none.
    waits_for_mail: bool,
    /// True if transactions are still to be requested.
    wants_transactions: bool,
    /// True if permission for the next transaction is still to be requested.
    wants_permission: bool,
    begun: u32,
}

impl TransactionQueue {
    /// Adds a batch. Requests permission for the first transaction if the session waits for it and `may_begin`.
    pub(super) fn add(&mut self, now: Instant, batch: Vec<Transaction>, may_begin: bool) {
        self.has_asked = false;
        self.last_batch = batch.len();
        self.waiting.extend(batch.into_iter().map(|transaction| (now, transaction)));
        if !self.waiting.is_empty() && may_begin && core::mem::take(&mut self.waits_for_mail) {
            self.wants_permission = true;
        }
    }

    /// Ends a request for transactions without any. Returns whether the session waits for mail.
    pub(super) fn nothing_claimed(&mut self) -> bool {
        self.has_asked = false;
        self.waits_for_mail
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Notes that the session can take a transaction: requests permission to begin the next one, or more mail if none waits.
    pub(super) fn session_is_ready(&mut self) {
        if self.waiting.is_empty() {
            self.ask_again();
        } else {
            self.wants_permission = true;
        }
    }

    /// Requests mail, for which the session waits.
    pub(super) fn ask_again(&mut self) {
        self.waits_for_mail = true;
        self.ask();
    }

    /// Requests mail if the session waits for it.
    pub(super) fn ask_if_waiting(&mut self) {
        if self.waits_for_mail {
            self.ask();
        }
    }

    /// Takes the next transaction with the time of its claim, and requests the next batch in time.
    pub(super) fn pop(&mut self) -> Option<(Instant, Transaction)> {
        let next = self.waiting.pop_front()?;
        self.begun = self.begun.saturating_add(1);
        if self.waiting.len() < self.last_batch / REFILL_AT_FRACTION {
            self.ask();
        }
        Some(next)
    }

    /// Returns the number of transactions that were taken.
    pub(super) fn begun(&self) -> u32 {
        self.begun
    }

    /// Returns the number of transactions that were taken, or wait to be.
    pub(super) fn given(&self) -> usize {
        usize::try_from(self.begun).unwrap_or(usize::MAX).saturating_add(self.waiting.len())
    }

    /// Drops all transactions. Returns their mail.
    pub(super) fn take_all(&mut self) -> Vec<MailId> {
        let recipients = self.waiting.drain(..).flat_map(|(_, transaction)| transaction.recipients);
        recipients.map(|recipient| recipient.id).collect()
    }

    /// Returns all transactions, each with the time of its claim.
    pub(super) fn waiting(&self) -> &VecDeque<(Instant, Transaction)> {
        &self.waiting
    }

    /// Returns the mail of all transactions.
    pub(super) fn mails(&self) -> impl Iterator<Item = MailId> {
        let recipients = self.waiting.iter().flat_map(|(_, transaction)| &transaction.recipients);
        recipients.map(|recipient| recipient.id)
    }

    /// Takes the request for more transactions. Returns whether there was one.
    pub(super) fn take_request_for_transactions(&mut self) -> bool {
        core::mem::take(&mut self.wants_transactions)
    }

    /// Takes the request for permission to begin the next transaction. Returns whether there was one.
    pub(super) fn take_request_to_begin(&mut self) -> bool {
        core::mem::take(&mut self.wants_permission)
    }

    fn ask(&mut self) {
        self.wants_transactions |= !core::mem::replace(&mut self.has_asked, true);
    }
}
