//! Facts that can be observed from outside the core, told to the checkers as they happen.

use std::net::SocketAddr;

use bytes::Bytes;
use cmail_delivery::event::Event;
use cmail_delivery::explanation::{Explanation, Subject};
use cmail_delivery::io::{CertificateTrouble, ConnectionId, Groups, Purpose, Tls, TlsVersion, Verification};
use cmail_delivery::memory_outbox::MemoryOutbox;
use cmail_delivery::next_hop::NextHop;
use cmail_delivery::order::{OrderId, OrderStep};
use cmail_delivery::outbox::{Commit, MailId, RequestId, StoreReply, StoreRequest};
use cmail_delivery::settings::{Hosts, Settings};
use cmail_delivery::system_error::{Breakage, NetworkTrouble, SystemError, TlsTrouble};
use cmail_delivery::tally::Tally;
use cmail_delivery::time::{Instant, Now};
use cmail_delivery::tls::{DaneMatch, Tlsa};

use crate::host_keys::{self, IMPOSTOR};
use crate::map::Map;
use crate::outbox::MailKey;

/// Identifies a connection, also across restarts of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Link {
    /// The incarnation of the daemon.
    pub(crate) epoch: u32,
    /// The id that the core gave it.
    pub(crate) id: ConnectionId,
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.id.0)
    }
}

/// The verb of a command, and the two things beside commands that are replied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Auth,
    AuthLine,
    Noop,
    Rset,
    Mail,
    Rcpt,
    Data,
    FinalDot,
    Quit,
    Unknown,
}

/// What a name server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameQuestion {
    /// The name in lower case, without a dot at its end.
    pub(crate) name: String,
    pub(crate) is_tlsa: bool,
}

impl NameQuestion {
    /// Returns the host that it is about.
    pub(crate) fn host(&self) -> &str {
        self.name.split_once("._tcp.").map_or(&self.name, |(_, host)| host)
    }
}

/// The way in which a connection ended, or the reason why it was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// The core has closed it.
    Closed,
    /// It was refused.
    Refused,
    /// The host could not be reached.
    Unreachable,
    /// This machine could not make it.
    Local,
    /// The TLS handshake failed.
    TlsFailed,
    /// The peer dropped the connection during the TLS handshake.
    TlsDropped,
    /// The peer has closed it.
    EndOfFile,
    /// It broke.
    Reset,
}

/// The reason why a row was inserted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    /// Another process wants it delivered.
    Submitted,
    /// It is the bounce of these, which were deleted in the same transaction.
    BounceOf(&'a [MailId]),
    /// It tells the sender of these that they are late.
    WarningOf(&'a [MailId]),
    /// It tells the sender of this mail, which was deleted in the same transaction, that it was delivered.
    ReportOf(MailId),
}

/// An observed fact.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fact<'a> {
    /// The daemon was started, perhaps for a single pass.
    Started { epoch: u32, is_pass: bool },
    /// The daemon is gone, whether it crashed or ended.
    Stopped { crashed: bool },
    /// The daemon was asked to end.
    Draining,
    /// It was told to try everything now.
    Ordered,
    /// The daemon has read these contents of `/etc/hosts`.
    HostsRead { file: &'a Hosts },
    /// The administrator has changed the settings.
    Reconfigured { settings: &'a Settings },
    /// The wall clock was set.
    WallSet { by_s: i64 },
    /// A row came into the outbox.
    Inserted { id: MailId, origin: Origin<'a> },
    /// Another process has deleted a row.
    Removed { id: MailId },
    /// Another process has changed a row or its faillog.
    Meddled { id: MailId },
    /// The core asks a name server.
    NameAsked { question: &'a NameQuestion },
    /// A name server answers, perhaps in vain; `is_secure` if DNSSEC vouches for the answer.
    NameAnswered { question: &'a NameQuestion, is_secure: bool },
    /// The core asks for a connection.
    Connecting { link: Link, remote: SocketAddr, purpose: Purpose },
    /// That connection is one of this next hop, for its mail or for a probe.
    GoesTo { link: Link, next_hop: &'a NextHop, remote: SocketAddr, is_probe: bool },
    /// The connection is over, as the core sees it.
    Gone { link: Link, parting: Parting },
    /// The core begins TLS, and offers these groups of key exchange.
    StartTls { link: Link, groups: Groups },
    /// TLS is established.
    TlsEstablished { link: Link, shown: Shown },
    /// The core has sent octets on a connection; `tls` if they are protected.
    Sent { link: Link, octets: &'a [u8], tls: bool },
    /// Octets were given to the core.
    Received { link: Link, octets: &'a [u8] },
    /// The core has said a command line.
    Command { link: Link, verb: Verb, line: &'a [u8], tls: bool },
    /// The core has ended a message of this many octets with the final dot.
    FinalDot { link: Link, octets: u64, tls: bool },
    /// A whole reply was given to the core.
    Reply { link: Link, to: Verb, code: u16, text: &'a [u8] },
    /// A server has taken responsibility for the message whose end is the `number`-th on the connection, whether its reply gets
    /// through or not. `keys` identify it for each recipient.
    Accepted { link: Link, number: u32, recipients: &'a [String], data: &'a [u8], keys: &'a [MailKey] },
    /// The core gives up mail that the database holds for it.
    Released { ids: &'a [MailId] },
    /// The core has asked the database.
    Asked { id: RequestId, request: &'a StoreRequest },
    /// The database reads for the core.
    Answered { reply: &'a StoreReply },
    /// The answer to a request is given to the core; `done` unless the database has refused.
    Told { id: RequestId, done: bool },
    /// Verdicts are about to become durable; the outbox is as it was before.
    Committing {
        commit: &'a Commit,
        /// The data of the bounces, in the order of the replacements; empty where there is none.
        bounces: &'a [Bytes],
    },
    /// The administrator gives an order.
    OrderGiven { number: OrderId },
    /// An order is about to be carried out on these mails; the outbox is as it was before.
    CarryingOut { step: &'a OrderStep, mails: &'a [MailId] },
    /// The core tells the administrator.
    Log(&'a Event),
    /// The core has explained what it does.
    Explained { subject: &'a Subject, explanation: &'a Explanation },
    /// The core was called. It knows of this many mails and had this many outputs. Now and then its counts are looked at.
    Called { indexed: usize, outputs: usize, tally: Option<&'a Tally> },
    /// The core asks to be called again and again although nothing happens.
    Spins,
    /// From now on there are no faults, and all mail must be dealt with within this time.
    Healed,
    /// That time is over.
    Finished,
}

/// The context by which facts are judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    /// The time.
    pub(crate) now: Now,
    /// The earliest time at which the core may have said what it says now, because outputs are sometimes taken late.
    pub(crate) said_since: Instant,
    /// The settings of the administrator.
    pub(crate) settings: &'a Settings,
    /// The settings before these in the life of the daemon, and until when each held.
    pub(crate) earlier_settings: &'a [(Instant, Settings)],
    /// The current outbox.
    pub(crate) outbox: &'a MemoryOutbox,
    /// The world around.
    pub(crate) map: &'a Map,
}

impl<'a> Scene<'a> {
    /// Returns all settings that were in force at a moment from `since` on: what was decided then went by one of them.
    pub(crate) fn settings_since(&self, since: Instant) -> impl Iterator<Item = &'a Settings> + use<'a> {
        let earlier = self.earlier_settings.iter().rev().take_while(move |(until, _)| *until >= since);
        std::iter::once(self.settings).chain(earlier.map(|(_, settings)| settings))
    }

    /// Judges what may have been decided by any of the settings that were in force from `since` on: it is right if it is by one
    /// of them.
    pub(crate) fn right_by_one_since(
        &self,
        since: Instant,
        judge: impl Fn(&Settings) -> Result<(), String>,
    ) -> Result<(), String> {
        let verdict = judge(self.settings);
        let is_right =
            verdict.is_ok() || self.settings_since(since).skip(1).any(|settings| judge(settings).is_ok());
        if is_right { Ok(()) } else { verdict }
    }

    /// Returns the largest limit that was in force at a moment from `since` on.
    pub(crate) fn limit_since(&self, since: Instant, limit: fn(&Settings) -> u32) -> usize {
        let largest = self.settings_since(since).map(limit).max();
        usize::try_from(largest.unwrap_or_default()).unwrap_or(usize::MAX)
    }
}

/// The words for a connection that the peer closes during the handshake, as the driver has them.
pub(crate) const CLOSED_IN_HANDSHAKE: &str = "the peer closed the connection during the TLS handshake";

/// How a handshake fails in these worlds.
pub(crate) fn tls_failure(words: &str) -> SystemError<Breakage> {
    SystemError::new(TlsTrouble::Other, words)
}

/// How a connection breaks in these worlds.
pub(crate) fn reset(words: &str) -> SystemError<Breakage> {
    SystemError::new(NetworkTrouble::Reset, words)
}

/// A certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// True if it is valid for every name.
    pub(crate) is_valid: bool,
    /// Its key.
    pub(crate) key: u64,
}

impl Shown {
    /// Returns the certificate that these facts tell of, where records name key 0.
    pub(crate) fn told_by(facts: &Tls) -> Self {
        let key = if matches!(facts.dane, Some(Err(_))) { IMPOSTOR } else { 0 };
        // Who has the right key for pins has a valid certificate in these worlds.
        Self { is_valid: facts.pin.unwrap_or_else(|| facts.verification.is_verified()), key }
    }
}

/// Returns what a handshake comes to in these worlds, where the client holds the certificate against these records.
pub(crate) fn tls(shown: Shown, records: &[Tlsa]) -> Tls {
    let unverified = Verification::Unverified(CertificateTrouble::UnknownIssuer);
    let verification = if shown.is_valid { Verification::Verified } else { unverified };
    let is_named = host_keys::name_key(records, shown.key);
    let dane = if is_named { Ok(DaneMatch::EndEntity) } else { Err(CertificateTrouble::NoTlsaMatch) };
    // Who has a valid certificate has the right key for pins.
    Tls {
        pin: Some(shown.is_valid),
        dane: (!records.is_empty()).then_some(dane),
        ..Tls::new(TlsVersion::V1_3, verification)
    }
}
