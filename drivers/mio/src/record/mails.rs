//! The mails of a record, in the order in which they appeared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use cmail_delivery::address::Mailbox;
use cmail_delivery::outbox::{ClaimedTransaction, MailId, Row};

use super::scene::RecordedMail;
use super::shape::Shape;

/// A transaction that was claimed and has not begun.
#[derive(Debug)]
struct Claimed {
    rows: Vec<Row>,
    shape: Shape,
}

/// The mails. There may be thousands, and each is looked up several times.
#[derive(Debug, Default)]
pub(super) struct Mails {
    claimed: VecDeque<Claimed>,
    /// How many transactions began, and the positions of the mails of the last one.
    transactions: usize,
    running: Vec<usize>,
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

    /// Returns whether a mail belongs to the record, or may do so later.
    pub(super) fn knows(&self, id: MailId) -> bool {
        self.positions.contains_key(&id) || self.claim_of(id).is_some()
    }

    /// Notes what the connection has claimed.
    pub(super) fn claim(&mut self, transactions: &[ClaimedTransaction]) {
        let claimed = transactions.iter().map(|transaction| Claimed {
            rows: transaction.rows.clone(),
            shape: Shape::of(&transaction.head, transaction.data_octets),
        });
        self.claimed = claimed.collect();
    }

    /// Begins the first claimed transaction of this sender, if there is one.
    pub(super) fn begin_of_sender(&mut self, path: &str) {
        let is_it = |row: &Row| {
            let sender = row.sender.as_deref().and_then(|sender| Mailbox::parse(sender).ok());
            sender.as_ref().map_or("", Mailbox::as_str) == path
        };
        let position = self.claimed.iter().position(|claimed| claimed.rows.first().is_some_and(is_it));
        if let Some(position) = position {
            self.begin(position);
        }
    }

    fn begin(&mut self, claim: usize) {
        let Some(Claimed { rows, shape }) = self.claimed.remove(claim) else { return };
        self.running.clear();
        self.transactions += 1;
        let shape = shape.marked(self.transactions);
        for row in rows {
            let known = self.positions.get(&row.id).copied();
            let position = known.unwrap_or_else(|| {
                // Copied, because the texts of all that was claimed with it share their memory.
                let copy = |text: &Bytes| Bytes::copy_from_slice(text);
                let (sender, recipient) = (row.sender.as_ref().map(copy), copy(&row.recipient));
                self.push(row.id, RecordedMail { sender, recipient, wishes: row.wishes, shape })
            });
            self.running.push(position);
        }
    }

    /// Notes how many octets the message of the last transaction had on the wire.
    pub(super) fn note_size(&mut self, octets: u64) {
        for &position in &self.running {
            if let Some(mail) = self.list.get_mut(position) {
                mail.shape.sent_as(octets);
            }
        }
    }

    /// Adds a new mail, and returns its position.
    pub(super) fn push(&mut self, id: MailId, mail: RecordedMail) -> usize {
        let position = self.list.len();
        self.list.push(mail);
        self.positions.insert(id, position);
        self.undecided.insert(position);
        position
    }

    /// Notes that a mail has a verdict. Returns its number, from 1, if it belongs to the record.
    pub(super) fn decide(&mut self, id: MailId) -> Option<usize> {
        // Some mail gets its verdict before it is offered to the server.
        if let Some(claim) = self.claim_of(id) {
            self.begin(claim);
        }
        let position = *self.positions.get(&id)?;
        self.undecided.remove(&position);
        Some(position + 1)
    }

    fn claim_of(&self, id: MailId) -> Option<usize> {
        self.claimed.iter().position(|claimed| claimed.rows.iter().any(|row| row.id == id))
    }
}
