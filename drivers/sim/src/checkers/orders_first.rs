//! A daemon begins no mail before it has carried out the orders that were given before it started. If the database refuses to read or
//! record them, other than because it is locked, it may: mail does not wait for that.

use std::collections::{BTreeMap, BTreeSet};

use cmail_delivery::order::{OrderEffect, OrderId};
use cmail_delivery::outbox::{MailId, StoreRequest};

use super::Checker;
use crate::facts::{Fact, Scene};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OrdersFirst {
    /// Mail to which each order has come, in any life of the daemon.
    done: BTreeMap<OrderId, BTreeSet<MailId>>,
    /// Mail that orders of before the start are about, as far as they were not carried out on it.
    waits: BTreeMap<MailId, BTreeSet<OrderId>>,
}

impl OrdersFirst {
    fn started(&mut self, scene: &Scene<'_>, is_pass: bool) {
        self.waits.clear();
        if is_pass {
            return;
        }
        for (number, order) in scene.outbox.orders().iter() {
            if order.result.is_none() && order.verb.effect() != OrderEffect::TryNow {
                let done = self.done.get(&number);
                for &id in order.mails.iter().filter(|id| done.is_none_or(|done| !done.contains(id))) {
                    self.waits.entry(id).or_default().insert(number);
                }
            }
        }
    }

    fn asked(&self, request: &StoreRequest) -> Result<(), String> {
        let (StoreRequest::Claim { ids, .. } | StoreRequest::ReadFailed { ids, .. }) = request else {
            return Ok(());
        };
        let early = ids.iter().find_map(|id| Some((id, self.waits.get(id)?.first()?)));
        early.map_or(Ok(()), |(id, number)| {
            Err(format!("mail {id} is begun before order {number}, which was given before the start"))
        })
    }
}

impl Checker for OrdersFirst {
    fn name(&self) -> &'static str {
        "orders of before the start come first"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Started { is_pass, .. } => self.started(scene, is_pass),
            Fact::Stopped { .. } => self.waits.clear(),
            Fact::CarryingOut { step, .. } => {
                // Those that the database cannot change are excused.
                for id in step.mails.iter().chain(&step.gone) {
                    self.done.entry(step.order).or_default().insert(*id);
                    if let Some(orders) = self.waits.get_mut(id) {
                        orders.remove(&step.order);
                        if orders.is_empty() {
                            self.waits.remove(id);
                        }
                    }
                }
            }
            Fact::Asked { request, .. } => return self.asked(request),
            _ => {}
        }
        Ok(())
    }
}
