//! A message whose refusal may not be its verdict, because another reply may come before the end.

use super::refusal;
use super::transfer::Transfer;
use super::types::{Outcome, RefusalKind};
use crate::command::CommandName;
use crate::reply::{Reply, ReplyClass, ReplyCode};

/// A message that was refused in a way that may concern something else.
#[derive(Debug)]
pub(super) struct Doubted {
    transfer: Transfer,
    refusal: Outcome,
}

impl Doubted {
    /// Returns a doubted message with this refusal.
    pub(super) fn new(transfer: Transfer, refusal: Outcome) -> Self {
        Self { transfer, refusal }
    }

    /// Returns the transaction of the message.
    pub(super) fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// Returns whether a refusal of the final dot may answer a line that the server took for a command.
    pub(super) fn may_begin_by(reply: &Reply) -> bool {
        (500..=504).contains(&reply.code().as_u16())
    }

    /// Returns the verdict that a reply before that to QUIT gives. Success is one, and so is a temporary refusal, which leaves
    /// the mail another attempt. Any other reply adds nothing to the refusal.
    pub(super) fn outcome(reply: &Reply) -> Option<Outcome> {
        match reply.class() {
            ReplyClass::Completed => Some(Outcome::Delivered(reply.clone())),
            ReplyClass::Transient => Some(if reply.code() == ReplyCode::SERVICE_NOT_AVAILABLE {
                refusal::of_connection(RefusalKind::ClosingAtEnd, reply, CommandName::EndOfData)
            } else {
                refusal::verdict(reply, CommandName::EndOfData)
            }),
            ReplyClass::Intermediate | ReplyClass::Permanent | ReplyClass::Unknown => None,
        }
    }

    /// Decides the message.
    pub(super) fn decide(mut self, outcome: &Outcome) -> Transfer {
        self.transfer.decide_accepted(outcome);
        self.transfer
    }

    /// Makes the refusal the verdict, because no other reply came.
    pub(super) fn stand(mut self) -> Transfer {
        self.transfer.decide_accepted(&self.refusal);
        self.transfer
    }
}
