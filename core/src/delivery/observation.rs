//! What others see of a delivery: what is said, while somebody watches, and which servers are waited for.

use core::fmt;

use super::{Connection, Delivery, DeliveryContext};
use crate::io::ConnectionId;
use crate::route::Candidate;
use crate::session::Phase;
use crate::time::Instant;

/// What a server owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// The TCP connection.
    Connection,
    /// The next step of the conversation.
    Step(Phase),
}

impl fmt::Display for Owed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection => f.write_str("connecting"),
            Self::Step(phase) => phase.fmt(f),
        }
    }
}

impl Delivery {
    /// Tells what is said on its connections from now on, or tells it no more.
    pub(crate) fn update_told(&mut self, cx: &mut DeliveryContext<'_>) {
        let is_told = cx.is_told(&self.next_hop);
        self.connections.tell(is_told);
    }

    /// Returns the servers that are waited for: each connection with its candidate, and what is owed since when.
    pub(crate) fn debts(&self) -> impl Iterator<Item = (&Candidate, Owed, Instant)> {
        let debt = |(connection, conn): (ConnectionId, &Connection)| {
            let (owed, since) = conn.owed()?;
            let (candidate, _) = self.connection(connection)?;
            Some((candidate, owed, since))
        };
        self.connections.iter().filter_map(debt)
    }
}
