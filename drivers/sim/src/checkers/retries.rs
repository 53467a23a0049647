//! A mail is tried when more than `retryinterval` has passed since its last attempt and not before, and never again
//! after `retries` attempts or a fatal one.

use std::collections::HashMap;

use cmail_delivery::event::Event;
use cmail_delivery::outbox::{MailId, StoreReply};
use cmail_delivery::schedule::{RetryRules, Standing};
use cmail_delivery::time::UnixTime;

use super::Checker;
use crate::facts::{Fact, Scene};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Retries {
    /// Counts what happens.
    step: u64,
    /// When the administrator last wanted everything to be tried, or the wall clock was last set.
    excuse: u64,
    /// When an attempt failed that is not recorded yet.
    unrecorded: HashMap<MailId, u64>,
    /// When each mail last failed, or was last meddled with.
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
            Fact::Retried | Fact::WallSet { .. } => self.excuse = self.step,
            Fact::Meddled { id } => {
                self.meddled.insert(id, self.step);
            }
            Fact::Log(Event::Failed { id, .. }) => {
                self.unrecorded.insert(*id, self.step);
            }
            Fact::Answered { reply: StoreReply::Claimed { transactions, .. } } => {
                for row in transactions.iter().flat_map(|transaction| &transaction.rows) {
                    // One that is given up is not tried: it is looked at again.
                    if let Some(Standing::NotBefore(time)) = self.standing(scene, row.id, scene.now.wall) {
                        return Err(format!("mail {} is worked on before {}", row.id, time.0));
                    }
                }
            }
            Fact::Committing { commit } => {
                for attempt in &commit.failed {
                    let standing = self.standing(scene, attempt.id, attempt.time);
                    if let Some(Standing::NotBefore(time)) = standing {
                        return Err(format!("mail {} was tried before {}", attempt.id, time.0));
                    }
                    if standing == Some(Standing::GivenUp) {
                        return Err(format!("mail {} was tried after it was given up", attempt.id));
                    }
                    if attempt.time > scene.now.wall && self.excuse == 0 {
                        return Err(format!("mail {} failed in the future", attempt.id));
                    }
                }
                for attempt in &commit.failed {
                    let failed = self.unrecorded.remove(&attempt.id).unwrap_or(self.step);
                    self.last_failed.insert(attempt.id, failed);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Retries {
    /// How a mail stands at a time, if nobody but the daemon has had a hand in it since its last attempt.
    fn standing(&self, scene: &Scene<'_>, id: MailId, at: UnixTime) -> Option<Standing> {
        let state = scene.outbox.mail(id)?.fail_state(id);
        let last_failed = self.last_failed.get(&id).copied().unwrap_or(0);
        let was_meddled_with = self.meddled.get(&id).is_some_and(|&step| step > last_failed);
        let rules =
            RetryRules { retries: scene.settings.retries, interval_s: scene.settings.retry_interval_s };
        let standing = rules.standing(state.fail_count, state.last_try, state.fatal, at);
        let is_excused = was_meddled_with || (self.excuse > last_failed && standing != Standing::GivenUp);
        (!is_excused).then_some(standing)
    }
}
