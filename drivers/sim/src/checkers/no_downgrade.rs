//! No mail goes over a connection that falls short of what the administrator needs of TLS, by what is true of the server: not in plain text
//! where TLS is needed, and not to a server that does not prove who it is where that is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use cmail_delivery::io::Purpose;
use cmail_delivery::policy::Choice;
use cmail_delivery::settings::Settings;
use cmail_delivery::time::{Duration, Instant};
use cmail_delivery::tls::{Fallback, Level};

use super::Checker;
use super::destination_lines::{only_domain_at, said_of_domain};
use crate::facts::{Fact, Link, Scene, Shown, Verb};

/// Time for which records may be gone by after they were replaced: an hour in the cache, and the rest of a long pass.
const RECORDS_LIFETIME: Duration = Duration::from_secs(3 * 3600);

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct NoDowngrade {
    talks: BTreeMap<Link, Talk>,
    /// The hosts of which this incarnation of the daemon may believe that DNSSEC does not vouch for them.
    seem_insecure: BTreeSet<String>,
}

impl Checker for NoDowngrade {
    fn name(&self) -> &'static str {
        "no mail goes over less than is needed of TLS"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Connecting { link, remote, purpose: Purpose::Smtp } => {
                self.talks.extend(Talk::begin(scene, remote).map(|talk| (link, talk)));
            }
            Fact::Gone { link, .. } => drop(self.talks.remove(&link)),
            Fact::Stopped { .. } => *self = Self::default(),
            Fact::NameAnswered { question, is_secure: false } => {
                self.seem_insecure.insert(question.host().to_owned());
            }
            Fact::TlsEstablished { link, shown } => {
                if let Some(talk) = self.talks.get_mut(&link) {
                    talk.shown = Some(shown);
                }
            }
            Fact::Command { link, verb: Verb::Mail | Verb::Rcpt | Verb::Data, tls, .. } => {
                let Some(talk) = self.talks.get(&link) else { return Ok(()) };
                let is_bound = talk.is_bound(scene) && !self.seem_insecure.contains(&talk.host);
                let shown = talk.shown.filter(|_| tls);
                let permits = |settings: &Settings| talk.permits_mail(scene, settings, shown, is_bound);
                if !scene.settings_since(talk.opened).any(permits) {
                    let domain = &talk.domain;
                    return Err(format!("[{link}] mail for {domain} goes over less than its line needs"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A connection to a host that one domain alone has its mail at.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) opened: Instant,
    pub(super) remote: SocketAddr,
    domain: String,
    host: String,
    /// The certificate, inside TLS.
    shown: Option<Shown>,
}

impl Talk {
    /// Returns a connection that is opened now, if it is known whose mail goes there.
    pub(super) fn begin(scene: &Scene<'_>, remote: SocketAddr) -> Option<Self> {
        let (domain, host) = only_domain_at(scene, remote)?;
        let opened = scene.said_since.min(scene.now.monotonic);
        Some(Self { opened, remote, domain, host, shown: None })
    }

    /// Returns what these settings need of TLS.
    pub(super) fn level(&self, settings: &Settings) -> Level {
        match said_of_domain(settings, &self.domain, &self.host, &Choice::Tls(Arc::default())) {
            Some(Choice::Tls(policy)) => policy.level.clone(),
            _ => settings.policy.tls.level.clone(),
        }
    }

    /// Returns each set of keys that TLSA records of the host have named and the daemon may go by; an empty one if it had none.
    pub(super) fn named_keys<'a>(&self, scene: &Scene<'a>) -> impl Iterator<Item = &'a [u64]> + use<'a> {
        let lifetime_us = u64::try_from(RECORDS_LIFETIME.as_micros()).unwrap_or(u64::MAX);
        let since = Instant::from_micros(self.opened.as_micros().saturating_sub(lifetime_us));
        let host = scene.map.host_at(self.remote.ip()).and_then(|host| scene.map.hosts.get(host));
        // A domain that is its own host has no records.
        let host = host.filter(|host| host.name == self.host);
        host.into_iter().flat_map(move |host| host.keys.named_since(since))
    }

    /// Returns whether the host has had TLSA records all the time.
    fn is_bound(&self, scene: &Scene<'_>) -> bool {
        let mut sets = self.named_keys(scene).peekable();
        sets.peek().is_some() && sets.all(|keys| !keys.is_empty())
    }

    /// Returns whether mail may go by these settings to a server that shows this certificate, or to one without TLS.
    fn permits_mail(
        &self,
        scene: &Scene<'_>,
        settings: &Settings,
        shown: Option<Shown>,
        is_bound: bool,
    ) -> bool {
        let is_named =
            || shown.is_some_and(|shown| self.named_keys(scene).flatten().any(|key| *key == shown.key));
        match self.level(settings) {
            Level::May => true,
            Level::None => shown.is_none(),
            Level::Encrypt => shown.is_some(),
            Level::Verify(_) | Level::Pin(_) => shown.is_some_and(|shown| shown.is_valid),
            Level::DaneOnly => is_named(),
            Level::Dane { .. } | Level::Auto { .. } if is_bound => is_named(),
            // No domain has a policy here.
            Level::Dane { otherwise, .. } | Level::Sts(otherwise) | Level::Auto { otherwise, .. } => {
                otherwise == Fallback::May || shown.is_some()
            }
        }
    }
}
