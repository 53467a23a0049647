//! Each destination is treated as the lines of the administrator say: how many recipients a transaction has, how many messages go over a
//! connection, how many connections there are, and of which family.
//!
//! What a line says is found here by another way than in the core: for each key, the line that names the destination most closely.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::net::SocketAddr;

use cmail_delivery::destination_pattern::{DestinationPattern, MxPattern};
use cmail_delivery::io::Purpose;
use cmail_delivery::mail_pattern::DomainPattern;
use cmail_delivery::policy::{Choice, Family};
use cmail_delivery::settings::Settings;
use cmail_delivery::time::Instant;

use super::Checker;
use crate::facts::{Fact, Link, Scene, Verb};
use crate::map::Zone;

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct DestinationLines {
    talks: BTreeMap<Link, Talk>,
    /// Connections of probes, which send no message however often they say MAIL.
    probes: BTreeSet<Link>,
}

/// A connection to a host that one domain alone has its mail at.
#[derive(Debug)]
struct Talk {
    opened: Instant,
    remote: SocketAddr,
    domain: String,
    host: String,
    messages: usize,
    recipients: usize,
}

impl Checker for DestinationLines {
    fn name(&self) -> &'static str {
        "destination lines are kept"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Connecting { link, remote, purpose: Purpose::Smtp } => self.connect(scene, link, remote),
            Fact::GoesTo { link, is_probe: true, .. } => {
                self.probes.insert(link);
                Ok(())
            }
            Fact::Gone { link, .. } => {
                self.talks.remove(&link);
                self.probes.remove(&link);
                Ok(())
            }
            Fact::Stopped { .. } => {
                self.talks.clear();
                self.probes.clear();
                Ok(())
            }
            Fact::Command { link, verb: verb @ (Verb::Mail | Verb::Rcpt), .. } => self.say(scene, link, verb),
            _ => Ok(()),
        }
    }
}

impl DestinationLines {
    fn connect(&mut self, scene: &Scene<'_>, link: Link, remote: SocketAddr) -> Result<(), String> {
        let Some((domain, host)) = only_domain_at(scene, remote) else { return Ok(()) };
        let (opened, said) = (scene.now.monotonic, scene.said_since);
        let talk = Talk { opened, remote, domain, host, messages: 0, recipients: 0 };
        let is_of_family = |settings: &Settings| match said_of(settings, &talk, &Choice::Family(Family::Any))
        {
            Some(Choice::Family(Family::Ipv4)) => remote.is_ipv4(),
            Some(Choice::Family(Family::Ipv6)) => remote.is_ipv6(),
            _ => true,
        };
        if !scene.settings_since(said).any(is_of_family) {
            return Err(format!("{remote} is not of the family that {} is to have", talk.domain));
        }
        // What is open from before a limit was lowered stays until it comes to rest, but nothing is added to it.
        let to_domain = 1 + self.talks.values().filter(|other| other.domain == talk.domain).count();
        let at_host = 1 + self.talks.values().filter(|other| other.remote == remote).count();
        for (count, key) in [(to_domain, Choice::Concurrency(0)), (at_host, Choice::HostConcurrency(0))] {
            let most = most(scene, said, &talk, &key);
            if count > most {
                return Err(format!("{count} connections are open for {}, {most} are allowed", talk.domain));
            }
        }
        self.talks.insert(link, talk);
        Ok(())
    }

    fn say(&mut self, scene: &Scene<'_>, link: Link, verb: Verb) -> Result<(), String> {
        let Some(talk) = self.talks.get_mut(&link) else { return Ok(()) };
        if verb == Verb::Mail {
            talk.messages += usize::from(!self.probes.contains(&link));
            talk.recipients = 0;
        } else {
            talk.recipients += 1;
        }
        let counted = [(talk.messages, Choice::Messages(None)), (talk.recipients, Choice::Recipients(0))];
        for (count, key) in counted {
            let most = most(scene, talk.opened, talk, &key);
            if count > most {
                let what = if verb == Verb::Mail { "messages on a connection" } else { "recipients" };
                return Err(format!("[{link}] {count} {what} for {}, {most} are allowed", talk.domain));
            }
        }
        Ok(())
    }
}

/// Returns the domain that has its mail at an address, and the name of the host there, if no other next hop leads there.
pub(super) fn only_domain_at(scene: &Scene<'_>, remote: SocketAddr) -> Option<(String, String)> {
    let host = scene.map.host_at(remote.ip())?;
    let hops: Vec<String> = scene.map.hops_of_host(host).into_iter().collect();
    let [domain] = &hops[..] else { return None };
    let name = match scene.map.zone(domain)? {
        Zone::Exchanges(_) => scene.map.hosts.get(host)?.name.clone(),
        // It is its own host.
        Zone::Implicit(_) => domain.clone(),
        Zone::NullMx | Zone::Missing | Zone::Empty | Zone::Alias(_) => return None,
    };
    Some((domain.clone(), name))
}

/// Returns the largest limit that was in force from `since` on.
fn most(scene: &Scene<'_>, since: Instant, talk: &Talk, key: &Choice) -> usize {
    let limit = |settings: &Settings| match said_of(settings, talk, key) {
        Some(Choice::Concurrency(count) | Choice::HostConcurrency(count) | Choice::Messages(Some(count))) => {
            usize::try_from(count).unwrap_or(usize::MAX)
        }
        Some(Choice::Recipients(count)) => count,
        _ => usize::MAX,
    };
    scene.settings_since(since).map(limit).max().unwrap_or(usize::MAX)
}

/// Returns what the lines say of a destination by the key of this choice.
fn said_of(settings: &Settings, talk: &Talk, key: &Choice) -> Option<Choice> {
    said_of_domain(settings, &talk.domain, &talk.host, key)
}

/// Returns what the lines say of a domain while its mail goes to a host, by the key of this choice.
pub(super) fn said_of_domain(settings: &Settings, domain: &str, host: &str, key: &Choice) -> Option<Choice> {
    let rank = |pattern: &DestinationPattern| {
        let is_below = |name: &str, above: &str| name.ends_with(&format!(".{above}"));
        match pattern {
            DestinationPattern::All => Some(0),
            DestinationPattern::Mx(MxPattern::Below(above)) => {
                is_below(host, above.as_str()).then_some(100 + above.as_str().len())
            }
            DestinationPattern::Mx(MxPattern::Exactly(wanted)) => (wanted.as_str() == host).then_some(1000),
            DestinationPattern::To(DomainPattern::Tree(above)) => (above.as_str() == domain
                || is_below(domain, above.as_str()))
            .then_some(2000 + above.as_str().len()),
            DestinationPattern::To(DomainPattern::Exactly(wanted)) => {
                (wanted.as_str() == domain).then_some(3000)
            }
            DestinationPattern::Literal(_) | DestinationPattern::Remote(_) => None,
        }
    };
    let mut best: Option<(usize, &Choice)> = None;
    for line in settings.destinations.iter() {
        let said = line.choices.iter().find(|choice| discriminant(*choice) == discriminant(key));
        if let (Some(rank), Some(said)) = (rank(&line.destination), said)
            && best.is_none_or(|(other, _)| rank >= other)
        {
            best = Some((rank, said));
        }
    }
    best.map(|(_, said)| said.clone())
}
