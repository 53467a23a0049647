//! The commands of a client, as an independent reader tells them apart.

use cmail_delivery::reply::{Reply, ReplyClass};

/// What a server replies to. Transactions are counted from zero, and so are the recipients of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Noop,
    Rset,
    Auth,
    /// A line of an authentication that was begun.
    Response,
    Mail(usize),
    Rcpt(usize, usize),
    Data(usize),
    /// A message: its final dot.
    Message(usize),
    Quit,
}

impl Command {
    /// Returns the transaction that it belongs to.
    pub(crate) fn transaction(self) -> Option<usize> {
        match self {
            Self::Mail(number) | Self::Rcpt(number, _) | Self::Data(number) | Self::Message(number) => {
                Some(number)
            }
            Self::Greeting
            | Self::Ehlo
            | Self::Helo
            | Self::StartTls
            | Self::Noop
            | Self::Rset
            | Self::Auth
            | Self::Response
            | Self::Quit => None,
        }
    }

    /// Returns whether a reply can be one to this command: 3yz asks for a message or goes on with an authentication, and nothing
    /// else is the success of DATA.
    pub(crate) fn may_be_answered_by(self, reply: &Reply) -> bool {
        match self {
            Self::Data(_) => reply.class() != ReplyClass::Completed,
            Self::Auth | Self::Response => true,
            Self::Greeting
            | Self::Ehlo
            | Self::Helo
            | Self::StartTls
            | Self::Noop
            | Self::Rset
            | Self::Mail(_)
            | Self::Rcpt(..)
            | Self::Message(_)
            | Self::Quit => reply.class() != ReplyClass::Intermediate,
        }
    }
}
