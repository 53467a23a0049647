//! A server that accepts a limited number of messages on a connection causes no failure: the mail that it refuses goes on by
//! another connection.

use cmail_delivery::event::Event;

use super::Checker;
use crate::facts::{Fact, Scene};
use crate::servers::ENOUGH;

/// The checker of this module's invariant.
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
