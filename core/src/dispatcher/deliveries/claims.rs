//! Mail on its way from the database to a connection.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Deliveries;
use super::destination::{Destination, Pass, Pause};
use super::destinations::AtWork;
use super::host_slots::size;
use super::pauses::LOCAL_PAUSE;
use crate::dispatcher::books::Books;
use crate::dispatcher::requests::Asked;
use crate::dispatcher::set_aside::Undone;
use crate::dispatcher::signing::Signed;
use crate::event::Level;
use crate::explanation::PauseReason;
use crate::flight::FLIGHT_LIMIT_MESSAGES;
use crate::io::ConnectionId;
use crate::outbox::{Claimed, ClaimedTransaction, LeftOver, MailId, StoreError, StoreRequest};
use crate::policy::Policy;
use crate::queue::{HopId, QueueState};
use crate::session::{Recipient, Transaction};

/// Most messages that are claimed for a connection at once.
const CLAIM_LIMIT_MESSAGES: usize = 50;

/// A request for mail for a connection.
#[derive(Clone, Debug)]
pub(in crate::dispatcher) struct Claim {
    pub(in crate::dispatcher) hop: HopId,
    pub(in crate::dispatcher) connection: ConnectionId,
    pub(in crate::dispatcher) ids: Vec<MailId>,
}

impl Deliveries {
    /// Claims mail for a connection that can take transactions.
    pub(super) fn want_transactions(&mut self, books: &mut Books, hop: HopId, connection: ConnectionId) {
        if !self.destinations.is_open(hop, connection) {
            return;
        }
        let Some(AtWork { delivery, connections, wait_lists, .. }) = self.destinations.work_on(hop) else {
            return;
        };
        if books.commits.is_congested() && !books.is_draining() {
            return connections.park(connection, wait_lists);
        }
        let first = delivery.take_first(connection);
        // It is held by the claim for the connection that refused it, and is claimed again.
        first.iter().for_each(|&id| books.store.held.give_up(id));
        // Mail that another connection refused is retried before the slot is left to others.
        if first.is_empty()
            && (self.retire_surplus(hop, connection) || self.must_give_up_slot(books, hop, connection))
        {
            return self.with_delivery(books, hop, |delivery, cx| delivery.quit_connection(cx, connection));
        }
        let room = self.room_for_transactions(hop, connection);
        if first.is_empty() && room == 0 {
            return self.end_used_up(books, hop, connection);
        }
        let (ids, transactions) =
            if first.is_empty() { self.claim_for(books, hop, connection, room) } else { (first, 1) };
        if ids.is_empty() {
            return self.keep_idle(books, hop, connection);
        }
        let recipients = self.recipients_of_a_transaction(hop, connection);
        self.destinations.update(hop, Destination::open_claim);
        let request =
            StoreRequest::Claim { ids: ids.clone(), transactions, recipients, signing: books.signing() };
        books.ask(request, Asked::Claim(Claim { hop, connection, ids }));
    }

    /// Claims a fair share of the ready mail of a next hop, but at most as many messages as there is room for, so that further connections
    /// find something to do. Also returns the number of messages: mail that looks like one message may be several, and other connections
    /// may take the rest. Mail that is noted for the connection already comes first, because it need not be noted again.
    fn claim_for(
        &self,
        books: &mut Books,
        hop: HopId,
        connection: ConnectionId,
        room: usize,
    ) -> (Vec<MailId>, usize) {
        let noted = books.queue.claim_ready(hop, &self.flights.of(connection));
        if !noted.is_empty() {
            return (noted, FLIGHT_LIMIT_MESSAGES.min(room));
        }
        let Some(destination) = self.destinations.get(hop) else { return (Vec::new(), 0) };
        let ready = size(books.queue.ready_count(hop));
        let Policy { concurrency, recipients, .. } = *destination.policy();
        let messages = ready.div_ceil(size(concurrency).max(1)).clamp(1, CLAIM_LIMIT_MESSAGES).min(room);
        (books.queue.claim(hop, destination.order(), messages, recipients), messages)
    }

    /// Returns how many transactions a connection may still get.
    fn room_for_transactions(&self, hop: HopId, connection: ConnectionId) -> usize {
        let Some(destination) = self.destinations.get(hop) else { return 0 };
        let most = destination.policy().messages;
        destination.pass().map_or(0, |pass| pass.delivery().room_for_transactions(connection, most))
    }

    /// Returns how many recipients a transaction on a connection may have.
    fn recipients_of_a_transaction(&self, hop: HopId, connection: ConnectionId) -> usize {
        let Some(destination) = self.destinations.get(hop) else { return 1 };
        let most = destination.policy().recipients;
        let delivery = destination.pass().map(Pass::delivery);
        delivery.map_or(most, |delivery| delivery.recipients_of_a_transaction(connection, most))
    }

    /// Ends a connection that has had as many transactions as it may, once it has none left.
    fn end_used_up(&mut self, books: &Books, hop: HopId, connection: ConnectionId) {
        self.with_delivery(books, hop, |delivery, cx| {
            if delivery.handle_nothing_claimed(connection) {
                delivery.quit_connection(cx, connection);
            }
        });
    }

    /// Returns whether a claim of a next hop is open.
    pub(super) fn has_open_claims(&self, hop: HopId) -> bool {
        self.destinations.get(hop).is_some_and(|destination| destination.open_claims() > 0)
    }

    /// Records that a claim is answered. A delivery without connections may have waited for the mail that is returned now.
    fn close_claim(&mut self, hop: HopId) {
        self.destinations.update(hop, Destination::close_claim);
        self.destinations.touch(hop);
    }

    pub(in crate::dispatcher) fn claim_failed(
        &mut self,
        books: &mut Books,
        claim: &Claim,
        error: &StoreError,
    ) {
        let hop = claim.hop;
        self.close_claim(hop);
        books.note(Level::Error, format!("cannot read mail, trying again: {error}"));
        let why = PauseReason::Local(format!("mail cannot be read: {error}").into());
        self.destinations.pause(hop, Pause { until: books.now.monotonic + LOCAL_PAUSE, why });
        for &id in &claim.ids {
            books.requeue(id, QueueState::Ready);
        }
        self.with_delivery(books, hop, |delivery, cx| delivery.close(cx));
    }

    /// Gives mail to the connection for which it was claimed.
    pub(in crate::dispatcher) fn claimed(
        &mut self,
        books: &mut Books,
        claim: &Claim,
        answer: Claimed,
        signed: Signed,
    ) {
        let Claim { hop, connection, .. } = *claim;
        self.close_claim(hop);
        let Claimed { transactions, left_over, unreadable } = answer;
        let mut found: BTreeSet<MailId> = left_over.iter().map(|row| row.id).collect();
        found.extend(transactions.iter().flat_map(|transaction| transaction.rows.iter().map(|row| row.id)));
        found.extend(unreadable.iter().map(|refused| refused.id));
        for &id in &claim.ids {
            if !found.contains(&id) {
                books.forget(id);
            }
        }
        books.set_aside_unreadable(unreadable, &Undone::Reading);
        books.give_back(left_over);
        if !self.destinations.is_open(hop, connection) {
            for row in transactions.iter().flat_map(|transaction| &transaction.rows) {
                books.requeue(row.id, QueueState::Ready);
            }
            return;
        }
        let mut work = Vec::with_capacity(transactions.len());
        let unsigned = core::iter::repeat_with(|| Ok(Bytes::new()));
        for (transaction, signed) in transactions.into_iter().zip(signed.into_iter().chain(unsigned)) {
            match signed {
                Ok(signatures) => work.extend(books.prepare(hop, transaction, signatures)),
                Err(why) => books.take_back_unsigned(hop, transaction, why),
            }
        }
        if let Some(AtWork { delivery, connections, .. }) = self.destinations.work_on(hop) {
            for id in delivery.take_unfit(connection, &mut work) {
                books.return_undecided(id, false);
            }
            let has_older = delivery.has_transactions(connection);
            connections.note_claim(connection, books.scan.changes(), has_older);
        }
        self.end_unclaimed(hop, connection, &work);
        if work.is_empty() {
            self.want_transactions(books, hop, connection);
        } else {
            self.with_delivery(books, hop, |delivery, cx| delivery.handle_transactions(cx, connection, work));
        }
    }

    /// Ends the part in flights of mail that a connection does not have any more, after it has claimed this.
    pub(super) fn end_unclaimed(&mut self, hop: HopId, connection: ConnectionId, work: &[Transaction]) {
        if self.flights.of(connection).is_empty() {
            return;
        }
        let undecided =
            self.destinations.delivery(hop).map_or(Vec::new(), |delivery| delivery.undecided_on(connection));
        let claimed =
            work.iter().flat_map(|transaction| &transaction.recipients).map(|recipient| recipient.id);
        self.flights.retain(connection, &undecided.into_iter().chain(claimed).collect::<Vec<_>>());
    }

    /// Gives a connection a piece of mail data. An empty piece ends the mail.
    pub(in crate::dispatcher) fn data_read(
        &mut self,
        books: &Books,
        hop: HopId,
        connection: ConnectionId,
        octets: Bytes,
    ) {
        self.with_delivery(books, hop, |delivery, cx| delivery.handle_data(cx, connection, octets));
    }

    /// Resumes the connections that waited for the database.
    pub(in crate::dispatcher) fn resume(&mut self, books: &mut Books) {
        if !books.commits.is_congested() {
            for (hop, connection) in self.destinations.wait_lists().parked() {
                if let Some(AtWork { connections, wait_lists, .. }) = self.destinations.work_on(hop) {
                    connections.unpark(connection, wait_lists);
                }
                self.want_transactions(books, hop, connection);
            }
        }
        if books.commits.room_for_taken() > 0 {
            for (hop, connection) in self.destinations.wait_lists().stopped() {
                self.ask_again(books, hop, connection);
            }
        }
    }

    /// Lets a connection ask again whether its next transaction may begin.
    pub(super) fn ask_again(&mut self, books: &Books, hop: HopId, connection: ConnectionId) {
        if let Some(AtWork { connections, wait_lists, .. }) = self.destinations.work_on(hop) {
            connections.free(connection, wait_lists);
        }
        self.with_delivery(books, hop, |delivery, cx| delivery.begin(cx, connection));
    }
}

impl Books {
    /// Handles a failure to read the data of a mail.
    pub(in crate::dispatcher) fn data_failed(&mut self, id: MailId, error: StoreError) {
        if error.trouble.is_about_a_row() {
            self.mark_unreadable(id, error.text);
        } else {
            self.note(Level::Error, format!("cannot read mail data: {error}"));
        }
    }

    /// Makes mail ready again that was claimed together with other mail, but is not of the same message.
    fn give_back(&mut self, left_over: Vec<LeftOver>) {
        for LeftOver { id, message } in left_over {
            let before = message.and_then(|message| self.queue.tell_apart(id, message));
            self.requeue(id, QueueState::Ready);
            // Given-up mail with the same key has waited for it until now.
            if let Some(before) = before {
                self.reconsider(before.hop, before.key);
            }
        }
    }

    /// Makes a transaction of the rows that still have this next hop and may still be tried.
    fn prepare(&mut self, hop: HopId, claimed: ClaimedTransaction, signatures: Bytes) -> Option<Transaction> {
        let mut recipients = Vec::new();
        let mut reverse_path = None;
        for row in claimed.rows {
            match self.envelope_of(&row) {
                Ok(envelope)
                    if Some(&envelope.next_hop) == self.queue.next_hop(hop) && self.admit_claimed(&row) =>
                {
                    reverse_path = envelope.reverse_path;
                    self.outlet.tally.count_claimed(&row, self.now.wall);
                    recipients.push(Recipient {
                        id: row.id,
                        mailbox: envelope.recipient,
                        wishes: row.wishes,
                    });
                }
                Ok(_) | Err(_) => self.reindex_row(&row),
            }
        }
        if recipients.is_empty() {
            return None;
        }
        let ClaimedTransaction { data_octets, head, .. } = claimed;
        Some(Transaction { reverse_path, recipients, signatures, data_octets, head, is_probe: false })
    }
}
