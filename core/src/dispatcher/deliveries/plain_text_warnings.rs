//! Warns that mail goes in plain text although TLS was wanted, but not for each mail.

use alloc::format;

use crate::dispatcher::books::Books;
use crate::ending::EndCause;
use crate::event::{Event, EventName};
use crate::expiring_map::ExpiringMap;
use crate::next_hop::Host;
use crate::route::Candidate;
use crate::time::Duration;
use crate::wording::ServerName;

/// Shortest time between two warnings about a host.
const SPAN: Duration = Duration::from_secs(3600);
/// Most hosts for which a warning is remembered. With more, a warning may repeat sooner.
const HOSTS_LIMIT: usize = 1000;

/// The hosts for which the warning was given.
#[derive(Debug)]
pub(super) struct PlainTextWarnings {
    told: ExpiringMap<Host, ()>,
}

impl PlainTextWarnings {
    pub(super) const fn new() -> Self {
        Self { told: ExpiringMap::new(HOSTS_LIMIT) }
    }

    /// Warns that mail goes to a candidate in plain text for this reason, unless that was told a short time ago.
    pub(super) fn warn(&mut self, books: &mut Books, candidate: &Candidate, reason: &EndCause) {
        let now = books.now.monotonic;
        if self.told.get(&candidate.host, now).is_some() {
            return;
        }
        self.told.keep(candidate.host.clone(), (), now + SPAN, now);
        let server = ServerName(&candidate.host, candidate.remote);
        books.event(Event::warning(EventName::Tls, format!("{server}: mail goes in plain text: {reason}")));
    }
}
