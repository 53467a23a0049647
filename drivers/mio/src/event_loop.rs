//! The only place that waits. Everything that happens comes in here and goes to the dispatcher, one thing after the
//! other; whatever the dispatcher asks for then is done before the next thing.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cmail_delivery::dispatcher::Dispatcher;
use cmail_delivery::event::{Event, Level};
use cmail_delivery::io::{Input, Output};
use cmail_delivery::outbox::{RequestId, StoreError, StoreReply, StoreRequest};
use cmail_delivery::time::{Instant, Now, UnixTime};
use log::{info, log, warn};
use mio::event::Source;
use mio::{Events, Interest, Poll, Token, Waker};
use thiserror::Error;

use crate::record::Recorder;
use crate::signals::{self, Signal};
use crate::sockets::{LocalAddresses, Sockets, Turn};
use crate::system::{Occasion, SystemNews};
use crate::tls::TlsContext;

/// Events that are taken from the kernel at a time.
const EVENTS_PER_POLL: usize = 256;

/// Most polls in a row that bring as many events as fit, or are interrupted, before what they brought is looked at.
const POLLS_PER_ITERATION: u32 = 64;

/// How much older than the time itself the clock may be that deadlines are judged by. What was set by an older one could
/// have passed before it began.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// Answers of the outbox that are taken before the sockets have their turn.
const REPLIES_PER_ITERATION: usize = 64;

/// The shortest wait after a deadline that was dealt with and stands still, so that no mistake anywhere keeps the
/// processor busy.
const OVERDUE_WAIT_MS: u64 = 1;

/// How long the outbox's files are left alone after a commit was begun: what this process writes itself shows there as
/// well, many times for each commit. While it writes nothing, every change is looked at at once.
const OUTBOX_REST: Duration = Duration::from_millis(10);

const WAKER: Token = Token(0);
const SIGNALS: Token = Token(1);
const OUTBOX: Token = Token(2);
const FIRST_SOCKET: usize = 3;

/// An answer of the outbox, and to what.
pub type Reply = (RequestId, Result<StoreReply, StoreError>);

/// What the loop is put between, besides the network.
pub struct Environment<'a> {
    /// Hands a request to the outbox. It does not wait.
    pub submit: Box<dyn FnMut(RequestId, StoreRequest) + 'a>,
    /// Takes the next answer of the outbox, which wakes the loop by [`EventLoop::waker`] when there is one.
    pub poll_reply: Box<dyn FnMut() -> Option<Reply> + 'a>,
    /// Takes the signals that came in on the source that is registered as [`Registration::Signals`].
    pub signals: Box<dyn FnMut() -> Vec<Signal> + 'a>,
    /// Takes in what the source that is registered as [`Registration::Outbox`] has to say.
    pub outbox_touched: Box<dyn FnMut() + 'a>,
    /// Whether another process was found to have written to the database. Asked after that, and beside the answers of
    /// the outbox.
    pub outbox_changed: Box<dyn FnMut() -> bool + 'a>,
    /// Whether nobody answers for the outbox any more. Asked when there are no more answers.
    pub outbox_has_ended: Box<dyn FnMut() -> bool + 'a>,
    /// Opens the log file again.
    pub reopen_log: Box<dyn FnMut() + 'a>,
    /// Reads again what the system says, as far as it has changed or all of it.
    pub read_system: Box<dyn FnMut(Occasion) -> SystemNews + 'a>,
    /// How often to find out whether that has changed.
    pub system_interval: Duration,
}

impl fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

/// What a source that is watched for the [`Environment`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// It is readable when there are signals.
    Signals,
    /// It is readable when somebody may have written to the database.
    Outbox,
}

/// The loop.
#[derive(Debug)]
pub struct EventLoop {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    sockets: Sockets,
    clock: Clock,
    woken: Woken,
    /// When the outbox's files may be looked at again.
    outbox_rest_end: std::time::Instant,
    /// When to find out whether the system says something else.
    system_look_at: Option<std::time::Instant>,
    recorder: Option<Recorder>,
    /// Outputs that the recorder has seen already.
    recorded: VecDeque<Output>,
    /// A deadline has just been dealt with.
    is_after_timeout: bool,
    /// Everything that had come in by then has been taken in, so that no deadline up to then was met without being noticed.
    /// Nothing if that is not known.
    settled: Option<Now>,
    /// Deadlines were left for the next iteration, because so much time had passed since then.
    is_put_off: bool,
    iterations: u64,
}

/// What the poll has told of and was not looked at yet.
#[derive(Debug)]
struct Woken {
    store: bool,
    signals: bool,
    outbox: bool,
}

/// What the kernel has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Polled {
    /// All that there was.
    Everything,
    /// There may be more.
    AsMuchAsFits,
    /// It was interrupted.
    Nothing,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    GoOn,
    Drained,
    /// Nobody answers for the outbox any more.
    Deserted,
}

/// Why the loop cannot go on.
#[derive(Debug, Error)]
pub enum LoopError {
    /// The poll fails.
    #[error("cannot poll for events: {0}")]
    Poll(#[from] io::Error),
    /// Nobody answers for the outbox any more.
    #[error(
        "the thread that works on the database has ended by a mistake in this program, which cannot go on without it; \
         start it again, and report what the log says before this"
    )]
    Deserted,
}

impl EventLoop {
    /// A loop without sockets.
    pub fn new(tls: TlsContext, local: LocalAddresses) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let sockets = Sockets::new(poll.registry().try_clone()?, tls, local, FIRST_SOCKET);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_POLL),
            waker,
            sockets,
            clock: Clock::new(),
            // What came before the registration had no event.
            woken: Woken { store: true, signals: true, outbox: false },
            outbox_rest_end: std::time::Instant::now(),
            system_look_at: None,
            recorder: None,
            recorded: VecDeque::new(),
            is_after_timeout: false,
            settled: None,
            is_put_off: false,
            iterations: 0,
        })
    }

    /// What the outbox wakes the loop with.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Lets everything be seen by a recorder, or by none.
    pub fn record(&mut self, recorder: Option<Recorder>) {
        self.recorder = recorder;
    }

    /// Watches a source for the environment.
    pub fn register(&self, source: &mut impl Source, registration: Registration) -> io::Result<()> {
        let token = match registration {
            Registration::Signals => SIGNALS,
            Registration::Outbox => OUTBOX,
        };
        self.poll.registry().register(source, token, Interest::READABLE)
    }

    /// The time as the dispatcher is to see it, also before [`EventLoop::run`].
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Runs until the dispatcher has nothing left to do. Fails only if the poll does, or if the outbox ends.
    pub fn run(
        &mut self,
        dispatcher: &mut Dispatcher,
        environment: &mut Environment<'_>,
    ) -> Result<(), LoopError> {
        let mut flow = self.carry_out(dispatcher, environment);
        loop {
            match flow {
                Flow::GoOn => flow = self.iterate(dispatcher, environment)?,
                Flow::Drained => return Ok(()),
                Flow::Deserted => return Err(LoopError::Deserted),
            }
        }
    }

    fn iterate(
        &mut self,
        dispatcher: &mut Dispatcher,
        environment: &mut Environment<'_>,
    ) -> io::Result<Flow> {
        self.iterations = self.iterations.wrapping_add(1);
        self.gather(self.wait(dispatcher))?;
        // What came in counts before a deadline that passed in the same moment.
        for step in [
            Self::take_signals,
            Self::look_at_system,
            Self::take_outbox,
            Self::take_sockets,
            Self::take_timeout,
        ] {
            let flow = step(self, dispatcher, environment);
            if flow != Flow::GoOn {
                return Ok(flow);
            }
        }
        Ok(Flow::GoOn)
    }

    /// Takes in everything that the kernel has, after it was waited for.
    ///
    /// The process may have been stopped for long, at any moment. What came in meanwhile must be known before a deadline is
    /// judged, however much it is. So the clock that counts is read before a poll, and only if that poll was not
    /// interrupted and brought all there was.
    fn gather(&mut self, mut wait: Option<Duration>) -> io::Result<()> {
        self.settled = None;
        for number in 1..=POLLS_PER_ITERATION {
            let asked_at = self.clock.now();
            let polled = self.poll_once(wait)?;
            // Where more comes in than is ever taken in, deadlines count all the same.
            if polled == Polled::Everything
                || (polled == Polled::AsMuchAsFits && number == POLLS_PER_ITERATION)
            {
                self.settled = Some(asked_at);
                break;
            }
            wait = Some(Duration::ZERO);
        }
        Ok(())
    }

    /// Asks the kernel once.
    fn poll_once(&mut self, wait: Option<Duration>) -> io::Result<Polled> {
        match self.poll.poll(&mut self.events, wait) {
            Ok(()) => {}
            // The process was stopped.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Polled::Nothing),
            Err(error) => return Err(error),
        }
        let mut count = 0;
        for event in &self.events {
            count += 1;
            match event.token() {
                WAKER => self.woken.store = true,
                SIGNALS => self.woken.signals = true,
                OUTBOX => self.woken.outbox = true,
                _ => self.sockets.on_event(event),
            }
        }
        Ok(if count < self.events.capacity() { Polled::Everything } else { Polled::AsMuchAsFits })
    }

    /// How long to wait for the kernel; nothing for as long as it takes.
    fn wait(&self, dispatcher: &Dispatcher) -> Option<Duration> {
        if self.sockets.is_busy() || self.woken.store || self.woken.signals {
            return Some(Duration::ZERO);
        }
        let rest = self.woken.outbox.then(|| self.outbox_rest());
        let deadline = dispatcher.poll_timeout().map(|(deadline, _)| {
            let wait = deadline.saturating_duration_since(self.clock.now().monotonic);
            let least =
                if self.is_after_timeout { Duration::from_millis(OVERDUE_WAIT_MS) } else { Duration::ZERO };
            wait.max(least)
        });
        let system = self.system_look_at.map(|at| at.saturating_duration_since(std::time::Instant::now()));
        rest.into_iter().chain(deadline).chain(system).min()
    }

    fn outbox_rest(&self) -> Duration {
        self.outbox_rest_end.saturating_duration_since(std::time::Instant::now())
    }

    fn take_signals(&mut self, dispatcher: &mut Dispatcher, environment: &mut Environment<'_>) -> Flow {
        if !std::mem::take(&mut self.woken.signals) {
            return Flow::GoOn;
        }
        for signal in (environment.signals)() {
            let flow = match signal {
                Signal::Hangup => {
                    (environment.reopen_log)();
                    info!("asked to read again what the system says");
                    let news = (environment.read_system)(Occasion::Order);
                    self.take_system_news(dispatcher, environment, news)
                }
                Signal::ReopenLog => {
                    (environment.reopen_log)();
                    info!("asked to open the log again");
                    Flow::GoOn
                }
                Signal::TryNow => {
                    info!("asked to try all mail now");
                    self.input(dispatcher, environment, Input::TryNow)
                }
                Signal::Meaningless { number, sender } => {
                    let name = signals::name(number);
                    warn!("{name} from process {sender} is ignored; SIGTERM would end the daemon");
                    Flow::GoOn
                }
                Signal::Terminate => {
                    info!("asked to stop");
                    self.input(dispatcher, environment, Input::Drain)
                }
            };
            if flow == Flow::Drained {
                return flow;
            }
        }
        Flow::GoOn
    }

    fn look_at_system(&mut self, dispatcher: &mut Dispatcher, environment: &mut Environment<'_>) -> Flow {
        let now = std::time::Instant::now();
        if self.system_look_at.is_some_and(|at| now < at) {
            return Flow::GoOn;
        }
        let is_first = self.system_look_at.replace(now + environment.system_interval).is_none();
        if is_first {
            return Flow::GoOn;
        }
        let news = (environment.read_system)(Occasion::Look);
        self.take_system_news(dispatcher, environment, news)
    }

    fn take_system_news(
        &mut self,
        dispatcher: &mut Dispatcher,
        environment: &mut Environment<'_>,
        news: SystemNews,
    ) -> Flow {
        if let Some(tls) = news.tls {
            self.sockets.replace_tls(tls);
        }
        let inputs = [news.hosts.map(Input::Hosts), news.resolver.map(Input::Resolver)];
        for input in inputs.into_iter().flatten() {
            if self.input(dispatcher, environment, input) == Flow::Drained {
                return Flow::Drained;
            }
        }
        Flow::GoOn
    }

    fn take_outbox(&mut self, dispatcher: &mut Dispatcher, environment: &mut Environment<'_>) -> Flow {
        // Whether another process has written is found out by the thread that answers.
        let may_have_changed = self.woken.outbox || self.woken.store;
        if self.woken.outbox && self.outbox_rest().is_zero() {
            self.woken.outbox = false;
            (environment.outbox_touched)();
        }
        if self.woken.store {
            for _ in 0..REPLIES_PER_ITERATION {
                let Some((request, reply)) = (environment.poll_reply)() else {
                    self.woken.store = false;
                    if (environment.outbox_has_ended)() {
                        return Flow::Deserted;
                    }
                    break;
                };
                if self.input(dispatcher, environment, Input::Store(request, reply)) == Flow::Drained {
                    return Flow::Drained;
                }
            }
        }
        if may_have_changed && (environment.outbox_changed)() {
            return self.input(dispatcher, environment, Input::OutboxChanged);
        }
        Flow::GoOn
    }

    fn take_sockets(&mut self, dispatcher: &mut Dispatcher, environment: &mut Environment<'_>) -> Flow {
        self.sockets.begin_round();
        loop {
            let now = self.clock.now();
            let pull = |id, limit, octets: &mut _| dispatcher.poll_transmit(now, id, limit, octets);
            match self.sockets.turn(pull) {
                None => return Flow::GoOn,
                Some(Turn::Quiet) => {
                    if let Some(recorder) = &mut self.recorder {
                        recorder.transmitted(now);
                    }
                }
                Some(Turn::Input(input)) => {
                    let now = self.clock.now();
                    if let Some(recorder) = &mut self.recorder {
                        recorder.transmitted(now);
                        // What was pulled in this turn comes before what was received in it.
                        while let Some(output) = dispatcher.poll_output() {
                            recorder.output(dispatcher, &output);
                            self.recorded.push_back(output);
                        }
                        recorder.input(dispatcher, now, &input);
                    }
                    dispatcher.handle_input(now, input);
                }
            }
            // After each: what is received next may already belong to TLS.
            if self.carry_out(dispatcher, environment) == Flow::Drained {
                return Flow::Drained;
            }
        }
    }

    fn take_timeout(&mut self, dispatcher: &mut Dispatcher, environment: &mut Environment<'_>) -> Flow {
        self.is_after_timeout = false;
        let Some(now) = self.settled else { return Flow::GoOn };
        let due = dispatcher.poll_timeout().filter(|(deadline, _)| *deadline <= now.monotonic);
        let Some((deadline, _)) = due else { return Flow::GoOn };
        let age = self.clock.now().monotonic.saturating_duration_since(now.monotonic);
        // If everything takes so long, it has to be done all the same.
        self.is_put_off = age > STALE_AFTER && !self.is_put_off;
        if self.is_put_off {
            return Flow::GoOn;
        }
        self.is_after_timeout = true;
        if let Some(recorder) = &mut self.recorder {
            recorder.timeout(now, deadline);
        }
        dispatcher.handle_timeout(now);
        self.carry_out(dispatcher, environment)
    }

    fn input(
        &mut self,
        dispatcher: &mut Dispatcher,
        environment: &mut Environment<'_>,
        input: Input<'_>,
    ) -> Flow {
        let now = self.clock.now();
        if let Some(recorder) = &mut self.recorder {
            recorder.input(dispatcher, now, &input);
        }
        dispatcher.handle_input(now, input);
        self.carry_out(dispatcher, environment)
    }

    /// Does everything that the dispatcher asks for. Nothing is answered in here, so that nothing recurs.
    fn carry_out(&mut self, dispatcher: &mut Dispatcher, environment: &mut Environment<'_>) -> Flow {
        let mut flow = Flow::GoOn;
        while let Some(output) = self.next_output(dispatcher) {
            match output {
                Output::Connect { connection, remote, purpose } => {
                    self.sockets.connect(connection, remote, purpose);
                }
                Output::StartTls { connection, server } => self.sockets.start_tls(connection, &server),
                Output::Transmit(connection) => self.sockets.request_transmit(connection),
                Output::Close(connection) => self.sockets.close(connection),
                Output::Datagram { query, to, octets } => self.sockets.query(query, to, &octets),
                Output::CloseDatagram(query) => self.sockets.close_query(query),
                Output::Store(request, what) => {
                    if matches!(what, StoreRequest::Commit(_)) {
                        self.outbox_rest_end = std::time::Instant::now() + OUTBOX_REST;
                    }
                    (environment.submit)(request, what);
                    // The answer may be there already, for which nobody wakes the loop.
                    self.woken.store = true;
                }
                Output::Event(event) => tell(&event),
                Output::Drained => flow = Flow::Drained,
            }
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.settle(dispatcher, self.clock.now());
            if flow == Flow::Drained {
                recorder.finish();
            }
        }
        flow
    }

    fn next_output(&mut self, dispatcher: &mut Dispatcher) -> Option<Output> {
        if let Some(output) = self.recorded.pop_front() {
            return Some(output);
        }
        let output = dispatcher.poll_output()?;
        if let Some(recorder) = &mut self.recorder {
            recorder.output(dispatcher, &output);
        }
        Some(output)
    }
}

/// Both clocks.
#[derive(Clone, Copy, Debug)]
struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    fn now(self) -> Now {
        let micros = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        // A clock that stands before 1970 is nothing to die of.
        let wall = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
        };
        Now { monotonic: Instant::from_micros(micros), wall: UnixTime(wall) }
    }
}

fn tell(event: &Event) {
    let level = match event.level() {
        Level::Error => log::Level::Error,
        Level::Warning => log::Level::Warn,
        Level::Info => log::Level::Info,
        Level::Debug => log::Level::Debug,
        Level::Trace => log::Level::Trace,
    };
    log!(level, "{event}");
}

#[cfg(test)]
mod stop_tests;
#[cfg(test)]
mod tests;
