//! Takes messages of programs whose users may not write the database, over a socket that everybody may connect to.
//!
//! A client sends its message, gets one record as an answer, and is closed. The message is in the database before it is answered. The
//! event loop itself reads, so a client that hangs, lies or floods must not cost anybody else anything: there are few places, which one
//! user cannot keep from others; a message must come whole within a short time; and one at a time is written to the database, so that verdicts
//! come between them.

mod client;
mod place;
mod request;
mod user_names;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use cmail_delivery::outbox::MailId;
use mio::{Registry, Token};
use nix::unistd::Uid;
use serde::Serialize;

use self::client::{Client, Progress};
pub(crate) use self::place::Reception;
pub(crate) use self::place::ReceptionError;
pub(crate) use self::request::Submission;
pub(crate) use self::request::envelope;
use self::user_names::UserNames;
use crate::clients::{Door, Stream};
use crate::json_record;
use crate::store::SubmitError;
use crate::sysexits;

/// Most clients at a time.
pub(crate) const CLIENTS_LIMIT: usize = 10;

/// How long a client may take to hand over its message, how long that may wait until it is written to the database, and how long the client
/// may then take for its answer. Both ends are on this machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Identifies a message that was handed over. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubmissionId(u64);

#[cfg(test)]
impl SubmissionId {
    pub(crate) fn new(number: u64) -> Self {
        Self(number)
    }
}

/// The clients, and their messages.
#[derive(Debug)]
pub(crate) struct Receptionist {
    door: Door,
    clients: BTreeMap<Token, Client<Stream>>,
    /// The most octets of a message, counted once for each recipient.
    limit_octets: usize,
    /// Their users.
    names: UserNames,
    /// Messages that wait for the one before them, or for the name of their user.
    queue: VecDeque<(SubmissionId, Box<Submission>)>,
    /// The one that is being written.
    under_way: Option<SubmissionId>,
    next_id: u64,
}

/// The fields of the record by which a message is taken.
#[derive(Debug, Serialize)]
struct Taken {
    /// The ids of its mails, in the order of the recipients.
    mails: Vec<i64>,
}

/// The fields of the record by which a message is not taken.
#[derive(Debug, Serialize)]
struct Refusal<'a> {
    /// A status of sysexits.h.
    status: u8,
    text: &'a str,
    /// Whether there is only no place for the client now.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    full: bool,
}

impl Receptionist {
    /// Serves the clients of a reception, which has this token; those after it are for the clients.
    pub(crate) fn new(reception: Reception, registry: Registry, token: Token) -> io::Result<Self> {
        let Reception { listener, limit_octets } = reception;
        Ok(Self {
            door: Door::open(listener, registry, token, CLIENTS_LIMIT)?,
            clients: BTreeMap::new(),
            limit_octets,
            names: UserNames::new(user_names::look_up)?,
            queue: VecDeque::new(),
            under_way: None,
            next_id: 0,
        })
    }

    /// Lets messages have so many octets from now on.
    pub(crate) fn limit(&mut self, octets: usize) {
        self.limit_octets = octets;
    }

    /// Makes the file of the socket anew if somebody has removed it.
    pub(crate) fn restore_socket(&mut self, now: Instant) {
        for stream in self.door.restore() {
            self.admit(stream, now);
        }
    }

    /// Takes in an event of the poll. Returns whether it was about a client or the listener.
    pub(crate) fn on_event(&mut self, token: Token) -> bool {
        self.door.on_event(token);
        self.clients.get_mut(&token).into_iter().for_each(Client::on_event);
        self.door.owns(token)
    }

    /// Returns whether there is something to do without waiting for the poll.
    pub(crate) fn is_busy(&self) -> bool {
        self.door.has_newcomers(Instant::now()) || self.clients.values().any(Client::is_busy)
    }

    /// Returns when to call [`advance`](Self::advance), whatever the poll says.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        let deadlines = self.clients.values().filter(|client| !self.is_under_way(client));
        let name = self.waits_for_name().then(|| UserNames::next_look(Instant::now()));
        deadlines.map(|client| client.since + PATIENCE).chain(self.door.newcomers_since()).chain(name).min()
    }

    /// Returns whether somebody is still to be told something.
    pub(crate) fn has_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Reads messages and sends answers, as far as the sockets allow it. A daemon that `is_stopping` takes no more.
    pub(crate) fn advance(&mut self, now: Instant, is_stopping: bool) {
        for stream in self.door.accept(now) {
            self.admit(stream, now);
        }
        let tokens: Vec<Token> = self.clients.keys().copied().collect();
        for token in tokens {
            self.look_after(token, now, is_stopping);
            self.advance_one(token, now);
        }
        // A message whose client has hung up or was refused is not written.
        let Self { queue, clients, .. } = self;
        queue.retain(|(id, _)| clients.values().any(|client| client.awaited() == Some(*id)));
    }

    /// Dismisses a client that has hung up while its message waits, and refuses one that is too late.
    fn look_after(&mut self, token: Token, now: Instant, is_stopping: bool) {
        let Some(client) = self.clients.get(&token).filter(|client| !self.is_under_way(client)) else {
            return;
        };
        let is_late = now.saturating_duration_since(client.since) >= PATIENCE;
        let waits = client.awaited().is_some();
        if (waits && client.stream.has_hung_up()) || (client.is_closing() && is_late) {
            self.dismiss(token);
        } else if is_stopping && (waits || client.is_reading()) {
            self.refuse_by(token, &SubmitError::Stopping, now);
        } else if is_late && waits {
            self.refuse_by(token, &SubmitError::Late, now);
        } else if is_late {
            let text = format!("the message was not handed over within {} s", PATIENCE.as_secs());
            self.refuse(token, sysexits::TEMPORARY, &text, now);
        }
    }

    /// Returns whether the message of a client is being written.
    fn is_under_way(&self, client: &Client<Stream>) -> bool {
        self.under_way.is_some() && client.awaited() == self.under_way
    }

    fn advance_one(&mut self, token: Token, now: Instant) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        match client.advance(self.limit_octets) {
            Progress::Waits => {}
            Progress::HandsOver(submission) => {
                let id = SubmissionId(self.next_id);
                self.next_id += 1;
                client.wait(id, now);
                self.queue.push_back((id, submission));
            }
            Progress::IsWrong(error) => {
                self.refuse(token, error.status(), &error.to_string(), now);
                self.advance_one(token, now);
            }
            Progress::IsOver => self.dismiss(token),
        }
    }

    /// Returns the next message, if none is being written and its user is known, and until when that must have begun.
    pub(crate) fn poll_submission(
        &mut self,
        now: Instant,
    ) -> Option<(SubmissionId, Box<Submission>, Instant)> {
        if self.under_way.is_some() {
            return None;
        }
        self.names.take_answers();
        let &(id, _) = self.queue.front()?;
        let client = self.clients.values().find(|client| client.awaited() == Some(id))?;
        let name = self.names.name_of(client.user, client.since, now)?;
        let (id, mut submission) = self.queue.pop_front()?;
        submission.submitter = format!("local:{name}");
        self.under_way = Some(id);
        Some((id, submission, client.since + PATIENCE))
    }

    /// Returns whether the next message only waits for the name of its user.
    fn waits_for_name(&self) -> bool {
        self.under_way.is_none() && !self.queue.is_empty()
    }

    /// Tells what has become of a message.
    pub(crate) fn tell(&mut self, id: SubmissionId, result: Result<Vec<MailId>, SubmitError>, now: Instant) {
        self.under_way.take_if(|under_way| *under_way == id);
        if let Err(error) = &result
            && error.is_of_all()
        {
            // The others would only wait as long for the same.
            for (id, _) in std::mem::take(&mut self.queue) {
                if let Some(token) = self.client_of(id) {
                    self.refuse_by(token, error, now);
                    self.advance_one(token, now);
                }
            }
        }
        let Some(token) = self.client_of(id) else { return };
        let Some(client) = self.clients.get(&token) else { return };
        match result {
            Ok(ids) => {
                let mails: Vec<i64> = ids.into_iter().map(|id| id.0).collect();
                let name = self.names.name_of(client.user, client.since, now);
                log_taken(&mails, &name.unwrap_or_else(|| client.user.to_string()));
                self.answer(token, &record("submitted", Taken { mails }), now);
            }
            Err(error) => self.refuse_by(token, &error, now),
        }
        self.advance_one(token, now);
    }

    /// Returns the client that waits for a message to be written.
    fn client_of(&self, id: SubmissionId) -> Option<Token> {
        self.clients.iter().find(|(_, client)| client.awaited() == Some(id)).map(|(token, _)| *token)
    }

    fn refuse_by(&mut self, token: Token, error: &SubmitError, now: Instant) {
        self.refuse(token, error.status(), &error.to_string(), now);
    }

    fn refuse(&mut self, token: Token, status: u8, text: &str, now: Instant) {
        self.answer(token, &refusal(status, text), now);
    }

    fn answer(&mut self, token: Token, line: &[u8], now: Instant) {
        if let Some(client) = self.clients.get_mut(&token) {
            client.since = now;
            client.answer(line);
        }
    }

    fn admit(&mut self, mut stream: Stream, now: Instant) {
        let Some(user) = stream.user() else { return };
        if self.clients.len() >= CLIENTS_LIMIT {
            let Some(token) = self.place_for(user) else {
                let text = format!("{CLIENTS_LIMIT} messages are being handed over already; try again");
                return turn_away(Client::new(stream, user, now), &text);
            };
            if let Some(client) = self.dismissed(token) {
                turn_away(client, "other users hand over messages too; try again");
            }
        }
        self.names.ask(user, now);
        let token = self.door.admit(&mut stream, |token| self.clients.contains_key(&token));
        if let Some(token) = token {
            self.clients.insert(token, Client::new(stream, user, now));
        }
    }

    /// Returns the client whose place a user may have, where all are taken: the last one of the user who has most of them, if that is more
    /// than this user would have with it.
    fn place_for(&self, user: Uid) -> Option<Token> {
        let count = |user| self.clients.values().filter(|client| client.user == user).count();
        let may_go = self.clients.iter().filter(|(_, client)| client.awaited().is_none());
        let (token, last) = may_go.max_by_key(|(_, client)| (count(client.user), client.since))?;
        (count(last.user) > count(user) + 1).then_some(*token)
    }

    fn dismiss(&mut self, token: Token) {
        self.dismissed(token);
    }

    fn dismissed(&mut self, token: Token) -> Option<Client<Stream>> {
        let mut client = self.clients.remove(&token)?;
        self.door.dismiss(&mut client.stream);
        Some(client)
    }
}

/// Tells a client that it is not served. There is room for one line in its socket.
fn turn_away(mut client: Client<Stream>, text: &str) {
    let refusal = Refusal { status: sysexits::TEMPORARY, text, full: true };
    client.answer(&record("error", refusal));
    client.advance(0);
}

fn log_taken(mails: &[i64], name: &str) {
    let Some((first, others)) = mails.split_first() else { return };
    match others.len() {
        0 => log::info!("mail {first} was submitted by user {name}"),
        others => log::info!("mail {first} and {others} more were submitted by user {name}"),
    }
}

fn refusal(status: u8, text: &str) -> Vec<u8> {
    record("error", Refusal { status, text, full: false })
}

/// Returns a record, with the end of its line.
fn record(kind: &'static str, fields: impl Serialize) -> Vec<u8> {
    let mut octets = json_record::line(kind, fields).into_bytes();
    octets.push(b'\n');
    octets
}

#[cfg(test)]
mod tests;
