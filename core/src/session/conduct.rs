//! What a server has shown of itself in a conversation, besides the extensions that it offers.

use crate::reply::{Reply, ReplyClass};

/// The conduct of a server.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    padding_failed: bool,
    no_pipelining: bool,
    has_taken: bool,
    has_refused: bool,
}

impl Conduct {
    /// Notes what a reply shows.
    pub(super) fn note_reply(&mut self, reply: &Reply) {
        self.has_refused |= matches!(reply.class(), ReplyClass::Transient | ReplyClass::Permanent);
    }

    /// Notes that the server has taken a message.
    pub(super) fn note_taken(&mut self) {
        self.has_taken = true;
    }

    /// Notes that the server does not even understand NOOP and RSET.
    pub(super) fn note_padding_failed(&mut self) {
        self.padding_failed = true;
    }

    /// Notes that the server cannot cope with commands sent without waiting for replies.
    pub(super) fn note_no_pipelining(&mut self) {
        self.no_pipelining = true;
    }

    /// Returns whether the server has not understood NOOP and RSET.
    pub(super) fn padding_failed(&self) -> bool {
        self.padding_failed
    }

    /// Returns whether the server has shown that it cannot cope with commands sent without waiting for replies.
    pub(super) fn no_pipelining(&self) -> bool {
        self.no_pipelining
    }

    /// Returns whether the server may get several commands at once, if it offers that. One that cannot even do NOOP and RSET gets
    /// one command at a time.
    pub(super) fn allows_pipelining(&self) -> bool {
        !self.no_pipelining && !self.padding_failed
    }

    /// Returns whether the server has taken a message.
    pub(super) fn has_taken(&self) -> bool {
        self.has_taken
    }

    /// Returns whether the server has decided anything before: taken a message, or refused something.
    pub(super) fn has_decided(&self) -> bool {
        self.has_taken || self.has_refused
    }
}
