//! What a pass has, for those who own it, and for people who ask.

use alloc::sync::Arc;

use super::Delivery;
use super::connection::Connection;
use crate::attempt::Server;
use crate::io::ConnectionId;
use crate::next_hop::Port;
use crate::outbox::MailId;

/// Who has a mail of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A connection. Its transaction may have begun, or wait for those before it.
    Connection { connection: ConnectionId, is_begun: bool },
    /// The next connection: the server has refused it on another one.
    NextConnection,
}

impl Delivery {
    /// Tries only this port, at each address.
    pub(crate) fn try_only(&mut self, port: Port) {
        self.search.try_only(port);
    }

    /// Returns who has a mail of this pass.
    pub(crate) fn holder(&self, id: MailId) -> Option<Holder> {
        let of_connection = self.connections.iter().find_map(|(connection, conn)| {
            let is_begun = conn.has(id)?;
            Some(Holder::Connection { connection, is_begun })
        });
        of_connection.or_else(|| self.refusals.first().contains(&id).then_some(Holder::NextConnection))
    }

    /// Returns the server of a connection, once there is a session.
    pub(crate) fn server_of(&self, connection: ConnectionId) -> Option<Arc<Server>> {
        self.connections.get(connection)?.server()
    }

    /// Returns how many connections are not yet established.
    pub(crate) fn connecting_count(&self) -> usize {
        self.connections.len() - self.connections.established_count()
    }

    /// Returns the number of connections.
    pub(crate) fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Returns how many transactions a connection has begun so far.
    pub(crate) fn transactions_of(&self, connection: ConnectionId) -> u32 {
        self.connections.get(connection).map_or(0, Connection::begun)
    }

    /// Returns how many transactions a connection may still get, if it may have `most`, and no more than its server accepts.
    pub(crate) fn room_for_transactions(&self, connection: ConnectionId, most: Option<u32>) -> usize {
        self.connections.get(connection).map_or(0, |conn| conn.room_for_transactions(most))
    }

    /// Returns how many recipients a transaction may have on a connection, if it may have `most`, and no more than the server accepts.
    pub(crate) fn recipients_of_a_transaction(&self, connection: ConnectionId, most: usize) -> usize {
        let limit = self.connections.get(connection).and_then(|conn| conn.limits().recipients);
        limit.map_or(most, |limit| most.min(usize::try_from(limit).unwrap_or(usize::MAX)))
    }
}
