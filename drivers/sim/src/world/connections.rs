//! Connections between the core and the servers.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use cmail_delivery::io::{CloseReason, ConnectError, Groups, Input, Purpose};
use cmail_delivery::system_error::{MachineTrouble, NetworkTrouble};
use cmail_delivery::system_error::{SystemError, TlsTrouble};
use cmail_delivery::time::Duration;
use cmail_delivery::tls::Tlsa;
use memchr::memmem;

use super::{Down, Happening, World};
use crate::dkim;
use crate::facts::{CLOSED_IN_HANDSHAKE, Fact, Link, Parting, Shown, reset, tls, tls_failure};
use crate::host_keys::IMPOSTOR;
use crate::mutation::Mutation;
use crate::network::{ClientEnd, Connection, Fate, Handshake, Item, Peer, Pipe};
use crate::options::NAME_SERVERS;
use crate::outbox::MailKey;
use crate::servers::{Act, Conversation, Surroundings};

/// The port on which TLS comes first (RFC 8314 section 3).
const IMPLICIT_TLS_PORT: u16 = 465;
/// Segments that come within this time may be joined.
const JOIN_SPAN: Duration = Duration::from_millis(200);
/// The words of the system for a connection that the peer has reset.
const RESET: &str = "connection reset by peer";
/// Time that a server waits for a silent client.
const SERVER_PATIENCE: Duration = Duration::from_secs(600);

impl World {
    pub(super) fn connect(&mut self, link: Link, remote: SocketAddr, purpose: Purpose) {
        self.see(Fact::Connecting { link, remote, purpose });
        let dns = NAME_SERVERS.contains(&remote);
        let host = self.map.host_at(remote.ip());
        let latency_us = host.and_then(|host| self.map.hosts.get(host)).map_or(5000, |host| host.latency_us);
        let dice = &mut self.net_dice;
        let faults = &self.faults;
        let connection = Connection {
            peer: if dns { Peer::Dns(Vec::new()) } else { Peer::Smtp(None) },
            host: host.unwrap_or(usize::MAX),
            remote,
            latency_us,
            client: ClientEnd::Connecting,
            server_is_open: false,
            is_tls: false,
            handshake: Handshake::default(),
            fate: Fate::draw(dice, faults.resets, faults.stalls, faults.hangups),
            carried: 0,
            is_stalled: false,
            to_server: Pipe::default(),
            to_client: Pipe::default(),
            has_more: false,
            in_flight: 0,
        };
        let round_trip = Duration::from_micros(2 * latency_us);
        let remote_error = |trouble, text: &str| Err(ConnectError::remote(trouble, text));
        let down = host.and_then(|host| self.down.get(host).copied().flatten());
        let (after, result) = if dice.chance(faults.local_trouble) {
            (Duration::ZERO, Err(ConnectError::local(MachineTrouble::Descriptors, "no descriptors are left")))
        } else if dice.chance(faults.refusals) || down == Some(Down::Refuses) {
            (round_trip, remote_error(NetworkTrouble::Refused, "connection refused"))
        } else if (!dns && host.is_none()) || down == Some(Down::Unreachable) {
            (Duration::from_secs(3), remote_error(NetworkTrouble::Unreachable, "no route to host"))
        } else {
            (round_trip, Ok(()))
        };
        self.network.insert(link, connection);
        if down != Some(Down::Swallows) {
            self.clock.after(after, Happening::ConnectEnds(link, result));
        }
    }

    pub(super) fn connect_ends(&mut self, link: Link, result: Result<(), ConnectError>) {
        let Some(connection) = self.network.get(link) else { return };
        if connection.client != ClientEnd::Connecting || link.epoch != self.epochs {
            return self.network.sweep(link);
        }
        if let Err(error) = result {
            connection.client = ClientEnd::Gone;
            self.network.sweep(link);
            let parting = match &error {
                ConnectError::Local(_) => Parting::Local,
                ConnectError::Remote(error) if error.kind == NetworkTrouble::Unreachable => {
                    Parting::Unreachable
                }
                ConnectError::Remote(_) => Parting::Refused,
            };
            self.see(Fact::Gone { link, parting });
            return self.call(Input::ConnectFailed(link.id, error));
        }
        connection.client = ClientEnd::Open;
        connection.server_is_open = true;
        let is_smtp = matches!(connection.peer, Peer::Smtp(_));
        if is_smtp {
            let implicit = connection.remote.port() == IMPLICIT_TLS_PORT;
            let host = connection.host;
            if let Some(memory) = self.memories.get_mut(host) {
                memory.open += 1;
            }
            let mut begun = None;
            self.with_server(link, |_, around| begun = Some(Conversation::begin(implicit, around)));
            if let Some(Connection { peer: Peer::Smtp(conversation), .. }) = self.network.get(link) {
                *conversation = begun;
            }
        }
        self.call(Input::Connected(link.id));
    }

    /// Puts octets of the core on their way.
    pub(super) fn client_sends(&mut self, link: Link, octets: Bytes) {
        let Some(connection) = self.network.get(link) else { return };
        let (tls, latency_us) = (connection.is_tls, connection.latency_us);
        self.see(Fact::Sent { link, octets: &octets, tls });
        let at = self.clock.instant() + Duration::from_micros(latency_us);
        if let Some(connection) = self.network.get(link) {
            connection.in_flight += octets.len();
        }
        self.put(link, true, at, Item::Octets(octets));
    }

    pub(super) fn start_tls(&mut self, link: Link, groups: Groups, records: &Arc<[Tlsa]>) {
        self.see(Fact::StartTls { link, groups });
        let Some(connection) = self.network.get(link) else { return };
        connection.handshake = Handshake { groups, records: Arc::clone(records), shown: Shown::default() };
        let at = self.clock.instant() + Duration::from_micros(connection.latency_us);
        if self.mutation == Mutation::SkipsTls {
            let implicit = connection.remote.port() == IMPLICIT_TLS_PORT;
            let shown = Shown { is_valid: true, key: 0 };
            self.see(Fact::TlsEstablished { link, shown });
            self.call(Input::TlsEstablished { connection: link.id, tls: tls(shown, &[]) });
            return self.with_server(link, |conversation, around| {
                if let Some(conversation) = conversation {
                    conversation.tls_established(implicit, around);
                }
            });
        }
        connection.client = ClientEnd::Handshaking;
        self.put(link, true, at, Item::Tls(true));
    }

    pub(super) fn client_closes(&mut self, link: Link) {
        self.see(Fact::Gone { link, parting: Parting::Closed });
        let Some(connection) = self.network.get(link) else { return };
        connection.client = ClientEnd::Gone;
        connection.to_client.clear();
        let at = self.clock.instant() + Duration::from_micros(connection.latency_us);
        if connection.server_is_open {
            self.put(link, true, at, Item::Eof);
            self.clock.after(SERVER_PATIENCE, Happening::ServerGivesUp(link));
        } else {
            self.network.sweep(link);
        }
    }

    /// Puts something into a pipe, unless the connection meets its fate.
    fn put(&mut self, link: Link, to_server: bool, at: cmail_delivery::time::Instant, item: Item) {
        let Some(connection) = self.network.get(link) else { return };
        if connection.is_stalled {
            return;
        }
        let octets = if let Item::Octets(octets) = &item { octets.len() } else { 0 };
        let before = connection.carried;
        connection.carried += octets;
        let (Fate::Resets { after } | Fate::Stalls { after } | Fate::HangsUp { after }) = connection.fate
        else {
            return self.schedule(link, to_server, at, item);
        };
        if connection.carried <= after || octets == 0 {
            return self.schedule(link, to_server, at, item);
        }
        let fate = std::mem::replace(&mut connection.fate, Fate::Fine);
        // Octets within the bound still get through, and sometimes all of them.
        if let Item::Octets(octets) = item {
            let through = if self.net_dice.chance(500) { octets.len() } else { after.saturating_sub(before) };
            self.schedule(link, to_server, at, Item::Octets(octets.slice(..through.min(octets.len()))));
        }
        match fate {
            Fate::Resets { .. } => {
                self.schedule(link, true, at, Item::Reset);
                self.schedule(link, false, at, Item::Reset);
            }
            Fate::HangsUp { .. } => {
                self.schedule(link, true, at, Item::Eof);
                self.schedule(link, false, at, Item::Eof);
            }
            Fate::Stalls { .. } | Fate::Fine => {
                if let Some(connection) = self.network.get(link) {
                    connection.is_stalled = true;
                }
                self.clock.after(SERVER_PATIENCE, Happening::ServerGivesUp(link));
            }
        }
    }

    fn schedule(&mut self, link: Link, to_server: bool, at: cmail_delivery::time::Instant, item: Item) {
        let Some(connection) = self.network.get(link) else { return };
        let (pipe, event) = if to_server {
            (&mut connection.to_server, Happening::AtServer(link))
        } else {
            (&mut connection.to_client, Happening::AtClient(link))
        };
        let at = pipe.put(at, item);
        self.clock.at(at, event);
    }

    pub(super) fn at_server(&mut self, link: Link) {
        let now = self.clock.instant();
        let Some(connection) = self.network.get(link) else { return };
        let Some(item) = connection.to_server.take(now) else { return };
        if !connection.server_is_open {
            return self.network.sweep(link);
        }
        match item {
            Item::Octets(octets) => {
                connection.in_flight = connection.in_flight.saturating_sub(octets.len());
                let has_more = connection.has_more;
                if let Peer::Dns(input) = &mut connection.peer {
                    input.extend_from_slice(&octets);
                    self.answer_dns(link);
                } else {
                    self.with_server(link, |conversation, around| {
                        if let Some(conversation) = conversation {
                            conversation.received(&octets, around);
                        }
                    });
                }
                if has_more {
                    self.pull(link);
                    self.take_outputs();
                }
            }
            Item::Tls(_) => self.handshake(link),
            Item::Eof | Item::Reset => self.server_closes(link),
        }
    }

    fn handshake(&mut self, link: Link) {
        let Some(connection) = self.network.get(link) else { return };
        let (latency_us, host, groups) =
            (connection.latency_us, connection.host, connection.handshake.groups);
        let implicit = connection.remote.port() == IMPLICIT_TLS_PORT;
        let conduct = self.map.hosts.get(host).map(|host| host.temperament.tls).unwrap_or_default();
        let at = self.clock.instant() + Duration::from_micros(3 * latency_us);
        if conduct.hangs(groups) {
            return;
        }
        if conduct.drops(groups) {
            self.put(link, false, at, Item::Reset);
            return self.server_closes(link);
        }
        if conduct.fails() || self.net_dice.chance(self.faults.tls_failures) {
            self.put(link, false, at, Item::Tls(false));
            return self.server_closes(link);
        }
        let shown = self.draw_shown(host);
        if let Some(connection) = self.network.get(link) {
            connection.handshake.shown = shown;
        }
        self.put(link, false, at, Item::Tls(true));
        self.with_server(link, |conversation, around| {
            if let Some(conversation) = conversation {
                conversation.tls_established(implicit, around);
            }
        });
    }

    /// Returns the certificate that a host shows, or somebody in its place.
    fn draw_shown(&mut self, host: usize) -> Shown {
        if self.net_dice.chance(self.faults.impostors) {
            return Shown { is_valid: false, key: IMPOSTOR };
        }
        let host = self.map.hosts.get(host);
        host.map_or_else(Shown::default, |host| Shown {
            is_valid: host.temperament.certificate_is_valid,
            key: host.keys.shown(),
        })
    }

    /// The server's side is closed.
    pub(super) fn server_closes(&mut self, link: Link) {
        let Some(connection) = self.network.get(link) else { return };
        if connection.server_is_open {
            connection.server_is_open = false;
            let is_smtp = matches!(connection.peer, Peer::Smtp(_));
            let host = connection.host;
            if let Some(memory) = self.memories.get_mut(host).filter(|_| is_smtp) {
                memory.open = memory.open.saturating_sub(1);
            }
        }
        self.network.sweep(link);
    }

    /// Lets the server's side act, and carries out its actions.
    fn with_server(
        &mut self,
        link: Link,
        act: impl FnOnce(Option<&mut Conversation>, &mut Surroundings<'_>),
    ) {
        let now = self.clock.instant();
        let Some(connection) = self.network.get(link) else { return };
        let Peer::Smtp(conversation) = &mut connection.peer else { return };
        let host = connection.host;
        let (Some(server), Some(memory)) = (self.map.hosts.get(host), self.memories.get_mut(host)) else {
            return;
        };
        let mut around = Surroundings {
            now,
            temperament: &server.temperament,
            memory,
            dice: &mut self.server_dice,
            acts: Vec::new(),
        };
        act(conversation.as_mut(), &mut around);
        let acts = around.acts;
        for act in acts {
            self.act(link, act);
        }
    }

    fn act(&mut self, link: Link, act: Act) {
        let Some(connection) = self.network.get(link) else { return };
        let at = self.clock.instant() + Duration::from_micros(connection.latency_us);
        match act {
            Act::Say { octets, delay, pause } => self.server_says(link, at + delay, octets, pause),
            Act::Close => {
                self.put(link, false, at, Item::Eof);
                self.server_closes(link);
            }
            Act::Reset => {
                self.put(link, false, at, Item::Reset);
                self.server_closes(link);
            }
            Act::Accept { number, recipients, data } => {
                let keys = MailKey::all(&recipients, dkim::divide(&data).1);
                self.see(Fact::Accepted { link, number, recipients: &recipients, data: &data, keys: &keys });
            }
        }
    }

    fn server_says(
        &mut self,
        link: Link,
        mut at: cmail_delivery::time::Instant,
        mut octets: Bytes,
        pause: Duration,
    ) {
        if self.faults.stripped > 0 && self.net_dice.chance(self.faults.stripped) {
            octets = without_starttls(octets);
        }
        let is_split = self.net_dice.chance(self.faults.splits);
        while !octets.is_empty() {
            let length = match (pause.is_zero(), is_split) {
                (false, _) => 1 + self.net_dice.index(3),
                (true, true) => 1 + self.net_dice.index(octets.len()),
                (true, false) => octets.len(),
            };
            let piece = octets.split_to(length.min(octets.len()));
            self.put(link, false, at, Item::Octets(piece));
            at = at + pause + Duration::from_micros(self.net_dice.below(2000));
        }
    }

    pub(super) fn at_client(&mut self, link: Link) {
        let now = self.clock.instant();
        let is_joined = self.net_dice.chance(self.faults.joins);
        let Some(connection) = self.network.get(link) else { return };
        let Some(item) = connection.to_client.take(now) else { return };
        let end = connection.client;
        if link.epoch != self.epochs || matches!(end, ClientEnd::Gone | ClientEnd::Connecting) {
            return;
        }
        match item {
            Item::Octets(octets) if end == ClientEnd::Open => {
                if !is_joined {
                    return self.client_receives(link, &octets);
                }
                let mut octets = octets.to_vec();
                while let Some(more) = connection.to_client.take_octets(now + JOIN_SPAN) {
                    octets.extend_from_slice(&more);
                }
                self.client_receives(link, &octets);
            }
            Item::Octets(_) => self.client_loses(link, "not a TLS record"),
            Item::Tls(true) => {
                connection.client = ClientEnd::Open;
                connection.is_tls = true;
                let Handshake { shown, ref records, .. } = connection.handshake;
                let facts = self.mutation.tls(tls(shown, records));
                self.see(Fact::TlsEstablished { link, shown });
                self.call(Input::TlsEstablished { connection: link.id, tls: facts });
            }
            Item::Tls(false) => self.client_loses(link, "handshake failure"),
            Item::Eof => self.client_loses(link, ""),
            Item::Reset => self.client_loses(link, RESET),
        }
    }

    fn client_receives(&mut self, link: Link, octets: &[u8]) {
        let is_smtp =
            self.network.get(link).is_some_and(|connection| matches!(connection.peer, Peer::Smtp(_)));
        if is_smtp {
            self.see(Fact::Received { link, octets });
        }
        if self.mutation.misreads(octets) {
            return self.client_loses(link, "misread");
        }
        self.call(Input::Received(link.id, &self.mutation.heard(octets)));
    }

    /// Ends a connection that the core has not closed. Without a reason it ends in an orderly way.
    fn client_loses(&mut self, link: Link, reason: &str) {
        let Some(connection) = self.network.get(link) else { return };
        let was_handshaking = connection.client == ClientEnd::Handshaking;
        connection.client = ClientEnd::Gone;
        let at = self.clock.instant() + Duration::from_micros(connection.latency_us);
        self.put(link, true, at, Item::Eof);
        self.clock.after(SERVER_PATIENCE, Happening::ServerGivesUp(link));
        self.network.sweep(link);
        let dropped = match reason {
            "" => Some(SystemError::new(TlsTrouble::Truncated, CLOSED_IN_HANDSHAKE)),
            RESET => Some(reset(reason)),
            _ => None,
        };
        let parting = match (was_handshaking, reason.is_empty()) {
            (true, _) if dropped.is_some() => Parting::TlsDropped,
            (true, _) => Parting::TlsFailed,
            (false, true) => Parting::EndOfFile,
            (false, false) => Parting::Reset,
        };
        self.see(Fact::Gone { link, parting });
        let input = if was_handshaking {
            Input::TlsFailed(link.id, dropped.unwrap_or_else(|| tls_failure(reason)))
        } else if reason.is_empty() {
            Input::Closed(link.id, CloseReason::EndOfFile)
        } else {
            Input::Closed(link.id, CloseReason::Broken(reset(reason)))
        };
        self.call(input);
    }

    /// Answers the questions received over TCP, each with its length in front (RFC 1035 section 4.2.2).
    fn answer_dns(&mut self, link: Link) {
        let now = self.clock.instant();
        let Some(connection) = self.network.get(link) else { return };
        let latency_us = connection.latency_us;
        let Peer::Dns(input) = &mut connection.peer else { return };
        let Some((&[high, low], rest)) = input.split_first_chunk::<2>() else { return };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(query) = rest.get(..length) else { return };
        if now < self.dns.silent_until {
            return;
        }
        let answer = self.dns.answer(now, &self.map, query);
        input.clear();
        let mut framed = u16::try_from(answer.len()).unwrap_or(0).to_be_bytes().to_vec();
        framed.extend_from_slice(&answer);
        self.server_says(link, now + Duration::from_micros(latency_us), framed.into(), Duration::ZERO);
    }

    /// Breaks all connections of a host, or makes them silent.
    pub(super) fn break_connections(&mut self, host: usize) {
        let links: Vec<Link> = self
            .network
            .iter()
            .filter(|(_, connection)| connection.host == host)
            .map(|(link, _)| link)
            .collect();
        for link in links {
            let at = self.clock.instant() + Duration::from_millis(1);
            if self.net_dice.chance(500) {
                self.put(link, false, at, Item::Reset);
            } else if let Some(connection) = self.network.get(link) {
                connection.is_stalled = true;
                connection.to_client.clear();
            }
            self.server_closes(link);
        }
    }
}

/// Makes the offer of STARTTLS unreadable, as some boxes on the way do.
fn without_starttls(octets: Bytes) -> Bytes {
    const OFFER: &[u8] = b"STARTTLS";
    match memmem::find(&octets, OFFER) {
        Some(at) if octets.starts_with(b"250") => {
            let mut changed = octets.to_vec();
            if let Some(offer) = changed.get_mut(at..at + OFFER.len()) {
                offer.fill(b'X');
            }
            changed.into()
        }
        Some(_) | None => octets,
    }
}
