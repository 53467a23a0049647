//! The settings, and what follows from them.

use crate::attempt::Failure;
use crate::dkim::SignMark;
use crate::envelope::Envelope;
use crate::hold::HoldLine;
use crate::outbox::Row;
use crate::policy::Policies;
use crate::schedule::RetryRules;
use crate::settings::Settings;

/// The settings in force, with the policies that they make.
#[derive(Debug)]
pub(super) struct Configuration {
    pub(super) settings: Settings,
    pub(super) policies: Policies,
}

impl Configuration {
    pub(super) fn new(settings: Settings) -> Self {
        Self { policies: Policies::new(&settings.policy, &settings.destinations), settings }
    }

    /// Puts these settings into force. Returns those of before.
    pub(super) fn replace(&mut self, settings: Settings) -> Settings {
        core::mem::replace(self, Self::new(settings)).settings
    }

    /// Returns the mark of the mail of our own that says what becomes of other mail.
    pub(super) fn own_mark(&self) -> SignMark {
        self.settings.signing.mark_of_own(&self.settings.bounces.from)
    }

    /// Returns the rules by which mail is tried again.
    pub(super) fn rules(&self) -> RetryRules<'_> {
        RetryRules::of(&self.settings.schedule)
    }

    /// Returns the line of this number that holds mail.
    pub(super) fn hold_line(&self, number: u32) -> Option<&HoldLine> {
        self.settings.schedule.hold_lines.iter().find(|line| line.line == number)
    }

    /// Parses a row, and finds the next hop that its mail goes to. Fails with the failure to record if the mail cannot be sent anywhere.
    pub(super) fn envelope_of(&self, row: &Row) -> Result<Envelope, Failure> {
        let envelope = Envelope::parse(row)?;
        Ok(Envelope { next_hop: self.policies.route(envelope.next_hop), ..envelope })
    }
}
