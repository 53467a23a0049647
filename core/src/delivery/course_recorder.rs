//! What a connection remembers, so that the course of each attempt on it can be told.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::DeliveryContext;
use crate::bounce::message_id;
use crate::course::{Conversation, Course, Setup, TransactionCourse, Transcripts};
use crate::io::ConnectionId;
use crate::next_hop::NextHop;
use crate::outbox::MailId;
use crate::reply::Reply;
use crate::session::{History, Outcome, Recipient, Transaction};
use crate::shown::truncated;
use crate::time::{Duration, Instant, UnixMillis};

/// Longest text that is taken from a greeting or a reply to EHLO, in octets.
const TEXT_LIMIT_OCTETS: usize = 1000;

/// The times of a connection, and of the transactions that are under way on it.
#[derive(Debug)]
pub(super) struct CourseRecorder {
    connection: ConnectionId,
    next_hop: Box<str>,
    opened: UnixMillis,
    lookup: Option<Duration>,
    connect_began: Instant,
    connect: Option<Duration>,
    /// What does not change any more once the negotiation is over.
    conversation: Option<Arc<Conversation>>,
    /// The transactions without a verdict: one, or two if the envelope of the next went ahead.
    running: Vec<Running>,
    told: Told,
    /// What stands at the top of the transcript.
    top: Option<Box<str>>,
}

/// Which transcript of a connection was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    OfSuccess,
    OfFailure,
}

/// A transaction without a verdict.
#[derive(Debug)]
struct Running {
    first: Option<MailId>,
    number: u32,
    sender: Option<Box<str>>,
    data_octets: u64,
    message_id: Option<Box<str>>,
    claim: Duration,
    began: Instant,
}

impl CourseRecorder {
    /// Returns the recorder of a connection that is to be made now, if attempts tell how they went. `searched_since` is when the
    /// candidate search began, if this connection is the first that it led to. `top` is what stands at the top of the transcript.
    pub(super) fn new(
        cx: &DeliveryContext<'_>,
        connection: ConnectionId,
        next_hop: &NextHop,
        searched_since: Option<Instant>,
        top: Option<Box<str>>,
    ) -> Option<Self> {
        cx.told.courses.then(|| Self {
            connection,
            next_hop: format!("{next_hop}").into(),
            opened: UnixMillis::default(),
            lookup: searched_since.map(|since| cx.now.saturating_duration_since(since)),
            connect_began: cx.now,
            connect: None,
            conversation: None,
            running: Vec::new(),
            told: Told::Nothing,
            top,
        })
    }

    /// Notes that TCP has connected.
    pub(super) fn note_connected(&mut self, now: Instant, wall: UnixMillis) {
        self.opened = wall;
        self.connect = Some(now.saturating_duration_since(self.connect_began));
    }

    /// Notes that a transaction begins, which was claimed at this time.
    pub(super) fn begin(&mut self, now: Instant, number: u32, claimed: Instant, transaction: &Transaction) {
        self.running.push(Running {
            first: transaction.recipients.first().map(|recipient| recipient.id),
            number,
            sender: transaction.reverse_path.as_ref().map(|sender| sender.as_str().into()),
            data_octets: transaction.data_octets,
            message_id: message_id(&transaction.head).map(Into::into),
            claim: now.saturating_duration_since(claimed),
            began: now,
        });
    }

    /// Returns the course of the transaction of which these are the verdicts.
    pub(super) fn end(
        &mut self,
        history: &History,
        verdicts: &[(Recipient, Outcome)],
        cx: &DeliveryContext<'_>,
    ) -> Option<Arc<Course>> {
        let is_of =
            |running: &Running| verdicts.iter().any(|(recipient, _)| Some(recipient.id) == running.first);
        let place = self.running.iter().position(is_of)?;
        let Running { number, sender, data_octets, message_id, claim, began, .. } =
            self.running.remove(place);
        let transfer = cx.now.saturating_duration_since(began);
        let is_success = verdicts.iter().all(|(_, outcome)| {
            matches!(outcome, Outcome::Delivered(_) | Outcome::Accepted(_) | Outcome::Undecided)
        });
        Some(Arc::new(Course {
            conversation: self.conversation(history),
            transaction: Some(TransactionCourse { number, sender, data_octets, message_id, claim, transfer }),
            ended: cx.wall,
            transcript: self.tell_transcript(history, cx, is_success),
        }))
    }

    /// Returns the course of a conversation that came to its end without a verdict on a transaction.
    pub(super) fn end_without_transaction(
        &mut self,
        history: &History,
        cx: &DeliveryContext<'_>,
    ) -> Arc<Course> {
        Arc::new(Course {
            conversation: self.conversation(history),
            transaction: None,
            ended: cx.wall,
            transcript: self.tell_transcript(history, cx, false),
        })
    }

    /// Returns the transcript if it is wanted of this attempt: once of a success, once of a failure.
    fn tell_transcript(
        &mut self,
        history: &History,
        cx: &DeliveryContext<'_>,
        is_success: bool,
    ) -> Option<Box<str>> {
        let is_wanted = match cx.told.transcripts {
            Transcripts::Never => false,
            Transcripts::OfFailures => !is_success && self.told < Told::OfFailure,
            Transcripts::Always => self.told < if is_success { Told::OfSuccess } else { Told::OfFailure },
        };
        if !is_wanted {
            return None;
        }
        self.told = if is_success { Told::OfSuccess } else { Told::OfFailure };
        let top = self.top.as_deref().unwrap_or_default();
        history.transcript().map(|transcript| [top, &transcript.text()].concat().into())
    }

    fn conversation(&mut self, history: &History) -> Arc<Conversation> {
        if let Some(conversation) = &self.conversation {
            return Arc::clone(conversation);
        }
        let (tls, negotiation) = (history.tls(), history.negotiation());
        let setup = Setup {
            lookup: self.lookup,
            connect: self.connect,
            tls,
            negotiation: negotiation.map(|whole| whole.saturating_sub(tls.unwrap_or_default())),
        };
        let conversation = Arc::new(Conversation {
            connection: self.connection,
            opened: self.opened,
            next_hop: self.next_hop.clone(),
            greeting: history.greeting().map(first_line),
            extensions: history.ehlo().map(extensions),
            mechanism: history.mechanism(),
            setup,
        });
        if setup.negotiation.is_some() {
            self.conversation = Some(Arc::clone(&conversation));
        }
        conversation
    }
}

/// Returns the first line of a reply with its code.
fn first_line(reply: &Reply) -> Box<str> {
    let line = reply.lines().next().map(String::from_utf8_lossy).unwrap_or_default();
    truncated(&format!("{} {line}", reply.code()), TEXT_LIMIT_OCTETS).into()
}

/// Returns the lines of a reply to EHLO after the first.
fn extensions(reply: &Reply) -> Box<str> {
    let lines: Vec<_> = reply.lines().skip(1).map(String::from_utf8_lossy).collect();
    truncated(&lines.join(", "), TEXT_LIMIT_OCTETS).into()
}
