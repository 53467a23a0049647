//! Verdicts are recorded for the mail that the daemon has read, and not for mail that another program has put in its place, or
//! has redirected, since then.

use std::collections::HashMap;

use bytes::Bytes;
use cmail_delivery::memory_outbox::Mail;
use cmail_delivery::outbox::{Claimed, MailId, Row, StoreReply, is_null_path};

use super::Checker;
use crate::facts::{Fact, Scene};

/// The properties by which a row is still the same mail.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Image {
    remote: Option<Bytes>,
    sender: Option<Bytes>,
    recipient: Bytes,
    data_octets: u64,
}

impl Image {
    fn of_row(row: &Row) -> Self {
        Self {
            remote: row.remote.clone(),
            sender: row.sender.clone(),
            recipient: row.recipient.clone(),
            data_octets: row.data_octets,
        }
    }

    fn of_mail(mail: &Mail) -> Self {
        Self {
            remote: mail.remote.clone(),
            sender: mail.sender.clone().filter(|sender| !is_null_path(sender)),
            recipient: mail.recipient.clone(),
            data_octets: mail.data.len() as u64,
        }
    }
}

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// The mail that was read to work on it, in the life of this daemon.
    read: HashMap<MailId, Image>,
}

impl Checker for Changed {
    fn name(&self) -> &'static str {
        "whoever changes mail meanwhile wins"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Started { .. } => self.read.clear(),
            Fact::Answered { reply: StoreReply::Claimed(Claimed { transactions, .. }) } => {
                self.note(transactions.iter().flat_map(|transaction| &transaction.rows));
            }
            Fact::Answered { reply: StoreReply::Recalled { rows, .. } } => self.note(rows),
            Fact::Answered { reply: StoreReply::Failed { messages, .. } } => {
                self.note(messages.iter().flat_map(|message| &message.mails).map(|mail| &mail.row));
            }
            Fact::Committing { commit, .. } => {
                let replaced = commit.replaced.iter().flat_map(|replacement| &replacement.originals);
                for id in commit.failed.iter().map(|attempt| &attempt.id).chain(replaced) {
                    self.judge(scene, *id)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Changed {
    fn note<'a>(&mut self, rows: impl IntoIterator<Item = &'a Row>) {
        self.read.extend(rows.into_iter().map(|row| (row.id, Image::of_row(row))));
    }

    fn judge(&mut self, scene: &Scene<'_>, id: MailId) -> Result<(), String> {
        let Some(mail) = scene.outbox.mail(id) else { return Ok(()) };
        match self.read.remove(&id) {
            None => Err(format!("mail {id} is charged, and was not read for that")),
            Some(read) if read != Image::of_mail(mail) => {
                Err(format!("mail {id} is charged with what became of {}", read.recipient.escape_ascii()))
            }
            Some(_) => Ok(()),
        }
    }
}
