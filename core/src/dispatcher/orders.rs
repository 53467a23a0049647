//! Orders of the administrator, carried out step by step on mail that nothing else works on.
//!
//! One request about orders is open at a time, so that verdicts and claims come in between. The mail of a step is claimed until the
//! step is answered. Mail that is under way when an order comes to it is awaited: when its attempt has ended, it goes to the order
//! instead of back into the queue.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use super::Mode;
use super::books::Books;
use super::requests::Asked;
use crate::event::{EventName, Level};
use crate::order::{CarriedOut, ORDER_PART_LIMIT, OrderEffect, OrderId, OrderPart, OrderPlace, OrderStep};
use crate::outbox::{MailId, StoreError, StoreRequest, StoreTrouble};
use crate::queue::{MessageKey, QueueState};
use crate::schedule::RetryTerms;
use crate::tally::Fate;

/// Whether orders may stand that were given before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backlog {
    /// None was looked for.
    Unread,
    /// Some do. They are carried out as soon as the outbox is known.
    Stands,
    /// None does, or the database cannot tell.
    Over,
}

/// The orders that are being carried out.
#[derive(Debug)]
pub(super) struct Orders {
    /// Those that were given before the start.
    backlog: Backlog,
    open: BTreeMap<OrderId, OpenOrder>,
    /// Mail that is under way, with the orders that await it.
    awaited: BTreeSet<(MailId, OrderId)>,
    /// Mail that orders have, with the state that it had or would have had without them; `None` if it was not in the index.
    taken: BTreeMap<MailId, Option<QueueState>>,
    /// Whether there may be an order, or a part of one, that was not read.
    may_have_more: bool,
    /// Whether a request about orders is open.
    is_asking: bool,
    /// Whether one has failed since the last regular scan. The next one comes after that, however often other programs write.
    has_failed: bool,
}

/// What is known of an order.
#[derive(Debug)]
struct OpenOrder {
    effect: OrderEffect,
    /// How far its mail was looked at.
    place: OrderPlace,
    /// Mail that it has awaited, and that has come to it.
    arrived: BTreeSet<MailId>,
    /// Mail that it has awaited, and that is gone.
    gone: Vec<MailId>,
}

impl Orders {
    pub(super) fn new(mode: &Mode) -> Self {
        let backlog = match mode {
            Mode::Daemon => Backlog::Unread,
            Mode::CarryOutOrders | Mode::Deliver(_) | Mode::GenerateBounces => Backlog::Over,
        };
        Self {
            backlog,
            open: BTreeMap::new(),
            awaited: BTreeSet::new(),
            taken: BTreeMap::new(),
            may_have_more: false,
            is_asking: false,
            has_failed: false,
        }
    }

    /// Returns whether mail must wait, because an order that was given before the start may be about it.
    pub(super) fn come_first(&self) -> bool {
        self.backlog != Backlog::Over
    }

    /// Notes that there may be a new order.
    pub(super) fn look(&mut self) {
        self.may_have_more = true;
    }

    /// Notes that it is time to look again, also after a failure.
    pub(super) fn look_again(&mut self) {
        self.may_have_more = true;
        self.has_failed = false;
    }

    /// Returns whether everything that can be done without trying mail is done.
    pub(super) fn are_done(&self) -> bool {
        !self.may_have_more && !self.is_asking
    }

    /// Returns whether a request about orders is open.
    pub(super) fn is_asking(&self) -> bool {
        self.is_asking
    }

    /// Returns the mail that orders have.
    pub(super) fn taken(&self) -> impl Iterator<Item = MailId> {
        self.taken.keys().copied()
    }

    fn first_awaiting(&self, id: MailId) -> Option<OrderId> {
        let range = (id, OrderId(i64::MIN))..=(id, OrderId(i64::MAX));
        self.awaited.range(range).next().map(|&(_, order)| order)
    }

    /// Gives a mail whose attempt has ended to the first order that awaits it. Returns whether there is one.
    fn take_awaited(&mut self, id: MailId, state: QueueState) -> bool {
        let Some(number) = self.first_awaiting(id) else { return false };
        self.awaited.remove(&(id, number));
        let Some(order) = self.open.get_mut(&number) else { return false };
        order.arrived.insert(id);
        self.take(id, Some(state));
        true
    }

    fn take(&mut self, id: MailId, state: Option<QueueState>) {
        // What it was set aside for is forgotten.
        let state = state.map(|state| if state == QueueState::SetAside { QueueState::Ready } else { state });
        self.taken.insert(id, state);
    }

    /// Notes that a mail is gone.
    pub(super) fn forget(&mut self, id: MailId) {
        self.taken.remove(&id);
        while let Some(number) = self.first_awaiting(id) {
            self.awaited.remove(&(id, number));
            self.miss(id, number);
        }
    }

    /// Notes that an order has come too late for a mail.
    fn miss(&mut self, id: MailId, number: OrderId) {
        if let Some(order) = self.open.get_mut(&number) {
            order.gone.push(id);
        }
    }

    /// Takes what is to be done for an order next, besides `mails`.
    fn step(&mut self, number: OrderId, mut mails: Vec<MailId>, terms: RetryTerms) -> Option<OrderStep> {
        let order = self.open.get_mut(&number)?;
        let room = ORDER_PART_LIMIT.saturating_sub(mails.len());
        let rest: BTreeSet<MailId> = order.arrived.iter().copied().skip(room).collect();
        mails.extend(core::mem::replace(&mut order.arrived, rest).into_iter().take(room));
        let gone = core::mem::take(&mut order.gone);
        let awaited = self.awaited.iter().filter(|(_, other)| *other == number).map(|&(id, _)| id);
        let under_way = awaited.chain(order.arrived.iter().copied()).collect();
        Some(OrderStep { order: number, mails, gone, under_way, next: order.place, terms })
    }

    /// Takes a step of the first order to which mail has come.
    fn next_step(&mut self, terms: RetryTerms) -> Option<OrderStep> {
        let has_news = |order: &OpenOrder| !order.arrived.is_empty() || !order.gone.is_empty();
        let number = self.open.iter().find(|(_, order)| has_news(order)).map(|(&number, _)| number)?;
        self.step(number, Vec::new(), terms)
    }

    fn end(&mut self, number: OrderId) -> BTreeSet<MailId> {
        self.awaited.retain(|(_, other)| *other != number);
        self.open.remove(&number).map(|order| order.arrived).unwrap_or_default()
    }
}

impl Books {
    /// Asks for what is to be done next for orders, unless that is under way.
    pub(super) fn carry_out_orders(&mut self) {
        let knows_its_mail = match self.run.mode() {
            Mode::Daemon if self.orders.backlog == Backlog::Unread => true,
            Mode::Daemon => self.scan.is_complete() && !self.scan.is_scanning(),
            Mode::CarryOutOrders => true,
            Mode::Deliver(_) | Mode::GenerateBounces => false,
        };
        if self.orders.is_asking || self.orders.has_failed || !knows_its_mail || self.commits.is_congested() {
            return;
        }
        if let Some(step) = self.orders.next_step(self.order_terms()) {
            return self.ask_step(step);
        }
        if core::mem::take(&mut self.orders.may_have_more) {
            self.orders.is_asking = true;
            let known = self.orders.open.iter().map(|(&number, order)| (number, order.place)).collect();
            let terms = self.order_terms();
            self.ask(StoreRequest::ReadOrders { known, terms }, Asked::Orders);
        }
    }

    fn order_terms(&self) -> RetryTerms {
        RetryTerms::of(&self.config.settings.schedule, self.now.wall)
    }

    fn ask_step(&mut self, step: OrderStep) {
        self.orders.is_asking = true;
        self.ask(StoreRequest::CarryOut(step.clone()), Asked::CarryOut(step));
    }

    /// Takes the mail of a part of an order, as far as it is not under way. Returns whether this begins an order to try mail now.
    pub(super) fn order_read(&mut self, part: Option<OrderPart>) -> bool {
        self.orders.is_asking = false;
        let Some(OrderPart { order: number, effect, mut mails, under_way, mut next }) = part else {
            self.orders.backlog = Backlog::Over;
            return false;
        };
        self.orders.may_have_more = true;
        if self.orders.backlog == Backlog::Unread {
            // Its mail is not known yet.
            self.orders.backlog = Backlog::Stands;
            return false;
        }
        let is_new = !self.orders.open.contains_key(&number);
        let stands = self.run.is_for_orders() && effect == OrderEffect::TryNow;
        if stands {
            next = OrderPlace::End;
        }
        let order = OpenOrder { effect, place: next, arrived: BTreeSet::new(), gone: Vec::new() };
        self.orders.open.entry(number).or_insert(order).place = next;
        if stands {
            return false;
        }
        // What an earlier process has left under way is not under way any more.
        let left = if is_new { under_way } else { Vec::new() };
        let mut free = Vec::with_capacity(mails.len());
        mails.extend(left);
        for id in mails {
            if self.set_aside.was_delivered(id) {
                self.orders.miss(id, number);
            } else if self.spare_for_order(id) {
                free.push(id);
            } else {
                self.orders.awaited.insert((id, number));
            }
        }
        let terms = self.order_terms();
        // The first step makes the hold, and says up to which mail the order is about, even if it has no mail yet.
        let is_step = is_new || !free.is_empty() || next == OrderPlace::End || effect == OrderEffect::NoMail;
        if is_step && let Some(step) = self.orders.step(number, free, terms) {
            self.ask_step(step);
        }
        is_new && effect.tries()
    }

    /// Claims a mail for an order, unless something else works on it. Mail that is not in the index is claimed as well, so that
    /// no scan makes it ready meanwhile.
    fn spare_for_order(&mut self, id: MailId) -> bool {
        let known = self.queue.find(id);
        if known.is_some_and(|known| known.is_claimed()) || self.set_aside.awaits_verdict(id) {
            return false;
        }
        self.orders.take(id, known.map(|known| known.queue_state()));
        self.set_aside.end(id);
        match known {
            Some(known) => {
                self.queue.set_state(id, QueueState::Claimed);
                self.reconsider(known.hop, known.key);
            }
            None => {
                self.scan.pass_frontier(id);
                self.queue.insert(id, None, MessageKey(0), QueueState::Claimed);
            }
        }
        true
    }

    /// Gives a mail to the order that awaits it, if its attempt has ended: it does not go back into the queue then. Returns whether
    /// an order has it.
    pub(super) fn goes_to_order(&mut self, id: MailId, state: QueueState) -> bool {
        let has_ended = match state {
            QueueState::Claimed => false,
            QueueState::SetAside => !self.set_aside.awaits_verdict(id),
            QueueState::Waiting(_)
            | QueueState::Ready
            | QueueState::ReadyAgain
            | QueueState::GivenUp
            | QueueState::Held(_) => true,
        };
        if !has_ended || !self.orders.take_awaited(id, state) {
            return false;
        }
        self.set_aside.end(id);
        self.store.held.give_up(id);
        self.queue.set_state(id, QueueState::Claimed);
        true
    }

    /// Places the mail of a step anew.
    pub(super) fn order_carried_out(&mut self, step: &OrderStep, answer: CarriedOut) {
        let CarriedOut { rows, done, is_open, result } = answer;
        self.orders.is_asking = false;
        let effect = self.orders.open.get(&step.order).map(|order| order.effect);
        let arrived = if step.is_last() || !is_open { self.orders.end(step.order) } else { BTreeSet::new() };
        let found: BTreeSet<MailId> = rows.iter().map(|row| row.id).collect();
        done.iter().filter(|id| !found.contains(id)).for_each(|_| self.outlet.tally.mails.add(Fate::Removed));
        for &id in step.mails.iter().filter(|id| !found.contains(id)) {
            self.forget(id);
        }
        for row in &rows {
            self.orders.taken.remove(&row.id);
            self.reindex_row(row);
        }
        if effect.is_some_and(OrderEffect::tries) {
            self.scan.call_up_also(done);
        }
        // An order that was withdrawn has no use for them.
        arrived.into_iter().for_each(|id| self.give_back_from_order(id));
        if let Some(result) = result {
            self.note_about(EventName::Order, Level::Info, result);
        }
    }

    /// Handles a failure to read orders, or to carry out a step. The mail goes back. The orders are read again with the next regular
    /// scan.
    pub(super) fn order_failed(&mut self, error: &StoreError) {
        self.orders.is_asking = false;
        self.note_about(
            EventName::Order,
            Level::Error,
            format!("cannot carry out an order, trying again: {error}"),
        );
        // What the database has recorded is all that is needed to begin again.
        self.orders.open.clear();
        self.orders.awaited.clear();
        let taken: Vec<MailId> = self.orders.taken().collect();
        taken.into_iter().for_each(|id| self.give_back_from_order(id));
        // Other mail must not wait for an order that cannot be read. A database that is locked can tell nothing of mail either.
        if error.trouble != StoreTrouble::Busy {
            self.orders.backlog = Backlog::Over;
        } else if self.orders.come_first() {
            self.scan.scan_again_soon(self.now.monotonic);
        }
        // A single pass gives up after some failures.
        self.orders.has_failed = !self.run.is_for_orders();
        self.orders.look();
    }

    /// Gives a mail back that an order has and does nothing to.
    fn give_back_from_order(&mut self, id: MailId) {
        match self.orders.taken.remove(&id) {
            Some(Some(state)) => self.requeue(id, state),
            Some(None) => {
                self.queue.remove(id);
                self.scan.rescan.request();
            }
            None => {}
        }
    }
}
