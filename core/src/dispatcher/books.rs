//! What the dispatcher knows of mail, and what it has asked the database and told its executor.
//!
//! Nothing here knows of connections. Mail that becomes ready is found by the deliveries in the [`Queue`].

use alloc::collections::VecDeque;
use alloc::string::String;

use super::attempts::Attempts;
use super::bounces::Bounces;
use super::check::OpenRequests;
use super::intake::Intake;
use super::ledger::Ledger;
use super::requests::{Asked, Requests};
use super::set_aside::SetAside;
use super::{Mode, Progress, Summary, TimeoutReason};
use crate::event::{Event, Level};
use crate::io::Output;
use crate::outbox::StoreRequest;
use crate::queue::Queue;
use crate::rng::Rng;
use crate::schedule::RetryRules;
use crate::settings::Settings;
use crate::time::{Instant, Now};

/// Mail, from the row to the commit.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) now: Now,
    pub(super) settings: Settings,
    pub(super) mode: Mode,
    pub(super) progress: Progress,
    pub(super) rules: RetryRules,
    pub(super) queue: Queue,
    pub(super) intake: Intake,
    pub(super) attempts: Attempts,
    pub(super) set_aside: SetAside,
    pub(super) bounces: Bounces,
    pub(super) ledger: Ledger,
    pub(super) requests: Requests,
    pub(super) outlet: Outlet,
}

/// What the executor is told.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    outputs: VecDeque<Output>,
    summary: Summary,
}

impl Outlet {
    pub(super) fn push(&mut self, output: Output) {
        if let Output::Event(event) = &output {
            self.summary.count(event);
        }
        self.outputs.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn summary(&self) -> Summary {
        self.summary
    }
}

impl Books {
    pub(super) fn new(now: Now, settings: Settings, mode: Mode, key_basis: u64, bounces: Rng) -> Self {
        let rules = RetryRules::of(&settings);
        Self {
            now,
            mode,
            progress: Progress::Working,
            rules,
            queue: Queue::new(),
            intake: Intake::new(now.monotonic, key_basis),
            attempts: Attempts::new(rules.rest(&settings)),
            set_aside: SetAside::default(),
            bounces: Bounces::new(&settings, bounces),
            ledger: Ledger::new(),
            requests: Requests::default(),
            outlet: Outlet::default(),
            settings,
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.progress != Progress::Working
    }

    pub(super) fn output(&mut self, output: Output) {
        self.outlet.push(output);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.output(Output::Event(event));
    }

    pub(super) fn note(&mut self, level: Level, text: String) {
        self.event(Event::Note { level, text });
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self) {
        self.take_in_arrived();
        if self.intake.next_look() <= self.now.monotonic && !self.intake.is_looking() {
            self.look();
        }
        self.walk();
        self.wake_mail();
        self.wake_set_aside();
    }

    /// Returns when something is due, and why.
    pub(super) fn timeouts(&self) -> [(Option<Instant>, TimeoutReason); 7] {
        let is_working = !self.is_draining();
        let now = |is_due: bool| (is_working && is_due).then_some(self.now.monotonic);
        let look = (is_working && !self.intake.is_looking()).then(|| self.intake.next_look());
        let due = self.queue.next_wake().filter(|_| is_working).map(|time| self.now.when(time));
        [
            (now(self.intake.has_arrived()), TimeoutReason::Look),
            (look, TimeoutReason::Look),
            (self.walk_due(), TimeoutReason::Look),
            (due, TimeoutReason::MailDue),
            (now(self.intake.has_called_up()), TimeoutReason::MailDue),
            (self.ledger.retry_at(), TimeoutReason::Store),
            (self.next_set_aside(), TimeoutReason::Store),
        ]
    }

    /// Whether all mail is dealt with, and nothing is asked of the database.
    pub(super) fn have_nothing_to_do(&self) -> bool {
        self.intake.is_complete()
            && self.queue.len() == 0
            && self.requests.is_empty()
            && self.ledger.is_empty()
    }

    /// Asserts that what is under way was asked for.
    #[track_caller]
    pub(super) fn check(&self, open: &OpenRequests) {
        let is_one = |count: usize, is_under_way: bool| count == usize::from(is_under_way);
        assert!(is_one(open.looks, self.intake.is_looking()), "{} looks", open.looks);
        assert!(is_one(open.walks, self.intake.walk.is_asked()), "{} walks", open.walks);
        assert!(is_one(open.commits, self.ledger.is_committing()), "{} commits", open.commits);
        assert_eq!(open.bounces, self.bounces.open_requests(), "requests for failed mail");
    }

    /// Returns what an administrator has to know if the program ends now.
    pub(super) fn unrecorded(&self) -> Option<String> {
        self.ledger.unrecorded(&self.set_aside)
    }

    /// Asks the database.
    pub(super) fn ask(&mut self, request: StoreRequest, asked: Asked) {
        let id = self.requests.open(asked);
        self.output(Output::Store(id, request));
    }
}
