//! The content of a configuration file, and how the values of directives get there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use cmail_delivery::course::Transcripts;
use cmail_delivery::flight::Uncertain;
use cmail_delivery::hold::HoldLine;
use cmail_delivery::next_hop::Port;
use cmail_delivery::policy::RateLimit;
use cmail_delivery::retry_rule::RetryRule;
use cmail_delivery::time::Duration;

use super::destination::DestinationLine;
use super::directive::Located;
use super::dkim::DkimLines;
use super::tls_policy::TlsPolicyLine;
use super::values::{self, ValueError};
use crate::control::ControlPlace;
use crate::logging::LogFormat;
use crate::monitor::MetricsAddress;
use crate::overview::CountedDestination;
use crate::resolv_conf::Dnssec;
use crate::store::LedgerSettings;

/// The content of a configuration file, not yet completed by facts about the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    pub(super) verbosity: u32,
    pub(super) logformat: LogFormat,
    pub(super) logfile: Option<Located<Box<str>>>,
    pub(super) pidfile: Option<Located<Box<str>>>,
    pub(super) user: Option<Located<Box<str>>>,
    pub(super) group: Option<Located<Box<str>>>,
    pub(super) database: Option<Located<Box<str>>>,
    pub(super) record: Option<Located<Box<str>>>,
    pub(super) metrics: Option<Located<MetricsAddress>>,
    pub(super) metrics_destinations: Vec<CountedDestination>,
    pub(super) control: Option<Located<ControlPlace>>,
    pub(super) submit: Option<Located<Box<str>>>,
    pub(super) submit_size_octets: u32,
    pub(super) announce: Option<Box<str>>,
    pub(super) bounce_from: Option<Box<str>>,
    pub(super) bounce_copy: Vec<Box<str>>,
    pub(super) interval_s: u32,
    pub(super) retry_rules: Vec<RetryRule>,
    pub(super) hold_lines: Vec<HoldLine>,
    pub(super) delay_warnings: Vec<Duration>,
    pub(super) destinations: Vec<DestinationLine>,
    pub(super) tls_policies: Vec<TlsPolicyLine>,
    pub(super) tls_client_cert: Option<Located<Box<str>>>,
    pub(super) tls_client_key: Option<Located<Box<str>>>,
    pub(super) retries: u32,
    pub(super) retry_interval_s: u32,
    pub(super) tls_padding: u32,
    pub(super) tls_trustfile: Option<Located<Box<str>>>,
    pub(super) ports: Vec<Port>,
    pub(super) bind: Option<Located<Box<str>>>,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) resolver: Vec<SocketAddr>,
    pub(super) dnssec: Dnssec,
    pub(super) concurrency: u32,
    pub(super) destination_concurrency: u32,
    pub(super) host_concurrency: Option<u32>,
    pub(super) connection_idle_s: u32,
    pub(super) bounce_return_limit_octets: u32,
    pub(super) auth_insecure: bool,
    pub(super) ledger: LedgerSettings,
    pub(super) transcripts: Transcripts,
    pub(super) uncertain: Uncertain,
    pub(super) dkim: DkimLines,
    /// The line of each directive; the last one, where there are several.
    pub(super) lines: BTreeMap<&'static str, usize>,
    /// What the administrator should know although it is not an error: the directive, and a sentence.
    pub(super) warnings: Vec<Located<(&'static str, String)>>,
}

impl Directives {
    fn warn(&mut self, line: usize, directive: &'static str, text: impl Into<String>) {
        self.warnings.push(Located { line, value: (directive, text.into()) });
    }
}

pub(super) fn set_announce(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let name = values::announce(text.value)?;
    if values::lacks_dot(&name) {
        to.warn(text.line, "announce", format!("{name} {}", values::WITHOUT_DOT));
    }
    to.announce = Some(name);
    Ok(())
}

pub(super) fn set_bounce_from(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let (address, warning) = values::address(text.value)?;
    if let Some(warning) = warning {
        to.warn(text.line, "bounce_from", warning);
    }
    to.bounce_from = Some(address);
    Ok(())
}

pub(super) fn path(slot: &mut Option<Located<Box<str>>>, text: Located<&str>) -> Result<(), ValueError> {
    *slot = Some(Located { line: text.line, value: values::path(text.value)? });
    Ok(())
}

/// Stores a name that is looked up on this host later.
pub(super) fn name(slot: &mut Option<Located<Box<str>>>, text: Located<&str>) -> Result<(), ValueError> {
    *slot = Some(Located { line: text.line, value: text.value.into() });
    Ok(())
}

pub(super) fn set_metrics(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let address = values::metrics(text.value)?;
    to.metrics = address.map(|value| Located { line: text.line, value });
    Ok(())
}

pub(super) fn add_metrics_destinations(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    for word in values::words(text.value) {
        let named = values::counted_destination(word)?;
        if to.metrics_destinations.iter().all(|known| known.name != named.name) {
            to.metrics_destinations.push(named);
        }
    }
    Ok(())
}

pub(super) fn set_control(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.control = Some(Located { line: text.line, value: values::control(text.value)? });
    Ok(())
}

pub(super) fn set_submit(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.submit = values::socket(text.value)?.map(|value| Located { line: text.line, value });
    Ok(())
}

pub(super) fn set_ports(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.ports = values::words(text.value).map(values::port).collect::<Result<_, _>>()?;
    Ok(())
}

pub(super) fn set_delay_warnings(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.delay_warnings = values::words(text.value).map(values::warning_age).collect::<Result<_, _>>()?;
    Ok(())
}

pub(super) fn add_retry_rule(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let rule = values::retry_rule(text.value, u32::try_from(text.line).unwrap_or(u32::MAX))?;
    if let Some(earlier) = to.retry_rules.iter().find(|earlier| earlier.leaves_nothing_to(&rule)) {
        let warning = format!(
            "line {} is about the same mail and comes first, so this line is never used",
            earlier.line
        );
        to.warn(text.line, "retry", warning);
    }
    to.retry_rules.push(rule);
    Ok(())
}

pub(super) fn add_hold_line(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let line = values::hold_line(text.value, u32::try_from(text.line).unwrap_or(u32::MAX))?;
    if let Some(earlier) = to.hold_lines.iter().find(|earlier| earlier.leaves_nothing_to(&line)) {
        let warning = format!("line {} holds the same mail, so its reason is told", earlier.line);
        to.warn(text.line, "hold", warning);
    }
    to.hold_lines.push(line);
    Ok(())
}

pub(super) fn add_destination(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.destinations.push(DestinationLine::parse(text.value, text.line)?);
    Ok(())
}

pub(super) fn add_tls_policy(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let line = TlsPolicyLine::parse(text.value, text.line, &to.tls_policies)?;
    to.tls_policies.push(line);
    Ok(())
}

pub(super) fn add_resolvers(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let servers: Vec<_> = values::words(text.value).map(values::resolver).collect::<Result<_, _>>()?;
    to.resolver.extend(servers);
    Ok(())
}

pub(super) fn add_bounce_copies(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let found: Vec<_> = values::words(text.value).map(values::address).collect::<Result<_, _>>()?;
    for (address, warning) in found {
        to.bounce_copy.push(address);
        if let Some(warning) = warning {
            to.warn(text.line, "bounce_copy", warning);
        }
    }
    Ok(())
}

pub(super) fn set_rate(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.rate_limit = values::rate(text.value)?;
    if to.rate_limit.is_none() {
        let warning = "a plain number is ignored; to limit the rate, write it as N/s, N/min or N/h";
        to.warn(text.line, "ratelimit", warning);
    }
    Ok(())
}

pub(super) fn warn_of_priorities(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let warning = "the directive is ignored: the daemon uses TLS 1.2 and 1.3 with the cipher suites that are safe today";
    to.warn(text.line, "tls_priorities", warning);
    Ok(())
}

pub(super) fn set_auth_insecure(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.auth_insecure = values::yes_no(text.value)?;
    Ok(())
}
