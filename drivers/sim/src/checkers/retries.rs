//! A mail is tried when more than `retryinterval` has passed since its last attempt and not before, and never again
//! after `retries` attempts or a fatal one. An order is about one attempt, which does not count if it fails temporarily
//! before its time. Whatever the faillog says, mail rests after each attempt.

use std::collections::HashMap;

use cmail_delivery::event::{Event, FailureKind};
use cmail_delivery::outbox::{Commit, MailId, Row, StoreReply};
use cmail_delivery::schedule::{LEAST_REST, RetryRules, Standing};
use cmail_delivery::time::{Instant, UnixTime};

use super::Checker;
use crate::facts::{Fact, Scene};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Retries {
    /// Counts what happens.
    step: u64,
    /// When the wall clock was last set.
    wall_set: u64,
    /// When the administrator last wanted everything to be tried, in the life of this daemon.
    ordered: Option<Instant>,
    /// When each mail last failed in the life of this daemon.
    tried: HashMap<MailId, Instant>,
    /// When an attempt failed that is not recorded yet.
    unrecorded: HashMap<MailId, u64>,
    /// When each mail last failed with a row in the faillog, or was last meddled with.
    last_failed: HashMap<MailId, u64>,
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
            Fact::Ordered => self.ordered = Some(scene.now.monotonic),
            Fact::Started { .. } => {
                self.ordered = None;
                self.tried.clear();
            }
            Fact::Meddled { id } => {
                self.meddled.insert(id, self.step);
            }
            Fact::Log(Event::Failed { id, kind, .. }) => {
                if *kind == FailureKind::Early && !self.is_ordered(*id) {
                    return Err(format!("an attempt of mail {id} does not count, and nobody has ordered it"));
                }
                if *kind != FailureKind::Early {
                    self.unrecorded.insert(*id, self.step);
                }
                self.tried.insert(*id, scene.said_since);
            }
            Fact::Answered { reply: StoreReply::Claimed { transactions, .. } } => {
                for row in transactions.iter().flat_map(|transaction| &transaction.rows) {
                    self.claimed(scene, row)?;
                }
            }
            Fact::Committing { commit } => self.committing(scene, commit)?,
            _ => {}
        }
        Ok(())
    }
}

impl Retries {
    fn claimed(&self, scene: &Scene<'_>, row: &Row) -> Result<(), String> {
        // One that is given up is not tried: it is looked at again.
        if let Some(Standing::NotBefore(time)) = self.standing(scene, row.id, scene.now.wall)
            && !self.is_ordered(row.id)
        {
            return Err(format!("mail {} is worked on before {}", row.id, time.0));
        }
        let Some(tried_at) = self.tried.get(&row.id) else { return Ok(()) };
        let rest = if self.is_ordered(row.id) { LEAST_REST } else { rules(scene).rest(scene.settings) };
        if scene.now.monotonic < *tried_at + rest {
            return Err(format!("mail {} does not rest after its last attempt", row.id));
        }
        Ok(())
    }

    fn committing(&mut self, scene: &Scene<'_>, commit: &Commit) -> Result<(), String> {
        for attempt in &commit.failed {
            match self.standing(scene, attempt.id, attempt.time) {
                Some(Standing::NotBefore(time)) if !attempt.fatal => {
                    return Err(format!("an attempt of mail {} before {} counts", attempt.id, time.0));
                }
                Some(Standing::GivenUp) => {
                    return Err(format!("mail {} was tried after it was given up", attempt.id));
                }
                Some(Standing::Due | Standing::NotBefore(_)) | None => {}
            }
            if attempt.time > scene.now.wall && self.wall_set == 0 {
                return Err(format!("mail {} failed in the future", attempt.id));
            }
        }
        for attempt in &commit.failed {
            let failed = self.unrecorded.remove(&attempt.id).unwrap_or(self.step);
            self.last_failed.insert(attempt.id, failed);
        }
        Ok(())
    }

    /// Whether the administrator has ordered a mail to be tried, and it was not tried since then.
    fn is_ordered(&self, id: MailId) -> bool {
        self.ordered.is_some_and(|at| self.tried.get(&id).is_none_or(|tried_at| *tried_at <= at))
    }

    /// How a mail stands at a time, if nobody but the daemon has had a hand in it since its last attempt.
    fn standing(&self, scene: &Scene<'_>, id: MailId, at: UnixTime) -> Option<Standing> {
        let state = scene.outbox.mail(id)?.fail_state(id);
        let last_failed = self.last_failed.get(&id).copied().unwrap_or(0);
        let was_meddled_with = self.meddled.get(&id).is_some_and(|&step| step > last_failed);
        let standing = rules(scene).standing(state.fail_count, state.last_try, state.fatal, at);
        let is_excused = was_meddled_with || (self.wall_set > last_failed && standing != Standing::GivenUp);
        (!is_excused).then_some(standing)
    }
}

fn rules(scene: &Scene<'_>) -> RetryRules {
    RetryRules::of(scene.settings)
}
