//! One question, and the servers that are asked one after the other until one answers.
//!
//! All servers are asked once, then all of them again, as often as `attempts` says (resolv.conf(5)). Something between us and a
//! server may silently drop messages that it does not know (RFC 6891 section 6.2.2), so only the first round uses EDNS. If
//! `attempts` leaves no second round, silent servers are asked again without EDNS within the time of the first.

use alloc::collections::BTreeSet;
use core::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};

use super::Security;
use super::failure::{DnsFailure, DnsQuestion, DnsServerTrouble, LocalLookupError};
use super::message::{self, DnsReply, Message, Question};
use super::sockets::{Sockets, TaskId};
use crate::io::{CloseReason, ConnectError, ConnectionId, QueryId};
use crate::settings::{NameServer, ResolverSettings};
use crate::time::{Duration, Instant};

/// After this many datagrams that are not a reply, an attacker is probably guessing: the question is asked over TCP, where that
/// is harder (RFC 5452 section 9.2).
pub(super) const STRAY_DATAGRAMS_LIMIT: u32 = 100;
/// After this many messages over TCP that are not a reply, the next server is asked.
pub(super) const STRAY_MESSAGES_LIMIT: u32 = 100;
/// The length field before a message over TCP, in octets (RFC 1035 section 4.2.2).
const FRAME_OCTETS: usize = 2;

/// The context that all queries share.
pub(super) struct QueryContext<'a> {
    pub(super) now: Instant,
    pub(super) settings: &'a ResolverSettings,
    pub(super) sockets: &'a mut Sockets,
    /// True if a server has answered anything.
    pub(super) has_heard: bool,
}

/// The result of a step of a query.
#[derive(Debug)]
pub(super) enum QueryProgress {
    /// A server is being waited for.
    Waiting,
    /// A server has answered, with this security.
    Answered(Message, Security),
    /// No server has given a usable answer; a sentence.
    Failed(DnsFailure),
    /// No server has said anything; a sentence.
    Silence(DnsFailure),
    /// No server could be asked because of this machine; a sentence.
    Local(LocalLookupError),
}

/// A question and its servers.
#[derive(Debug)]
pub(super) struct Query {
    task: TaskId,
    question: Question,
    /// The number of turns of servers that have begun.
    turns: u32,
    /// True if the server of this turn is asked with EDNS.
    edns: bool,
    /// The positions of servers that this machine cannot reach. They are not tried again.
    out_of_reach: BTreeSet<usize>,
    /// The positions of servers that did not answer in time.
    silent: BTreeSet<usize>,
    /// True if a server has sent anything, or is unreachable.
    is_silence_broken: bool,
    /// The latest failure of a server.
    failure: Option<DnsFailure>,
    /// The latest failure of this machine.
    local_failure: Option<LocalLookupError>,
    asked: Option<ServerQuery>,
}

/// A question that was sent to a server.
#[derive(Debug)]
struct ServerQuery {
    server: usize,
    address: SocketAddr,
    /// True if it was asked whether its answer is authentic, and what it says of that is believed.
    is_believed: bool,
    /// The id of the message.
    id: u16,
    deadline: Instant,
    /// The number of messages that were not a reply.
    strays: u32,
    transport: Transport,
}

#[derive(Debug)]
enum Transport {
    Udp(QueryId),
    Tcp { connection: ConnectionId, outgoing: Bytes, incoming: BytesMut },
}

impl Query {
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

    /// Begins with the first server, or continues with the next.
    pub(super) fn next_server(&mut self, context: &mut QueryContext<'_>) -> QueryProgress {
        self.stop(context.sockets);
        let servers = &context.settings.servers;
        let count = u32::try_from(servers.len()).unwrap_or(u32::MAX);
        let configured = count.saturating_mul(context.settings.attempts.max(1));
        let turns = configured.max(count.saturating_mul(2));
        while self.turns < turns && self.out_of_reach.len() < servers.len() {
            let server = usize::try_from(self.turns.checked_rem(count).unwrap_or(0)).unwrap_or(0);
            self.turns += 1;
            let Some(&NameServer { address, .. }) = servers.get(server) else { break };
            let is_asked = self.question.only.is_none_or(|only| only == address);
            let has_turn = self.turns <= configured || self.silent.contains(&server);
            if is_asked && has_turn && !self.out_of_reach.contains(&server) {
                self.edns = self.turns <= count;
                return self.ask_by_udp(context, server, address);
            }
        }
        self.give_up()
    }

    /// Notes that the current server cannot be used, and continues with the next.
    pub(super) fn server_failed(
        &mut self,
        context: &mut QueryContext<'_>,
        trouble: DnsServerTrouble,
    ) -> QueryProgress {
        if let Some(asked) = &self.asked {
            let (question, server) = (DnsQuestion::from(&self.question), asked.address);
            self.failure = Some(DnsFailure::Server { question, server, trouble });
        }
        self.next_server(context)
    }

    pub(super) fn handle_datagram(
        &mut self,
        context: &mut QueryContext<'_>,
        from: SocketAddr,
        octets: &[u8],
    ) -> QueryProgress {
        let Some(asked) = self.asked.as_mut() else { return QueryProgress::Waiting };
        // Flow information and scope do not identify a sender.
        let is_from_server = (from.ip(), from.port()) == (asked.address.ip(), asked.address.port());
        let reply = if is_from_server { message::read(octets, asked.id, &self.question) } else { None };
        let (server, address) = (asked.server, asked.address);
        if reply.is_some() {
            (self.is_silence_broken, context.has_heard) = (true, true);
        }
        match reply {
            Some(DnsReply::Truncated) => self.ask_by_tcp(context, server, address),
            Some(reply) => self.handle_reply(context, reply),
            None => {
                asked.strays += 1;
                if asked.strays < STRAY_DATAGRAMS_LIMIT {
                    return QueryProgress::Waiting;
                }
                self.ask_by_tcp(context, server, address)
            }
        }
    }

    /// Handles a datagram that could not be sent, or a connection that could not be made.
    pub(super) fn handle_unreachable(
        &mut self,
        context: &mut QueryContext<'_>,
        error: ConnectError,
        connection_is_gone: bool,
    ) -> QueryProgress {
        let Some(asked) = &self.asked else { return QueryProgress::Waiting };
        if let (Transport::Tcp { connection, .. }, true) = (&asked.transport, connection_is_gone) {
            context.sockets.forget_connection(*connection);
        }
        self.is_silence_broken = true;
        match error {
            ConnectError::Remote(error) => self.server_failed(context, DnsServerTrouble::Unreachable(error)),
            // Nothing is gained by trying that again at once, but another server may be of another family.
            ConnectError::Local(error) => {
                let question = DnsQuestion::from(&self.question);
                let failure = LocalLookupError::NotAsked { question, server: asked.address, error };
                self.out_of_reach.insert(asked.server);
                self.local_failure = Some(failure);
                self.next_server(context)
            }
        }
    }

    pub(super) fn handle_received(&mut self, context: &mut QueryContext<'_>, octets: &[u8]) -> QueryProgress {
        let Some(asked) = self.asked.as_mut() else { return QueryProgress::Waiting };
        let Transport::Tcp { incoming, .. } = &mut asked.transport else { return QueryProgress::Waiting };
        incoming.extend_from_slice(octets);
        while let Some(message) = take_frame(incoming) {
            match message::read(&message, asked.id, &self.question) {
                // Over TCP, an answer must not be truncated.
                Some(DnsReply::Truncated) => return self.handle_reply(context, DnsReply::Malformed),
                Some(reply) => return self.handle_reply(context, reply),
                None => asked.strays += 1,
            }
            if asked.strays >= STRAY_MESSAGES_LIMIT {
                return self.server_failed(context, DnsServerTrouble::StrayAnswers);
            }
        }
        QueryProgress::Waiting
    }

    pub(super) fn handle_closed(
        &mut self,
        context: &mut QueryContext<'_>,
        reason: CloseReason,
    ) -> QueryProgress {
        if let Some(ServerQuery { transport: Transport::Tcp { connection, .. }, .. }) = &self.asked {
            context.sockets.forget_connection(*connection);
        }
        match reason {
            CloseReason::EndOfFile => self.server_failed(context, DnsServerTrouble::Closed),
            CloseReason::Broken(error) => self.server_failed(context, DnsServerTrouble::Broken(error)),
        }
    }

    pub(super) fn handle_timeout(&mut self, context: &mut QueryContext<'_>) -> QueryProgress {
        match &self.asked {
            Some(asked) if asked.deadline <= context.now => {
                if matches!(asked.transport, Transport::Udp(_)) {
                    self.silent.insert(asked.server);
                }
                self.server_failed(context, DnsServerTrouble::TimedOut)
            }
            Some(_) | None => QueryProgress::Waiting,
        }
    }

    /// Returns the octets to send over TCP.
    pub(super) fn outgoing(&mut self) -> Option<&mut Bytes> {
        match self.asked.as_mut().map(|asked| &mut asked.transport) {
            Some(Transport::Tcp { outgoing, .. }) if !outgoing.is_empty() => Some(outgoing),
            Some(Transport::Tcp { .. } | Transport::Udp(_)) | None => None,
        }
    }

    /// Closes the socket or connection.
    pub(super) fn stop(&mut self, sockets: &mut Sockets) {
        let Some(asked) = self.asked.take() else { return };
        sockets.clear_deadline(self.task, asked.deadline);
        match asked.transport {
            Transport::Udp(query) => sockets.close_query(query),
            Transport::Tcp { connection, .. } => sockets.close_connection(connection),
        }
    }

    fn handle_reply(&mut self, context: &mut QueryContext<'_>, reply: DnsReply) -> QueryProgress {
        match reply {
            DnsReply::Answer(message) => {
                let security = self.security(context, message.is_authentic);
                // The caller, which ends the query or continues it, closes the connection or socket.
                QueryProgress::Answered(message, security)
            }
            // The same server, without what it may not know (RFC 6891 section 7).
            DnsReply::NotUnderstood(code) => match &self.asked {
                Some(asked) if self.edns => {
                    let (server, address) = (asked.server, asked.address);
                    self.edns = false;
                    self.ask_by_udp(context, server, address)
                }
                Some(_) | None => self.server_failed(context, DnsServerTrouble::Answered(code)),
            },
            DnsReply::Refused(code) => self.server_failed(context, DnsServerTrouble::Answered(code)),
            DnsReply::Truncated | DnsReply::Malformed => {
                self.server_failed(context, DnsServerTrouble::Malformed)
            }
        }
    }

    /// Returns the security of an answer of the server that was asked.
    fn security(&self, context: &QueryContext<'_>, is_authentic: bool) -> Security {
        match &self.asked {
            Some(asked) if asked.is_believed && is_authentic => Security::Secure,
            Some(asked) if asked.is_believed => Security::Insecure,
            Some(_) | None if context.settings.servers.iter().any(|server| server.is_believed) => {
                Security::Unknown
            }
            Some(_) | None => Security::Insecure,
        }
    }

    fn ask_by_udp(
        &mut self,
        context: &mut QueryContext<'_>,
        server: usize,
        address: SocketAddr,
    ) -> QueryProgress {
        self.ask(context, server, address, |sockets, task, octets| {
            Transport::Udp(sockets.send(task, address, octets))
        })
    }

    /// Asks again over TCP (RFC 7766 section 5), with a new message.
    fn ask_by_tcp(
        &mut self,
        context: &mut QueryContext<'_>,
        server: usize,
        address: SocketAddr,
    ) -> QueryProgress {
        self.ask(context, server, address, |sockets, task, octets| {
            let mut outgoing = BytesMut::with_capacity(FRAME_OCTETS + octets.len());
            // A question is only a few octets longer than its name.
            outgoing.extend_from_slice(&u16::try_from(octets.len()).unwrap_or(u16::MAX).to_be_bytes());
            outgoing.extend_from_slice(&octets);
            let connection = sockets.connect(task, address);
            Transport::Tcp { connection, outgoing: outgoing.freeze(), incoming: BytesMut::new() }
        })
    }

    fn ask(
        &mut self,
        context: &mut QueryContext<'_>,
        server: usize,
        address: SocketAddr,
        open: impl FnOnce(&mut Sockets, TaskId, Bytes) -> Transport,
    ) -> QueryProgress {
        self.stop(context.sockets);
        let id = context.sockets.message_id();
        let is_believed = context.settings.servers.get(server).is_some_and(|server| server.is_believed);
        let Some(octets) = self.question.encode(id, self.edns, is_believed) else {
            return QueryProgress::Failed(DnsFailure::NotEncodable(DnsQuestion::from(&self.question)));
        };
        let transport = open(context.sockets, self.task, octets);
        let deadline = context.now + self.answer_timeout(context.settings, &transport);
        context.sockets.set_deadline(self.task, deadline);
        self.asked = Some(ServerQuery { server, address, is_believed, id, deadline, strays: 0, transport });
        QueryProgress::Waiting
    }

    /// Returns the time for which a server is waited for. If there is only one attempt, the questions with and without EDNS share
    /// its time.
    fn answer_timeout(&self, settings: &ResolverSettings, transport: &Transport) -> Duration {
        match transport {
            Transport::Udp(_) if settings.attempts <= 1 => settings.timeout / 2,
            Transport::Udp(_) | Transport::Tcp { .. } => settings.timeout,
        }
    }

    fn give_up(&mut self) -> QueryProgress {
        match (self.failure.take(), self.local_failure.take()) {
            (Some(failure), _) if !self.is_silence_broken => QueryProgress::Silence(failure),
            (Some(failure), _) => QueryProgress::Failed(failure),
            (None, Some(failure)) => QueryProgress::Local(failure),
            (None, None) => QueryProgress::Failed(DnsFailure::NoServer(DnsQuestion::from(&self.question))),
        }
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
