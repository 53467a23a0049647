//! Verdicts on their way into the database.
//!
//! One commit is under way at a time. Verdicts that arrive meanwhile go together into the next one, so an idle database records
//! at once, and a busy one in groups.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::books::Books;
use super::deliveries::Flights;
use super::requests::Asked;
use super::set_aside::{SetAside, Undone};
use crate::attempt::{Attempt, AttemptKind, Failure};
use crate::course::Course;
use crate::delay_warning::DelayWarnings;
use crate::event::{Event, FailureKind, Level, MailFacts};
use crate::flight::Uncertain;
use crate::outbox::{
    Charge, Commit, Committed, DeliveredMail, FailedAttempt, MailId, PolicyNote, Refused, Replacement,
    Reported, Row, StoreError, StoreRequest, Warned,
};
use crate::queue::QueueState;
use crate::relay_report::RelayReports;
use crate::schedule::{NextTry, Outlook, RetryState, RetryTerms};
use crate::shown::{ShownAddress, shortened_octets};
use crate::sts::StoredPolicy;
use crate::tally::Fate;
use crate::time::{Duration, Instant, UnixTime};

/// Delay before a commit is repeated that the database refused.
const COMMIT_RETRY: Duration = Duration::from_secs(1);
/// The same during a drain, when little time is left.
const LAST_COMMIT_RETRY: Duration = Duration::from_millis(250);
/// Most mails that one message names.
const NAMED_LIMIT: usize = 20;
/// With more pending verdicts than this, no mail is claimed.
const PENDING_LIMIT: usize = 10_000;
/// With pending attempts of more octets than this, no mail is claimed either: replies of servers may be long.
const PENDING_LIMIT_OCTETS: usize = 32 * 1024 * 1024;
/// With this many mails delivered but not recorded, no transaction begins until a commit is complete. If the process is killed,
/// these are sent again, and those in flight at that moment: one message for each connection. A commit takes about as long as it
/// takes to send a few hundred messages, so a limit of this size delays nothing while the disk works well.
pub(super) const TAKEN_LIMIT: usize = 500;

/// Verdicts that are not durable yet.
#[derive(Debug)]
pub(super) struct PendingCommits {
    pending: Commit,
    /// The approximate size of the attempts in `pending`.
    pending_octets: usize,
    /// The commit that the database works on, kept in case it refuses.
    in_flight: Option<Commit>,
    /// When the database is asked again, if it refused the last commit. Until it takes one, nothing begins.
    retry_at: Option<Instant>,
    /// The recipients of replaced mail, for the log.
    recipients: BTreeMap<MailId, Box<str>>,
}

impl PendingCommits {
    pub(super) fn new() -> Self {
        Self {
            pending: Commit::default(),
            pending_octets: 0,
            in_flight: None,
            retry_at: None,
            recipients: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_none()
    }

    /// Returns whether so much is pending, or the database is in such trouble, that nothing may begin whose outcome could not be
    /// recorded.
    pub(super) fn is_congested(&self) -> bool {
        self.retry_at.is_some()
            || self.pending_count() > PENDING_LIMIT
            || self.pending_octets > PENDING_LIMIT_OCTETS
    }

    /// Returns how many mails servers may take before the next commit must be complete; 0 while the database is in trouble.
    pub(super) fn room_for_taken(&self) -> usize {
        if self.retry_at.is_some() {
            return 0;
        }
        let in_flight = self.in_flight.as_ref().map_or(0, |commit| commit.delivered.len());
        TAKEN_LIMIT.saturating_sub(self.pending.delivered.len() + in_flight)
    }

    pub(super) fn pending_count(&self) -> usize {
        self.pending.delivered.len() + self.pending.failed.len() + self.pending.replaced.len()
    }

    /// Returns when the commit is to be repeated, if none is under way.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.filter(|_| self.in_flight.is_none())
    }

    /// Returns the replacements of given-up mail that are still to be recorded.
    pub(super) fn replaced(&self) -> impl Iterator<Item = &Replacement> {
        self.all().flat_map(|commit| &commit.replaced)
    }

    /// Returns the mail with a failed attempt that is still to be recorded.
    pub(super) fn failing(&self) -> impl Iterator<Item = MailId> {
        self.all().flat_map(|commit| &commit.failed).map(|attempt| attempt.id)
    }

    /// Returns all mail with something to record.
    pub(super) fn mails(&self) -> impl Iterator<Item = MailId> {
        self.all().flat_map(Commit::ids)
    }

    /// Returns whether a commit is under way.
    pub(super) fn is_committing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Returns what is to be recorded.
    pub(super) fn all(&self) -> impl Iterator<Item = &Commit> {
        [Some(&self.pending), self.in_flight.as_ref()].into_iter().flatten()
    }

    pub(super) fn delivered(&mut self, mail: DeliveredMail) {
        self.pending_octets += mail.attempt.as_ref().map_or(0, |attempt| attempt.facts().octets());
        self.pending.delivered.push(mail);
    }

    pub(super) fn failed(&mut self, failed: FailedAttempt) {
        self.pending_octets += failed.attempt.facts().octets();
        self.pending.failed.push(failed);
    }

    /// Records something about a policy, instead of the same of before: while the database refuses commits, it may come again and again.
    pub(super) fn note_policy(&mut self, note: PolicyNote) {
        let is_same = |other: &PolicyNote| match (other, &note) {
            (PolicyNote::Fetched(other), PolicyNote::Fetched(policy)) => other.domain == policy.domain,
            (PolicyNote::Used(other, _), PolicyNote::Used(domain, _)) => other == domain,
            (PolicyNote::Fetched(_), PolicyNote::Used(..))
            | (PolicyNote::Used(..), PolicyNote::Fetched(_)) => false,
        };
        self.pending.policies.retain(|other| !is_same(other));
        self.pending.policies.push(note);
    }

    /// Returns the policies that the commit under way is to store.
    pub(super) fn policies_in_flight(&self) -> Vec<StoredPolicy> {
        let notes = self.in_flight.iter().flat_map(|commit| &commit.policies);
        let stored = |note: &PolicyNote| match note {
            PolicyNote::Fetched(stored) => Some(stored.clone()),
            PolicyNote::Used(..) => None,
        };
        notes.filter_map(stored).collect()
    }

    /// Takes the next commit.
    fn take_pending(&mut self) -> Commit {
        self.pending_octets = 0;
        core::mem::take(&mut self.pending)
    }

    /// Records a replacement. `recipients` are those of the originals, in their order.
    pub(super) fn replace(&mut self, replacement: Replacement, recipients: Vec<Box<str>>) {
        self.recipients.extend(replacement.originals.iter().copied().zip(recipients));
        self.pending.replaced.push(replacement);
    }

    /// Returns what an administrator must know if the program ends now: verdicts that the database has not recorded. A commit
    /// under way may still succeed, so the text asserts nothing.
    pub(super) fn unrecorded(&self, set_aside: &SetAside) -> Option<String> {
        let delivered: Vec<String> = self
            .all()
            .flat_map(|commit| commit.delivered.iter().map(|mail| (mail.id, mail.attempt.as_ref())))
            .chain(set_aside.not_noted())
            .map(|(id, attempt)| match attempt {
                Some(attempt) => format!("{id} to <{}>", attempt.recipient.as_str()),
                None => id.to_string(),
            })
            .collect();
        if delivered.is_empty() {
            return (!self.is_empty() || set_aside.has_unrecorded())
                .then(|| "failed attempts or bounces may not be recorded; such mail is tried again".into());
        }
        let named = delivered.iter().take(NAMED_LIMIT).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = delivered.len().saturating_sub(NAMED_LIMIT);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        Some(format!(
            "{} mails were delivered, but the database has not recorded it; those still in it will be sent again: {named}{more}",
            delivered.len()
        ))
    }

    /// Schedules the refused commit again. Its verdicts come before later ones.
    fn retry_in_flight(&mut self, retry_at: Instant) {
        let Some(mut refused) = self.in_flight.take() else { return };
        self.pending_octets += refused.attempts().map(|attempt| attempt.octets()).sum::<usize>();
        // What is to be noted of flights is found anew.
        refused.flights.clear();
        refused.delivered.append(&mut self.pending.delivered);
        refused.failed.append(&mut self.pending.failed);
        refused.replaced.append(&mut self.pending.replaced);
        refused.policies.append(&mut self.pending.policies);
        self.pending = refused;
        self.retry_at = Some(retry_at);
    }
}

impl Books {
    /// Records a failed attempt. `next_hop` is set if all mail for that next hop has failed. An early attempt, one that the
    /// administrator has ordered, does not bring the mail closer to its end.
    pub(super) fn record_failure(
        &mut self,
        id: MailId,
        recipient: ShownAddress,
        next_hop: Option<Box<str>>,
        course: Option<Arc<Course>>,
        failure: Failure,
    ) {
        let is_held =
            failure.kind() == AttemptKind::Uncertain && self.config.settings.uncertain == Uncertain::Hold;
        let (kind, charge) = match self.attempts.end_order(id) {
            _ if is_held => (FailureKind::Held, Charge::Holds),
            _ if failure.is_fatal() => (FailureKind::Permanent, Charge::Counts),
            Some(_) => (FailureKind::Early, Charge::Early),
            None => (FailureKind::Temporary, Charge::Counts),
        };
        let attempt = Attempt { at: self.now.wall, recipient, course, result: failure };
        self.outlet.tally.count_attempt(&attempt.facts());
        let facts = self.store.held.facts(id);
        self.attempts.tried(id, self.now.monotonic);
        let outlook = self.outlook(id, &attempt, charge);
        self.event(Event::Failed { id, next_hop, attempt: attempt.clone(), kind, outlook, facts });
        let line = outlook.and_then(|outlook| outlook.line);
        self.commits.failed(FailedAttempt { id, attempt, charge, line });
    }

    /// Returns what becomes of a mail after a failed attempt, unless another program changes it before that is recorded.
    fn outlook(&self, id: MailId, attempt: &Attempt<Failure>, charge: Charge) -> Option<Outlook> {
        let mut row = self.store.held.row(id)?.clone();
        match charge {
            Charge::Counts => {
                row.fail_count = row.fail_count.saturating_add(1);
                row.last_try = attempt.at;
                row.fatal |= attempt.is_fatal();
                row.last_failure = Some(attempt.facts().into());
            }
            Charge::Early => {}
            Charge::Holds => return Some(Outlook { next: NextTry::Held, line: None }),
        }
        let line = self.rules().line_about(&row).map(|line| line.line);
        let after = |due: UnixTime| NextTry::At(self.wait_end(id).map_or(due, |rested| due.max(rested)));
        Some(match self.retry_state_of(&row) {
            RetryState::Held(_) => Outlook { next: NextTry::Held, line: None },
            RetryState::GivenUp => Outlook { next: NextTry::Never, line },
            RetryState::Due => Outlook { next: after(self.now.wall), line },
            RetryState::NotBefore(due) => Outlook { next: after(due), line },
        })
    }

    /// Sends the pending verdicts to the database, and what is to be noted of flights, unless a commit is under way.
    ///
    /// After a refusal it sends a commit even if nothing is left of the refused one, as where that was to note mail of a connection that
    /// has ended since: only a commit that the database takes lets other mail begin again.
    pub(super) fn commit(&mut self, flights: &mut Flights) {
        if self.commits.in_flight.is_some() {
            return;
        }
        let has_something =
            !self.commits.pending.is_empty() || flights.has_marks() || self.store.suspects.has_marks();
        let is_due = self.commits.retry_at.map_or(has_something, |at| at <= self.now.monotonic);
        if !is_due {
            return;
        }
        let mut commit = self.commits.take_pending();
        commit.warnings = if commit.failed.is_empty() { None } else { self.delay_warnings() };
        commit.reports = self.relay_reports(&commit.delivered);
        commit.own_mark = self.config.own_mark();
        commit.flights = flights.take_marks();
        commit.flights.extend(self.store.suspects.marks());
        self.commits.in_flight = Some(commit.clone());
        self.ask(StoreRequest::Commit(commit), Asked::Commit);
    }

    pub(super) fn commit_failed(&mut self, error: &StoreError) {
        self.note(Level::Error, format!("cannot record what became of mail, trying again: {error}"));
        let pause = if self.is_draining() { LAST_COMMIT_RETRY } else { COMMIT_RETRY };
        self.commits.retry_in_flight(self.now.monotonic + pause);
    }

    pub(super) fn committed(&mut self, answer: Committed) {
        let Committed {
            failed,
            not_replaced,
            changed,
            bounces,
            refused,
            not_noted,
            warned,
            reported,
            is_unmarked: _,
            lacks_policies: _,
        } = answer;
        let not_replaced = BTreeSet::from_iter(not_replaced);
        self.commits.retry_at = None;
        let Some(mut commit) = self.commits.in_flight.take() else { return };
        self.set_refused_aside(&mut commit, refused, &not_noted.into_iter().collect());
        let given_up = commit.replaced.iter().flat_map(|replacement| &replacement.originals);
        let mut facts: BTreeMap<MailId, MailFacts> =
            given_up.map(|id| (*id, self.store.held.facts(*id))).collect();
        // A pass delivers what was there when it began.
        let has_told = !(warned.is_empty() && reported.is_empty()) && self.run.is_daemon();
        self.tell_warned(warned, &commit.failed);
        self.tell_reported(&reported, &commit.delivered);
        commit.flights.iter().for_each(|mark| self.store.suspects.recorded(mark.flight));
        commit.ids().for_each(|id| self.store.held.end_by_verdict(id));
        let is_other: BTreeSet<MailId> = changed.iter().map(|row| row.id).collect();
        for DeliveredMail { id, attempt, .. } in commit.delivered {
            if attempt.is_some() && !is_other.contains(&id) {
                self.outlet.tally.mails.add(Fate::Delivered);
            }
            self.store.suspects.forget(id);
            self.forget(id);
        }
        let mut unanswered: BTreeSet<MailId> = commit.failed.iter().map(|attempt| attempt.id).collect();
        // A one-shot pass makes one attempt for each mail.
        let rows = if self.run.is_daemon() { failed } else { Vec::new() };
        for row in rows {
            unanswered.remove(&row.id);
            self.set_aside.end(row.id);
            let queue_state = self.queue_state_of(row.id, self.retry_state_of(&row));
            self.requeue(row.id, queue_state);
        }
        for id in unanswered {
            // It is gone, or this pass is done with it.
            if self.queue.find(id).is_some_and(|known| known.is_claimed()) {
                self.forget(id);
            }
        }
        let made_bounces = commit.replaced.iter().any(|replacement| replacement.bounce.is_some());
        // If the answer says nothing of a replacement, it made no bounce.
        let bounces = bounces.into_iter().chain(core::iter::repeat_with(Vec::new));
        for (replacement, bounces) in commit.replaced.into_iter().zip(bounces) {
            self.tell_replaced(&replacement, &bounces, &not_replaced, &mut facts);
            for id in replacement.originals {
                if not_replaced.contains(&id) {
                    self.requeue(id, QueueState::GivenUp);
                } else {
                    self.store.suspects.forget(id);
                    self.forget(id);
                }
            }
        }
        changed.iter().for_each(|row| self.take_as_new(row));
        if made_bounces || has_told {
            self.scan_new();
        }
    }

    /// Takes mail for new that another program has changed while it was worked on.
    fn take_as_new(&mut self, row: &Row) {
        let id = row.id;
        let recipient = shortened_octets(&row.recipient);
        self.note(
            Level::Warning,
            format!(
                "mail {id} to <{recipient}> was changed by another program while it was worked on: what became of it as it was is not \
                 recorded, and as it is now it is new mail"
            ),
        );
        self.attempts.end_order(id);
        self.set_aside.end(id);
        self.store.suspects.forget(id);
        self.attempts.tried(id, self.now.monotonic);
        self.reindex_row(row);
    }

    /// Returns how the senders of late mail are told, if they are.
    fn delay_warnings(&mut self) -> Option<Box<DelayWarnings>> {
        let schedule = &self.config.settings.schedule;
        if schedule.delay_warnings.is_empty() {
            return None;
        }
        Some(Box::new(DelayWarnings {
            ages: Arc::clone(&schedule.delay_warnings),
            announce: Arc::clone(&self.bounces.announce),
            bounce_from: Arc::clone(&self.bounces.from),
            terms: RetryTerms::of(schedule, self.now.wall),
            seed: self.bounces.draw_seed(),
        }))
    }

    /// Returns how the senders of delivered mail are told of it, if one of them is.
    fn relay_reports(&mut self, delivered: &[DeliveredMail]) -> Option<Box<RelayReports>> {
        if !delivered.iter().any(|mail| mail.is_reported) {
            return None;
        }
        Some(Box::new(RelayReports {
            announce: Arc::clone(&self.bounces.announce),
            bounce_from: Arc::clone(&self.bounces.from),
            now: self.now.wall,
            seed: self.bounces.draw_seed(),
        }))
    }

    /// Reports which senders were told that their mail was delivered.
    fn tell_reported(&mut self, reported: &[Reported], delivered: &[DeliveredMail]) {
        if reported.is_empty() {
            return;
        }
        let recipient_of = |mail: &DeliveredMail| Some((mail.id, mail.attempt.as_ref()?.recipient.clone()));
        let recipients: BTreeMap<MailId, ShownAddress> = delivered.iter().filter_map(recipient_of).collect();
        for Reported { original, report } in reported {
            self.outlet.tally.reports.count_relay_report();
            let recipient = recipients.get(original).map(ShownAddress::as_str).unwrap_or_default().into();
            let (id, report, facts) = (*original, *report, self.store.held.facts(*original));
            self.event(Event::Relayed { id, recipient, report, facts });
        }
    }

    /// Reports which senders were told that their mail is late.
    fn tell_warned(&mut self, warned: Vec<Warned>, failed: &[FailedAttempt]) {
        if warned.is_empty() {
            return;
        }
        let recipients: BTreeMap<MailId, &ShownAddress> =
            failed.iter().map(|failed| (failed.id, &failed.attempt.recipient)).collect();
        for Warned { originals, warning } in warned {
            self.outlet.tally.reports.count_delay_warning();
            for id in originals {
                let recipient = recipients.get(&id).map(|recipient| recipient.as_str()).unwrap_or_default();
                let (recipient, facts) = (recipient.into(), self.store.held.facts(id));
                self.event(Event::Warned { id, recipient, warning, facts });
            }
        }
    }

    /// Reports what became of given-up mail. If nothing was recorded, it reports nothing.
    fn tell_replaced(
        &mut self,
        replacement: &Replacement,
        bounces: &[MailId],
        not_replaced: &BTreeSet<MailId>,
        facts: &mut BTreeMap<MailId, MailFacts>,
    ) {
        let to = replacement.bounce.iter().flat_map(|bounce| &bounce.recipients);
        let to = to.map(|recipient| shortened_octets(recipient).into());
        let told: Vec<(MailId, Box<str>)> = bounces.iter().copied().zip(to).collect();
        let is_done = !told.is_empty() || replacement.bounce.is_none();
        self.outlet.tally.reports.count_bounces(bounces.len());
        for &id in &replacement.originals {
            let recipient = self.commits.recipients.remove(&id).unwrap_or_default();
            if !is_done || not_replaced.contains(&id) {
                continue;
            }
            let facts = facts.remove(&id).unwrap_or_default();
            self.outlet.tally.mails.add(replacement.fate(id));
            let expired = replacement.expired(id);
            self.event(match &replacement.bounce {
                Some(_) => Event::Bounced { id, recipient, bounces: told.clone(), expired, facts },
                None => Event::Dropped { id, recipient, expired, facts },
            });
        }
    }

    /// Sets mail aside whose verdict the database refused, and removes it from the commit.
    fn set_refused_aside(
        &mut self,
        commit: &mut Commit,
        refused: Vec<Refused>,
        not_noted: &BTreeSet<MailId>,
    ) {
        if refused.is_empty() {
            return;
        }
        let mut refused: BTreeMap<MailId, Refused> =
            refused.into_iter().map(|refused| (refused.id, refused)).collect();
        for mail in core::mem::take(&mut commit.delivered) {
            match refused.remove(&mail.id) {
                Some(refused) => {
                    let is_noted = !not_noted.contains(&mail.id);
                    let DeliveredMail { attempt, is_reported, .. } = mail;
                    self.set_aside(refused, Undone::Deletion { is_noted, attempt, is_reported });
                }
                None => commit.delivered.push(mail),
            }
        }
        for attempt in core::mem::take(&mut commit.failed) {
            match refused.remove(&attempt.id) {
                Some(refused) => self.set_aside(refused, Undone::Record(attempt)),
                None => commit.failed.push(attempt),
            }
        }
        for replacement in &mut commit.replaced {
            replacement.originals.retain(|id| !refused.contains_key(id));
        }
        for refused in refused.into_values() {
            self.commits.recipients.remove(&refused.id);
            self.set_aside(refused, Undone::Bounce);
        }
    }
}
