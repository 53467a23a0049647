//! A server that takes only so many messages on a connection costs no mail a failure: what it refuses goes on by another.

use cmail_delivery::event::Event;

use super::Checker;
use crate::facts::{Fact, Scene};
use crate::servers::ENOUGH;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Limits;

impl Checker for Limits {
    fn name(&self) -> &'static str {
        "a limit of connections costs no mail a failure"
    }

    fn see(&mut self, _: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Log(Event::Failed { id, attempt, .. }) if attempt.to_string().contains(ENOUGH) => {
                Err(format!("mail {id} has failed because of a connection: {attempt}"))
            }
            _ => Ok(()),
        }
    }
}
