//! A DNS stub resolver (RFC 1034 section 5.3.1) as a state machine: it asks the configured recursive servers for MX, address, TLSA
//! and TXT records, over UDP and, for truncated answers, over TCP.
//!
//! Each of the functions `lookup_…` begins a lookup, which ends with exactly one [`ResolverOutput::Answer`], unless it is cancelled.
//! It does not validate by DNSSEC itself; it asks the [servers that are believed](crate::settings::NameServer::is_believed) for the AD flag. The `handle_…` calls pass in what the network does. After each of them,
//! drain [`Resolver::poll_output`], and ask [`Resolver::poll_timeout`] when to call [`Resolver::handle_timeout`].

mod answer;
mod cache;
mod chain;
mod failure;
mod lookup;
mod message;
mod query;
mod silence;
mod sockets;

#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};

use crate::address::Domain;
use crate::fair_queue::{FairQueue, Prospect};
use crate::io::{CloseReason, ConnectError, ConnectionId, QueryId};
use crate::rng::Rng;
use crate::settings::{NameServer, ResolverSettings};
use crate::tally::{Counts, LookupResult};
use crate::time::Instant;
pub use answer::{Answer, Canonical, LookupError, MxAnswer, Resolved, Security};
use cache::Cache;
use chain::{Chain, ChainStep, Conclusion, LookupOutcome};
pub use failure::{DnsFailure, DnsQuestion, DnsServerTrouble, LocalLookupError, ResponseCode};
use lookup::{Lookup, LookupEnd, Wanted};
use message::Question;
pub use message::QuestionType;
use query::{Query, QueryContext, QueryProgress};
use silence::{SILENT_QUESTIONS_LIMIT, Silence};
use sockets::{Sockets, TaskId};

/// Most questions that are asked at once, each with a socket. Further ones wait for their turn. If no server answers, only one is
/// asked at a time.
pub const CONCURRENT_QUESTIONS_LIMIT: usize = 256;

/// Identifies a lookup from its beginning to its [`Answer`]. Ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub u64);

/// The families of addresses to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// A records.
    pub ipv4: bool,
    /// AAAA records.
    pub ipv6: bool,
}

/// What to look up. For the names in it see the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupRequest {
    /// The mail hosts of a domain: [`Answer::Mx`].
    Mx(Domain),
    /// The addresses of a host: [`Answer::Addresses`]. Both families are looked up even if only one is usable, because a name with
    /// only the other one does exist.
    Addresses(Domain),
    /// The TLSA records for a TCP port of a host: [`Answer::Tlsa`].
    Tlsa(Domain, u16),
    /// Whether a name is an alias: [`Answer::Alias`].
    Alias(Domain),
}

impl fmt::Display for LookupRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mx(domain) => write!(f, "the MX of {domain}"),
            Self::Addresses(host) => write!(f, "the addresses of {host}"),
            Self::Tlsa(host, port) => write!(f, "the TLSA records of {host} for port {port}"),
            Self::Alias(host) => write!(f, "the CNAME of {host}"),
        }
    }
}

/// A request to the owner of the resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolverOutput {
    /// Send a datagram from a new socket of its own.
    Datagram {
        /// The id of the query and its socket.
        query: QueryId,
        /// The address and port to send to.
        to: SocketAddr,
        /// The DNS message.
        octets: Bytes,
    },
    /// Close a query's socket. Not answered.
    CloseDatagram(QueryId),
    /// Connect by TCP.
    Connect {
        /// The id of the connection.
        connection: ConnectionId,
        /// The address and port to connect to.
        to: SocketAddr,
    },
    /// There are octets to send on a connection. Take them with [`Resolver::poll_transmit`].
    Transmit(ConnectionId),
    /// Close a connection, in any state. Not answered.
    Close(ConnectionId),
    /// A lookup is done.
    Answer(LookupId, Answer),
    /// The servers have become silent, or answer again: a sentence.
    Warning(String),
}

/// A stub resolver.
#[derive(Debug)]
pub struct Resolver {
    settings: ResolverSettings,
    sockets: Sockets,
    cache: Cache,
    lookups: BTreeMap<LookupId, Lookup>,
    next_lookup: u64,
    /// The questions under way. Equal ones are asked once.
    tasks: BTreeMap<TaskId, Task>,
    by_question: BTreeMap<Question, TaskId>,
    /// Those of `tasks` that have not begun.
    waiting: FairQueue<TaskId>,
    silence: Silence,
    next_task: u64,
    /// How questions were answered.
    results: Counts<LookupResult>,
}

/// A question under way.
#[derive(Debug)]
struct Task {
    /// The original question, before any alias.
    question: Question,
    chain: Chain,
    query: Query,
    lookups: BTreeSet<LookupId>,
}

impl Resolver {
    /// Returns a resolver with an empty cache. `rng` decides the ids of queries (RFC 5452 section 4.3).
    pub fn new(settings: ResolverSettings, rng: Rng) -> Self {
        Self {
            settings,
            sockets: Sockets::new(rng),
            cache: Cache::default(),
            lookups: BTreeMap::new(),
            next_lookup: 0,
            tasks: BTreeMap::new(),
            by_question: BTreeMap::new(),
            waiting: FairQueue::new(),
            silence: Silence::default(),
            next_task: 0,
            results: Counts::default(),
        }
    }

    /// Begins the lookup of a request. `prospect` is that of the mail that needs the answer, and decides the order if many lookups wait.
    pub fn lookup(&mut self, now: Instant, request: &LookupRequest, prospect: Prospect) -> LookupId {
        match request {
            LookupRequest::Mx(domain) => self.lookup_mx(now, domain, prospect),
            LookupRequest::Addresses(host) => {
                self.lookup_addresses(now, host, Families { ipv4: true, ipv6: true }, prospect)
            }
            LookupRequest::Tlsa(host, port) => self.lookup_tlsa(now, host, *port, prospect),
            LookupRequest::Alias(host) => self.lookup_alias(now, host, prospect),
        }
    }

    /// Looks up the mail hosts of `domain`, following CNAME records (RFC 5321 section 5.1). `prospect` is that of the mail that
    /// needs the answer, and decides the order if many lookups wait.
    pub fn lookup_mx(&mut self, now: Instant, domain: &Domain, prospect: Prospect) -> LookupId {
        self.begin(now, domain, Wanted::Mx, &[QuestionType::Mx], prospect)
    }

    /// Looks up the addresses of `name`. Both families are asked at the same time, and both are waited for. For `prospect` see
    /// [`Resolver::lookup_mx`].
    pub fn lookup_addresses(
        &mut self,
        now: Instant,
        name: &Domain,
        families: Families,
        prospect: Prospect,
    ) -> LookupId {
        let kinds: &[QuestionType] = match (families.ipv4, families.ipv6) {
            (true, true) => &[QuestionType::Ipv6, QuestionType::Ipv4],
            (true, false) => &[QuestionType::Ipv4],
            (false, true) => &[QuestionType::Ipv6],
            (false, false) => &[],
        };
        self.begin(now, name, Wanted::Addresses, kinds, prospect)
    }

    /// Looks up the TLSA records for the TCP port of a host (RFC 6698 section 3), following CNAME records. For `prospect` see
    /// [`Resolver::lookup_mx`].
    pub fn lookup_tlsa(&mut self, now: Instant, host: &Domain, port: u16, prospect: Prospect) -> LookupId {
        self.begin_with(now, Wanted::Tlsa, tlsa_question(host, port), prospect)
    }

    /// Looks up the TXT records of the name that these labels, with dots between them, make in front of a domain, following CNAME
    /// records. For `prospect` see [`Resolver::lookup_mx`].
    pub fn lookup_texts(
        &mut self,
        now: Instant,
        labels: &str,
        domain: &Domain,
        prospect: Prospect,
    ) -> LookupId {
        self.begin_with(now, Wanted::Texts, Question::below(labels, domain, QuestionType::Txt), prospect)
    }

    /// Looks up whether a name is an alias. For `prospect` see [`Resolver::lookup_mx`].
    pub fn lookup_alias(&mut self, now: Instant, name: &Domain, prospect: Prospect) -> LookupId {
        self.begin_with(now, Wanted::Alias, Question::new(name, QuestionType::Alias), prospect)
    }

    /// Forgets the TLSA records of a host that did not prove itself by them, so that changed ones are seen at once.
    pub fn forget_tlsa(&mut self, host: &Domain, port: u16) {
        if let Some(question) = tlsa_question(host, port) {
            self.cache.forget(&question);
        }
    }

    /// Forgets the TXT records of the name that these labels make in front of a domain, so that changed ones are seen at once.
    pub fn forget_texts(&mut self, labels: &str, domain: &Domain) {
        if let Some(question) = Question::below(labels, domain, QuestionType::Txt) {
            self.cache.forget(&question);
        }
    }

    /// Asks each server that is believed whether it validates. One that answers and does not is told of by a
    /// [`ResolverOutput::Warning`].
    pub fn check_validation(&mut self, now: Instant) {
        let servers: Vec<SocketAddr> = self
            .settings
            .servers
            .iter()
            .filter(|server| server.is_believed)
            .map(|server| server.address)
            .collect();
        for server in servers {
            self.begin_with(
                now,
                Wanted::Validation(server),
                Some(Question::of_root(server)),
                Prospect::Fresh,
            );
        }
    }

    /// Changes the settings, and [checks](Self::check_validation) the servers. Questions under way are asked again if the change makes a difference, and denials and failures are
    /// forgotten.
    pub fn reconfigure(&mut self, now: Instant, settings: ResolverSettings) {
        self.cache.forget_failures();
        self.silence = Silence::default();
        if self.settings == settings {
            return self.check_validation(now);
        }
        let believed = |settings: &ResolverSettings| -> Vec<NameServer> {
            settings.servers.iter().filter(|server| server.is_believed).copied().collect()
        };
        if believed(&self.settings) != believed(&settings) {
            // What was found so far says nothing of its security, or says it by others' word.
            self.cache = Cache::default();
        }
        self.settings = settings;
        let under_way: Vec<TaskId> =
            self.tasks.keys().filter(|id| !self.waiting.contains(id)).copied().collect();
        for id in under_way {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.query.stop(&mut self.sockets);
                task.query = Query::new(id, task.question.clone());
                task.chain = Chain::new(task.question.clone());
            }
            self.run(now, id, |query, context| query.next_server(context));
        }
        self.start_waiting(now);
        self.check_validation(now);
    }

    /// Cancels a lookup. It gets no answer.
    pub fn cancel(&mut self, lookup: LookupId) {
        self.sockets.withdraw_answer(lookup);
        let Some(cancelled) = self.lookups.remove(&lookup) else { return };
        for task_id in cancelled.tasks {
            let Some(task) = self.tasks.get_mut(&task_id) else { continue };
            task.lookups.remove(&lookup);
            if task.lookups.is_empty() {
                self.remove_task(task_id);
            }
        }
    }

    /// Processes a datagram received on the query's socket.
    pub fn handle_datagram(&mut self, now: Instant, query: QueryId, from: SocketAddr, octets: &[u8]) {
        let task = self.sockets.task_of_query(query);
        self.advance(now, task, |query, context| query.handle_datagram(context, from, octets));
    }

    /// Handles a datagram that could not be sent, or an unreachable server.
    pub fn handle_datagram_failed(&mut self, now: Instant, query: QueryId, error: ConnectError) {
        let task = self.sockets.task_of_query(query);
        self.advance(now, task, |query, context| query.handle_unreachable(context, error, false));
    }

    /// Handles an established TCP connection.
    pub fn handle_connected(&mut self, _now: Instant, connection: ConnectionId) {
        if self.sockets.task_of_connection(connection).is_some() {
            self.sockets.transmit(connection);
        }
    }

    /// Handles a TCP connection that could not be made.
    pub fn handle_connect_failed(&mut self, now: Instant, connection: ConnectionId, error: ConnectError) {
        let task = self.sockets.task_of_connection(connection);
        self.advance(now, task, |query, context| query.handle_unreachable(context, error, true));
    }

    /// Processes octets from a server over TCP, in any portions.
    pub fn handle_received(&mut self, now: Instant, connection: ConnectionId, octets: &[u8]) {
        let task = self.sockets.task_of_connection(connection);
        self.advance(now, task, |query, context| query.handle_received(context, octets));
    }

    /// Handles a TCP connection that is closed or broken.
    pub fn handle_closed(&mut self, now: Instant, connection: ConnectionId, reason: CloseReason) {
        let task = self.sockets.task_of_connection(connection);
        self.advance(now, task, |query, context| query.handle_closed(context, reason));
    }

    /// Does what is due. An early call does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((deadline, task)) = self.sockets.earliest_deadline()
            && deadline <= now
        {
            // In case the task that had set the deadline is gone.
            self.sockets.clear_deadline(task, deadline);
            self.advance(now, Some(task), |query, context| query.handle_timeout(context));
        }
        self.start_waiting(now);
    }

    /// Returns the next output. Call it until it returns `None`, after every other call.
    pub fn poll_output(&mut self) -> Option<ResolverOutput> {
        self.sockets.outputs.pop_front()
    }

    /// Appends at most `limit` octets that are to be sent on a connection. Returns whether anything was appended; call it until
    /// it returns false.
    pub fn poll_transmit(&mut self, connection: ConnectionId, limit: usize, octets: &mut BytesMut) -> bool {
        let task = self.sockets.task_of_connection(connection).and_then(|task| self.tasks.get_mut(&task));
        let Some(outgoing) = task.and_then(|task| task.query.outgoing()) else { return false };
        let count = outgoing.len().min(limit);
        octets.extend_from_slice(outgoing.get(..count).unwrap_or_default());
        outgoing.advance(count);
        count > 0
    }

    /// Returns whether a connection is or was the resolver's. Its ids are the odd numbers, and the dispatcher gives even ones to
    /// its own connections, so that neither needs to know the ids of the other.
    pub fn owns_connection(&self, connection: ConnectionId) -> bool {
        connection.0 % 2 == 1
    }

    /// Returns when to call [`Resolver::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.may_start() && !self.waiting.is_empty() {
            // A lookup was cancelled, so the next one may begin at once.
            return Some(Instant::default());
        }
        self.sockets.earliest_deadline().map(|(deadline, _)| deadline)
    }

    /// Returns whether no lookup is under way that somebody waits for, and no output is left.
    pub fn is_idle(&self) -> bool {
        self.lookups.values().all(Lookup::is_about_server) && self.sockets.outputs.is_empty()
    }

    /// Returns how questions were answered since the start.
    pub fn results(&self) -> &Counts<LookupResult> {
        &self.results
    }

    fn begin(
        &mut self,
        now: Instant,
        domain: &Domain,
        wanted: Wanted,
        kinds: &[QuestionType],
        prospect: Prospect,
    ) -> LookupId {
        let questions = kinds.iter().filter_map(|kind| Question::new(domain, *kind));
        self.begin_with(now, wanted, questions, prospect)
    }

    fn begin_with(
        &mut self,
        now: Instant,
        wanted: Wanted,
        questions: impl IntoIterator<Item = Question>,
        prospect: Prospect,
    ) -> LookupId {
        let id = LookupId(self.next_lookup);
        self.next_lookup += 1;
        let mut lookup = Lookup::new(wanted);
        for question in questions {
            if let Some((conclusion, _)) = self.cache.find(now, &question) {
                self.results.add(LookupResult::Cached);
                lookup.conclusions.push(conclusion);
            } else {
                lookup.tasks.insert(self.join_task(question, id, prospect));
            }
        }
        self.lookups.insert(id, lookup);
        self.answer_if_done(id);
        self.start_waiting(now);
        id
    }

    /// Returns the task that asks this question. Adds one if there is none.
    fn join_task(&mut self, question: Question, lookup: LookupId, prospect: Prospect) -> TaskId {
        let id = self.by_question.get(&question).copied().unwrap_or(TaskId(self.next_task));
        if let Some(task) = self.tasks.get_mut(&id) {
            task.lookups.insert(lookup);
            if self.waiting.contains(&id) {
                self.waiting.push(id, prospect);
            }
            return id;
        }
        self.next_task += 1;
        self.by_question.insert(question.clone(), id);
        let chain = Chain::new(question.clone());
        let query = Query::new(id, question.clone());
        self.tasks.insert(id, Task { question, chain, query, lookups: BTreeSet::from([lookup]) });
        self.waiting.push(id, prospect);
        id
    }

    fn may_start(&self) -> bool {
        let limit = if self.silence.is_complete() { 1 } else { CONCURRENT_QUESTIONS_LIMIT };
        self.tasks.len().saturating_sub(self.waiting.len()) < limit
    }

    fn start_waiting(&mut self, now: Instant) {
        while self.may_start()
            && let Some(id) = self.silence.next(&mut self.waiting)
        {
            self.run(now, id, |query, context| query.next_server(context));
        }
    }

    /// Lets a query process an event.
    fn advance(
        &mut self,
        now: Instant,
        task: Option<TaskId>,
        event: impl FnOnce(&mut Query, &mut QueryContext<'_>) -> QueryProgress,
    ) {
        if let Some(id) = task {
            self.run(now, id, event);
            self.start_waiting(now);
        }
    }

    fn run(
        &mut self,
        now: Instant,
        id: TaskId,
        event: impl FnOnce(&mut Query, &mut QueryContext<'_>) -> QueryProgress,
    ) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let mut context =
            QueryContext { now, settings: &self.settings, sockets: &mut self.sockets, has_heard: false };
        let mut progress = event(&mut task.query, &mut context);
        let mut is_silence = false;
        let end = loop {
            match progress {
                QueryProgress::Waiting => break None,
                QueryProgress::Silence(failure) => {
                    is_silence = true;
                    break Some((task.chain.conclusion(LookupOutcome::Failed(failure)), None));
                }
                QueryProgress::Failed(failure) => {
                    break Some((task.chain.conclusion(LookupOutcome::Failed(failure)), None));
                }
                QueryProgress::Local(error) => {
                    break Some((task.chain.conclusion(LookupOutcome::Local(error)), None));
                }
                QueryProgress::Answered(message, security) => match task.chain.follow(&message, security) {
                    ChainStep::End(outcome, ttl_s) => break Some((task.chain.conclusion(outcome), ttl_s)),
                    ChainStep::Unusable(trouble) => {
                        progress = task.query.server_failed(&mut context, trouble);
                    }
                    ChainStep::AskAgain => {
                        let question = task.chain.question();
                        if let Some((known, left_s)) = self.cache.find(now, question) {
                            let ttl_s = left_s.min(task.chain.ttl_s());
                            break Some((task.chain.concluded_by(known), Some(ttl_s)));
                        }
                        task.query.stop(context.sockets);
                        task.query = Query::new(id, question.clone());
                        progress = task.query.next_server(&mut context);
                    }
                },
            }
        };
        if context.has_heard && self.silence.end() {
            let text = "a name server answers again: all mail that waits for DNS goes on";
            self.sockets.outputs.push_back(ResolverOutput::Warning(text.into()));
        }
        if is_silence && self.silence.extend() {
            self.warn_of_silence();
        }
        if let Some((conclusion, ttl_s)) = end {
            self.finish(now, id, &conclusion, ttl_s);
        }
    }

    fn warn_of_silence(&mut self) {
        let servers: Vec<String> = self.settings.servers.iter().map(|server| format!("{server}")).collect();
        let text = format!(
            "no name server ({}) has answered any of the last {SILENT_QUESTIONS_LIMIT} questions: one question at a time is \
             asked until one answers, and all mail that waits for DNS goes on waiting; check the name servers and the network",
            servers.join(", ")
        );
        self.sockets.outputs.push_back(ResolverOutput::Warning(text));
    }

    fn finish(&mut self, now: Instant, id: TaskId, conclusion: &Conclusion, ttl_s: Option<u32>) {
        let Some(task) = self.remove_task(id) else { return };
        self.results.add(conclusion.outcome.result());
        for lookup_id in task.lookups {
            if let Some(lookup) = self.lookups.get_mut(&lookup_id) {
                lookup.tasks.remove(&id);
                lookup.conclusions.push(conclusion.clone());
            }
            self.answer_if_done(lookup_id);
        }
        if !self.settings.servers.is_empty() {
            self.cache.insert(now, task.question, conclusion.clone(), ttl_s);
        }
    }

    fn remove_task(&mut self, id: TaskId) -> Option<Task> {
        self.waiting.remove(&id);
        let mut task = self.tasks.remove(&id)?;
        task.query.stop(&mut self.sockets);
        self.by_question.remove(&task.question);
        Some(task)
    }

    fn answer_if_done(&mut self, id: LookupId) {
        if self.lookups.get(&id).is_some_and(|lookup| lookup.tasks.is_empty())
            && let Some(lookup) = self.lookups.remove(&id)
        {
            match lookup.end() {
                LookupEnd::Answer(answer) => {
                    self.sockets.outputs.push_back(ResolverOutput::Answer(id, answer))
                }
                LookupEnd::DoesNotValidate(server) => self.warn_of_missing_validation(server),
                LookupEnd::Silent => {}
            }
        }
    }

    fn warn_of_missing_validation(&mut self, server: SocketAddr) {
        let text = format!(
            "name server {server} does not validate by DNSSEC, or does not say so: nothing that it answers counts as secure, so DANE \
             has no effect; use a resolver that validates, such as unbound on this machine, or set `dnssec off`"
        );
        self.sockets.outputs.push_back(ResolverOutput::Warning(text));
    }
}

/// Returns the question for the TLSA records of a port. Returns `None` if the name were too long.
fn tlsa_question(host: &Domain, port: u16) -> Option<Question> {
    Question::below(&format!("_{port}._tcp"), host, QuestionType::Tlsa)
}
