//! The database. It processes and answers requests later, in order, and may fail. Requests of a daemon that has died do nothing.

use cmail_delivery::io::Input;
use cmail_delivery::order::OrderStep;
use cmail_delivery::outbox::{
    Charge, Commit, MailId, RequestId, Scanned, StoreError, StoreReply, StoreRequest, StoreTrouble,
};
use cmail_delivery::time::Duration;

use super::{Happening, World};
use crate::facts::Fact;
use crate::mutation::Mutation;
use crate::outbox::{compose_bounces, inserted, is_impossible};

/// Time after which a build that falls asleep does so.
const SLEEP_AFTER_MICROS: u64 = 1_800_000_000;

impl World {
    pub(super) fn ask(&mut self, id: RequestId, request: StoreRequest) {
        self.see(Fact::Asked { id, request: &request });
        let epoch = self.epochs;
        let request = match request {
            StoreRequest::Commit(commit) => StoreRequest::Commit(self.mutation.commit(commit)),
            StoreRequest::Scan { .. }
            | StoreRequest::ReadData { .. }
            | StoreRequest::ReadFailed { .. }
            | StoreRequest::Recall { .. }
            | StoreRequest::Recover { .. }
            | StoreRequest::ReadOrders { .. }
            | StoreRequest::ReadPolicy(_)
            | StoreRequest::ReadStalePolicies { .. } => request,
            StoreRequest::Claim { ids, transactions, recipients, signing } => {
                StoreRequest::Claim { ids, transactions, recipients, signing: self.mutation.signing(signing) }
            }
            StoreRequest::CarryOut(step) => StoreRequest::CarryOut(self.mutation.step(step)),
        };
        self.requests.insert((epoch, id), request);
        let micros = if self.call_dice.chance(self.faults.store_delays) {
            self.call_dice.below(20_000_000)
        } else {
            self.call_dice.within(20..=800)
        };
        // One thread does one request after the other.
        self.database_free_at =
            self.database_free_at.max(self.clock.instant()) + Duration::from_micros(micros);
        self.clock.at(self.database_free_at, Happening::Execute(epoch, id));
    }

    pub(super) fn release(&mut self, ids: &[MailId]) {
        if self.mutation != Mutation::KeepsHolding {
            self.see(Fact::Released { ids });
            self.outbox.release(ids);
        }
    }

    pub(super) fn execute(&mut self, epoch: u32, id: RequestId) {
        let Some(request) = self.requests.remove(&(epoch, id)) else { return };
        // Unprocessed requests of a dead process never will be processed.
        if self.daemon.as_ref().is_none_or(|daemon| daemon.epoch != epoch) {
            return;
        }
        let is_asleep = self.mutation == Mutation::FallsAsleep
            && self.clock.instant().as_micros() > SLEEP_AFTER_MICROS
            && matches!(request, StoreRequest::Scan { .. });
        if is_asleep {
            return;
        }
        let stops_at_poison = self.mutation == Mutation::StopsAtPoison
            && matches!(&request, StoreRequest::Commit(commit) if is_impossible(&self.outbox, commit));
        let result = if stops_at_poison {
            Err(StoreError { trouble: StoreTrouble::Impossible, text: "a trigger says no".to_owned() })
        } else if self.call_dice.chance(self.faults.store_failures) {
            let texts = ["database is locked", "database or disk is full", "disk I/O error"];
            Err(StoreError {
                trouble: StoreTrouble::Busy,
                text: self.call_dice.pick(&texts).copied().unwrap_or_default().to_owned(),
            })
        } else {
            self.execute_request(request)
        };
        let delay = Duration::from_micros(self.call_dice.within(10..=500));
        self.database_told_at = self.database_told_at.max(self.clock.instant() + delay);
        self.clock.at(self.database_told_at, Happening::Answer(epoch, id, Box::new(result)));
    }

    fn execute_request(&mut self, request: StoreRequest) -> Result<StoreReply, StoreError> {
        match request {
            StoreRequest::Commit(commit) => self.commit(commit),
            StoreRequest::CarryOut(step) => self.carry_out(step),
            StoreRequest::Recover { .. } => {
                let reply = self.outbox.answer(request);
                self.release_in_the_end();
                reply
            }
            StoreRequest::ReadOrders { ref known, .. }
                if self.mutation == Mutation::ComesToOrdersLate
                    && known.is_empty()
                    && self.call_dice.chance(500) =>
            {
                Ok(StoreReply::Orders(None))
            }
            StoreRequest::Recall { ref ids } if self.mutation == Mutation::ChargesUnread => {
                let rows = ids.iter().filter_map(|id| self.scanned.get(id).cloned()).collect();
                self.outbox.answer(request)?;
                Ok(StoreReply::Recalled { rows, unreadable: Vec::new() })
            }
            StoreRequest::Scan { .. }
            | StoreRequest::Claim { .. }
            | StoreRequest::ReadData { .. }
            | StoreRequest::ReadFailed { .. }
            | StoreRequest::Recall { .. }
            | StoreRequest::ReadOrders { .. }
            | StoreRequest::ReadPolicy(_)
            | StoreRequest::ReadStalePolicies { .. } => {
                let reply = self.outbox.answer(request)?;
                if self.mutation == Mutation::ChargesUnread
                    && let StoreReply::Scanned(Scanned { rows, .. }) = &reply
                {
                    self.scanned.extend(rows.iter().map(|row| (row.id, row.clone())));
                }
                self.see(Fact::Answered { reply: &reply });
                Ok(self.mutation.answer(reply))
            }
        }
    }

    fn commit(&mut self, commit: Commit) -> Result<StoreReply, StoreError> {
        let recorded = self.outbox.recordable(&commit);
        let bounces = compose_bounces(&recorded);
        self.see(Fact::Committing { commit: &recorded, bounces: &bounces });
        let replaced = commit.replaced.clone();
        let reply = self.outbox.answer(StoreRequest::Commit(commit))?;
        if let StoreReply::Committed(committed) = &reply {
            for (id, origin) in inserted(&replaced, committed) {
                self.see(Fact::Inserted { id, origin });
            }
        }
        if recorded.failed.iter().any(|failed| failed.charge == Charge::Holds) {
            self.release_in_the_end();
        }
        self.finish_if_empty();
        Ok(reply)
    }

    /// Ends the world soon if nothing is left to do.
    fn finish_if_empty(&mut self) {
        if self.is_healed && self.outbox.is_empty() {
            self.clock.after(Duration::from_secs(1), Happening::Finish);
        }
    }

    /// Releases what was just held, if all must come to its end.
    fn release_in_the_end(&mut self) {
        if self.is_healed && self.outbox.mails().any(|(_, mail)| mail.hold.is_held()) {
            self.release_all();
        }
    }

    fn carry_out(&mut self, step: OrderStep) -> Result<StoreReply, StoreError> {
        let mails = self.outbox.changed_by(&step);
        self.see(Fact::CarryingOut { step: &step, mails: &mails });
        let under_way = step.under_way.clone();
        let mut reply = self.outbox.answer(StoreRequest::CarryOut(step))?;
        if self.mutation == Mutation::OrdersMailUnderWay
            && let StoreReply::CarriedOut(carried_out) = &mut reply
        {
            carried_out.rows.retain(|row| !under_way.contains(&row.id));
            carried_out.done.retain(|id| !under_way.contains(id));
        }
        self.finish_if_empty();
        Ok(self.mutation.answer(reply))
    }

    pub(super) fn answer(&mut self, epoch: u32, id: RequestId, result: Result<StoreReply, StoreError>) {
        if self.daemon.as_ref().is_some_and(|daemon| daemon.epoch == epoch) {
            self.see(Fact::Told { id, done: result.is_ok() });
            self.call(Input::Store(id, result));
        }
    }
}
