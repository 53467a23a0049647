//! The settings of the administrator, already parsed and checked by the driver.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use crate::address::Domain;
use crate::course::Transcripts;
use crate::dkim::SigningRules;
use crate::flight::Uncertain;
use crate::hold::HoldLine;
use crate::policy::{Policy, PolicyLine};
use crate::retry_rule::RetryRule;
use crate::time::Duration;

/// The settings of the core. Begin with [`Settings::new`], and change what is to be different:
///
/// ```
/// use cmail_delivery::settings::{ResolverSettings, Schedule, Settings};
///
/// let servers = vec!["127.0.0.1:53".parse().unwrap()];
/// let settings = Settings {
///     resolver: ResolverSettings::new(servers),
///     schedule: Schedule { retries: 10, ..Schedule::default() },
///     ..Settings::new("mail.example.org")
/// };
/// assert_eq!(&*settings.bounces.from, "postmaster@mail.example.org");
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    /// The argument of EHLO and the domain of Message-IDs.
    pub announce: Box<str>,
    /// Longest time between two scans of the outbox.
    pub interval: Duration,
    /// When mail is tried, and when it is given up.
    pub schedule: Schedule,
    /// How bounces look, and who gets them.
    pub bounces: BounceRules,
    /// How mail goes to destinations that no line is about.
    pub policy: Policy,
    /// How it goes to others, in the order of the lines.
    pub destinations: Arc<[PolicyLine]>,
    /// The settings of the resolver.
    pub resolver: ResolverSettings,
    /// Most connections at once.
    pub concurrency: u32,
    /// True if credentials may be sent without TLS, or to a server whose certificate is not valid.
    pub auth_insecure: bool,
    /// What is told of conversations and attempts.
    pub told: Told,
    /// What is done with mail that may have arrived already.
    pub uncertain: Uncertain,
    /// Which mail is signed, and with which keys.
    pub signing: Arc<SigningRules>,
}

/// When mail is tried, and when it is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// When failed mail is tried again, and when it is given up: the first rule that is about a mail decides.
    pub rules: Arc<[RetryRule]>,
    /// Which mail is held as long as the lines are there. The first one that is about a mail is told.
    pub hold_lines: Arc<[HoldLine]>,
    /// The ages at which the sender of mail that still fails is told that it is late.
    pub delay_warnings: Arc<[Duration]>,
    /// A mail with this many faillog rows is given up, if no rule is about it.
    pub retries: u32,
    /// A mail is due when more than this many seconds have passed since it was last tried, if no rule is about it.
    pub retry_interval_s: i64,
}

/// How bounces look, and who gets them besides the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BounceRules {
    /// From: of bounces.
    pub from: Box<str>,
    /// Further recipients of every bounce.
    pub copies: Vec<Box<str>>,
    /// The largest original that a bounce returns whole, in octets. Of larger ones, the header section is returned.
    pub return_limit_octets: u64,
}

/// What is told of conversations and attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// True if the conversations themselves are reported, as [`crate::event::Event::Sent`], [`crate::event::Event::SentData`] and
    /// [`crate::event::Event::Received`].
    pub conversations: bool,
    /// True if attempts tell [how they went](crate::course::Course).
    pub courses: bool,
    /// When they tell also what was said.
    pub transcripts: Transcripts,
}

/// The settings of the resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverSettings {
    /// The DNS servers, in order of preference.
    pub servers: Vec<NameServer>,
    /// The time for which one server is waited for.
    pub timeout: Duration,
    /// How often each server is asked, from 1.
    pub attempts: u32,
}

/// A recursive name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameServer {
    /// Its address and port.
    pub address: SocketAddr,
    /// True if it is asked whether DNSSEC vouches for its answers, and what it says of that is believed: it validates, and nobody
    /// can change its answers on their way here. Nothing is known to be secure otherwise.
    pub is_believed: bool,
}

impl From<SocketAddr> for NameServer {
    /// Returns a server that is not believed.
    fn from(address: SocketAddr) -> Self {
        Self { address, is_believed: false }
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// The entries of `/etc/hosts`. They are consulted only for relays.
pub type Hosts = BTreeMap<Domain, Vec<IpAddr>>;

impl Settings {
    /// Returns the defaults for a host that announces itself by this name. Only the name servers are missing; without them, mail
    /// can go only to address literals and to relays with an address.
    pub fn new(announce: &str) -> Self {
        Self {
            announce: announce.into(),
            // A scan of an outbox that has not changed costs one look at an index. A change by another program is noticed sooner where
            // the executor watches the database, so this bounds what a missed notice costs.
            interval: Duration::from_secs(10),
            schedule: Schedule::default(),
            bounces: BounceRules::new(announce),
            policy: Policy::default(),
            destinations: Arc::new([]),
            resolver: ResolverSettings::new(Vec::new()),
            // A connection spends most of its time waiting for the other side, so memory and descriptors are the limit, not the
            // processor: 500 connections take about as much as two large messages.
            concurrency: 500,
            // A password that others can read is theirs.
            auth_insecure: false,
            told: Told::default(),
            uncertain: Uncertain::default(),
            signing: Arc::default(),
        }
    }
}

impl Default for Schedule {
    /// Returns five attempts an hour apart for all mail, without holds and warnings.
    fn default() -> Self {
        Self {
            rules: Arc::new([]),
            hold_lines: Arc::new([]),
            delay_warnings: Arc::new([]),
            // As the C program made and people's configurations rely on. RFC 5321 section 4.5.4.1 recommends 4 to 5 days.
            retries: 5,
            retry_interval_s: 3600,
        }
    }
}

impl BounceRules {
    /// Returns the defaults for a host that announces itself by this name: bounces come from its postmaster, without copies.
    pub fn new(announce: &str) -> Self {
        Self {
            from: format!("postmaster@{announce}").into(),
            copies: Vec::new(),
            // Most mail comes back whole, and a large one does not fill the sender's mailbox a second time.
            return_limit_octets: 1 << 20,
        }
    }
}

impl ResolverSettings {
    /// Returns the defaults of `resolv.conf(5)` for these servers: two attempts of 5 s each. No server is believed.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        let servers = servers.into_iter().map(NameServer::from).collect();
        Self { servers, timeout: Duration::from_secs(5), attempts: 2 }
    }
}

#[cfg(test)]
impl Settings {
    /// Returns the defaults with one plain port and without padding.
    pub(crate) fn for_tests() -> Self {
        Self { policy: Policy::for_tests(), ..Self::new("me.example") }
    }
}
