//! What senders want to be told (RFC 3461) is passed on to a server that offers DSN, as it is. Where it does not, and a sender wants to
//! know of the delivery, we tell the sender: exactly one of the two for each delivery.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cmail_delivery::address::Mailbox;
use cmail_delivery::dsn::{DsnWishes, xtext};
use cmail_delivery::memory_outbox::Mail;
use cmail_delivery::outbox::{Commit, MailId};

use super::Checker;
use crate::facts::{Fact, Link, Origin, Scene, Verb};
use crate::outbox::MailKey;

/// A conversation.
#[derive(Clone, Debug, Default)]
struct Talk {
    offers_dsn: bool,
    /// The parameters of MAIL, and of RCPT for each recipient of the last transaction that named it.
    mail: String,
    recipients: BTreeMap<String, String>,
}

/// The last acceptance of a mail by a server.
#[derive(Clone, Debug)]
struct Acceptance {
    offers_dsn: bool,
    parameters: String,
}

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    talks: BTreeMap<Link, Talk>,
    accepted: HashMap<MailKey, Acceptance>,
    /// Mail whose sender is to be told by the commit that is being made.
    expected: BTreeSet<MailId>,
}

impl Checker for Wishes {
    fn name(&self) -> &'static str {
        "senders are told what they want"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Gone { link, .. } => drop(self.talks.remove(&link)),
            Fact::Stopped { .. } => {
                self.talks.clear();
                self.expected.clear();
            }
            Fact::Reply { link, to: Verb::Ehlo | Verb::Helo, code, text } if code / 100 == 2 => {
                let text = String::from_utf8_lossy(text);
                let offers_dsn = text.lines().skip(1).any(|line| line.get(4..) == Some("DSN"));
                self.talks.entry(link).or_default().offers_dsn = offers_dsn;
            }
            Fact::Command { link, verb, line, .. } => {
                self.talks.entry(link).or_default().say(verb, &String::from_utf8_lossy(line));
            }
            Fact::Accepted { link, recipients, keys, .. } => self.accept(link, recipients, keys),
            Fact::Committing { commit, .. } => return self.commit(scene, commit),
            Fact::Inserted { origin: Origin::ReportOf(original), .. } => {
                return match self.expected.remove(&original) {
                    true => Ok(()),
                    false => Err(format!(
                        "the sender of mail {original} is told of the delivery, and is not to be"
                    )),
                };
            }
            // Everything that a commit inserts is told before.
            Fact::Told { .. } | Fact::Called { .. } if !self.expected.is_empty() => {
                return Err(format!(
                    "whoever sent {:?} wants to know of the delivery, and is not told",
                    self.expected
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Talk {
    fn say(&mut self, verb: Verb, line: &str) {
        let (path, parameters) = line.split_once("> ").unwrap_or((line, ""));
        match verb {
            Verb::Mail => self.mail = parameters.to_owned(),
            Verb::Rcpt => {
                let path = path.strip_prefix("RCPT TO:<").unwrap_or(path).trim_end_matches('>');
                let parameters = format!("{parameters} {}", self.mail);
                self.recipients.insert(path.to_owned(), parameters);
            }
            _ => {}
        }
    }
}

impl Wishes {
    fn accept(&mut self, link: Link, recipients: &[String], keys: &[MailKey]) {
        let talk = self.talks.entry(link).or_default();
        for (recipient, key) in recipients.iter().zip(keys) {
            let parameters = talk.recipients.get(recipient).cloned().unwrap_or_default();
            let acceptance = Acceptance { offers_dsn: talk.offers_dsn, parameters };
            self.accepted.insert(key.clone(), acceptance);
        }
    }

    fn commit(&mut self, scene: &Scene<'_>, commit: &Commit) -> Result<(), String> {
        self.expected.clear();
        for id in commit.delivered.iter().filter(|mail| mail.attempt.is_some()).map(|mail| mail.id) {
            let Some(mail) = scene.outbox.mail(id) else { continue };
            let Some(acceptance) = self.accepted.get(&MailKey::of(mail)) else { continue };
            if acceptance.offers_dsn {
                check_passed_on(id, &mail.wishes, &acceptance.parameters)?;
            } else if mail.wishes.notify.is_some_and(|notify| notify.success) && has_sender(mail) {
                self.expected.insert(id);
            }
        }
        Ok(())
    }
}

fn has_sender(mail: &Mail) -> bool {
    mail.sender.as_deref().is_some_and(|sender| Mailbox::parse(sender).is_ok())
}

/// Checks that what a sender wants stands in the parameters of MAIL and RCPT.
fn check_passed_on(id: MailId, wishes: &DsnWishes, parameters: &str) -> Result<(), String> {
    let said = |name: &str| parameters.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
    let expected = [
        ("NOTIFY=", wishes.notify.map(|notify| notify.to_string())),
        ("ORCPT=", wishes.original_recipient.as_ref().map(|original| original.parameter())),
        ("RET=", wishes.message.extent.map(|extent| extent.to_string())),
        ("ENVID=", wishes.message.envelope_id.as_ref().map(|id| xtext(id.as_str()))),
    ];
    for (name, wanted) in expected {
        let said = said(name);
        if said != wanted {
            return Err(format!("mail {id} goes with {name}{said:?}, and its sender wants {wanted:?}"));
        }
    }
    Ok(())
}
