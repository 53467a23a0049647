//! The event loop, the only place that waits. It passes everything that happens to the dispatcher, one event at a time, and
//! does what the dispatcher asks for before the next event.

mod clients;
mod in_memory;
mod kernel;
mod outbox;
mod recording;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use cmail_delivery::dispatcher::{Dispatcher, Load};
use cmail_delivery::explanation::Answer;
use cmail_delivery::io::{Input, Output};
use cmail_delivery::outbox::StoreRequest;
use cmail_delivery::time::Now;
use log::{info, warn};
use mio::{Interest, Token};
use thiserror::Error;

use self::clients::Served;
pub(crate) use self::clients::{CLIENTS_LIMIT, Listeners};
pub(crate) use self::in_memory::InMemory;
pub use self::kernel::Kernel;
use self::kernel::WAKER;
pub use self::outbox::{Ages, Outbox, Reply, Submitted};
use self::recording::Recording;
use crate::config::Config;
use crate::dkim::{KeyRing, Signers};
use crate::https::Fetchers;
use crate::logging::{Log, event};
use crate::overview::Overview;
use crate::reception::Receptionist;
use crate::record::Recorder;
use crate::reload::{Outcome, Reloaded, Reloader};
use crate::service_manager::ServiceManager;
use crate::signals::{self, Signal, Signals};
use crate::sockets::{Sockets, Turn};
use crate::system::{Occasion, System, SystemNews};
use crate::tls::TlsContext;

/// How far the time that deadlines are judged by may lag behind the clock. A deadline that was set by an older time could
/// have passed before it began.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// Answers of the outbox that are handled before it is the sockets' turn.
const REPLIES_PER_ITERATION: usize = 64;

/// The shortest wait after a timeout whose deadline did not move, so that no bug keeps the processor busy.
const OVERDUE_WAIT_MS: u64 = 1;

/// How long events of the outbox's files are ignored after a commit begins: the writes of this process cause many of them
/// for each commit. While it writes nothing, every change is handled at once.
const OUTBOX_REST: Duration = Duration::from_millis(10);

/// How long after the request to stop the program waits for the database. The dispatcher gives up earlier, and the last
/// lines of the log must be written within the 5 s that stopping may take.
const END_LIMIT: Duration = Duration::from_millis(4850);

/// How long the program ends later for those who are slow to take the answer to a message that they have handed over.
const FAREWELL_LIMIT: Duration = Duration::from_millis(500);

const SIGNALS: Token = Token(1);
const OUTBOX: Token = Token(2);
const FIRST_CLIENT: usize = 3;
const FIRST_SOCKET: usize = FIRST_CLIENT + Served::TOKENS;

/// The loop. It owns everything that the program waits for.
#[derive(Debug)]
pub struct EventLoop<O> {
    kernel: Kernel,
    sockets: Sockets,
    outbox: O,
    signals: Signals,
    sources: Sources,
    workers: Workers,
    woken: Woken,
    deadlines: Deadlines,
    recording: Recording,
    service_manager: Option<ServiceManager>,
    /// Those who ask the daemon, if there is a place where they can.
    served: Option<Served>,
    /// Answers for the one who asks without a socket.
    answers: VecDeque<(Answer, Now)>,
    /// When the program was asked to stop.
    stop_asked_at: Option<std::time::Instant>,
}

/// The threads that do for the dispatcher what takes long.
#[derive(Debug)]
struct Workers {
    signers: Signers,
    fetchers: Fetchers,
}

/// Which deadlines may be judged.
#[derive(Debug, Default)]
struct Deadlines {
    /// All events up to this time have been read, so deadlines up to it can be judged. `None` if that is not known.
    settled: Option<Now>,
    /// They were put off to the next iteration, because handling the events took too long.
    is_put_off: bool,
    /// A timeout has just been handled.
    is_after_timeout: bool,
}

/// What is read at the start, and again on request.
#[derive(Debug)]
struct Sources {
    log: Log,
    system: System,
    reloader: Option<Reloader>,
}

/// What the poll reported, and was not read yet.
#[derive(Debug)]
struct Woken {
    store: bool,
    signals: bool,
    outbox: bool,
    /// When events of the outbox's files are handled again.
    outbox_rest_end: std::time::Instant,
}

impl Woken {
    /// Ignores events of the outbox's files for a while, because this process is about to write to them.
    fn let_outbox_rest(&mut self) {
        self.outbox_rest_end = std::time::Instant::now() + OUTBOX_REST;
    }

    /// Returns for how long events of the outbox's files are still ignored.
    fn outbox_rest(&self) -> Duration {
        self.outbox_rest_end.saturating_duration_since(std::time::Instant::now())
    }

    /// Takes the event of the outbox's files, if it may be handled now.
    fn take_outbox(&mut self) -> bool {
        let is_due = self.outbox && self.outbox_rest().is_zero();
        self.outbox &= !is_due;
        is_due
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    GoOn,
    Drained,
    /// The outbox has ended and answers no more.
    OutboxEnded,
}

/// Why the loop cannot go on.
#[derive(Debug, Error)]
pub enum LoopError {
    /// The poll fails.
    #[error("cannot poll for events: {0}")]
    Poll(#[from] io::Error),
    /// The outbox has ended and answers no more.
    #[error(
        "the thread that works on the database has ended because of a bug in this program, which cannot go on without \
         it; restart the program, and report the lines of the log before this one"
    )]
    OutboxEnded,
}

impl<O: Outbox> EventLoop<O> {
    /// Creates a loop without connections.
    pub fn new(
        kernel: Kernel,
        tls: TlsContext,
        mut outbox: O,
        mut signals: Signals,
        log: Log,
        system: System,
    ) -> io::Result<Self> {
        outbox.register(kernel.registry(), OUTBOX)?;
        kernel.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let workers = Workers {
            signers: Signers::new(kernel.waker()),
            fetchers: Fetchers::new(kernel.waker(), tls.web()),
        };
        let sockets = Sockets::new(kernel.registry().try_clone()?, tls, FIRST_SOCKET);
        Ok(Self {
            kernel,
            sockets,
            outbox,
            signals,
            sources: Sources { log, system, reloader: None },
            workers,
            // Whatever came before the registration caused no event.
            woken: Woken {
                store: true,
                signals: true,
                outbox: false,
                outbox_rest_end: std::time::Instant::now(),
            },
            deadlines: Deadlines::default(),
            recording: Recording::default(),
            service_manager: None,
            served: None,
            answers: VecDeque::new(),
            stop_asked_at: None,
        })
    }

    /// Signs with these keys from now on.
    pub fn sign_with(&mut self, keys: KeyRing) {
        self.workers.signers.turn_to(keys);
    }

    /// Shows everything that happens to `recorder` from now on, if it is given.
    pub fn record(&mut self, recorder: Option<Recorder>) {
        self.recording = Recording::of(recorder);
    }

    /// Reads the configuration again on request from now on, if `reloader` is given.
    pub fn reload_with(&mut self, reloader: Option<Reloader>) {
        self.sources.reloader = reloader;
    }

    /// Tells the service manager how the daemon stands from now on, if there is one.
    pub fn tell(&mut self, service_manager: Option<ServiceManager>) {
        self.service_manager = service_manager;
    }

    /// Runs until the dispatcher has nothing left to do. Fails only if the poll fails or the outbox ends.
    pub fn run(&mut self, dispatcher: &mut Dispatcher) -> Result<(), LoopError> {
        let mut flow = self.carry_out(dispatcher);
        loop {
            match flow {
                Flow::GoOn => flow = self.iterate(dispatcher)?,
                Flow::Drained => return Ok(()),
                Flow::OutboxEnded => return Err(LoopError::OutboxEnded),
            }
        }
    }

    /// Waits until the outbox has done what was submitted, but not for long after a request to stop. Returns whether it has. Tells those who
    /// have handed over messages what has become of them.
    pub fn finish(self) -> bool {
        let Self { outbox, mut kernel, mut signals, mut stop_asked_at, mut served, .. } = self;
        let mut receptionist = served.as_mut().and_then(Served::receptionist);
        if let Some(receptionist) = &mut receptionist {
            receptionist.advance(std::time::Instant::now(), true);
        }
        let take = |(id, result)| {
            if let Some(receptionist) = &mut receptionist {
                receptionist.tell(id, result, std::time::Instant::now());
            }
        };
        let is_done = outbox.shut_down(take, || {
            // Other signals have no effect any more.
            if signals.drain().contains(&Signal::Terminate) {
                stop_asked_at.get_or_insert_with(std::time::Instant::now);
            }
            stop_asked_at.is_none_or(|at| at.elapsed() < END_LIMIT)
        });
        if let Some(receptionist) = receptionist
            && is_done
        {
            let end = std::time::Instant::now() + FAREWELL_LIMIT;
            let end = stop_asked_at.map_or(end, |at| end.min(at + END_LIMIT));
            bid_farewell(receptionist, &mut kernel, end);
        }
        is_done
    }

    fn iterate(&mut self, dispatcher: &mut Dispatcher) -> io::Result<Flow> {
        self.overview().for_each(Overview::end_turn);
        self.gather(self.wait(dispatcher))?;
        self.overview().for_each(Overview::begin_turn);
        // Events come before a deadline that passed at the same moment.
        for step in [
            Self::take_signals,
            Self::look_at_system,
            Self::take_configuration,
            Self::take_outbox,
            Self::take_signatures,
            Self::take_web,
            Self::take_sockets,
            Self::take_timeout,
            Self::take_clients,
        ] {
            let flow = step(self, dispatcher);
            if flow != Flow::GoOn {
                return Ok(flow);
            }
        }
        self.report(dispatcher);
        Ok(Flow::GoOn)
    }

    /// Tells the service manager what is due. Only a loop that has come round does.
    fn report(&mut self, dispatcher: &Dispatcher) {
        if let Some(service_manager) = &mut self.service_manager {
            let status = || status_line(dispatcher.load());
            service_manager.tick(std::time::Instant::now(), status, || self.outbox.is_alive());
        }
    }

    /// Waits for the kernel, and reads all events that it has.
    fn gather(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let Self { kernel, woken, sockets, served, .. } = self;
        self.deadlines.settled = None;
        self.deadlines.settled = kernel.gather(wait, |event| match event.token() {
            WAKER => woken.store = true,
            SIGNALS => woken.signals = true,
            OUTBOX => woken.outbox = true,
            _ if served.as_mut().is_some_and(|served| served.on_event(event)) => {}
            _ => sockets.on_event(event),
        })?;
        Ok(())
    }

    /// Returns how long to wait for the kernel; `None` for as long as it takes.
    fn wait(&self, dispatcher: &Dispatcher) -> Option<Duration> {
        let is_asked = self.served.as_ref().is_some_and(Served::is_busy);
        if self.sockets.is_busy() || self.woken.store || self.woken.signals || is_asked {
            return Some(Duration::ZERO);
        }
        let rest = self.woken.outbox.then(|| self.woken.outbox_rest());
        let deadline = dispatcher.poll_timeout().map(|(deadline, _)| {
            let wait = deadline.saturating_duration_since(self.kernel.now().monotonic);
            let least_ms = if self.deadlines.is_after_timeout { OVERDUE_WAIT_MS } else { 0 };
            wait.max(Duration::from_millis(least_ms))
        });
        let tick = self.service_manager.as_ref().map(ServiceManager::next_tick);
        let clients = self.served.as_ref().and_then(Served::next_tick);
        let own = tick.into_iter().chain(clients).chain([self.sources.system.next_look()]).min();
        let own = own.map(|at| at.saturating_duration_since(std::time::Instant::now()));
        rest.into_iter().chain(deadline).chain(own).min()
    }

    fn take_signals(&mut self, dispatcher: &mut Dispatcher) -> Flow {
        if !std::mem::take(&mut self.woken.signals) {
            return Flow::GoOn;
        }
        for signal in self.signals.drain() {
            let flow = match signal {
                Signal::Hangup => self.read_all_again(dispatcher).1,
                Signal::ReopenLog => {
                    self.sources.log.reopen();
                    info!("asked to reopen the log");
                    Flow::GoOn
                }
                Signal::TryNow => {
                    info!(event = event::ORDER; "asked to try all mail now");
                    self.input(dispatcher, Input::TryNow)
                }
                Signal::Meaningless { number, sender } => {
                    let name = signals::name(number);
                    warn!("{name} from process {sender} is ignored; SIGTERM would end the daemon");
                    Flow::GoOn
                }
                Signal::Terminate => {
                    info!(event = event::STOP; "asked to stop");
                    self.service_manager.iter_mut().for_each(ServiceManager::stopping);
                    self.stop_asked_at.get_or_insert_with(std::time::Instant::now);
                    self.input(dispatcher, Input::Drain)
                }
            };
            if flow == Flow::Drained {
                return flow;
            }
        }
        Flow::GoOn
    }

    /// Reopens the log, and reads again what was read at the start. Returns the number of the reading of the configuration, if that
    /// can be read again, and the flow.
    fn read_all_again(&mut self, dispatcher: &mut Dispatcher) -> (Option<u64>, Flow) {
        self.sources.log.reopen();
        let configuration = if self.sources.reloader.is_some() { "the configuration, " } else { "" };
        info!(event = event::RELOAD; "asked to reread {configuration}resolv.conf, hosts and the trusted certificates");
        let number = self.sources.reloader.as_mut().map(Reloader::request);
        if number.is_some() {
            self.service_manager.iter_mut().for_each(ServiceManager::reloading);
        }
        let news = self.sources.system.read(Occasion::Request);
        (number, self.take_system_news(dispatcher, news))
    }

    /// Goes by another configuration, if one was read.
    fn take_configuration(&mut self, dispatcher: &mut Dispatcher) -> Flow {
        // A daemon that ends is not ready again.
        if self.stop_asked_at.is_some() {
            return Flow::GoOn;
        }
        let Some(reloader) = &mut self.sources.reloader else { return Flow::GoOn };
        let Some(outcome) = reloader.poll(self.sources.system.resolver_settings()) else { return Flow::GoOn };
        let is_reading = reloader.is_reading();
        let Outcome { number, reloaded, report } = outcome;
        let flow = match reloaded {
            Reloaded::Changed { config, tls } => self.reconfigure(dispatcher, *config, tls),
            Reloaded::Unchanged | Reloaded::Refused => Flow::GoOn,
        };
        if let Some(served) = &mut self.served {
            served.restore_sockets();
            served.tell_reload(number, &report);
        }
        if !is_reading {
            self.service_manager.iter_mut().for_each(ServiceManager::reloaded);
        }
        flow
    }

    fn reconfigure(&mut self, dispatcher: &mut Dispatcher, config: Config, tls: Option<TlsContext>) -> Flow {
        self.sources.log.configure(config.verbosity, config.logformat);
        self.sources.system.reconfigure(&config, tls.is_some());
        if let Some(tls) = tls {
            self.replace_tls(tls);
        }
        if let Some(served) = &mut self.served {
            served.limit_submissions(config.submit_size_octets);
            served.overview.name_destinations(&config.metrics_destinations);
        }
        // Before anything is to be signed with them.
        self.workers.signers.turn_to(config.keys);
        self.input(dispatcher, Input::Settings(Box::new(config.settings)))
    }

    fn replace_tls(&mut self, tls: TlsContext) {
        self.workers.fetchers.replace_trust(tls.web());
        self.sockets.replace_tls(tls);
    }

    fn look_at_system(&mut self, dispatcher: &mut Dispatcher) -> Flow {
        let Some(news) = self.sources.system.look(std::time::Instant::now()) else { return Flow::GoOn };
        self.take_system_news(dispatcher, news)
    }

    fn take_system_news(&mut self, dispatcher: &mut Dispatcher, news: SystemNews) -> Flow {
        if let Some(tls) = news.tls {
            self.replace_tls(tls);
        }
        let inputs = [news.hosts.map(Input::Hosts), news.resolver.map(Input::Resolver)];
        for input in inputs.into_iter().flatten() {
            if self.input(dispatcher, input) == Flow::Drained {
                return Flow::Drained;
            }
        }
        Flow::GoOn
    }

    fn take_outbox(&mut self, dispatcher: &mut Dispatcher) -> Flow {
        // The thread that answers finds out whether another process has written.
        let may_have_changed = self.woken.outbox || self.woken.store;
        if self.woken.take_outbox() {
            self.outbox.drain_watch();
        }
        if self.woken.store {
            for _ in 0..REPLIES_PER_ITERATION {
                let Some((request, reply)) = self.outbox.poll_reply() else {
                    self.woken.store = false;
                    if self.outbox.has_ended() {
                        return Flow::OutboxEnded;
                    }
                    break;
                };
                self.overview().for_each(|overview| overview.note_reply(request));
                if self.input(dispatcher, Input::Store(request, reply)) == Flow::Drained {
                    return Flow::Drained;
                }
            }
        }
        if may_have_changed && self.outbox.take_changed() {
            return self.input(dispatcher, Input::OutboxChanged);
        }
        Flow::GoOn
    }

    fn take_signatures(&mut self, dispatcher: &mut Dispatcher) -> Flow {
        while let Some((request, signatures)) = self.workers.signers.poll() {
            if self.input(dispatcher, Input::Signed(request, signatures)) == Flow::Drained {
                return Flow::Drained;
            }
        }
        Flow::GoOn
    }

    fn take_web(&mut self, dispatcher: &mut Dispatcher) -> Flow {
        while let Some((id, answer)) = self.workers.fetchers.poll() {
            if self.input(dispatcher, Input::Https(id, answer)) == Flow::Drained {
                return Flow::Drained;
            }
        }
        Flow::GoOn
    }

    fn take_sockets(&mut self, dispatcher: &mut Dispatcher) -> Flow {
        self.sockets.begin_round();
        loop {
            let now = self.kernel.now();
            let pull = |id, limit, octets: &mut _| dispatcher.poll_transmit(now, id, limit, octets);
            match self.sockets.turn(pull) {
                None => return Flow::GoOn,
                Some(Turn::Quiet) => {
                    self.recording.transmitted(now);
                }
                Some(Turn::Input(input)) => {
                    let now = self.kernel.now();
                    if let Some(watchers) = self.served.as_mut().and_then(Served::watchers) {
                        watchers.trace_input(dispatcher, &input);
                    }
                    self.recording.turned(dispatcher, now, &input);
                    dispatcher.handle_input(now, input);
                }
            }
            // After each turn: what is received next may already belong to TLS.
            if self.carry_out(dispatcher) == Flow::Drained {
                return Flow::Drained;
            }
        }
    }

    fn take_timeout(&mut self, dispatcher: &mut Dispatcher) -> Flow {
        self.deadlines.is_after_timeout = false;
        let Some(now) = self.deadlines.settled else { return Flow::GoOn };
        let due = dispatcher.poll_timeout().filter(|(deadline, _)| *deadline <= now.monotonic);
        let Some((deadline, _)) = due else { return Flow::GoOn };
        let age = self.kernel.now().monotonic.saturating_duration_since(now.monotonic);
        // Put off only once: if each iteration takes this long, deadlines must be judged all the same.
        self.deadlines.is_put_off = age > STALE_AFTER && !self.deadlines.is_put_off;
        if self.deadlines.is_put_off {
            return Flow::GoOn;
        }
        self.deadlines.is_after_timeout = true;
        self.recording.timeout(now, deadline);
        dispatcher.handle_timeout(now);
        self.carry_out(dispatcher)
    }

    fn input(&mut self, dispatcher: &mut Dispatcher, input: Input<'_>) -> Flow {
        let now = self.kernel.now();
        self.recording.input(dispatcher, now, &input);
        dispatcher.handle_input(now, input);
        self.carry_out(dispatcher)
    }

    /// Does everything that the dispatcher asks for. Answers go to the dispatcher later, so that there is no recursion.
    fn carry_out(&mut self, dispatcher: &mut Dispatcher) -> Flow {
        let mut flow = Flow::GoOn;
        while let Some(output) = self.recording.next_output(dispatcher) {
            if let Some(watchers) = self.served.as_mut().and_then(Served::watchers) {
                watchers.trace_output(dispatcher, &output);
            }
            match output {
                Output::Connect { connection, remote, local, purpose: _ } => {
                    self.sockets.connect(connection, remote, local);
                }
                Output::StartTls { connection, terms, groups } => {
                    self.sockets.start_tls(connection, &terms, groups);
                }
                Output::Transmit(connection) => self.sockets.request_transmit(connection),
                Output::Close(connection) => self.sockets.close(connection),
                Output::Datagram { query, to, octets } => self.sockets.query(query, to, &octets),
                Output::CloseDatagram(query) => self.sockets.close_query(query),
                Output::Store(request, what) => {
                    if matches!(what, StoreRequest::Commit(_)) {
                        self.woken.let_outbox_rest();
                    }
                    self.overview().for_each(|overview| overview.note_request(request, &what));
                    self.outbox.submit(request, what);
                    // The answer may be ready at once, and then nothing wakes the loop.
                    self.woken.store = true;
                }
                Output::Release(ids) => self.outbox.release(ids),
                Output::Event(event) => {
                    self.overview().for_each(|overview| overview.note_event(&event));
                    event::tell(&event);
                }
                Output::Sign(request, digests) => self.workers.signers.sign(request, digests),
                Output::Https(id, request) => self.workers.fetchers.fetch(id, request),
                Output::Answer(id, answer) => self.answered(id, answer),
                Output::Drained => flow = Flow::Drained,
            }
        }
        self.recording.settle(dispatcher, self.kernel.now(), flow == Flow::Drained);
        flow
    }
}

/// Waits until those who have handed over messages have taken their answers, but no longer than until `end`.
fn bid_farewell(receptionist: &mut Receptionist, kernel: &mut Kernel, end: std::time::Instant) {
    while receptionist.has_clients() {
        let Some(wait) = end.checked_duration_since(std::time::Instant::now()) else { return };
        let take_in = |event: &mio::event::Event| {
            receptionist.on_event(event.token());
        };
        if kernel.gather(Some(wait), take_in).is_err() {
            return;
        }
        receptionist.advance(std::time::Instant::now(), true);
    }
}

/// Describes the load in one line.
fn status_line(load: Load) -> String {
    let Load { mails, connections, hosts_in_trouble } = load;
    let waits = if mails == 1 { "1 mail waits".to_owned() } else { format!("{mails} mails wait") };
    let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let (connections, hosts) = (plural(connections, "connection"), plural(hosts_in_trouble, "host"));
    format!("{waits}, {connections}, {hosts} in trouble")
}

#[cfg(test)]
mod tests;
