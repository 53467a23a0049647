//! What passes between the [`Dispatcher`](crate::dispatcher::Dispatcher) and its executor.

use alloc::string::String;
use core::net::SocketAddr;

use bytes::Bytes;

use crate::event::Event;
use crate::next_hop::Host;
use crate::outbox::{RequestId, StoreError, StoreReply, StoreRequest};
use crate::settings::{Hosts, ResolverSettings};
pub use crate::tls::{Tls, TlsVersion};

/// Names a TCP connection from the [`Output::Connect`] that asks for it on. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names a DNS query over UDP from its [`Output::Datagram`] on. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// What has happened outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// The TCP connection stands.
    Connected(ConnectionId),
    /// The TCP connection was not made. The id is done with.
    ConnectFailed(ConnectionId, ConnectError),
    /// Octets from the peer: what TLS has decrypted, once it is on.
    Received(ConnectionId, &'a [u8]),
    /// What [`Output::StartTls`] asked for is done.
    TlsEstablished {
        /// Where.
        connection: ConnectionId,
        /// What it has come to.
        tls: Tls,
    },
    /// The TLS handshake failed. The id is done with.
    TlsFailed(ConnectionId, String),
    /// The connection is closed or broken. The id is done with.
    Closed(ConnectionId, CloseReason),
    /// A datagram came in on the query's socket.
    Datagram {
        /// Whose socket.
        query: QueryId,
        /// Who sent it.
        from: SocketAddr,
        /// What.
        octets: &'a [u8],
    },
    /// The query's datagram could not be sent, or its server is unreachable. The socket stays until it is closed.
    DatagramFailed(QueryId, ConnectError),
    /// The answer to an [`Output::Store`].
    Store(RequestId, Result<StoreReply, StoreError>),
    /// Somebody may have written to the outbox.
    OutboxChanged,
    /// The administrator wants everything that is not given up to be tried now (SIGUSR2). What fails temporarily
    /// before its time leaves no row in the faillog.
    TryNow,
    /// `/etc/hosts` is this from now on.
    Hosts(Hosts),
    /// Names are looked up like this from now on, also those that are being looked up. What was denied, or could not
    /// be found out, is forgotten.
    Resolver(ResolverSettings),
    /// Start nothing new and come to an end (SIGTERM).
    Drain,
}

/// Why there is no connection, or why a datagram did not get through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The network or the peer: refused, unreachable, timed out.
    Remote(String),
    /// This machine: no descriptors, no memory, no local address. No failure of any mail.
    Local(String),
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer has closed it.
    EndOfFile,
    /// It broke: reset, a TLS error, or the like.
    Broken(String),
}

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect by TCP; answered by [`Input::Connected`] or [`Input::ConnectFailed`], unless closed before.
    Connect {
        /// The name of the connection from now on.
        connection: ConnectionId,
        /// To whom.
        remote: SocketAddr,
        /// What for, which decides which local address is used.
        purpose: Purpose,
    },
    /// Begin TLS on a connection: nothing of what was received before counts any more. Answered by
    /// [`Input::TlsEstablished`] or [`Input::TlsFailed`], unless closed before.
    StartTls {
        /// Where.
        connection: ConnectionId,
        /// Whose certificate is expected; a name is sent as SNI, an address is not.
        server: Host,
    },
    /// There are octets to send on a connection: ask for them with
    /// [`poll_transmit`](crate::dispatcher::Dispatcher::poll_transmit), now and whenever the socket takes more, until
    /// there are none.
    Transmit(ConnectionId),
    /// Close a connection, in any state, after what [`poll_transmit`](crate::dispatcher::Dispatcher::poll_transmit) has
    /// handed out before is flushed as far as the socket takes it at once. Not answered.
    Close(ConnectionId),
    /// Send a datagram from a fresh socket of its own with an unpredictable port (RFC 5452 section 9.2).
    Datagram {
        /// The name of the socket from now on.
        query: QueryId,
        /// To whom.
        to: SocketAddr,
        /// What.
        octets: Bytes,
    },
    /// Close a query's socket. Not answered.
    CloseDatagram(QueryId),
    /// Ask the database; answered by [`Input::Store`], however long it takes.
    Store(RequestId, StoreRequest),
    /// Tell the administrator.
    Event(Event),
    /// There is nothing left to do: the one pass is over, or the drain that was asked for.
    Drained,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Mail: from the address of the directive `bind`.
    Smtp,
    /// A DNS query over TCP.
    Dns,
}
