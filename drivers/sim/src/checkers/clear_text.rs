//! No credentials and no mail in clear text where TLS was promised: by the relay's specification, by the port, or by the
//! conversation itself; and credentials only to a server with a valid certificate. A server that has dropped a TLS handshake gets no mail in
//! clear text before one with a smaller first message.

use cmail_delivery::io::Groups;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;

use cmail_delivery::io::Purpose;
use cmail_delivery::next_hop::{Relay, TlsMode};
use cmail_delivery::settings::Settings;

use super::Checker;
use crate::facts::{Fact, Link, Parting, Scene, Verb};

/// A conversation.
#[derive(Debug, Default)]
struct Talk {
    /// True if all candidates at this address and port have TLS.
    is_promised: bool,
    is_loopback: bool,
    remote: Option<SocketAddr>,
    /// The groups of key exchange that the handshake has offered.
    groups: Groups,
    /// True if the handshake has begun, and not yet ended.
    is_shaking_hands: bool,
    has_tls: bool,
    has_valid_certificate: bool,
    /// True if the administrator has allowed credentials without a valid certificate when the session may have begun.
    may_be_insecure: bool,
}

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct ClearText {
    talks: BTreeMap<Link, Talk>,
    /// The addresses where TLS is promised, with the settings in force.
    promises: HashMap<SocketAddr, bool>,
    /// Servers whose last connection that is over has ended by dropping a handshake with all groups.
    unanswered: HashSet<SocketAddr>,
}

impl Checker for ClearText {
    fn name(&self) -> &'static str {
        "nothing in clear text after a promise of TLS"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Connecting { link, remote, purpose: Purpose::Smtp } => {
                let by_now = *self
                    .promises
                    .entry(remote)
                    .or_insert_with(|| is_promised(scene, scene.settings, remote));
                // What is said late may have been decided before the settings changed.
                let mut earlier = scene.settings_since(scene.said_since).skip(1);
                let is_promised = by_now && earlier.all(|settings| is_promised(scene, settings, remote));
                let is_loopback = remote.ip().is_loopback();
                let may_be_insecure = scene.settings.auth_insecure;
                let remote = Some(remote);
                self.talks.insert(
                    link,
                    Talk { is_promised, is_loopback, remote, may_be_insecure, ..Talk::default() },
                );
            }
            Fact::Gone { link, parting } => {
                let talk = self.talks.remove(&link);
                if let Some((remote, groups)) = talk.and_then(|talk| Some((talk.remote?, talk.groups))) {
                    match (parting, groups) {
                        (Parting::TlsDropped, Groups::All) => self.unanswered.insert(remote),
                        // Another connection was made for it, even if that was lost before its handshake.
                        _ => self.unanswered.remove(&remote),
                    };
                }
            }
            Fact::Stopped { .. } => {
                self.talks.clear();
                self.promises.clear();
                self.unanswered.clear();
            }
            Fact::Reconfigured { .. } => {
                self.promises.clear();
                let may_be_insecure = scene.settings.auth_insecure;
                self.talks.values_mut().for_each(|talk| talk.may_be_insecure |= may_be_insecure);
            }
            Fact::StartTls { link, groups } => {
                let remote = self.talks.get(&link).and_then(|talk| talk.remote);
                if let Some(remote) = remote.filter(|_| groups == Groups::Classic) {
                    self.unanswered.remove(&remote);
                }
                self.with(link, |talk| (talk.is_shaking_hands, talk.groups) = (true, groups));
            }
            Fact::TlsEstablished { link, shown } => self.with(link, |talk| {
                talk.is_shaking_hands = false;
                talk.has_tls = true;
                talk.has_valid_certificate = shown.is_valid;
            }),
            Fact::Sent { link, tls, .. } => {
                let Some(talk) = self.talks.get(&link) else { return Ok(()) };
                if talk.is_shaking_hands {
                    return Err(format!("[{link}] something is said during the TLS handshake"));
                }
                if talk.has_tls != tls {
                    return Err(format!("[{link}] something is said in clear text after the TLS handshake"));
                }
            }
            Fact::Command { link, verb, line, tls } => {
                let Some(talk) = self.talks.get(&link) else { return Ok(()) };
                let is_mail = matches!(verb, Verb::Mail | Verb::Rcpt | Verb::Data);
                if is_mail && talk.is_promised && !tls {
                    return Err(format!("[{link}] mail in clear text: {}", line.escape_ascii()));
                }
                if is_mail && !tls && talk.remote.is_some_and(|remote| self.unanswered.contains(&remote)) {
                    return Err(format!("[{link}] mail in clear text, and no smaller handshake was tried"));
                }
                let is_proved = tls && talk.has_valid_certificate;
                if verb == Verb::Auth && !is_proved && !talk.is_loopback && !talk.may_be_insecure {
                    return Err(format!("[{link}] credentials without a valid certificate"));
                }
            }
            Fact::FinalDot { link, tls: false, .. }
                if self.talks.get(&link).is_some_and(|talk| talk.is_promised) =>
            {
                return Err(format!("[{link}] mail data in clear text"));
            }
            _ => {}
        }
        Ok(())
    }
}

impl ClearText {
    fn with(&mut self, link: Link, act: impl FnOnce(&mut Talk)) {
        if let Some(talk) = self.talks.get_mut(&link) {
            act(talk);
        }
    }
}

/// Returns whether every next hop that leads to this address and port requires TLS.
fn is_promised(scene: &Scene<'_>, settings: &Settings, remote: SocketAddr) -> bool {
    let by_list =
        settings.policy.ports.iter().filter(|port| port.number == remote.port()).map(|port| port.tls);
    let relays = scene
        .map
        .relays
        .iter()
        .filter(|relay| scene.map.host_at(remote.ip()).is_some_and(|host| relay.hosts.contains(&host)));
    let by_relay = relays
        .filter_map(|relay| Relay::parse(relay.specification.as_bytes()).ok()?.port)
        .filter(|port| port.number == remote.port())
        .map(|port| port.tls);
    let modes: Vec<TlsMode> = by_list.chain(by_relay).collect();
    !modes.is_empty() && !modes.contains(&TlsMode::Plain)
}
