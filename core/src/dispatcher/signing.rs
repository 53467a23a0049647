//! Mail that was claimed and is to be signed before a connection gets it.
//!
//! The claim stays open meanwhile: to its delivery it is as if the database took longer.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Dispatcher;
use super::books::Books;
use super::deliveries::Claim;
use super::requests::Asked;
use crate::attempt::Failure;
use crate::dkim::{SignMark, SignTrouble, Signature, Signing};
use crate::event::Level;
use crate::io::Output;
use crate::outbox::{Claimed, ClaimedTransaction, MailId, RequestId};
use crate::queue::HopId;
use crate::shown::ShownAddress;

/// The header fields that go before each transaction of a claim, in their order.
pub(super) type Signed = Vec<Result<Bytes, SignTrouble>>;

impl Books {
    /// Returns how the mail of a claim is signed, if any may be.
    pub(super) fn signing(&self) -> Option<Signing> {
        let rules = &self.config.settings.signing;
        (!rules.keys.is_empty()).then(|| Signing { rules: rules.clone(), now: self.now.wall })
    }

    /// Has the mail of a claim signed.
    pub(super) fn sign(&mut self, claim: Claim, answer: Claimed) {
        let fields = answer.transactions.iter().flat_map(|transaction| &transaction.to_sign);
        let digests = fields.map(|field| (field.key, field.digest)).collect();
        let id = self.store.requests.open(Asked::Sign(claim, answer));
        self.output(Output::Sign(id, digests));
    }

    /// Makes the header fields of the signatures of some transactions. Mail of our own goes without where that fails.
    fn signed_fields(
        &mut self,
        transactions: &mut [ClaimedTransaction],
        signatures: Vec<Result<Signature, SignTrouble>>,
    ) -> Signed {
        let mut signatures = signatures.into_iter();
        let mut signed = Signed::with_capacity(transactions.len());
        for transaction in transactions {
            let mut text = String::new();
            let mut trouble = None;
            for field in core::mem::take(&mut transaction.to_sign) {
                match signatures.next().unwrap_or(Err(SignTrouble::NoAnswer)) {
                    Ok(signature) => text.push_str(&field.signed(&signature)),
                    Err(error) => trouble = Some(error),
                }
            }
            let first = transaction.rows.first();
            let is_our_own = first.is_some_and(|row| row.wishes.message.sign == SignMark::IfPossible);
            signed.push(match trouble {
                None => Ok(text.into_bytes().into()),
                Some(trouble) if is_our_own => {
                    let id = first.map_or(MailId(0), |row| row.id);
                    self.note(
                        Level::Warning,
                        alloc::format!(
                            "mail {id}, which tells a sender of other mail, leaves unsigned: {trouble}"
                        ),
                    );
                    Ok(Bytes::new())
                }
                Some(trouble) => Err(trouble),
            });
        }
        signed
    }

    /// Records that mail could not be signed, unless it has changed.
    pub(super) fn fail_unsigned(
        &mut self,
        hop: HopId,
        transaction: ClaimedTransaction,
        trouble: &SignTrouble,
    ) {
        for row in transaction.rows {
            let is_as_claimed = self
                .envelope_of(&row)
                .is_ok_and(|envelope| Some(&envelope.next_hop) == self.queue.next_hop(hop));
            if is_as_claimed && self.may_be_tried(&row) {
                let recipient = ShownAddress::new(&String::from_utf8_lossy(&row.recipient));
                self.record_failure(row.id, recipient, None, None, Failure::NotSigned(trouble.clone()));
            } else {
                self.reindex_row(&row);
            }
        }
    }
}

impl Dispatcher {
    /// Gives a connection the mail that it has claimed, when it is signed.
    pub(super) fn signed(&mut self, request: RequestId, signatures: Vec<Result<Signature, SignTrouble>>) {
        let Self { books, deliveries, .. } = self;
        if !matches!(books.store.requests.find(request), Some(Asked::Sign(..))) {
            return;
        }
        let Some(Asked::Sign(claim, mut answer)) = books.store.requests.close(request) else { return };
        books.index_arrived();
        let signed = books.signed_fields(&mut answer.transactions, signatures);
        books.store.held.begin(answer.rows(), books.now.wall);
        deliveries.claimed(books, &claim, answer, signed);
    }
}
