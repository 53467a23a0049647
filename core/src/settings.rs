//! The settings of the administrator, already parsed and checked by the driver.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use crate::address::Domain;
use crate::course::Transcripts;
use crate::next_hop::{Port, TlsMode};
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
    /// The ages at which the sender of mail that still fails is told that it is late.
    pub delay_warnings: Arc<[Duration]>,
    /// A mail with this many faillog rows is given up, if no rule is about it.
    pub retries: u32,
    /// A mail is due when more than this many seconds have passed since it was last tried, if no rule is about it.
    pub retry_interval_s: i64,
    /// Most NOOP and RSET that are sent as padding after TLS; 0 for none.
    pub tls_padding: u16,
    /// The ports to try, in this order.
    pub ports: Vec<Port>,
    /// True if IPv4 addresses can be connected to.
    pub ipv4: bool,
    /// True if IPv6 addresses can be connected to.
    pub ipv6: bool,
    /// Most transactions that may begin per destination; `None` for no limit.
    pub rate_limit: Option<RateLimit>,
    /// The settings of the resolver.
    pub resolver: ResolverSettings,
    /// Most connections at once.
    pub concurrency: u32,
    /// Most connections at once per destination.
    pub destination_concurrency: u32,
    /// Most connections at once to one address and port, whichever destinations they are for.
    pub host_concurrency: u32,
    /// The time for which a connection is kept open for further mail when there is none. Zero closes it at once.
    pub connection_idle: Duration,
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
}

/// A limit on the transactions that may begin in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The number of transactions, from 1.
    pub transactions: u32,
    /// The time: a second, a minute or an hour.
    pub per: Duration,
}

/// The settings of the resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverSettings {
    /// The DNS servers, in order of preference.
    pub servers: Vec<SocketAddr>,
    /// The time for which one server is waited for.
    pub timeout: Duration,
    /// How often each server is asked, from 1.
    pub attempts: u32,
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
            delay_warnings: Arc::new([]),
            // Five attempts an hour apart, as the C program made and people's configurations rely on. RFC 5321 section 4.5.4.1
            // recommends 4 to 5 days.
            retries: 5,
            retry_interval_s: 3600,
            // Enough to blur the length of an envelope, and at most ten round trips.
            tls_padding: 10,
            ports: [TlsMode::StartTls, TlsMode::Plain].map(|tls| Port { number: 25, tls }).into(),
            ipv4: true,
            ipv6: true,
            rate_limit: None,
            resolver: ResolverSettings::new(Vec::new()),
            // A connection spends most of its time waiting for the other side, so memory and descriptors are the limit, not the
            // processor: 500 connections take about as much as two large messages.
            concurrency: 500,
            // Large receivers accept this many from one client without pushing back.
            destination_concurrency: 10,
            // Twice that, so that one destination cannot have a host to itself.
            host_concurrency: 20,
            // Long enough for mail that is submitted one by one, and too short to annoy a server.
            connection_idle: Duration::from_secs(5),
            bounce_return_limit_octets: 1 << 20,
            auth_insecure: false,
            trace: false,
            tells_course: false,
            transcripts: Transcripts::Never,
        }
    }
}

impl ResolverSettings {
    /// Returns the defaults of `resolv.conf(5)` for these servers: two attempts of 5 s each.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, timeout: Duration::from_secs(5), attempts: 2 }
    }
}

#[cfg(test)]
impl Settings {
    /// Returns the defaults with one plain port and without padding.
    pub(crate) fn for_tests() -> Self {
        let ports = [Port { number: 25, tls: TlsMode::Plain }].into();
        Self { tls_padding: 0, ports, ..Self::new("me.example") }
    }
}
