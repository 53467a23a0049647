//! A row that the database cannot process delays only itself: the verdicts of all other mail are recorded with one of the next
//! commits.

use std::collections::{BTreeMap, BTreeSet};

use cmail_delivery::event::{Event, FailureKind};
use cmail_delivery::outbox::{MailId, RequestId, StoreRequest};

use super::Checker;
use crate::facts::{Fact, Scene};

/// Commits that may pass. The database refuses some as a whole for other reasons, but not so many in a row.
const COMMIT_LIMIT: u64 = 25;

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct OnePoisonedRow {
    /// The number of commits answered in the life of this daemon, and those that are open.
    commits: u64,
    open: BTreeSet<RequestId>,
    /// Mail with a verdict that is not recorded, and the number of commits before it.
    pending: BTreeMap<MailId, u64>,
    /// Mail that others have changed, so that its verdict may be void.
    meddled: BTreeSet<MailId>,
}

impl Checker for OnePoisonedRow {
    fn name(&self) -> &'static str {
        "one poisoned row costs only itself"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Started { .. } | Fact::Stopped { .. } | Fact::Draining => *self = Self::default(),
            Fact::Removed { id } | Fact::Meddled { id } => {
                self.meddled.insert(id);
                self.pending.remove(&id);
            }
            Fact::Log(Event::Delivered { id, .. }) => self.note_verdict(scene, *id),
            Fact::Log(Event::Failed { id, kind, .. }) if *kind != FailureKind::Early => {
                self.note_verdict(scene, *id);
            }
            Fact::Asked { id, request: StoreRequest::Commit(commit) } => {
                self.open.insert(id);
                for replacement in &commit.replaced {
                    let is_healthy = |id: &MailId| scene.outbox.flaw(*id).is_none();
                    let is_untouched =
                        |id: &MailId| !self.meddled.contains(id) && scene.outbox.mail(*id).is_some();
                    if replacement.originals.iter().all(|id| is_healthy(id) && is_untouched(id)) {
                        replacement.originals.iter().for_each(|id| self.note_verdict(scene, *id));
                    }
                }
            }
            Fact::Committing { commit, .. } => {
                for id in commit.ids() {
                    self.pending.remove(&id);
                }
            }
            Fact::Told { id, .. } if self.open.remove(&id) => {
                self.commits += 1;
                let overdue = self.pending.iter().find(|(_, since)| self.commits - **since > COMMIT_LIMIT);
                if let Some((id, _)) = overdue {
                    return Err(format!(
                        "what became of mail {id} is not recorded by {COMMIT_LIMIT} commits"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl OnePoisonedRow {
    fn note_verdict(&mut self, scene: &Scene<'_>, id: MailId) {
        if scene.outbox.flaw(id).is_none() && !self.meddled.contains(&id) {
            self.pending.entry(id).or_insert(self.commits);
        }
    }
}
