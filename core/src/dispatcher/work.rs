//! What connections do: claim mail, wait for permission, send.

use alloc::collections::BTreeSet;
use alloc::collections::btree_map::Entry;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use super::intake::destination;
use super::set_aside::Undone;
use super::weary::LOCAL_PAUSE;
use super::{Asked, Dispatcher};
use crate::address::Mailbox;
use crate::event::Level;
use crate::io::ConnectionId;
use crate::outbox::{
    ClaimedTransaction, Cursor, LeftOver, MailId, StoreError, StoreReply, StoreRequest,
    TRANSACTION_RECIPIENT_LIMIT,
};
use crate::queue::{HopId, Place};
use crate::session::Transaction;
use crate::shown::shortened_octets;
use crate::time::Duration;

/// Most messages that are claimed for a connection at once.
const CLAIM_LIMIT_MESSAGES: usize = 50;
/// How long a connection is kept open without work, because the rate limit forbids the next transaction.
const IDLE_LIMIT: Duration = Duration::from_secs(2);
/// Most claims of mail that leads nowhere that are open at once, so that a lot of it does not come at once.
const UNROUTABLE_CLAIMS_LIMIT: u32 = 4;

impl Dispatcher {
    /// Records the failure of mail that has no next hop, after a last look at its row.
    pub(super) fn send_back_unroutable(&mut self) {
        if self.ledger.is_congested() || self.traffic.paused.contains(HopId::NOWHERE) {
            return;
        }
        while self.traffic.unroutable_claims < UNROUTABLE_CLAIMS_LIMIT {
            let ids = self.queue.claim_up_to(
                HopId::NOWHERE,
                Cursor::After(MailId(i64::MAX)),
                TRANSACTION_RECIPIENT_LIMIT,
            );
            if ids.is_empty() {
                return;
            }
            self.traffic.unroutable_claims += 1;
            let request = StoreRequest::Claim { transactions: ids.len(), ids: ids.clone() };
            self.ask(request, Asked::Nowhere { ids });
        }
    }

    pub(super) fn unroutable_read(&mut self, ids: &[MailId], result: Result<StoreReply, StoreError>) {
        self.traffic.unroutable_claims = self.traffic.unroutable_claims.saturating_sub(1);
        let Some((transactions, left_over)) = self.claimed(HopId::NOWHERE, ids, result) else { return };
        for row in transactions.into_iter().flat_map(|transaction| transaction.rows) {
            match destination(&row) {
                Err(failure) if self.may_be_tried(&row) => {
                    let recipient = shortened_octets(&row.recipient).into();
                    self.record_failure(row.id, recipient, None, &failure);
                }
                Ok(_) | Err(_) => self.settle(&row),
            }
        }
        self.give_back(left_over);
    }

    /// Makes mail ready again that was claimed together with others, and does not go with them.
    fn give_back(&mut self, left_over: Vec<LeftOver>) {
        for LeftOver { id, message } in left_over {
            if let Some(message) = message {
                self.queue.tell_apart(id, message);
            }
            self.put(id, Place::Ready);
        }
    }

    pub(super) fn work_claimed(
        &mut self,
        hop: HopId,
        connection: ConnectionId,
        ids: &[MailId],
        result: Result<StoreReply, StoreError>,
    ) {
        if let Entry::Occupied(mut open) = self.traffic.claims.entry(hop) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
        // A delivery without connections may have waited for what comes back now.
        self.with_delivery(hop, |_, _| ());
        let Some((claimed, left_over)) = self.claimed(hop, ids, result) else {
            return self.with_delivery(hop, |delivery, cx| delivery.close(cx));
        };
        self.give_back(left_over);
        if !self.is_connected(hop, connection) {
            for row in claimed.iter().flat_map(|transaction| &transaction.rows) {
                self.put(row.id, Place::Ready);
            }
            return;
        }
        let work: Vec<Transaction> =
            claimed.into_iter().filter_map(|transaction| self.prepare(hop, transaction)).collect();
        let has_older =
            self.traffic.deliveries.get(&hop).is_some_and(|delivery| delivery.has_work(connection));
        let changes = self.intake.changes();
        let claimed_at = self.traffic.claimed_at.entry(connection).or_insert(changes);
        if !has_older {
            *claimed_at = changes;
        }
        if work.is_empty() {
            self.want_work(hop, connection);
        } else {
            self.with_delivery(hop, |delivery, cx| delivery.handle_work(cx, connection, work));
        }
    }

    pub(super) fn data_read(
        &mut self,
        hop: HopId,
        connection: ConnectionId,
        id: MailId,
        result: Result<StoreReply, StoreError>,
    ) {
        let octets = match result {
            Ok(StoreReply::Data(octets)) => octets,
            Ok(_) => Bytes::new(),
            Err(error) => {
                if error.trouble.is_about_a_row() {
                    self.mark_unreadable(id, error.text);
                } else {
                    self.note(Level::Error, format!("cannot read mail data: {error}"));
                }
                Bytes::new()
            }
        };
        self.with_delivery(hop, |delivery, cx| delivery.handle_data(cx, connection, octets));
    }

    /// Goes on with what waited for the database.
    pub(super) fn resume_parked(&mut self) {
        if !self.ledger.is_congested() {
            for (hop, connection) in core::mem::take(&mut self.traffic.parked) {
                self.want_work(hop, connection);
            }
        }
        if !self.ledger.must_record_first() {
            for (hop, connection) in core::mem::take(&mut self.traffic.stopped) {
                self.permit(hop, connection);
            }
        }
    }

    /// A connection can take transactions.
    pub(super) fn want_work(&mut self, hop: HopId, connection: ConnectionId) {
        if !self.is_connected(hop, connection) {
            return;
        }
        if self.ledger.is_congested() && !self.is_draining() {
            self.traffic.parked.push((hop, connection));
            return;
        }
        let mut first = Vec::new();
        self.with_delivery(hop, |delivery, _| first = delivery.take_first(connection));
        // What was refused on another connection is tried again before the place is left to others.
        if first.is_empty() && self.must_make_room(hop, connection) {
            return self.with_delivery(hop, |delivery, cx| delivery.quit_lane(cx, connection));
        }
        let (ids, transactions) = if first.is_empty() { self.claim_for(hop) } else { (first, 1) };
        if ids.is_empty() {
            return self.rest(hop, connection);
        }
        let open = self.traffic.claims.entry(hop).or_default();
        *open = open.saturating_add(1);
        let request = StoreRequest::Claim { ids: ids.clone(), transactions };
        self.ask(request, Asked::Work { hop, connection, ids });
    }

    /// Takes a fair share of the ready mail of a next hop, so that further connections find something to do. Also says how
    /// many messages that is: mail that looks like one message may be several, of which other connections may have the rest.
    fn claim_for(&mut self, hop: HopId) -> (Vec<MailId>, usize) {
        let ready = usize::try_from(self.queue.ready_count(hop)).unwrap_or(usize::MAX);
        let connections = usize::try_from(self.settings.destination_concurrency).unwrap_or(usize::MAX).max(1);
        let messages = ready.div_ceil(connections).clamp(1, CLAIM_LIMIT_MESSAGES);
        let order = self.traffic.order_for(hop);
        (self.queue.claim(hop, order, messages, TRANSACTION_RECIPIENT_LIMIT), messages)
    }

    /// A connection is about to begin a transaction: now, or when the ledger and the rate limit allow it.
    pub(super) fn permit(&mut self, hop: HopId, connection: ConnectionId) {
        if !self.is_connected(hop, connection) {
            return;
        }
        if self.ledger.must_record_first() && !self.is_draining() {
            self.traffic.stopped.push((hop, connection));
            return;
        }
        if self.traffic.claimed_at.get(&connection).is_some_and(|&at| at != self.intake.changes()) {
            return self.claim_again(hop, connection);
        }
        let now = self.now.monotonic;
        let allowed = match (self.settings.rate_limit, self.queue.next_hop(hop)) {
            (Some(limit), Some(next_hop)) => self.traffic.paces.take(next_hop, limit, now),
            _ => Ok(()),
        };
        match allowed {
            Ok(()) => self.with_delivery(hop, |delivery, cx| delivery.begin(cx, connection)),
            Err(at) if at <= now + IDLE_LIMIT => {
                self.traffic.held_back.insert((at, hop, connection));
            }
            Err(at) => {
                self.traffic.paused.set(hop, Some(at));
                self.with_delivery(hop, |delivery, cx| delivery.close(cx));
            }
        }
    }

    /// Somebody has written to the outbox since a connection claimed its mail: what has not begun is read again, because
    /// it may be gone, or meant for somebody else.
    fn claim_again(&mut self, hop: HopId, connection: ConnectionId) {
        self.with_delivery(hop, |delivery, cx| delivery.exchange_work(cx, connection));
    }

    /// Takes the answer to a claim; rows that do not exist any more are forgotten.
    fn claimed(
        &mut self,
        hop: HopId,
        ids: &[MailId],
        result: Result<StoreReply, StoreError>,
    ) -> Option<(Vec<ClaimedTransaction>, Vec<LeftOver>)> {
        let (transactions, left_over, unreadable) = match result {
            Ok(StoreReply::Claimed { transactions, left_over, unreadable }) => {
                (transactions, left_over, unreadable)
            }
            Ok(_) => return None,
            Err(error) => {
                self.note(Level::Error, format!("cannot read mail, trying again: {error}"));
                self.traffic.paused.set(hop, Some(self.now.monotonic + LOCAL_PAUSE));
                for &id in ids {
                    self.put(id, Place::Ready);
                }
                return None;
            }
        };
        let mut found: BTreeSet<MailId> = left_over.iter().map(|row| row.id).collect();
        found.extend(transactions.iter().flat_map(|transaction| transaction.rows.iter().map(|row| row.id)));
        found.extend(unreadable.iter().map(|refused| refused.id));
        for &id in ids {
            if !found.contains(&id) {
                self.forget(id);
            }
        }
        self.set_aside_unreadable(unreadable, &Undone::Reading);
        Some((transactions, left_over))
    }

    /// Makes a transaction of those rows that still have this next hop and are still to be tried.
    fn prepare(&mut self, hop: HopId, claimed: ClaimedTransaction) -> Option<Transaction> {
        let mut recipients = Vec::new();
        let mut reverse_path = None;
        for row in claimed.rows {
            let is_as_known =
                destination(&row).ok().as_ref() == self.queue.next_hop(hop) && self.may_be_tried(&row);
            let sender = row.sender.as_deref().map(Mailbox::parse).transpose();
            match (sender, Mailbox::parse(&row.recipient)) {
                (Ok(sender), Ok(recipient)) if is_as_known => {
                    reverse_path = sender;
                    recipients.push((row.id, recipient));
                }
                _ => self.settle(&row),
            }
        }
        if recipients.is_empty() {
            return None;
        }
        Some(Transaction { reverse_path, recipients, data_octets: claimed.data_octets, head: claimed.head })
    }

    fn is_connected(&self, hop: HopId, connection: ConnectionId) -> bool {
        self.traffic.connections.get(&connection) == Some(&hop)
    }
}
