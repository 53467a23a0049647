//! Mail that the database holds for the daemon is given back exactly once, by a verdict or a release, and before the daemon ends.

use std::collections::BTreeSet;

use cmail_delivery::outbox::{MailId, RequestId, StoreRequest};

use super::Checker;
use crate::facts::{Fact, Scene};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Requests that end a hold or begin one, and that are not answered.
    open: BTreeSet<RequestId>,
    last_commit: Option<RequestId>,
    /// Whether the last commit was refused, so that its verdicts may never be recorded.
    is_unrecorded: bool,
}

impl Held {
    fn asked(&mut self, scene: &Scene<'_>, id: RequestId, request: &StoreRequest) -> Result<(), String> {
        match request {
            StoreRequest::Claim { ids, .. }
            | StoreRequest::Recall { ids }
            | StoreRequest::ReadFailed { ids, .. } => {
                if let Some(mail) = ids.iter().find(|mail| scene.outbox.is_held(**mail)) {
                    return Err(format!("mail {mail} is asked for, and held already"));
                }
            }
            StoreRequest::Commit(commit) => {
                self.last_commit = Some(id);
                if let Some(mail) = commit.claims().find(|mail| !scene.outbox.is_held(*mail)) {
                    return Err(format!("there is a verdict on mail {mail}, which is not held"));
                }
            }
            StoreRequest::CarryOut(step) => {
                if let Some(mail) = step.mails.iter().find(|mail| scene.outbox.is_held(**mail)) {
                    return Err(format!("an order is carried out on mail {mail}, which is held"));
                }
            }
            StoreRequest::Scan { .. }
            | StoreRequest::ReadData { .. }
            | StoreRequest::ReadOrders { .. }
            | StoreRequest::ReadPolicy(_)
            | StoreRequest::ReadStalePolicies { .. }
            | StoreRequest::Recover { .. } => {
                return Ok(());
            }
        }
        self.open.insert(id);
        Ok(())
    }

    fn stopped(&self, scene: &Scene<'_>) -> Result<(), String> {
        let held: Vec<MailId> = scene.outbox.held().collect();
        if self.open.is_empty() && !self.is_unrecorded && !held.is_empty() {
            return Err(format!("the daemon has ended, and this mail is still held: {held:?}"));
        }
        Ok(())
    }
}

impl Checker for Held {
    fn name(&self) -> &'static str {
        "what is held is given back once"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Started { .. } => *self = Self::default(),
            Fact::Asked { id, request } => return self.asked(scene, id, request),
            Fact::Told { id, done } => {
                self.open.remove(&id);
                if self.last_commit == Some(id) {
                    self.is_unrecorded = !done;
                }
            }
            Fact::Released { ids } => {
                if let Some(mail) = ids.iter().find(|mail| !scene.outbox.is_held(**mail)) {
                    return Err(format!("mail {mail} is released, and not held"));
                }
            }
            Fact::Stopped { crashed: false } => return self.stopped(scene),
            _ => {}
        }
        Ok(())
    }
}
