mod stop;

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use cmail_delivery::dispatcher::Mode;
use cmail_delivery::io::ConnectionId;
use cmail_delivery::outbox::{MailId, RequestId, StoreError, StoreTrouble};
use cmail_delivery::settings::{Hosts, ResolverSettings, Settings};
use mio::Registry;
use mio::unix::pipe;
use tempfile::TempDir;

use super::*;
use crate::config::{Config, Environment};
use crate::reception::{Submission, SubmissionId};
use crate::signals::Controller;
use crate::testing::{PATIENCE, authority, loopback, trust_file};

/// An outbox that answers what a test has prepared.
#[derive(Debug, Default)]
struct Prepared {
    replies: VecDeque<Reply>,
    /// Whether all that is asked is refused.
    is_busy: bool,
    touches: usize,
    is_changed: bool,
    has_ended: bool,
}

fn busy(request: RequestId) -> Reply {
    (request, Err(StoreError { trouble: StoreTrouble::Busy, text: "the database is busy".to_owned() }))
}

impl Outbox for Prepared {
    fn register(&mut self, _: &Registry, _: Token) -> io::Result<()> {
        Ok(())
    }

    fn submit(&mut self, id: RequestId, _: StoreRequest) {
        self.replies.extend(self.is_busy.then(|| busy(id)));
    }

    fn release(&mut self, _: Vec<MailId>) {}

    fn poll_reply(&mut self) -> Option<Reply> {
        self.replies.pop_front()
    }

    fn drain_watch(&mut self) {
        self.touches += 1;
    }

    fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }

    fn ask_ages(&mut self) {}

    fn ages(&self) -> Option<Arc<Ages>> {
        None
    }

    fn put_in(&mut self, _: SubmissionId, _: Box<Submission>, _: std::time::Instant) {}

    fn poll_submitted(&mut self) -> Option<Submitted> {
        None
    }

    fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn is_alive(&self) -> bool {
        !self.has_ended
    }

    fn shut_down(self, _: impl FnMut(Submitted), _: impl FnMut() -> bool) -> bool {
        true
    }
}

/// A loop over an outbox, with signals that the test sends and a log and files of its own.
pub(super) fn event_loop<O: Outbox>(outbox: O) -> (EventLoop<O>, Controller, TempDir) {
    let tls = TlsContext::load_trust(Some(trust_file(&authority()).path()), false).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let environment = Environment {
        host_name: Ok("host.example".into()),
        resolv_conf: path("resolv.conf"),
        directory: Ok("/".into()),
        needs_log: true,
    };
    let config = Config::from_octets(Path::new("test.conf"), b"database /db", &environment).unwrap();
    let log = Log::open(Some(&path("log")), None).unwrap();
    let (signals, controller) = Signals::controlled().unwrap();
    let system = System::new(&config, &path("hosts"));
    let kernel = Kernel::new().unwrap();
    (EventLoop::new(kernel, tls, outbox, signals, log, system).unwrap(), controller, directory)
}

/// A loop with a dispatcher that does nothing by itself for an hour.
struct Scene {
    event_loop: EventLoop<Prepared>,
    dispatcher: Dispatcher,
    controller: Controller,
    directory: TempDir,
    iterations: usize,
}

impl Scene {
    fn new() -> Self {
        let (event_loop, controller, directory) = event_loop(Prepared::default());
        let resolver =
            ResolverSettings { servers: Vec::new(), timeout: Duration::from_secs(60), attempts: 1 };
        let settings =
            Settings { interval: Duration::from_secs(3600), resolver, ..Settings::new("mta.example.org") };
        let now = event_loop.kernel.now();
        let dispatcher = Dispatcher::new(now, settings, Hosts::new(), Mode::Daemon, [0; 32]);
        Self { event_loop, dispatcher, controller, directory, iterations: 0 }
    }

    /// One that has done what there was to do at the beginning.
    fn settled() -> Self {
        let mut scene = Self::new();
        scene.settle();
        scene
    }

    fn iterate(&mut self) {
        self.iterations += 1;
        assert!(self.iterations < 1000, "the loop does not come to rest");
        assert_eq!(self.event_loop.iterate(&mut self.dispatcher).unwrap(), Flow::GoOn);
    }

    fn wait(&self) -> Option<Duration> {
        self.event_loop.wait(&self.dispatcher)
    }

    /// Iterates until the loop would wait.
    fn settle(&mut self) {
        while self.wait() == Some(Duration::ZERO) {
            self.iterate();
        }
    }

    fn prepare(&mut self, replies: u64) {
        let ids = (0..replies).map(|number| RequestId(u64::MAX - number));
        self.event_loop.outbox.replies.extend(ids.map(busy));
    }

    /// Stands for the outbox's files: the test writes to it.
    fn changes(&self) -> (pipe::Sender, pipe::Receiver) {
        let (change, mut changes) = pipe::new().unwrap();
        self.event_loop.kernel.registry().register(&mut changes, OUTBOX, Interest::READABLE).unwrap();
        (change, changes)
    }

    /// Moves the log away; returns whether there is another one then, once the loop has come to rest.
    fn reopens_log_on(&mut self, signal: Signal) -> bool {
        let path = |name: &str| self.directory.path().join(name);
        let log = path("log");
        std::fs::rename(&log, path("old")).unwrap();
        self.controller.send(signal).unwrap();
        self.iterate();
        self.settle();
        log.exists()
    }
}

#[test]
fn an_idle_loop_with_an_idle_connection_does_not_wake_up() {
    let mut scene = Scene::new();
    let (listener, address) = loopback();
    scene.event_loop.sockets.connect(ConnectionId(u64::MAX), address, None);
    let (_stream, _) = listener.accept().unwrap();
    scene.iterate();
    let least = Some(Duration::from_millis(50));
    while {
        scene.settle();
        let Kernel { poll, events, .. } = &mut scene.event_loop.kernel;
        poll.poll(events, least).unwrap();
        !events.is_empty()
    } {
        for event in &scene.event_loop.kernel.events {
            scene.event_loop.sockets.on_event(event);
        }
        scene.iterate();
    }
    assert!(scene.wait().is_none_or(|wait| wait > Duration::from_secs(1)));
}

#[test]
fn a_wake_up_of_the_outbox_takes_its_answers_and_then_waits_again() {
    let mut scene = Scene::settled();
    scene.prepare(3);
    scene.event_loop.kernel.waker().wake().unwrap();
    scene.iterate();
    assert_eq!(scene.event_loop.outbox.replies.len(), 0);
    assert!(!scene.event_loop.woken.store);
}

#[test]
fn many_answers_of_the_outbox_leave_turns_to_the_sockets() {
    let mut scene = Scene::new();
    scene.prepare(1000);
    scene.iterate();
    assert_eq!(scene.event_loop.outbox.replies.len(), 1000 - REPLIES_PER_ITERATION);
    scene.settle();
    assert_eq!(scene.event_loop.outbox.replies.len(), 0, "answers were left without another wake-up");
}

#[test]
fn a_signal_from_before_the_loop_is_taken() {
    let mut scene = Scene::new();
    scene.controller.send(Signal::ReopenLog).unwrap();
    std::fs::rename(scene.directory.path().join("log"), scene.directory.path().join("old")).unwrap();
    scene.settle();
    assert!(scene.directory.path().join("log").exists());
}

#[test]
fn a_signal_opens_the_log_again_and_another_reads_the_system_too() {
    let mut scene = Scene::settled();
    assert!(scene.reopens_log_on(Signal::ReopenLog));
    // It is not time for a look yet, so that only the order can have it read.
    std::fs::write(scene.directory.path().join("hosts"), "192.0.2.4 relay.example\n").unwrap();
    assert!(scene.reopens_log_on(Signal::Hangup));
    assert!(scene.event_loop.sources.system.read(Occasion::Schedule).hosts.is_none(), "it was read already");
}

#[test]
fn changes_of_the_outbox_are_asked_for_when_its_files_were_touched_and_when_its_thread_woke_the_loop() {
    let mut scene = Scene::settled();
    let (mut change, _changes) = scene.changes();
    scene.event_loop.outbox.is_changed = true;
    change.write_all(b"!").unwrap();
    scene.iterate();
    assert!(!scene.event_loop.outbox.is_changed);
    assert_eq!(scene.event_loop.outbox.touches, 1);
    scene.settle();
    scene.event_loop.outbox.is_changed = true;
    scene.event_loop.kernel.waker().wake().unwrap();
    scene.iterate();
    assert!(!scene.event_loop.outbox.is_changed);
    assert_eq!(scene.event_loop.outbox.touches, 1);
}

#[test]
fn a_wake_up_from_another_thread_ends_the_wait() {
    let mut scene = Scene::settled();
    let waker = scene.event_loop.kernel.waker();
    let before = std::time::Instant::now();
    let thread = std::thread::spawn(move || waker.wake().unwrap());
    scene.iterate();
    thread.join().unwrap();
    assert!(before.elapsed() < PATIENCE);
}

#[test]
fn a_refused_connection_comes_to_an_end_without_busy_waiting() {
    let mut scene = Scene::new();
    scene.event_loop.sockets.connect(ConnectionId(u64::MAX), (Ipv4Addr::LOCALHOST, 0).into(), None);
    scene.settle();
    assert!(scene.iterations < 100);
}

#[test]
fn a_request_to_terminate_ends_the_run() {
    let Scene { mut event_loop, mut dispatcher, controller, .. } = Scene::new();
    event_loop.outbox.is_busy = true;
    controller.send(Signal::Terminate).unwrap();
    event_loop.run(&mut dispatcher).unwrap();
    assert!(event_loop.stop_asked_at.is_some());
    assert!(event_loop.finish());
}

#[test]
fn the_end_of_the_outbox_ends_the_run_with_an_error() {
    let mut scene = Scene::settled();
    // What ends wakes the loop, which waits for answers otherwise.
    scene.event_loop.outbox.has_ended = true;
    scene.event_loop.kernel.waker().wake().unwrap();
    let error = scene.event_loop.run(&mut scene.dispatcher).unwrap_err();
    assert!(matches!(error, LoopError::OutboxEnded), "{error}");
}

#[test]
fn files_that_this_process_writes_itself_are_looked_at_now_and_then() {
    let mut scene = Scene::settled();
    let (mut change, _changes) = scene.changes();
    // As if a commit had only just begun.
    scene.event_loop.woken.outbox_rest_end = std::time::Instant::now() + PATIENCE;
    for _ in 0..3 {
        change.write_all(b"!").unwrap();
        scene.iterate();
    }
    assert_eq!(scene.event_loop.outbox.touches, 0);
    assert!(scene.wait().is_some_and(|wait| !wait.is_zero() && wait <= PATIENCE));
    scene.event_loop.woken.outbox_rest_end = std::time::Instant::now();
    assert_eq!(scene.wait(), Some(Duration::ZERO));
    scene.iterate();
    assert_eq!(scene.event_loop.outbox.touches, 1);
    assert!(scene.wait().is_none_or(|wait| !wait.is_zero()));
}

#[test]
fn the_loop_waits_no_longer_than_until_the_next_look_at_the_system() {
    let scene = Scene::settled();
    let left = scene.event_loop.sources.system.next_look() - std::time::Instant::now();
    assert!(scene.wait().is_some_and(|wait| wait <= left));
}
