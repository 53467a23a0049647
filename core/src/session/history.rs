//! What a session remembers of its conversation, for the record of the attempts on it.

use core::fmt;

use crate::reply::Reply;
use crate::sasl::Mechanism;
use crate::time::{Duration, Instant};
use crate::transcript::{Speaker, Transcript};

/// The times and the facts of a conversation, and what was said, if that is kept.
#[derive(Debug)]
pub(crate) struct History {
    /// The time of the call that the session is in.
    now: Instant,
    opened: Instant,
    tls_began: Option<Instant>,
    tls: Option<Duration>,
    negotiation: Option<Duration>,
    greeting: Option<Reply>,
    ehlo: Option<Reply>,
    mechanism: Option<Mechanism>,
    transcript: Option<Transcript>,
}

impl History {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            now,
            opened: now,
            tls_began: None,
            tls: None,
            negotiation: None,
            greeting: None,
            ehlo: None,
            mechanism: None,
            transcript: None,
        }
    }

    /// Keeps what is said from now on.
    pub(super) fn keep_transcript(&mut self) {
        self.transcript = Some(Transcript::new(self.opened));
    }

    /// Goes on to the time of a call.
    pub(super) fn advance(&mut self, now: Instant) {
        self.now = now;
    }

    pub(super) fn keeps_transcript(&self) -> bool {
        self.transcript.is_some()
    }

    /// Adds what is said, without secrets.
    pub(super) fn note(&mut self, speaker: Speaker, text: &[u8]) {
        if let Some(transcript) = &mut self.transcript {
            transcript.note(self.now, speaker, text);
        }
    }

    /// Adds mail data that are sent.
    pub(super) fn note_data(&mut self, octets: usize) {
        if let Some(transcript) = &mut self.transcript {
            transcript.note_data(octets);
        }
    }

    /// Adds what happened besides what was said.
    pub(super) fn remark(&mut self, what: impl fmt::Display) {
        if self.transcript.is_some() {
            let text = alloc::format!("{what}");
            self.note(Speaker::Remark, text.as_bytes());
        }
    }

    pub(super) fn note_greeting(&mut self, reply: &Reply) {
        self.greeting = Some(reply.clone());
    }

    pub(super) fn note_ehlo(&mut self, reply: &Reply) {
        self.ehlo = Some(reply.clone());
    }

    pub(super) fn note_mechanism(&mut self, mechanism: Mechanism) {
        self.mechanism = Some(mechanism);
    }

    pub(super) fn begin_tls(&mut self) {
        self.tls_began = Some(self.now);
    }

    pub(super) fn end_tls(&mut self) {
        self.tls = self.tls_began.map(|began| self.now.saturating_duration_since(began));
    }

    /// The negotiation is over: mail can be sent.
    pub(super) fn end_negotiation(&mut self) {
        let span = self.now.saturating_duration_since(self.opened);
        self.negotiation.get_or_insert(span);
    }

    /// Returns how long the TLS handshake took.
    pub(crate) fn tls(&self) -> Option<Duration> {
        self.tls
    }

    /// Returns how long it took from the connection until mail could be sent, with TLS.
    pub(crate) fn negotiation(&self) -> Option<Duration> {
        self.negotiation
    }

    /// Returns the greeting.
    pub(crate) fn greeting(&self) -> Option<&Reply> {
        self.greeting.as_ref()
    }

    /// Returns the last reply to EHLO: its lines after the first are what the server offers.
    pub(crate) fn ehlo(&self) -> Option<&Reply> {
        self.ehlo.as_ref()
    }

    /// Returns the mechanism by which the server took the credentials.
    pub(crate) fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    /// Returns what was said, if it is kept.
    pub(crate) fn transcript(&self) -> Option<&Transcript> {
        self.transcript.as_ref()
    }
}
