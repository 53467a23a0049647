//! The parts of a session beside its state: what it knows of the server, and its outputs to the wire and to its parent.

use alloc::collections::VecDeque;
use alloc::string::String;
use core::fmt;

use bytes::{Bytes, BytesMut};

use super::extensions::Extensions;
use super::history::History;
use super::types::{Outcome, SessionConfig, SessionOutput, Transaction};
use crate::command::Command;
use crate::reply::Reply;
use crate::rng::Rng;
use crate::secrets::Secrets;
use crate::time::Instant;
use crate::tls::Verification;
use crate::transcript::Speaker;

/// All of a session except its state.
pub(super) struct SessionContext {
    pub(super) config: SessionConfig,
    pub(super) rng: Rng,
    pub(super) extensions: Extensions,
    pub(super) history: History,
    /// What is known of the server inside TLS; nothing in plain text.
    pub(super) verification: Option<Verification>,
    pub(super) padding_failed: bool,
    /// The server has shown that it cannot cope with commands sent without waiting for replies.
    pub(super) no_pipelining: bool,
    /// The server has taken a message.
    pub(super) has_taken: bool,
    /// The server has refused something.
    pub(super) has_refused: bool,
    /// True if [`SessionOutput::Ready`] was put out and no transaction has begun since.
    pub(super) is_announced: bool,
    /// True if the session is to end after the running transaction.
    pub(super) quits: bool,
    /// True if the last output has been taken.
    is_silent: bool,
    outputs: VecDeque<SessionOutput>,
    /// Command lines that are not yet sent.
    commands: BytesMut,
    /// The number of replies that the server owes: the greeting, one to each command that was sent whole, and one to the end of
    /// each message.
    owed: usize,
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
            verification: None,
            padding_failed: false,
            no_pipelining: false,
            has_taken: false,
            has_refused: false,
            is_announced: false,
            quits: false,
            is_silent: false,
            outputs: VecDeque::new(),
            commands: BytesMut::new(),
            owed: 1,
            secrets: Secrets::default(),
        }
    }

    /// Returns whether the conversation is inside TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.verification.is_some()
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
        let begin = self.commands.len();
        command.write(&mut self.commands);
        if is_secret && self.history.keeps_transcript() {
            self.history.note(Speaker::Client, &command.masked());
        } else if !is_secret {
            self.history.note(Speaker::Client, self.commands.get(begin..).unwrap_or_default());
        }
        if self.config.trace {
            self.output(SessionOutput::Sent(command.masked().freeze()));
        }
    }

    /// Returns whether commands may be sent before the replies to earlier ones (RFC 2920). A server that cannot even do NOOP and
    /// RSET gets one command at a time.
    pub(super) fn may_pipeline(&self) -> bool {
        self.extensions.pipelining
            && !self.config.no_pipelining
            && !self.no_pipelining
            && !self.padding_failed
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
        self.outputs.push_back(output);
    }

    /// Gives back a transaction that cannot begin, before the end if that is not yet taken.
    pub(super) fn hand_back(&mut self, transaction: Transaction) {
        if self.is_silent {
            return;
        }
        let undecided = transaction.recipients.into_iter().map(|recipient| (recipient, Outcome::Undecided));
        let verdicts = SessionOutput::Verdicts(undecided.collect());
        let is_ended = matches!(self.outputs.back(), Some(SessionOutput::Ended(_)));
        let end = if is_ended { self.outputs.pop_back() } else { None };
        self.outputs.push_back(verdicts);
        self.outputs.extend(end);
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
        let output = self.outputs.pop_front();
        self.is_silent |= matches!(output, Some(SessionOutput::Ended(_)));
        output
    }

    /// Returns whether a command is not yet sent completely.
    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Appends at most `limit` octets of commands.
    pub(super) fn take_commands(&mut self, limit: usize, out: &mut BytesMut) {
        let octets = self.commands.split_to(limit.min(self.commands.len()));
        out.extend_from_slice(&octets);
        // Each command is one line, and the line feed is its last octet.
        self.owed += memchr::memchr_iter(b'\n', &octets).count();
    }

    /// Records that the end of a message is sent, which the server must answer.
    pub(super) fn expect_final_reply(&mut self) {
        self.owed += 1;
    }

    /// Returns how many replies the server owes.
    pub(super) fn owed(&self) -> usize {
        self.owed
    }

    /// Counts a reply. Returns whether the server owed one.
    pub(super) fn take_reply(&mut self) -> bool {
        let is_owed = self.owed > 0;
        self.owed = self.owed.saturating_sub(1);
        is_owed
    }

    /// Drops the commands that are not yet sent.
    pub(super) fn discard_commands(&mut self) {
        self.commands.clear();
    }
}

impl fmt::Debug for SessionContext {
    /// Leaves out the queues, which may contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionContext")
            .field("config", &self.config)
            .field("extensions", &self.extensions)
            .field("verification", &self.verification)
            .finish_non_exhaustive()
    }
}
