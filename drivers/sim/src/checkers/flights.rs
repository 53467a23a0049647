//! Mail is noted before it is sent, and no more messages of a connection are than may be.

use std::collections::{BTreeMap, BTreeSet};

use cmail_delivery::flight::{FLIGHT_LIMIT_MESSAGES, Uncertain};
use cmail_delivery::io::ConnectionId;
use cmail_delivery::memory_outbox::Mail;
use memchr::memmem;

use super::Checker;
use crate::facts::{Fact, Link, Scene, Verb};
use crate::outbox::message;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Flights {
    epoch: u32,
}

impl Flights {
    fn said(&self, scene: &Scene<'_>, link: Link, line: &[u8]) -> Result<(), String> {
        let path = line
            .split(|octet| *octet == b'<')
            .nth(1)
            .and_then(|rest| rest.split(|octet| *octet == b'>').next())
            .unwrap_or_default();
        // The recipients of bounces are written in other ways, and are not unique.
        if memmem::find(path, b"zr").is_none() || link.epoch != self.epoch {
            return Ok(());
        }
        let flights = scene.outbox.flights().own_cargos();
        let mut noted =
            flights.filter(|cargo| cargo.route.connection == link.id).flat_map(|cargo| &cargo.mails);
        let is_it = |mail: &Mail| mail.recipient == path;
        if noted.any(|id| scene.outbox.held_mail(*id).is_some_and(is_it)) {
            return Ok(());
        }
        Err(format!("[{link}] mail to {} is sent, and was not noted before", String::from_utf8_lossy(path)))
    }

    fn count(scene: &Scene<'_>) -> Result<(), String> {
        let mut messages: BTreeMap<ConnectionId, BTreeSet<_>> = BTreeMap::new();
        for cargo in scene.outbox.flights().own_cargos() {
            let mails = cargo.mails.iter().filter_map(|id| scene.outbox.mail(*id));
            messages.entry(cargo.route.connection).or_default().extend(mails.map(message));
        }
        match messages.iter().find(|(_, messages)| messages.len() > FLIGHT_LIMIT_MESSAGES) {
            Some((connection, messages)) => {
                Err(format!("{} messages of connection {} are noted", messages.len(), connection.0))
            }
            None => Ok(()),
        }
    }
}

impl Checker for Flights {
    fn name(&self) -> &'static str {
        "mail is noted before it is sent"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Started { epoch, .. } => self.epoch = epoch,
            Fact::Command { link, verb: Verb::Rcpt, line, .. }
                if scene.settings.uncertain != Uncertain::Off =>
            {
                return self.said(scene, link, line);
            }
            Fact::Told { .. } => return Self::count(scene),
            _ => {}
        }
        Ok(())
    }
}
