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
/// use cmail_delivery::settings::{ResolverSettings, Settings};
///
/// let servers = vec!["127.0.0.1:53".parse().unwrap()];
/// let settings = Settings {
///     resolver: ResolverSettings::new(servers),
///     retries: 10,
///     ..Settings::new("mail.example.org")
/// };
/// assert_eq!(&*settings.bounce_from, "postmaster@mail.example.org");
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    /// The argument of EHLO and the domain of Message-IDs.
    pub announce: Box<str>,
    /// From: of bounces.
    pub bounce_from: Box<str>,
    /// Further recipients of every bounce.
    pub bounce_copy: Vec<Box<str>>,
    /// Longest time between two scans of the outbox.
    pub interval: Duration,
    /// When failed mail is tried again, and when it is given up: the first rule that is about a mail decides.
    pub retry_rules: Arc<[RetryRule]>,
    /// Which mail is held as long as the lines are there. The first one that is about a mail is told.
    pub hold_lines: Arc<[HoldLine]>,
    /// The ages at which the sender of mail that still fails is told that it is late.
    pub delay_warnings: Arc<[Duration]>,
    /// A mail with this many faillog rows is given up, if no rule is about it.
    pub retries: u32,
    /// A mail is due when more than this many seconds have passed since it was last tried, if no rule is about it.
    pub retry_interval_s: i64,
    /// How mail goes to destinations that no line is about.
    pub policy: Policy,
    /// How it goes to others, in the order of the lines.
    pub destinations: Arc<[PolicyLine]>,
    /// The settings of the resolver.
    pub resolver: ResolverSettings,
    /// Most connections at once.
    pub concurrency: u32,
    /// The largest original that a bounce returns whole, in octets. Of larger ones, the header section is returned.
    pub bounce_return_limit_octets: u64,
    /// True if credentials may be sent without TLS, or to a server whose certificate is not valid.
    pub auth_insecure: bool,
    /// True if the conversations themselves are reported, as [`crate::event::Event::Sent`], [`crate::event::Event::SentData`] and
    /// [`crate::event::Event::Received`].
    pub trace: bool,
    /// True if attempts tell [how they went](crate::course::Course).
    pub tells_course: bool,
    /// When they tell also what was said.
    pub transcripts: Transcripts,
    /// What is done with mail that may have arrived already.
    pub uncertain: Uncertain,
    /// Which mail is signed, and with which keys.
    pub signing: Arc<SigningRules>,
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
            bounce_from: format!("postmaster@{announce}").into(),
            bounce_copy: Vec::new(),
            interval: Duration::from_secs(10),
            retry_rules: Arc::new([]),
            hold_lines: Arc::new([]),
            delay_warnings: Arc::new([]),
            // Five attempts an hour apart, as the C program made and people's configurations rely on. RFC 5321 section 4.5.4.1
            // recommends 4 to 5 days.
            retries: 5,
            retry_interval_s: 3600,
            policy: Policy::default(),
            destinations: Arc::new([]),
            resolver: ResolverSettings::new(Vec::new()),
            // A connection spends most of its time waiting for the other side, so memory and descriptors are the limit, not the
            // processor: 500 connections take about as much as two large messages.
            concurrency: 500,
            bounce_return_limit_octets: 1 << 20,
            auth_insecure: false,
            trace: false,
            tells_course: false,
            transcripts: Transcripts::Never,
            uncertain: Uncertain::default(),
            signing: Arc::default(),
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
