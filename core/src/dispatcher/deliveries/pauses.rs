//! Leaves a next hop alone for a while, without a failed attempt.

use alloc::format;
use alloc::string::ToString as _;

use super::Deliveries;
use super::destination::Pause;
use crate::attempt::Failure;
use crate::dispatcher::books::Books;
use crate::event::{Event, EventName};
use crate::explanation::PauseReason;
use crate::one_line::OneLine;
use crate::outbox::{Cursor, MailId};
use crate::queue::HopId;
use crate::schedule::MIN_RETRY_INTERVAL;
use crate::time::Duration;
use crate::wording::faillog_text;

/// Pause of a next hop after local trouble.
pub(super) const LOCAL_PAUSE: Duration = Duration::from_secs(2);
/// First pause of a next hop whose server takes no more for now, unless mail is retried sooner anyway.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

impl Deliveries {
    /// Pauses a next hop whose server has taken mail in this pass, and takes no more for now.
    pub(in crate::dispatcher) fn wait_for_server(
        &mut self,
        books: &mut Books,
        hop: HopId,
        failure: &Failure,
    ) {
        let most = books.rules().interval();
        let mut span = FIRST_PAUSE;
        self.destinations.update(hop, |destination| {
            span = destination.note_refusing(FIRST_PAUSE.min(most), most).max(MIN_RETRY_INTERVAL);
        });
        let words = OneLine(faillog_text(failure)).to_string();
        self.leave_alone(books, hop, span, PauseReason::Server(words.into()));
    }

    /// Pauses a next hop after local trouble.
    pub(in crate::dispatcher) fn postpone(&mut self, books: &mut Books, hop: HopId, text: &str) {
        self.leave_alone(books, hop, LOCAL_PAUSE, PauseReason::Local(text.into()));
    }

    /// Pauses a next hop. A one-shot pass leaves its mail as it is instead.
    fn leave_alone(&mut self, books: &mut Books, hop: HopId, span: Duration, why: PauseReason) {
        let next_hop = books.queue.next_hop(hop).map(|next_hop| format!("{next_hop}")).unwrap_or_default();
        books.event(Event::warning(
            EventName::Connection,
            format!("mail to {next_hop} has to wait, without a failed attempt: {why}"),
        ));
        if books.run.is_daemon() {
            let until = books.now.monotonic + span;
            return self.destinations.pause(hop, Pause { until, why });
        }
        for id in books.queue.claim_up_to(hop, Cursor::After(MailId(i64::MAX)), usize::MAX) {
            books.forget(id);
        }
    }
}
