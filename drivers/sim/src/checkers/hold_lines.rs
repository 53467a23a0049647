//! Mail that a line of the configuration holds is neither sent nor given a verdict, as long as the line stands.
//!
//! What a line says is found by its pattern alone, on mail as the daemon has read it, and by any settings that held from then on.

use std::collections::HashMap;

use bytes::Bytes;
use cmail_delivery::hold::HoldState;
use cmail_delivery::mail_pattern::MailPattern;
use cmail_delivery::outbox::{Claimed, Commit, MailId, Row, StoreReply};
use cmail_delivery::settings::Settings;
use cmail_delivery::time::Instant;

use super::Checker;
use super::standing::next_hop_of;
use crate::facts::{Fact, Scene, Verb};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HoldLines {
    /// Mail as it was read last, and when, by its recipient. Those of bounces are not unique, and of these the last one is known.
    read: HashMap<Bytes, (Row, Instant)>,
}

impl Checker for HoldLines {
    fn name(&self) -> &'static str {
        "hold lines are kept"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Answered { reply: StoreReply::Claimed(Claimed { transactions, .. }) } => {
                let rows = transactions.iter().flat_map(|transaction| &transaction.rows);
                self.note(scene, rows);
            }
            Fact::Answered { reply: StoreReply::Recalled { rows, .. } } => self.note(scene, rows),
            Fact::Answered { reply: StoreReply::Failed { messages, .. } } => {
                self.note(scene, messages.iter().flat_map(|message| &message.mails).map(|mail| &mail.row));
            }
            Fact::Stopped { .. } => self.read.clear(),
            Fact::Command { verb: Verb::Rcpt, line, .. } => {
                let path = line.split(|octet| matches!(octet, b'<' | b'>')).nth(1);
                return path.map_or(Ok(()), |recipient| self.check(scene, recipient, "sent"));
            }
            Fact::Committing { commit, .. } => return self.committing(scene, commit),
            _ => {}
        }
        Ok(())
    }
}

impl HoldLines {
    fn note<'a>(&mut self, scene: &Scene<'_>, rows: impl IntoIterator<Item = &'a Row>) {
        for row in rows {
            self.read.insert(row.recipient.clone(), (row.clone(), scene.now.monotonic));
        }
    }

    fn committing(&self, scene: &Scene<'_>, commit: &Commit) -> Result<(), String> {
        let failed = commit.failed.iter().map(|failed| failed.id);
        let originals = commit.replaced.iter().flat_map(|replacement| &replacement.originals).copied();
        failed.chain(originals).try_for_each(|id: MailId| match scene.outbox.mail(id) {
            Some(mail) => self.check(scene, &mail.recipient, "given a verdict"),
            None => Ok(()),
        })
    }

    fn check(&self, scene: &Scene<'_>, recipient: &[u8], what: &str) -> Result<(), String> {
        let Some((row, since)) = self.read.get(recipient) else { return Ok(()) };
        scene.right_by_one_since(*since, |settings| match is_held(settings, row) {
            true => Err(format!("mail {} is {what}, which a line holds", row.id)),
            false => Ok(()),
        })
    }
}

fn is_held(settings: &Settings, row: &Row) -> bool {
    let next_hop = next_hop_of(row);
    let is_about = |mail: &MailPattern| mail.matches(next_hop.as_ref(), row.sender.as_deref());
    row.hold.state == HoldState::Unset && settings.schedule.hold_lines.iter().any(|line| is_about(&line.mail))
}
