//! Writes the beginning of a record: everything that a replay has to know.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use cmail_delivery::address::Mailbox;
use cmail_delivery::dsn::DsnWishes;
use cmail_delivery::next_hop::{Host, NextHop, Port, Relay, TlsMode};
use cmail_delivery::policy::{Policies, Policy};
use cmail_delivery::rng::Seed;
use cmail_delivery::settings::Settings;
use cmail_delivery::tls::{Level, TlsVersion};

use super::mask::{ANNOUNCED, CREDENTIALS, Mask};
use super::shape::Shape;
use crate::config::show_port;

/// The settings that a conversation depends on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Circumstances {
    announce: Box<str>,
    policies: Policies,
    auth_insecure: bool,
}

impl Circumstances {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            announce: settings.announce.clone(),
            policies: Policies::new(&settings.policy, &settings.destinations),
            auth_insecure: settings.auth_insecure,
        }
    }

    pub(super) fn announce(&self) -> &str {
        &self.announce
    }
}

/// A candidate that was connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) host: Host,
    pub(super) remote: SocketAddr,
    pub(super) tls: TlsMode,
    /// True if TLSA records say how it must prove itself.
    pub(super) has_tlsa: bool,
    /// Whether an MTA-STS policy that is enforced names it.
    pub(super) is_named_by_policy: bool,
}

/// A recipient of a message.
#[derive(Clone, Debug)]
pub(super) struct RecordedMail {
    pub(super) sender: Option<Bytes>,
    pub(super) recipient: Bytes,
    pub(super) wishes: DsnWishes,
    pub(super) shape: Shape,
}

/// The content of the beginning.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) circumstances: &'a Circumstances,
    pub(super) next_hop: &'a NextHop,
    pub(super) tried: &'a [Tried],
    /// The seed of each session, if it is known.
    pub(super) sessions: &'a [Option<Seed>],
    pub(super) has_tls: bool,
    pub(super) has_fixed_reads: bool,
    pub(super) mails: &'a [RecordedMail],
}

impl Scene<'_> {
    pub(super) fn write(&self, mask: &mut Mask, text: &mut String) {
        // Writing to a String cannot fail.
        let _ = self.write_lines(mask, text);
    }

    fn write_lines(&self, mask: &mut Mask, text: &mut String) -> std::fmt::Result {
        writeln!(text, "@ mode pass")?;
        if self.has_fixed_reads {
            writeln!(text, "@ reads fixed")?;
        }
        self.write_settings(mask, text)?;
        match self.next_hop {
            NextHop::Relay(relay) => self.write_relay(relay, mask, text)?,
            NextHop::Domain(domain) => {
                writeln!(text, "@ remote -")?;
                self.write_ports(text)?;
                let hosts = self.write_hosts(mask, text)?;
                write!(text, "@ mx {}", mask.domain(domain.as_str()))?;
                for (host, preference) in hosts.iter().zip(1_u32..) {
                    write!(text, " {} {host}", 10 * preference)?;
                }
                writeln!(text)?;
            }
            NextHop::Literal(_) => {
                writeln!(text, "@ remote -")?;
                self.write_ports(text)?;
            }
        }
        let mut told = String::new();
        for (mail, id) in self.mails.iter().zip(1_u32..) {
            let wishes = wishes(&mail.wishes, mask);
            if wishes != told {
                writeln!(text, "@ dsn {}", if wishes.is_empty() { "-" } else { &wishes })?;
                told = wishes;
            }
            let sender =
                mail.sender.as_deref().map(|sender| masked_mailbox(sender, mask)).unwrap_or_default();
            let recipient = masked_mailbox(&mail.recipient, mask);
            writeln!(text, "@ mail {id} <{sender}> <{recipient}> {}", mail.shape.to_text())?;
        }
        Ok(())
    }

    fn write_settings(&self, mask: &mut Mask, text: &mut String) -> std::fmt::Result {
        let announced = mask.announced(self.circumstances.announce());
        if announced != ANNOUNCED {
            writeln!(text, "@ announce {announced}")?;
        }
        let policy = self.policy();
        let usual = Policy::default();
        if policy.recipients != usual.recipients {
            writeln!(text, "@ set recipients {}", policy.recipients)?;
        }
        if let Some(most) = policy.messages {
            writeln!(text, "@ set messages {most}")?;
        }
        if !policy.pipelining {
            writeln!(text, "@ set pipelining no")?;
        }
        let level = match policy.tls.level {
            Level::May => None,
            // Whether it needs more, the records of the hosts decide.
            Level::Dane { .. } if !self.tried.iter().any(|tried| tried.has_tlsa) => None,
            Level::Dane { .. } => Some("dane"),
            Level::Auto { .. } if self.tried.iter().any(|tried| tried.has_tlsa) => Some("dane"),
            // A replay knows no policies: what one has needed stands there as if a line had said it.
            Level::Sts(_) | Level::Auto { .. } => {
                self.tried.iter().any(|tried| tried.is_named_by_policy).then_some("verify")
            }
            Level::None => Some("none"),
            Level::Encrypt => Some("encrypt"),
            Level::Verify(_) => Some("verify"),
            Level::Pin(_) => Some("pin"),
            Level::DaneOnly => Some("dane-only"),
        };
        if let Some(level) = level {
            let least = if policy.tls.least == TlsVersion::V1_3 { " min=1.3" } else { "" };
            writeln!(text, "@ set tls_policy {level}{least}")?;
        }
        if self.has_tls && policy.padding > 0 {
            writeln!(text, "@ set tls_padding {}", policy.padding)?;
            for seed in self.sessions.iter().map_while(Option::as_ref) {
                let digits: String = seed.0.iter().map(|octet| format!("{octet:02x}")).collect();
                writeln!(text, "@ session {digits}")?;
            }
        }
        Ok(())
    }

    /// Returns how mail went to the first host.
    fn policy(&self) -> Arc<Policy> {
        let policies = &self.circumstances.policies;
        match self.tried.first() {
            Some(tried) => policies.at(self.next_hop, &tried.host),
            None => policies.of_hop(self.next_hop),
        }
    }

    fn write_relay(&self, relay: &Relay, mask: &mut Mask, text: &mut String) -> std::fmt::Result {
        let masked = Relay { host: mask.host(&relay.host), port: relay.port, credentials: None };
        let is_loopback = self.tried.iter().any(|tried| tried.remote.ip().to_canonical().is_loopback());
        if relay.credentials.is_some() && (self.circumstances.auth_insecure || is_loopback) {
            // The substitute for a loopback address is not a loopback address.
            writeln!(text, "@ set auth_insecure yes")?;
        }
        match &relay.credentials {
            Some(_) => writeln!(text, "@ remote {CREDENTIALS}@{masked}")?,
            None => writeln!(text, "@ remote {masked}")?,
        }
        if relay.port.is_none() {
            self.write_ports(text)?;
        }
        self.write_hosts(mask, text)?;
        Ok(())
    }

    /// Writes the ports, from the one that was tried first.
    fn write_ports(&self, text: &mut String) -> std::fmt::Result {
        let first = self.tried.first().map(|tried| Port { number: tried.remote.port(), tls: tried.tls });
        let policy = self.policy();
        let ports = &policy.ports;
        let begin = ports.iter().position(|port| Some(*port) == first).unwrap_or(0);
        let ports: Vec<String> = ports.iter().skip(begin).map(show_port).collect();
        writeln!(text, "@ portprio {}", ports.join(" "))
    }

    /// Writes the named hosts that were tried, and returns their masked names in this order.
    fn write_hosts(&self, mask: &mut Mask, text: &mut String) -> Result<Vec<String>, std::fmt::Error> {
        let mut hosts: Vec<(String, Vec<IpAddr>)> = Vec::new();
        for Tried { host, remote, .. } in self.tried {
            let Host::Name(name) = host else { continue };
            let (name, address) = (mask.host_name(name.as_str()), mask.address(remote.ip()));
            match hosts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, addresses)) if addresses.contains(&address) => {}
                Some((_, addresses)) => addresses.push(address),
                None => hosts.push((name, vec![address])),
            }
        }
        for (name, addresses) in &hosts {
            write!(text, "@ host {name}")?;
            for address in addresses {
                write!(text, " {address}")?;
            }
            writeln!(text)?;
        }
        let mut proved: Vec<String> = Vec::new();
        for tried in self.tried.iter().filter(|tried| tried.has_tlsa) {
            let Host::Name(name) = &tried.host else { continue };
            let name = mask.host_name(name.as_str());
            if !proved.contains(&name) {
                writeln!(text, "@ tlsa {name}")?;
                proved.push(name);
            }
        }
        Ok(hosts.into_iter().map(|(name, _)| name).collect())
    }
}

/// Masks a mail address, in the form that it has in a command.
pub(super) fn masked_mailbox(octets: &[u8], mask: &mut Mask) -> String {
    match Mailbox::parse(octets) {
        Ok(mailbox) => mask.mailbox(mailbox.as_str()),
        Err(_) => mask.mailbox(&String::from_utf8_lossy(octets)),
    }
}

/// Writes what a sender wants to be told. An id of the sender's own is replaced, as it may be anything.
fn wishes(wishes: &DsnWishes, mask: &mut Mask) -> String {
    let DsnWishes { notify, original_recipient, message } = wishes;
    let original = original_recipient.as_ref().map(|original| {
        let (kind, address) = original.parts();
        format!("orcpt={kind};{}", masked_mailbox(address.as_bytes(), mask))
    });
    let words = [
        notify.map(|notify| format!("notify={notify}")),
        original,
        message.extent.map(|extent| format!("ret={extent}")),
        message.envelope_id.as_ref().map(|_| "envid=id".to_owned()),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
