//! The decisions of a seed: the configuration of the daemon, the world, and the faults.

mod faults;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cmail_delivery::address::Domain;
use cmail_delivery::course::Transcripts;
use cmail_delivery::destination_pattern::DestinationPattern;
use cmail_delivery::dkim::{Algorithm, KeyId, SignedMail, SigningKey, SigningRules};
use cmail_delivery::failure_pattern::FailurePattern;
use cmail_delivery::flight::Uncertain;
use cmail_delivery::hold::HoldLine;
use cmail_delivery::mail_pattern::MailPattern;
use cmail_delivery::next_hop::{Port, TlsMode};
use cmail_delivery::policy::{Choice, Family, Policy, PolicyLine, RateLimit};
use cmail_delivery::retry_rule::{RetryRule, Waits};
use cmail_delivery::settings::{BounceRules, NameServer, ResolverSettings, Schedule, Settings, Told};
use cmail_delivery::tls::{Fallback, InsecureMx, Level, Pin, TlsPolicy};

pub(crate) use self::faults::Faults;
use crate::dice::Dice;

/// The name servers.
pub(crate) const NAME_SERVERS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 53)), 53),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 54)), 53),
];

/// The longest time for which a retry rule keeps mail.
pub(crate) const LONGEST_RULE_S: u64 = 6 * 3600;

/// Everything that a seed decides at the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The number of hours with faults.
    pub(crate) hours: u32,
    /// Messages that are submitted in an hour.
    pub(crate) messages_per_hour: u32,
    /// Most messages that are submitted at all; 0 for no bound.
    pub(crate) messages: u32,
    /// Most recipients of a message.
    pub(crate) recipients: u32,
    /// Messages, in thousandths, that are larger than one piece.
    pub(crate) large_messages: u32,
    /// Mail, in thousandths, whose address or relay is invalid.
    pub(crate) malformed: u32,
    /// How many domains there are.
    pub(crate) zones: u32,
    /// The number of relays.
    pub(crate) relays: u32,
    pub(crate) interval_s: u32,
    pub(crate) retries: u32,
    pub(crate) retry_interval_s: u32,
    /// The first age at which senders of late mail are told, and a later one is twice that; 0 for never.
    pub(crate) delay_warning_s: u32,
    /// The retry rules: 0 for none, or which of a few sets.
    pub(crate) retry_rules: u8,
    /// Which mail lines hold: 0 for none, or which of a few sets of lines.
    pub(crate) hold_lines: u8,
    /// What is said of destinations: 0 for nothing, or which of a few sets of lines.
    pub(crate) destination_lines: u8,
    pub(crate) concurrency: u32,
    pub(crate) destination_concurrency: u32,
    pub(crate) host_concurrency: u32,
    /// In seconds; 0 for none.
    pub(crate) connection_idle_s: u32,
    /// Per minute; 0 for none.
    pub(crate) rate_per_minute: u32,
    pub(crate) padding: u16,
    /// The list of ports.
    pub(crate) ports: u8,
    pub(crate) ipv6: bool,
    pub(crate) auth_insecure: bool,
    /// True if anything stands in `/etc/hosts`.
    pub(crate) hosts_file: bool,
    pub(crate) bounce_copy: bool,
    /// True if the conversations go into the log.
    pub(crate) trace: bool,
    pub(crate) bounce_return_limit_octets: u64,
    /// The number of times that a name server is asked.
    pub(crate) dns_attempts: u32,
    /// True if questions with EDNS never get to a name server.
    pub(crate) dns_drops_edns: bool,
    /// True if attempts tell how they went, with transcripts of those that failed.
    pub(crate) tells_course: bool,
    /// What is done with mail that may have arrived already: 0 it is sent again, 1 held, 2 sent again without any notes.
    pub(crate) uncertain: u8,
    /// The zones and hosts, in thousandths, that DNSSEC vouches for, as the name servers say; 0 if they are not asked.
    pub(crate) signed: u32,
    /// Which mail is signed: 0 for none, 1 that which is marked, 2 all of some domains.
    pub(crate) dkim: u8,
    pub(crate) faults: Faults,
}

impl Options {
    /// Returns the options that this seed decides.
    pub(crate) fn draw(dice: &mut Dice, hours: u32) -> Self {
        let retry_interval_s = number(dice.pick(&[0, 60, 600, 1800, 3600, 3600, 3600, 14_400]));
        let mut options = Self {
            hours,
            messages_per_hour: number(dice.pick(&[1, 2, 5, 10, 20])),
            messages: 0,
            recipients: number(dice.pick(&[1, 1, 3, 8])),
            large_messages: number(dice.pick(&[0, 0, 5, 30])),
            malformed: number(dice.pick(&[0, 10, 50])),
            zones: 3 + number(dice.pick(&[0, 5, 20])),
            relays: number(dice.pick(&[0, 2, 5])),
            interval_s: number(dice.pick(&[10, 60, 60, 300, 300])),
            retries: number(dice.pick(&[1, 2, 3, 5, 5])),
            // Without any pause between attempts a mail that fails keeps both sides busy all the time.
            retry_interval_s: if hours > 100 { retry_interval_s.max(600) } else { retry_interval_s },
            concurrency: number(dice.pick(&[1, 2, 10, 100])),
            destination_concurrency: number(dice.pick(&[1, 2, 10])),
            host_concurrency: number(dice.pick(&[1, 2, 20, 20])),
            connection_idle_s: number(dice.pick(&[0, 5, 5, 300])),
            rate_per_minute: number(dice.pick(&[0, 0, 0, 6, 60, 600])),
            padding: u16::try_from(number(dice.pick(&[0, 3, 10]))).unwrap_or(0),
            ports: u8::try_from(dice.below(4)).unwrap_or(0),
            ipv6: dice.chance(500),
            auth_insecure: dice.chance(200),
            hosts_file: dice.chance(500),
            bounce_copy: dice.chance(300),
            trace: dice.chance(250),
            bounce_return_limit_octets: u64::from(number(dice.pick(&[0, 300, 1 << 20]))),
            faults: Faults::draw(dice),
            dns_attempts: number(dice.pick(&[1, 2, 2])),
            dns_drops_edns: dice.chance(100),
            tells_course: false,
            uncertain: 0,
            retry_rules: 0,
            destination_lines: 0,
            hold_lines: 0,
            delay_warning_s: 0,
            signed: 0,
            dkim: 0,
        };
        options.faults.poison = number(dice.pick(&[0, 0, 10, 100]));
        options.faults.reconfigurations = number(dice.pick(&[0, 0, 300, 3000]));
        options.faults.orders = number(dice.pick(&[0, 0, 1000, 6000]));
        options.tells_course = dice.chance(500);
        options.delay_warning_s = number(dice.pick(&[0, 0, 600, 3600]));
        options.retry_rules = u8::try_from(number(dice.pick(&[0, 0, 1, 2, 3]))).unwrap_or(0);
        options.uncertain = u8::try_from(number(dice.pick(&[0, 0, 0, 1, 2]))).unwrap_or(0);
        options.destination_lines = u8::try_from(number(dice.pick(&[0, 0, 1, 2]))).unwrap_or(0);
        options.hold_lines = u8::try_from(number(dice.pick(&[0, 0, 1, 2]))).unwrap_or(0);
        options.signed = number(dice.pick(&[0, 0, 500, 900]));
        if options.signed > 0 {
            options.faults.draw_for_dane(dice);
            options.destination_lines = u8::try_from(number(dice.pick(&[1, 3, 3, 4]))).unwrap_or(0);
        }
        options.dkim = u8::try_from(number(dice.pick(&[0, 0, 1, 2]))).unwrap_or(0);
        if options.dkim > 0 {
            options.faults.sign_delays = number(dice.pick(&[0, 20, 300]));
            options.faults.sign_failures = number(dice.pick(&[0, 20, 300]));
        }
        options
    }

    /// Draws anew, each with even odds, what an administrator may change while the daemon runs.
    pub(crate) fn redraw_settings(&mut self, dice: &mut Dice) {
        let drawn = Self::draw(dice, self.hours);
        macro_rules! redraw {
            ($($field:ident)+) => {
                $(if dice.chance(500) {
                    self.$field = drawn.$field;
                })+
            };
        }
        redraw!(
            interval_s retries retry_interval_s retry_rules destination_lines hold_lines delay_warning_s concurrency destination_concurrency host_concurrency connection_idle_s
            rate_per_minute padding ports ipv6 auth_insecure bounce_copy trace bounce_return_limit_octets dns_attempts dkim
        );
    }

    /// Returns the settings of the administrator.
    pub(crate) fn settings(&self) -> Settings {
        let usual = Settings::new("mail.sim.example");
        Settings {
            bounces: BounceRules {
                copies: if self.bounce_copy { vec!["copies@zone0.example".into()] } else { vec![] },
                return_limit_octets: self.bounce_return_limit_octets,
                ..usual.bounces
            },
            interval: Duration::from_secs(u64::from(self.interval_s)),
            schedule: self.schedule(),
            policy: Policy {
                concurrency: self.destination_concurrency,
                host_concurrency: self.host_concurrency,
                rate_limit: (self.rate_per_minute > 0).then_some(RateLimit {
                    transactions: self.rate_per_minute,
                    per: Duration::from_secs(60),
                }),
                idle: Duration::from_secs(u64::from(self.connection_idle_s)),
                ports: port_list(self.ports).into(),
                family: if self.ipv6 { Family::Any } else { Family::Ipv4 },
                padding: self.padding,
                ..Policy::default()
            },
            destinations: destination_lines(self.destination_lines).into(),
            resolver: ResolverSettings {
                attempts: self.dns_attempts.max(1),
                servers: NAME_SERVERS
                    .map(|address| NameServer { address, is_believed: self.signed > 0 })
                    .into(),
                ..ResolverSettings::new(Vec::new())
            },
            concurrency: self.concurrency,
            auth_insecure: self.auth_insecure,
            told: Told {
                conversations: self.trace,
                courses: self.tells_course,
                transcripts: if self.tells_course { Transcripts::OfFailures } else { Transcripts::Never },
            },
            uncertain: match self.uncertain {
                0 => Uncertain::Retry,
                1 => Uncertain::Hold,
                _ => Uncertain::Off,
            },
            signing: signing_rules(self.dkim).into(),
            ..usual
        }
    }

    /// Returns when mail is tried, and when it is given up.
    fn schedule(&self) -> Schedule {
        Schedule {
            rules: retry_rules(self.retry_rules).into(),
            hold_lines: hold_lines(self.hold_lines).into(),
            delay_warnings: match self.delay_warning_s {
                0 => [].into(),
                seconds => [1, 2].map(|times| Duration::from_secs(u64::from(seconds) * times)).into(),
            },
            retries: self.retries,
            retry_interval_s: i64::from(self.retry_interval_s),
        }
    }
}

/// Returns a set of retry rules: one for all mail; some that differ by mail and failure; some that are about little.
fn retry_rules(set: u8) -> Vec<RetryRule> {
    let rule = |mail: &str, failure: &str, waits_s: &[u32], until_s: u64| {
        let rule = (MailPattern::parse(mail).ok(), FailurePattern::parse(failure).ok(), Waits::new(waits_s));
        let (Some(mail), Some(failure), Some(waits)) = rule else { return None };
        Some(RetryRule { mail, failure, waits, until: Duration::from_secs(until_s), line: 1 })
    };
    let rules = match set {
        1 => vec![rule("*", "*", &[300, 900, 3600], LONGEST_RULE_S)],
        2 => vec![
            rule("sender:<>", "*", &[600], 3600),
            rule("zone0.example", "recipient", &[60, 1800], 7200),
            rule("*", "connect", &[600, 3600], LONGEST_RULE_S),
            rule("*", "4", &[1200], 10_000),
        ],
        3 => vec![rule(".zone1.example", "lost", &[1, 1, 1, 7200], 14_400), rule("*", "dns", &[900], 5000)],
        _ => vec![],
    };
    rules.into_iter().flatten().collect()
}

/// Returns which mail is signed, and with which keys.
fn signing_rules(choice: u8) -> SigningRules {
    let key = |number: u64, domain: &str| {
        let (domain, selector) = (Domain::parse(domain).ok()?, Domain::parse("s1").ok()?);
        Some(SigningKey { id: KeyId(number), domain, selector, algorithm: Algorithm::Ed25519Sha256 })
    };
    let keys = [
        key(1, "zone0.example"),
        key(2, "zone1.example"),
        key(3, "zone1.example"),
        key(4, "mail.sim.example"),
    ];
    match choice {
        0 => SigningRules::default(),
        1 => SigningRules { keys: keys.into_iter().flatten().collect(), mail: SignedMail::Marked },
        // Another key for one domain, as after a reload.
        _ => {
            let keys = keys.into_iter().flatten().skip(1).chain(key(5, "zone0.example"));
            SigningRules { keys: keys.collect(), mail: SignedMail::All }
        }
    }
}

/// Returns a set of lines that hold mail.
fn hold_lines(set: u8) -> Vec<HoldLine> {
    let line = |(number, pattern): (u32, &&str)| {
        let mail = MailPattern::parse(pattern).ok()?;
        Some(HoldLine { mail, reason: "asked to".into(), line: number })
    };
    let patterns: &[&str] = match set {
        1 => &["zone1.example", "sender:s3@zone0.example"],
        2 => &[".zone1.example", "sender:zone2.example", "remote:relay0.example"],
        _ => &[],
    };
    (1..).zip(patterns).filter_map(line).collect()
}

/// Returns the lines of all sets.
pub(crate) fn every_hold_line() -> impl Iterator<Item = HoldLine> {
    [1, 2].into_iter().flat_map(hold_lines)
}

/// Returns the choice of ports of which one has TLS.
fn starttls_first() -> Choice {
    Choice::Ports([TlsMode::StartTls, TlsMode::Plain].map(|tls| Port { number: 25, tls }).into())
}

/// Returns the choice of a level.
fn needing(level: Level) -> Choice {
    Choice::Tls(Arc::new(TlsPolicy { level, ..TlsPolicy::default() }))
}

/// Returns the level at which TLSA records bind.
fn dane(otherwise: Fallback) -> Level {
    Level::Dane { otherwise, insecure_mx: InsecureMx::Dane }
}

/// Returns a set of lines about destinations. They only lower limits, so that other rules about limits hold all the same.
fn destination_lines(set: u8) -> Vec<PolicyLine> {
    let line = |destination: &str, choices: &[Choice]| {
        let destination = DestinationPattern::parse(destination).ok()?;
        Some(PolicyLine { destination, choices: choices.to_vec(), line: 1 })
    };
    let lines = match set {
        1 => vec![
            line("*", &[Choice::Recipients(2), Choice::Messages(Some(3))]),
            line(
                "zone0.example",
                &[Choice::Concurrency(1), Choice::Messages(Some(5)), Choice::Pipelining(false)],
            ),
            line("zone1.example", &[Choice::Family(Family::Ipv4)]),
            line("zone1.example", &[starttls_first(), needing(Level::Verify([].into()))]),
            // Relays and literals have another limit at hosts that they share.
            line("mx:*.hosts.example", &[Choice::HostConcurrency(1), Choice::Idle(Duration::ZERO)]),
        ],
        2 => vec![
            line(".zone1.example", &[Choice::Messages(Some(1)), Choice::Padding(0)]),
            line("zone0.example", &[Choice::Recipients(1), Choice::Messages(Some(2))]),
            line("zone0.example", &[starttls_first(), needing(Level::Encrypt)]),
            line(".zone1.example", &[starttls_first(), needing(Level::Pin([Pin([0; 32])].into()))]),
            line("mx:mx0.hosts.example", &[Choice::Concurrency(1), Choice::Recipients(2)]),
            line(".example", &[Choice::HostConcurrency(1)]),
        ],
        3 => vec![line("*", &[needing(dane(Fallback::May))])],
        4 => vec![
            line("*", &[needing(dane(Fallback::Encrypt))]),
            line("zone0.example", &[needing(dane(Fallback::May))]),
            line("zone1.example", &[starttls_first(), needing(Level::DaneOnly)]),
            line("zone2.example", &[needing(Level::May)]),
        ],
        _ => vec![],
    };
    lines.into_iter().flatten().collect()
}

/// The names under which options are written down. An option that is not written is zero.
macro_rules! entries {
    ($($name:literal => $($field:ident).+;)+) => {
        impl Options {
            /// Returns those that are not zero, by name.
            pub(crate) fn entries(&self) -> Vec<(&'static str, String)> {
                let zero = Self::default();
                let mut entries = Vec::new();
                $(if self.$($field).+ != zero.$($field).+ {
                    entries.push(($name, self.$($field).+.to_string()));
                })+
                entries
            }

            /// Sets one by its name.
            pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
                match name {
                    $($name => {
                        self.$($field).+ =
                            value.parse().map_err(|error| format!("{name} {value}: {error}"))?;
                    })+
                    _ => return Err(format!("{name} is no option of a world")),
                }
                Ok(())
            }
        }
    };
}

entries! {
    "hours" => hours;
    "messages_per_hour" => messages_per_hour;
    "messages" => messages;
    "recipients" => recipients;
    "large_messages" => large_messages;
    "malformed" => malformed;
    "zones" => zones;
    "relays" => relays;
    "interval_s" => interval_s;
    "retries" => retries;
    "retry_interval_s" => retry_interval_s;
    "retry_rules" => retry_rules;
    "destination_lines" => destination_lines;
    "delay_warning_s" => delay_warning_s;
    "concurrency" => concurrency;
    "destination_concurrency" => destination_concurrency;
    "host_concurrency" => host_concurrency;
    "connection_idle_s" => connection_idle_s;
    "rate_per_minute" => rate_per_minute;
    "padding" => padding;
    "ports" => ports;
    "ipv6" => ipv6;
    "auth_insecure" => auth_insecure;
    "hosts_file" => hosts_file;
    "bounce_copy" => bounce_copy;
    "hold_lines" => hold_lines;
    "tells_course" => tells_course;
    "uncertain" => uncertain;
    "trace" => trace;
    "bounce_return_limit_octets" => bounce_return_limit_octets;
    "dns_attempts" => dns_attempts;
    "dns_drops_edns" => dns_drops_edns;
    "faults.resets" => faults.resets;
    "faults.stalls" => faults.stalls;
    "faults.hangups" => faults.hangups;
    "faults.refusals" => faults.refusals;
    "faults.local_trouble" => faults.local_trouble;
    "faults.tls_failures" => faults.tls_failures;
    "faults.splits" => faults.splits;
    "faults.joins" => faults.joins;
    "faults.outages" => faults.outages;
    "faults.group_outages" => faults.group_outages;
    "faults.odd_servers" => faults.odd_servers;
    "faults.mute_servers" => faults.mute_servers;
    "faults.dns_losses" => faults.dns_losses;
    "faults.dns_strays" => faults.dns_strays;
    "faults.dns_truncations" => faults.dns_truncations;
    "faults.dns_spells" => faults.dns_spells;
    "faults.dns_silences" => faults.dns_silences;
    "faults.store_failures" => faults.store_failures;
    "faults.store_delays" => faults.store_delays;
    "faults.crashes" => faults.crashes;
    "faults.drains" => faults.drains;
    "faults.meddling" => faults.meddling;
    "faults.clock_jumps" => faults.clock_jumps;
    "faults.retries" => faults.retries;
    "faults.reconfigurations" => faults.reconfigurations;
    "faults.orders" => faults.orders;
    "faults.disorder" => faults.disorder;
    "faults.poison" => faults.poison;
    "signed" => signed;
    "faults.ad_withheld" => faults.ad_withheld;
    "faults.tlsa_failures" => faults.tlsa_failures;
    "faults.rollovers" => faults.rollovers;
    "faults.stripped" => faults.stripped;
    "faults.impostors" => faults.impostors;
    "dkim" => dkim;
    "faults.sign_delays" => faults.sign_delays;
    "faults.sign_failures" => faults.sign_failures;
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries().iter().try_for_each(|(name, value)| writeln!(f, "{name} {value}"))
    }
}

/// Returns a list of ports.
fn port_list(choice: u8) -> Vec<Port> {
    let port = |number, tls| Port { number, tls };
    match choice {
        0 => vec![port(25, TlsMode::StartTls)],
        1 => vec![port(465, TlsMode::Implicit), port(25, TlsMode::StartTls), port(25, TlsMode::Plain)],
        2 => vec![port(25, TlsMode::Plain)],
        _ => vec![port(25, TlsMode::StartTls), port(25, TlsMode::Plain)],
    }
}

fn number(choice: Option<&u32>) -> u32 {
    choice.copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
