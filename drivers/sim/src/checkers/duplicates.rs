//! Nothing is delivered twice, except where the final dot was sent and the verdict on it is not durable.

use std::collections::{HashMap, HashSet};

use super::Checker;
use crate::facts::{Fact, Link, Scene, Verb};
use crate::outbox::MailKey;

/// What the core knows of an acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    /// The conversation goes on.
    Awaited,
    /// The reply has arrived.
    Told,
    /// The conversation has ended without the reply, or the daemon has.
    Never,
}

#[derive(Debug)]
struct Acceptance {
    link: Link,
    knowledge: Knowledge,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    epoch: u32,
    /// How many rows there were of each mail.
    rows: HashMap<MailKey, usize>,
    acceptances: HashMap<MailKey, Vec<Acceptance>>,
    /// The mail that was accepted last on each connection.
    latest: HashMap<Link, Vec<MailKey>>,
    over: HashSet<Link>,
    /// Connections on which the final dot was sent and not yet replied to.
    awaiting: HashSet<Link>,
    /// Mail that was deleted as delivered.
    settled: HashSet<MailKey>,
    /// Duplicates for which the network or a crash is to blame.
    accounted: u64,
}

impl Checker for Duplicates {
    fn name(&self) -> &'static str {
        "nothing is duplicated"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Started { epoch } => {
                self.epoch = epoch;
                self.over.clear();
                self.awaiting.clear();
            }
            Fact::Inserted { id, .. } => {
                if let Some(mail) = scene.outbox.mail(id) {
                    *self.rows.entry(mail.key()).or_default() += 1;
                }
            }
            Fact::Accepted { link, recipients, data } => {
                let keys = recipients.iter().map(|recipient| MailKey::new(recipient.as_bytes(), data));
                return self.accept(link, keys.collect());
            }
            Fact::FinalDot { link, .. } => {
                self.awaiting.insert(link);
            }
            Fact::Reply { link, to: Verb::FinalDot, code, .. } => {
                self.awaiting.remove(&link);
                if code / 100 == 2 {
                    self.learn(link, Knowledge::Told);
                }
            }
            Fact::Gone { link, .. } => {
                self.learn(link, Knowledge::Never);
                self.latest.remove(&link);
                self.over.insert(link);
            }
            Fact::Committing { commit } => {
                let deleted = commit.delivered.iter().filter_map(|&id| scene.outbox.mail(id));
                self.settled.extend(deleted.map(crate::outbox::Mail::key));
            }
            _ => {}
        }
        Ok(())
    }

    fn account(&self) -> Option<String> {
        (self.accounted > 0).then(|| self.account_text())
    }
}

impl Duplicates {
    /// A sentence.
    fn account_text(&self) -> String {
        format!("{} duplicates, each after a final dot whose reply was lost or not recorded", self.accounted)
    }

    fn accept(&mut self, link: Link, keys: Vec<MailKey>) -> Result<(), String> {
        // A server that says something else before it accepts is taken at its first word.
        let is_over = link.epoch != self.epoch || self.over.contains(&link) || !self.awaiting.contains(&link);
        let knowledge = if is_over { Knowledge::Never } else { Knowledge::Awaited };
        for key in &keys {
            let earlier = self.acceptances.entry(key.clone()).or_default();
            if earlier.len() >= self.rows.get(key).copied().unwrap_or(1) {
                let who = String::from_utf8_lossy(&key.recipient).into_owned();
                if self.settled.contains(key)
                    && earlier.iter().all(|other| other.knowledge != Knowledge::Never)
                {
                    return Err(format!("the mail to {who} was delivered again after it was deleted"));
                }
                let of_now = |other: &&Acceptance| other.link.epoch == self.epoch && !is_over;
                for other in earlier.iter().filter(of_now) {
                    match other.knowledge {
                        Knowledge::Told => {
                            return Err(format!(
                                "the mail to {who} was delivered again although [{}] was told \
                                                of its acceptance",
                                other.link
                            ));
                        }
                        Knowledge::Awaited => {
                            return Err(format!(
                                "the mail to {who} was delivered while its reply was awaited"
                            ));
                        }
                        Knowledge::Never => {}
                    }
                }
                self.accounted += 1;
            }
            earlier.push(Acceptance { link, knowledge });
        }
        if !is_over {
            self.latest.insert(link, keys);
        }
        Ok(())
    }

    fn learn(&mut self, link: Link, knowledge: Knowledge) {
        for key in self.latest.get(&link).into_iter().flatten() {
            let of_link = |acceptance: &&mut Acceptance| {
                acceptance.link == link && acceptance.knowledge == Knowledge::Awaited
            };
            for acceptance in self.acceptances.get_mut(key).into_iter().flatten().filter(of_link) {
                acceptance.knowledge = knowledge;
            }
        }
    }
}
