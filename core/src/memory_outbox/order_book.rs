//! The orders of an outbox in memory, and how far each is done.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use crate::hold::HoldId;
use crate::order::{ORDER_PART_LIMIT, OrderId, OrderPart, OrderPlace, OrderStep, OrderVerb, order_result};
use crate::outbox::{Cursor, FaillogRow, MailId};

use super::Mail;

/// An order that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenOrder {
    /// What it does.
    pub verb: OrderVerb,
    /// The mail that it is about.
    pub mails: BTreeSet<MailId>,
    /// The new `mail_remote`, of an order to redirect.
    pub remote: Option<bytes::Bytes>,
    /// What has come of it, once it is done.
    pub result: Option<String>,
    place: OrderPlace,
    under_way: Vec<MailId>,
    done: u64,
    gone: u64,
}

impl GivenOrder {
    /// Returns an order of which nothing is done.
    pub fn new(verb: OrderVerb, mails: impl IntoIterator<Item = MailId>) -> Self {
        Self {
            verb,
            mails: mails.into_iter().collect(),
            remote: None,
            result: None,
            place: OrderPlace::At(Cursor::BeforeFirst),
            under_way: Vec::new(),
            done: 0,
            gone: 0,
        }
    }

    /// Carries a step of the order out on a mail. Returns the mail as it is then; `None` if it is deleted.
    pub fn carry_out(&self, step: &OrderStep, id: MailId, mut mail: Mail) -> Option<Mail> {
        match self.verb {
            OrderVerb::Retry => {}
            OrderVerb::RetryAnew => mail.faillog.clear(),
            OrderVerb::Hold if mail.hold.is_held() => {}
            OrderVerb::Hold => mail.hold = mail.hold.by(HoldId(step.order.0)),
            OrderVerb::Release => mail.hold = step.terms.released(&mail.row(id)),
            OrderVerb::Fail => {
                let text = b"given up by order"[..].into();
                mail.hold = step.terms.released(&mail.row(id));
                mail.faillog.push(FaillogRow { time: step.terms.now, text, fatal: true });
            }
            OrderVerb::Drop => return None,
            OrderVerb::Redirect => mail.remote.clone_from(&self.remote),
        }
        Some(mail)
    }
}

/// The orders.
#[derive(Clone, Debug, Default)]
pub struct OrderBook {
    orders: BTreeMap<OrderId, GivenOrder>,
}

impl OrderBook {
    /// Adds an order after all others.
    pub fn give(&mut self, order: GivenOrder) -> OrderId {
        let last = self.orders.last_key_value().map_or(0, |(number, _)| number.0);
        let number = OrderId(last.saturating_add(1));
        self.orders.insert(number, order);
        number
    }

    /// Returns an order.
    pub fn find(&self, number: OrderId) -> Option<&GivenOrder> {
        self.orders.get(&number)
    }

    /// Returns all orders.
    pub fn iter(&self) -> impl Iterator<Item = (OrderId, &GivenOrder)> {
        self.orders.iter().map(|(&number, order)| (number, order))
    }

    /// Answers [`StoreRequest::ReadOrders`](crate::outbox::StoreRequest::ReadOrders). `exists` tells whether a mail does.
    pub fn read(
        &self,
        known: &[(OrderId, OrderPlace)],
        exists: impl Fn(&MailId) -> bool,
    ) -> Option<OrderPart> {
        let place_of = |number: OrderId, order: &GivenOrder| {
            known.iter().find(|(other, _)| *other == number).map_or(order.place, |&(_, place)| place)
        };
        let is_known = |number: OrderId| known.iter().any(|(other, _)| *other == number);
        let (&order, given) = self.orders.iter().find(|&(&number, order)| {
            let is_read = is_known(number) && place_of(number, order) == OrderPlace::End;
            order.result.is_none() && !is_read
        })?;
        let mut mails: Vec<MailId> = match place_of(order, given) {
            OrderPlace::At(place) => {
                let first = place.next_id();
                first.into_iter().flat_map(|first| given.mails.range(first..)).copied().collect()
            }
            OrderPlace::End => Vec::new(),
        };
        let next = match mails.get(ORDER_PART_LIMIT - 1) {
            Some(&last) if mails.len() > ORDER_PART_LIMIT => OrderPlace::At(Cursor::After(last)),
            Some(_) | None => OrderPlace::End,
        };
        mails.truncate(ORDER_PART_LIMIT);
        mails.retain(exists);
        Some(OrderPart {
            order,
            effect: given.verb.effect(),
            mails,
            under_way: given.under_way.clone(),
            next,
        })
    }

    /// Records how far an order is done, with a step that has changed this many mails. Returns the result if it was the last.
    pub fn record(&mut self, step: &OrderStep, changed: u64) -> Option<String> {
        let order = self.orders.get_mut(&step.order)?;
        order.place = step.next;
        order.under_way.clone_from(&step.under_way);
        order.done += changed;
        order.gone += step.gone.len() as u64;
        if step.is_last() {
            order.result = Some(order_result(order.verb, order.done, order.gone));
        }
        order.result.clone()
    }
}
