//! Next hops that are left alone for a while, though no mail of theirs has failed: their servers want a pause, or this machine needs
//! one.

use alloc::format;

use super::Deliveries;
use super::destination::Destination;
use crate::attempt::Failure;
use crate::dispatcher::Mode;
use crate::dispatcher::books::Books;
use crate::event::Event;
use crate::one_line::OneLine;
use crate::outbox::{Cursor, MailId};
use crate::queue::HopId;
use crate::schedule::LEAST_REST;
use crate::time::Duration;
use crate::wording::faillog_text;

/// How long a next hop is left alone after trouble of our own.
pub(super) const LOCAL_PAUSE: Duration = Duration::from_secs(2);
/// How long a next hop is left alone the first time that its server has had enough, unless mail is tried again sooner anyway.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

impl Deliveries {
    /// The server of a next hop has taken mail in this pass, and wants no more for now.
    pub(super) fn wait_for_server(&mut self, books: &mut Books, hop: HopId, failure: &Failure) {
        let retry_interval_s = u64::try_from(books.settings.retry_interval_s).unwrap_or_default();
        let most = Duration::from_secs(retry_interval_s);
        let mut span = FIRST_PAUSE;
        self.destinations.update(hop, |destination| {
            span = destination.note_refusing(FIRST_PAUSE.min(most), most).max(LEAST_REST);
        });
        let reason = format!("its server takes no more for now: {}", OneLine(faillog_text(failure)));
        self.leave_alone(books, hop, span, true, &reason);
    }

    /// This machine is in trouble with a next hop.
    pub(super) fn postpone(&mut self, books: &mut Books, hop: HopId, text: &str) {
        self.leave_alone(books, hop, LOCAL_PAUSE, false, text);
    }

    /// The server of a next hop has not had enough.
    pub(super) fn end_refusing(&mut self, hop: HopId) {
        self.destinations.update(hop, Destination::end_refusing);
    }

    /// Leaves a next hop alone for a while; a pass that is all there is leaves its mail as it is.
    fn leave_alone(
        &mut self,
        books: &mut Books,
        hop: HopId,
        span: Duration,
        is_for_server: bool,
        reason: &str,
    ) {
        let next_hop = books.queue.next_hop(hop).map(|next_hop| format!("{next_hop}")).unwrap_or_default();
        books.event(Event::warning(format!(
            "mail to {next_hop} has to wait, without a failed attempt: {reason}"
        )));
        if books.mode == Mode::Daemon {
            let until = books.now.monotonic + span;
            return self.destinations.pause(hop, until, is_for_server);
        }
        for id in books.queue.claim_up_to(hop, Cursor::After(MailId(i64::MAX)), usize::MAX) {
            books.forget(id);
        }
    }
}
