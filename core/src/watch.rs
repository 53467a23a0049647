//! Whose conversations are told while somebody watches.

use alloc::sync::Arc;

use thiserror::Error;

use crate::address::MailDomain;
use crate::next_hop::{NextHop, Relay};

/// Whose conversations are told as they go on, besides all where [they are told](crate::settings::Told::conversations).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    /// None.
    #[default]
    Nothing,
    /// Those for these destinations.
    Destinations(Arc<[WatchedDestination]>),
    /// All.
    Everything,
}

impl Watch {
    /// Returns whether the conversations for a next hop are told.
    pub fn covers(&self, next_hop: &NextHop) -> bool {
        match self {
            Self::Nothing => false,
            Self::Destinations(destinations) => {
                destinations.iter().any(|destination| destination.covers(next_hop))
            }
            Self::Everything => true,
        }
    }
}

/// A destination that somebody watches: a domain or an address, by its hosts, and the relay of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedDestination {
    by_mx: Option<NextHop>,
    by_relay: Option<Relay>,
}

/// Why a text names no destination.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "it must be a domain, an address in brackets, or a relay as HOST, HOST:PORT or HOST:PORT/MODE, without credentials"
)]
pub struct WatchedDestinationError;

impl WatchedDestination {
    /// Parses a domain, an address in brackets, or a relay without credentials. A relay without a port is the one of that name at
    /// any port.
    pub fn parse(text: &str) -> Result<Self, WatchedDestinationError> {
        let by_mx = MailDomain::parse(text).ok().map(NextHop::from);
        let relay = Relay::parse(text.as_bytes()).ok();
        let by_relay = relay.filter(|relay| relay.credentials.is_none());
        if by_mx.is_none() && by_relay.is_none() {
            return Err(WatchedDestinationError);
        }
        Ok(Self { by_mx, by_relay })
    }

    /// Returns whether mail for a next hop goes there that is told by its text, which has no credentials.
    pub fn covers_named(&self, next_hop: &str) -> bool {
        let by_mx = MailDomain::parse(next_hop).ok().map(NextHop::from);
        let by_relay = Relay::parse(next_hop.as_bytes()).ok().map(NextHop::Relay);
        [by_mx, by_relay].iter().flatten().any(|next_hop| self.covers(next_hop))
    }

    /// Returns whether mail for a next hop goes there.
    pub fn covers(&self, next_hop: &NextHop) -> bool {
        match next_hop {
            NextHop::Domain(_) | NextHop::Literal(_) => self.by_mx.as_ref() == Some(next_hop),
            NextHop::Relay(relay) => self.by_relay.as_ref().is_some_and(|watched| {
                watched.host == relay.host && (watched.port.is_none() || watched.port == relay.port)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_found_by_its_domain_and_by_its_relay() {
        let relay = |text: &str| NextHop::Relay(Relay::parse(text.as_bytes()).unwrap());
        let domain = |text: &str| NextHop::from(MailDomain::parse(text).unwrap());
        let covers = |watched: &str, next_hop: &NextHop| {
            let watch = Watch::Destinations([WatchedDestination::parse(watched).unwrap()].into());
            assert!(!Watch::Nothing.covers(next_hop) && Watch::Everything.covers(next_hop));
            watch.covers(next_hop)
        };
        for (watched, next_hop, is_covered) in [
            ("EXAMPLE.org", domain("example.org"), true),
            ("example.org", domain("sub.example.org"), false),
            ("example.org", relay("user:password@example.org:587/starttls"), true),
            ("example.org:587/starttls", relay("user:password@example.org:587/starttls"), true),
            ("example.org:25", relay("example.org:587/starttls"), false),
            ("example.org:25", domain("example.org"), false),
            ("[192.0.2.1]", domain("[192.0.2.1]"), true),
            ("[2001:db8::1]:25", relay("[2001:db8::1]:25"), true),
        ] {
            assert_eq!(covers(watched, &next_hop), is_covered, "{watched} {next_hop}");
        }
        for wrong in ["", "a b", "user:password@relay.lan", "relay.lan:0", "a..b"] {
            assert_eq!(WatchedDestination::parse(wrong), Err(WatchedDestinationError), "{wrong}");
        }
    }
}
