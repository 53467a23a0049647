//! No mail goes over a connection that falls short of what the administrator needs of TLS, by what is true of the server: not in plain text
//! where TLS is needed, and not to a server that does not prove who it is where that is needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use cmail_delivery::io::Purpose;
use cmail_delivery::policy::Choice;
use cmail_delivery::settings::Settings;
use cmail_delivery::time::Instant;
use cmail_delivery::tls::Level;

use super::Checker;
use super::destination_lines::{only_domain_at, said_of_domain};
use crate::facts::{Fact, Link, Scene, Verb};

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct NoDowngrade {
    talks: BTreeMap<Link, Talk>,
}

/// A connection to a host that one domain alone has its mail at.
#[derive(Debug)]
struct Talk {
    opened: Instant,
    domain: String,
    host: String,
    /// Whether the server inside TLS is who it should be.
    is_right: bool,
}

impl Checker for NoDowngrade {
    fn name(&self) -> &'static str {
        "no mail goes over less than is needed of TLS"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Connecting { link, remote, purpose: Purpose::Smtp } => {
                if let Some((domain, host)) = only_domain_at(scene, remote) {
                    let opened = scene.said_since.min(scene.now.monotonic);
                    self.talks.insert(link, Talk { opened, domain, host, is_right: false });
                }
            }
            Fact::Gone { link, .. } => drop(self.talks.remove(&link)),
            Fact::Stopped { .. } => self.talks.clear(),
            Fact::TlsEstablished { link, valid } => {
                if let Some(talk) = self.talks.get_mut(&link) {
                    talk.is_right = valid;
                }
            }
            Fact::Command { link, verb: Verb::Mail | Verb::Rcpt | Verb::Data, tls, .. } => {
                let Some(talk) = self.talks.get(&link) else { return Ok(()) };
                let permits = |settings: &Settings| talk.is_permitted(settings, tls);
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

impl Talk {
    /// Returns whether mail may go over it by these settings.
    fn is_permitted(&self, settings: &Settings, tls: bool) -> bool {
        let said = said_of_domain(settings, &self.domain, &self.host, &Choice::Tls(Arc::default()));
        let Some(Choice::Tls(policy)) = said else { return true };
        match &policy.level {
            Level::May | Level::Dane { .. } => true,
            Level::None => !tls,
            Level::Encrypt => tls,
            Level::Verify(_) | Level::Pin(_) | Level::DaneOnly => tls && self.is_right,
        }
    }
}
