//! Reads rows of the outbox into the queue.
//!
//! New rows have higher ids than all known ones, so a scan finds them at once. The rescan finds rows that another process has
//! changed or deleted; so does a claim, in any case.
//!
//! If there are more new rows than one scan returns, the next ones are requested before these are indexed, so that reading and
//! indexing a long outbox overlap.

use alloc::format;
use alloc::vec::Vec;

use super::books::Books;
use super::hold_news::HoldNews;
use super::requests::Asked;
use super::rescan::Rescan;
use super::set_aside::Undone;
use super::{Mode, Selection};
use crate::envelope::Envelope;
use crate::event::Level;
use crate::fair_queue::Prospect;
use crate::outbox::{Cursor, MailId, Row, Scanned, StoreError, StoreRequest};
use crate::queue::{HopId, IndexEntry, MessageKey, QueueState};
use crate::schedule::RetryState;
use crate::time::{Duration, Instant};

/// Most rows that one scan returns.
const SCAN_LIMIT_ROWS: u32 = 4096;
/// Most mails that become ready in one step.
const READY_LIMIT: usize = 10_000;
/// Delay before the outbox is scanned again after the database has failed.
const SCAN_RETRY: Duration = Duration::from_secs(1);

/// The progress of reading the outbox.
#[derive(Debug)]
pub(super) struct OutboxScan {
    /// No mail beyond it is indexed. An exhausted pass fails mail up to here: a next hop with ready mail beyond would be tried
    /// again at once, without end.
    frontier: Cursor,
    /// New rows, to be indexed while the database reads more.
    arrived: Vec<Row>,
    /// Where the scan for new rows continues.
    seen: Cursor,
    is_scanning: bool,
    /// True if a further scan was requested while one was under way.
    scan_again: bool,
    next_scan: Instant,
    /// True if all rows were read once.
    is_complete: bool,
    foreign_writes: ForeignWrites,
    /// The rescan of known rows.
    pub(super) rescan: Rescan,
    /// The mail that was found to be held by lines.
    pub(super) hold_news: HoldNews,
    /// Mail that the administrator wants tried now. It becomes ready in portions.
    called_up: Vec<MailId>,
    key_basis: u64,
}

/// What is known of the writes of other processes.
#[derive(Debug, Default)]
struct ForeignWrites {
    /// The version of the database that was read last.
    data_version: Option<i64>,
    /// How often another process was found to have written.
    count: u64,
}

impl ForeignWrites {
    fn note(&mut self) {
        self.count = self.count.wrapping_add(1);
    }

    /// Records the version of the database that was read. Returns whether another process has written since the last time.
    fn note_version(&mut self, data_version: i64) -> bool {
        let known = self.data_version.replace(data_version);
        let is_new = known.is_some_and(|known| known != data_version);
        if is_new {
            self.note();
        }
        is_new
    }
}

impl OutboxScan {
    pub(super) fn new(now: Instant, key_basis: u64) -> Self {
        Self {
            frontier: Cursor::BeforeFirst,
            arrived: Vec::new(),
            seen: Cursor::BeforeFirst,
            is_scanning: false,
            scan_again: false,
            next_scan: now,
            is_complete: false,
            foreign_writes: ForeignWrites::default(),
            rescan: Rescan::default(),
            hold_news: HoldNews::default(),
            called_up: Vec::new(),
            key_basis,
        }
    }

    /// Scans at least once in an `interval` from now on, and has all known mail placed anew.
    pub(super) fn reconfigure(&mut self, now: Instant, interval: Duration) {
        self.next_scan = self.next_scan.min(now + interval);
        self.rescan.request();
    }

    /// Scans once more in a while, because the database has failed.
    pub(super) fn scan_again_soon(&mut self, now: Instant) {
        self.next_scan = now + SCAN_RETRY;
    }

    pub(super) fn next_scan(&self) -> Instant {
        self.next_scan
    }

    pub(super) fn is_scanning(&self) -> bool {
        self.is_scanning
    }

    /// Makes this mail ready, in portions.
    pub(super) fn call_up(&mut self, mails: Vec<MailId>) {
        self.called_up = mails;
    }

    /// Makes this mail ready, too.
    pub(super) fn call_up_also(&mut self, mails: impl IntoIterator<Item = MailId>) {
        self.called_up.extend(mails);
    }

    /// Notes that a mail is indexed which no scan may have returned.
    pub(super) fn pass_frontier(&mut self, id: MailId) {
        self.frontier = self.frontier.max(Cursor::After(id));
    }

    /// Takes the next portion.
    fn take_called_up(&mut self) -> Vec<MailId> {
        match self.called_up.len().checked_sub(READY_LIMIT) {
            Some(rest) => self.called_up.split_off(rest),
            None => core::mem::take(&mut self.called_up),
        }
    }

    /// Returns whether there is mail to be made ready.
    pub(super) fn has_called_up(&self) -> bool {
        !self.called_up.is_empty()
    }

    /// Returns whether a mail is to be made ready, because the administrator wants it tried now.
    pub(super) fn is_called_up(&self, id: MailId) -> bool {
        self.called_up.contains(&id)
    }

    /// Returns whether rows wait to be indexed.
    pub(super) fn has_unindexed(&self) -> bool {
        !self.arrived.is_empty()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Returns a number that changes whenever another process has written to the outbox.
    pub(super) fn changes(&self) -> u64 {
        self.foreign_writes.count
    }

    pub(super) fn note_foreign_write(&mut self) {
        self.foreign_writes.note();
    }

    /// Returns the end of the mail that is indexed.
    pub(super) fn frontier(&self) -> Cursor {
        self.frontier
    }

    /// Records the version of the database that was read. Returns whether another process has written since the last time.
    pub(super) fn note_version(&mut self, data_version: i64) -> bool {
        let is_new = self.foreign_writes.note_version(data_version);
        if is_new {
            self.rescan.request();
        }
        is_new
    }

    /// Keeps new rows to be indexed, and how far the outbox was read.
    fn arrive(&mut self, rows: Vec<Row>, next: Option<Cursor>) {
        let last = rows.last().map(|row| Cursor::After(row.id));
        self.seen = next.or(last).unwrap_or(self.seen).max(self.seen);
        self.arrived = rows;
    }

    /// Returns a hash (FNV-1a) of what the rows of one message have in common. Nothing depends on it but how much data the
    /// database has to compare.
    pub(super) fn message_key(&self, row: &Row) -> MessageKey {
        let length = row.data_octets.to_le_bytes();
        let octets = row.sender.as_deref().unwrap_or_default().iter().chain(&length);
        let hash = octets.fold(self.key_basis, |hash, &octet| {
            (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        MessageKey::from_hash(hash)
    }
}

impl Books {
    /// Returns whether the outbox may be looked at.
    pub(super) fn may_look(&self) -> bool {
        !self.run.is_for_orders() && self.store.suspects.are_known()
    }

    /// Requests new rows.
    pub(super) fn scan_new(&mut self) {
        if self.is_draining() || !self.may_look() {
            return;
        }
        if self.scan.is_scanning {
            self.scan.scan_again = true;
            return;
        }
        self.scan.is_scanning = true;
        self.ask(StoreRequest::Scan { after: self.scan.seen, limit: SCAN_LIMIT_ROWS }, Asked::Scan);
    }

    pub(super) fn scan_failed(&mut self, error: &StoreError) {
        self.scan.is_scanning = false;
        self.note(Level::Error, format!("cannot look at the outbox, trying again: {error}"));
        self.scan.scan_again_soon(self.now.monotonic);
    }

    pub(super) fn scanned(&mut self, answer: Scanned) {
        self.scan.is_scanning = false;
        let Scanned { rows, taken, unreadable, next, data_version } = answer;
        taken.into_iter().for_each(|id| self.set_aside_taken(id));
        self.set_aside_unreadable(unreadable, &Undone::Indexing);
        self.scan.arrive(rows, next);
        if self.scan.note_version(data_version) {
            self.orders.look();
        }
        if next.is_some() {
            return self.scan_new();
        }
        self.index_arrived();
        self.scan.is_complete = true;
        if core::mem::take(&mut self.scan.scan_again) {
            return self.scan_new();
        }
        if self.scan.next_scan <= self.now.monotonic {
            self.scan.next_scan = self.now.monotonic + self.config.settings.interval;
            self.bounces.resume_postponed();
            self.orders.look_again();
        }
        self.rescan();
    }

    /// Indexes the new rows that have arrived. Everything else that the database answers comes after them.
    pub(super) fn index_arrived(&mut self) {
        self.scan.frontier = self.scan.frontier.max(self.scan.seen);
        for row in core::mem::take(&mut self.scan.arrived) {
            self.index_row(&row);
        }
    }

    /// Indexes a row, unless its mail is claimed.
    pub(super) fn index_row(&mut self, row: &Row) {
        let known = self.queue.find(row.id);
        if !self.set_aside.found(row.id) && !known.is_some_and(|known| known.is_claimed()) {
            self.index_as(row, known);
        }
    }

    /// Indexes a row, even if its mail is claimed.
    pub(super) fn reindex_row(&mut self, row: &Row) {
        self.index_as(row, self.queue.find(row.id));
    }

    /// Indexes a row whose index entry is known.
    fn index_as(&mut self, row: &Row, known: Option<IndexEntry>) {
        let state = self.queue_state_of(row.id, self.retry_state_of(row));
        let named = Envelope::parse(row).ok().map(|envelope| envelope.next_hop);
        let is_wanted = match self.run.mode() {
            Mode::Daemon => true,
            Mode::CarryOutOrders => false,
            Mode::GenerateBounces => state == QueueState::GivenUp,
            Mode::Deliver(Selection::Domain(wanted)) => {
                state == QueueState::Ready && row.remote.is_none() && named.as_ref() == Some(wanted)
            }
            Mode::Deliver(Selection::Remote(wanted)) => {
                state == QueueState::Ready && row.remote.as_deref() == Some(wanted.as_ref())
            }
        };
        if !is_wanted {
            return self.forget(row.id);
        }
        let next_hop = named.map(|named| self.config.policies.route(named));
        if state == QueueState::Ready
            && known
                .is_some_and(|known| known.is_ready() && next_hop.as_ref() == self.queue.next_hop(known.hop))
        {
            return;
        }
        if known.is_some_and(|known| known.is_claimed()) && self.goes_to_order(row.id, state) {
            return;
        }
        let key = self.scan.message_key(row);
        self.give_up_unless_kept(row.id, state);
        // A scan need not have returned the row: it passes over mail that was taken, and other mail may stand in its place now.
        self.scan.pass_frontier(row.id);
        let hop = self.queue.insert(row.id, next_hop.as_ref(), key, state);
        self.scan.hold_news.note(row.id, known.map(|known| known.queue_state()), state);
        self.queue.suppose(hop, if row.fail_count == 0 { Prospect::Fresh } else { Prospect::Failed });
        self.note_queue_state(hop, key, state);
        if let Some(before) = known.filter(|known| (known.hop, known.key) != (hop, key)) {
            self.reconsider(before.hop, before.key);
        }
    }

    /// Returns whether the mail of a row is held, or what its faillog says.
    pub(super) fn retry_state_of(&self, row: &Row) -> RetryState {
        self.rules().retry_state(row, self.now.wall)
    }

    /// Changes the state of a mail that is in the index.
    pub(super) fn requeue(&mut self, id: MailId, state: QueueState) {
        let Some(known @ IndexEntry { hop, key, .. }) = self.queue.find(id) else { return };
        if known.is_claimed() && self.goes_to_order(id, state) {
            return;
        }
        self.give_up_unless_kept(id, state);
        self.queue.set_state(id, state);
        self.scan.hold_news.note(id, Some(known.queue_state()), state);
        self.note_queue_state(hop, key, state);
    }

    /// Forgets a mail: it is gone, or not ours to deliver.
    pub(super) fn forget(&mut self, id: MailId) {
        self.set_aside.end(id);
        self.store.held.give_up(id);
        self.orders.forget(id);
        // A one-shot pass also forgets what is still there.
        if self.run.is_daemon() {
            self.store.suspects.forget(id);
        }
        let Some(IndexEntry { hop, key, .. }) = self.queue.find(id) else { return };
        self.attempts.end_order(id);
        self.queue.remove(id);
        self.reconsider(hop, key);
    }

    fn note_queue_state(&mut self, hop: HopId, key: MessageKey, state: QueueState) {
        match state {
            QueueState::Waiting(_) | QueueState::GivenUp | QueueState::SetAside | QueueState::Held(_) => {
                self.reconsider(hop, key);
            }
            // The queue knows whom that concerns.
            QueueState::Ready | QueueState::ReadyAgain => {}
            QueueState::Claimed => {}
        }
    }

    /// Makes mail ready that has become due.
    pub(super) fn make_due_mail_ready(&mut self) {
        if self.is_draining() {
            return;
        }
        for id in self.queue.due(self.now.wall, READY_LIMIT) {
            self.requeue(id, self.ready_or_waiting(id));
        }
        for id in self.scan.take_called_up() {
            if let Some(due) = self.queue.find(id).and_then(|known| known.waits_for()) {
                self.attempts.order(id, due);
                self.requeue(id, self.ready_or_waiting(id));
            }
        }
    }

    /// Scans the outbox now, before its time.
    pub(super) fn scan_now(&mut self) {
        self.scan.next_scan = self.now.monotonic;
        self.scan_new();
    }
}
