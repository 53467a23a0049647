//! Next hops that are left alone for a while, though no mail of theirs has failed: their servers want a pause, or this machine needs
//! one.

use alloc::collections::BTreeMap;
use alloc::format;

use super::{Dispatcher, Mode};
use crate::event::Event;
use crate::one_line::OneLine;
use crate::outbox::{Cursor, MailId};
use crate::queue::HopId;
use crate::schedule::LEAST_REST;
use crate::time::Duration;

/// How long a next hop is left alone after trouble of our own.
pub(super) const LOCAL_PAUSE: Duration = Duration::from_secs(2);
/// How long a next hop is left alone the first time that its server has had enough, unless mail is tried again sooner anyway.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// Next hops whose servers have taken mail, and then refused it on every connection.
#[derive(Debug, Default)]
pub(super) struct Weary {
    hops: BTreeMap<HopId, Weariness>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Weariness {
    /// How many passes in a row have ended so.
    passes: u32,
    /// Whether the pass that is under way ends so.
    is_new: bool,
}

impl Weary {
    /// A pass ends because the server has had enough. Says how long to wait, where mail is usually tried again after `most`.
    fn note(&mut self, hop: HopId, most: Duration) -> Duration {
        let weariness = self.hops.entry(hop).or_default();
        let doubled = FIRST_PAUSE.min(most).saturating_mul(2_u32.saturating_pow(weariness.passes));
        *weariness = Weariness { passes: weariness.passes.saturating_add(1), is_new: true };
        doubled.min(most).max(LEAST_REST)
    }

    /// A pass has ended.
    pub(super) fn end_pass(&mut self, hop: HopId) {
        if let Some(weariness) = self.hops.get_mut(&hop)
            && !core::mem::take(&mut weariness.is_new)
        {
            self.hops.remove(&hop);
        }
    }

    /// No server is known to have had enough.
    pub(super) fn clear(&mut self) {
        self.hops.clear();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.hops.len()
    }
}

impl Dispatcher {
    /// The server of a next hop has taken mail in this pass, and wants no more for now.
    pub(super) fn wait_for_server(&mut self, hop: HopId, text: &str) {
        let retry_interval = u64::try_from(self.settings.retry_interval_s).unwrap_or_default();
        let span = self.traffic.weary.note(hop, Duration::from_secs(retry_interval));
        let reason = format!("its server takes no more for now: {}", OneLine(text));
        self.pause(hop, span, &reason);
    }

    /// This machine is in trouble with a next hop.
    pub(super) fn postpone(&mut self, hop: HopId, text: &str) {
        self.pause(hop, LOCAL_PAUSE, text);
    }

    /// The pause of a next hop is over.
    pub(super) fn end_pause(&mut self, hop: HopId) {
        if self.queue.ready_count(hop) == 0 {
            self.traffic.weary.end_pass(hop);
        }
        self.traffic.runnable.insert(hop);
    }

    /// Leaves a next hop alone for a while; a pass that is all there is leaves its mail as it is.
    fn pause(&mut self, hop: HopId, span: Duration, reason: &str) {
        let next_hop = self.queue.next_hop(hop).map(|next_hop| format!("{next_hop}")).unwrap_or_default();
        self.event(Event::warning(format!(
            "mail to {next_hop} has to wait, without a failed attempt: {reason}"
        )));
        if self.mode == Mode::Daemon {
            self.traffic.paused.set(hop, Some(self.now.monotonic + span));
            return;
        }
        for id in self.queue.claim_up_to(hop, Cursor::After(MailId(i64::MAX)), usize::MAX) {
            self.forget(id);
        }
    }
}
