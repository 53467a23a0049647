//! The dispatcher's knowledge of mail, its requests to the database, and its outputs.
//!
//! The books know nothing of connections. Deliveries find mail that becomes ready in the [`Queue`].

use alloc::string::String;

use super::bounces::Bounces;
use super::check::OpenRequests;
use super::commits::PendingCommits;
use super::configuration::Configuration;
use super::orders::Orders;
use super::outbox_scan::OutboxScan;
use super::outlet::Outlet;
use super::recent_attempts::RecentAttempts;
use super::requests::Asked;
use super::run::Run;
use super::set_aside::SetAside;
use super::store_side::StoreSide;
use super::{Mode, TimeoutReason};
use crate::attempt::Failure;
use crate::envelope::Envelope;
use crate::event::{Event, EventName, Level};
use crate::io::Output;
use crate::outbox::{Cursor, Row, StoreRequest};
use crate::queue::Queue;
use crate::rng::Rng;
use crate::schedule::RetryRules;
use crate::settings::Settings;
use crate::time::{Instant, Now};

/// Mail, from the row of the outbox to the commit.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) now: Now,
    pub(super) config: Configuration,
    pub(super) run: Run,
    pub(super) queue: Queue,
    pub(super) scan: OutboxScan,
    pub(super) attempts: RecentAttempts,
    pub(super) set_aside: SetAside,
    pub(super) bounces: Bounces,
    pub(super) commits: PendingCommits,
    pub(super) orders: Orders,
    pub(super) store: StoreSide,
    pub(super) outlet: Outlet,
}

impl Books {
    pub(super) fn new(now: Now, settings: Settings, mode: Mode, key_basis: u64, bounces: Rng) -> Self {
        let config = Configuration::new(settings);
        let settings = &config.settings;
        Self {
            store: StoreSide::new(now.monotonic, settings.uncertain, &mode),
            now,
            orders: Orders::new(&mode),
            run: Run::new(mode),
            queue: Queue::new(),
            scan: OutboxScan::new(now.monotonic, key_basis),
            attempts: RecentAttempts::new(config.rules().min_interval(settings.interval)),
            set_aside: SetAside::default(),
            bounces: Bounces::new(&settings.announce, &settings.bounces, bounces),
            commits: PendingCommits::new(),
            outlet: Outlet::default(),
            config,
        }
    }

    /// Parses a row, and finds the next hop that its mail goes to. Fails with the failure to record if the mail cannot be sent anywhere.
    pub(super) fn envelope_of(&self, row: &Row) -> Result<Envelope, Failure> {
        self.config.envelope_of(row)
    }

    /// Returns the rules by which mail is tried again.
    pub(super) fn rules(&self) -> RetryRules<'_> {
        self.config.rules()
    }

    /// Goes by these settings from now on; returns those of before. What is known of mail is placed anew by the next rescan, and
    /// whatever is claimed until then is judged by the new rules.
    pub(super) fn reconfigure(&mut self, settings: Settings) -> Settings {
        self.attempts.set_min_interval(RetryRules::of(&settings.schedule).min_interval(settings.interval));
        self.bounces.reconfigure(&settings.announce, &settings.bounces);
        if self.config.settings.schedule.hold_lines != settings.schedule.hold_lines {
            // The end of a line may be an order.
            self.orders.look();
        }
        self.scan.reconfigure(self.now.monotonic, settings.interval);
        self.config.replace(settings)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.run.is_draining()
    }

    pub(super) fn output(&mut self, output: Output) {
        self.outlet.push(output);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.output(Output::Event(event));
    }

    pub(super) fn note(&mut self, level: Level, text: String) {
        self.note_about(EventName::Note, level, text);
    }

    pub(super) fn note_about(&mut self, about: EventName, level: Level, text: String) {
        self.event(Event::Note { about, level, text });
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self) {
        self.recover();
        self.index_arrived();
        if self.scan.next_scan() <= self.now.monotonic && !self.scan.is_scanning() {
            self.scan_new();
        }
        self.rescan();
        self.make_due_mail_ready();
        self.retry_set_aside();
    }

    /// Returns the time and reason of each timer.
    pub(super) fn timeouts(&self) -> [(Option<Instant>, TimeoutReason); 8] {
        let is_working = !self.is_draining();
        let now = |is_due: bool| (is_working && is_due).then_some(self.now.monotonic);
        let scans = is_working && self.may_look() && !self.scan.is_scanning();
        let look = scans.then(|| self.scan.next_scan());
        let due = self.queue.next_due().filter(|_| is_working).map(|time| self.now.when(time));
        [
            (now(self.scan.has_unindexed()), TimeoutReason::Scan),
            (look, TimeoutReason::Scan),
            (self.rescan_due(), TimeoutReason::Scan),
            (due, TimeoutReason::MailDue),
            (now(self.scan.has_called_up()), TimeoutReason::MailDue),
            (self.commits.retry_at(), TimeoutReason::Store),
            (self.store.suspects.ask_at().filter(|_| is_working), TimeoutReason::Store),
            (self.next_set_aside(), TimeoutReason::Store),
        ]
    }

    /// Returns whether all mail is dealt with and no request is open.
    pub(super) fn have_nothing_to_do(&self) -> bool {
        let has_seen_all = match self.run.mode() {
            Mode::CarryOutOrders => self.orders.are_done(),
            Mode::Daemon | Mode::Deliver(_) | Mode::GenerateBounces => self.scan.is_complete(),
        };
        has_seen_all && self.queue.len() == 0 && self.store.requests.is_empty() && self.commits.is_empty()
    }

    /// Asserts that each request that is marked as open is open, and that no mail is indexed beyond the frontier.
    #[track_caller]
    pub(super) fn check(&self, open: &OpenRequests) {
        let is_one = |count: usize, is_under_way: bool| count == usize::from(is_under_way);
        assert!(is_one(open.scans, self.scan.is_scanning()), "{} looks", open.scans);
        assert!(is_one(open.rescans, self.scan.rescan.is_asked()), "{} walks", open.rescans);
        assert!(is_one(open.commits, self.commits.is_committing()), "{} commits", open.commits);
        assert!(is_one(open.orders, self.orders.is_asking()), "{} requests about orders", open.orders);
        assert!(is_one(open.recoveries, self.store.suspects.is_asking()), "{} recoveries", open.recoveries);
        assert_eq!(open.bounces, self.bounces.open_requests(), "requests for failed mail");
        let (last, frontier) = (self.queue.last(), self.scan.frontier());
        assert!(
            last.is_none_or(|last| Cursor::After(last) <= frontier),
            "mail {last:?} is beyond {frontier:?}"
        );
    }

    /// Returns what an administrator must know if the program ends now.
    pub(super) fn unrecorded(&self) -> Option<String> {
        self.commits.unrecorded(&self.set_aside)
    }

    /// Sends a request to the database, after everything that was given up until now.
    pub(super) fn ask(&mut self, request: StoreRequest, asked: Asked) {
        self.store.ask(&mut self.outlet, request, asked);
    }
}
