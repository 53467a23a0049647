//! Everything around one daemon, in virtual time.

mod calls;
mod connections;
mod database;
mod life;
mod people;
mod questions;

use std::collections::BTreeMap;

use bytes::BytesMut;
use cmail_delivery::Dispatcher;
use cmail_delivery::dkim::{SignTrouble, Signature};
use cmail_delivery::explanation::Subject;
use cmail_delivery::io::{ConnectError, QueryId};
use cmail_delivery::memory_outbox::MemoryOutbox;
use cmail_delivery::outbox::{MailId, RequestId, Row, StoreError, StoreReply, StoreRequest};
use cmail_delivery::settings::{Hosts, Settings};
use cmail_delivery::time::{Duration, Instant};
use std::net::SocketAddr;

use crate::clock::Clock;
use crate::dialogue::Dialogue;
use crate::dice::Dice;
use crate::dns::Dns;
use crate::facts::{Fact, Link, Scene};
use crate::host_keys::KeyStep;
use crate::map::Map;
use crate::mutation::Mutation;
use crate::network::Network;
use crate::options::{Faults, Options};
use crate::servers::Memory;
use crate::witness::Witness;

/// Most calls at the same instant that the core may ask for.
const SPIN_LIMIT: u32 = 1000;

/// A scheduled event.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The daemon starts.
    Start,
    /// The daemon crashes.
    Crash,
    /// The daemon is asked to end.
    Drain,
    /// A connection is made, or not.
    ConnectEnds(Link, Result<(), ConnectError>),
    /// Something comes out at the server's end.
    AtServer(Link),
    /// Something comes out at the client's end.
    AtClient(Link),
    /// The server does not wait any longer.
    ServerGivesUp(Link),
    /// A datagram comes in.
    Datagram(u32, QueryId, SocketAddr, Vec<u8>),
    /// A datagram could not be sent.
    DatagramFails(u32, QueryId, ConnectError),
    /// The database gets to a request.
    Execute(u32, RequestId),
    /// The database has answered.
    Answer(u32, RequestId, Box<Result<StoreReply, StoreError>>),
    /// What was to be signed is signed.
    Signed(u32, RequestId, Vec<Result<Signature, SignTrouble>>),
    /// The outputs of the core are taken, late.
    TakeOutputs,
    /// Another process submits a message.
    Submit,
    /// Another process changes something.
    Meddle,
    /// The administrator wants everything to be tried.
    TryNow,
    /// The administrator gives an order about some mail.
    Order,
    /// A build that keeps orders acts upon one again.
    OrderAgain,
    /// The files of the system are read again.
    Reload,
    /// The administrator changes the settings.
    Reconfigure,
    /// The wall clock is set.
    SetWall,
    /// A host, or its whole group, fails.
    HostFails { group: bool },
    /// A host is there again.
    HostReturns(usize),
    /// A host replaces its key.
    KeyRolls,
    /// The next step of that.
    Rekey(usize, KeyStep),
    /// The name servers fail.
    DnsFails,
    /// The name servers say nothing any more.
    DnsFallsSilent,
    /// A wrong build does not make a connection that is wanted.
    FindsNoPlace(Link),
    /// A build that clings to silent connections closes one.
    LetsGo(Link),
    /// An hour begins: what comes by itself is drawn.
    Hour,
    /// There are no faults any more.
    Heal,
    /// All must be over.
    Finish,
}

/// The way in which a host is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Down {
    Refuses,
    Swallows,
    Unreachable,
}

/// A daemon that runs.
#[derive(Debug)]
struct Daemon {
    dispatcher: Dispatcher,
    epoch: u32,
    /// The number of calls.
    calls: u64,
}

/// The world.
#[derive(Debug)]
pub(crate) struct World {
    clock: Clock<Happening>,
    options: Options,
    /// The faults that there are now.
    faults: Faults,
    settings: Settings,
    /// What the daemon was told before in its life, and until when that held.
    earlier_settings: Vec<(Instant, Settings)>,
    map: Map,
    outbox: MemoryOutbox,
    /// `/etc/hosts`.
    hosts_file: Hosts,
    network: Network,
    dns: Dns,
    memories: Vec<Memory>,
    down: Vec<Option<Down>>,
    daemon: Option<Daemon>,
    epochs: u32,
    /// The time of the first call since its outputs were taken.
    untaken_since: Option<Instant>,
    /// The time at which the daemon wants to be called. Absent if it was called since that was asked.
    deadline: Option<Option<Instant>>,
    /// The buffer for sent octets.
    scratch: BytesMut,
    /// The number of calls after which the daemon crashes.
    crashes_in: Option<u32>,
    /// The open requests to the database.
    requests: BTreeMap<(u32, RequestId), StoreRequest>,
    /// The time at which the database is free for the next request, and that of its last answer.
    database_free_at: Instant,
    database_told_at: Instant,
    /// The number of keys that hosts were given besides their first ones.
    later_keys: u64,
    /// Marks of messages and recipients.
    messages: u64,
    recipients: u64,
    is_healed: bool,
    is_finished: bool,
    mutation: Mutation,
    /// The rows that a build has found which reads nothing again.
    scanned: BTreeMap<MailId, Row>,
    /// The randomness of the network, the servers, other processes, and the order of calls.
    net_dice: Dice,
    server_dice: Dice,
    people_dice: Dice,
    call_dice: Dice,
    question_dice: Dice,
    /// What was asked, in the order of the inquiries.
    questions: Vec<Subject>,
    witness: Witness,
}

/// The result of a world.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) witness: Witness,
    /// The virtual time that it took.
    pub(crate) elapsed: Duration,
}

impl World {
    /// Returns a world that its arguments determine completely.
    pub(crate) fn new(seed: u64, options: Options, mutation: Mutation, dialogue: Dialogue) -> Self {
        let mut dice = Dice::new(seed ^ 0x51_6d);
        let map = Map::draw(&options, &mut dice.fork());
        let hosts_file = map.draw_hosts_file(&mut dice.fork());
        let hosts = map.hosts.len();
        let drops_edns = options.dns_drops_edns;
        let mut world = Self {
            clock: Clock::new(),
            faults: options.faults.clone(),
            settings: options.settings(),
            earlier_settings: Vec::new(),
            options,
            map,
            outbox: MemoryOutbox::new(),
            hosts_file,
            network: Network::default(),
            dns: Dns::new(dice.fork(), drops_edns),
            memories: std::iter::repeat_with(Memory::default).take(hosts).collect(),
            down: vec![None; hosts],
            daemon: None,
            epochs: 0,
            untaken_since: None,
            deadline: None,
            scratch: BytesMut::new(),
            crashes_in: None,
            requests: BTreeMap::new(),
            database_free_at: Instant::default(),
            database_told_at: Instant::default(),
            later_keys: 0,
            messages: 0,
            recipients: 0,
            is_healed: false,
            is_finished: false,
            mutation,
            scanned: BTreeMap::new(),
            net_dice: dice.fork(),
            server_dice: dice.fork(),
            people_dice: dice.fork(),
            call_dice: dice.fork(),
            question_dice: dice.fork(),
            questions: Vec::new(),
            witness: Witness::new(dialogue),
        };
        world.clock.after(Duration::ZERO, Happening::Start);
        world.clock.after(Duration::ZERO, Happening::Hour);
        world.clock.after(Duration::from_secs(1), Happening::Submit);
        let hours = u64::from(world.options.hours);
        world.clock.after(Duration::from_secs(hours * 3600), Happening::Heal);
        world
    }

    /// Lets time pass until all is over, or a rule is broken.
    pub(crate) fn run(mut self) -> Outcome {
        let mut spins = (Instant::default(), 0_u32);
        while !self.is_finished && self.witness.violation.is_none() {
            let deadline = self.deadline();
            let next = self.clock.next_at();
            match deadline {
                Some(at) if next.is_none_or(|next| at < next) => {
                    self.clock.advance(at);
                    let now = self.clock.instant();
                    spins = if spins.0 == now { (now, spins.1 + 1) } else { (now, 0) };
                    if spins.1 > SPIN_LIMIT {
                        self.see(Fact::Spins);
                    }
                    self.call_timeout();
                }
                Some(_) | None => match self.clock.pop() {
                    Some(event) => {
                        self.happen(event);
                        self.maybe_ask();
                    }
                    None => break,
                },
            }
        }
        Outcome {
            elapsed: self.clock.instant().saturating_duration_since(Instant::default()),
            witness: self.witness,
        }
    }

    /// Returns the daemon for a call, after which its deadline may change.
    fn daemon(&mut self) -> Option<&mut Daemon> {
        self.deadline = None;
        self.daemon.as_mut()
    }

    fn deadline(&mut self) -> Option<Instant> {
        let daemon = &self.daemon;
        let ask = || Some(daemon.as_ref()?.dispatcher.poll_timeout()?.0);
        *self.deadline.get_or_insert_with(ask)
    }

    fn happen(&mut self, event: Happening) {
        match event {
            Happening::Start => self.start(),
            Happening::Crash => self.crashes_in = Some(self.u32_below(300)),
            Happening::Drain => self.drain(),
            Happening::ConnectEnds(link, result) => self.connect_ends(link, result),
            Happening::AtServer(link) => self.at_server(link),
            Happening::AtClient(link) => self.at_client(link),
            Happening::ServerGivesUp(link) => self.server_closes(link),
            Happening::Datagram(epoch, query, from, octets) => self.datagram(epoch, query, from, &octets),
            Happening::DatagramFails(epoch, query, error) => self.datagram_fails(epoch, query, error),
            Happening::Execute(epoch, id) => self.execute(epoch, id),
            Happening::Answer(epoch, id, result) => self.answer(epoch, id, *result),
            Happening::Signed(epoch, id, signatures) => self.signed(epoch, id, signatures),
            Happening::TakeOutputs => self.take_outputs(),
            Happening::Submit => self.submit(),
            Happening::Meddle => self.meddle(),
            Happening::TryNow => self.try_now(),
            Happening::Order => self.order(),
            Happening::OrderAgain => self.order_again(),
            Happening::Reload => self.reload(),
            Happening::Reconfigure => self.reconfigure(),
            Happening::SetWall => self.set_wall(),
            Happening::HostFails { group } => self.host_fails(group),
            Happening::HostReturns(host) => self.host_returns(host),
            Happening::KeyRolls => self.key_rolls(),
            Happening::Rekey(host, step) => self.rekey(host, step),
            Happening::DnsFails => self.dns_fails(),
            Happening::DnsFallsSilent => self.dns_falls_silent(),
            Happening::FindsNoPlace(link) => self.finds_no_place(link),
            Happening::LetsGo(link) => self.client_closes(link),
            Happening::Hour => self.hour(),
            Happening::Heal => self.heal(),
            Happening::Finish => self.finish(),
        }
    }

    fn see(&mut self, fact: Fact<'_>) {
        let now = self.clock.now();
        let scene = Scene {
            now,
            said_since: self.untaken_since.unwrap_or(now.monotonic),
            settings: &self.settings,
            earlier_settings: &self.earlier_settings,
            outbox: &self.outbox,
            map: &self.map,
        };
        self.witness.see(&scene, fact);
    }

    fn u32_below(&mut self, bound: u64) -> u32 {
        u32::try_from(self.call_dice.below(bound)).unwrap_or(0)
    }

    fn finish(&mut self) {
        if !self.is_finished {
            self.is_finished = true;
            self.see(Fact::Finished);
        }
    }
}
