//! One question and the servers it is put to, one after the other, until one answers.
//!
//! All servers are asked once, then all of them again, as often as `attempts` says (resolv.conf(5)). Something on the way may
//! silently drop what it does not know (RFC 6891 section 6.2.2), so only the first round is asked with EDNS. If `attempts`
//! leaves no second round, those that were silent are asked again without EDNS within the time of the first.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use core::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};

use super::message::{self, Message, Question, Reply};
use super::wires::{TaskId, Wires};
use crate::io::{CloseReason, ConnectError, ConnectionId, QueryId};
use crate::settings::ResolverSettings;
use crate::time::{Duration, Instant};

/// After this many datagrams that are no reply, somebody is guessing: the question goes on over TCP, where that is harder
/// (RFC 5452 section 9.2).
pub(super) const STRAY_DATAGRAMS_LIMIT: u32 = 100;
/// After this many messages over TCP that are no reply, the server is given up.
pub(super) const STRAY_MESSAGES_LIMIT: u32 = 100;
/// The length in front of a message over TCP, in octets (RFC 1035 section 4.2.2).
const FRAME_OCTETS: usize = 2;

/// What the questions under way have in common.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) settings: &'a ResolverSettings,
    pub(super) wires: &'a mut Wires,
    /// Whether a server has answered anything.
    pub(super) has_heard: bool,
}

/// How an exchange stands.
#[derive(Debug)]
pub(super) enum Progress {
    /// A server is waited for.
    Waiting,
    /// A server has answered.
    Answered(Message),
    /// No server has given an answer of use; a sentence.
    Failed(String),
    /// No server has said anything; a sentence.
    Silence(String),
    /// None could be asked because of this machine; a sentence.
    Local(String),
}

/// A question and its servers.
#[derive(Debug)]
pub(super) struct Exchange {
    task: TaskId,
    question: Question,
    /// How many turns of servers have begun.
    turns: u32,
    /// Whether the server of this turn is asked with EDNS.
    edns: bool,
    /// Servers, by position, to which this machine has no way. They are not tried again.
    out_of_reach: BTreeSet<usize>,
    /// Servers, by position, that said nothing in their time.
    silent: BTreeSet<usize>,
    /// Whether anything else was learned from a server, or about one.
    is_silence_broken: bool,
    /// The latest failure of a server.
    failure: Option<String>,
    /// The latest failure of this machine.
    local_failure: Option<String>,
    asked: Option<Asked>,
}

/// A server that is waited for.
#[derive(Debug)]
struct Asked {
    server: usize,
    address: SocketAddr,
    /// The id of the message.
    id: u16,
    deadline: Instant,
    /// What came in without being a reply.
    strays: u32,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Udp(QueryId),
    Tcp { connection: ConnectionId, outgoing: Bytes, incoming: BytesMut },
}

impl Exchange {
    pub(super) fn new(task: TaskId, question: Question) -> Self {
        Self {
            task,
            question,
            turns: 0,
            edns: true,
            out_of_reach: BTreeSet::new(),
            silent: BTreeSet::new(),
            is_silence_broken: false,
            failure: None,
            local_failure: None,
            asked: None,
        }
    }

    /// Begins with the first server again, whatever was known of them.
    pub(super) fn begin_again(&mut self, context: &mut Context<'_>) -> Progress {
        self.stop(context.wires);
        *self = Self::new(self.task, self.question.clone());
        self.next_server(context)
    }

    /// Begins, or goes on with the next server.
    pub(super) fn next_server(&mut self, context: &mut Context<'_>) -> Progress {
        self.stop(context.wires);
        let servers = &context.settings.servers;
        let count = u32::try_from(servers.len()).unwrap_or(u32::MAX);
        let configured = count.saturating_mul(context.settings.attempts.max(1));
        let turns = configured.max(count.saturating_mul(2));
        while self.turns < turns && self.out_of_reach.len() < servers.len() {
            let server = usize::try_from(self.turns.checked_rem(count).unwrap_or(0)).unwrap_or(0);
            self.turns += 1;
            let Some(&address) = servers.get(server) else { break };
            let is_wanted = self.turns <= configured || self.silent.contains(&server);
            if is_wanted && !self.out_of_reach.contains(&server) {
                self.edns = self.turns <= count;
                return self.ask_by_udp(context, server, address);
            }
        }
        self.give_up()
    }

    /// Notes that the server that has been asked is of no use, and goes on with the next.
    pub(super) fn server_failed(&mut self, context: &mut Context<'_>, what: &str) -> Progress {
        if let Some(asked) = &self.asked {
            self.failure = Some(self.sentence(asked.address, what));
        }
        self.next_server(context)
    }

    pub(super) fn handle_datagram(
        &mut self,
        context: &mut Context<'_>,
        from: SocketAddr,
        octets: &[u8],
    ) -> Progress {
        let Some(asked) = self.asked.as_mut() else { return Progress::Waiting };
        // Flow information and scope are no part of who has sent it.
        let is_from_server = (from.ip(), from.port()) == (asked.address.ip(), asked.address.port());
        let reply = if is_from_server { message::read(octets, asked.id, &self.question) } else { None };
        let (server, address) = (asked.server, asked.address);
        if reply.is_some() {
            (self.is_silence_broken, context.has_heard) = (true, true);
        }
        match reply {
            Some(Reply::Truncated) => self.ask_by_tcp(context, server, address),
            Some(reply) => self.handle_reply(context, reply),
            None => {
                asked.strays += 1;
                if asked.strays < STRAY_DATAGRAMS_LIMIT {
                    return Progress::Waiting;
                }
                self.ask_by_tcp(context, server, address)
            }
        }
    }

    /// The datagram could not be sent or the connection not be made.
    pub(super) fn handle_unreachable(
        &mut self,
        context: &mut Context<'_>,
        error: ConnectError,
        connection_is_gone: bool,
    ) -> Progress {
        let Some(asked) = &self.asked else { return Progress::Waiting };
        if let (Way::Tcp { connection, .. }, true) = (&asked.way, connection_is_gone) {
            context.wires.forget_connection(*connection);
        }
        self.is_silence_broken = true;
        match error {
            ConnectError::Remote(what) => {
                self.server_failed(context, &format!("could not be reached: {what}"))
            }
            // Nothing is gained by trying that again at once, but another server may be of another family.
            ConnectError::Local(what) => {
                let server = asked.server;
                self.local_failure =
                    Some(self.sentence(asked.address, &format!("could not be asked: {what}")));
                self.out_of_reach.insert(server);
                self.next_server(context)
            }
        }
    }

    pub(super) fn handle_received(&mut self, context: &mut Context<'_>, octets: &[u8]) -> Progress {
        let Some(asked) = self.asked.as_mut() else { return Progress::Waiting };
        let Way::Tcp { incoming, .. } = &mut asked.way else { return Progress::Waiting };
        incoming.extend_from_slice(octets);
        while let Some(message) = take_frame(incoming) {
            match message::read(&message, asked.id, &self.question) {
                // Over TCP there is nothing that could be truncated.
                Some(Reply::Truncated) => return self.handle_reply(context, Reply::Malformed),
                Some(reply) => return self.handle_reply(context, reply),
                None => asked.strays += 1,
            }
            if asked.strays >= STRAY_MESSAGES_LIMIT {
                return self.server_failed(context, "answered other questions than it was asked");
            }
        }
        Progress::Waiting
    }

    pub(super) fn handle_closed(&mut self, context: &mut Context<'_>, reason: CloseReason) -> Progress {
        if let Some(Asked { way: Way::Tcp { connection, .. }, .. }) = &self.asked {
            context.wires.forget_connection(*connection);
        }
        match reason {
            CloseReason::EndOfFile => self.server_failed(context, "closed the connection without an answer"),
            CloseReason::Broken(what) => {
                self.server_failed(context, &format!("broke the connection: {what}"))
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, context: &mut Context<'_>) -> Progress {
        match &self.asked {
            Some(asked) if asked.deadline <= context.now => {
                if matches!(asked.way, Way::Udp(_)) {
                    self.silent.insert(asked.server);
                }
                self.server_failed(context, "did not answer in time")
            }
            Some(_) | None => Progress::Waiting,
        }
    }

    /// What is to be sent over TCP.
    pub(super) fn outgoing(&mut self) -> Option<&mut Bytes> {
        match self.asked.as_mut().map(|asked| &mut asked.way) {
            Some(Way::Tcp { outgoing, .. }) if !outgoing.is_empty() => Some(outgoing),
            Some(Way::Tcp { .. } | Way::Udp(_)) | None => None,
        }
    }

    /// Closes what is open.
    pub(super) fn stop(&mut self, wires: &mut Wires) {
        let Some(asked) = self.asked.take() else { return };
        wires.clear_deadline(self.task, asked.deadline);
        match asked.way {
            Way::Udp(query) => wires.close_query(query),
            Way::Tcp { connection, .. } => wires.close_connection(connection),
        }
    }

    fn handle_reply(&mut self, context: &mut Context<'_>, reply: Reply) -> Progress {
        match reply {
            Reply::Answer(message) => {
                // The caller, which ends the exchange or goes on with it, closes the connection or socket.
                Progress::Answered(message)
            }
            // The same server, without what it may not know (RFC 6891 section 7).
            Reply::NotUnderstood(what) => match &self.asked {
                Some(asked) if self.edns => {
                    let (server, address) = (asked.server, asked.address);
                    self.edns = false;
                    self.ask_by_udp(context, server, address)
                }
                Some(_) | None => self.server_failed(context, &format!("answered {what}")),
            },
            Reply::Refused(what) => self.server_failed(context, &format!("answered {what}")),
            Reply::Truncated | Reply::Malformed => self.server_failed(context, "sent a malformed answer"),
        }
    }

    fn ask_by_udp(&mut self, context: &mut Context<'_>, server: usize, address: SocketAddr) -> Progress {
        self.ask(context, server, address, |wires, task, octets| Way::Udp(wires.send(task, address, octets)))
    }

    /// Asks again by TCP (RFC 7766 section 5), with a message of its own.
    fn ask_by_tcp(&mut self, context: &mut Context<'_>, server: usize, address: SocketAddr) -> Progress {
        self.ask(context, server, address, |wires, task, octets| {
            let mut outgoing = BytesMut::with_capacity(FRAME_OCTETS + octets.len());
            // A question is never longer than its name and a few octets.
            outgoing.extend_from_slice(&u16::try_from(octets.len()).unwrap_or(u16::MAX).to_be_bytes());
            outgoing.extend_from_slice(&octets);
            let connection = wires.connect(task, address);
            Way::Tcp { connection, outgoing: outgoing.freeze(), incoming: BytesMut::new() }
        })
    }

    fn ask(
        &mut self,
        context: &mut Context<'_>,
        server: usize,
        address: SocketAddr,
        open: impl FnOnce(&mut Wires, TaskId, Bytes) -> Way,
    ) -> Progress {
        self.stop(context.wires);
        let id = context.wires.message_id();
        let Some(octets) = self.question.encode(id, self.edns) else {
            return Progress::Failed(format!(
                "looking up the {} failed: the name cannot be encoded",
                self.question
            ));
        };
        let way = open(context.wires, self.task, octets);
        let deadline = context.now + self.patience(context.settings, &way);
        context.wires.set_deadline(self.task, deadline);
        self.asked = Some(Asked { server, address, id, deadline, strays: 0, way });
        Progress::Waiting
    }

    /// How long a server is waited for. Where there is only one attempt, asking with and without EDNS shares its time.
    fn patience(&self, settings: &ResolverSettings, way: &Way) -> Duration {
        match way {
            Way::Udp(_) if settings.attempts <= 1 => settings.timeout / 2,
            Way::Udp(_) | Way::Tcp { .. } => settings.timeout,
        }
    }

    fn give_up(&mut self) -> Progress {
        match (self.failure.take(), self.local_failure.take()) {
            (Some(failure), _) if !self.is_silence_broken => Progress::Silence(failure),
            (Some(failure), _) => Progress::Failed(failure),
            (None, Some(failure)) => Progress::Local(failure),
            (None, None) => Progress::Failed(format!(
                "looking up the {} failed: no name server is configured",
                self.question
            )),
        }
    }

    fn sentence(&self, server: SocketAddr, what: &str) -> String {
        format!("looking up the {} failed: name server {server} {what}", self.question)
    }
}

/// Takes the first whole message from the front of a stream.
fn take_frame(stream: &mut BytesMut) -> Option<BytesMut> {
    let length = usize::from(u16::from_be_bytes(stream.get(..FRAME_OCTETS)?.try_into().ok()?));
    if stream.len() < FRAME_OCTETS + length {
        return None;
    }
    stream.advance(FRAME_OCTETS);
    Some(stream.split_to(length))
}
