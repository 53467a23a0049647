//! The directive `record`: writes conversations to files that the simulator replays.
//!
//! A file holds one pass over the mail of one next hop, one connection after the other, in the format of the transcripts of
//! `drivers/sim/src/transcript`. Connections that a pass has at the same time get a file each. Secrets, mail data, names and
//! addresses are masked before anything is kept.
//!
//! The dispatcher reports what was sent and received ([`Event::Sent`], [`Event::Received`]), so that each line comes after the
//! one that caused it, even if several lines were read together.

mod lines;
mod mails;
mod mask;
mod pace;
mod scene;
mod shape;
mod talk;
mod track;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use cmail_delivery::dispatcher::Dispatcher;
use cmail_delivery::event::{Event, FailureKind};
use cmail_delivery::io::{CloseReason, ConnectionId, Input, Output, Purpose};
use cmail_delivery::outbox::{Claimed, MailId, StoreReply};
use cmail_delivery::settings::Settings;
use cmail_delivery::system_error::{Breakage, TlsTrouble};
use cmail_delivery::time::{Duration, Instant, Now};
use cmail_delivery::wording::faillog_text;

use self::scene::{Circumstances, Tried};
use self::track::{Moment, Track};
pub use self::writer::{RecordDirectory, RecordError};

/// How long to wait for verdicts after a pass is over.
const VERDICT_PATIENCE: Duration = Duration::from_secs(10);

/// Records what the event loop sees.
#[derive(Debug)]
pub struct Recorder {
    directory: RecordDirectory,
    circumstances: Arc<Circumstances>,
    now: Now,
    /// The number of the call of the dispatcher whose outputs are being seen.
    call: u64,
    deadline: Option<Instant>,
    tracks: BTreeMap<u64, Track>,
    last_track: u64,
    by_connection: BTreeMap<ConnectionId, u64>,
}

impl Recorder {
    /// Creates a recorder that writes into a directory.
    pub fn new(directory: RecordDirectory, settings: &Settings) -> Self {
        Self {
            directory,
            circumstances: Arc::new(Circumstances::new(settings)),
            now: Now::default(),
            call: 0,
            deadline: None,
            tracks: BTreeMap::new(),
            last_track: 0,
            by_connection: BTreeMap::new(),
        }
    }

    /// Records an input, before the dispatcher gets it.
    pub fn input(&mut self, dispatcher: &Dispatcher, now: Now, input: &Input<'_>) {
        self.begin_call(now, None);
        let at = self.moment();
        match input {
            Input::Connected(connection) => self.with(*connection, Track::connected),
            Input::ConnectFailed(connection, error) => {
                self.with(*connection, |track| track.connect_failed(at, error));
            }
            Input::Received(connection, _) => self.learn_seed(dispatcher, *connection),
            Input::TlsEstablished { connection, tls } => {
                self.learn_seed(dispatcher, *connection);
                self.with(*connection, |track| track.tls_established(at, tls));
            }
            Input::TlsFailed(connection, reason) => {
                self.learn_seed(dispatcher, *connection);
                let dropped = match reason.kind {
                    Breakage::Tls(TlsTrouble::Truncated) => Some(CloseReason::EndOfFile),
                    Breakage::Network(_) => Some(CloseReason::Broken(reason.clone())),
                    Breakage::Tls(_) => None,
                };
                self.with(*connection, |track| match &dropped {
                    Some(dropped) => track.lost(at, dropped),
                    None => track.tls_failed(at, &reason.words),
                });
            }
            Input::Closed(connection, reason) => {
                self.learn_seed(dispatcher, *connection);
                self.cut_if_others_go_on(*connection, false);
                self.with(*connection, |track| track.lost(at, reason));
            }
            Input::Store(request, Ok(StoreReply::Claimed(Claimed { transactions, .. }))) => {
                if let Some(connection) = dispatcher.claimant(*request) {
                    self.with(connection, |track| track.claimed(transactions));
                }
            }
            Input::Drain => self.tracks.values_mut().for_each(|track| track.drained(at)),
            // The dispatcher ends the passes that go by others, as in a drain.
            Input::Settings(settings) => {
                let circumstances = Circumstances::new(settings);
                if *self.circumstances != circumstances {
                    self.circumstances = Arc::new(circumstances);
                    self.tracks.values_mut().for_each(|track| track.drained(at));
                }
            }
            Input::Store(..)
            | Input::Signed(..)
            | Input::Https(..)
            | Input::Datagram { .. }
            | Input::DatagramFailed(..)
            | Input::OutboxChanged
            | Input::TryNow
            | Input::Watch(_)
            | Input::Inquiry(..)
            | Input::EndInquiry(_)
            | Input::Hosts(_)
            | Input::Resolver(_) => {}
        }
    }

    /// Records a timeout, before the dispatcher handles it.
    pub fn timeout(&mut self, now: Now, deadline: Instant) {
        self.begin_call(now, Some(deadline));
    }

    /// Notes that octets may have been sent, so that outputs may follow.
    pub fn transmitted(&mut self, now: Now) {
        self.now = now;
    }

    /// Records an output of the dispatcher.
    pub fn output(&mut self, dispatcher: &Dispatcher, output: &Output) {
        let at = self.moment();
        match output {
            Output::Connect { connection, remote, purpose: Purpose::Smtp, .. } => {
                let Some(facts) = dispatcher.connection(*connection) else { return };
                let tried = Tried {
                    host: facts.host.clone(),
                    remote: *remote,
                    tls: facts.tls,
                    has_tlsa: facts.has_tlsa,
                    is_named_by_policy: facts.is_named_by_policy,
                };
                // Mail that a pass leaves undecided goes into the next one at once, also in a replay.
                let goes_on = |track: &Track| {
                    let is_over = track.has_undecided_mails() && !dispatcher.is_under_way(track.pass);
                    track.talk.is_none()
                        && track.is_under(&self.circumstances)
                        && (track.pass == facts.pass || is_over && track.next_hop == *facts.next_hop)
                };
                let known = self.tracks.iter().find(|(_, track)| goes_on(track)).map(|(&number, _)| number);
                let number = known.unwrap_or_else(|| {
                    self.last_track += 1;
                    let track = Track::new(&facts, Arc::clone(&self.circumstances), self.now.wall);
                    self.tracks.insert(self.last_track, track);
                    self.last_track
                });
                self.by_connection.insert(*connection, number);
                if let Some(track) = self.tracks.get_mut(&number) {
                    (track.pass, track.over_since) = (facts.pass, None);
                    track.connecting(at, *connection, *remote, tried);
                }
            }
            Output::StartTls { connection, .. } => {
                self.with(*connection, |track| track.starts_tls(at));
            }
            Output::Close(connection) => {
                self.cut_if_others_go_on(*connection, at.deadline.is_none());
                self.with(*connection, |track| track.closed(at));
                self.by_connection.remove(connection);
            }
            Output::Event(event) => self.event(at, event),
            Output::Connect { .. }
            | Output::Transmit(_)
            | Output::Datagram { .. }
            | Output::CloseDatagram(_)
            | Output::Store(..)
            | Output::Release(_)
            | Output::Sign(..)
            | Output::Https(..)
            | Output::Answer(..)
            | Output::Drained => {}
        }
    }

    /// Ends a call of the dispatcher, whose outputs were all recorded, and writes the records that are complete.
    pub fn settle(&mut self, dispatcher: &Dispatcher, now: Now) {
        self.call += 1;
        self.deadline = None;
        let now = now.monotonic;
        self.tracks.values_mut().for_each(|track| track.settle(now));
        let mut over = Vec::new();
        for (&number, track) in &mut self.tracks {
            if track.talk.is_some() || dispatcher.is_under_way(track.pass) {
                continue;
            }
            let since = *track.over_since.get_or_insert(now);
            let is_told = track.has_mails() && !track.has_undecided_mails();
            if is_told || now >= since + VERDICT_PATIENCE {
                over.push(number);
            }
        }
        for number in over {
            self.write(number);
        }
    }

    /// Writes all records, because nothing more will come.
    pub fn finish(&mut self) {
        while let Some(&number) = self.tracks.keys().next() {
            self.write(number);
        }
    }

    fn event(&mut self, at: Moment, event: &Event) {
        match event {
            Event::Sent(said) => self.with(said.connection, |track| track.sent(at, &said.octets)),
            Event::SentData(said) => self.with(said.connection, |track| track.sent_data(at, &said.octets)),
            Event::Received(said) => self.with(said.connection, |track| track.received(at, &said.octets)),
            Event::Yielded { connection, .. } => {
                self.cut_if_others_go_on(*connection, false);
                self.with(*connection, |track| track.yields(at));
            }
            Event::Delivered { id, .. } => {
                if let Some(track) = self.track_of(*id) {
                    track.delivered(*id);
                }
            }
            Event::Failed { id, next_hop, attempt, kind, .. } => {
                let text = faillog_text(&attempt.result);
                let fatal = *kind == FailureKind::Permanent;
                if self.track_of(*id).is_none() {
                    // All mail for a destination has failed, whether a server was asked about it or not.
                    let is_of_it = |track: &&mut Track| {
                        track.talk.is_none()
                            && next_hop.as_deref().is_some_and(|failed| failed == track.next_hop.to_string())
                            && !track.has_mails()
                    };
                    if let Some(track) = self.tracks.values_mut().find(is_of_it) {
                        track.failed(*id, &text, fatal);
                    }
                } else if let Some(track) = self.track_of(*id) {
                    track.failed(*id, &text, fatal);
                }
            }
            Event::Bounced { .. }
            | Event::Dropped { .. }
            | Event::Warned { .. }
            | Event::Relayed { .. }
            | Event::Note { .. } => {}
        }
    }

    /// Finds the latest record of a mail.
    fn track_of(&mut self, id: MailId) -> Option<&mut Track> {
        self.tracks.values_mut().rev().find(|track| track.knows(id))
    }

    fn with(&mut self, connection: ConnectionId, act: impl FnOnce(&mut Track)) {
        let Some(number) = self.by_connection.get(&connection) else { return };
        let track = self.tracks.get_mut(number);
        // A late event of a lost connection does not concern the connection after it.
        let is_its =
            |track: &&mut Track| track.talk.as_ref().is_some_and(|talk| talk.connection == connection);
        if let Some(track) = track.filter(is_its) {
            act(track);
        }
    }

    fn learn_seed(&mut self, dispatcher: &Dispatcher, connection: ConnectionId) {
        let seed = dispatcher.connection(connection).and_then(|facts| facts.session_seed.cloned());
        if let Some(seed) = seed {
            self.with(connection, |track| track.seeded(&seed));
        }
    }

    /// Ends the record of a connection whose mail other connections take over: a replay of it alone would go differently.
    fn cut_if_others_go_on(&mut self, connection: ConnectionId, is_closed_by_last: bool) {
        let number = self.by_connection.get(&connection);
        let Some(pass) = number.and_then(|number| self.tracks.get(number)).map(|track| track.pass) else {
            return;
        };
        let talks = self.tracks.values().filter(|track| track.pass == pass && track.talk.is_some()).count();
        if talks > 1 {
            self.with(connection, |track| track.cut_if_undecided(is_closed_by_last));
        }
    }

    fn write(&mut self, number: u64) {
        let Some(track) = self.tracks.remove(&number) else { return };
        self.by_connection.retain(|_, of| *of != number);
        let (host, begun) = (track.next_hop.to_string(), track.begun);
        self.directory.write(begun, &host, |head| track.write(head));
    }

    fn begin_call(&mut self, now: Now, deadline: Option<Instant>) {
        self.now = now;
        self.call += 1;
        self.deadline = deadline;
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now.monotonic, call: self.call, deadline: self.deadline }
    }
}
