//! Each delivery tells in which conversation it happened, as far as that is wanted: one in which a server has taken this message for
//! this recipient.

use std::collections::{BTreeMap, BTreeSet};

use cmail_delivery::attempt::{AttemptFacts, AttemptKind};
use cmail_delivery::io::ConnectionId;
use cmail_delivery::outbox::Commit;

use super::Checker;
use crate::facts::{Fact, Scene};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Courses {
    /// The recipients that servers have taken mail for, by connection.
    taken: BTreeMap<ConnectionId, BTreeSet<String>>,
    /// What was said on connections, as it was told.
    transcripts: BTreeMap<ConnectionId, Box<str>>,
}

impl Courses {
    fn committing(&mut self, scene: &Scene<'_>, commit: &Commit) -> Result<(), String> {
        commit.attempts().try_for_each(|attempt| self.attempt(scene, &attempt))
    }

    fn attempt(&mut self, scene: &Scene<'_>, attempt: &AttemptFacts<'_>) -> Result<(), String> {
        let recipient = attempt.recipient.as_str();
        let Some(course) = attempt.course else {
            // Every one that may have left a message with a server.
            let is_missed = matches!(attempt.kind, AttemptKind::Delivered | AttemptKind::Uncertain);
            let is_wrong = scene.settings.told.courses && is_missed;
            return if is_wrong {
                Err(format!("an attempt for {recipient} does not tell how it went"))
            } else {
                Ok(())
            };
        };
        let connection = course.conversation.connection;
        if !scene.settings.told.courses {
            return Err(format!("an attempt for {recipient} tells how it went, which is not wanted"));
        }
        let has_taken = self.taken.get(&connection).is_some_and(|taken| taken.contains(recipient));
        if attempt.kind == AttemptKind::Delivered && !has_taken {
            return Err(format!("no server has taken mail for {recipient} on connection {}", connection.0));
        }
        if attempt.kind == AttemptKind::Delivered && course.transaction.is_none() {
            return Err(format!("a delivery to {recipient} has no transaction"));
        }
        if let Some(transcript) = &course.transcript {
            let first = self.transcripts.entry(connection).or_insert_with(|| transcript.clone());
            if first != transcript {
                return Err(format!("connection {} tells two transcripts", connection.0));
            }
        }
        Ok(())
    }
}

impl Checker for Courses {
    fn name(&self) -> &'static str {
        "each delivery tells how it went"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            // Connections are counted anew.
            Fact::Started { .. } => *self = Self::default(),
            Fact::Accepted { link, recipients, .. } => {
                self.taken.entry(link.id).or_default().extend(recipients.iter().cloned());
            }
            Fact::Committing { commit, .. } => return self.committing(scene, commit),
            _ => {}
        }
        Ok(())
    }
}
