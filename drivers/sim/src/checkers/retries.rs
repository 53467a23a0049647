//! A mail is tried when its retry rule says so and not before, and never again after it was given up. Without a rule it is tried when
//! more than `retryinterval` has passed since its last attempt, and given up after `retries` attempts; and always after a fatal one. An order concerns one attempt, which does not count if it fails temporarily before its
//! time. Whatever the faillog says, mail waits for a minimum time after each attempt.

use std::collections::HashMap;

use cmail_delivery::event::{Event, FailureKind};
use cmail_delivery::order::{OrderId, OrderVerb};
use cmail_delivery::outbox::{Charge, Claimed, Commit, MailId, Row, StoreReply};
use cmail_delivery::schedule::RetryState;
use cmail_delivery::settings::Settings;
use cmail_delivery::time::{Duration, Instant, UnixTime};

use super::Checker;
use super::standing::retry_state;
use crate::facts::{Fact, Scene};

/// Shortest time between two attempts, even if the administrator has ordered one.
const SECOND: Duration = Duration::from_secs(1);

/// The last attempt of a mail that failed.
#[derive(Clone, Copy, Debug)]
struct Tried {
    step: u64,
    /// The earliest time at which it failed.
    since: Instant,
    /// True if it may have failed before something that was seen earlier.
    is_vague: bool,
}

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Retries {
    /// The number of facts so far.
    step: u64,
    /// The fact at which the wall clock was last set.
    wall_set: u64,
    /// The last order to try everything, in the life of this daemon.
    ordered: Option<(u64, Instant)>,
    /// The last order about a mail, in the life of this daemon.
    ordered_mails: HashMap<MailId, (u64, Instant)>,
    /// The last failed attempt of each mail in the life of this daemon.
    tried: HashMap<MailId, Tried>,
    /// The fact of a failed attempt that is not recorded yet.
    unrecorded: HashMap<MailId, u64>,
    /// The fact at which each mail last failed with a row in the faillog, or was last changed by others.
    last_failed: HashMap<MailId, u64>,
    /// When that was, and when the daemon last took up each mail: it goes by the settings that hold then, or later.
    failed_at: HashMap<MailId, Instant>,
    taken_up_at: HashMap<MailId, Instant>,
    meddled: HashMap<MailId, u64>,
}

impl Checker for Retries {
    fn name(&self) -> &'static str {
        "retryinterval and retries are kept"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        self.step += 1;
        match fact {
            Fact::WallSet { .. } => self.wall_set = self.step,
            Fact::Ordered => self.ordered = Some((self.step, scene.now.monotonic)),
            Fact::Started { .. } => {
                self.ordered = None;
                self.ordered_mails.clear();
                self.tried.clear();
            }
            Fact::Meddled { id } => {
                self.meddled.insert(id, self.step);
            }
            Fact::CarryingOut { step, mails } => self.carrying_out(scene, step.order, mails),
            Fact::Log(Event::Failed { id, kind, .. }) => {
                if *kind == FailureKind::Early && !self.is_ordered(*id) {
                    return Err(format!("an attempt of mail {id} does not count, and nobody has ordered it"));
                }
                if !matches!(kind, FailureKind::Early | FailureKind::Held) {
                    self.unrecorded.insert(*id, self.step);
                }
                // An order came before what it makes early. For anything else that is unknown if it is told late.
                let is_vague = scene.said_since < scene.now.monotonic && *kind != FailureKind::Early;
                self.tried.insert(*id, Tried { step: self.step, since: scene.said_since, is_vague });
            }
            Fact::Answered { reply: StoreReply::Claimed(Claimed { transactions, .. }) } => {
                for row in transactions.iter().flat_map(|transaction| &transaction.rows) {
                    self.claimed(scene, row)?;
                    self.taken_up_at.insert(row.id, scene.now.monotonic);
                }
            }
            Fact::Answered { reply: StoreReply::Recalled { rows, .. } } => {
                // It was tried as mail that was due when its pass began, and fails with that.
                let due_since = |row: &Row| self.failed_at.get(&row.id).copied().unwrap_or_default();
                self.taken_up_at.extend(rows.iter().map(|row| (row.id, due_since(row))));
            }
            Fact::Committing { commit, .. } => self.committing(scene, commit)?,
            _ => {}
        }
        Ok(())
    }
}

impl Retries {
    fn carrying_out(&mut self, scene: &Scene<'_>, number: OrderId, mails: &[MailId]) {
        let Some(order) = scene.outbox.orders().find(number) else { return };
        let tries = matches!(order.verb, OrderVerb::Retry | OrderVerb::RetryAnew);
        for &id in mails {
            if tries {
                self.ordered_mails.insert(id, (self.step, scene.now.monotonic));
            }
            if matches!(order.verb, OrderVerb::RetryAnew | OrderVerb::Fail) {
                self.meddled.insert(id, self.step);
            }
        }
    }

    fn claimed(&self, scene: &Scene<'_>, row: &Row) -> Result<(), String> {
        // It became due by the settings that held at some time since it failed. Whether it is tried is decided by those of now.
        let failed_at = self.failed_at.get(&row.id).copied().unwrap_or_default();
        scene.right_by_one_since(failed_at, |settings| {
            // Given-up mail is not tried, only read again.
            match self.retry_state(settings, scene, row.id, scene.now.wall) {
                Some(RetryState::NotBefore(time)) if !self.is_ordered(row.id) => {
                    Err(format!("mail {} is worked on before {}", row.id, time.0))
                }
                _ => Ok(()),
            }
        })?;
        let Some(tried) = self.tried.get(&row.id) else { return Ok(()) };
        scene.right_by_one_since(tried.since, |settings| {
            let rest = if self.is_ordered(row.id) { SECOND } else { rest(settings) };
            if scene.now.monotonic < tried.since + rest {
                return Err(format!("mail {} does not rest after its last attempt", row.id));
            }
            Ok(())
        })
    }

    fn committing(&mut self, scene: &Scene<'_>, commit: &Commit) -> Result<(), String> {
        let taken_up_at = |id: &MailId| self.taken_up_at.get(id).copied().unwrap_or(scene.now.monotonic);
        for failed in commit.failed.iter().filter(|failed| failed.charge == Charge::Counts) {
            scene.right_by_one_since(taken_up_at(&failed.id), |settings| {
                match self.retry_state(settings, scene, failed.id, failed.attempt.at) {
                    Some(RetryState::NotBefore(time)) if !failed.attempt.is_fatal() => {
                        Err(format!("an attempt of mail {} before {} counts", failed.id, time.0))
                    }
                    Some(RetryState::GivenUp) => {
                        Err(format!("mail {} was tried after it was given up", failed.id))
                    }
                    Some(RetryState::Due | RetryState::NotBefore(_) | RetryState::Held(_)) | None => Ok(()),
                }
            })?;
            if failed.attempt.at > scene.now.wall && self.wall_set == 0 {
                return Err(format!("mail {} failed in the future", failed.id));
            }
        }
        for id in commit.delivered.iter().map(|mail| mail.id) {
            scene.right_by_one_since(taken_up_at(&id), |settings| {
                if self.retry_state(settings, scene, id, scene.now.wall) == Some(RetryState::GivenUp) {
                    return Err(format!("mail {id} was sent after it was given up"));
                }
                Ok(())
            })?;
        }
        for attempt in commit.failed.iter().filter(|failed| failed.charge == Charge::Counts) {
            let failed = self.unrecorded.remove(&attempt.id).unwrap_or(self.step);
            self.last_failed.insert(attempt.id, failed);
            self.failed_at.insert(attempt.id, scene.now.monotonic);
        }
        Ok(())
    }

    /// Returns whether the administrator has ordered a mail to be tried, and it was not tried since then.
    fn is_ordered(&self, id: MailId) -> bool {
        let orders = [self.ordered, self.ordered_mails.get(&id).copied()];
        orders.into_iter().flatten().any(|(step, at)| {
            let comes_after = |tried: &Tried| step > tried.step || (tried.is_vague && at >= tried.since);
            self.tried.get(&id).is_none_or(comes_after)
        })
    }

    /// Returns the state of a mail at a time by these settings, if only the daemon has changed it since its last attempt.
    fn retry_state(
        &self,
        settings: &Settings,
        scene: &Scene<'_>,
        id: MailId,
        at: UnixTime,
    ) -> Option<RetryState> {
        let last_failed = self.last_failed.get(&id).copied().unwrap_or(0);
        let was_meddled_with = self.meddled.get(&id).is_some_and(|&step| step > last_failed);
        let retry_state = retry_state(&settings.schedule, id, scene.outbox.mail(id)?, at);
        let is_excused =
            was_meddled_with || (self.wall_set > last_failed && retry_state != RetryState::GivenUp);
        (!is_excused).then_some(retry_state)
    }
}

/// Returns the shortest time between two attempts of a mail, whatever its faillog says.
fn rest(settings: &Settings) -> Duration {
    let retry_interval = Duration::from_secs(settings.schedule.retry_interval_s.unsigned_abs());
    retry_interval.min(settings.interval).max(SECOND)
}

#[cfg(test)]
mod tests;
