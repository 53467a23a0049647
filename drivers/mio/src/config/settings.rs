//! The settings of the core that a configuration file makes.

use std::sync::Arc;

use cmail_delivery::policy::{LocalAddresses, Policy, PolicyLine};
use cmail_delivery::settings::{BounceRules, ResolverSettings, Schedule, Settings, Told};
use cmail_delivery::time::Duration;

use super::{Directives, values};
use crate::store::Entries;

/// The verbosity at which conversations are logged.
const TRACE_VERBOSITY: u32 = 4;

/// Returns the settings of the core.
pub(super) fn settings(
    directives: &Directives,
    announce: Box<str>,
    resolver: ResolverSettings,
    bind: LocalAddresses,
    destinations: Vec<PolicyLine>,
) -> Settings {
    Settings {
        bounces: bounces(directives, &announce),
        announce,
        interval: Duration::from_secs(directives.interval_s.into()),
        schedule: schedule(directives),
        policy: policy(directives, bind),
        destinations: destinations.into(),
        resolver,
        concurrency: directives.concurrency,
        auth_insecure: directives.auth_insecure,
        told: told(directives),
        uncertain: directives.uncertain,
        signing: Arc::default(),
    }
}

/// Returns when mail is tried, and when it is given up.
fn schedule(directives: &Directives) -> Schedule {
    Schedule {
        rules: directives.retry_rules.as_slice().into(),
        hold_lines: directives.hold_lines.as_slice().into(),
        delay_warnings: directives.delay_warnings.as_slice().into(),
        retries: directives.retries,
        retry_interval_s: directives.retry_interval_s.into(),
    }
}

/// Returns how bounces look, and who gets them.
fn bounces(directives: &Directives, announce: &str) -> BounceRules {
    let usual = BounceRules::new(announce);
    BounceRules {
        from: directives.bounce_from.clone().unwrap_or(usual.from),
        copies: directives.bounce_copy.clone(),
        return_limit_octets: directives.bounce_return_limit_octets.into(),
    }
}

/// Returns how mail goes to destinations that no line is about.
fn policy(directives: &Directives, bind: LocalAddresses) -> Policy {
    let concurrency = directives.destination_concurrency;
    Policy {
        concurrency,
        host_concurrency: directives.host_concurrency.unwrap_or_else(|| concurrency.saturating_mul(2)),
        rate_limit: directives.rate_limit,
        idle: Duration::from_secs(directives.connection_idle_s.into()),
        ports: directives.ports.as_slice().into(),
        bind,
        padding: u16::try_from(directives.tls_padding).unwrap_or(values::PADDING_MAX),
        ..Policy::default()
    }
}

/// Returns what the core tells of conversations and attempts.
pub(super) fn told(directives: &Directives) -> Told {
    let keeps_attempts = directives.ledger.entries != Entries::Off || directives.metrics.is_some();
    Told {
        conversations: directives.verbosity == TRACE_VERBOSITY || directives.record.is_some(),
        // For the ledger, the metrics, and lines of the log that tell of each mail.
        courses: keeps_attempts || directives.verbosity > 0,
        transcripts: directives.transcripts,
    }
}
