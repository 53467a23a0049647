//! Mail that the database cannot process for now, although it processes other mail.
//!
//! The reason is a trigger or a foreign key of another program, or a damaged page. An immediate retry would not help, and must
//! not hold up other mail. So such mail is left alone for a while, longer each time.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::books::Books;
use crate::attempt::{Acceptance, Attempt};
use crate::event::Level;
use crate::outbox::{DeliveredMail, FailedAttempt, MailId, Refused};
use crate::queue::QueueState;
use crate::time::{Duration, Instant};

/// Length of the first pause. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// Length of the longest pause. An administrator who has repaired the database need not wait for it: an order to try everything
/// ends all pauses.
const LAST_PAUSE: Duration = Duration::from_secs(3600);
/// With this many verdicts waiting to be recorded, those that were refused before have to wait.
const RETRY_BACKLOG_LIMIT: usize = 1000;

/// The work that is to be tried again.
#[derive(Clone, Debug)]
pub(super) enum Undone {
    /// A server has taken the mail, but its row is still in the outbox.
    Deletion {
        /// True if the database has noted it, so that the mail is not sent again after a restart either.
        is_noted: bool,
        /// The attempt that delivered it; unknown if an earlier process did.
        attempt: Option<Attempt<Acceptance>>,
        /// True if its sender is to be told of it.
        is_reported: bool,
    },
    /// A failed attempt could not be recorded.
    Record(FailedAttempt),
    /// The mail is given up, but its row is still in the outbox.
    Bounce,
    /// The row could not be read to be sent.
    Reading,
    /// The row, or those around it, could not be read to be indexed.
    Indexing,
}

#[derive(Debug)]
struct SetAsideMail {
    undone: Undone,
    pause: Duration,
    /// When to try again; `None` while that is under way.
    at: Option<Instant>,
}

impl SetAsideMail {
    /// Whether the database holds the mail until its verdict is recorded. Of what an earlier process has delivered it holds nothing.
    fn awaits_verdict(&self) -> bool {
        match &self.undone {
            Undone::Deletion { attempt, .. } => attempt.is_some(),
            Undone::Record(_) => true,
            Undone::Bounce | Undone::Reading | Undone::Indexing => false,
        }
    }
}

/// The mail that is set aside.
#[derive(Debug, Default)]
pub(super) struct SetAside {
    entries: BTreeMap<MailId, SetAsideMail>,
    timers: BTreeSet<(Instant, MailId)>,
}

impl SetAside {
    /// Sets a mail aside. Returns for how long.
    fn put(&mut self, id: MailId, undone: Undone, now: Instant) -> Duration {
        let pause = self.entries.get(&id).map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LAST_PAUSE));
        self.end(id);
        let at = now + pause;
        self.entries.insert(id, SetAsideMail { undone, pause, at: Some(at) });
        self.timers.insert((at, id));
        pause
    }

    /// Sets a mail aside that is to be tried now.
    fn put_at_once(&mut self, id: MailId, undone: Undone, now: Instant) {
        self.end(id);
        self.entries.insert(id, SetAsideMail { undone, pause: FIRST_PAUSE / 2, at: Some(now) });
        self.timers.insert((now, id));
    }

    /// Returns whether a mail is set aside.
    pub(super) fn contains(&self, id: MailId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.at.is_some())
    }

    /// Returns until when a mail is left alone.
    pub(super) fn ends_at(&self, id: MailId) -> Option<Instant> {
        self.entries.get(&id)?.at
    }

    /// Forgets that a mail was set aside.
    pub(super) fn end(&mut self, id: MailId) {
        if let Some(at) = self.entries.remove(&id).and_then(|entry| entry.at) {
            self.timers.remove(&(at, id));
        }
    }

    /// Handles a row that was found and is not noted as taken. Returns whether its mail is still set aside.
    pub(super) fn found(&mut self, id: MailId) -> bool {
        match self.entries.get(&id) {
            // The note is gone, or its mail is to be sent again: the row holds other mail now, or a person has deleted the note.
            Some(SetAsideMail { undone: Undone::Deletion { is_noted: true, .. }, at: Some(_), .. })
            | Some(SetAsideMail { undone: Undone::Indexing, .. }) => {
                self.end(id);
                false
            }
            // The result of the deletion tells what the row holds.
            Some(SetAsideMail { undone: Undone::Deletion { .. }, .. }) => true,
            Some(SetAsideMail { at, .. }) => at.is_some(),
            None => false,
        }
    }

    /// Ends all pauses.
    pub(super) fn end_pauses(&mut self, now: Instant) {
        self.timers.clear();
        for (&id, entry) in &mut self.entries {
            if entry.at.is_some() {
                entry.at = Some(now);
                self.timers.insert((now, id));
            }
        }
    }

    /// Returns when the first pause ends.
    fn next_retry(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    fn pop_due(&mut self, now: Instant) -> Option<(MailId, Undone)> {
        let (at, id) = self.timers.first().copied().filter(|&(at, _)| at <= now)?;
        self.timers.remove(&(at, id));
        let entry = self.entries.get_mut(&id)?;
        entry.at = None;
        Some((id, entry.undone.clone()))
    }

    /// Whether a verdict of this process on a mail is still to be recorded.
    pub(super) fn awaits_verdict(&self, id: MailId) -> bool {
        self.entries.get(&id).is_some_and(SetAsideMail::awaits_verdict)
    }

    /// Whether a server has taken a mail that could not be deleted.
    pub(super) fn was_delivered(&self, id: MailId) -> bool {
        self.entries.get(&id).is_some_and(|entry| matches!(entry.undone, Undone::Deletion { .. }))
    }

    /// Returns the mail that is set aside with a verdict that is still to be recorded.
    pub(super) fn with_verdicts(&self) -> impl Iterator<Item = MailId> {
        let entries = self.entries.iter().filter(|(_, entry)| entry.at.is_some() && entry.awaits_verdict());
        entries.map(|(&id, _)| id)
    }

    /// Returns the mail that was delivered without the database having noted it.
    pub(super) fn not_noted(&self) -> impl Iterator<Item = (MailId, Option<&Attempt<Acceptance>>)> {
        let mails = self.entries.iter().filter(|(_, entry)| entry.at.is_some());
        mails.filter_map(|(&id, entry)| match &entry.undone {
            Undone::Deletion { is_noted: false, attempt, .. } => Some((id, attempt.as_ref())),
            Undone::Deletion { .. }
            | Undone::Record(_)
            | Undone::Bounce
            | Undone::Reading
            | Undone::Indexing => None,
        })
    }

    /// Returns whether verdicts on mail that is still to be sent are not recorded.
    pub(super) fn has_unrecorded(&self) -> bool {
        let mut undone = self.entries.values().filter(|entry| entry.at.is_some());
        undone.any(|entry| matches!(entry.undone, Undone::Record(_) | Undone::Bounce))
    }
}

impl Books {
    /// Sets mail aside that the database refuses to process. A single pass is done with it.
    pub(super) fn set_aside(&mut self, refused: Refused, undone: Undone) {
        let Refused { id, text } = refused;
        if matches!(undone, Undone::Indexing) {
            return self.cannot_be_indexed(id, &text);
        }
        if !self.run.is_daemon() {
            self.note(Level::Error, text);
            return self.forget(id);
        }
        if let Undone::Record(attempt) = &undone
            && self.may_go_unrecorded(attempt)
        {
            self.note(Level::Error, format!("{text}; the mail is tried again as if it had not failed"));
            let state = self.ready_or_waiting(id);
            return self.requeue(id, state);
        }
        let pause = self.set_aside.put(id, undone, self.now.monotonic);
        self.note(Level::Error, format!("{text}; trying again in {}", shown(pause)));
        self.requeue(id, QueueState::SetAside);
    }

    /// Sets a row aside that cannot be indexed. Every scan finds it again, which says nothing new. If the mail is known, the
    /// connection or request that has it finds out.
    fn cannot_be_indexed(&mut self, id: MailId, text: &str) {
        if !self.set_aside.contains(id) {
            let pause = self.set_aside.put(id, Undone::Indexing, self.now.monotonic);
            self.note(Level::Error, format!("{text}; trying again in {}", shown(pause)));
        }
    }

    /// Returns whether to retry a mail although its failed attempt cannot be recorded. A mail that has failed permanently is not
    /// retried. All other mail waits for `retryinterval`, and until recording it has been tried again.
    fn may_go_unrecorded(&self, failed: &FailedAttempt) -> bool {
        let attempt = &failed.attempt;
        let rules = self.rules();
        let has_waited = rules.retries <= 1 || self.now.wall >= rules.due_by_interval(attempt.at);
        let was_tried_again = self.set_aside.entries.contains_key(&failed.id);
        was_tried_again && !attempt.is_fatal() && has_waited
    }

    /// Sets mail aside that was delivered before this process began, or that another program has noted as delivered.
    pub(super) fn set_aside_taken(&mut self, id: MailId) {
        let known = self.queue.find(id);
        if self.set_aside.entries.contains_key(&id)
            || known.is_some_and(|known| known.is_claimed())
            || !self.run.is_daemon()
        {
            return;
        }
        self.set_aside.put_at_once(
            id,
            Undone::Deletion { is_noted: true, attempt: None, is_reported: false },
            self.now.monotonic,
        );
        self.requeue(id, QueueState::SetAside);
    }

    /// Returns when the next pause ends. If many verdicts wait to be recorded, they come first.
    pub(super) fn next_set_aside(&self) -> Option<Instant> {
        let has_time = !self.is_draining() && self.commits.pending_count() < RETRY_BACKLOG_LIMIT;
        self.set_aside.next_retry().filter(|_| has_time)
    }

    /// Retries the work whose pause has ended.
    pub(super) fn retry_set_aside(&mut self) {
        while self.next_set_aside().is_some_and(|at| at <= self.now.monotonic)
            && let Some((id, undone)) = self.set_aside.pop_due(self.now.monotonic)
        {
            match undone {
                Undone::Deletion { attempt, is_reported, .. } => {
                    self.requeue(id, QueueState::Claimed);
                    self.commits.delivered(DeliveredMail { id, attempt, is_reported });
                }
                Undone::Record(attempt) => {
                    self.requeue(id, QueueState::Claimed);
                    self.commits.failed(attempt);
                }
                Undone::Bounce => self.requeue(id, QueueState::GivenUp),
                Undone::Reading => self.requeue(id, self.ready_or_waiting(id)),
                Undone::Indexing => self.scan.rescan.request(),
            }
        }
    }

    /// Sets a mail aside whose data cannot be read while it is sent. Its connection returns it soon.
    pub(super) fn mark_unreadable(&mut self, id: MailId, text: String) {
        let pause = self.set_aside.put(id, Undone::Reading, self.now.monotonic);
        let pause = shown(pause);
        self.note(
            Level::Error,
            format!("mail {id} cannot be read, so it is not sent: {text}; trying again in {pause}"),
        );
    }

    /// Returns an undecided mail to the queue. `tried` says whether its transaction had begun.
    pub(super) fn return_undecided(&mut self, id: MailId, tried: bool) {
        match (self.set_aside.contains(id), tried) {
            (true, _) if !self.run.is_daemon() => self.forget(id),
            (true, _) => self.requeue(id, QueueState::SetAside),
            (false, true) => self.requeue(id, QueueState::ReadyAgain),
            (false, false) => self.requeue(id, QueueState::Ready),
        }
    }

    /// Sets rows aside that the database refuses to read.
    pub(super) fn set_aside_unreadable(&mut self, unreadable: Vec<Refused>, undone: &Undone) {
        for refused in unreadable {
            self.set_aside(refused, undone.clone());
        }
    }
}

fn shown(pause: Duration) -> String {
    format!("{} min", pause.as_secs() / 60)
}
