//! The inputs and outputs of the [`Dispatcher`](crate::dispatcher::Dispatcher).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use thiserror::Error;

use crate::dkim::{Digest, KeyId, SignTrouble, Signature};
use crate::event::Event;
use crate::explanation::{Answer, Inquiry};
pub use crate::https::{HttpsError, HttpsRequest, HttpsResponse, HttpsTrouble};
pub use crate::ids::{ConnectionId, HttpsId, InquiryId, QueryId};
use crate::outbox::{MailId, RequestId, StoreError, StoreReply, StoreRequest};
use crate::settings::{Hosts, ResolverSettings, Settings};
use crate::system_error::{Breakage, MachineTrouble, NetworkTrouble, SystemError};
pub use crate::tls::{CertificateTrouble, Groups, Tls, TlsTerms, TlsVersion, Verification};
use crate::watch::Watch;

/// An event outside of the core.
#[derive(Debug)]
pub enum Input<'a> {
    /// The TCP connection is established.
    Connected(ConnectionId),
    /// The TCP connection could not be made. The id is no longer valid.
    ConnectFailed(ConnectionId, ConnectError),
    /// Octets from the peer, in any portions. Once TLS is established, they are the decrypted octets.
    Received(ConnectionId, &'a [u8]),
    /// The TLS handshake that [`Output::StartTls`] requested is complete.
    TlsEstablished {
        /// The connection.
        connection: ConnectionId,
        /// The TLS session.
        tls: Tls,
    },
    /// The TLS handshake failed. The id is no longer valid.
    TlsFailed(ConnectionId, SystemError<Breakage>),
    /// The connection is closed or broken. The id is no longer valid.
    Closed(ConnectionId, CloseReason),
    /// A datagram was received on the query's socket.
    Datagram {
        /// The query.
        query: QueryId,
        /// The address that sent it.
        from: SocketAddr,
        /// The DNS message, as received: at most 65,535 octets.
        octets: &'a [u8],
    },
    /// The query's datagram could not be sent, or its server is unreachable. The socket stays open until it is closed.
    DatagramFailed(QueryId, ConnectError),
    /// The answer to an [`Output::Store`].
    Store(RequestId, Result<StoreReply, StoreError>),
    /// The answer to an [`Output::Sign`]: the signatures in the order of what was to be signed.
    Signed(RequestId, Vec<Result<Signature, SignTrouble>>),
    /// The answer to an [`Output::Https`].
    Https(HttpsId, Result<HttpsResponse, HttpsError>),
    /// Another program may have written to the outbox.
    OutboxChanged,
    /// The administrator wants all mail tried now that is not given up (SIGUSR2). A temporary failure before its time leaves no
    /// row in the faillog.
    TryNow,
    /// The new contents of `/etc/hosts`.
    Hosts(Hosts),
    /// The new settings of the resolver. Names that are being looked up are asked for again, and remembered failures and denials
    /// are forgotten.
    Resolver(ResolverSettings),
    /// The new settings, which hold from the next decision on. A lowered limit ends connections as they become idle; a pass that
    /// would talk to others now, or otherwise, ends as soon as its conversations allow it, and its mail begins anew. Nothing is
    /// tried early: waiting mail is placed anew by the next rescan of the outbox. [`Settings::resolver`] is taken as by
    /// [`Input::Resolver`].
    Settings(Box<Settings>),
    /// From now on the conversations that this covers are told, also those that have begun, as if they were
    /// [told](crate::settings::Told::conversations). Nothing else depends on it.
    Watch(Watch),
    /// A question of the administrator. Answered by [`Output::Answer`], unless it is ended or the program ends before.
    Inquiry(InquiryId, Inquiry),
    /// No answer is wanted any more.
    EndInquiry(InquiryId),
    /// Begin nothing new and finish (SIGTERM).
    Drain,
}

/// The reason why a connection was not made, or a datagram not delivered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConnectError {
    /// The network or the peer.
    #[error(transparent)]
    Remote(SystemError<NetworkTrouble>),
    /// This machine. The mail has not failed.
    #[error(transparent)]
    Local(SystemError<MachineTrouble>),
}

impl ConnectError {
    /// Returns the error of a peer that is not reached, in the words of the system.
    pub fn remote(kind: NetworkTrouble, words: impl Into<Box<str>>) -> Self {
        Self::Remote(SystemError::new(kind, words))
    }

    /// Returns the error of a machine that cannot even try, in the words of the system.
    pub fn local(kind: MachineTrouble, words: impl Into<Box<str>>) -> Self {
        Self::Local(SystemError::new(kind, words))
    }
}

/// The reason why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer has closed it.
    EndOfFile,
    /// It broke: reset, a TLS error, or the like.
    Broken(SystemError<Breakage>),
}

/// A request to the executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect by TCP. Answered by [`Input::Connected`] or [`Input::ConnectFailed`], unless the connection is closed before.
    Connect {
        /// The id of the connection.
        connection: ConnectionId,
        /// The address and port to connect to.
        remote: SocketAddr,
        /// The address to connect from; `None` if the system chooses.
        local: Option<IpAddr>,
        /// The purpose, which decides the local address.
        purpose: Purpose,
    },
    /// Begin TLS on a connection. Octets that were received before it no longer count. Answered by [`Input::TlsEstablished`] or
    /// [`Input::TlsFailed`], unless the connection is closed before.
    StartTls {
        /// The connection.
        connection: ConnectionId,
        /// Whom to expect, and what to hold the certificate against.
        terms: Arc<TlsTerms>,
        /// The groups to offer.
        groups: Groups,
    },
    /// There are octets to send on a connection. Take them with [`poll_transmit`](crate::dispatcher::Dispatcher::poll_transmit),
    /// now and whenever the socket can take more, until it returns false.
    Transmit(ConnectionId),
    /// Close a connection, in any state. Octets that [`poll_transmit`](crate::dispatcher::Dispatcher::poll_transmit) has appended
    /// before are flushed as far as the socket takes them at once. Not answered.
    Close(ConnectionId),
    /// Send a datagram from a new socket of its own with an unpredictable port (RFC 5452 section 9.2).
    Datagram {
        /// The id of the query and its socket.
        query: QueryId,
        /// The address and port to send to.
        to: SocketAddr,
        /// The DNS message: at most 512 octets.
        octets: Bytes,
    },
    /// Close a query's socket. Not answered.
    CloseDatagram(QueryId),
    /// Pass a request to the database. Answered by [`Input::Store`], however long it takes.
    Store(RequestId, StoreRequest),
    /// Tell the database that this mail, which it [holds](crate::outbox#what-is-held), is given up without a verdict. To be done before
    /// the requests after it. Not answered.
    Release(Vec<MailId>),
    /// Sign these digests with these keys, which are those of [`Settings::signing`]. Answered by [`Input::Signed`], however long it takes.
    Sign(RequestId, Vec<(KeyId, Digest)>),
    /// Ask a host over HTTPS. Answered by [`Input::Https`], within the time that [`HttpsRequest`] says and that others before it take.
    Https(HttpsId, HttpsRequest),
    /// Report to the administrator.
    Event(Event),
    /// An answer to an [`Input::Inquiry`].
    Answer(InquiryId, Answer),
    /// Nothing is left to do: the one-shot pass is over, or the requested drain.
    Drained,
}

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Mail. Connect from the address of the directive `bind`.
    Smtp,
    /// A DNS query over TCP.
    Dns,
}
