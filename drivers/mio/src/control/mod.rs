//! Answers the operator's tool, over a socket that only the user of the daemon and root can connect to.
//!
//! A client sends a line, and gets records: JSON objects of one line each, the last of which is of the kind `end` or `error`. Then it may
//! ask again. The event loop itself answers, so a client that hangs, lies or floods must not cost anybody else anything: one
//! request of each client is taken in a turn of the loop, nothing more is read of it until it has taken the answer, and what it does
//! not take is dropped.

mod client;
mod place;
mod request;
mod tracer;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use cmail_delivery::dispatcher::Dispatcher;
use cmail_delivery::explanation::Answer;
use cmail_delivery::io::{Input, InquiryId, Output};
use cmail_delivery::time::Now;
use cmail_delivery::watch::Watch;
use mio::event::Event;
use mio::{Registry, Token};
use serde::Serialize;

use self::client::{Client, Progress};
pub(crate) use self::place::ControlPlace;
use self::request::{REQUEST_LIMIT_OCTETS, parse};
pub(crate) use self::request::{Request, trace};
pub(crate) use self::tracer::Watcher;
use self::tracer::{Line, Tracer};
use crate::clients::{Door, Listener, Stream};
use crate::explained;
use crate::json_record;
use crate::overview::{Overview, View};
use crate::reload::Report;

/// Most clients at a time. One more takes the place of the one that has asked nothing for the longest time, or does not take its
/// answer; if there is none, it is refused.
pub(crate) const CLIENTS_LIMIT: usize = 16;

/// How long a client need not take what it is sent, before another one may have its place.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// How long the answer to a question about everything waits for what the database has to tell.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// Identifies a request. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AskId(u64);

impl AskId {
    /// Returns the id of the inquiry that is made for it.
    pub(crate) fn inquiry(self) -> InquiryId {
        InquiryId(self.0)
    }
}

/// The clients, and what they have asked.
#[derive(Debug)]
pub(crate) struct Control {
    door: Door,
    clients: BTreeMap<Token, Client<Stream>>,
    /// Requests that were not taken yet.
    requests: VecDeque<(AskId, Request)>,
    /// Questions about everything, and until when each waits for the database.
    statuses: Vec<(AskId, Instant)>,
    /// Orders to read the configuration again, with the number of the reading that each waits for.
    reloads: Vec<(AskId, u64)>,
    tracer: Tracer,
    /// Requests whose clients have gone before the end of the answer.
    abandoned: Vec<AskId>,
    next_id: u64,
}

/// The fields of a record that tells nothing but its kind.
#[derive(Debug, Serialize)]
struct Nothing {}

/// The fields of the record by which an answer begins that does not end.
#[derive(Debug, Serialize)]
struct Watching {
    data: bool,
}

/// The fields of a record that tells why there is no answer.
#[derive(Debug, Serialize)]
struct Refusal<'a> {
    text: &'a str,
}

impl Control {
    /// Serves the clients of a listener, which has this token; those after it are for the clients.
    pub(crate) fn new(listener: Listener, registry: Registry, token: Token) -> io::Result<Self> {
        Ok(Self {
            door: Door::open(listener, registry, token, CLIENTS_LIMIT)?,
            clients: BTreeMap::new(),
            requests: VecDeque::new(),
            statuses: Vec::new(),
            reloads: Vec::new(),
            tracer: Tracer::default(),
            abandoned: Vec::new(),
            next_id: 0,
        })
    }

    /// Makes the file of the socket anew if somebody has removed it.
    pub(crate) fn restore_socket(&mut self, now: Instant) {
        for stream in self.door.restore() {
            self.admit(stream, now);
        }
    }

    /// Takes in an event of the poll. Returns whether it was about a client or the listener.
    pub(crate) fn on_event(&mut self, event: &Event) -> bool {
        let token = event.token();
        self.door.on_event(token);
        if let Some(client) = self.clients.get_mut(&token) {
            client.on_event(event.is_read_closed() && event.is_write_closed());
        }
        self.door.owns(token)
    }

    /// Returns whether there is something to do without waiting for the poll.
    pub(crate) fn is_busy(&self) -> bool {
        self.door.has_newcomers(Instant::now()) || self.clients.values().any(Client::is_busy)
    }

    /// Returns when to call [`advance`](Self::advance), whatever the poll says.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        let waits = self.statuses.iter().map(|(_, until)| *until);
        waits.chain(self.door.newcomers_since()).min()
    }

    /// Takes the next request of each client, and sends what is there, as far as the sockets allow it.
    pub(crate) fn advance(&mut self, now: Instant) {
        for stream in self.door.accept(now) {
            self.admit(stream, now);
        }
        let tokens: Vec<Token> = self.clients.keys().copied().collect();
        for token in tokens {
            let Some(client) = self.clients.get_mut(&token) else { continue };
            match client.advance(now) {
                Progress::Waits => {}
                Progress::Asks(line) => match parse(&line) {
                    Ok(request) => {
                        let id = AskId(self.next_id);
                        self.next_id += 1;
                        client.answer(id);
                        self.requests.push_back((id, request));
                    }
                    Err(text) => client.end(&refusal(&text), false),
                },
                Progress::AsksTooMuch => {
                    let text = format!("a request has at most {REQUEST_LIMIT_OCTETS} octets");
                    client.end(&refusal(&text), true);
                }
                Progress::IsOver => self.dismiss(token),
            }
        }
    }

    /// Returns the next request.
    pub(crate) fn poll_request(&mut self) -> Option<(AskId, Request)> {
        self.requests.pop_front()
    }

    /// Lets a question about everything wait until the database has told what it has to tell, but not for long.
    pub(crate) fn await_status(&mut self, id: AskId, now: Instant) {
        self.statuses.push((id, now + STATUS_PATIENCE));
    }

    /// Answers the questions about everything, if that is due.
    pub(crate) fn tell_status(&mut self, overview: &mut Overview, view: View<'_>, now: Instant) {
        let is_due = |until: Instant| !overview.awaits_ages() || now >= until;
        let due: Vec<AskId> =
            self.statuses.extract_if(.., |(_, until)| is_due(*until)).map(|(id, _)| id).collect();
        for id in due {
            self.tell(id, "status", &*overview.status(view, now));
            self.end(id);
        }
    }

    /// Lets an order wait until the reading of the configuration with this number has ended.
    pub(crate) fn await_reload(&mut self, id: AskId, number: u64) {
        self.reloads.push((id, number));
    }

    /// Tells those who wait for it what has come of a reading of the configuration.
    pub(crate) fn tell_reload(&mut self, number: u64, report: &Report) {
        let done: Vec<AskId> =
            self.reloads.extract_if(.., |(_, awaited)| *awaited <= number).map(|(id, _)| id).collect();
        for id in done {
            self.tell(id, "reload", report);
            self.end(id);
        }
    }

    /// Lets a client watch what is said on connections.
    pub(crate) fn watch(&mut self, id: AskId, watcher: Watcher) {
        if let Some(client) = self.client(id) {
            client.watch(id);
            client.tell(&record("watching", Watching { data: watcher.wants_data }));
            self.tracer.begin(id, watcher);
        }
    }

    /// Returns whether somebody watches.
    pub(crate) fn is_watched(&self) -> bool {
        self.tracer.is_watched()
    }

    /// Returns what is watched now, if the dispatcher is to be told.
    pub(crate) fn take_watch(&mut self) -> Option<Watch> {
        self.tracer.take_watch()
    }

    /// Tells those who watch of an input of the dispatcher, before it gets it.
    pub(crate) fn trace_input(&mut self, dispatcher: &Dispatcher, input: &Input<'_>) {
        let lines = self.tracer.input(dispatcher, input);
        self.tell_lines(&lines);
    }

    /// Tells those who watch of an output of the dispatcher.
    pub(crate) fn trace_output(&mut self, dispatcher: &Dispatcher, output: &Output) {
        let lines = self.tracer.output(dispatcher, output);
        self.tell_lines(&lines);
    }

    fn tell_lines(&mut self, lines: &[Line]) {
        for line in lines {
            let octets = record("said", line);
            for id in &line.watchers {
                if let Some(client) = self.client(*id) {
                    client.tell(&octets);
                }
            }
        }
    }

    /// Tells what the dispatcher answers to an inquiry.
    pub(crate) fn tell_answer(&mut self, id: InquiryId, answer: &Answer, now: Now) {
        let id = AskId(id.0);
        explained::tell(answer, now, &mut |kind, fields| self.tell(id, kind, fields));
        if answer.is_last() {
            self.end(id);
        }
    }

    /// Returns the requests whose clients have gone before the end of the answer.
    pub(crate) fn take_abandoned(&mut self) -> Vec<AskId> {
        std::mem::take(&mut self.abandoned)
    }

    /// Tells a record of the answer. If the client has gone, does nothing.
    pub(crate) fn tell(&mut self, id: AskId, kind: &'static str, fields: impl Serialize) {
        if let Some(client) = self.client(id) {
            client.tell(&record(kind, fields));
        }
    }

    /// Ends an answer.
    pub(crate) fn end(&mut self, id: AskId) {
        if let Some(client) = self.client(id) {
            client.end(&record("end", Nothing {}), false);
        }
    }

    /// Ends an answer because there is none, for a reason that is a sentence.
    pub(crate) fn refuse(&mut self, id: AskId, text: &str) {
        if let Some(client) = self.client(id) {
            client.end(&refusal(text), false);
        }
    }

    /// Sends what the clients were told, as far as their sockets take it.
    pub(crate) fn send(&mut self, now: Instant) {
        for client in self.clients.values_mut() {
            // What prevents it is found when the client is served next.
            let _ = client.send(now);
        }
    }

    fn client(&mut self, id: AskId) -> Option<&mut Client<Stream>> {
        self.clients.values_mut().find(|client| client.asked() == Some(id))
    }

    fn admit(&mut self, mut stream: Stream, now: Instant) {
        if self.clients.len() >= CLIENTS_LIMIT {
            let Some(token) = self.dispensable(now) else {
                let mut client = Client::new(stream, now);
                client.end(&refusal("too many ask the daemon at once; end one of those who watch it"), true);
                // There is room for one line in the socket of a newcomer.
                let _ = client.send(now);
                return;
            };
            self.dismiss(token);
        }
        let token = self.door.admit(&mut stream, |token| self.clients.contains_key(&token));
        if let Some(token) = token {
            self.clients.insert(token, Client::new(stream, now));
        }
    }

    /// Returns the client that another one may take the place of.
    fn dispensable(&self, now: Instant) -> Option<Token> {
        let may_go = |client: &Client<Stream>| {
            let is_stuck =
                client.is_stalled() && now.saturating_duration_since(client.active_at) >= STALL_LIMIT;
            client.is_idle() || is_stuck
        };
        let candidates = self.clients.iter().filter(|(_, client)| may_go(client));
        candidates.min_by_key(|(_, client)| client.active_at).map(|(token, _)| *token)
    }

    fn dismiss(&mut self, token: Token) {
        if let Some(mut client) = self.clients.remove(&token) {
            self.door.dismiss(&mut client.stream);
            let asked = client.asked();
            asked.into_iter().for_each(|id| self.tracer.end(id));
            self.abandoned.extend(asked);
            self.statuses.retain(|(id, _)| Some(*id) != asked);
            self.reloads.retain(|(id, _)| Some(*id) != asked);
        }
    }
}

fn refusal(text: &str) -> Vec<u8> {
    record("error", Refusal { text })
}

/// Returns a record, with the end of its line.
fn record(kind: &'static str, fields: impl Serialize) -> Vec<u8> {
    let mut octets = json_record::line(kind, fields).into_bytes();
    octets.push(b'\n');
    octets
}
