//! A server that proves what is needed of it is spoken to.

use std::collections::BTreeMap;

use cmail_delivery::io::Purpose;
use cmail_delivery::settings::Settings;
use cmail_delivery::tls::Level;

use super::Checker;
use super::no_downgrade::Talk;
use crate::facts::{Fact, Link, Scene, Shown};

/// The port on which TLS comes before the greeting, for which the client then waits.
const IMPLICIT_TLS_PORT: u16 = 465;

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct TlsLiveness {
    talks: BTreeMap<Link, Talk>,
    /// The connections on which the client is to say something now.
    expected: BTreeMap<Link, Shown>,
}

impl Checker for TlsLiveness {
    fn name(&self) -> &'static str {
        "a server that proves itself is spoken to"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Connecting { link, remote, purpose: Purpose::Smtp }
                if remote.port() != IMPLICIT_TLS_PORT =>
            {
                self.talks.extend(Talk::begin(scene, remote).map(|talk| (link, talk)));
            }
            Fact::TlsEstablished { link, shown } => {
                let Some(talk) = self.talks.get(&link) else { return Ok(()) };
                let is_enough = |settings: &Settings| is_enough(scene, talk, settings, shown);
                if scene.settings_since(talk.opened).all(is_enough) {
                    self.expected.insert(link, shown);
                }
            }
            Fact::Command { link, tls: true, .. } => drop(self.expected.remove(&link)),
            Fact::Gone { link, .. } => {
                drop(self.talks.remove(&link));
                if let Some(shown) = self.expected.remove(&link) {
                    return Err(format!("[{link}] nothing is said to a server that has shown {shown:?}"));
                }
            }
            Fact::Stopped { .. } => *self = Self::default(),
            Fact::Called { .. } => {
                if let Some((link, shown)) = self.expected.pop_first() {
                    return Err(format!("[{link}] nothing is said to a server that has shown {shown:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns whether this certificate is enough by these settings, whatever the daemon knows of the TLSA records.
fn is_enough(scene: &Scene<'_>, talk: &Talk, settings: &Settings, shown: Shown) -> bool {
    let is_named = |keys: &[u64]| keys.contains(&shown.key);
    match talk.level(settings) {
        // No domain has a policy here.
        Level::None | Level::May | Level::Encrypt | Level::Sts(_) => true,
        Level::Verify(_) | Level::Pin(_) => shown.is_valid,
        Level::Dane { .. } | Level::Auto { .. } => {
            talk.named_keys(scene).all(|keys| keys.is_empty() || is_named(keys))
        }
        Level::DaneOnly => talk.named_keys(scene).all(is_named),
    }
}
