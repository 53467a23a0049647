//! Tells monitoring and people how the daemon does, over HTTP: metrics, readiness, and a page.
//!
//! The event loop itself answers, so a client that hangs, lies or floods must not cost anybody else anything: there are few
//! clients at a time, each has little time and one short request, and what they ask for is made at most once in a while,
//! however many ask. Nothing can be changed by it.

mod answer;
mod client;
mod exposition;
mod listener;
mod observed;
mod page;
mod request;
mod socket_file;
mod status;
mod survey;

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use cmail_delivery::dispatcher::Dispatcher;
use cmail_delivery::event::Event;
use cmail_delivery::outbox::{RequestId, StoreRequest};
use mio::{Interest, Registry, Token};

use self::answer::Desk;
use self::client::{Client, Progress, Stream};
pub use self::listener::{Listener, MetricsAddress, MetricsError};
use crate::event_loop::Ages;

/// Most clients at a time. One more whose request is there at once is answered at once; another takes the place of the one that
/// has been silent for the longest time.
pub(crate) const CLIENTS_LIMIT: usize = 8;

/// How long a client may take for its request and the answer.
const CLIENT_LIMIT: Duration = Duration::from_secs(10);

/// The longest head of a request.
const HEAD_LIMIT_OCTETS: usize = 4096;

/// After how long clients are accepted again where the system has refused that, as it does without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Most clients that are accepted in one turn of the loop.
const ACCEPTS_PER_TURN: usize = 16;

/// How often the database is asked for the ages of the mail in it, and the counts are noted for the page.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);

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
    /// The ages of the mail in the outbox, as they were found last.
    pub(crate) ages: Option<&'a Ages>,
}

/// The clients, and what is observed for them.
#[derive(Debug)]
pub(crate) struct Monitor {
    listener: Listener,
    registry: Registry,
    /// The token of the first client. The others follow, and the listener's comes before.
    first_client: usize,
    /// From when on there may be clients to accept; nothing if there are none.
    newcomers_since: Option<Instant>,
    clients: BTreeMap<Token, Client<Stream>>,
    desk: Desk,
    next_sample: Instant,
    turn_began: Option<Instant>,
}

impl Monitor {
    /// Serves the clients of a listener, which has this token; those after it are for the clients.
    pub(crate) fn new(mut listener: Listener, registry: Registry, token: Token) -> io::Result<Self> {
        registry.register(listener.source(), token, Interest::READABLE)?;
        Ok(Self {
            listener,
            registry,
            first_client: token.0 + 1,
            newcomers_since: Some(Instant::now()),
            clients: BTreeMap::new(),
            desk: Desk::new(),
            next_sample: Instant::now(),
            turn_began: None,
        })
    }

    /// Takes in an event of the poll. Returns whether it was about a client or the listener.
    pub(crate) fn on_event(&mut self, token: Token) -> bool {
        if token.0 + 1 == self.first_client {
            self.newcomers_since = Some(Instant::now());
        } else if let Some(client) = self.clients.get_mut(&token) {
            client.is_ready = true;
        }
        (self.first_client - 1..self.first_client + CLIENTS_LIMIT).contains(&token.0)
    }

    /// Returns whether there is something to do without waiting for the poll.
    pub(crate) fn is_busy(&self) -> bool {
        let has_newcomers = self.newcomers_since.is_some_and(|since| since <= Instant::now());
        has_newcomers || self.clients.values().any(|client| client.is_ready) || self.desk.is_counting()
    }

    /// Returns when to call [`advance`](Self::advance), whatever the poll says.
    pub(crate) fn next_tick(&self) -> Instant {
        let ends = self.clients.values().map(|client| client.since + CLIENT_LIMIT);
        ends.chain([self.next_sample]).chain(self.newcomers_since).min().unwrap_or(self.next_sample)
    }

    /// Serves the clients as far as their sockets allow it. Returns whether the ages of mail are to be asked for.
    pub(crate) fn advance(&mut self, view: View<'_>) -> bool {
        let now = Instant::now();
        self.accept(view, now);
        let mut over = Vec::new();
        for (&token, client) in &mut self.clients {
            let progress = if client.is_ready {
                client.advance(|parsed| self.desk.answer(parsed, view, now).into_octets())
            } else {
                Progress::Waits
            };
            if progress == Progress::IsOver || now.saturating_duration_since(client.since) >= CLIENT_LIMIT {
                over.push(token);
            }
        }
        for token in over {
            self.dismiss(token);
        }
        self.desk.count(view, now);
        let is_due = now >= self.next_sample;
        if is_due {
            self.next_sample = now + SAMPLE_INTERVAL;
            self.desk.sample(view.dispatcher);
        }
        is_due
    }

    fn accept(&mut self, view: View<'_>, now: Instant) {
        if self.newcomers_since.is_none_or(|since| since > now) {
            return;
        }
        self.newcomers_since = None;
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok(stream) => self.admit(Client::new(stream, now), view, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It has gone meanwhile. Others may wait behind it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                // The poll tells of those who wait only once.
                Err(error) => {
                    self.newcomers_since = Some(now + ACCEPT_PAUSE);
                    return log::debug!("a client of the metrics cannot be accepted: {error}");
                }
            }
        }
        self.newcomers_since = Some(now);
    }

    fn admit(&mut self, mut client: Client<Stream>, view: View<'_>, now: Instant) {
        if self.clients.len() >= CLIENTS_LIMIT {
            let progress = client.advance(|parsed| self.desk.answer(parsed, view, now).into_octets());
            if progress == Progress::IsOver || client.is_answered() {
                return;
            }
            let rank = |(_, client): &(&Token, &Client<Stream>)| (!client.is_silent(), client.since);
            if let Some((&oldest, _)) = self.clients.iter().min_by_key(rank) {
                self.dismiss(oldest);
            }
        }
        let mut tokens = (self.first_client..self.first_client + CLIENTS_LIMIT).map(Token);
        let Some(token) = tokens.find(|token| !self.clients.contains_key(token)) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self.registry.register(client.stream.source(), token, interest) {
            Ok(()) => drop(self.clients.insert(token, client)),
            Err(error) => log::debug!("a client of the metrics cannot be polled: {error}"),
        }
    }

    fn dismiss(&mut self, token: Token) {
        if let Some(mut client) = self.clients.remove(&token)
            && let Err(error) = self.registry.deregister(client.stream.source())
        {
            log::debug!("a client of the metrics could not be taken out of the poll: {error}");
        }
    }

    /// Notes that a turn of the loop begins to work.
    pub(crate) fn begin_turn(&mut self) {
        self.turn_began = Some(Instant::now());
    }

    /// Notes that it waits again.
    pub(crate) fn end_turn(&mut self) {
        if let Some(began) = self.turn_began.take() {
            self.desk.observed.turns.observe(began.elapsed());
        }
    }

    /// Notes a request to the database.
    pub(crate) fn note_request(&mut self, id: RequestId, request: &StoreRequest) {
        self.desk.observed.note_request(id, request);
    }

    /// Notes its answer.
    pub(crate) fn note_reply(&mut self, id: RequestId) {
        self.desk.observed.note_reply(id);
    }

    /// Notes what the dispatcher reports.
    pub(crate) fn note_event(&mut self, event: &Event) {
        self.desk.observed.note_event(event);
    }

    /// Notes that the configuration was read again, and whether it was taken.
    pub(crate) fn note_reload(&mut self, is_successful: bool) {
        self.desk.observed.note_reload(is_successful);
    }
}

/// Returns the age of the oldest mail; zero if there is none.
fn oldest_age(ages: &Ages) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let submitted_s = ages.oldest.and_then(|submission| u64::try_from(submission.0).ok());
    submitted_s.map_or(Duration::ZERO, |submitted_s| now.saturating_sub(Duration::from_secs(submitted_s)))
}
