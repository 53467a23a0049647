//! What a server announces as its limits (RFC 9422) is kept on each connection to it.

use std::collections::{BTreeMap, BTreeSet};

use super::Checker;
use crate::facts::{Fact, Link, Scene, Verb};

/// A conversation.
#[derive(Debug, Default)]
struct Talk {
    /// By their names, as the server has announced them last.
    limits: BTreeMap<String, usize>,
    transactions: usize,
    recipients: usize,
    domains: BTreeSet<String>,
}

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct ServerLimits {
    talks: BTreeMap<Link, Talk>,
}

impl Checker for ServerLimits {
    fn name(&self) -> &'static str {
        "the limits that servers announce are kept"
    }

    fn see(&mut self, _: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Gone { link, .. } => drop(self.talks.remove(&link)),
            Fact::Stopped { .. } => self.talks.clear(),
            Fact::Reply { link, to: Verb::Ehlo, code: 250, text } => {
                self.talks.entry(link).or_default().limits = announced(&String::from_utf8_lossy(text));
            }
            Fact::Command { link, verb, line, .. } => {
                let talk = self.talks.entry(link).or_default();
                talk.say(verb, &String::from_utf8_lossy(line))
                    .map_err(|error| format!("[{link}] {error}"))?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Talk {
    fn say(&mut self, verb: Verb, line: &str) -> Result<(), String> {
        match verb {
            Verb::Mail => {
                self.transactions += 1;
                self.recipients = 0;
            }
            Verb::Rcpt => {
                self.recipients += 1;
                // A parameter may contain a bracket, too.
                let path = line.split_once('>').map_or(line, |(path, _)| path);
                let domain = path.rsplit_once('@').map_or("", |(_, domain)| domain);
                self.domains.insert(domain.to_ascii_lowercase());
            }
            _ => return Ok(()),
        }
        let counts = [
            ("MAILMAX", self.transactions),
            ("RCPTMAX", self.recipients),
            ("RCPTDOMAINMAX", self.domains.len()),
        ];
        for (name, count) in counts {
            if let Some(most) = self.limits.get(name).filter(|most| count > **most) {
                return Err(format!("{count} where the server has announced {name}={most}"));
            }
        }
        Ok(())
    }
}

/// Returns the limits in a reply to EHLO.
fn announced(text: &str) -> BTreeMap<String, usize> {
    let lines = text.lines().filter_map(|line| line.get(4..)?.strip_prefix("LIMITS "));
    let words = lines.flat_map(str::split_ascii_whitespace);
    words
        .filter_map(|word| word.split_once('='))
        .filter_map(|(name, most)| Some((name.to_owned(), most.parse().ok()?)))
        .collect()
}
