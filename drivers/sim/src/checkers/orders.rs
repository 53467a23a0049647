//! What the administrator orders is done: held mail is neither sent nor given up, mail that an order has deleted is not sent, and an order
//! is carried out once on each mail, or the mail is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use cmail_delivery::order::{OrderId, OrderVerb};
use cmail_delivery::outbox::{Commit, MailId};
use memchr::memmem;

use super::Checker;
use crate::facts::{Fact, Scene, Verb};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Recipients of mail that must not be sent, and why.
    forbidden: HashMap<Bytes, (MailId, Reason)>,
    /// The mail on which each order was carried out.
    done: BTreeMap<OrderId, BTreeSet<MailId>>,
    /// Mail that the database could not change.
    excused: BTreeSet<MailId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Held,
    Deleted,
}

impl Orders {
    fn carrying_out(&mut self, scene: &Scene<'_>, number: OrderId, mails: &[MailId]) -> Result<(), String> {
        let Some(order) = scene.outbox.orders().find(number) else { return Ok(()) };
        let done = self.done.entry(number).or_default();
        if let Some(id) = mails.iter().find(|id| !done.insert(**id)) {
            return Err(format!("order {number} is carried out twice on mail {id}"));
        }
        for &id in mails {
            // The recipients of bounces are not unique.
            let recipient = scene.outbox.mail(id).map(|mail| mail.recipient.clone());
            let Some(recipient) = recipient.filter(|recipient| memmem::find(recipient, b"zr").is_some())
            else {
                continue;
            };
            match order.verb {
                OrderVerb::Hold => drop(self.forbidden.insert(recipient, (id, Reason::Held))),
                OrderVerb::Drop => {
                    self.forbidden.insert(recipient, (id, Reason::Deleted));
                }
                OrderVerb::Release | OrderVerb::Fail => drop(self.forbidden.remove(&recipient)),
                OrderVerb::Retry | OrderVerb::RetryAnew | OrderVerb::Redirect => {}
            }
        }
        Ok(())
    }

    fn committing(scene: &Scene<'_>, commit: &Commit) -> Result<(), String> {
        let is_held = |id: &MailId| scene.outbox.mail(*id).is_some_and(|mail| mail.hold.is_held());
        let failed = commit.failed.iter().map(|failed| failed.id);
        let originals = commit.replaced.iter().flat_map(|replacement| &replacement.originals).copied();
        match commit.delivered.iter().map(|mail| mail.id).chain(failed).chain(originals).find(is_held) {
            Some(id) => Err(format!("there is a verdict on mail {id}, which is held")),
            None => Ok(()),
        }
    }

    fn said(&self, line: &[u8]) -> Result<(), String> {
        let path = line
            .split(|octet| *octet == b'<')
            .nth(1)
            .and_then(|rest| rest.split(|octet| *octet == b'>').next());
        match path.and_then(|path| self.forbidden.get(path)) {
            Some((id, reason)) => Err(format!("mail {id} is sent, which is {reason:?}")),
            None => Ok(()),
        }
    }

    /// With its last step, an order must have come to all of its mail.
    fn ended(&self, scene: &Scene<'_>, number: OrderId) -> Result<(), String> {
        let Some(order) = scene.outbox.orders().find(number) else { return Ok(()) };
        let done = self.done.get(&number);
        let is_left = |id: &&MailId| {
            let is_done = done.is_some_and(|done| done.contains(id));
            scene.outbox.mail(**id).is_some() && !is_done && !self.excused.contains(id)
        };
        match order.mails.iter().find(is_left) {
            Some(id) => Err(format!("order {number} was not carried out on mail {id}")),
            None => Ok(()),
        }
    }

    /// An order may stand if there is nothing left for it to do.
    fn finished(scene: &Scene<'_>) -> Result<(), String> {
        let mut open = scene.outbox.orders().iter().filter(|(_, order)| order.result.is_none());
        let stands = open.find_map(|(number, order)| {
            let id = order.mails.iter().find(|id| scene.outbox.mail(**id).is_some())?;
            Some(format!("order {number} on mail {id} stands at the end"))
        });
        stands.map_or(Ok(()), Err)
    }
}

impl Checker for Orders {
    fn name(&self) -> &'static str {
        "orders are carried out once"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::CarryingOut { step, mails } => {
                // The database cannot change the others: they are taken, or poisoned.
                self.excused.extend(step.mails.iter().filter(|id| !mails.contains(id)));
                self.excused.extend(&step.gone);
                self.carrying_out(scene, step.order, mails)?;
                if step.is_last() {
                    return self.ended(scene, step.order);
                }
            }
            Fact::Committing { commit, .. } => return Self::committing(scene, commit),
            Fact::Removed { id } => {
                self.forbidden.retain(|_, (of, _)| *of != id);
            }
            Fact::Command { verb: Verb::Rcpt, line, .. } => return self.said(line),
            Fact::Finished => return Self::finished(scene),
            _ => {}
        }
        Ok(())
    }
}
