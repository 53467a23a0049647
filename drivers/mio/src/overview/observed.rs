//! What the driver itself observes: how long the database and the loop take, and what has failed last.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use cmail_delivery::event::Event;
use cmail_delivery::outbox::{RequestId, StoreRequest};
use cmail_delivery::tally::Histogram;

use super::destinations::Destinations;

/// Most failures that are remembered for the page.
const FAILURES_LIMIT: usize = 20;

/// Most octets of the text of a failure.
const FAILURE_LIMIT_OCTETS: usize = 600;

/// The classes of what the loop and the database take: a tenth of a millisecond to half a minute.
static QUICK_BOUNDS: [Duration; 12] = [
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// What was observed since the start.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) started: SystemTime,
    /// How long requests to the database took, from the request to its answer, by their kind.
    pub(crate) store: BTreeMap<&'static str, Histogram>,
    /// How long turns of the loop took, without their waiting.
    pub(crate) turns: Histogram,
    pub(crate) reload: Reload,
    pub(crate) destinations: Destinations,
    /// The last failures, the newest last.
    pub(super) failures: VecDeque<FailureNote>,
    open: HashMap<RequestId, (&'static str, Instant)>,
}

/// The last time that the configuration was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reload {
    pub(crate) at: SystemTime,
    pub(crate) is_successful: bool,
}

/// A failure, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FailureNote {
    pub(super) at: SystemTime,
    /// A sentence, with the words of the server.
    pub(super) text: String,
}

impl Observed {
    pub(super) fn new() -> Self {
        let started = SystemTime::now();
        Self {
            started,
            store: BTreeMap::new(),
            turns: Histogram::new(&QUICK_BOUNDS),
            reload: Reload { at: started, is_successful: true },
            destinations: Destinations::default(),
            failures: VecDeque::new(),
            open: HashMap::new(),
        }
    }

    pub(super) fn note_reload(&mut self, is_successful: bool) {
        self.reload = Reload { at: SystemTime::now(), is_successful };
    }

    pub(super) fn note_request(&mut self, id: RequestId, request: &StoreRequest) {
        self.open.insert(id, (kind(request), Instant::now()));
    }

    pub(super) fn note_reply(&mut self, id: RequestId) {
        if let Some((kind, asked_at)) = self.open.remove(&id) {
            let histogram = self.store.entry(kind).or_insert_with(|| Histogram::new(&QUICK_BOUNDS));
            histogram.observe(asked_at.elapsed());
        }
    }

    pub(super) fn note_event(&mut self, event: &Event) {
        self.destinations.note(event);
        if !matches!(event, Event::Failed { .. }) {
            return;
        }
        if self.failures.len() == FAILURES_LIMIT {
            self.failures.pop_front();
        }
        let mut text = event.to_string();
        let end = (0..=FAILURE_LIMIT_OCTETS).rev().find(|&end| text.is_char_boundary(end));
        if text.len() > FAILURE_LIMIT_OCTETS {
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        self.failures.push_back(FailureNote { at: SystemTime::now(), text });
    }
}

fn kind(request: &StoreRequest) -> &'static str {
    match request {
        StoreRequest::Scan { .. } => "scan",
        StoreRequest::Claim { .. } => "claim",
        StoreRequest::ReadData { .. } => "read",
        StoreRequest::Commit(_) => "commit",
        StoreRequest::ReadFailed { .. } => "read_failed",
        StoreRequest::Recall { .. } => "recall",
        StoreRequest::ReadOrders { .. } => "read_orders",
        StoreRequest::CarryOut(_) => "order",
        StoreRequest::Recover { .. } => "recover",
        StoreRequest::ReadPolicy(_) => "read_policy",
        StoreRequest::ReadStalePolicies { .. } => "read_stale_policies",
    }
}
