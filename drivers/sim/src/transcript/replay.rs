//! The executor of replays: the same core, one connection after the other, and time that passes only when a line says so.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use cmail_delivery::io::{CloseReason, ConnectError, ConnectionId, Input, Output, Purpose};
use cmail_delivery::memory_outbox::MemoryOutbox;
use cmail_delivery::outbox::{Commit, RequestId, StoreError, StoreReply, StoreRequest, StoreTrouble};
use cmail_delivery::system_error::{MachineTrouble, NetworkTrouble, SystemError, TlsTrouble};
use cmail_delivery::time::{Instant, Now, UnixTime};
use cmail_delivery::{Dispatcher, Mode};

use super::observed::Observed;
use super::scene::is_name_server;
use super::{Action, Given, Incident, Transcript, TranscriptError};
use crate::dialogue::Dialogue;
use crate::dice::Dice;
use crate::dkim;
use crate::dns::Dns;
use crate::facts::{CLOSED_IN_HANDSHAKE, Fact, Link, Origin, Parting, Scene, Shown, reset, tls_failure};
use crate::mutation::Mutation;
use crate::outbox::{MailKey, compose_bounces, inserted};
use crate::signatures;
use crate::talk::{Accepted, Talk};
use crate::web::unreachable_host;
use crate::witness::{Violation, Witness};

/// The wall clock at the beginning: 2026-01-01 00:00:00 UTC.
const BEGIN: i64 = 1_767_225_600;
/// Calls at one instant after which the core counts as spinning.
const CALLS_LIMIT: u32 = 1000;
/// Longest time in which a client must give up.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);
/// Deadlines this near pass by themselves: no line says how long the end of a message waits after the rest.
const SHORT_PAUSE: Duration = Duration::from_millis(50);
/// Most octets that are taken at once.
const TRANSMIT_LIMIT: usize = 16 * 1024;

/// The way in which the server's octets arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    AsWritten,
    OctetByOctet,
    /// Consecutive lines arrive together.
    Together,
}

/// The connection that lines are about.
#[derive(Debug)]
struct Current {
    link: Link,
    talk: Talk,
    is_made: bool,
    is_handshaking: bool,
    is_tls: bool,
}

/// What goes wrong next.
#[derive(Debug, Default)]
struct Faults {
    /// The next commit.
    store: bool,
    /// Connections that are asked for are refused: the world after a break.
    refuses: bool,
    /// The octets that the network takes of the next message.
    takes: Option<usize>,
}

/// A replay.
#[derive(Debug)]
pub(super) struct Replay<'a> {
    transcript: &'a Transcript,
    mutation: Mutation,
    dispatcher: Option<Dispatcher>,
    epoch: u32,
    now: Now,
    outbox: MemoryOutbox,
    dns: Dns,
    current: Option<Current>,
    requests: VecDeque<(RequestId, StoreRequest)>,
    faults: Faults,
    witness: Witness,
    observed: Observed,
}

impl<'a> Replay<'a> {
    /// Replays a transcript. Returns the lines observed before the first action and after each. `written` is those of the replay
    /// as written.
    pub(super) fn run(
        transcript: &'a Transcript,
        manner: Manner,
        written: Option<&[Vec<String>]>,
    ) -> Result<Vec<Vec<String>>, TranscriptError> {
        let mut replay = Self::begin(transcript, Mutation::None);
        let observed = replay.go_through(manner, written)?;
        replay.verdict(&format!("{manner:?}"))?;
        Ok(observed)
    }

    /// Replays with a build until it breaks a rule. Returns the observed lines, and the rule if it broke one.
    pub(super) fn run_build(
        transcript: &'a Transcript,
        mutation: Mutation,
    ) -> Result<(Vec<Vec<String>>, Option<Violation>), TranscriptError> {
        let mut replay = Self::begin(transcript, mutation);
        let observed = replay.go_through(Manner::AsWritten, None)?;
        Ok((observed, replay.witness.violation))
    }

    fn go_through(
        &mut self,
        manner: Manner,
        written: Option<&[Vec<String>]>,
    ) -> Result<Vec<Vec<String>>, TranscriptError> {
        let replay = self;
        let mut observed = vec![replay.observed.take()];
        let mut pending: Vec<u8> = Vec::new();
        let actions: Vec<(&Given, &Action)> = replay.transcript.actions().collect();
        for (index, (line, action)) in actions.iter().enumerate() {
            // Nothing after a broken rule proves anything.
            if replay.witness.violation.is_some() {
                break;
            }
            match action {
                Action::Octets(octets) if manner == Manner::Together => {
                    pending.extend_from_slice(octets);
                    let is_quiet = written.and_then(|all| all.get(index + 1)).is_some_and(Vec::is_empty);
                    let goes_on = matches!(actions.get(index + 1), Some((_, Action::Octets(_))));
                    // Mail data is shown only at its end.
                    if !(is_quiet && goes_on && replay.faults.takes.is_none()) {
                        replay.octets(line, &std::mem::take(&mut pending))?;
                    }
                }
                Action::Octets(octets) if manner == Manner::OctetByOctet => {
                    replay.octet_by_octet(line, octets)?;
                }
                Action::Octets(octets) => replay.octets(line, octets)?,
                Action::Pass(span) => replay.pass(*span, false),
                Action::Incident(incident) => replay.incident(line, incident)?,
            }
            observed.push(replay.observed.take());
        }
        Ok(observed)
    }

    /// Replays the first actions, breaks the connection, and lets two hours pass in which no other is made.
    pub(super) fn run_and_break(transcript: &'a Transcript, count: usize) -> Result<(), TranscriptError> {
        let mut replay = Self::begin(transcript, Mutation::None);
        for (line, action) in transcript.actions().take(count) {
            match action {
                Action::Octets(octets) => replay.octets(line, octets)?,
                Action::Pass(span) => replay.pass(*span, false),
                Action::Incident(incident) => replay.incident(line, incident)?,
            }
        }
        replay.faults.refuses = true;
        replay.lose(CloseReason::Broken(reset("connection reset by peer")));
        replay.pass(Duration::from_secs(7200), false);
        replay.verdict(&format!("when the connection breaks after action {count}"))
    }

    fn begin(transcript: &'a Transcript, mutation: Mutation) -> Self {
        let mut replay = Self {
            transcript,
            mutation,
            dispatcher: None,
            epoch: 0,
            now: Now::new(Instant::from_micros(0), UnixTime(BEGIN)),
            outbox: transcript.scene.outbox(),
            dns: Dns::new(Dice::new(transcript.scene.seed), false),
            current: None,
            requests: VecDeque::new(),
            faults: Faults::default(),
            witness: Witness::new(Dialogue::Off),
            observed: Observed::default(),
        };
        for id in transcript.scene.ids() {
            replay.see(Fact::Inserted { id, origin: Origin::Submitted });
        }
        replay.start();
        replay
    }

    fn start(&mut self) {
        self.epoch += 1;
        self.outbox.release_all();
        self.see(Fact::Started { epoch: self.epoch, is_pass: false });
        let mut seed = [0; 32];
        let numbers = [self.transcript.scene.seed, u64::from(self.epoch)];
        for (octets, number) in seed.chunks_mut(8).zip(numbers) {
            octets.copy_from_slice(&number.to_le_bytes());
        }
        let scene = &self.transcript.scene;
        let settings = self.mutation.settings(scene.settings.clone());
        let file = &scene.hosts_file;
        self.see(Fact::HostsRead { file });
        let file = self.mutation.hosts_file(file.clone());
        let mut dispatcher = Dispatcher::new(self.now, settings, file, scene.mode(), seed);
        dispatcher.preset_session_seeds(scene.sessions.iter().cloned());
        self.dispatcher = Some(dispatcher);
        self.settle();
    }

    fn verdict(&self, when: &str) -> Result<(), TranscriptError> {
        match &self.witness.violation {
            None => Ok(()),
            Some(violation) => Err(TranscriptError::Violation {
                when: when.to_owned(),
                violation: crate::swarm::describe(violation),
            }),
        }
    }

    fn see(&mut self, fact: Fact<'_>) {
        let scene = Scene {
            now: self.now,
            said_since: self.now.monotonic,
            settings: &self.transcript.scene.settings,
            earlier_settings: &[],
            outbox: &self.outbox,
            map: &self.transcript.scene.map,
        };
        self.witness.see(&scene, fact);
    }

    fn call(&mut self, input: Input<'_>) {
        if let Some(dispatcher) = &mut self.dispatcher {
            dispatcher.handle_input(self.now, input);
        }
        self.settle();
    }

    /// Does everything that takes no time.
    fn settle(&mut self) {
        for _ in 0..CALLS_LIMIT {
            while let Some(output) = self.dispatcher.as_mut().and_then(Dispatcher::poll_output) {
                self.take_output(output);
            }
            if let Some((id, request)) = self.requests.pop_front() {
                self.answer(id, &request);
                continue;
            }
            let due = self.dispatcher.as_ref().and_then(Dispatcher::poll_timeout);
            let Some((at, _)) = due.filter(|&(at, _)| at <= self.now.monotonic + SHORT_PAUSE) else { return };
            self.advance(at);
            if let Some(dispatcher) = &mut self.dispatcher {
                dispatcher.handle_timeout(self.now);
            }
        }
        self.see(Fact::Spins);
    }

    fn take_output(&mut self, output: Output) {
        match output {
            Output::Connect { connection, remote, purpose, local: _ } => {
                let link = Link { epoch: self.epoch, id: connection };
                if purpose == Purpose::Dns || is_name_server(remote) {
                    return self.fail_connection(connection, "DNS over TCP is not in the scene");
                }
                self.see(Fact::Connecting { link, remote, purpose });
                self.observed.push(format!("C+ {remote}"));
                if self.faults.refuses {
                    self.see(Fact::Gone { link, parting: Parting::Refused });
                    return self.fail_connection(connection, "connection refused");
                }
                self.faults.takes = None;
                let talk = Talk::new();
                self.current =
                    Some(Current { link, talk, is_made: false, is_handshaking: false, is_tls: false });
            }
            Output::StartTls { connection, terms, groups } => {
                self.observed.push(format!("C^ {}", terms.server));
                self.see(Fact::StartTls { link: Link { epoch: self.epoch, id: connection }, groups });
                if let Some(current) = &mut self.current {
                    current.is_handshaking = true;
                }
            }
            Output::Transmit(connection) => self.transmit(connection),
            Output::Close(connection) => {
                let link = Link { epoch: self.epoch, id: connection };
                self.see(Fact::Gone { link, parting: Parting::Closed });
                if self.current.as_ref().is_some_and(|current| current.link == link) {
                    self.end_talk("C-");
                }
            }
            Output::Datagram { query, to, octets } => {
                let answer = self.dns.answer(self.now.monotonic, &self.transcript.scene.map, &octets);
                if let Some(dispatcher) = &mut self.dispatcher {
                    dispatcher.handle_input(self.now, Input::Datagram { query, from: to, octets: &answer });
                }
            }
            Output::CloseDatagram(_) => {}
            Output::Store(id, request) => {
                self.see(Fact::Asked { id, request: &request });
                self.requests.push_back((id, request));
            }
            Output::Release(ids) => {
                self.see(Fact::Released { ids: &ids });
                self.outbox.release(&ids);
            }
            Output::Sign(id, digests) => {
                if let Some(dispatcher) = &mut self.dispatcher {
                    dispatcher.handle_input(self.now, Input::Signed(id, signatures::made(&digests)));
                }
            }
            Output::Https(id, _) => {
                if let Some(dispatcher) = &mut self.dispatcher {
                    dispatcher.handle_input(self.now, Input::Https(id, Err(unreachable_host())));
                }
            }
            Output::Event(event) => self.see(Fact::Log(&event)),
            Output::Answer(..) => {}
            Output::Drained => {
                // The end of a pass is expected.
                if self.transcript.scene.mode() == Mode::Daemon {
                    self.observed.push("= the daemon has ended".into());
                }
                self.see(Fact::Stopped { crashed: false });
                self.dispatcher = None;
            }
        }
    }

    fn fail_connection(&mut self, connection: ConnectionId, text: &str) {
        if let Some(dispatcher) = &mut self.dispatcher {
            let error = ConnectError::remote(NetworkTrouble::Refused, text);
            dispatcher.handle_input(self.now, Input::ConnectFailed(connection, error));
        }
    }

    fn transmit(&mut self, connection: ConnectionId) {
        let link = Link { epoch: self.epoch, id: connection };
        let mut octets = BytesMut::new();
        loop {
            let limit = self.transmit_limit();
            let Some(dispatcher) = self.dispatcher.as_mut().filter(|_| limit > 0) else { return };
            if !dispatcher.poll_transmit(self.now, connection, limit, &mut octets) {
                return;
            }
            let Some(current) = self.current.as_mut().filter(|current| current.link == link) else { return };
            let (tls, mut sent) = (current.is_tls, octets.split());
            self.mutation.sent(&mut sent, false);
            let lines = current.talk.sent(&sent);
            self.observed.extend(lines);
            if let Some(event) = self.mutation.log(&sent) {
                self.see(Fact::Log(&event));
            }
            self.see(Fact::Sent { link, octets: &sent, tls });
        }
    }

    /// Returns how many octets the network takes now.
    fn transmit_limit(&self) -> usize {
        let sent = self.current.as_ref().and_then(|current| current.talk.data_octets());
        match (self.faults.takes, sent) {
            (Some(takes), Some(sent)) => takes.saturating_sub(sent).min(TRANSMIT_LIMIT),
            (None, _) | (_, None) => TRANSMIT_LIMIT,
        }
    }

    fn answer(&mut self, id: RequestId, request: &StoreRequest) {
        let result = if let StoreRequest::Commit(commit) = request {
            self.commit(&self.mutation.commit(commit.clone()))
        } else {
            let result = self.outbox.answer(request.clone());
            if let Ok(reply) = &result {
                self.see(Fact::Answered { reply });
            }
            result
        };
        self.see(Fact::Told { id, done: result.is_ok() });
        if let Some(dispatcher) = &mut self.dispatcher {
            dispatcher.handle_input(self.now, Input::Store(id, result));
        }
    }

    fn commit(&mut self, commit: &Commit) -> Result<StoreReply, StoreError> {
        // What connections send next is not what fails.
        if !commit.has_no_verdict() && std::mem::take(&mut self.faults.store) {
            self.observed.push("= the database is locked".into());
            return Err(StoreError { trouble: StoreTrouble::Busy, text: "database is locked".into() });
        }
        let bounces = compose_bounces(commit);
        self.see(Fact::Committing { commit, bounces: &bounces });
        self.observed.note_commit(commit);
        let reply = self.outbox.answer(StoreRequest::Commit(commit.clone()))?;
        if let StoreReply::Committed(committed) = &reply {
            for (id, origin) in inserted(&commit.replaced, committed) {
                self.observed.note_inserted(id, origin);
                self.see(Fact::Inserted { id, origin });
            }
        }
        Ok(reply)
    }

    /// Returns the connection of a line. Makes it if necessary.
    fn connection(&mut self, line: &Given) -> Result<Link, TranscriptError> {
        let Some(current) = &mut self.current else {
            return Err(TranscriptError::impossible(line, "there is no connection"));
        };
        let link = current.link;
        if !current.is_made {
            current.is_made = true;
            self.call(Input::Connected(link.id));
        }
        Ok(link)
    }

    fn octet_by_octet(&mut self, line: &Given, octets: &[u8]) -> Result<(), TranscriptError> {
        if octets.is_empty() {
            return self.octets(line, octets);
        }
        let octets = self.filled_in(line, octets)?;
        for (index, octet) in octets.iter().enumerate() {
            // After the client has ended, no line is read any more.
            if self.current.is_none() && index > 0 {
                return Ok(());
            }
            self.octets(line, &[*octet])?;
        }
        Ok(())
    }

    fn octets(&mut self, line: &Given, octets: &[u8]) -> Result<(), TranscriptError> {
        let link = self.connection(line)?;
        let octets = &self.filled_in(line, octets)?;
        let accepted = self.current.as_mut().map(|current| current.talk.received(octets));
        for Accepted { number, recipients, data } in accepted.into_iter().flatten() {
            let keys = MailKey::all(&recipients, dkim::divide(&data).1);
            self.see(Fact::Accepted { link, number, recipients: &recipients, data: &data, keys: &keys });
        }
        self.see(Fact::Received { link, octets });
        if self.mutation.misreads(octets) {
            self.lose(CloseReason::Broken(reset("misread")));
            return Ok(());
        }
        self.call(Input::Received(link.id, octets));
        Ok(())
    }

    /// Returns the server's octets, with its proof filled in.
    fn filled_in(&mut self, line: &Given, octets: &[u8]) -> Result<Vec<u8>, TranscriptError> {
        let password = self.transcript.scene.password().unwrap_or_default();
        match &mut self.current {
            Some(current) => current
                .talk
                .filled_in(octets, password)
                .map_err(|reason| TranscriptError::impossible(line, &reason)),
            None => Ok(octets.to_vec()),
        }
    }

    /// Lets the core give up the connection, as if others needed its place.
    fn give_up(&mut self, line: &Given) -> Result<(), TranscriptError> {
        let Some(current) = &self.current else {
            return Err(TranscriptError::impossible(line, "there is no connection"));
        };
        let connection = current.link.id;
        if let Some(dispatcher) = &mut self.dispatcher {
            dispatcher.give_up_connection(self.now, connection);
        }
        self.settle();
        Ok(())
    }

    fn incident(&mut self, line: &Given, incident: &Incident) -> Result<(), TranscriptError> {
        match incident {
            &Incident::Tls(facts) => {
                let shown = Shown::told_by(&facts);
                let link = self.handshake(line)?;
                self.see(Fact::TlsEstablished { link, shown });
                self.call(Input::TlsEstablished { connection: link.id, tls: facts });
            }
            Incident::TlsFailed(words) => {
                let link = self.handshake(line)?;
                self.end_talk("");
                self.see(Fact::Gone { link, parting: Parting::TlsFailed });
                self.call(Input::TlsFailed(link.id, tls_failure(words)));
            }
            Incident::NotConnected(trouble, words) => {
                self.refuse(line, ConnectError::remote(*trouble, words.as_str()))?;
            }
            Incident::Local(words) => {
                self.refuse(line, ConnectError::local(MachineTrouble::Other, words.as_str()))?
            }
            Incident::Eof => {
                self.connection(line)?;
                self.lose(CloseReason::EndOfFile);
            }
            Incident::Reset(words) => {
                self.connection(line)?;
                self.lose(CloseReason::Broken(reset(words)));
            }
            Incident::Takes(octets) => {
                self.faults.takes = Some(*octets);
                if let Some(link) = self.current.as_ref().map(|current| current.link) {
                    self.transmit(link.id);
                    self.settle();
                }
            }
            Incident::Stall => self.pass(PATIENCE, true),
            Incident::Yield => self.give_up(line)?,
            Incident::StoreFails => self.faults.store = true,
            Incident::Crash => self.crash(),
            Incident::Drain => {
                self.see(Fact::Draining);
                self.call(Input::Drain);
            }
            Incident::TryNow => {
                self.see(Fact::Ordered);
                self.call(Input::TryNow);
            }
        }
        Ok(())
    }

    fn handshake(&mut self, line: &Given) -> Result<Link, TranscriptError> {
        let link = self.connection(line)?;
        let Some(current) = self.current.as_mut().filter(|current| current.is_handshaking) else {
            return Err(TranscriptError::impossible(line, "no TLS handshake has begun"));
        };
        current.is_handshaking = false;
        current.is_tls = true;
        current.talk.tls_established();
        Ok(link)
    }

    fn refuse(&mut self, line: &Given, error: ConnectError) -> Result<(), TranscriptError> {
        let Some(current) = self.current.take().filter(|current| !current.is_made) else {
            return Err(TranscriptError::impossible(line, "no connection is being made"));
        };
        self.see(Fact::Gone { link: current.link, parting: Parting::Refused });
        self.call(Input::ConnectFailed(current.link.id, error));
        Ok(())
    }

    fn lose(&mut self, reason: CloseReason) {
        let Some(current) = &self.current else { return };
        let (link, was_handshaking) = (current.link, current.is_handshaking);
        self.end_talk("");
        let parting = match &reason {
            _ if was_handshaking => Parting::TlsDropped,
            CloseReason::EndOfFile => Parting::EndOfFile,
            CloseReason::Broken(_) => Parting::Reset,
        };
        self.see(Fact::Gone { link, parting });
        self.call(match reason {
            reason if !was_handshaking => Input::Closed(link.id, reason),
            CloseReason::EndOfFile => {
                Input::TlsFailed(link.id, SystemError::new(TlsTrouble::Truncated, CLOSED_IN_HANDSHAKE))
            }
            CloseReason::Broken(error) => Input::TlsFailed(link.id, error),
        });
    }

    /// Ends the conversation: notes what it leaves unfinished, and which side closed it.
    fn end_talk(&mut self, by: &str) {
        if let Some(mut current) = self.current.take() {
            self.observed.extend(current.talk.end());
            if !by.is_empty() {
                self.observed.push(by.to_owned());
            }
        }
    }

    fn crash(&mut self) {
        self.end_talk("");
        self.requests.clear();
        self.dispatcher = None;
        self.see(Fact::Stopped { crashed: true });
        self.start();
    }

    /// Lets time pass, or only until the connection is closed.
    fn pass(&mut self, span: Duration, until_closed: bool) {
        let begin = self.now.monotonic;
        let end = begin + span;
        let concerned = self.current.as_ref().map(|current| current.link);
        while let Some((at, _)) = self.dispatcher.as_ref().and_then(Dispatcher::poll_timeout) {
            if at > end || (until_closed && self.current.as_ref().map(|current| current.link) != concerned) {
                break;
            }
            self.advance(at);
            let before = self.observed.len();
            if let Some(dispatcher) = &mut self.dispatcher {
                dispatcher.handle_timeout(self.now);
            }
            self.settle();
            self.observed.note_time(before, self.now.monotonic.saturating_duration_since(begin));
        }
        if !until_closed {
            self.advance(end);
            self.settle();
        }
    }

    fn advance(&mut self, to: Instant) {
        let to = to.max(self.now.monotonic);
        let seconds = i64::try_from(to.as_micros() / 1_000_000).unwrap_or(i64::MAX);
        self.now = Now::new(to, UnixTime(BEGIN + seconds));
    }
}
