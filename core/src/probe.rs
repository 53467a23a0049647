//! A probe: a conversation as mail has it, which ends before any message.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use bytes::Bytes;

use crate::address::Mailbox;
use crate::attempt::{Acceptance, Failure, Server};
use crate::ids::ConnectionId;
use crate::next_hop::{NextHop, Port};
use crate::one_line::OneLine;
use crate::wording::{FailureLine, first_line};

/// What is to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Where the conversation goes.
    pub next_hop: NextHop,
    /// The only port to try; `None` for those that mail tries.
    pub port: Option<Port>,
    /// The mail that the server is asked to take; `None` if it is only to be found out whether a conversation comes about.
    pub envelope: Option<ProbeEnvelope>,
}

/// The mail that a server is asked to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeEnvelope {
    /// The sender; `None` is the null reverse-path.
    pub sender: Option<Mailbox>,
    /// The recipient.
    pub recipient: Mailbox,
}

/// What happens in a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeStep {
    /// The connection on which it happens; `None` for what comes before.
    pub connection: Option<ConnectionId>,
    /// What happens.
    pub what: ProbeEvent,
}

/// What happens in a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeEvent {
    /// A command is sent, with secrets masked.
    Sent(Bytes),
    /// A reply is received, with secrets masked.
    Received(Bytes),
    /// What else happens: a clause.
    Remark(Box<str>),
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeVerdict {
    /// The server would take a message for the recipient, as far as it says before the message.
    Accepted(Acceptance),
    /// Mail can be sent on the connection. Nothing more was asked.
    Reached(Arc<Server>),
    /// Mail would fail so.
    Failed(Failure),
    /// Mail would wait, without a failed attempt: a clause.
    Waits(Box<str>),
}

impl fmt::Display for ProbeVerdict {
    /// Writes a clause on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted(Acceptance { server, reply }) => {
                write!(f, "{server} would take the mail: {}", OneLine(first_line(reply)))
            }
            Self::Reached(server) => write!(f, "mail can be sent to {server}"),
            Self::Failed(failure) => {
                let fate = if failure.is_fatal() { "fail for good" } else { "fail for now" };
                write!(f, "mail would {fate}: {}", FailureLine(failure))
            }
            Self::Waits(why) => write!(f, "mail would wait: {}", OneLine(why)),
        }
    }
}
