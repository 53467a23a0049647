//! The database. It processes and answers requests later, in order, and may fail. Requests of a daemon that has died do nothing.

use cmail_delivery::io::Input;
use cmail_delivery::order::{Hold, OrderStep};
use cmail_delivery::outbox::{
    Charge, Committed, MailId, RequestId, Scanned, StoreError, StoreReply, StoreRequest, StoreTrouble,
};
use cmail_delivery::time::Duration;

use super::{Happening, World};
use crate::facts::{Fact, Origin};
use crate::mutation::Mutation;
use crate::outbox::{Sifted, compose_bounces};

/// Time after which a build that falls asleep does so.
const SLEEP_AFTER_MICROS: u64 = 1_800_000_000;

impl World {
    pub(super) fn ask(&mut self, id: RequestId, request: StoreRequest) {
        self.see(Fact::Asked { id, request: &request });
        let epoch = self.epochs;
        let request = match request {
            StoreRequest::Commit(commit) => StoreRequest::Commit(self.mutation.commit(commit)),
            StoreRequest::Scan { .. }
            | StoreRequest::Claim { .. }
            | StoreRequest::ReadData { .. }
            | StoreRequest::ReadFailed { .. }
            | StoreRequest::Recall { .. }
            | StoreRequest::Recover { .. }
            | StoreRequest::ReadOrders { .. } => request,
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
            && matches!(&request, StoreRequest::Commit(commit) if self.outbox.is_poisoned(commit));
        let result = if stops_at_poison {
            Err(StoreError { trouble: StoreTrouble::Impossible, text: "a trigger says no".to_owned() })
        } else if self.call_dice.chance(self.faults.store_failures) {
            let texts = ["database is locked", "database or disk is full", "disk I/O error"];
            Err(StoreError {
                trouble: StoreTrouble::Busy,
                text: self.call_dice.pick(&texts).copied().unwrap_or_default().to_owned(),
            })
        } else {
            Ok(self.execute_request(&request))
        };
        let delay = Duration::from_micros(self.call_dice.within(10..=500));
        self.database_told_at = self.database_told_at.max(self.clock.instant() + delay);
        self.clock.at(self.database_told_at, Happening::Answer(epoch, id, Box::new(result)));
    }

    fn execute_request(&mut self, request: &StoreRequest) -> StoreReply {
        if self.mutation == Mutation::ChargesUnread
            && let StoreRequest::Recall { ids } = request
        {
            let rows = ids.iter().filter_map(|id| self.scanned.get(id).cloned()).collect();
            let reply = StoreReply::Recalled { rows, unreadable: Vec::new() };
            self.outbox.remember(&reply);
            return reply;
        }
        if self.mutation == Mutation::ComesToOrdersLate
            && let StoreRequest::ReadOrders { known, .. } = request
            && known.is_empty()
            && self.call_dice.chance(500)
        {
            return StoreReply::Orders(None);
        }
        if let Some(reply) = self.outbox.read(request) {
            if self.mutation == Mutation::ChargesUnread
                && let StoreReply::Scanned(Scanned { rows, .. }) = &reply
            {
                self.scanned.extend(rows.iter().map(|row| (row.id, row.clone())));
            }
            self.outbox.remember(&reply);
            self.see(Fact::Answered { reply: &reply });
            return self.mutation.answer(reply);
        }
        if let StoreRequest::CarryOut(step) = request {
            return self.carry_out(step);
        }
        if let StoreRequest::Recover { uncertain } = request {
            let found = self.outbox.recover(*uncertain);
            self.release_in_the_end();
            return StoreReply::Recovered(found);
        }
        let StoreRequest::Commit(commit) = request else {
            return StoreReply::Data(bytes::Bytes::new());
        };
        let asked = commit;
        let Sifted { commit, remaining, changed: now_other, refused: not_done } =
            self.outbox.sift(asked, self.clock.now().wall);
        let bounces = compose_bounces(&commit);
        self.see(Fact::Committing { commit: &commit, bounces: &bounces });
        let (mut reply, effects) = self.outbox.commit(&commit, bounces, self.clock.now().wall);
        if let StoreReply::Committed(Committed { not_replaced, changed, bounces, refused, .. }) = &mut reply {
            refused.extend(not_done);
            not_replaced.extend(remaining);
            changed.extend(now_other);
            let mut made = std::mem::take(bounces).into_iter();
            let is_done = |replacement| commit.replaced.contains(replacement);
            bounces.extend(asked.replaced.iter().map(|replacement| {
                if is_done(replacement) { made.next().unwrap_or_default() } else { Vec::new() }
            }));
        }
        for (id, originals) in &effects.warnings {
            self.see(Fact::Inserted { id: *id, origin: Origin::WarningOf(originals) });
        }
        for (id, originals) in &effects.bounces {
            self.see(Fact::Inserted { id: *id, origin: Origin::BounceOf(originals) });
        }
        if commit.failed.iter().any(|failed| failed.charge == Charge::Holds) {
            self.release_in_the_end();
        }
        if self.is_healed && self.outbox.len() == 0 {
            self.clock.after(Duration::from_secs(1), Happening::Finish);
        }
        reply
    }

    /// Releases what was just held, if all must come to its end.
    fn release_in_the_end(&mut self) {
        if self.is_healed && self.outbox.mails().any(|(_, mail)| mail.hold == Hold::Held) {
            self.release_all();
        }
    }

    fn carry_out(&mut self, step: &OrderStep) -> StoreReply {
        let mails = self.outbox.ordered(step);
        self.see(Fact::CarryingOut { step, mails: &mails });
        let mut carried_out = self.outbox.carry_out(step);
        if self.mutation == Mutation::OrdersMailUnderWay {
            carried_out.rows.retain(|row| !step.under_way.contains(&row.id));
            carried_out.done.retain(|id| !step.under_way.contains(id));
        }
        if self.is_healed && self.outbox.len() == 0 {
            self.clock.after(Duration::from_secs(1), Happening::Finish);
        }
        self.mutation.answer(StoreReply::CarriedOut(carried_out))
    }

    pub(super) fn answer(&mut self, epoch: u32, id: RequestId, result: Result<StoreReply, StoreError>) {
        if self.daemon.as_ref().is_some_and(|daemon| daemon.epoch == epoch) {
            self.see(Fact::Told { id, done: result.is_ok() });
            self.call(Input::Store(id, result));
        }
    }
}
