//! The parts of a session beside its state: what it knows of the server, and its outputs to the wire and to its parent.

use alloc::string::String;
use core::fmt;

use bytes::Bytes;

use super::command_queue::CommandQueue;
use super::conduct::Conduct;
use super::extensions::Extensions;
use super::history::History;
use super::output_queue::OutputQueue;
use super::types::{SessionConfig, SessionNote, SessionOutput, Transaction};
use crate::command::Command;
use crate::reply::Reply;
use crate::rng::Rng;
use crate::secrets::Secrets;
use crate::time::Instant;
use crate::tls::{Proved, Shortfall, Verification};
use crate::transcript::Speaker;

/// All of a session except its state.
pub(super) struct SessionContext {
    pub(super) config: SessionConfig,
    pub(super) rng: Rng,
    pub(super) extensions: Extensions,
    pub(super) history: History,
    /// What is known of the server inside TLS: what is proved, and what the trusted authorities say. Nothing in plain text.
    pub(super) peer: Option<(Proved, Verification)>,
    pub(super) conduct: Conduct,
    /// True if [`SessionOutput::Ready`] was put out and no transaction has begun since.
    pub(super) is_announced: bool,
    /// True if the session is to end after the running transaction.
    pub(super) quits: bool,
    outputs: OutputQueue,
    pub(super) commands: CommandQueue,
    /// The secrets that must not appear in any text. Empty before authentication.
    secrets: Secrets,
}

impl SessionContext {
    pub(super) fn new(config: SessionConfig, rng: Rng, now: Instant) -> Self {
        Self {
            config,
            rng,
            extensions: Extensions::default(),
            history: History::new(now),
            peer: None,
            conduct: Conduct::default(),
            is_announced: false,
            quits: false,
            outputs: OutputQueue::default(),
            commands: CommandQueue::new(),
            secrets: Secrets::default(),
        }
    }

    /// Returns whether the conversation is inside TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.peer.is_some()
    }

    /// Returns how a conversation in plain text falls short of what is enforced.
    pub(super) fn lacks_tls(&self) -> Option<Shortfall> {
        self.plain_text_shortfall().filter(|shortfall| self.config.need.enforces(shortfall.lack))
    }

    /// Tells how a conversation in plain text falls short of what is only judged.
    pub(super) fn tell_plain_text(&mut self) {
        if let Some(shortfall) = self.plain_text_shortfall() {
            self.output(SessionOutput::Note(SessionNote::FallsShort(shortfall)));
        }
    }

    fn plain_text_shortfall(&self) -> Option<Shortfall> {
        if self.is_tls() { None } else { self.config.need.judge_plain_text().err() }
    }

    /// Queues a command line.
    pub(super) fn send(&mut self, command: &Command<'_>) {
        let is_secret = match command {
            // This cancels an exchange (RFC 4954 section 4).
            Command::AuthLine("*") => false,
            Command::Auth { initial_response: Some(secret), .. } | Command::AuthLine(secret) => {
                self.keep_secret(secret);
                true
            }
            Command::Auth { initial_response: None, .. }
            | Command::Ehlo(_)
            | Command::Helo(_)
            | Command::StartTls
            | Command::Noop
            | Command::Rset
            | Command::Mail { .. }
            | Command::Rcpt { .. }
            | Command::Data
            | Command::EndOfData
            | Command::Quit => false,
        };
        let line = self.commands.push(command);
        if is_secret && self.history.keeps_transcript() {
            self.history.note(Speaker::Client, &command.masked());
        } else if !is_secret {
            self.history.note(Speaker::Client, line);
        }
        if self.config.trace {
            self.output(SessionOutput::Sent(command.masked().freeze()));
        }
    }

    /// Returns whether commands may be sent before the replies to earlier ones (RFC 2920).
    pub(super) fn may_pipeline(&self) -> bool {
        self.extensions.pipelining && !self.config.no_pipelining && self.conduct.allows_pipelining()
    }

    /// Puts out that a transaction may begin, once.
    pub(super) fn announce(&mut self) {
        if !core::mem::replace(&mut self.is_announced, true) {
            self.output(SessionOutput::Ready);
        }
    }

    /// Masks `secret` in all further text of the server, because some echo what they do not understand.
    pub(super) fn keep_secret(&mut self, secret: &str) {
        self.secrets.keep(secret.as_bytes());
    }

    /// Returns the reply with secrets masked.
    pub(super) fn masked(&self, reply: &Reply) -> Reply {
        reply.without(&self.secrets)
    }

    /// Returns the text with secrets masked.
    pub(super) fn masked_text(&self, text: &str) -> String {
        self.secrets.mask_text(text)
    }

    /// Puts out an output.
    pub(super) fn output(&mut self, output: SessionOutput) {
        match &output {
            SessionOutput::StartTls => self.history.begin_tls(),
            SessionOutput::Ready => self.history.end_negotiation(),
            SessionOutput::Authenticated(Some(mechanism)) => self.history.note_mechanism(*mechanism),
            SessionOutput::Note(note) => self.history.remark(note),
            SessionOutput::Ended(end) => self.history.remark(&end.cause),
            SessionOutput::NeedData { .. }
            | SessionOutput::Verdicts(_)
            | SessionOutput::Authenticated(None)
            | SessionOutput::Sent(_)
            | SessionOutput::SentData(_)
            | SessionOutput::Received(_) => {}
        }
        self.outputs.push(output);
    }

    /// Gives back a transaction that cannot begin, before the end if that is not yet taken.
    pub(super) fn hand_back(&mut self, transaction: Transaction) {
        self.outputs.hand_back(transaction);
    }

    pub(super) fn set_trace(&mut self, trace: bool) {
        self.config.trace = trace;
    }

    /// Reports received octets: as they are, until there are secrets that they may repeat, and from then on whole replies.
    pub(super) fn trace_received(&mut self, octets: &[u8], reply: Option<&Reply>) {
        if !self.config.trace && !self.history.keeps_transcript() {
            return;
        }
        if self.secrets.is_empty() {
            self.history.note(Speaker::Server, octets);
            if self.config.trace {
                self.output(SessionOutput::Received(Bytes::copy_from_slice(octets)));
            }
        } else if let Some(reply) = reply {
            let text = self.masked(reply).text().replace('\n', "\r\n") + "\r\n";
            self.history.note(Speaker::Server, text.as_bytes());
            if self.config.trace {
                self.output(SessionOutput::Received(Bytes::from(text)));
            }
        }
    }

    /// Reports sent mail data.
    pub(super) fn trace_data(&mut self, octets: &[u8]) {
        self.history.note_data(octets.len());
        if self.config.trace && !octets.is_empty() {
            self.output(SessionOutput::SentData(Bytes::copy_from_slice(octets)));
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<SessionOutput> {
        self.outputs.pop()
    }
}

impl fmt::Debug for SessionContext {
    /// Leaves out the queues, which may contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionContext")
            .field("config", &self.config)
            .field("extensions", &self.extensions)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
