//! Calls the core, and carries out its outputs.

use std::net::SocketAddr;

use bytes::BytesMut;
use cmail_delivery::dkim::{Digest, KeyId, SignTrouble, Signature};
use cmail_delivery::event::Event;
use cmail_delivery::io::{CloseReason, ConnectError, ConnectionId, Input, Output, Purpose, QueryId};
use cmail_delivery::outbox::RequestId;
use cmail_delivery::system_error::{MachineTrouble, NetworkTrouble, SystemError, TlsTrouble};
use cmail_delivery::time::Duration;

use super::{Happening, World};
use crate::dns;
use crate::facts::{Fact, Link, Shown, tls};
use crate::mutation::Mutation;
use crate::network::{ClientEnd, Connection, Peer};
use crate::signatures;
use crate::web::unreachable_host;

/// Outputs of one call after which it counts as endless.
const ENDLESS: usize = 1_000_000;
/// Most octets that are taken at once.
const TRANSMIT_LIMIT: usize = 16 * 1024;
/// Octets of memory that are allocated at once for sending.
const SCRATCH_OCTETS: usize = 64 * 1024;
/// Time for which a build that clings to silent connections keeps them longer.
const CLINGS_FOR: Duration = Duration::from_secs(3600);
/// Octets in flight to a server after which it takes no more.
const WINDOW: usize = 64 * 1024;
/// Calls between two checks of the dispatcher's books. Debug builds check after each call.
const CALLS_PER_CHECK: u64 = 64;

impl World {
    /// Passes an input to the core, and carries out its outputs.
    pub(super) fn call(&mut self, input: Input<'_>) {
        self.maybe_crash();
        let now = self.clock.now();
        let Some(daemon) = self.daemon() else { return };
        daemon.dispatcher.handle_input(now, input);
        self.untaken_since.get_or_insert(now.monotonic);
        self.after_call();
    }

    /// Calls the core, because its time has come.
    pub(super) fn call_timeout(&mut self) {
        self.maybe_crash();
        let now = self.clock.now();
        let Some(daemon) = self.daemon() else { return };
        daemon.dispatcher.handle_timeout(now);
        self.untaken_since.get_or_insert(now.monotonic);
        self.after_call();
    }

    fn after_call(&mut self) {
        if self.call_dice.chance(self.faults.disorder) {
            // Its outputs are taken only at the next call, or a little later.
            if self.call_dice.chance(300) {
                let span = Duration::from_micros(self.call_dice.below(3_000_000));
                return self.clock.after(span, Happening::TakeOutputs);
            }
            self.call_out_of_order();
        }
        self.take_outputs();
    }

    pub(super) fn take_outputs(&mut self) {
        let mut outputs = 0;
        while let Some(daemon) = self.daemon()
            && let Some(output) = daemon.dispatcher.poll_output()
        {
            outputs += 1;
            if outputs > ENDLESS {
                return self.see(Fact::Spins);
            }
            self.take_output(output);
        }
        self.untaken_since = None;
        if let Some(daemon) = &mut self.daemon {
            daemon.calls += 1;
            let is_checked = daemon.calls.is_multiple_of(CALLS_PER_CHECK);
            if is_checked {
                daemon.dispatcher.check();
            }
            let tally = is_checked.then(|| self.mutation.tally(daemon.dispatcher.tally()));
            let surplus = if self.mutation == Mutation::HoardsRows { 1000 } else { 0 };
            let indexed = daemon.dispatcher.indexed() + surplus;
            self.see(Fact::Called { indexed, outputs, tally: tally.as_ref() });
        }
    }

    fn take_output(&mut self, output: Output) {
        match output {
            Output::Connect { connection, remote, purpose, local: _ } => {
                let remote = self.mutation.remote(remote, &self.map, &self.hosts_file);
                let link = self.link(connection);
                self.tell_next_hop(link, remote);
                if purpose == Purpose::Smtp && self.has_no_place() {
                    self.clock.after(Duration::ZERO, Happening::FindsNoPlace(link));
                } else {
                    self.connect(link, remote, purpose);
                }
            }
            Output::StartTls { connection, groups, terms } => {
                self.start_tls(self.link(connection), self.mutation.groups(groups), &terms.tlsa);
            }
            Output::Transmit(connection) => {
                let link = self.link(connection);
                if let Some(connection) = self.network.get(link) {
                    connection.has_more = true;
                }
                self.pull(link);
            }
            Output::Close(connection) => self.close(self.link(connection)),
            Output::Datagram { query, to, octets } => self.send_datagram(query, to, &octets),
            Output::CloseDatagram(_) => {}
            Output::Store(id, request) => self.ask(id, request),
            Output::Release(ids) => self.release(&ids),
            Output::Sign(id, digests) => self.sign(id, &digests),
            Output::Https(id, _) => {
                let now = self.clock.now();
                if let Some(daemon) = self.daemon() {
                    daemon.dispatcher.handle_input(now, Input::Https(id, Err(unreachable_host())));
                }
            }
            Output::Event(event) => self.see(Fact::Log(&event)),
            Output::Answer(id, answer) => self.answered(id, answer),
            Output::Drained => self.daemon_ends(),
        }
    }

    /// Lets the keys sign, which may take long, and fail.
    fn sign(&mut self, id: RequestId, digests: &[(KeyId, Digest)]) {
        let keys = &self.settings.signing.keys;
        let signatures = digests.iter().map(|(key, digest)| {
            // A reload may have replaced it.
            if keys.iter().all(|known| known.id != *key) {
                return Err(SignTrouble::NoKey);
            }
            if self.call_dice.chance(self.faults.sign_failures) {
                return Err(SignTrouble::Failed("the token is not there".into()));
            }
            Ok(signatures::signature(*key, &self.mutation.digest(*digest)))
        });
        let signatures = signatures.collect();
        let micros = if self.call_dice.chance(self.faults.sign_delays) {
            self.call_dice.below(100_000_000)
        } else {
            self.call_dice.within(50..=3000)
        };
        self.clock.after(Duration::from_micros(micros), Happening::Signed(self.epochs, id, signatures));
    }

    pub(super) fn signed(
        &mut self,
        epoch: u32,
        id: RequestId,
        signatures: Vec<Result<Signature, SignTrouble>>,
    ) {
        if epoch == self.epochs {
            self.call(Input::Signed(id, signatures));
        }
    }

    fn close(&mut self, link: Link) {
        let is_mute = |host: usize| self.map.hosts.get(host).is_some_and(|host| host.temperament.is_mute);
        let host = self.network.get(link).map(|connection| connection.host);
        if self.mutation == Mutation::ClingsToSilence && host.is_some_and(is_mute) {
            return self.clock.after(CLINGS_FOR, Happening::LetsGo(link));
        }
        self.client_closes(link);
    }

    /// Returns whether a wrong build delays what needs a connection now.
    fn has_no_place(&self) -> bool {
        let open = |(link, connection): (Link, &Connection)| {
            link.epoch == self.epochs
                && connection.client != ClientEnd::Gone
                && matches!(connection.peer, Peer::Smtp(_))
        };
        if self.mutation == Mutation::WaitsForDns {
            return self.clock.instant() < self.dns.silent_until;
        }
        let limit = usize::try_from(self.settings.concurrency).unwrap_or(usize::MAX);
        self.mutation == Mutation::ClingsToSilence
            && self.network.iter().filter(|&other| open(other)).count() >= limit
    }

    /// Handles a wrong build that makes no connection. That is not a failure of the mail, which waits.
    pub(super) fn finds_no_place(&mut self, link: Link) {
        if link.epoch == self.epochs {
            let error =
                ConnectError::local(MachineTrouble::Descriptors, "there is no place for a connection");
            self.call(Input::ConnectFailed(link.id, error));
        }
    }

    pub(super) fn link(&self, id: ConnectionId) -> Link {
        Link { epoch: self.epochs, id }
    }

    /// Lets the core send on a connection as much as fits.
    pub(super) fn pull(&mut self, link: Link) {
        let now = self.clock.now();
        while let Some(connection) = self.network.get(link)
            && connection.has_more
            && connection.in_flight < WINDOW
        {
            let limit = 1 + self.net_dice.index(TRANSMIT_LIMIT);
            let limit = if self.net_dice.chance(self.faults.splits / 4) { 1 + limit % 40 } else { limit };
            let mut octets = std::mem::take(&mut self.scratch);
            if octets.capacity() < limit {
                octets = BytesMut::with_capacity(SCRATCH_OCTETS);
            }
            let Some(daemon) = self.daemon().filter(|daemon| daemon.epoch == link.epoch) else { return };
            let more = daemon.dispatcher.poll_transmit(now, link.id, limit, &mut octets);
            // The rest of the allocation is for the next call.
            let mut sent = octets.split();
            self.scratch = octets;
            if now != self.clock.now() || (!more && sent.is_empty()) {
                let Some(connection) = self.network.get(link) else { return };
                connection.has_more = false;
                return;
            }
            let is_probe = self.is_probe(link.id);
            self.mutation.sent(&mut sent, is_probe);
            if let Some(event) = self.mutation.log(&sent) {
                self.see(Fact::Log(&event));
            }
            self.client_sends(link, sent.freeze());
        }
    }

    fn send_datagram(&mut self, query: QueryId, to: SocketAddr, octets: &[u8]) {
        let epoch = self.epochs;
        if self.net_dice.chance(self.faults.local_trouble) {
            let error = ConnectError::local(MachineTrouble::Descriptors, "no descriptors are left");
            return self.clock.after(Duration::ZERO, Happening::DatagramFails(epoch, query, error));
        }
        if self.net_dice.chance(self.faults.dns_losses / 4) {
            let error = ConnectError::remote(NetworkTrouble::Refused, "connection refused");
            let event = Happening::DatagramFails(epoch, query, error);
            return self.clock.after(Duration::from_millis(1), event);
        }
        let now = self.clock.instant();
        // Elsewhere nobody asks what is secure.
        let question = dns::question(octets).filter(|_| self.options.signed > 0);
        if let Some(question) = &question {
            self.see(Fact::NameAsked { question });
        }
        for mut answer in self.dns.datagram(now, &self.map, &self.faults, to, octets) {
            if let Some(question) = &question {
                if let Some(is_secure) = dns::is_secure(&answer.octets) {
                    self.see(Fact::NameAnswered { question, is_secure });
                }
                self.mutation.name_answer(&mut answer.octets);
            }
            let event = Happening::Datagram(epoch, query, answer.from, answer.octets);
            self.clock.after(answer.delay, event);
        }
    }

    pub(super) fn datagram(&mut self, epoch: u32, query: QueryId, from: SocketAddr, octets: &[u8]) {
        if epoch == self.epochs {
            self.call(Input::Datagram { query, from, octets });
        }
    }

    pub(super) fn datagram_fails(&mut self, epoch: u32, query: QueryId, error: ConnectError) {
        if epoch == self.epochs {
            self.call(Input::DatagramFailed(query, error));
        }
    }

    /// Makes a call that makes no sense, and must do nothing.
    fn call_out_of_order(&mut self) {
        let now = self.clock.now();
        let links = self.network.open_links(self.epochs);
        let open = self.call_dice.pick(&links).copied();
        let some = open.map_or(ConnectionId(7777), |link| link.id);
        // TLS may be said to stand once more where it does, but not where it is just about to begin.
        let is_tls = open.and_then(|link| self.network.get(link)).is_some_and(|connection| connection.is_tls);
        let gone = ConnectionId(self.call_dice.below(1 << 40) + (1 << 41));
        let choice = self.call_dice.below(12);
        let Some(daemon) = self.daemon() else { return };
        let dispatcher = &mut daemon.dispatcher;
        match choice {
            0 => dispatcher.handle_timeout(now),
            1 => dispatcher.handle_input(now, Input::Received(gone, b"250 hello\r\n")),
            2 => dispatcher.handle_input(now, Input::Closed(gone, CloseReason::EndOfFile)),
            3 => dispatcher.handle_input(now, Input::Connected(gone)),
            4 => {
                let result = Err(cmail_delivery::outbox::StoreError {
                    trouble: cmail_delivery::outbox::StoreTrouble::Busy,
                    text: "nobody asked".into(),
                });
                dispatcher.handle_input(now, Input::Store(RequestId(u64::MAX), result));
            }
            5 => {
                dispatcher.poll_transmit(now, gone, 100, &mut BytesMut::new());
            }
            6 => {
                // No room: nothing may be appended.
                let mut octets = BytesMut::new();
                dispatcher.poll_transmit(now, some, 0, &mut octets);
            }
            7 => dispatcher.handle_input(now, Input::OutboxChanged),
            8 => dispatcher
                .handle_input(now, Input::TlsFailed(gone, SystemError::new(TlsTrouble::Alert, "late"))),
            9 => dispatcher.handle_input(now, Input::Connected(some)),
            10 if is_tls => {
                let input = Input::TlsEstablished { connection: some, tls: tls(Shown::default(), &[]) };
                dispatcher.handle_input(now, input);
            }
            _ => {
                let input = Input::TlsEstablished { connection: gone, tls: tls(Shown::default(), &[]) };
                dispatcher.handle_input(now, input);
            }
        }
    }

    /// Writes a remark of the simulator into the log.
    pub(super) fn remark(&mut self, text: &str) {
        let event = Event::Note {
            about: cmail_delivery::event::EventName::Note,
            level: cmail_delivery::event::Level::Debug,
            text: text.to_owned(),
        };
        self.see(Fact::Log(&event));
    }
}
