//! What a session has beside its state: what it knows of the server, and its two queues, to the wire and to its parent.

use alloc::collections::VecDeque;
use alloc::string::String;
use core::fmt;

use bytes::{Bytes, BytesMut};

use super::extensions::Extensions;
use super::types::{Outcome, SessionConfig, SessionOutput, Transaction};
use crate::command::Command;
use crate::reply::Reply;
use crate::rng::Rng;
use crate::secrets::Secrets;

/// All of a session but its state.
pub(super) struct SessionContext {
    pub(super) config: SessionConfig,
    pub(super) rng: Rng,
    pub(super) extensions: Extensions,
    pub(super) is_tls: bool,
    pub(super) certificate_is_valid: bool,
    pub(super) padding_failed: bool,
    /// The server was found not to bear that commands are sent without waiting for replies.
    pub(super) no_pipelining: bool,
    /// The server has taken a message.
    pub(super) has_taken: bool,
    /// The server has refused something.
    pub(super) has_refused: bool,
    /// True if [`SessionOutput::Ready`] was said and no transaction has begun since.
    pub(super) is_announced: bool,
    /// The session is to end after the running transaction.
    pub(super) quits: bool,
    /// True if the last output has been taken.
    is_silent: bool,
    outputs: VecDeque<SessionOutput>,
    /// Command lines that are not yet handed out.
    commands: BytesMut,
    /// How many replies the server owes: the greeting, one to each command that was handed out whole, and one to each end
    /// of a message.
    owed: usize,
    /// What must not stand in any text; empty before authentication.
    secrets: Secrets,
}

impl SessionContext {
    pub(super) fn new(config: SessionConfig, rng: Rng) -> Self {
        Self {
            config,
            rng,
            extensions: Extensions::default(),
            is_tls: false,
            certificate_is_valid: false,
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

    /// Queues a command line.
    pub(super) fn send(&mut self, command: &Command<'_>) {
        match command {
            // An exchange is cancelled by this (RFC 4954 section 4).
            Command::AuthLine("*") => {}
            Command::Auth { initial_response: Some(secret), .. } | Command::AuthLine(secret) => {
                self.keep_secret(secret);
            }
            Command::Auth { initial_response: None, .. }
            | Command::Ehlo(_)
            | Command::Helo(_)
            | Command::StartTls
            | Command::Noop
            | Command::Rset
            | Command::Mail { .. }
            | Command::Rcpt(_)
            | Command::Data
            | Command::EndOfData
            | Command::Quit => {}
        }
        command.write(&mut self.commands);
        if self.config.trace {
            self.output(SessionOutput::Sent(command.masked().freeze()));
        }
    }

    /// Returns whether commands may be sent before the replies to those before them (RFC 2920). A server that cannot even do NOOP
    /// and RSET is not asked for more than one thing at a time.
    pub(super) fn may_pipeline(&self) -> bool {
        self.extensions.pipelining
            && !self.config.no_pipelining
            && !self.no_pipelining
            && !self.padding_failed
    }

    /// Says that a transaction may begin, unless that is known.
    pub(super) fn announce(&mut self) {
        if !core::mem::replace(&mut self.is_announced, true) {
            self.output(SessionOutput::Ready);
        }
    }

    /// Masks `secret` in whatever the server says from now on: some echo what they do not understand.
    pub(super) fn keep_secret(&mut self, secret: &str) {
        self.secrets.keep(secret.as_bytes());
    }

    /// The reply as it may be shown.
    pub(super) fn masked(&self, reply: &Reply) -> Reply {
        reply.without(&self.secrets)
    }

    /// The text as it may be shown.
    pub(super) fn masked_text(&self, text: &str) -> String {
        self.secrets.mask_text(text)
    }

    /// Tells the parent.
    pub(super) fn output(&mut self, output: SessionOutput) {
        self.outputs.push_back(output);
    }

    /// Hands back a transaction that cannot begin, before the end if that is not yet told.
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

    /// Reports what was received: as it is, until there are secrets that it may repeat; from then on whole replies.
    pub(super) fn trace_received(&mut self, octets: &[u8], reply: Option<&Reply>) {
        if !self.config.trace {
            return;
        }
        if self.secrets.is_empty() {
            self.output(SessionOutput::Received(Bytes::copy_from_slice(octets)));
        } else if let Some(reply) = reply {
            let text = self.masked(reply).text().replace('\n', "\r\n") + "\r\n";
            self.output(SessionOutput::Received(Bytes::from(text)));
        }
    }

    /// Reports what is sent of a message.
    pub(super) fn trace_data(&mut self, octets: &[u8]) {
        if self.config.trace && !octets.is_empty() {
            self.output(SessionOutput::SentData(Bytes::copy_from_slice(octets)));
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<SessionOutput> {
        let output = self.outputs.pop_front();
        self.is_silent |= matches!(output, Some(SessionOutput::Ended(_)));
        output
    }

    /// Returns whether a command has not been handed out completely.
    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Hands out at most `limit` octets of commands.
    pub(super) fn take_commands(&mut self, limit: usize, out: &mut BytesMut) {
        let octets = self.commands.split_to(limit.min(self.commands.len()));
        out.extend_from_slice(&octets);
        // Each command is one line, and the line feed is its last octet.
        self.owed += memchr::memchr_iter(b'\n', &octets).count();
    }

    /// The end of a message is handed out.
    pub(super) fn expect_final_reply(&mut self) {
        self.owed += 1;
    }

    /// Returns how many replies the server owes.
    pub(super) fn owed(&self) -> usize {
        self.owed
    }

    /// Takes note of a reply; false if the server owes none.
    pub(super) fn take_reply(&mut self) -> bool {
        let is_owed = self.owed > 0;
        self.owed = self.owed.saturating_sub(1);
        is_owed
    }

    /// What is not yet handed out never will be.
    pub(super) fn discard_commands(&mut self) {
        self.commands.clear();
    }
}

impl fmt::Debug for SessionContext {
    /// Leaves out the queues: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionContext")
            .field("config", &self.config)
            .field("extensions", &self.extensions)
            .field("is_tls", &self.is_tls)
            .finish_non_exhaustive()
    }
}
