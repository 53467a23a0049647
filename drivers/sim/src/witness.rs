//! Processes all facts, tells the checkers, and writes the dialogue.

use std::collections::BTreeMap;

use crate::checkers::{self, Checker};
use crate::dialogue::Dialogue;
use crate::facts::{Fact, Link, Scene};
use crate::wire::{Sight, Wire};

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The checker that reports it.
    pub(crate) checker: &'static str,
    /// A sentence.
    pub(crate) text: String,
}

/// Counts of facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) submitted: u64,
    pub(crate) accepted: u64,
    pub(crate) connections: u64,
    pub(crate) crashes: u64,
    pub(crate) bounces: u64,
    pub(crate) failures: u64,
    pub(crate) tls: u64,
}

/// The witness of all facts.
#[derive(Debug)]
pub(crate) struct Witness {
    wires: BTreeMap<Link, Wire>,
    checkers: Vec<Box<dyn Checker>>,
    pub(crate) dialogue: Dialogue,
    pub(crate) violation: Option<Violation>,
    pub(crate) counts: Counts,
}

impl Witness {
    /// A witness with all checkers.
    pub(crate) fn new(dialogue: Dialogue) -> Self {
        Self {
            wires: BTreeMap::new(),
            checkers: checkers::all(),
            dialogue,
            violation: None,
            counts: Counts::default(),
        }
    }

    /// Processes a fact, and those that can be derived from it.
    pub(crate) fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) {
        self.tell(scene, fact);
        self.count(fact);
        match fact {
            Fact::Sent { link, octets, tls } => {
                let sights = self.wires.get_mut(&link).map(|wire| wire.sent(octets)).unwrap_or_default();
                self.read(scene, link, tls, &sights);
            }
            Fact::Received { link, octets } => {
                let sights = self.wires.get_mut(&link).map(|wire| wire.received(octets)).unwrap_or_default();
                self.read(scene, link, false, &sights);
            }
            Fact::Connecting { link, purpose: cmail_delivery::io::Purpose::Smtp, .. } => {
                self.wires.insert(link, Wire::new());
            }
            Fact::Gone { link, .. } => {
                self.wires.remove(&link);
            }
            Fact::TlsEstablished { link, .. } => {
                if let Some(wire) = self.wires.get_mut(&link) {
                    wire.tls_established();
                }
            }
            Fact::Stopped { .. } => self.wires.clear(),
            Fact::Started { .. }
            | Fact::Draining
            | Fact::Ordered
            | Fact::HostsRead { .. }
            | Fact::Reconfigured { .. }
            | Fact::WallSet { .. }
            | Fact::Inserted { .. }
            | Fact::Removed { .. }
            | Fact::Meddled { .. }
            | Fact::OrderGiven { .. }
            | Fact::CarryingOut { .. }
            | Fact::NameAsked { .. }
            | Fact::NameAnswered { .. }
            | Fact::Connecting { .. }
            | Fact::GoesTo { .. }
            | Fact::Explained { .. }
            | Fact::StartTls { .. }
            | Fact::Command { .. }
            | Fact::FinalDot { .. }
            | Fact::Reply { .. }
            | Fact::Accepted { .. }
            | Fact::Asked { .. }
            | Fact::Answered { .. }
            | Fact::Told { .. }
            | Fact::Committing { .. }
            | Fact::Log(_)
            | Fact::Called { .. }
            | Fact::Spins
            | Fact::Healed
            | Fact::Finished
            | Fact::Released { .. } => {}
        }
    }

    /// Returns the summaries of what the checkers have excused.
    pub(crate) fn accounts(&self) -> Vec<String> {
        self.checkers.iter().filter_map(|checker| checker.account()).collect()
    }

    fn read(&mut self, scene: &Scene<'_>, link: Link, tls: bool, sights: &[Sight]) {
        for sight in sights {
            let fact = match sight {
                Sight::Command(verb, line) => Fact::Command { link, verb: *verb, line, tls },
                Sight::FinalDot { octets, .. } => Fact::FinalDot { link, octets: *octets, tls },
                Sight::Reply(to, code, text) => Fact::Reply { link, to: *to, code: *code, text },
            };
            self.tell(scene, fact);
        }
    }

    fn tell(&mut self, scene: &Scene<'_>, fact: Fact<'_>) {
        self.dialogue.write(scene, fact);
        if self.violation.is_some() {
            return;
        }
        for checker in &mut self.checkers {
            if let Err(text) = checker.see(scene, fact) {
                let violation = Violation { checker: checker.name(), text };
                self.dialogue.conclude(scene, fact, &violation);
                self.violation = Some(violation);
                return;
            }
        }
    }

    fn count(&mut self, fact: Fact<'_>) {
        if let Fact::Committing { commit, .. } = fact {
            self.counts.bounces += commit.replaced.len() as u64;
            self.counts.failures += commit.failed.len() as u64;
        }
        let counter = if let Fact::Inserted { .. } = fact {
            &mut self.counts.submitted
        } else if let Fact::Accepted { .. } = fact {
            &mut self.counts.accepted
        } else if let Fact::Connecting { .. } = fact {
            &mut self.counts.connections
        } else if let Fact::Stopped { crashed: true } = fact {
            &mut self.counts.crashes
        } else if let Fact::TlsEstablished { .. } = fact {
            &mut self.counts.tls
        } else {
            return;
        };
        *counter += 1;
    }
}
