//! The settings of the dispatcher that is fuzzed.

use std::net::SocketAddr;

use cmail_delivery::course::Transcripts;
use cmail_delivery::next_hop::{Port, TlsMode};
use cmail_delivery::policy::{Family, Policy};
use cmail_delivery::settings::{BounceRules, ResolverSettings, Schedule, Settings, Told};
use cmail_delivery::time::Duration;

use crate::script::number;

/// Most connections at once.
pub(super) const CONCURRENCY: u32 = 4;

/// Returns the settings that the dispatcher begins with.
pub(super) fn settings() -> Settings {
    let port = |tls| Port { number: 25, tls };
    Settings {
        schedule: Schedule { retries: 2, retry_interval_s: 60, ..Schedule::default() },
        bounces: BounceRules {
            from: "postmaster@example.org".into(),
            copies: vec!["copy@example.org".into()],
            return_limit_octets: 10_000,
        },
        policy: Policy {
            concurrency: 2,
            host_concurrency: 3,
            ports: [port(TlsMode::StartTls), port(TlsMode::Plain)].into(),
            padding: 2,
            ..Policy::default()
        },
        concurrency: CONCURRENCY,
        resolver: ResolverSettings::new(vec![SocketAddr::from(([192, 0, 2, 53], 53))]),
        told: Told { conversations: true, courses: true, transcripts: Transcripts::Always },
        ..Settings::new("mail.example.org")
    }
}

/// Other settings, of which each part of a number decides one.
pub(super) fn settings_of(argument: &[u8]) -> Settings {
    let mut rest = number(argument, 0);
    let mut draw = |count: u64| {
        let drawn = rest % count;
        rest /= count;
        u32::try_from(drawn).unwrap_or(0)
    };
    let usual = settings();
    Settings {
        concurrency: 1 + draw(u64::from(CONCURRENCY)),
        policy: Policy {
            concurrency: 1 + draw(3),
            host_concurrency: 1 + draw(3),
            idle: Duration::from_secs(u64::from(draw(2)) * 300),
            ports: usual.policy.ports.get(usize::try_from(draw(3)).unwrap_or(0)..).unwrap_or_default().into(),
            family: if draw(4) > 0 { Family::Any } else { Family::Ipv6 },
            recipients: usize::try_from(1 + draw(3)).unwrap_or(1),
            messages: Some(draw(3)).filter(|count| *count > 0),
            pipelining: draw(2) > 0,
            ..usual.policy
        },
        schedule: Schedule { retry_interval_s: i64::from(draw(3)) * 60, ..usual.schedule },
        interval: Duration::from_secs(1 + u64::from(draw(3)) * 60),
        told: Told { conversations: draw(2) > 0, ..usual.told },
        bounces: BounceRules { return_limit_octets: u64::from(draw(2)) * 10_000, ..usual.bounces },
        ..usual
    }
}
