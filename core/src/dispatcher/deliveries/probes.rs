//! Probes: deliveries of a single transaction that ends after RCPT. They count towards every limit, and change nothing of what is known
//! of mail, destinations and servers.

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use super::Deliveries;
use super::destinations::Destinations;
use super::host_slots::{HostSlots, Owner, SlotRefusal, SlotRequest};
use super::policy_desk::Asker;
use crate::delivery::{Admission, Delivery, DeliveryContext, DeliveryOutput, Permission, Upcoming};
use crate::dispatcher::books::Books;
use crate::event::{Event, EventName, Level, Said};
use crate::explanation::Answer;
use crate::fair_queue::Prospect;
use crate::ids::InquiryId;
use crate::io::{ConnectionId, Output, Purpose, Tls};
use crate::next_hop::NextHop;
use crate::outbox::MailId;
use crate::policy::RateLimit;
use crate::probe::{Probe, ProbeEvent, ProbeStep, ProbeVerdict};
use crate::queue::Queue;
use crate::reachability::Reachability;
use crate::resolver::{self, LookupId};
use crate::rng::Seed;
use crate::route::Candidate;
use crate::session::{Recipient, Transaction};
use crate::settings::{Settings, Told};
use crate::sts::{Finding, LocalFindTrouble, RECORD_LABEL};
use crate::time::{Duration, Instant};
use crate::tls::TlsSummary;
use crate::wording::ServerName;

/// Most probes at once. They must not take the connections that mail needs.
const PROBES_LIMIT: usize = 8;

/// The probes under way.
#[derive(Debug, Default)]
pub(super) struct Probes {
    open: BTreeMap<InquiryId, Run>,
    /// The probe that waits for each lookup.
    lookups: BTreeMap<LookupId, InquiryId>,
}

/// A probe under way.
#[derive(Debug)]
struct Run {
    announce: Box<str>,
    auth_insecure: bool,
    delivery: Delivery,
    /// What the server is to be asked; `None` if it is only to be reached.
    question: Option<Transaction>,
    /// True while a connection has the question.
    is_asking: bool,
    /// The connection that waits for the rate limit, and until when.
    held_back: Option<(Instant, ConnectionId)>,
    /// True if it was told that the probe waits for a connection.
    has_told_wait: bool,
    verdict: Option<ProbeVerdict>,
    /// Whether the answer is still wanted.
    is_wanted: bool,
}

impl Run {
    fn new(probe: Probe, settings: &Settings, mut delivery: Delivery) -> Self {
        let Probe { next_hop: _, port, envelope } = probe;
        if let Some(port) = port {
            delivery.try_only(port);
        }
        let question = envelope.map(|envelope| Transaction {
            reverse_path: envelope.sender,
            // It is no mail, and has this id nowhere else.
            recipients: vec![Recipient::new(MailId(0), envelope.recipient)],
            signatures: bytes::Bytes::new(),
            data_octets: 0,
            head: bytes::Bytes::new(),
            is_probe: true,
        });
        Self {
            delivery,
            announce: settings.announce.clone(),
            auth_insecure: settings.auth_insecure,
            question,
            is_asking: false,
            held_back: None,
            has_told_wait: false,
            verdict: None,
            is_wanted: true,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let held_back = self.held_back.map(|(at, _)| at);
        self.delivery.poll_timeout().into_iter().chain(held_back).min()
    }
}

/// The admission of a probe.
struct ProbeAdmission<'a> {
    id: InquiryId,
    now: Instant,
    next_hop: NextHop,
    queue: &'a Queue,
    reachability: &'a Reachability,
    slots: &'a mut HostSlots,
    destinations: &'a mut Destinations,
    held_back: &'a mut Option<(Instant, ConnectionId)>,
}

impl Admission for ProbeAdmission<'_> {
    /// Whether there is a place is asked at the end of each call.
    fn try_open(&mut self, _: &Candidate, _: bool) -> Option<ConnectionId> {
        None
    }

    fn open(&mut self, candidate: &Candidate, is_last_resort: bool) -> ConnectionId {
        let is_in_trouble = self.reachability.is_in_trouble(candidate, self.now);
        let request =
            SlotRequest { candidate, is_in_trouble, is_last_resort: is_last_resort || is_in_trouble };
        self.slots.open(Owner::Probe(self.id), request, self.now)
    }

    /// A probe has no message, so nothing has to be noted before it begins.
    fn permit_transaction(
        &mut self,
        connection: ConnectionId,
        limit: Option<RateLimit>,
        _: &Upcoming<'_>,
    ) -> Permission {
        *self.held_back = None;
        let Some(limit) = limit else { return Permission::Granted };
        let hop = self.queue.hop_of(&self.next_hop);
        let taken = self
            .destinations
            .with_limits(hop, &self.next_hop, self.now, |limits| limits.take_transaction(limit, self.now));
        match taken {
            Ok(()) => Permission::Granted,
            Err(at) => {
                *self.held_back = Some((at, connection));
                Permission::Later
            }
        }
    }

    fn note_taken(&mut self) {}

    fn preset_seed(&mut self) -> Option<Seed> {
        None
    }
}

impl Deliveries {
    /// Begins a probe.
    pub(in crate::dispatcher) fn probe(&mut self, books: &mut Books, id: InquiryId, probe: Probe) {
        let why = if books.is_draining() {
            Some("the daemon ends".to_owned())
        } else {
            (self.inquiries.probes.open.len() >= PROBES_LIMIT)
                .then(|| format!("{PROBES_LIMIT} probes are under way, and there are no more at once"))
        };
        if let Some(why) = why {
            let verdict = ProbeVerdict::Waits(why.into());
            return books.output(Output::Answer(id, Answer::Probed(Box::new(verdict))));
        }
        let (rng, now) = (self.rng.fork(), books.now.monotonic);
        let next_hop = books.config.policies.route(probe.next_hop.clone());
        let last_server = books.store.suspects.last_server(&next_hop);
        let run = Run::new(probe, &books.config.settings, Delivery::new(next_hop, rng, now, last_server));
        self.inquiries.probes.open.insert(id, run);
        self.with_probe(books, id, Delivery::start);
    }

    /// Ends a probe whose client has left.
    pub(in crate::dispatcher) fn end_probe(&mut self, books: &Books, id: InquiryId) {
        if let Some(run) = self.inquiries.probes.open.get_mut(&id) {
            run.is_wanted = false;
            self.with_probe(books, id, Delivery::close);
        }
    }

    /// Ends all probes at once.
    pub(super) fn end_probes(&mut self, books: &mut Books) {
        while let Some((&id, _)) = self.inquiries.probes.open.first_key_value() {
            self.judge_probe(id, ProbeVerdict::Waits("the daemon ends".into()));
            self.abort_probe(books, id);
        }
    }

    /// Ends all probes as soon as their conversations allow it, because they were begun with other settings.
    pub(super) fn end_outdated_probes(&mut self, books: &mut Books) {
        let ids: Vec<InquiryId> = self.inquiries.probes.open.keys().copied().collect();
        for id in ids {
            let why = "the configuration has changed meanwhile; probe again";
            self.judge_probe(id, ProbeVerdict::Waits(why.into()));
            self.with_probe(books, id, Delivery::close);
        }
    }

    /// Ends the probes whose servers have been silent for so long, if mail needs their connections. Returns how many that are, and when
    /// the next one will have been silent for so long.
    pub(super) fn end_silent_probes(
        &mut self,
        books: &mut Books,
        is_short: bool,
        limit: Duration,
    ) -> (usize, Option<Instant>) {
        let now = books.now.monotonic;
        let is_needed = |connection: ConnectionId| {
            let open = self.slots.connection(connection);
            is_short || open.is_some_and(|open| self.slots.has_waiters(open.remote))
        };
        let silent = self.inquiries.probes.open.iter().flat_map(|(&id, run)| {
            run.delivery.silent_connections().map(move |(since, connection)| (since + limit, id, connection))
        });
        let (due, later): (Vec<_>, Vec<_>) =
            silent.filter(|&(_, _, connection)| is_needed(connection)).partition(|&(at, ..)| at <= now);
        for &(_, id, _) in &due {
            let why = "its server says nothing, and mail needs the connection";
            self.judge_probe(id, ProbeVerdict::Waits(why.into()));
            self.abort_probe(books, id);
        }
        (due.len(), later.into_iter().map(|(at, ..)| at).min())
    }

    fn abort_probe(&mut self, books: &mut Books, id: InquiryId) {
        if let Some(run) = self.inquiries.probes.open.get_mut(&id) {
            run.delivery.abort();
        }
        self.drain_probe(books, id);
    }

    pub(super) fn next_probe_deadline(&self) -> Option<Instant> {
        self.inquiries.probes.open.values().filter_map(Run::deadline).min()
    }

    /// Calls the probes whose deadline has come.
    pub(super) fn handle_probe_timeouts(&mut self, books: &Books) {
        let now = books.now.monotonic;
        let is_due = |run: &Run| run.deadline().is_some_and(|at| at <= now);
        let due: Vec<InquiryId> =
            self.inquiries.probes.open.iter().filter(|(_, run)| is_due(run)).map(|(&id, _)| id).collect();
        for id in due {
            let held_back = self.inquiries.probes.open.get(&id).and_then(|run| run.held_back);
            self.with_probe(books, id, |delivery, cx| {
                delivery.handle_timeout(cx);
                if let Some((at, connection)) = held_back
                    && at <= now
                {
                    delivery.begin(cx, connection);
                }
            });
        }
    }

    /// Gives the answer to a lookup to the probe that waits for it.
    pub(super) fn answer_probe(&mut self, books: &Books, lookup: LookupId, answer: resolver::Answer) {
        if let Some(id) = self.inquiries.probes.lookups.remove(&lookup) {
            self.with_probe(books, id, |delivery, cx| delivery.handle_answer(cx, answer));
        }
    }

    /// Gives the policy of a domain to the probe that waits for it.
    pub(super) fn tell_probe_of_policy(
        &mut self,
        books: &mut Books,
        id: InquiryId,
        found: Result<Finding, LocalFindTrouble>,
    ) {
        if let Ok(finding) = &found {
            self.remark(books, id, None, finding.to_string());
        }
        self.with_probe(books, id, |delivery, cx| delivery.handle_policy(cx, found));
    }

    /// Lets a probe work.
    pub(super) fn with_probe(
        &mut self,
        books: &Books,
        id: InquiryId,
        act: impl FnOnce(&mut Delivery, &mut DeliveryContext<'_>),
    ) {
        let Some(run) = self.inquiries.probes.open.get_mut(&id) else { return };
        let now = books.now.monotonic;
        let mut admission = ProbeAdmission {
            id,
            now,
            next_hop: run.delivery.next_hop().clone(),
            queue: &books.queue,
            reachability: &self.reachability,
            slots: &mut self.slots,
            destinations: &mut self.destinations,
            held_back: &mut run.held_back,
        };
        let mut cx = DeliveryContext {
            now,
            wall: books.now.wall_millis(),
            announce: &run.announce,
            auth_insecure: run.auth_insecure,
            told: Told { conversations: true, ..Told::default() },
            watch: &self.watch,
            policies: &books.config.policies,
            hosts: &self.directory.hosts,
            reachability: &self.reachability,
            admission: &mut admission,
        };
        act(&mut run.delivery, &mut cx);
    }

    /// Tells the probe of a connection that it is inside TLS.
    pub(in crate::dispatcher) fn tell_probe_of_tls(
        &self,
        books: &mut Books,
        connection: ConnectionId,
        tls: Tls,
    ) {
        if let Some(Owner::Probe(id)) = self.owner_of(connection) {
            self.remark(books, id, Some(connection), format!("inside {}", tls.summary(tls.proves())));
        }
    }

    /// Processes all outputs of probes, and opens the connections that they need. Returns whether there was anything to do.
    pub(super) fn drain_probes(&mut self, books: &mut Books) -> bool {
        let mut moved = false;
        let ids: Vec<InquiryId> = self.inquiries.probes.open.keys().copied().collect();
        for id in ids {
            moved |= self.drain_probe(books, id) | self.connect_probe(books, id);
        }
        moved
    }

    fn drain_probe(&mut self, books: &mut Books, id: InquiryId) -> bool {
        let mut moved = false;
        while let Some(output) =
            self.inquiries.probes.open.get_mut(&id).and_then(|run| run.delivery.poll_output())
        {
            moved = true;
            self.take_in_probe_output(books, id, output);
        }
        if self.inquiries.probes.open.get(&id).is_some_and(|run| run.delivery.is_over()) {
            self.conclude_probe(books, id);
            moved = true;
        }
        moved
    }

    fn conclude_probe(&mut self, books: &mut Books, id: InquiryId) {
        let Some(run) = self.inquiries.probes.open.remove(&id) else { return };
        self.directory.policies.forget(Asker::Probe(id));
        let resolver = &mut self.resolver;
        self.inquiries.probes.lookups.retain(|lookup, probe| {
            let is_over = *probe == id;
            if is_over {
                resolver.cancel(*lookup);
            }
            !is_over
        });
        if !run.is_wanted {
            return;
        }
        let verdict = run.verdict.unwrap_or_else(|| ProbeVerdict::Waits("the conversation was ended".into()));
        books.note_about(
            EventName::Connection,
            Level::Info,
            format!("a probe of {} has ended: {verdict}", run.delivery.next_hop()),
        );
        books.output(Output::Answer(id, Answer::Probed(Box::new(verdict))));
    }

    fn take_in_probe_output(&mut self, books: &mut Books, id: InquiryId, output: DeliveryOutput) {
        let now = books.now.monotonic;
        // A person waits for it.
        let prospect = Prospect::Fresh;
        match output {
            DeliveryOutput::Lookup(request) => {
                self.remark(books, id, None, format!("looking for {request}"));
                let lookup = self.resolver.lookup(now, &request, prospect);
                self.inquiries.probes.lookups.insert(lookup, id);
            }
            DeliveryOutput::FindPolicy(domain) => {
                self.remark(books, id, None, format!("looking for the MTA-STS policy of {domain}"));
                self.directory.policies.find(books.now, &domain, Asker::Probe(id));
            }
            DeliveryOutput::ForgetTlsa(base, port) => self.resolver.forget_tlsa(&base, port),
            DeliveryOutput::ForgetPolicyRecord(domain) => self.resolver.forget_texts(RECORD_LABEL, &domain),
            DeliveryOutput::Connect { connection, remote, local } => {
                books.output(Output::Connect { connection, remote, local, purpose: Purpose::Smtp });
            }
            DeliveryOutput::StartTls { connection, terms, groups } => {
                books.output(Output::StartTls { connection, terms, groups });
            }
            DeliveryOutput::Transmit(connection) => books.output(Output::Transmit(connection)),
            DeliveryOutput::Close(connection) => {
                self.slots.close(connection);
                // A destination may wait for the end of it, wherever it led to.
                self.slots.announce_news_of_all();
                books.output(Output::Close(connection));
            }
            DeliveryOutput::Unreachable { connection, candidate, setback, .. } => {
                let text = format!("{}: {setback}", ServerName(&candidate.host, candidate.remote));
                self.remark(books, id, Some(connection), text);
            }
            DeliveryOutput::FellBack { candidate, reason } => {
                let text = format!(
                    "{}: goes on in plain text: {reason}",
                    ServerName(&candidate.host, candidate.remote)
                );
                self.remark(books, id, None, text);
            }
            DeliveryOutput::WantTransactions(connection, tls) => self.serve_probe(books, id, connection, tls),
            DeliveryOutput::NotOpened(failure) => books.outlet.tally.connections.failed.add(failure),
            DeliveryOutput::Accepted(acceptance) => {
                self.judge_probe(id, ProbeVerdict::Accepted(acceptance));
            }
            DeliveryOutput::Failed { failure, .. } | DeliveryOutput::HadEnough(failure) => {
                self.judge_probe(id, ProbeVerdict::Failed(failure));
            }
            DeliveryOutput::Exhausted(failure) => self.judge_probe(id, ProbeVerdict::Failed(failure.failure)),
            DeliveryOutput::Postponed(reason) => {
                self.judge_probe(id, ProbeVerdict::Waits(reason.to_string().into()));
            }
            DeliveryOutput::Released { .. } => {
                if let Some(run) = self.inquiries.probes.open.get_mut(&id) {
                    run.is_asking = false;
                }
            }
            DeliveryOutput::Event(event) => self.tell_event(books, id, event),
            // It teaches nothing, and there is no message to send or to count.
            DeliveryOutput::Answered(_)
            | DeliveryOutput::PushedBack(_)
            | DeliveryOutput::NoPipelining(_)
            | DeliveryOutput::ClassicGroups(_)
            | DeliveryOutput::Authenticated(..)
            | DeliveryOutput::TransactionEnded { .. }
            | DeliveryOutput::WantData { .. }
            | DeliveryOutput::Delivered { .. }
            | DeliveryOutput::Abandoned(..) => {}
        }
    }

    /// Gives a connection on which mail could be sent what is to be asked, or ends it.
    fn serve_probe(
        &mut self,
        books: &mut Books,
        id: InquiryId,
        connection: ConnectionId,
        tls: Option<TlsSummary>,
    ) {
        if let Some(open) = self.slots.establish(connection) {
            books.outlet.tally.connections.count_opened(open.tls, tls);
        }
        let Some(run) = self.inquiries.probes.open.get_mut(&id) else { return };
        if run.question.is_none() && run.verdict.is_none() {
            run.verdict = run.delivery.server_of(connection).map(ProbeVerdict::Reached);
        }
        let question = if run.verdict.is_none() { run.question.clone() } else { None };
        let was_asking = core::mem::replace(&mut run.is_asking, question.is_some());
        self.with_probe(books, id, |delivery, cx| match question {
            Some(question) if !was_asking => delivery.handle_transactions(cx, connection, vec![question]),
            // It asks again when the question is answered.
            Some(_) if !delivery.handle_nothing_claimed(connection) => {}
            Some(_) | None => delivery.close(cx),
        });
    }

    /// The first verdict counts.
    fn judge_probe(&mut self, id: InquiryId, verdict: ProbeVerdict) {
        if let Some(run) = self.inquiries.probes.open.get_mut(&id) {
            run.verdict.get_or_insert(verdict);
        }
    }

    /// Opens the connection that a probe needs, if there is a place for it. Returns whether anything changed.
    fn connect_probe(&mut self, books: &mut Books, id: InquiryId) -> bool {
        let needs_one =
            |run: &Run| run.delivery.needs_connection(usize::MAX) && run.delivery.connection_count() == 0;
        if !self.inquiries.probes.open.get(&id).is_some_and(needs_one) {
            return false;
        }
        // Others may have found out about the server meanwhile.
        self.with_probe(books, id, |delivery, cx| delivery.reconsider(cx));
        if !self.inquiries.probes.open.get(&id).is_some_and(needs_one) {
            return true;
        }
        let Some(why) = self.why_probe_waits(books, id) else {
            self.with_probe(books, id, |delivery, cx| delivery.connect(cx));
            return true;
        };
        if let Some(run) = self.inquiries.probes.open.get_mut(&id)
            && !core::mem::replace(&mut run.has_told_wait, true)
        {
            self.remark(books, id, None, why);
        }
        false
    }

    /// Returns why a probe cannot connect now, as a clause.
    fn why_probe_waits(&self, books: &Books, id: InquiryId) -> Option<String> {
        let run = self.inquiries.probes.open.get(&id)?;
        let candidate = run.delivery.candidate()?;
        let places = self.slots.places();
        if !self.slots.has_slot() {
            return Some(format!("waits for a connection: {} of {} are open", places.used, places.limit));
        }
        let is_in_trouble = self.reachability.is_in_trouble(candidate, books.now.monotonic);
        let is_last_resort = is_in_trouble || run.delivery.is_at_last_resorts();
        if let Err(why) = self.slots.check_host(SlotRequest { candidate, is_in_trouble, is_last_resort }) {
            let why = match why {
                SlotRefusal::Full => "it has as many connections as it may",
                SlotRefusal::OnTrial => "it is in trouble, and another connection is trying it",
                SlotRefusal::LastResorts => {
                    "it is in trouble, and as many connections try such servers as may"
                }
                SlotRefusal::Probe => "a probe has the connection of its destination",
            };
            return Some(format!(
                "waits for a connection to {}: {why}",
                ServerName(&candidate.host, candidate.remote)
            ));
        }
        // By the policy of the host that it is about to connect to, which need not be that of the mail's.
        let limits = self.limits_of(books, run.delivery.next_hop(), candidate.policy.concurrency);
        (limits.used >= limits.limit).then(|| {
            format!(
                "waits for a connection: {} of {} to {} are open",
                limits.used,
                limits.limit,
                run.delivery.next_hop()
            )
        })
    }

    /// Returns how many connections probes have to a next hop.
    pub(super) fn probe_connections(&self, next_hop: &NextHop) -> usize {
        // The usual case costs nothing.
        if self.inquiries.probes.open.is_empty() {
            return 0;
        }
        let of_hop = self.inquiries.probes.open.values().filter(|run| run.delivery.next_hop() == next_hop);
        of_hop.map(|run| run.delivery.connection_count()).sum()
    }

    /// Returns the probe's next hop.
    pub(super) fn next_hop_of_probe(&self, id: InquiryId) -> Option<&NextHop> {
        self.inquiries.probes.open.get(&id).map(|run| run.delivery.next_hop())
    }

    /// Returns the connections of probes.
    pub(super) fn probe_connection_count(&self) -> usize {
        self.inquiries.probes.open.values().map(|run| run.delivery.connection_count()).sum()
    }

    fn tell_event(&self, books: &mut Books, id: InquiryId, event: Event) {
        let (connection, what) = match event {
            Event::Sent(Said { connection, octets, .. }) => (Some(connection), ProbeEvent::Sent(octets)),
            Event::Received(Said { connection, octets, .. }) => {
                (Some(connection), ProbeEvent::Received(octets))
            }
            event @ (Event::Delivered { .. }
            | Event::Failed { .. }
            | Event::Bounced { .. }
            | Event::Dropped { .. }
            | Event::Relayed { .. }
            | Event::Warned { .. }
            | Event::Yielded { .. }
            | Event::Note { .. }
            | Event::SentData(_)) => (None, ProbeEvent::Remark(event.to_string().into())),
        };
        self.tell(books, id, ProbeStep { connection, what });
    }

    fn remark(&self, books: &mut Books, id: InquiryId, connection: Option<ConnectionId>, text: String) {
        self.tell(books, id, ProbeStep { connection, what: ProbeEvent::Remark(text.into()) });
    }

    fn tell(&self, books: &mut Books, id: InquiryId, step: ProbeStep) {
        if self.inquiries.probes.open.get(&id).is_some_and(|run| run.is_wanted) {
            books.output(Output::Answer(id, Answer::Probing(step)));
        }
    }
}
