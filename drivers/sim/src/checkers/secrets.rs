//! No secret appears in any line of the log, in the faillog or in a bounce: neither a password nor a proof of one. Nor in a
//! transcript.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cmail_delivery::event::Event;
use memchr::memmem::Finder;

use super::Checker;
use crate::facts::{Fact, Scene, Verb};

/// Shorter texts occur everywhere.
const LEAST_OCTETS: usize = 4;

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// The secrets, each with its finder.
    secrets: BTreeMap<Vec<u8>, Finder<'static>>,
    /// The event that is being checked.
    text: String,
}

impl Checker for Secrets {
    fn name(&self) -> &'static str {
        "no secret is shown"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Started { .. } => {
                for password in scene.map.relays.iter().filter_map(|relay| relay.password.as_ref()) {
                    self.add(password.as_bytes());
                    self.add(STANDARD.encode(password).as_bytes());
                }
                Ok(())
            }
            Fact::Command { verb: Verb::Auth, line, .. } => {
                self.keep(line.splitn(3, |&octet| octet == b' ').nth(2).unwrap_or_default());
                Ok(())
            }
            Fact::Command { verb: Verb::AuthLine, line, .. } => {
                self.keep(line);
                Ok(())
            }
            Fact::Log(Event::Sent(said) | Event::SentData(said) | Event::Received(said)) => {
                let octets = &said.octets;
                self.check("the log", octets)
            }
            Fact::Log(event) if !self.secrets.is_empty() => {
                let mut text = std::mem::take(&mut self.text);
                text.clear();
                let _ = write!(text, "{event}");
                let result = self.check("the log", text.as_bytes());
                self.text = text;
                result
            }
            Fact::Committing { commit, bounces } => {
                for failed in &commit.failed {
                    self.check("the faillog", failed.text().as_bytes())?;
                }
                let courses = commit.attempts().filter_map(|attempt| attempt.course?.transcript.as_deref());
                courses.map(str::as_bytes).try_for_each(|text| self.check("a transcript", text))?;
                bounces.iter().try_for_each(|bounce| self.check("a bounce", bounce))
            }
            _ => Ok(()),
        }
    }
}

impl Secrets {
    fn keep(&mut self, secret: &[u8]) {
        if secret.len() >= LEAST_OCTETS {
            self.add(secret);
        }
    }

    fn add(&mut self, secret: &[u8]) {
        if !self.secrets.contains_key(secret) {
            self.secrets.insert(secret.to_vec(), Finder::new(secret).into_owned());
        }
    }

    fn check(&self, place: &str, text: &[u8]) -> Result<(), String> {
        match self.secrets.iter().find(|(_, finder)| finder.find(text).is_some()) {
            Some((secret, _)) => Err(format!("{place} shows the secret {}", secret.escape_ascii())),
            None => Ok(()),
        }
    }
}
