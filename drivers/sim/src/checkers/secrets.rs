//! No secret stands in any line of the log, in the faillog or in a bounce: neither a password nor anything that was
//! said to prove that we know one.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cmail_delivery::event::Event;
use memchr::memmem;

use super::Checker;
use crate::facts::{Fact, Scene, Verb};

/// Shorter texts occur everywhere.
const LEAST_OCTETS: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    secrets: BTreeSet<Vec<u8>>,
}

impl Checker for Secrets {
    fn name(&self) -> &'static str {
        "no secret is shown"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Started { .. } => {
                for password in scene.map.relays.iter().filter_map(|relay| relay.password.as_ref()) {
                    self.secrets.insert(password.as_bytes().to_vec());
                    self.secrets.insert(STANDARD.encode(password).into_bytes());
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
            Fact::Log(Event::Sent(_, octets) | Event::SentData(_, octets) | Event::Received(_, octets)) => {
                self.check("the log", octets)
            }
            Fact::Log(event) if !self.secrets.is_empty() => {
                self.check("the log", event.to_string().as_bytes())
            }
            Fact::Committing { commit } => {
                for attempt in &commit.failed {
                    self.check("the faillog", attempt.text.as_bytes())?;
                }
                for bounce in commit.replaced.iter().filter_map(|replacement| replacement.bounce.as_ref()) {
                    self.check("a bounce", &bounce.data)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Secrets {
    fn keep(&mut self, secret: &[u8]) {
        if secret.len() >= LEAST_OCTETS {
            self.secrets.insert(secret.to_vec());
        }
    }

    fn check(&self, place: &str, text: &[u8]) -> Result<(), String> {
        match self.secrets.iter().find(|secret| memmem::find(text, secret).is_some()) {
            Some(secret) => Err(format!("{place} shows the secret {}", secret.escape_ascii())),
            None => Ok(()),
        }
    }
}
