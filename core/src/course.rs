//! How an attempt went, besides what came of it: in which conversation, how long it took, and what was said.
//!
//! No decision hangs on it. The ledger of attempts records it, and the log tells it.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::io::ConnectionId;
use crate::sasl::Mechanism;
use crate::time::{Duration, UnixMillis};

/// When a transcript is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transcripts {
    /// Never: nothing that is said is kept.
    #[default]
    Never,
    /// With the first attempt on a connection that was no success.
    OfFailures,
    /// With the first attempt on a connection, and again with the first that was no success.
    Always,
}

/// A conversation with a server, as far as it concerns all attempts in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// The connection. Its number is unique as long as the dispatcher lives.
    pub connection: ConnectionId,
    /// When the connection was made.
    pub opened: UnixMillis,
    /// Where mail goes by it: a domain, an address in brackets, or a relay without its credentials.
    pub next_hop: Box<str>,
    /// The first line of the greeting, with its code.
    pub greeting: Option<Box<str>>,
    /// What the server offers: its last reply to EHLO without the first line, with commas between the lines.
    pub extensions: Option<Box<str>>,
    /// The mechanism by which the server has taken our credentials.
    pub mechanism: Option<Mechanism>,
    /// How long it took until mail could be sent.
    pub setup: Setup,
}

/// How long each step took until mail could be sent on a connection; nothing for a step that was not taken, or not to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// From the beginning of the work on a next hop to the attempt to connect: DNS, other candidates, and waiting for a place. Only
    /// the first connection of each candidate search has it.
    pub lookup: Option<Duration>,
    /// TCP.
    pub connect: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// The rest, from the connection to the end of the negotiation, without the TLS handshake.
    pub negotiation: Option<Duration>,
}

impl Setup {
    /// Returns the sum of all steps.
    pub fn total(&self) -> Duration {
        [self.lookup, self.connect, self.tls, self.negotiation].into_iter().flatten().sum()
    }
}

/// How an attempt went: one transaction, whose recipients share it, or a conversation that ended before any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// The conversation.
    pub conversation: Arc<Conversation>,
    /// The transaction; `None` if the conversation ended before any, or without a verdict on one.
    pub transaction: Option<TransactionCourse>,
    /// The time of the verdict.
    pub ended: UnixMillis,
    /// What was said in the conversation up to then, as [`Transcripts`] says.
    pub transcript: Option<Box<str>>,
}

/// How one transaction went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionCourse {
    /// Its number in the conversation, from 1.
    pub number: u32,
    /// The sender; `None` for the null reverse-path.
    pub sender: Option<Box<str>>,
    /// The length of the message, as it is stored, in octets.
    pub data_octets: u64,
    /// The identifier of the message, without its angle brackets, if its header section has one.
    pub message_id: Option<Box<str>>,
    /// The time from the claim to MAIL: other messages came first, or the rate limit forbade it.
    pub claim: Duration,
    /// The time from MAIL to the last reply.
    pub transfer: Duration,
}

impl Course {
    /// Returns the approximate memory that it takes, in octets. The recipients of a transaction share it.
    pub fn octets(&self) -> usize {
        let texts = [&self.conversation.greeting, &self.conversation.extensions, &self.transcript];
        let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        size_of::<Self>() + size_of::<Conversation>() + texts
    }

    /// Returns the part of the attempt that the setup of the connection took: all of it for the first transaction, nothing for
    /// later ones.
    pub fn setup(&self) -> Duration {
        match &self.transaction {
            Some(transaction) if transaction.number > 1 => Duration::ZERO,
            Some(_) | None => self.conversation.setup.total(),
        }
    }
}
