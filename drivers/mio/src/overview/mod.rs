//! How the daemon does: what is observed of it, and what is told of that to monitoring, to people and to the operator's tool.
//! Each number has its one definition here or in the core.

mod destinations;
mod observed;
mod status;
mod survey;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use cmail_delivery::dispatcher::Dispatcher;
use cmail_delivery::event::Event;
use cmail_delivery::outbox::{RequestId, StoreRequest};
use serde_json::Value;

pub(crate) use self::destinations::{AttemptCounts, CountedDestination, OTHERS};
pub(crate) use self::observed::Observed;
pub(crate) use self::status::Samples;
use self::status::Status;
use self::survey::Surveyor;
use crate::event_loop::Ages;

/// For how long an answer is given again before it is made anew: it costs some milliseconds where there are many destinations.
pub(crate) const ANSWER_SPAN: Duration = Duration::from_secs(1);

/// How often the database is asked for the ages of the mail in it while somebody looks, and the counts are noted for the page.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);

/// The ages by which mail in the outbox is counted, in ascending order.
pub(crate) const AGE_CLASSES: [(Duration, &str); 6] = [
    (Duration::from_secs(5 * 60), "5m"),
    (Duration::from_secs(20 * 60), "20m"),
    (Duration::from_secs(3600), "1h"),
    (Duration::from_secs(4 * 3600), "4h"),
    (Duration::from_secs(24 * 3600), "1d"),
    (Duration::from_secs(5 * 24 * 3600), "5d"),
];

/// What the daemon is at the moment of a question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) dispatcher: &'a Dispatcher,
    /// Whether the database answers.
    pub(crate) is_store_alive: bool,
    /// Whether the daemon was asked to stop.
    pub(crate) is_stopping: bool,
    pub(crate) log_lines_lost: u64,
}

/// What is known of how the daemon does.
#[derive(Debug)]
pub(crate) struct Overview {
    database: PathBuf,
    observed: Observed,
    surveyor: Surveyor,
    status: Kept<Rc<Value>>,
    turn_began: Option<Instant>,
    ages: KnownAges,
}

/// The ages of the mail in the outbox, which the database is asked for only while somebody looks.
#[derive(Debug, Default)]
struct KnownAges {
    /// As they were found last.
    found: Option<Arc<Ages>>,
    is_wanted: bool,
    /// When they were asked for last.
    asked_at: Option<Instant>,
    is_awaited: bool,
}

impl Overview {
    /// Returns the overview of a daemon that begins to work on a database.
    pub(crate) fn new(database: PathBuf) -> Self {
        Self {
            database,
            observed: Observed::new(),
            surveyor: Surveyor::default(),
            status: Kept::default(),
            turn_began: None,
            ages: KnownAges::default(),
        }
    }

    /// Notes that a turn of the loop begins to work.
    pub(crate) fn begin_turn(&mut self) {
        self.turn_began = Some(Instant::now());
    }

    /// Notes that it waits again.
    pub(crate) fn end_turn(&mut self) {
        if let Some(began) = self.turn_began.take() {
            self.observed.turns.observe(began.elapsed());
        }
    }

    /// Notes a request to the database.
    pub(crate) fn note_request(&mut self, id: RequestId, request: &StoreRequest) {
        self.observed.note_request(id, request);
    }

    /// Notes its answer.
    pub(crate) fn note_reply(&mut self, id: RequestId) {
        self.observed.note_reply(id);
    }

    /// Notes what the dispatcher reports.
    pub(crate) fn note_event(&mut self, event: &Event) {
        self.observed.note_event(event);
    }

    /// Counts these destinations by themselves from now on.
    pub(crate) fn name_destinations(&mut self, destinations: &[CountedDestination]) {
        self.observed.destinations.name(destinations);
    }

    /// Notes that the configuration was read again, and whether it was taken.
    pub(crate) fn note_reload(&mut self, is_successful: bool) {
        self.observed.note_reload(is_successful);
        self.status = Kept::default();
    }

    /// Notes how old the mail was when the database was asked last.
    pub(crate) fn note_ages(&mut self, ages: Option<Arc<Ages>>) {
        let is_known = match (&ages, &self.ages.found) {
            (Some(ages), Some(found)) => Arc::ptr_eq(ages, found),
            (None, _) => true,
            (Some(_), None) => false,
        };
        if !is_known {
            self.ages.found = ages;
            self.ages.is_awaited = false;
            self.status = Kept::default();
        }
    }

    /// Notes that somebody looks, so that what costs something is found out.
    pub(crate) fn look(&mut self) {
        self.ages.is_wanted = true;
    }

    /// Returns whether the database is to be asked for the ages of mail now.
    pub(crate) fn take_question(&mut self, now: Instant) -> bool {
        let ages = &mut self.ages;
        let is_recent = ages.asked_at.is_some_and(|at| now.saturating_duration_since(at) < SAMPLE_INTERVAL);
        let is_due = std::mem::take(&mut ages.is_wanted) && !is_recent;
        if is_due {
            ages.asked_at = Some(now);
            ages.is_awaited = true;
        }
        is_due
    }

    /// Returns whether the answer of the database is still to come.
    pub(crate) fn awaits_ages(&self) -> bool {
        self.ages.is_awaited
    }

    /// Returns whether mail is being counted.
    pub(crate) fn is_counting(&self) -> bool {
        self.surveyor.is_counting()
    }

    /// Goes on counting mail by destination and age, if that is wanted.
    pub(crate) fn count(&mut self, dispatcher: &Dispatcher, now: Instant) {
        self.surveyor.go_on(dispatcher, now);
    }

    /// Returns what was observed since the start.
    pub(crate) fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Returns the age of the oldest mail, as far as that is known; zero if there is none.
    pub(crate) fn oldest_age(&self) -> Option<Duration> {
        self.ages.found.as_deref().map(oldest_age)
    }

    /// Returns how everything stands: the fields of the record `status`. It is made anew only after a while.
    pub(crate) fn status(&mut self, view: View<'_>, now: Instant) -> Rc<Value> {
        let ages = self.ages.found.as_deref();
        self.surveyor.want(ages, now);
        let Self { database, observed, surveyor, status, .. } = self;
        status.value(now, || {
            let dispatcher = view.dispatcher;
            let (tally, standing) = (dispatcher.tally(), dispatcher.standing());
            let (troubled, slow) = (dispatcher.hosts_in_trouble(), dispatcher.slow_hosts());
            let survey = surveyor.result(now);
            let oldest = ages.map(oldest_age);
            Rc::new(
                Status {
                    database,
                    tally: &tally,
                    standing,
                    held_by_lines: dispatcher.held_by_lines(),
                    observed,
                    survey,
                    troubled,
                    slow,
                    oldest,
                    view,
                }
                .fields(),
            )
        })
    }
}

/// Returns the age of the oldest mail; zero if there is none.
fn oldest_age(ages: &Ages) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let submitted_s = ages.oldest.and_then(|submission| u64::try_from(submission.0).ok());
    submitted_s.map_or(Duration::ZERO, |submitted_s| now.saturating_sub(Duration::from_secs(submitted_s)))
}

/// A value that is made anew only after a while.
#[derive(Debug)]
pub(crate) struct Kept<T>(Option<(Instant, T)>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Kept<T> {
    pub(crate) fn value(&mut self, now: Instant, make: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some((since, value)) if now.saturating_duration_since(*since) < ANSWER_SPAN => value.clone(),
            Some(_) | None => {
                let value = make();
                self.0 = Some((now, value.clone()));
                value
            }
        }
    }
}
