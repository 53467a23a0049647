//! The sender of mail that still fails is told once at each age that it has reached; never the null sender, and never of mail that is
//! given up.

use std::collections::BTreeSet;

use cmail_delivery::address::Mailbox;
use cmail_delivery::failure_pattern::LastFailure;
use cmail_delivery::outbox::{Charge, Commit, FaillogRow, MailId};
use cmail_delivery::schedule::RetryState;
use cmail_delivery::settings::Schedule;

use super::Checker;
use super::standing::retry_state;
use crate::facts::{Fact, Origin, Scene};

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    /// Mail whose sender is to be told by the commit that is being made.
    expected: BTreeSet<MailId>,
    is_pass: bool,
}

impl Checker for Warnings {
    fn name(&self) -> &'static str {
        "whoever sent late mail is told once at each age"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Started { is_pass, .. } => {
                *self = Self { is_pass, ..Self::default() };
                Ok(())
            }
            Fact::Committing { commit, .. } => {
                self.expected = expected(scene, commit);
                self.check_ages(scene, commit)
            }
            Fact::Inserted { id, origin: Origin::WarningOf(originals) } => {
                if scene.outbox.mail(id).is_none_or(|warning| warning.sender.is_some()) {
                    return Err(format!("the warning {id} has a sender"));
                }
                match originals.iter().find(|original| !self.expected.remove(original)) {
                    Some(original) => Err(format!("mail {original} is warned of, and is not to be")),
                    None => Ok(()),
                }
            }
            // Everything that a commit inserts is told before.
            Fact::Told { .. } | Fact::Called { .. } if !self.expected.is_empty() => {
                Err(format!("{:?} are late, and whoever sent them is not told", self.expected))
            }
            _ => Ok(()),
        }
    }
}

impl Warnings {
    /// Checks that a commit asks for the warnings that the administrator wants, or has wanted a moment ago.
    fn check_ages(&self, scene: &Scene<'_>, commit: &Commit) -> Result<(), String> {
        if self.is_pass || commit.failed.is_empty() {
            return Ok(());
        }
        let asked = commit.warnings.as_ref().map_or(&[][..], |warnings| &warnings.ages);
        let earlier = scene.earlier_settings.iter().map(|(_, settings)| settings);
        if earlier.chain([scene.settings]).any(|settings| *settings.schedule.delay_warnings == *asked) {
            return Ok(());
        }
        Err(format!("senders are told at {asked:?}, and not as the administrator wants"))
    }
}

/// Returns the mail of a commit whose sender is to be told, computed once more from the outbox as it was before.
fn expected(scene: &Scene<'_>, commit: &Commit) -> BTreeSet<MailId> {
    let Some(warnings) = &commit.warnings else { return BTreeSet::new() };
    let rules = warnings.terms.rules();
    let schedule = Schedule {
        rules: rules.lines.into(),
        retries: rules.retries,
        retry_interval_s: rules.interval_s,
        ..scene.settings.schedule.clone()
    };
    let is_late = |id: MailId, row: FaillogRow, failure: LastFailure| {
        let Some(mut mail) = scene.outbox.mail(id).cloned() else { return false };
        if mail.sender.as_deref().is_none_or(|sender| Mailbox::parse(sender).is_err()) {
            return false;
        }
        // RFC 3461 section 4.1.
        if mail.wishes.notify.is_some_and(|notify| !notify.delay) {
            return false;
        }
        let state = mail.fail_state(id);
        let before = if state.fail_count == 0 { i64::MIN } else { state.last_try.0 };
        mail.last_failure = Some((row.time, failure));
        mail.faillog.push(row);
        let now = mail.fail_state(id).last_try.0;
        let reached = warnings.ages.iter().map(|age| mail.submission.0 + age.as_secs().cast_signed());
        reached.clone().any(|late| before < late && late <= now)
            && matches!(
                retry_state(&schedule, id, &mail, warnings.terms.now),
                RetryState::Due | RetryState::NotBefore(_)
            )
    };
    let failed = commit.failed.iter().filter(|failed| failed.charge == Charge::Counts).filter(|failed| {
        let attempt = &failed.attempt;
        let text = failed.text().into_bytes().into();
        let row = FaillogRow { time: attempt.at, text, fatal: attempt.is_fatal() };
        is_late(failed.id, row, attempt.facts().into())
    });
    failed.map(|failed| failed.id).collect()
}
