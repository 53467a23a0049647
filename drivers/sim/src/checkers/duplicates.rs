//! Nothing is delivered twice, unless the final dot was sent and its verdict is not durable. For each connection this holds for
//! one message at a time, as far as the verdict has not arrived. If the daemon has ended since, it had noted the mail as one that
//! it was about to send.

use std::collections::{HashMap, HashSet};

use cmail_delivery::flight::Uncertain;

use super::Checker;
use crate::facts::{Fact, Link, Scene, Verb};
use crate::outbox::MailKey;

/// The core's knowledge of an acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    /// The conversation goes on.
    Awaited,
    /// The reply has arrived.
    Told,
    /// The conversation or the daemon has ended without the reply.
    Never,
}

#[derive(Debug)]
struct Acceptance {
    link: Link,
    /// The number of the message on the connection.
    number: u32,
    knowledge: Knowledge,
    /// Whether the daemon, which ended before the verdict was durable, had noted it; absent if its connection was lost before.
    was_noted: Option<bool>,
}

impl Acceptance {
    /// Returns whether the mail may come again.
    fn is_excused(&self) -> bool {
        self.was_noted.unwrap_or(self.knowledge == Knowledge::Never)
    }
}

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    epoch: u32,
    /// The number of rows of each mail.
    rows: HashMap<MailKey, usize>,
    acceptances: HashMap<MailKey, Vec<Acceptance>>,
    /// The mail that was accepted on each connection and of which the core has not been told, by message.
    untold: HashMap<Link, Vec<(u32, MailKey)>>,
    over: HashSet<Link>,
    /// Connections that were lost while the daemon went on.
    lost: HashSet<Link>,
    /// Mail that was noted when the daemon ended; absent if it notes nothing.
    noted: HashMap<u32, Option<HashSet<MailKey>>>,
    /// The number of messages on each connection that were replied to.
    replied: HashMap<Link, u32>,
    /// Mail that was deleted as delivered.
    settled: HashSet<MailKey>,
    /// Duplicates that the network or a crash explains.
    accounted: u64,
}

impl Checker for Duplicates {
    fn name(&self) -> &'static str {
        "nothing is duplicated"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Started { epoch, .. } => {
                self.epoch = epoch;
                self.over.clear();
                self.replied.clear();
            }
            Fact::Inserted { id, .. } => {
                if let Some(mail) = scene.outbox.mail(id) {
                    *self.rows.entry(MailKey::of(mail)).or_default() += 1;
                }
            }
            Fact::Accepted { link, number, keys, .. } => return self.accept(link, number, keys),
            Fact::Reply { link, to: Verb::FinalDot, code, .. } => {
                let number = self.replied.entry(link).or_default();
                *number += 1;
                let number = *number;
                // A server that refuses what it accepts is believed.
                let knowledge = if code / 100 == 2 { Knowledge::Told } else { Knowledge::Never };
                self.learn(link, knowledge, |other| other == number);
            }
            Fact::Stopped { .. } => self.stop(scene),
            Fact::Gone { link, .. } => {
                if !self.noted.contains_key(&link.epoch) {
                    self.lost.insert(link);
                }
                self.learn(link, Knowledge::Never, |_| true);
                self.replied.remove(&link);
                self.over.insert(link);
            }
            Fact::Committing { commit, .. } => {
                let deleted = commit.delivered.iter().filter_map(|mail| scene.outbox.mail(mail.id));
                self.settled.extend(deleted.map(MailKey::of));
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

    /// The daemon has ended: what it has noted may come again, and what it was told, or waits for, and has not noted, may not.
    fn stop(&mut self, scene: &Scene<'_>) {
        let is_kept = scene.settings.uncertain != Uncertain::Off;
        let noted = scene.outbox.flights().cargos().flat_map(|cargo| &cargo.mails).copied();
        // Of what cannot be recorded something else is noted, if anything.
        let poisoned = scene.outbox.mails().map(|(id, _)| id).filter(|id| scene.outbox.flaw(*id).is_some());
        let keys = noted.chain(poisoned).filter_map(|id| Some(MailKey::of(scene.outbox.mail(id)?)));
        let keys: HashSet<MailKey> = keys.collect();
        let epoch = self.epoch;
        for (key, acceptances) in &mut self.acceptances {
            let of_now = acceptances.iter_mut().filter(|acceptance| acceptance.link.epoch == epoch);
            for acceptance in of_now.filter(|acceptance| acceptance.knowledge != Knowledge::Never) {
                acceptance.was_noted = Some(!is_kept || keys.contains(key));
            }
        }
        self.noted.insert(epoch, is_kept.then_some(keys));
    }

    fn accept(&mut self, link: Link, number: u32, keys: &[MailKey]) -> Result<(), String> {
        // A server that says something else before it accepts is believed at its first word.
        let is_replied_to = self.replied.get(&link).is_some_and(|&replied| replied >= number);
        let is_over = link.epoch != self.epoch || self.over.contains(&link) || is_replied_to;
        let has_another = |untold: &Vec<(u32, MailKey)>| untold.iter().any(|&(other, _)| other != number);
        if !is_over && self.untold.get(&link).is_some_and(has_another) {
            return Err(format!("[{link}] a message was sent before the reply to the one before"));
        }
        let knowledge = if is_over { Knowledge::Never } else { Knowledge::Awaited };
        let noted = self.noted.get(&link.epoch).and_then(Option::as_ref);
        let noted = noted.filter(|_| !self.lost.contains(&link) && !is_replied_to);
        for key in keys {
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
                let excused = earlier.iter().filter(|other| other.is_excused()).count();
                if excused + self.rows.get(key).copied().unwrap_or(1) <= earlier.len() {
                    return Err(format!(
                        "the mail to {who} was delivered again, and was not noted when the daemon ended"
                    ));
                }
                self.accounted += 1;
            }
            let was_noted = noted.map(|noted| noted.contains(key));
            earlier.push(Acceptance { link, number, knowledge, was_noted });
        }
        if !is_over {
            self.untold.entry(link).or_default().extend(keys.iter().map(|key| (number, key.clone())));
        }
        Ok(())
    }

    /// Records that the core learns about the messages of a connection with these numbers, or never will.
    fn learn(&mut self, link: Link, knowledge: Knowledge, is_one: impl Fn(u32) -> bool) {
        let Some(untold) = self.untold.get_mut(&link) else { return };
        for (number, key) in untold.extract_if(.., |(number, _)| is_one(*number)) {
            let of_message = |acceptance: &&mut Acceptance| {
                (acceptance.link, acceptance.number, acceptance.knowledge)
                    == (link, number, Knowledge::Awaited)
            };
            for acceptance in self.acceptances.get_mut(&key).into_iter().flatten().filter(of_message) {
                acceptance.knowledge = knowledge;
            }
        }
        if untold.is_empty() {
            self.untold.remove(&link);
        }
    }
}

#[cfg(test)]
mod tests;
