//! What orders of the administrator do to mail.

use cmail_delivery::memory_outbox::{GivenOrder, OrderBook};
use cmail_delivery::order::{CarriedOut, Hold, OrderId, OrderStep, OrderVerb};
use cmail_delivery::outbox::{FaillogRow, MailId, Row};

use super::Outbox;
use crate::poison::Poison;

impl Outbox {
    /// An order is given.
    pub(crate) fn order(&mut self, order: GivenOrder) -> OrderId {
        self.data_version += 1;
        self.orders.give(order)
    }

    /// The orders.
    pub(crate) fn orders(&self) -> &OrderBook {
        &self.orders
    }

    /// The mail of a step on which its order is carried out.
    pub(crate) fn ordered(&self, step: &OrderStep) -> Vec<MailId> {
        let order = self.orders.find(step.order).filter(|order| order.result.is_none());
        let is_meant =
            |id: &MailId| order.is_some_and(|order| order.mails.contains(id)) && self.can_change(*id);
        step.mails.iter().copied().filter(is_meant).collect()
    }

    fn can_change(&self, id: MailId) -> bool {
        self.mails.contains_key(&id) && !self.is_stuck(id) && self.poisoned.get(id).is_none()
    }

    /// Carries out a step of an order.
    pub(crate) fn carry_out(&mut self, step: &OrderStep) -> CarriedOut {
        let Some(order) = self.orders.find(step.order).filter(|order| order.result.is_none()).cloned() else {
            return CarriedOut { rows: self.found(&step.mails), ..CarriedOut::default() };
        };
        let done = self.ordered(step);
        for &id in &done {
            let Some(mail) = self.mails.get_mut(&id) else { continue };
            match order.verb {
                OrderVerb::Retry => {}
                OrderVerb::RetryAnew => mail.faillog.clear(),
                OrderVerb::Hold => mail.hold = Hold::Held,
                OrderVerb::Release => mail.hold = Hold::Unset,
                OrderVerb::Fail => {
                    let (time, text) = (step.terms.now, b"given up by order"[..].into());
                    mail.faillog.push(FaillogRow { time, text, fatal: true });
                    mail.hold = Hold::Unset;
                }
                OrderVerb::Drop => drop(self.mails.remove(&id)),
                OrderVerb::Redirect => mail.remote.clone_from(&order.remote),
            }
        }
        let result = self.orders.record(step, done.len() as u64);
        CarriedOut { rows: self.found(&step.mails), done, is_open: true, result }
    }

    fn found(&self, ids: &[MailId]) -> Vec<Row> {
        let is_readable = |id: &MailId| {
            !self.is_stuck(*id) && !matches!(self.poisoned.get(*id), Some(Poison::Read | Poison::Find))
        };
        let ids = ids.iter().filter(|id| is_readable(id));
        ids.filter_map(|id| Some(self.mails.get(id)?.row(*id))).collect()
    }
}
