//! Completes `destination` lines by what this host says: the addresses of hosts that they name, and credentials in files.

use std::mem::discriminant;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use cmail_delivery::address::Domain;
use cmail_delivery::destination_pattern::{DestinationPattern, MxPattern};
use cmail_delivery::mail_pattern::DomainPattern;
use cmail_delivery::next_hop::{Credentials, Host, NextHop, Relay, TlsMode};
use cmail_delivery::policy::{Choice, LocalAddresses, Policies, Policy, PolicyLine};
use cmail_delivery::settings::Settings;

use super::credentials::{self, CredentialsError};
use super::destination::{DestinationLine, Saying, key_of};
use super::errors::Reason;
use super::{Completion, addresses_of, tls_policy};
use crate::hosts;

/// The name of the directive.
const DIRECTIVE: &str = "destination";

impl Completion<'_> {
    /// Returns the lines as the core has them.
    pub(super) fn policy_lines(&mut self, lines: &[DestinationLine]) -> Vec<PolicyLine> {
        let completed: Vec<PolicyLine> = lines.iter().map(|line| self.policy_line(line)).collect();
        for (index, later) in completed.iter().enumerate() {
            if let Some(earlier) = completed.iter().take(index).find(|earlier| earlier.contradicts(later)) {
                let reason = Reason::Contradiction { earlier: earlier.line };
                self.fail(usize::try_from(later.line).ok(), DIRECTIVE, reason);
            }
        }
        completed
    }

    fn policy_line(&mut self, line: &DestinationLine) -> PolicyLine {
        let choices: Vec<Choice> =
            line.sayings.iter().filter_map(|saying| self.choice(line, saying)).collect();
        let bind = choices
            .iter()
            .find_map(|choice| if let Choice::Bind(bind) = choice { Some(*bind) } else { None });
        let family = choices
            .iter()
            .find_map(|choice| if let Choice::Family(family) = choice { Some(*family) } else { None });
        let (bind, family) = (bind.unwrap_or_default(), family.unwrap_or_default());
        if !(Policy { family, bind, ..Policy::default() }).permits_some() {
            self.fail(Some(line.line), DIRECTIVE, Reason::BindOfOtherFamily);
        }
        PolicyLine {
            destination: line.destination.clone(),
            choices,
            line: u32::try_from(line.line).unwrap_or(u32::MAX),
        }
    }

    /// Returns what a pair says; `None` if that stands elsewhere, or cannot be found out.
    fn choice(&mut self, line: &DestinationLine, saying: &Saying) -> Option<Choice> {
        match saying {
            Saying::Choice(choice) => Some(choice.clone()),
            Saying::Bind(host) => match addresses_of(host) {
                Ok(addresses) => Some(Choice::Bind(LocalAddresses::of(&addresses))),
                Err(error) => {
                    self.fail(Some(line.line), DIRECTIVE, Reason::BindHost { host: host.clone(), error });
                    None
                }
            },
            Saying::Via(relay) => {
                let path = line.credentials();
                let credentials = path.map(|path| self.credentials(line.line, path));
                Some(Choice::Via(Some(Relay { credentials: credentials.flatten(), ..relay.clone() })))
            }
            Saying::Credentials(_) | Saying::NoChunking => None,
        }
    }

    fn credentials(&mut self, line: usize, word: &str) -> Option<Credentials> {
        let word = Path::new(word);
        let path = match self.environment.absolute(word) {
            Ok(path) => path,
            Err(error) => {
                self.fail(Some(line), DIRECTIVE, Reason::NoCredentials(error));
                return None;
            }
        };
        let reason = match credentials::read(&path) {
            Ok(credentials) => {
                self.credentials_files.push(path);
                return Some(credentials);
            }
            // Where there is no such file, a word without a slash at its beginning may as well be a password.
            Err(CredentialsError::Unreadable(error)) if word.is_relative() => Reason::NoCredentials(error),
            Err(error) => Reason::Credentials { path, error },
        };
        self.fail(Some(line), DIRECTIVE, reason);
        None
    }

    /// Refuses relays whose credentials could only go without TLS, because they are never used.
    pub(super) fn check_relays(&mut self, settings: &Settings) {
        if settings.auth_insecure {
            return;
        }
        let policies = Policies::new(&settings.policy, &settings.destinations);
        for line in settings.destinations.iter() {
            for choice in &line.choices {
                let Choice::Via(Some(relay)) = choice else { continue };
                let ports = match relay.port {
                    Some(port) => [port].into(),
                    None => Arc::clone(&policies.of_hop(&NextHop::Relay(relay.clone())).ports),
                };
                let is_in_clear = ports.iter().all(|port| port.tls == TlsMode::Plain);
                if relay.credentials.is_some() && is_in_clear && !is_loopback(&relay.host) {
                    let number = usize::try_from(line.line).ok();
                    self.fail(number, DIRECTIVE, Reason::ClearCredentials { relay: relay.clone() });
                }
            }
        }
    }

    /// Warns of lines that say less than they seem to.
    pub(super) fn check_policy_lines(&mut self, settings: &Settings) {
        let policies = Policies::new(&settings.policy, &settings.destinations);
        let none_goes_directly = !settings
            .destinations
            .iter()
            .flat_map(|line| &line.choices)
            .any(|choice| *choice == Choice::Via(None));
        for (index, line) in settings.destinations.iter().enumerate() {
            let number = usize::try_from(line.line).ok();
            let earlier = settings.destinations.iter().take(index).rev();
            for (key, other) in overridden(line, earlier) {
                let text = format!(
                    "this line overrides {key} of line {other}, which is about the same destinations"
                );
                self.warn(number, DIRECTIVE, text);
            }
            if !merged(&policies, line).permits_some() {
                let text = "with what other lines and directives say of these connections, bind has no address of the family that they are \
                            to be made to, so there are none";
                self.warn(number, DIRECTIVE, text.to_owned());
            }
            if let Some(relay) = relay_instead(&policies, line, none_goes_directly) {
                let at_relay = DestinationPattern::Remote(relay.host.clone());
                let (directive, subject, at_relay) = if is_about_tls(line) {
                    (tls_policy::DIRECTIVE, "TLS", tls_policy::show_destination(&at_relay))
                } else {
                    (DIRECTIVE, "connections", at_relay.to_string())
                };
                let text = format!(
                    "mail to {} goes via {relay}, so what this line says of {subject} has no effect; say it of that relay, as in \
                     \"{directive} {at_relay} …\"",
                    line.destination
                );
                self.warn(number, directive, text);
            }
            let most = line
                .choices
                .iter()
                .find_map(|choice| if let Choice::Concurrency(count) = choice { Some(*count) } else { None });
            let says_of_host = line.choices.iter().any(|choice| matches!(choice, Choice::HostConcurrency(_)));
            let of_host = settings.policy.host_concurrency;
            if let Some(most) = most.filter(|most| *most > of_host && !says_of_host) {
                let text = format!(
                    "concurrency {most} is more than the {of_host} connections that there may be to one host; add \"host_concurrency {most}\""
                );
                self.warn(number, DIRECTIVE, text);
            }
        }
    }
}

/// Returns the keys of a line that lines before it, the last one first, say something else by of the same destinations, and those lines.
fn overridden<'a>(
    line: &PolicyLine,
    earlier: impl Iterator<Item = &'a PolicyLine> + Clone,
) -> Vec<(&'static str, u32)> {
    let of_key = |choice: &Choice| {
        let mut same = earlier.clone().filter(|other| other.destination == line.destination);
        same.find_map(|other| {
            let found = other.choices.iter().find(|found| discriminant(*found) == discriminant(choice))?;
            Some((found, other.line))
        })
    };
    let differing = line.choices.iter().filter_map(|choice| {
        let (found, number) = of_key(choice)?;
        (found != choice).then(|| (key_of(choice), number))
    });
    differing.collect()
}

/// Returns how mail goes that a line is about, by all lines together.
fn merged(policies: &Policies, line: &PolicyLine) -> Arc<Policy> {
    let of_relay = |relay: Relay| policies.of_hop(&NextHop::Relay(relay));
    let via = line
        .choices
        .iter()
        .find_map(|choice| if let Choice::Via(relay) = choice { relay.clone() } else { None });
    if let Some(relay) = via {
        return of_relay(relay);
    }
    match &line.destination {
        DestinationPattern::To(DomainPattern::Exactly(domain) | DomainPattern::Tree(domain)) => {
            policies.of_hop(&NextHop::Domain(domain.clone()))
        }
        DestinationPattern::Remote(host) => {
            of_relay(Relay { host: host.clone(), port: None, credentials: None })
        }
        DestinationPattern::Mx(MxPattern::Exactly(host) | MxPattern::Below(host)) => {
            // Only a host below the domain is meant by a line about those below it.
            let below = matches!(line.destination, DestinationPattern::Mx(MxPattern::Below(_)));
            let host = below
                .then(|| Domain::parse(&format!("mx.{host}")).ok())
                .flatten()
                .unwrap_or_else(|| host.clone());
            policies.at(&NextHop::Domain(host.clone()), &Host::Name(host))
        }
        DestinationPattern::Literal(address) => policies.of_hop(&NextHop::Literal(*address)),
        DestinationPattern::All => policies.of_hop(&unnamed_destination()),
    }
}

/// Returns a destination that no line names but those about all of them: the address that stands for none.
fn unnamed_destination() -> NextHop {
    NextHop::Literal(Ipv4Addr::UNSPECIFIED.into())
}

/// Returns whether a line says what is needed of TLS.
fn is_about_tls(line: &PolicyLine) -> bool {
    line.choices.iter().any(|choice| matches!(choice, Choice::Tls(_)))
}

/// Returns the relay that mail goes to which a line is about, if it is another line that says so, and this one has no effect by that.
/// `none_goes_directly` is whether no line takes destinations out of what goes by relays.
fn relay_instead(policies: &Policies, line: &PolicyLine, none_goes_directly: bool) -> Option<Relay> {
    if line.choices.iter().any(|choice| matches!(choice, Choice::Via(_))) {
        return None;
    }
    let next_hop = match &line.destination {
        DestinationPattern::To(DomainPattern::Exactly(domain) | DomainPattern::Tree(domain)) => {
            NextHop::Domain(domain.clone())
        }
        DestinationPattern::Literal(address) => NextHop::Literal(*address),
        // Of connections to relays it says all but what is needed of TLS.
        DestinationPattern::All if none_goes_directly && is_about_tls(line) => unnamed_destination(),
        DestinationPattern::All | DestinationPattern::Remote(_) | DestinationPattern::Mx(_) => return None,
    };
    let NextHop::Relay(relay) = policies.route(next_hop) else { return None };
    let at_relay = policies.of_hop(&NextHop::Relay(relay.clone()));
    let has_same_tls = |choice: &Choice| matches!(choice, Choice::Tls(policy) if *policy == at_relay.tls);
    (!line.choices.iter().all(has_same_tls)).then_some(relay)
}

/// Returns whether a relay is on this host, as far as that is known without the DNS.
fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Address(address) => address.to_canonical().is_loopback(),
        Host::Name(name) => {
            let known = hosts::read(Path::new(hosts::PATH)).unwrap_or_default();
            let found = known.get(name).map_or(&[][..], Vec::as_slice);
            found.iter().any(|address| address.to_canonical().is_loopback())
        }
    }
}

#[cfg(test)]
mod tests;
