//! The memory of the core is bounded by the rows that exist, and by its own limits.

use std::collections::{BTreeMap, BTreeSet};

use cmail_delivery::outbox::{
    CLAIM_BUDGET_OCTETS, Claimed, DATA_CHUNK_OCTETS, MailId, RequestId, StoreReply, StoreRequest,
};

use cmail_delivery::time::Instant;

use super::Checker;
use crate::facts::{Fact, Scene};

/// Requests beside those of connections: a scan, a slice of known rows, a commit, bounces, and a recall.
const OTHER_REQUESTS: usize = 200;
/// Most outputs of one call, beside those that rows cause.
const OUTPUTS_LIMIT: usize = 20_000;

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Rows that the core may know of, because it was not told of their end.
    known: BTreeSet<MailId>,
    requests: BTreeMap<RequestId, Vec<MailId>>,
}

impl Checker for Memory {
    fn name(&self) -> &'static str {
        "memory is bounded"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Started { .. } => {
                self.known = scene.outbox.mails().map(|(id, _)| id).collect();
                self.requests.clear();
            }
            Fact::Inserted { id, .. } => {
                self.known.insert(id);
            }
            Fact::Asked { id, request } => {
                let ended = match request {
                    StoreRequest::Commit(commit) => {
                        let replaced = commit.replaced.iter().flat_map(|replacement| &replacement.originals);
                        commit.delivered.iter().map(|mail| mail.id).chain(replaced.copied()).collect()
                    }
                    // Some of it may be gone, which the core is told by the answer.
                    StoreRequest::CarryOut(step) => {
                        self.known.extend(&step.mails);
                        step.mails.clone()
                    }
                    _ => Vec::new(),
                };
                self.requests.insert(id, ended);
                // Connections from before the limit was lowered may still be there.
                let connections = scene.limit_since(Instant::default(), |settings| settings.concurrency);
                if self.requests.len() > connections.saturating_mul(2) + OTHER_REQUESTS {
                    return Err(format!("{} requests to the database are open", self.requests.len()));
                }
            }
            Fact::Told { id, done } => {
                let ended = self.requests.remove(&id).filter(|_| done);
                for id in ended.unwrap_or_default() {
                    if scene.outbox.mail(id).is_none() {
                        self.known.remove(&id);
                    }
                }
            }
            Fact::Answered { reply: StoreReply::Claimed(Claimed { transactions, .. }) } => {
                let octets: usize = transactions.iter().map(|transaction| transaction.head.len()).sum();
                if octets > CLAIM_BUDGET_OCTETS + DATA_CHUNK_OCTETS {
                    return Err(format!("a claim brings {octets} octets"));
                }
            }
            Fact::Called { indexed, outputs, .. } => {
                if indexed > self.known.len() {
                    return Err(format!("{indexed} mails are known, {} can be", self.known.len()));
                }
                if outputs > OUTPUTS_LIMIT + 4 * self.known.len() {
                    return Err(format!("one call had {outputs} outputs"));
                }
            }
            Fact::Finished => {
                self.known.retain(|&id| scene.outbox.mail(id).is_some());
            }
            _ => {}
        }
        Ok(())
    }
}
