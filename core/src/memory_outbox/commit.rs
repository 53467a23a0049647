//! Records verdicts.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use super::read::{failed_mail, grouped};
use super::{Flaw, Mail, MemoryOutbox, Stored, contents, is_same_mail, named};
use crate::bounce::{compose_ordered, needed_octets};
use crate::delay_warning::DelayWarnings;
use crate::dsn::DsnWishes;
use crate::hold::{Hold, HoldId};
use crate::outbox::{
    Charge, Commit, Committed, DeliveredMail, FailedAttempt, FailedMessage, FaillogRow, MailId, NewBounce,
    NewNotice, Refused, Replacement, Reported, Row, StoreReply, Warned,
};
use crate::relay_report::RelayReports;
use crate::time::UnixTime;

/// The outcomes of a commit.
#[derive(Debug, Default)]
struct Outcomes {
    attempted: Vec<MailId>,
    not_replaced: Vec<MailId>,
    changed: Vec<Row>,
    bounces: Vec<Vec<MailId>>,
    refused: Vec<Refused>,
    not_noted: Vec<MailId>,
    /// Mail whose sender is to be told that it is late.
    late: Vec<MailId>,
    reported: Vec<Reported>,
}

/// The row that is found where a verdict is to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The mail that the verdict is about, as far as is known.
    AsTold,
    /// That mail, but nothing can be recorded for it.
    Flawed(Flaw),
    /// Other mail.
    Changed,
    Gone,
}

impl MemoryOutbox {
    /// Returns what would be recorded of a commit, without what is refused and what is about mail that has changed: for simulators that
    /// judge a commit by the outbox from before it.
    pub fn recordable(&self, commit: &Commit) -> Commit {
        let is_recorded = |id: MailId, is_same| matches!(self.find(id, is_same), Found::AsTold | Found::Gone);
        let mut commit = commit.clone();
        commit.delivered.retain(|mail| is_recorded(mail.id, is_same_mail));
        commit.failed.retain(|failed| is_recorded(failed.id, is_same_attempt));
        commit.replaced.retain(|replacement| {
            replacement.originals.iter().all(|id| is_recorded(*id, is_same_attempt))
                && self.has_ids(replacement.bounce.as_ref().map_or(0, |bounce| bounce.recipients.len()))
        });
        commit
    }

    pub(super) fn commit(&mut self, commit: Commit) -> StoreReply {
        let mut outcomes = Outcomes::default();
        commit.flights.iter().for_each(|mark| self.flights.note(mark));
        self.note_policies(commit.policies);
        let mut ids: Vec<MailId> = commit.delivered.iter().map(|mail| mail.id).collect();
        ids.extend(commit.failed.iter().map(|attempt| attempt.id));
        ids.extend(commit.replaced.iter().flat_map(|replacement| &replacement.originals));
        let reports = commit.reports.as_deref();
        commit.delivered.iter().for_each(|mail| self.record_delivery(mail, reports, &mut outcomes));
        let warnings = commit.warnings;
        for attempt in commit.failed {
            self.record_failure(attempt, warnings.as_deref(), &mut outcomes);
        }
        let late = core::mem::take(&mut outcomes.late);
        let warned = warnings.map_or(Vec::new(), |warnings| self.warn(&warnings, &late));
        commit.replaced.into_iter().for_each(|replacement| self.replace(replacement, &mut outcomes));
        let told = warned.iter().map(|warned| warned.warning);
        let told = told.chain(outcomes.reported.iter().map(|reported| reported.report));
        for id in told.chain(outcomes.bounces.iter().flatten().copied()) {
            if let Some(stored) = self.mails.get_mut(&id) {
                stored.mail.wishes.message.sign = commit.own_mark;
            }
        }
        // A refused verdict is tried again, and must then be about the same mail.
        ids.retain(|id| !outcomes.refused.iter().any(|refused| refused.id == *id));
        for id in ids {
            self.held.remove(&id);
        }
        let Outcomes { attempted, not_replaced, changed, bounces, refused, not_noted, late: _, reported } =
            outcomes;
        let failed = attempted.into_iter().filter_map(|id| Some(self.mail(id)?.row(id))).collect();
        StoreReply::Committed(Committed {
            failed,
            not_replaced,
            changed,
            bounces,
            refused,
            not_noted,
            warned,
            reported,
            is_unmarked: false,
            lacks_policies: false,
        })
    }

    fn record_delivery(
        &mut self,
        delivered: &DeliveredMail,
        reports: Option<&RelayReports>,
        outcomes: &mut Outcomes,
    ) {
        let id = delivered.id;
        match self.find_or_tell(id, is_same_mail, outcomes) {
            Found::AsTold => {
                let mail = self.mails.remove(&id).map(|stored| stored.mail);
                self.taken.remove(&id);
                let report =
                    mail.zip(reports).and_then(|(mail, reports)| self.report(delivered, &mail, reports));
                outcomes.reported.extend(report.map(|report| Reported { original: id, report }));
            }
            Found::Flawed(flaw) => {
                outcomes.refused.extend(self.refuse(id, "the delivery"));
                match self.mail(id).filter(|_| flaw == Flaw::Unrecordable).map(contents) {
                    Some(mail) => drop(self.taken.insert(id, mail)),
                    None => outcomes.not_noted.push(id),
                }
            }
            Found::Changed | Found::Gone => drop(self.taken.remove(&id)),
        }
    }

    /// Tells the sender of delivered mail, where that is wanted.
    fn report(&mut self, delivered: &DeliveredMail, mail: &Mail, reports: &RelayReports) -> Option<MailId> {
        let attempt = delivered.attempt.as_ref().filter(|_| delivered.is_reported && self.has_ids(1))?;
        let message = told_by_its_header(&[(delivered.id, mail)])?;
        let NewNotice { recipient, data } = reports.report(attempt, &message)?;
        Some(self.add_notice(recipient, data, reports.now))
    }

    fn record_failure(
        &mut self,
        failed: FailedAttempt,
        warnings: Option<&DelayWarnings>,
        outcomes: &mut Outcomes,
    ) {
        let FailedAttempt { id, attempt, charge, line: _ } = &failed;
        let id = *id;
        match self.find_or_tell(id, is_same_attempt, outcomes) {
            Found::AsTold => {
                if let Some(stored) = self.mails.get_mut(&id) {
                    outcomes.attempted.push(id);
                    match charge {
                        Charge::Counts => {}
                        Charge::Early => return,
                        Charge::Holds => {
                            stored.mail.hold = stored.mail.hold.by(HoldId::UNCERTAIN);
                            return;
                        }
                    }
                    let text = failed.text().into_bytes().into();
                    let tried_before = stored.mail.faillog.iter().map(|attempt| attempt.time).max();
                    let row = FaillogRow { time: attempt.at, text, fatal: attempt.is_fatal() };
                    stored.mail.faillog.push(row);
                    stored.mail.last_failure = Some((attempt.at, attempt.facts().into()));
                    let row = stored.mail.row(id);
                    if warnings.is_some_and(|warnings| warnings.is_due(tried_before, &row)) {
                        outcomes.late.push(id);
                    }
                }
            }
            Found::Flawed(_) => outcomes.refused.extend(self.refuse(id, "a failed attempt")),
            Found::Changed | Found::Gone => {}
        }
    }

    fn replace(&mut self, replacement: Replacement, outcomes: &mut Outcomes) {
        let Replacement { originals, expired: _, bounce } = replacement;
        let (mut whole, mut flawed, mut lost) = (Vec::new(), Vec::new(), 0);
        for &id in &originals {
            match self.find_or_tell(id, is_same_attempt, outcomes) {
                Found::AsTold => whole.push(id),
                Found::Flawed(_) => flawed.push(id),
                Found::Changed | Found::Gone => lost += 1,
            }
        }
        if lost > 0 {
            outcomes
                .not_replaced
                .extend(originals.iter().filter(|id| whole.contains(id) || flawed.contains(id)));
            return outcomes.bounces.push(Vec::new());
        }
        // If no id is left for the bounce, none of its originals is deleted.
        if !self.has_ids(bounce.as_ref().map_or(0, |bounce| bounce.recipients.len())) {
            flawed.append(&mut whole);
        }
        if !flawed.is_empty() {
            outcomes.refused.extend(flawed.into_iter().filter_map(|id| self.refuse(id, "the bounce")));
            outcomes.not_replaced.append(&mut whole);
            return outcomes.bounces.push(Vec::new());
        }
        for id in originals {
            self.mails.remove(&id);
        }
        let inserted = bounce.map_or(Vec::new(), |bounce| self.add_bounce(&bounce));
        outcomes.bounces.push(inserted);
    }

    /// Tells the senders of late mail, once for each message.
    fn warn(&mut self, warnings: &DelayWarnings, late: &[MailId]) -> Vec<Warned> {
        let mails: Vec<(MailId, &Mail)> = late.iter().filter_map(|id| Some((*id, self.mail(*id)?))).collect();
        let messages: Vec<(Vec<MailId>, FailedMessage)> = grouped(&mails, usize::MAX)
            .into_iter()
            .filter_map(|group| {
                Some((group.iter().map(|(id, _)| *id).collect(), told_by_its_header(&group)?))
            })
            .collect();
        let mut warned = Vec::new();
        for (originals, message) in messages {
            let Some(NewNotice { recipient, data }) = warnings.warning(&message) else { continue };
            if self.has_ids(1) {
                let warning = self.add_notice(recipient, data, warnings.terms.now);
                warned.push(Warned { originals, warning });
            }
        }
        warned
    }

    /// Adds mail of our own.
    fn add_notice(&mut self, recipient: Bytes, data: Bytes, now: UnixTime) -> MailId {
        let (remote, sender, faillog, last_failure) = (None, None, Vec::new(), None);
        let hold = Hold::default();
        let wishes = DsnWishes::default();
        self.add(Mail {
            remote,
            sender,
            recipient,
            submission: now,
            data,
            faillog,
            last_failure,
            hold,
            wishes,
        })
    }

    fn add_bounce(&mut self, bounce: &NewBounce) -> Vec<MailId> {
        let Some(data) = compose_ordered(&bounce.order) else { return Vec::new() };
        let now = bounce.order.now;
        let recipients = bounce.recipients.iter().cloned();
        recipients.map(|recipient| self.add_notice(recipient, data.clone(), now)).collect()
    }

    /// Returns the row that is found where a verdict is to be recorded.
    fn find(&self, id: MailId, is_same: fn(&Mail, &Mail) -> bool) -> Found {
        let Some(Stored { mail, flaw }) = self.mails.get(&id) else { return Found::Gone };
        let is_changed = match self.held.get(&id) {
            Some(before) => !is_same(before, mail),
            // Of what an earlier process has sent nothing is known but the note.
            None => self.taken.contains_key(&id) && !self.is_taken(id),
        };
        match flaw {
            _ if is_changed => Found::Changed,
            Some(flaw @ (Flaw::Unrecordable | Flaw::Unnotable)) => Found::Flawed(*flaw),
            Some(Flaw::Unreadable | Flaw::DataUnreadable) | None => Found::AsTold,
        }
    }

    /// Does the same, and reports other mail as changed.
    fn find_or_tell(&self, id: MailId, is_same: fn(&Mail, &Mail) -> bool, outcomes: &mut Outcomes) -> Found {
        let found = self.find(id, is_same);
        if found == Found::Changed {
            outcomes.changed.extend(self.mail(id).map(|mail| mail.row(id)));
        }
        found
    }

    fn refuse(&self, id: MailId, what: &str) -> Option<Refused> {
        let text = format!(
            "{what} of {} cannot be recorded in the outbox in memory, because the mail was made so, or no id is left",
            named(id, self.mail(id)?)
        );
        Some(Refused { id, text })
    }
}

/// Returns a message of which only the header section is told.
fn told_by_its_header(group: &[(MailId, &Mail)]) -> Option<FailedMessage> {
    let data = &group.first()?.1.data;
    let data_octets = data.len() as u64;
    let needed = usize::try_from(needed_octets(data, data_octets, 0)).unwrap_or(usize::MAX);
    let original = data.slice(..needed.min(data.len()));
    Some(FailedMessage { mails: group.iter().copied().map(failed_mail).collect(), data_octets, original })
}

/// Returns whether two rows have the same message for the same recipient, to be sent to the same place.
fn is_same_attempt(one: &Mail, other: &Mail) -> bool {
    is_same_mail(one, other) && one.remote == other.remote
}
