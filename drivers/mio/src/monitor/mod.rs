//! Tells monitoring and people how the daemon does, over HTTP: metrics, readiness, and a page.
//!
//! The event loop itself answers, so a client that hangs, lies or floods must not cost anybody else anything: there are few
//! clients at a time, each has little time and one short request, and what they ask for is made at most once in a while,
//! however many ask. Nothing can be changed by it.

mod address;
mod answer;
mod client;
mod exposition;
mod page;
mod request;

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

pub use self::address::{MetricsAddress, MetricsError};
use self::answer::Desk;
use self::client::{Client, Progress};
use crate::clients::{Door, Listener, Stream};
use crate::overview::{Overview, SAMPLE_INTERVAL, View};

/// Most clients at a time. One more whose request is there at once is answered at once; another takes the place of the one that
/// has been silent for the longest time.
pub(crate) const CLIENTS_LIMIT: usize = 8;

/// How long a client may take for its request and the answer.
const CLIENT_LIMIT: Duration = Duration::from_secs(10);

/// The longest head of a request.
const HEAD_LIMIT_OCTETS: usize = 4096;

/// The clients, and what they are answered.
#[derive(Debug)]
pub(crate) struct Monitor {
    door: Door,
    clients: BTreeMap<Token, Client<Stream>>,
    desk: Desk,
    next_sample: Instant,
}

impl Monitor {
    /// Serves the clients of a listener, which has this token; those after it are for the clients.
    pub(crate) fn new(listener: Listener, registry: Registry, token: Token) -> io::Result<Self> {
        Ok(Self {
            door: Door::open(listener, registry, token, CLIENTS_LIMIT)?,
            clients: BTreeMap::new(),
            desk: Desk::new(),
            next_sample: Instant::now(),
        })
    }

    /// Takes in an event of the poll. Returns whether it was about a client or the listener.
    pub(crate) fn on_event(&mut self, token: Token) -> bool {
        self.door.on_event(token);
        if let Some(client) = self.clients.get_mut(&token) {
            client.is_ready = true;
        }
        self.door.owns(token)
    }

    /// Returns whether there is something to do without waiting for the poll.
    pub(crate) fn is_busy(&self) -> bool {
        self.door.has_newcomers(Instant::now()) || self.clients.values().any(|client| client.is_ready)
    }

    /// Returns when to call [`advance`](Self::advance), whatever the poll says.
    pub(crate) fn next_tick(&self) -> Instant {
        let ends = self.clients.values().map(|client| client.since + CLIENT_LIMIT);
        ends.chain(self.door.newcomers_since()).min().map_or(self.next_sample, |at| at.min(self.next_sample))
    }

    /// Serves the clients as far as their sockets allow it.
    pub(crate) fn advance(&mut self, overview: &mut Overview, view: View<'_>) {
        let now = Instant::now();
        for stream in self.door.accept(now) {
            self.admit(Client::new(stream, now), overview, view, now);
        }
        let mut over = Vec::new();
        for (&token, client) in &mut self.clients {
            let progress = if client.is_ready {
                client.advance(|parsed| self.desk.answer(parsed, overview, view, now).into_octets())
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
        if now >= self.next_sample {
            self.next_sample = now + SAMPLE_INTERVAL;
            self.desk.sample(view.dispatcher);
            overview.look();
        }
    }

    fn admit(&mut self, mut client: Client<Stream>, overview: &mut Overview, view: View<'_>, now: Instant) {
        if self.clients.len() >= CLIENTS_LIMIT {
            let progress =
                client.advance(|parsed| self.desk.answer(parsed, overview, view, now).into_octets());
            if progress == Progress::IsOver || client.is_answered() {
                return;
            }
            let rank = |(_, client): &(&Token, &Client<Stream>)| (!client.is_silent(), client.since);
            if let Some((&oldest, _)) = self.clients.iter().min_by_key(rank) {
                self.dismiss(oldest);
            }
        }
        let token = self.door.admit(&mut client.stream, |token| self.clients.contains_key(&token));
        if let Some(token) = token {
            self.clients.insert(token, client);
        }
    }

    fn dismiss(&mut self, token: Token) {
        if let Some(mut client) = self.clients.remove(&token) {
            self.door.dismiss(&mut client.stream);
        }
    }
}
