//! What a delivery asks of its dispatcher, and what it reports.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use thiserror::Error;

#[cfg(doc)]
use super::Delivery;
use super::PassFailure;
use crate::address::Domain;
use crate::attempt::{Acceptance, Failure, Setback};
use crate::course::Course;
use crate::ending::LocalTrouble;
use crate::event::Event;
use crate::io::ConnectionId;
use crate::outbox::MailId;
use crate::reachability::{Login, Trouble};
use crate::resolver::{LocalLookupError, LookupRequest};
use crate::route::Candidate;
use crate::sasl::Mechanism;
use crate::session::{EndCause, Recipient};
use crate::sts::LocalFindTrouble;
use crate::system_error::{MachineTrouble, SystemError};
use crate::tally::ConnectionFailure;
use crate::tls::{Groups, TlsSummary, TlsTerms};

/// What keeps this machine from delivering. No server is to blame, and no mail has failed.
#[derive(Debug, Error)]
pub(crate) enum Postponement {
    /// A connection could not be tried.
    #[error(transparent)]
    Connect(SystemError<MachineTrouble>),
    /// No name server could be asked.
    #[error(transparent)]
    Lookup(LocalLookupError),
    /// It is not known whether an MTA-STS policy holds.
    #[error(transparent)]
    Policy(LocalFindTrouble),
    /// A message could not be sent to its end.
    #[error("{0}")]
    Session(LocalTrouble),
}

/// What a delivery asks its dispatcher to do, or reports to it.
#[derive(Debug)]
pub(crate) enum DeliveryOutput {
    /// Answered by [`Delivery::handle_answer`].
    Lookup(LookupRequest),
    /// Find the MTA-STS policy of this domain. Answered by [`Delivery::handle_policy`].
    FindPolicy(Domain),
    /// The MTA-STS policy of this domain may be to blame for a failure. The next pass is to see whether there is a newer one.
    ForgetPolicyRecord(Domain),
    /// The server did not prove itself by its TLSA records for this port. The next pass is to see whether they have changed.
    ForgetTlsa(Domain, u16),
    /// Connect, from the local address that is given: the slot of this connection is taken.
    Connect {
        connection: ConnectionId,
        remote: SocketAddr,
        local: Option<IpAddr>,
    },
    StartTls {
        connection: ConnectionId,
        terms: Arc<TlsTerms>,
        groups: Groups,
    },
    Transmit(ConnectionId),
    /// Close the connection, if it is open, and give its slot back.
    Close(ConnectionId),
    /// The candidate does not answer, and this was the only connection to it.
    Unreachable {
        connection: ConnectionId,
        candidate: Candidate,
        trouble: Trouble,
        setback: Setback,
    },
    /// The server has replied, if only by a refusal.
    Answered(ConnectionId),
    /// The server wants fewer connections.
    PushedBack(ConnectionId),
    /// The server cannot cope with batches of commands, although it offers PIPELINING.
    NoPipelining(SocketAddr),
    /// The server does not answer the first message of the TLS handshake with all groups of key exchange.
    ClassicGroups(SocketAddr),
    /// A relay has accepted the credentials by this mechanism, or, with `None`, has not accepted them.
    Authenticated(Login, Option<Mechanism>),
    /// The connection, inside this TLS if there is any, can take transactions. Answered by [`Delivery::handle_transactions`], [`Delivery::handle_nothing_claimed`]
    /// or [`Delivery::quit_connection`].
    WantTransactions(ConnectionId, Option<TlsSummary>),
    /// No mail could be sent on the connection, which ends.
    NotOpened(ConnectionFailure),
    /// A transaction has ended: the server has taken or refused the message, for at least one recipient.
    TransactionEnded {
        /// How it went, if that is told.
        course: Option<Arc<Course>>,
        /// True if the server has taken the message.
        is_delivered: bool,
    },
    /// Answered by [`Delivery::handle_data`].
    WantData {
        connection: ConnectionId,
        id: MailId,
        offset: u64,
        limit: u32,
    },
    Delivered {
        recipient: Recipient,
        acceptance: Acceptance,
        course: Option<Arc<Course>>,
        /// True if the server offers DSN, so that it tells the sender of success where that is wanted.
        is_reported_by_server: bool,
    },
    /// The server would take mail for the recipient of a probe.
    Accepted(Acceptance),
    /// Mail goes to this candidate in plain text, because TLS has failed there.
    FellBack {
        candidate: Candidate,
        reason: EndCause,
    },
    Failed {
        recipient: Recipient,
        failure: Failure,
        course: Option<Arc<Course>>,
    },
    /// This mail is undecided. `tried` is true if its transaction had begun.
    Released {
        ids: Vec<MailId>,
        tried: bool,
    },
    /// This mail was sent whole on a connection that is given up, so that its verdict will never be known.
    Abandoned(ConnectionId, Vec<MailId>),
    /// No candidate is left: all mail that is ready now has failed.
    Exhausted(PassFailure),
    /// The server has taken mail, and now refuses it on every connection. The rest has not failed, and waits for a while.
    HadEnough(Failure),
    /// Local trouble: try again a little later. No mail has failed.
    Postponed(Postponement),
    Event(Event),
}
