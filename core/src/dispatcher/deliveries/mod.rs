//! The passes over the mail of next hops, and what they share: connections, name servers, and knowledge of servers.
//!
//! [`Destinations`] owns what is known of each next hop, [`HostSlots`] the slots for connections. All changes to mail go through
//! [`Books`], which know nothing of connections.

mod admission;
mod check;
mod claims;
mod connections;
mod destination;
mod destinations;
mod explain;
mod flights;
mod host_slots;
mod inquiries;
mod limits;
mod pauses;
mod plain_text_warnings;
mod policy_desk;
mod probes;
mod rate_limiter;
mod recall;
mod reconfigure;
mod scheduler;
mod scouts;
mod silence_watch;
mod standing;
mod start_queue;
mod window;

use alloc::string::ToString as _;
use alloc::vec::Vec;

use bytes::BytesMut;

use self::admission::{DestinationAdmission, Situation};
pub(super) use self::claims::Claim;
use self::destination::{Destination, Waits};
use self::destinations::{AtWork, Destinations};
pub(super) use self::flights::Flights;
use self::host_slots::{HostSlots, Owner};
use self::inquiries::Inquiries;
use self::plain_text_warnings::PlainTextWarnings;
use self::policy_desk::{Asker, PolicyDesk};
use self::recall::Recall;
pub(super) use self::recall::RecallReason;
use self::silence_watch::SilenceWatch;
use super::Load;
use super::books::Books;
use super::requests::Asked;
use crate::attempt::Attempt;
use crate::delivery::{ConnectionIds, Delivery, DeliveryContext, DeliveryOutput};
use crate::event::{Event, EventName};
use crate::fair_queue::Prospect;
use crate::flight::Uncertain;
use crate::io::{CloseReason, ConnectError, ConnectionId, Output, Purpose};
use crate::outbox::{DATA_CHUNK_OCTETS, DeliveredMail, StoreRequest};
use crate::queue::HopId;
use crate::reachability::Reachability;
use crate::resolver::{Resolver, ResolverOutput};
use crate::rng::Rng;
use crate::session::Recipient;
use crate::settings::{Hosts, Settings};
use crate::shown::ShownAddress;
use crate::sts::RECORD_LABEL;
use crate::tally::{Counts, LookupResult};
use crate::time::Instant;
use crate::watch::Watch;

/// Most next hops that are worked on at once, not counting those that can only wait.
pub(super) const DELIVERY_LIMIT: usize = 1000;
/// Most next hops that wait for name servers at once: several times the number of concurrent questions.
const ASKING_LIMIT: usize = 1000;
/// Most next hops that wait for a slot at their host.
const HOST_WAITING_LIMIT: usize = 10_000;
/// Most next hops that wait for the MTA-STS policies of their domains.
const POLICY_WAITING_LIMIT: usize = 10_000;

/// All deliveries, and what they share.
#[derive(Debug)]
pub(super) struct Deliveries {
    destinations: Destinations,
    slots: HostSlots,
    flights: Flights,
    /// The recall of mail that fails without having been claimed.
    recall: Recall,
    silence_watch: SilenceWatch,
    reachability: Reachability,
    resolver: Resolver,
    directory: Directory,
    watch: Watch,
    rng: Rng,
    inquiries: Inquiries,
    plain_text_warnings: PlainTextWarnings,
}

/// What is known of names beside what name servers say.
#[derive(Debug)]
struct Directory {
    /// The entries of `/etc/hosts`.
    hosts: Hosts,
    policies: PolicyDesk,
}

impl Deliveries {
    pub(super) fn new(settings: &Settings, hosts: Hosts, mut rng: Rng) -> Self {
        Self {
            destinations: Destinations::new(),
            slots: HostSlots::new(settings.concurrency, DELIVERY_LIMIT),
            flights: Flights::default(),
            recall: Recall::default(),
            silence_watch: SilenceWatch::default(),
            reachability: Reachability::new(),
            resolver: Resolver::new(settings.resolver.clone(), rng.fork()),
            directory: Directory { hosts, policies: PolicyDesk::default() },
            watch: Watch::default(),
            rng,
            inquiries: Inquiries::default(),
            plain_text_warnings: PlainTextWarnings::new(),
        }
    }

    pub(super) fn set_hosts(&mut self, hosts: Hosts) {
        self.directory.hosts = hosts;
    }

    pub(super) fn resolver(&mut self) -> &mut Resolver {
        &mut self.resolver
    }

    /// Returns how questions to name servers were answered.
    pub(super) fn lookups(&self) -> &Counts<LookupResult> {
        self.resolver.results()
    }

    pub(super) fn flights(&mut self) -> &mut Flights {
        &mut self.flights
    }

    /// Returns the allocation of the ids of connections.
    pub(super) fn ids(&mut self) -> &mut ConnectionIds {
        self.slots.ids()
    }

    /// Returns how much there is to do, where there is so much mail.
    pub(super) fn load(&self, mails: usize, now: Instant) -> Load {
        let hosts_in_trouble = self.reachability.hosts_in_trouble(now);
        Load { mails, connections: self.slots.open_count(), hosts_in_trouble }
    }

    /// Returns the delivery that owns a connection, and its next hop.
    pub(super) fn of_connection(&self, connection: ConnectionId) -> Option<(HopId, &Delivery)> {
        let hop = self.hop_of(connection)?;
        Some((hop, self.destinations.delivery(hop)?))
    }

    pub(super) fn delivery(&self, hop: HopId) -> Option<&Delivery> {
        self.destinations.delivery(hop)
    }

    /// Returns whether no pass is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.destinations.active_count() == 0
    }

    /// Returns when to call the resolver.
    pub(super) fn next_lookup(&self) -> Option<Instant> {
        self.resolver.poll_timeout()
    }

    /// Returns when to call the first delivery, or the first connection that waits for the rate limit.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let of_mail = self.destinations.next_deadline().into_iter().chain(self.silence_watch.next_check());
        of_mail.chain(self.next_probe_deadline()).min()
    }

    /// Returns when something is to be done about policies.
    pub(super) fn next_policy_time(&self, books: &Books) -> Option<Instant> {
        if books.is_draining() { None } else { self.directory.policies.next_time() }
    }

    /// Returns when the first pause ends.
    pub(super) fn next_pause_end(&self) -> Option<Instant> {
        self.destinations.next_pause_end()
    }

    pub(super) fn connected(&mut self, books: &Books, connection: ConnectionId) {
        if self.resolver.owns_connection(connection) {
            self.resolver.handle_connected(books.now.monotonic, connection);
        } else {
            self.with_connection(books, connection, |delivery, cx| {
                delivery.handle_connected(cx, connection);
            });
        }
    }

    pub(super) fn connect_failed(&mut self, books: &Books, connection: ConnectionId, error: ConnectError) {
        if self.resolver.owns_connection(connection) {
            self.resolver.handle_connect_failed(books.now.monotonic, connection, error);
        } else {
            self.with_connection(books, connection, |delivery, cx| {
                delivery.handle_connect_failed(cx, connection, error);
            });
        }
    }

    pub(super) fn received(&mut self, books: &Books, connection: ConnectionId, octets: &[u8]) {
        if self.resolver.owns_connection(connection) {
            self.resolver.handle_received(books.now.monotonic, connection, octets);
        } else {
            self.with_connection(books, connection, |delivery, cx| {
                delivery.handle_received(cx, connection, octets);
            });
        }
    }

    pub(super) fn closed(&mut self, books: &Books, connection: ConnectionId, reason: CloseReason) {
        if self.resolver.owns_connection(connection) {
            self.resolver.handle_closed(books.now.monotonic, connection, reason);
        } else {
            self.with_connection(books, connection, |delivery, cx| {
                delivery.handle_closed(cx, connection, reason);
            });
        }
    }

    pub(super) fn with_connection(
        &mut self,
        books: &Books,
        connection: ConnectionId,
        act: impl FnOnce(&mut Delivery, &mut DeliveryContext<'_>),
    ) {
        match self.owner_of(connection) {
            Some(Owner::Destination(hop)) => self.with_delivery(books, hop, act),
            Some(Owner::Probe(probe)) => self.with_probe(books, probe, act),
            None => {}
        }
    }

    /// Appends octets that are to be sent on a connection. Returns whether anything was appended.
    pub(super) fn transmit(
        &mut self,
        books: &Books,
        connection: ConnectionId,
        limit: usize,
        octets: &mut BytesMut,
    ) -> bool {
        if self.resolver.owns_connection(connection) {
            return self.resolver.poll_transmit(connection, limit, octets);
        }
        let mut more = false;
        self.with_connection(books, connection, |delivery, cx| {
            more = delivery.poll_transmit(cx, connection, limit, octets);
        });
        if !more
            && let Some(hop) = self.hop_of(connection)
            && let Some(AtWork { delivery, connections, wait_lists, .. }) = self.destinations.work_on(hop)
            && delivery.has_said_quit(connection)
        {
            connections.part(connection, wait_lists);
        }
        more
    }

    /// Calls the deliveries whose deadline has come.
    pub(super) fn handle_timeout(&mut self, books: &mut Books) {
        let now = books.now.monotonic;
        self.resolver.handle_timeout(now);
        if !books.is_draining() {
            self.directory.policies.handle_timeout(books.now);
        }
        while let Some(hop) = self.destinations.pop_deadline(now) {
            self.with_delivery(books, hop, |delivery, cx| delivery.handle_timeout(cx));
            self.widen(books, hop);
        }
        self.handle_probe_timeouts(books);
        while let Some((at, hop, connection)) = self.destinations.wait_lists().first_held_back()
            && at <= now
        {
            self.ask_again(books, hop, connection);
        }
        self.destinations.end_due_pauses(now, &books.queue);
    }

    /// Drains the resolver and the deliveries. Returns whether there was any output.
    pub(super) fn drain(&mut self, books: &mut Books) -> bool {
        self.drain_resolver(books)
            || self.drain_policies(books)
            || self.drain_deliveries(books)
            || self.drain_probes(books)
    }

    fn drain_resolver(&mut self, books: &mut Books) -> bool {
        let mut moved = false;
        while let Some(output) = self.resolver.poll_output() {
            moved = true;
            let output = match output {
                ResolverOutput::Datagram { query, to, octets } => Output::Datagram { query, to, octets },
                ResolverOutput::CloseDatagram(query) => Output::CloseDatagram(query),
                ResolverOutput::Connect { connection, to } => {
                    Output::Connect { connection, remote: to, local: None, purpose: Purpose::Dns }
                }
                ResolverOutput::Transmit(connection) => Output::Transmit(connection),
                ResolverOutput::Close(connection) => Output::Close(connection),
                ResolverOutput::Answer(lookup, answer) => {
                    match self.destinations.asker(lookup) {
                        Some(hop) => {
                            self.destinations.set_waits(hop, Waits::No);
                            self.with_delivery(books, hop, |delivery, cx| delivery.handle_answer(cx, answer));
                        }
                        None if self.inquiries.scouts.has_asked(lookup) => {
                            self.answer_scout(books, lookup, answer)
                        }
                        None if self.directory.policies.has_asked(lookup) => {
                            self.answer_policy_lookup(books, lookup, answer);
                        }
                        None => self.answer_probe(books, lookup, answer),
                    }
                    continue;
                }
                ResolverOutput::Warning(text) => Output::Event(Event::warning(EventName::Dns, text)),
            };
            books.output(output);
        }
        moved
    }

    /// Processes all outputs of deliveries. This is the only place that does. Returns whether there was any.
    fn drain_deliveries(&mut self, books: &mut Books) -> bool {
        let mut moved = false;
        self.destinations.touch_all(books.queue.take_newly_ready());
        while let Some(hop) = self.destinations.pop_touched() {
            moved = true;
            while let Some(output) = self.destinations.poll_output(hop) {
                self.take_in_delivery_output(books, hop, output);
            }
            self.settle(books, hop);
            self.destinations.touch_all(books.queue.take_newly_ready());
        }
        moved
    }

    /// Begins passes for queued next hops that have ready mail. Returns whether it began any.
    pub(super) fn start(&mut self, books: &mut Books) -> bool {
        let mut moved = false;
        while self.hindrance(books).is_none() {
            let Some(hop) = self.destinations.pop_queued(self.may_ask()) else { break };
            if books.queue.ready_count(hop) > 0
                && let Some(next_hop) = books.queue.next_hop(hop).cloned()
            {
                let now = books.now.monotonic;
                let last_server = books.store.suspects.last_server(&next_hop);
                let delivery = Delivery::new(next_hop, self.rng.fork(), now, last_server);
                self.destinations.begin_pass(hop, delivery);
                self.with_delivery(books, hop, Delivery::start);
                moved = true;
            }
            // The lookup counts before the next pass begins.
            self.drain_deliveries(books);
        }
        moved
    }

    /// Ends all deliveries as soon as their conversations allow it.
    pub(super) fn close_all(&mut self, books: &mut Books) {
        self.end_probes(books);
        let hops: Vec<HopId> = self.destinations.active().map(|(hop, _)| hop).collect();
        for hop in hops {
            self.with_delivery(books, hop, |delivery, cx| delivery.close(cx));
        }
        // Mail that waits or is paused would otherwise never be released.
        self.destinations.end_pauses();
        self.destinations.free_connections();
        self.silence_watch.end();
    }

    /// Ends all deliveries at once.
    pub(super) fn abort_all(&mut self, books: &mut Books) {
        let hops: Vec<HopId> = self.destinations.active().map(|(hop, _)| hop).collect();
        for hop in hops {
            self.with_delivery(books, hop, |delivery, _| delivery.abort());
        }
        self.drain_deliveries(books);
    }

    /// Forgets what went wrong before.
    pub(super) fn forget_troubles(&mut self) {
        self.reachability.clear();
        self.slots.announce_news_of_all();
        self.destinations.forget_troubles();
    }

    /// Returns whether another pass may begin. Next hops that only wait, for name servers or for a host, take no room from those
    /// that could proceed.
    fn has_room_for_delivery(&self) -> bool {
        self.at_work() < DELIVERY_LIMIT
            && self.slots.waiting_for_hosts_count() < HOST_WAITING_LIMIT
            && self.destinations.waiting_for_policies_count() < POLICY_WAITING_LIMIT
    }

    /// Returns how many next hops are worked on that neither wait nor try a last resort: those have limits of their own.
    fn at_work(&self) -> usize {
        let elsewhere = self.slots.waiting_for_hosts_count()
            + self.destinations.asking_count()
            + self.destinations.waiting_for_policies_count()
            + self.slots.unproven_last_resorts();
        self.destinations.active_count().saturating_sub(elsewhere)
    }

    /// Returns whether another next hop may wait for name servers.
    fn may_ask(&self) -> bool {
        self.destinations.asking_count() < ASKING_LIMIT
    }

    fn owner_of(&self, connection: ConnectionId) -> Option<Owner> {
        self.slots.connection(connection).map(|open| open.owner)
    }

    fn hop_of(&self, connection: ConnectionId) -> Option<HopId> {
        self.slots.connection(connection)?.hop()
    }

    fn with_delivery(
        &mut self,
        books: &Books,
        hop: HopId,
        act: impl FnOnce(&mut Delivery, &mut DeliveryContext<'_>),
    ) {
        let next_hop = books.queue.next_hop(hop);
        let probe_connections = next_hop.map_or(0, |next_hop| self.probe_connections(next_hop));
        let Some(AtWork { delivery, connections, then, limits, wait_lists }) = self.destinations.work_on(hop)
        else {
            return;
        };
        let now = books.now.monotonic;
        let mut admission = DestinationAdmission {
            hop,
            situation: Situation {
                now,
                is_draining: books.is_draining(),
                has_mail: books.queue.ready_count(hop) > 0,
                probe_connections,
                changes: books.scan.changes(),
                room_for_taken: books.commits.room_for_taken(),
                notes_mail: books.config.settings.uncertain != Uncertain::Off,
            },
            reachability: &self.reachability,
            slots: &mut self.slots,
            connections,
            then,
            limits,
            flights: &mut self.flights,
            wait_lists,
        };
        let mut cx = DeliveryContext {
            now,
            wall: books.now.wall_millis(),
            announce: &books.config.settings.announce,
            auth_insecure: books.config.settings.auth_insecure,
            told: books.config.settings.told,
            policies: &books.config.policies,
            watch: &self.watch,
            hosts: &self.directory.hosts,
            reachability: &self.reachability,
            admission: &mut admission,
        };
        act(delivery, &mut cx);
    }

    fn take_in_delivery_output(&mut self, books: &mut Books, hop: HopId, output: DeliveryOutput) {
        let now = books.now.monotonic;
        match output {
            DeliveryOutput::Lookup(request) => {
                let lookup = self.resolver.lookup(now, &request, books.queue.prospect(hop));
                self.wait_for(books, hop, Waits::ForDns(lookup));
            }
            DeliveryOutput::FindPolicy(domain) => {
                self.wait_for(books, hop, Waits::ForPolicy);
                self.directory.policies.find(books.now, &domain, Asker::Destination(hop));
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
                self.flights.close(connection);
                self.destinations.close(hop, connection);
                books.output(Output::Close(connection));
            }
            DeliveryOutput::Unreachable { connection, candidate, trouble, setback } => {
                self.note_unreachable(books, hop, connection, &candidate, trouble, setback);
            }
            DeliveryOutput::Answered(connection) => self.note_answer(connection),
            DeliveryOutput::PushedBack(connection) => self.note_pushback(books, hop, connection),
            DeliveryOutput::NoPipelining(remote) => self.reachability.note_no_pipelining(remote, now),
            DeliveryOutput::ClassicGroups(remote) => self.reachability.note_classic_groups(remote, now),
            DeliveryOutput::Authenticated(login, mechanism) => {
                self.reachability.record_login(login, mechanism, now);
            }
            DeliveryOutput::WantTransactions(connection, tls) => {
                self.note_established(books, connection, tls);
                self.want_transactions(books, hop, connection);
            }
            DeliveryOutput::NotOpened(failure) => books.outlet.tally.connections.failed.add(failure),
            DeliveryOutput::TransactionEnded { course, is_delivered } => {
                books.outlet.tally.count_transaction(course.as_deref(), is_delivered);
            }
            DeliveryOutput::WantData { connection, id, offset, limit } => {
                let limit = limit.min(u32::try_from(DATA_CHUNK_OCTETS).unwrap_or(u32::MAX));
                let request = StoreRequest::ReadData { id, offset, limit };
                books.ask(request, Asked::Data { hop, connection, id });
            }
            DeliveryOutput::Delivered { recipient, acceptance, course, is_reported_by_server } => {
                let is_reported = recipient.wishes.wants_success() && !is_reported_by_server;
                let id = recipient.id;
                let recipient = ShownAddress::new(recipient.mailbox.as_str());
                let attempt = Attempt { at: books.now.wall, recipient, course, result: acceptance };
                self.note_delivered(books, hop, DeliveredMail { id, attempt: Some(attempt), is_reported });
            }
            // Mail is no probe.
            DeliveryOutput::Accepted(_) => {}
            DeliveryOutput::FellBack { candidate, reason } => {
                self.plain_text_warnings.warn(books, &candidate, &reason);
            }
            DeliveryOutput::Failed { recipient: Recipient { id, mailbox, .. }, failure, course } => {
                self.destinations.update(hop, Destination::end_stall);
                self.note_verdict(hop);
                self.flights.end(id);
                let recipient = ShownAddress::new(mailbox.as_str());
                books.record_failure(id, recipient, None, course, failure);
            }
            DeliveryOutput::Abandoned(connection, ids) => self.flights.abandon(connection, &ids),
            DeliveryOutput::Released { ids, tried } => {
                for id in ids {
                    books.return_undecided(id, tried);
                }
            }
            DeliveryOutput::Exhausted(failure) => {
                books.queue.note_attempt(hop, Prospect::Failed);
                self.destinations.fail(hop, failure, books.scan.frontier(), now);
            }
            DeliveryOutput::HadEnough(failure) => self.wait_for_server(books, hop, &failure),
            DeliveryOutput::Postponed(reason) => self.postpone(books, hop, &reason.to_string()),
            DeliveryOutput::Event(event) => books.event(event),
        }
    }

    /// Records that a server has taken a mail.
    fn note_delivered(&mut self, books: &mut Books, hop: HopId, mail: DeliveredMail) {
        let DeliveredMail { id, attempt, .. } = &mail;
        self.flights.end(*id);
        if let Some(attempt) = attempt {
            books.outlet.tally.count_attempt(&attempt.facts());
            let facts = books.store.held.facts(*id);
            books.event(Event::Delivered { id: *id, attempt: attempt.clone(), facts });
        }
        self.note_taken_mail(books, hop);
        books.commits.delivered(mail);
    }

    /// Changes what a pass waits for, together with its entries in the queues. This is the only place that does.
    fn wait_for(&mut self, books: &Books, hop: HopId, waits: Waits) {
        match self.destinations.set_waits(hop, waits) {
            Waits::No => {}
            Waits::ForDns(lookup) => self.resolver.cancel(lookup),
            Waits::ForPolicy => self.directory.policies.forget(Asker::Destination(hop)),
            Waits::ForConnection => self.slots.end_wait(hop),
            Waits::ForHost(remote) => self.slots.end_wait_for_host(remote, hop),
        }
        if waits == Waits::ForConnection {
            self.slots.wait(hop, books.queue.prospect(hop));
        }
    }

    fn end_pass(&mut self, books: &Books, hop: HopId) {
        self.wait_for(books, hop, Waits::No);
        self.slots.want_no_more(hop);
        self.destinations.end_pass(hop);
    }
}
