//! The counts of the daemon agree with what has happened.

use std::collections::BTreeSet;

use cmail_delivery::attempt::AttemptFacts;
use cmail_delivery::event::Event;
use cmail_delivery::io::Purpose;
use cmail_delivery::order::OrderVerb;
use cmail_delivery::outbox::{Commit, RequestId, StoreRequest};
use cmail_delivery::tally::{AttemptResult, ConnectionFailure, Fate, Finality, Tally};

use super::Checker;
use crate::facts::{Fact, Link, Origin, Scene, Verb};

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    facts: Facts,
    /// The requests that ask for a commit and for a step of an order, and what the database has recorded by them, which the daemon was
    /// not told.
    commit: Option<RequestId>,
    step: Option<RequestId>,
    untold: Recorded,
}

/// What has happened since the daemon was started.
#[derive(Debug, Default)]
struct Facts {
    delivered: u64,
    permanent: u64,
    temporary: u64,
    bounced: u64,
    dropped: u64,
    expired: u64,
    recorded: Recorded,
    store_errors: u64,
    connecting: u64,
    /// Connections on which mail was begun.
    used: BTreeSet<Link>,
    transactions_begun: u64,
    accepted: u64,
}

/// What the database has recorded.
#[derive(Debug, Default)]
struct Recorded {
    delivered: u64,
    removed: u64,
    bounces: u64,
    warnings: u64,
    reports: u64,
}

impl Recorded {
    fn note(&mut self, commit: &Commit) {
        self.delivered += commit.delivered.iter().filter(|mail| mail.attempt.is_some()).count() as u64;
    }
}

impl Facts {
    fn attempt(&mut self, attempt: &AttemptFacts<'_>) {
        *if attempt.is_fatal { &mut self.permanent } else { &mut self.temporary } += 1;
    }

    fn log(&mut self, event: &Event) {
        match event {
            Event::Delivered { .. } => self.delivered += 1,
            Event::Failed { attempt, .. } => self.attempt(&attempt.facts()),
            Event::Bounced { expired: Some(_), .. } | Event::Dropped { expired: Some(_), .. } => {
                self.expired += 1;
            }
            Event::Bounced { .. } => self.bounced += 1,
            Event::Dropped { .. } => self.dropped += 1,
            _ => {}
        }
    }

    fn compare(&self, tally: &Tally) -> Result<(), String> {
        let attempts = |result| tally.attempts.of(result);
        let failures = |finality| {
            let of_finality = tally.failures.iter().filter(|((_, known), _)| *known == finality);
            of_finality.map(|(_, count)| count).sum()
        };
        let exact = [
            ("delivered", attempts(AttemptResult::Delivered), self.delivered),
            ("failed", attempts(AttemptResult::Failed), self.permanent),
            ("permanent failures", failures(Finality::Permanent), self.permanent),
            (
                "deferred or uncertain",
                attempts(AttemptResult::Deferred) + attempts(AttemptResult::Uncertain),
                self.temporary,
            ),
            ("temporary failures", failures(Finality::Temporary), self.temporary),
            ("mails delivered", tally.mails.of(Fate::Delivered), self.recorded.delivered),
            ("mails bounced", tally.mails.of(Fate::Bounced), self.bounced),
            ("mails dropped", tally.mails.of(Fate::Dropped), self.dropped),
            ("mails expired", tally.mails.of(Fate::Expired), self.expired),
            ("mails removed", tally.mails.of(Fate::Removed), self.recorded.removed),
            ("bounces", tally.reports.bounces, self.recorded.bounces),
            ("warnings of late mail", tally.reports.delay_warnings, self.recorded.warnings),
            ("reports of deliveries", tally.reports.relay_reports, self.recorded.reports),
            ("errors of the database", tally.store_errors, self.store_errors),
        ];
        for (what, counted, happened) in exact {
            if counted != happened {
                return Err(format!("{what}: {counted} are counted, {happened} there were"));
            }
        }
        let opened = tally.connections.opened.total();
        let used = self.used.len() as u64;
        let failed_here = tally.connections.failed.of(ConnectionFailure::Local);
        let ordered = [
            ("connections with mail, and those counted as opened", used, opened),
            (
                "connections counted, and those begun",
                // What this machine could not even try was not begun.
                opened + tally.connections.failed.total() - failed_here,
                self.connecting,
            ),
            ("transactions counted, and those begun", tally.transactions, self.transactions_begun),
            ("mails counted as delivered, and those taken", self.delivered, self.accepted),
        ];
        for (what, fewer, more) in ordered {
            if fewer > more {
                return Err(format!("{what}: {fewer} and {more}"));
            }
        }
        Ok(())
    }
}

impl Checker for Agreement {
    fn name(&self) -> &'static str {
        "what is counted has happened"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        let facts = &mut self.facts;
        match fact {
            Fact::Started { .. } => *self = Self::default(),
            Fact::Log(event) => facts.log(event),
            Fact::Asked { id, request: StoreRequest::Commit(_) } => self.commit = Some(id),
            Fact::Asked { id, request: StoreRequest::CarryOut(_) } => self.step = Some(id),
            Fact::Committing { commit, .. } => self.untold.note(commit),
            Fact::CarryingOut { step, mails } => {
                let order = scene.outbox.orders().find(step.order);
                let removes = order.is_some_and(|order| order.verb == OrderVerb::Drop);
                self.untold.removed += if removes { mails.len() as u64 } else { 0 };
            }
            Fact::Inserted { origin: Origin::BounceOf(_), .. } => self.untold.bounces += 1,
            Fact::Inserted { origin: Origin::WarningOf(_), .. } => self.untold.warnings += 1,
            Fact::Inserted { origin: Origin::ReportOf(_), .. } => self.untold.reports += 1,
            Fact::Told { id, done: true } if self.commit == Some(id) => {
                facts.recorded.delivered += std::mem::take(&mut self.untold.delivered);
                facts.recorded.bounces += std::mem::take(&mut self.untold.bounces);
                facts.recorded.warnings += std::mem::take(&mut self.untold.warnings);
                facts.recorded.reports += std::mem::take(&mut self.untold.reports);
            }
            Fact::Told { id, done: true } if self.step == Some(id) => {
                facts.recorded.removed += std::mem::take(&mut self.untold.removed);
            }
            Fact::Told { done: false, .. } => facts.store_errors += 1,
            Fact::Connecting { purpose: Purpose::Smtp, .. } => facts.connecting += 1,
            Fact::Command { link, verb: Verb::Mail, .. } => {
                facts.used.insert(link);
                facts.transactions_begun += 1;
            }
            Fact::Accepted { recipients, .. } => facts.accepted += recipients.len() as u64,
            Fact::Called { tally: Some(tally), .. } => return facts.compare(tally),
            _ => {}
        }
        Ok(())
    }
}
