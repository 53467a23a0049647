//! How rows of the outbox come into the queue.
//!
//! New rows have higher ids than all known ones and are found at once. Rows that another process has changed or
//! deleted are found by the walk over the outbox, and in any case when they are claimed.
//!
//! While there are more new rows than one look brings, the database is asked for the next ones before these are put
//! where they belong, so that a long outbox is read and indexed at the same time.

use alloc::format;
use alloc::vec::Vec;

use super::books::Books;
use super::requests::Asked;
use super::set_aside::Undone;
use super::walk::Walk;
use super::{Mode, Selection};
use crate::address::{AddressError, Mailbox};
use crate::attempt::{Failure, Unresolved, Unsendable};
use crate::event::Level;
use crate::next_hop::{NextHop, Relay};
use crate::outbox::{Cursor, MailId, Row, Scanned, StoreError, StoreRequest};
use crate::queue::{HopId, Known, MessageKey, Place};
use crate::schedule::Standing;
use crate::time::{Duration, Instant};
use crate::turns::Prospect;

/// Most rows that one look at the outbox brings.
const LOOK_LIMIT_ROWS: u32 = 4096;
/// Most mail that becomes ready in one step.
const WAKE_LIMIT: usize = 10_000;
/// How soon the outbox is looked at again after the database has failed.
const LOOK_RETRY: Duration = Duration::from_secs(1);

/// Where the reading of the outbox stands.
#[derive(Debug)]
pub(super) struct Intake {
    /// Behind the highest id that was taken in.
    frontier: Cursor,
    /// New rows behind the frontier that are to be taken in next, while the database is asked for more.
    arrived: Vec<Row>,
    /// Where the frontier is when they are taken in.
    seen: Cursor,
    is_looking: bool,
    /// Whether somebody asked for a look while one was under way.
    look_again: bool,
    next_look: Instant,
    /// Whether all rows were seen once.
    is_complete: bool,
    data_version: Option<i64>,
    /// How often somebody else was found to have written.
    changes: u64,
    /// The walk over known rows.
    pub(super) walk: Walk,
    /// Mail that the administrator wants to be tried, of which a part is made ready at a time.
    called_up: Vec<MailId>,
    key_basis: u64,
}

impl Intake {
    pub(super) fn new(now: Instant, key_basis: u64) -> Self {
        Self {
            frontier: Cursor::BeforeFirst,
            arrived: Vec::new(),
            seen: Cursor::BeforeFirst,
            is_looking: false,
            look_again: false,
            next_look: now,
            is_complete: false,
            data_version: None,
            changes: 0,
            walk: Walk::default(),
            called_up: Vec::new(),
            key_basis,
        }
    }

    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }

    pub(super) fn is_looking(&self) -> bool {
        self.is_looking
    }

    /// This mail is to be made ready.
    pub(super) fn call_up(&mut self, mails: Vec<MailId>) {
        self.called_up = mails;
    }

    /// The next part of it.
    fn take_called_up(&mut self) -> Vec<MailId> {
        match self.called_up.len().checked_sub(WAKE_LIMIT) {
            Some(rest) => self.called_up.split_off(rest),
            None => core::mem::take(&mut self.called_up),
        }
    }

    /// Whether there is mail to be made ready.
    pub(super) fn has_called_up(&self) -> bool {
        !self.called_up.is_empty()
    }

    /// Whether there are rows to be taken in.
    pub(super) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Changes whenever another process has written to the outbox.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn somebody_wrote(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }

    /// Where the mail ends that was taken in.
    pub(super) fn frontier(&self) -> Cursor {
        self.frontier
    }

    /// Takes note of the version of the database that was read; whether another process has written to it since the last
    /// time.
    pub(super) fn see_version(&mut self, data_version: i64) -> bool {
        let known = self.data_version.replace(data_version);
        let is_new = known.is_some_and(|known| known != data_version);
        if is_new {
            self.somebody_wrote();
            self.walk.want();
        }
        is_new
    }

    /// Takes note of new rows, and of how far the outbox was read.
    fn arrive(&mut self, rows: Vec<Row>, next: Option<Cursor>) {
        let last = rows.last().map(|row| Cursor::After(row.id));
        self.seen = next.or(last).unwrap_or(self.seen).max(self.seen);
        self.arrived = rows;
    }

    /// A hash (FNV-1a) of what rows of one message have in common. Nothing depends on it but how much data the
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

/// What a row says about from whom, to whom, and where mail goes.
pub(super) struct Envelope {
    /// Nothing is the null reverse-path.
    pub(super) reverse_path: Option<Mailbox>,
    pub(super) recipient: Mailbox,
    pub(super) next_hop: NextHop,
}

impl Envelope {
    /// Parses a row. Fails with what is to be recorded if the mail cannot be sent anywhere.
    pub(super) fn parse(row: &Row) -> Result<Self, Failure> {
        let unsendable = |error| Failure::Unsendable(Unsendable::Recipient(error));
        let recipient = Mailbox::parse(&row.recipient).map_err(unsendable)?;
        let reverse_path = row.sender.as_deref().map(Mailbox::parse).transpose();
        let reverse_path = reverse_path.map_err(|error| Failure::Unsendable(Unsendable::Sender(error)))?;
        let next_hop = match &row.remote {
            Some(remote) => Relay::parse(remote).map(NextHop::Relay).map_err(Failure::MalformedRelay)?,
            None => match recipient.domain() {
                Ok(domain) => domain.into(),
                Err(error @ (AddressError::Domain(_) | AddressError::NoDestination(_))) => {
                    return Err(Failure::Unresolved(Unresolved::BadDomain(error)));
                }
                Err(error) => return Err(unsendable(error)),
            },
        };
        Ok(Self { reverse_path, recipient, next_hop })
    }
}

impl Books {
    /// Looks for new rows.
    pub(super) fn look(&mut self) {
        if self.is_draining() {
            return;
        }
        if self.intake.is_looking {
            self.intake.look_again = true;
            return;
        }
        self.intake.is_looking = true;
        self.ask(StoreRequest::Scan { after: self.intake.seen, limit: LOOK_LIMIT_ROWS }, Asked::Look);
    }

    pub(super) fn look_failed(&mut self, error: &StoreError) {
        self.intake.is_looking = false;
        self.note(Level::Error, format!("cannot look at the outbox, trying again: {error}"));
        self.intake.next_look = self.now.monotonic + LOOK_RETRY;
    }

    pub(super) fn looked(&mut self, answer: Scanned) {
        self.intake.is_looking = false;
        let Scanned { rows, taken, unreadable, next, data_version } = answer;
        taken.into_iter().for_each(|id| self.was_taken(id));
        self.set_aside_unreadable(unreadable, &Undone::Indexing);
        self.intake.arrive(rows, next);
        self.intake.see_version(data_version);
        if next.is_some() {
            return self.look();
        }
        self.take_in_arrived();
        self.intake.is_complete = true;
        if core::mem::take(&mut self.intake.look_again) {
            return self.look();
        }
        if self.intake.next_look <= self.now.monotonic {
            self.intake.next_look = self.now.monotonic + self.settings.interval;
            self.bounces.resume_postponed();
        }
        self.walk();
    }

    /// Takes in the new rows that have arrived. Whatever else the database says comes after them.
    pub(super) fn take_in_arrived(&mut self) {
        self.intake.frontier = self.intake.seen;
        for row in core::mem::take(&mut self.intake.arrived) {
            self.take_in(&row);
        }
    }

    /// Puts a row where it belongs, unless somebody works on it.
    pub(super) fn take_in(&mut self, row: &Row) {
        let known = self.queue.find(row.id);
        if !self.set_aside.found(row.id) && !known.is_some_and(|known| known.is_claimed()) {
            self.settle_known(row, known);
        }
    }

    /// Puts a row where it belongs, whether it was claimed or not.
    pub(super) fn settle(&mut self, row: &Row) {
        self.settle_known(row, self.queue.find(row.id));
    }

    /// [`settle`](Self::settle), for a row of which this is known.
    fn settle_known(&mut self, row: &Row, known: Option<Known>) {
        let place = self.place_of(row.id, self.standing_of(row));
        let next_hop = Envelope::parse(row).ok().map(|envelope| envelope.next_hop);
        let is_wanted = match &self.mode {
            Mode::Daemon => true,
            Mode::GenerateBounces => place == Place::GivenUp,
            Mode::Deliver(Selection::Domain(wanted)) => {
                place == Place::Ready && row.remote.is_none() && next_hop.as_ref() == Some(wanted)
            }
            Mode::Deliver(Selection::Remote(wanted)) => {
                place == Place::Ready && row.remote.as_deref() == Some(wanted.as_ref())
            }
        };
        if !is_wanted {
            return self.forget(row.id);
        }
        if place == Place::Ready
            && known
                .is_some_and(|known| known.is_ready() && next_hop.as_ref() == self.queue.next_hop(known.hop))
        {
            return;
        }
        let key = self.intake.message_key(row);
        let hop = self.queue.insert(row.id, next_hop.as_ref(), key, place);
        self.queue.suppose(hop, if row.fail_count == 0 { Prospect::Fresh } else { Prospect::Failed });
        self.mail_was_placed(hop, key, place);
        if let Some(before) = known.filter(|known| (known.hop, known.key) != (hop, key)) {
            self.reconsider(before.hop, before.key);
        }
    }

    pub(super) fn standing_of(&self, row: &Row) -> Standing {
        self.rules.standing(row.fail_count, row.last_try, row.fatal, self.now.wall)
    }

    /// Puts a known mail elsewhere.
    pub(super) fn put(&mut self, id: MailId, place: Place) {
        let Some(Known { hop, key, .. }) = self.queue.find(id) else { return };
        self.queue.place(id, place);
        self.mail_was_placed(hop, key, place);
    }

    /// Forgets a mail: it is gone, or none of our business.
    pub(super) fn forget(&mut self, id: MailId) {
        self.set_aside.end(id);
        let Some(Known { hop, key, .. }) = self.queue.find(id) else { return };
        self.attempts.end_order(id);
        self.queue.remove(id);
        self.reconsider(hop, key);
    }

    fn mail_was_placed(&mut self, hop: HopId, key: MessageKey, place: Place) {
        match place {
            Place::Waiting(_) | Place::GivenUp | Place::SetAside => self.reconsider(hop, key),
            // The queue knows whom that concerns.
            Place::Ready | Place::ReadyAgain => {}
            Place::Claimed => {}
        }
    }

    /// Makes mail ready that has become due.
    pub(super) fn wake_mail(&mut self) {
        if self.is_draining() {
            return;
        }
        for id in self.queue.due(self.now.wall, WAKE_LIMIT) {
            self.put(id, self.place_of_wanted(id));
        }
        for id in self.intake.take_called_up() {
            if let Some(due) = self.queue.find(id).and_then(|known| known.waits_for()) {
                self.attempts.order(id, due);
                self.put(id, self.place_of_wanted(id));
            }
        }
    }

    /// Looks at the outbox without waiting for its time.
    pub(super) fn look_now(&mut self) {
        self.intake.next_look = self.now.monotonic;
        self.look();
    }
}
