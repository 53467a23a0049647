//! Mail that was claimed and is to be signed before a connection gets it.
//!
//! The claim stays open meanwhile: to its delivery it is as if the database took longer.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Dispatcher;
use super::books::Books;
use super::deliveries::Claim;
use super::requests::Asked;
use crate::attempt::Failure;
use crate::dkim::{KeyId, SignMark, SignTrouble, Signature, Signing, Unsigned};
use crate::event::Level;
use crate::io::Output;
use crate::outbox::{Claimed, ClaimedTransaction, RequestId};
use crate::queue::{HopId, QueueState};
use crate::shown::ShownAddress;

/// The header fields that go before each transaction of a claim, in their order.
pub(super) type Signed = Vec<Result<Bytes, NotSigned>>;

/// Why a transaction that is to be signed has no signatures.
#[derive(Debug)]
pub(super) enum NotSigned {
    /// The keys were replaced while it was claimed. It is claimed anew, for the present ones.
    Outdated,
    /// It has failed.
    Trouble(SignTrouble),
}

impl Books {
    /// Returns how the mail of a claim is signed, if any may be.
    pub(super) fn signing(&self) -> Option<Signing> {
        let rules = &self.config.settings.signing;
        (!rules.keys.is_empty()).then(|| Signing { rules: rules.clone(), now: self.now.wall })
    }

    /// Has the mail of a claim signed.
    pub(super) fn sign(&mut self, claim: Claim, answer: Claimed) {
        let fields = answer.transactions.iter().flat_map(|transaction| &transaction.to_sign).flatten();
        let digests = fields.map(|field| (field.key, field.digest)).collect();
        let id = self.store.requests.open(Asked::Sign(claim, answer));
        self.output(Output::Sign(id, digests));
    }

    /// Logs each mail of a claim that was to be signed and leaves unsigned. Unmarked mail is left out if its author's domain has no key.
    pub(super) fn note_unsigned(&mut self, transactions: &[ClaimedTransaction]) {
        for ClaimedTransaction { rows, to_sign, .. } in transactions {
            let (Some(first), Err(why)) = (rows.first(), to_sign) else { continue };
            let level = match (first.wishes.message.sign, why) {
                (SignMark::Wanted | SignMark::IfPossible, _) => Level::Info,
                (SignMark::Unmarked, Unsigned::NoKey(_)) => continue,
                (SignMark::Unmarked, _) => Level::Debug,
            };
            self.note(level, format!("mail {} leaves without a signature (DKIM): {why}", first.id));
        }
    }

    /// Makes the header fields of the signatures of some transactions.
    fn signed_fields(
        &mut self,
        transactions: &mut [ClaimedTransaction],
        signatures: Vec<Result<Signature, SignTrouble>>,
    ) -> Signed {
        let mut signatures = signatures.into_iter();
        let mut signed = Signed::with_capacity(transactions.len());
        for ClaimedTransaction { rows, to_sign, .. } in transactions {
            let (mut text, mut not_signed) = (String::new(), None);
            for field in core::mem::replace(to_sign, Ok(Vec::new())).into_iter().flatten() {
                match signatures.next().unwrap_or(Err(SignTrouble::NoAnswer)) {
                    Ok(signature) => text.push_str(&field.signed(&signature)),
                    Err(SignTrouble::NoKey) if !self.has_key(field.key) => {
                        not_signed = Some(NotSigned::Outdated);
                    }
                    Err(trouble) if not_signed.is_none() => not_signed = Some(NotSigned::Trouble(trouble)),
                    Err(_) => {}
                }
            }
            if let Some(NotSigned::Trouble(trouble)) = &not_signed
                && let Some(row) = rows.first()
                && row.wishes.message.sign == SignMark::IfPossible
            {
                self.note(
                    Level::Warning,
                    format!("bounce or report {} leaves without a signature: {trouble}", row.id),
                );
                not_signed = None;
            }
            signed.push(not_signed.map_or_else(|| Ok(text.into_bytes().into()), Err));
        }
        signed
    }

    fn has_key(&self, id: KeyId) -> bool {
        self.config.settings.signing.keys.iter().any(|key| key.id == id)
    }

    /// Has mail claimed anew that was to be signed with keys of before, and records that other mail could not be signed.
    pub(super) fn take_back_unsigned(&mut self, hop: HopId, transaction: ClaimedTransaction, why: NotSigned) {
        match why {
            NotSigned::Outdated => {
                transaction.rows.iter().for_each(|row| self.requeue(row.id, QueueState::Ready));
            }
            NotSigned::Trouble(trouble) => self.fail_unsigned(hop, transaction, &trouble),
        }
    }

    /// Records that mail could not be signed, unless it has changed.
    fn fail_unsigned(&mut self, hop: HopId, transaction: ClaimedTransaction, trouble: &SignTrouble) {
        for row in transaction.rows {
            let is_as_claimed = self
                .envelope_of(&row)
                .is_ok_and(|envelope| Some(&envelope.next_hop) == self.queue.next_hop(hop));
            if is_as_claimed && self.admit_claimed(&row) {
                let recipient = ShownAddress::new(&String::from_utf8_lossy(&row.recipient));
                self.record_failure(row.id, recipient, None, None, Failure::NotSigned(trouble.clone()));
            } else {
                self.reindex_row(&row);
            }
        }
    }
}

impl Dispatcher {
    /// Takes back the mail that is being signed: the program ends, so that it would not be sent any more, and a signature may take longer
    /// than the end may.
    pub(super) fn end_signing(&mut self) {
        let Self { books, deliveries, .. } = self;
        for request in books.store.requests.for_signatures() {
            let Some(Asked::Sign(claim, answer)) = books.store.requests.close(request) else { continue };
            let signed = answer.transactions.iter().map(|_| Err(NotSigned::Outdated)).collect();
            books.store.held.begin(answer.rows(), books.now.wall);
            deliveries.claimed(books, &claim, answer, signed);
        }
    }

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
