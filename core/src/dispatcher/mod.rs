//! The facade a driver sees: it groups the outbox by next hop, owns the deliveries, and keeps the limits.
//!
//! Everything a child has to say is taken in at one place, `Dispatcher::pump`, until nobody has anything to say any
//! more; only then does the driver get to see the outputs.

mod attempts;
mod bounces;
mod condemned;
mod gates;
mod inspect;
mod intake;
mod ledger;
mod lineup;
mod pace;
mod set_aside;
mod slots;
mod timers;
mod traffic;
mod walk;
mod weary;
mod windows;
mod work;
mod yielding;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bytes::BytesMut;

use self::attempts::Attempts;
use self::bounces::Bounces;
pub use self::inspect::{ConnectionFacts, PassId};
use self::intake::Intake;
use self::ledger::Ledger;
use self::set_aside::SetAside;
use self::traffic::Traffic;
use crate::delivery::Failure;
use crate::event::{Event, FailureKind, Level};
use crate::io::{ConnectionId, Input, Output};
use crate::next_hop::NextHop;
use crate::outbox::{Cursor, MailId, RequestId, StoreError, StoreReply, StoreRequest, StoreTrouble};
use crate::queue::{HopId, Queue};
use crate::rng::Rng;
use crate::schedule::RetryRules;
use crate::settings::{Hosts, Settings};
use crate::time::{Duration, Instant, Now};

/// How long sessions may go on after a drain was asked for. Less than the 5 s after which all must be over, so that
/// the last verdicts are made durable.
const DRAIN_SESSIONS: Duration = Duration::from_secs(4);
/// When a drain is over, whatever is still open. The rest of the 5 s is for the driver to close everything.
const DRAIN_LIMIT: Duration = Duration::from_millis(4750);
/// How often the database may fail in a row before a one-shot pass gives up.
const ONE_SHOT_STORE_FAILURES: u32 = 5;

/// What the dispatcher is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Deliver and bounce until a drain is asked for.
    Daemon,
    /// One pass over some of the due mail, without bounces.
    Deliver(Selection),
    /// One pass that makes bounces and delivers nothing.
    GenerateBounces,
}

/// Which mail a one-shot pass is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Mail without `mail_remote` whose recipient's domain leads to this next hop.
    Domain(NextHop),
    /// Mail whose `mail_remote` is exactly this.
    Remote(Box<[u8]>),
}

/// Why a timer is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutReason {
    /// It is time to look at the outbox, or to take in what was found there.
    Look,
    /// Mail becomes due.
    MailDue,
    /// A lookup waits for a name server.
    Lookup,
    /// A delivery waits for a peer.
    Delivery,
    /// A next hop may be tried again after trouble of our own, or because the rate allows it.
    Pause,
    /// The database is to be asked again.
    Store,
    /// The drain comes to its end.
    Drain,
}

/// Delivers the outbox.
///
/// # Order of calls
///
/// After [`new`](Self::new), and after each [`handle_input`](Self::handle_input), [`handle_timeout`](Self::handle_timeout) and
/// [`poll_transmit`](Self::poll_transmit), take all of [`poll_output`](Self::poll_output), in its order; then wait for something to
/// happen, but not longer than [`poll_timeout`](Self::poll_timeout) says. Any other order does no harm but delay: an input for a
/// connection, query or request that is over does nothing, a timeout that comes too early neither.
///
/// Each [`Output::Store`] is answered once, with success or failure, and in the order in which they were asked for, but for pieces of
/// mail data. What had been received before a deadline counts, if it is given in before [`handle_timeout`](Self::handle_timeout)
/// is called with a later time: so read the clock, then the sockets, and use for both what the clock has said. After
/// [`Output::Drained`] nothing more is to be done.
///
/// # Time
///
/// Each call takes [`Now`], two clocks. The monotonic one must not go back; where it does, deadlines come late, and nothing
/// else happens. It may leap forward, as after a machine was suspended. The wall clock may jump either way: it decides only which
/// mail is due, and what is written.
///
/// # What is bounded
///
/// Outputs that are not taken wait in memory. What one of them asks for is not asked for again, so that there are at most a few
/// for each connection, DNS query and request; but each further input may add an event. So an executor that cannot go on stops
/// giving inputs, and reads no sockets meanwhile. There are at most [`concurrency`](Settings::concurrency) connections for mail, each of
/// which holds no more mail data than one claim brings, and a piece; one scan, one walk and one commit are under way at a time. A mail that
/// waits costs under 100 octets.
///
/// # Transmission
///
/// [`poll_transmit`](Self::poll_transmit) returns whether it has appended octets. Call it when [`Output::Transmit`] says so, and again
/// whenever the socket has taken what it gave, until it returns false: so it never holds more than about its `limit` for a peer who
/// does not read.
#[derive(Debug)]
pub struct Dispatcher {
    now: Now,
    settings: Settings,
    hosts: Hosts,
    mode: Mode,
    rules: RetryRules,
    queue: Queue,
    intake: Intake,
    traffic: Traffic,
    bounces: Bounces,
    ledger: Ledger,
    attempts: Attempts,
    set_aside: SetAside,
    requests: BTreeMap<RequestId, Asked>,
    last_request: u64,
    store_failures: u32,
    outputs: VecDeque<Output>,
    progress: Progress,
    has_given_up: bool,
    summary: Summary,
}

/// What has become of mail so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Mail that servers have taken.
    pub delivered: u64,
    /// Mail that has failed for good.
    pub failed: u64,
    /// Failed attempts of mail that will be tried again.
    pub deferred: u64,
    /// Mail that was given up, and became bounces.
    pub bounced: u64,
    /// Mail that was given up and deleted without a bounce.
    pub dropped: u64,
}

impl Summary {
    fn count(&mut self, event: &Event) {
        let counted = match event {
            Event::Delivered { .. } => &mut self.delivered,
            Event::Failed { kind: FailureKind::Permanent, .. } => &mut self.failed,
            Event::Failed { kind: FailureKind::Temporary | FailureKind::Early, .. } => &mut self.deferred,
            Event::Bounced { .. } => &mut self.bounced,
            Event::Dropped { .. } => &mut self.dropped,
            Event::Note { .. } | Event::Sent(..) | Event::SentData(..) | Event::Received(..) => return,
        };
        *counted = counted.saturating_add(1);
    }
}

/// How far the dispatcher is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Working,
    /// A drain was asked for at this instant.
    Draining(Instant),
    /// [`Output::Drained`] was given.
    Drained,
}

/// What an open request is for.
#[derive(Debug)]
enum Asked {
    Look,
    Walk {
        after: Cursor,
        frontier: Cursor,
    },
    Work {
        hop: HopId,
        connection: ConnectionId,
        ids: Vec<MailId>,
    },
    Data {
        hop: HopId,
        connection: ConnectionId,
        id: MailId,
    },
    Nowhere {
        ids: Vec<MailId>,
    },
    Bounce {
        ids: Vec<MailId>,
        messages: usize,
    },
    /// Mail that is about to have failed as a whole.
    Condemned {
        hop: HopId,
        ids: Vec<MailId>,
        failure: Failure,
    },
    Commit,
}

impl Asked {
    /// Whether a reply is of the kind that was asked for.
    fn fits(&self, reply: &StoreReply) -> bool {
        matches!(
            (self, reply),
            (Self::Look | Self::Walk { .. }, StoreReply::Rows { .. })
                | (Self::Work { .. } | Self::Nowhere { .. }, StoreReply::Claimed { .. })
                | (Self::Data { .. }, StoreReply::Data(_))
                | (Self::Bounce { .. }, StoreReply::Failed { .. })
                | (Self::Condemned { .. }, StoreReply::Recalled { .. })
                | (Self::Commit, StoreReply::Committed { .. })
        )
    }
}

impl Dispatcher {
    /// Returns a dispatcher that has done nothing yet. `seed` decides everything that is random, also what others must not guess:
    /// let it come from the system. `hosts` are the names of `/etc/hosts`; there may be none.
    pub fn new(now: Now, settings: Settings, hosts: Hosts, mode: Mode, seed: [u8; 32]) -> Self {
        let mut rng = Rng::from_seed(seed);
        let rules = RetryRules::of(&settings);
        let mut dispatcher = Self {
            now,
            rules,
            queue: Queue::new(),
            intake: Intake::new(now.monotonic, rng.next_u64()),
            traffic: Traffic::new(&settings, rng.fork()),
            bounces: Bounces::new(&settings, rng.fork()),
            ledger: Ledger::new(),
            attempts: Attempts::new(rules.rest(&settings)),
            set_aside: SetAside::default(),
            settings,
            hosts,
            mode,
            requests: BTreeMap::new(),
            last_request: 0,
            store_failures: 0,
            outputs: VecDeque::new(),
            progress: Progress::Working,
            has_given_up: false,
            summary: Summary::default(),
        };
        dispatcher.look();
        dispatcher
    }

    /// Takes in what has happened.
    pub fn handle_input(&mut self, now: Now, input: Input<'_>) {
        self.now = now;
        match input {
            Input::Connected(connection) => self.connected(connection),
            Input::ConnectFailed(connection, error) => self.connect_failed(connection, error),
            Input::Received(connection, octets) => self.received(connection, octets),
            Input::TlsEstablished { connection, tls } => {
                self.with_connection(connection, |delivery, cx| {
                    delivery.handle_tls_established(cx, connection, tls);
                });
            }
            Input::TlsFailed(connection, reason) => {
                self.with_connection(connection, |delivery, cx| {
                    delivery.handle_tls_failed(cx, connection, reason)
                });
            }
            Input::Closed(connection, reason) => self.closed(connection, reason),
            Input::Datagram { query, from, octets } => {
                self.traffic.resolver.handle_datagram(now.monotonic, query, from, octets);
            }
            Input::DatagramFailed(query, error) => {
                self.traffic.resolver.handle_datagram_failed(now.monotonic, query, error);
            }
            Input::Store(request, result) => self.answered(request, result),
            Input::OutboxChanged => {
                self.intake.somebody_wrote();
                self.look();
            }
            Input::TryNow => self.try_now(),
            Input::Hosts(hosts) => self.hosts = hosts,
            Input::Resolver(settings) => self.traffic.resolver.reconfigure(now.monotonic, settings),
            Input::Drain => self.drain(),
        }
        self.pump();
    }

    /// Does what is due. Calling it too early does no harm.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.take_in_arrived();
        if self.intake.next_look() <= now.monotonic && !self.intake.is_looking() {
            self.look();
        }
        self.walk();
        self.wake_mail();
        self.wake_set_aside();
        self.traffic.resolver.handle_timeout(now.monotonic);
        self.wake_traffic();
        self.pump();
    }

    /// Returns what to do next; to be called until it returns nothing, after every input, timeout and transmission.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Appends up to about `limit` octets that are to be sent on a connection; false if it has appended none.
    /// To be called when [`Output::Transmit`] says so, and then whenever the socket takes more, until it returns false. What was
    /// appended until then goes to the connection before anything that comes after the next [`Output::Transmit`], and apart from
    /// it, as a write and a TLS record of its own: some servers see the end of a message only so.
    pub fn poll_transmit(
        &mut self,
        now: Now,
        connection: ConnectionId,
        limit: usize,
        octets: &mut BytesMut,
    ) -> bool {
        self.now = now;
        if self.traffic.resolver.owns_connection(connection) {
            return self.traffic.resolver.poll_transmit(connection, limit, octets);
        }
        let more = self.transmit(connection, limit, octets);
        self.pump();
        more
    }

    /// Returns when to call [`Dispatcher::handle_timeout`], and why; nothing if only an input can change anything.
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        let drain = match self.progress {
            Progress::Working => None,
            Progress::Draining(since) if self.traffic.is_idle() => Some(since + DRAIN_LIMIT),
            Progress::Draining(since) => Some(since + DRAIN_SESSIONS),
            Progress::Drained => return None,
        };
        let due = self.queue.next_wake().filter(|_| !self.is_draining()).map(|time| self.now.when(time));
        let called_up =
            Some(self.now.monotonic).filter(|_| self.intake.has_called_up() && !self.is_draining());
        let arrived = Some(self.now.monotonic).filter(|_| self.intake.has_arrived() && !self.is_draining());
        let look = Some(self.intake.next_look()).filter(|_| !self.is_draining() && !self.intake.is_looking());
        [
            (arrived, TimeoutReason::Look),
            (look, TimeoutReason::Look),
            (self.walk_due(), TimeoutReason::Look),
            (due, TimeoutReason::MailDue),
            (called_up, TimeoutReason::MailDue),
            (self.traffic.resolver.poll_timeout(), TimeoutReason::Lookup),
            (self.traffic.next_deadline(), TimeoutReason::Delivery),
            (self.traffic.next_pause_end(), TimeoutReason::Pause),
            (self.ledger.retry_at(), TimeoutReason::Store),
            (self.next_set_aside(), TimeoutReason::Store),
            (self.next_recall(), TimeoutReason::Store),
            (drain, TimeoutReason::Drain),
        ]
        .into_iter()
        .filter_map(|(at, reason)| at.map(|at| (at, reason)))
        .min_by_key(|&(at, _)| at)
    }

    /// Whether a one-shot pass came to its end because the database kept failing.
    pub fn has_given_up(&self) -> bool {
        self.has_given_up
    }

    /// What has become of mail so far.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// How much mail is indexed: for tests and measurements.
    pub fn indexed(&self) -> usize {
        self.queue.len()
    }

    /// Lets everything that has something to say say it, until nobody has.
    fn pump(&mut self) {
        if self.progress == Progress::Drained {
            return;
        }
        loop {
            let moved = self.drain_resolver() || self.drain_deliveries();
            if moved {
                continue;
            }
            if !self.is_draining() {
                self.condemn();
                self.send_back_unroutable();
                self.generate_bounces();
                if self.start_deliveries() || self.grant_connections() {
                    continue;
                }
            }
            break;
        }
        self.commit();
        self.finish_if_done();
    }

    /// What is left although nothing is under way: nothing, or something was forgotten.
    #[cfg(test)]
    fn leftovers(&self) -> Vec<alloc::string::String> {
        let mut leftovers = self.traffic.leftovers();
        if self.progress != Progress::Drained {
            let claimed = self.queue.claimed_count();
            leftovers.extend((claimed > 0).then(|| alloc::format!("{claimed} claimed mails")));
            leftovers.extend((!self.ledger.is_empty()).then(|| "verdicts".into()));
        }
        leftovers
    }

    fn is_draining(&self) -> bool {
        self.progress != Progress::Working
    }

    fn event(&mut self, event: Event) {
        self.summary.count(&event);
        self.outputs.push_back(Output::Event(event));
    }

    fn note(&mut self, level: Level, text: alloc::string::String) {
        self.event(Event::Note { level, text });
    }

    fn ask(&mut self, request: StoreRequest, asked: Asked) {
        self.last_request = self.last_request.wrapping_add(1);
        let id = RequestId(self.last_request);
        self.requests.insert(id, asked);
        self.outputs.push_back(Output::Store(id, request));
    }

    fn answered(&mut self, request: RequestId, result: Result<StoreReply, StoreError>) {
        let Some(asked) = self.requests.remove(&request) else { return };
        // They were read before, and would be lost if further ones took their place.
        self.take_in_arrived();
        let result = result.and_then(|reply| {
            if asked.fits(&reply) {
                return Ok(reply);
            }
            Err(StoreError {
                trouble: StoreTrouble::Other,
                text: "the answer of the database is of another kind than what was asked".into(),
            })
        });
        match result {
            Err(_) => self.store_failures = self.store_failures.saturating_add(1),
            // A look brings nothing nearer to its end, and is repeated however the rest fares.
            Ok(_) if matches!(asked, Asked::Look | Asked::Walk { .. }) => {}
            Ok(_) => self.store_failures = 0,
        }
        match asked {
            Asked::Look => self.looked(result),
            Asked::Walk { after, frontier } => self.walked(after, frontier, result),
            Asked::Work { hop, connection, ids } => {
                self.work_claimed(hop, connection, &ids, result);
            }
            Asked::Data { hop, connection, id } => self.data_read(hop, connection, id, result),
            Asked::Nowhere { ids } => self.unroutable_read(&ids, result),
            Asked::Bounce { ids, messages } => self.failed_read(&ids, messages, result),
            Asked::Condemned { hop, ids, failure } => self.recalled(hop, &ids, &failure, result),
            Asked::Commit => self.committed(result),
        }
        let is_one_shot = self.mode != Mode::Daemon;
        if is_one_shot && self.store_failures >= ONE_SHOT_STORE_FAILURES && !self.is_draining() {
            self.has_given_up = true;
            self.drain();
        }
    }

    fn drain(&mut self) {
        if self.progress == Progress::Working {
            self.progress = Progress::Draining(self.now.monotonic);
            self.close_deliveries();
        }
    }

    fn finish_if_done(&mut self) {
        let now = self.now.monotonic;
        let passed = |since: Instant, span: Duration| now >= since + span;
        let is_done = match self.progress {
            Progress::Working => self.mode != Mode::Daemon && self.pass_is_over(),
            Progress::Draining(since) => {
                if passed(since, DRAIN_SESSIONS) && !self.traffic.is_idle() {
                    self.abort_deliveries();
                    self.commit();
                }
                (self.traffic.is_idle() && self.ledger.is_empty()) || passed(since, DRAIN_LIMIT)
            }
            Progress::Drained => false,
        };
        if is_done {
            if let Some(loss) = self.ledger.unrecorded(&self.set_aside) {
                self.note(Level::Error, loss);
            }
            self.progress = Progress::Drained;
            self.outputs.push_back(Output::Drained);
        }
    }

    /// Whether a one-shot pass has nothing left to do.
    fn pass_is_over(&self) -> bool {
        self.intake.is_complete()
            && self.queue.len() == 0
            && self.requests.is_empty()
            && self.traffic.is_idle()
            && self.ledger.is_empty()
    }
}
