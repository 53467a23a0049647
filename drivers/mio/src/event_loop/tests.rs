use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::net::Ipv4Addr;

use cmail_delivery::dispatcher::Mode;
use cmail_delivery::io::{ConnectionId, Purpose};
use cmail_delivery::settings::{Hosts, ResolverSettings, Settings};
use mio::unix::pipe;

use super::*;
use crate::testing::{PATIENCE, authority, loopback, trust_file};

fn event_loop() -> EventLoop {
    let tls = TlsContext::load(Some(trust_file(&authority()).path())).unwrap();
    EventLoop::new(tls, LocalAddresses::default()).unwrap()
}

fn dispatcher(now: Now) -> Dispatcher {
    let resolver = ResolverSettings { servers: Vec::new(), timeout: Duration::from_secs(60), attempts: 1 };
    let settings =
        Settings { interval: Duration::from_secs(3600), resolver, ..Settings::new("mta.example.org") };
    Dispatcher::new(now, settings, Hosts::new(), Mode::Daemon, [0; 32])
}

pub(super) fn environment<'a>() -> Environment<'a> {
    Environment {
        submit: Box::new(|_, _| {}),
        poll_reply: Box::new(|| None),
        signals: Box::new(Vec::new),
        outbox_touched: Box::new(|| {}),
        outbox_changed: Box::new(|| false),
        outbox_has_ended: Box::new(|| false),
        reopen_log: Box::new(|| {}),
        read_system: Box::new(|_| SystemNews::default()),
        system_interval: Duration::from_secs(3600),
    }
}

/// Iterates until the loop would wait, and says how often it did.
fn settle(event_loop: &mut EventLoop, dispatcher: &mut Dispatcher, environment: &mut Environment<'_>) -> u64 {
    let before = event_loop.iterations;
    while event_loop.wait(dispatcher) == Some(Duration::ZERO) {
        assert_eq!(event_loop.iterate(dispatcher, environment).unwrap(), Flow::GoOn);
        assert!(event_loop.iterations - before < 1000, "the loop does not come to rest");
    }
    event_loop.iterations - before
}

#[test]
fn an_idle_loop_with_an_idle_connection_does_not_wake_up() {
    let mut event_loop = event_loop();
    let mut dispatcher = dispatcher(event_loop.now());
    let mut environment = environment();
    let (listener, address) = loopback();
    event_loop.sockets.connect(ConnectionId(u64::MAX), address, Purpose::Dns);
    let (_stream, _) = listener.accept().unwrap();
    event_loop.iterate(&mut dispatcher, &mut environment).unwrap();
    let least = Some(Duration::from_millis(50));
    while {
        settle(&mut event_loop, &mut dispatcher, &mut environment);
        event_loop.poll.poll(&mut event_loop.events, least).unwrap();
        assert!(event_loop.iterations < 1000, "the loop does not come to rest");
        !event_loop.events.is_empty()
    } {
        for event in &event_loop.events {
            event_loop.sockets.on_event(event);
        }
        event_loop.iterate(&mut dispatcher, &mut environment).unwrap();
    }
    assert!(event_loop.wait(&dispatcher).is_none_or(|wait| wait > Duration::from_secs(1)));
}

#[test]
fn a_wake_up_of_the_outbox_takes_its_answers_and_then_waits_again() {
    let answers = Cell::new(0_u64);
    let mut event_loop = event_loop();
    let mut dispatcher = dispatcher(event_loop.now());
    let mut environment = Environment {
        poll_reply: Box::new(|| {
            let left = answers.get().checked_sub(1)?;
            answers.set(left);
            Some((
                RequestId(u64::MAX - left),
                Err(StoreError {
                    trouble: cmail_delivery::outbox::StoreTrouble::Busy,
                    text: "not asked".to_owned(),
                }),
            ))
        }),
        ..environment()
    };
    settle(&mut event_loop, &mut dispatcher, &mut environment);
    answers.set(3);
    event_loop.waker().wake().unwrap();
    event_loop.iterate(&mut dispatcher, &mut environment).unwrap();
    assert_eq!(answers.get(), 0);
    assert!(!event_loop.woken.store);
}

#[test]
fn many_answers_of_the_outbox_leave_turns_to_the_sockets() {
    let answers = Cell::new(1000_u64);
    let mut event_loop = event_loop();
    let mut dispatcher = dispatcher(event_loop.now());
    let mut environment = Environment {
        poll_reply: Box::new(|| {
            let left = answers.get().checked_sub(1)?;
            answers.set(left);
            Some((
                RequestId(u64::MAX - left),
                Err(StoreError {
                    trouble: cmail_delivery::outbox::StoreTrouble::Busy,
                    text: "not asked".to_owned(),
                }),
            ))
        }),
        ..environment()
    };
    event_loop.iterate(&mut dispatcher, &mut environment).unwrap();
    assert_eq!(answers.get(), 1000 - u64::try_from(REPLIES_PER_ITERATION).unwrap());
    settle(&mut event_loop, &mut dispatcher, &mut environment);
    assert_eq!(answers.get(), 0, "answers were left without another wake-up");
}

#[test]
fn signals_and_changes_of_the_outbox_are_taken_when_their_sources_are_readable() {
    let log = RefCell::new(Vec::new());
    let note = |what: &'static str| log.borrow_mut().push(what);
    let pending = RefCell::new(vec![Signal::Hangup]);
    let (is_changed, touches) = (Cell::new(false), Cell::new(0));
    let mut event_loop = event_loop();
    let mut dispatcher = dispatcher(event_loop.now());
    let mut environment = Environment {
        signals: Box::new(|| pending.take()),
        outbox_touched: Box::new(|| touches.set(touches.get() + 1)),
        outbox_changed: Box::new(|| {
            let has_changed = is_changed.take();
            if has_changed {
                note("outbox");
            }
            has_changed
        }),
        reopen_log: Box::new(|| note("log")),
        read_system: Box::new(|occasion| {
            assert_eq!(occasion, Occasion::Order);
            note("system");
            SystemNews::default()
        }),
        ..environment()
    };
    // A signal from before the registration had no event.
    settle(&mut event_loop, &mut dispatcher, &mut environment);
    assert_eq!(log.take(), ["log", "system"]);

    let (mut signal, mut signals) = pipe::new().unwrap();
    let (mut change, mut changes) = pipe::new().unwrap();
    event_loop.register(&mut signals, Registration::Signals).unwrap();
    event_loop.register(&mut changes, Registration::Outbox).unwrap();
    pending.borrow_mut().push(Signal::ReopenLog);
    signal.write_all(b"!").unwrap();
    event_loop.iterate(&mut dispatcher, &mut environment).unwrap();
    assert_eq!(log.take(), ["log"]);
    settle(&mut event_loop, &mut dispatcher, &mut environment);
    is_changed.set(true);
    change.write_all(b"!").unwrap();
    event_loop.iterate(&mut dispatcher, &mut environment).unwrap();
    assert_eq!((log.take(), touches.get()), (vec!["outbox"], 1));
    // The thread that answers may have found a change too.
    settle(&mut event_loop, &mut dispatcher, &mut environment);
    is_changed.set(true);
    event_loop.waker().wake().unwrap();
    event_loop.iterate(&mut dispatcher, &mut environment).unwrap();
    assert_eq!(log.take(), ["outbox"]);
}

#[test]
fn a_wake_up_from_another_thread_ends_the_wait() {
    let mut event_loop = event_loop();
    let mut dispatcher = dispatcher(event_loop.now());
    let mut environment = environment();
    settle(&mut event_loop, &mut dispatcher, &mut environment);
    let waker = event_loop.waker();
    let before = std::time::Instant::now();
    let thread = std::thread::spawn(move || waker.wake().unwrap());
    event_loop.iterate(&mut dispatcher, &mut environment).unwrap();
    thread.join().unwrap();
    assert!(before.elapsed() < PATIENCE);
}

#[test]
fn the_monotonic_clock_does_not_go_back_and_the_other_is_the_systems() {
    let clock = Clock::new();
    let (first, second) = (clock.now(), clock.now());
    assert!(first.monotonic <= second.monotonic);
    let system = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(second.wall.0.abs_diff(i64::try_from(system).unwrap()) <= 1);
}

#[test]
fn a_refused_connection_comes_to_an_end_without_busy_waiting() {
    let mut event_loop = event_loop();
    let mut dispatcher = dispatcher(event_loop.now());
    let mut environment = environment();
    event_loop.sockets.connect(ConnectionId(u64::MAX), (Ipv4Addr::LOCALHOST, 0).into(), Purpose::Dns);
    assert!(settle(&mut event_loop, &mut dispatcher, &mut environment) < 100);
}

#[test]
fn a_request_to_terminate_ends_the_run() {
    let requests = RefCell::new(Vec::new());
    let pending = RefCell::new(vec![Signal::Terminate]);
    let mut event_loop = event_loop();
    let mut dispatcher = dispatcher(event_loop.now());
    let mut environment = Environment {
        submit: Box::new(|request, _| requests.borrow_mut().push(request)),
        poll_reply: Box::new(|| {
            let request = requests.borrow_mut().pop()?;
            Some((
                request,
                Err(StoreError {
                    trouble: cmail_delivery::outbox::StoreTrouble::Busy,
                    text: "the database is busy".to_owned(),
                }),
            ))
        }),
        signals: Box::new(|| pending.take()),
        ..environment()
    };
    event_loop.run(&mut dispatcher, &mut environment).unwrap();
    assert!(pending.borrow().is_empty());
}

#[test]
fn the_end_of_the_outbox_ends_the_run_with_an_error() {
    let mut event_loop = event_loop();
    let mut dispatcher = dispatcher(event_loop.now());
    let has_ended = Cell::new(false);
    let mut environment = Environment { outbox_has_ended: Box::new(|| has_ended.get()), ..environment() };
    settle(&mut event_loop, &mut dispatcher, &mut environment);
    // What ends wakes the loop, which waits for answers otherwise.
    has_ended.set(true);
    event_loop.waker().wake().unwrap();
    let error = event_loop.run(&mut dispatcher, &mut environment).unwrap_err();
    assert!(matches!(error, LoopError::Deserted), "{error}");
}

#[test]
fn files_that_this_process_writes_itself_are_looked_at_now_and_then() {
    let touches = Cell::new(0);
    let mut event_loop = event_loop();
    let mut dispatcher = dispatcher(event_loop.now());
    let mut environment =
        Environment { outbox_touched: Box::new(|| touches.set(touches.get() + 1)), ..environment() };
    settle(&mut event_loop, &mut dispatcher, &mut environment);
    let (mut change, mut changes) = pipe::new().unwrap();
    event_loop.register(&mut changes, Registration::Outbox).unwrap();
    // As if a commit had only just begun.
    event_loop.outbox_rest_end = std::time::Instant::now() + PATIENCE;
    for _ in 0..3 {
        change.write_all(b"!").unwrap();
        event_loop.iterate(&mut dispatcher, &mut environment).unwrap();
    }
    assert_eq!(touches.get(), 0);
    assert!(event_loop.wait(&dispatcher).is_some_and(|wait| !wait.is_zero() && wait <= PATIENCE));
    event_loop.outbox_rest_end = std::time::Instant::now();
    assert_eq!(event_loop.wait(&dispatcher), Some(Duration::ZERO));
    event_loop.iterate(&mut dispatcher, &mut environment).unwrap();
    assert_eq!(touches.get(), 1);
    assert!(event_loop.wait(&dispatcher).is_none_or(|wait| !wait.is_zero()));
}

#[test]
fn the_system_is_looked_at_now_and_then() {
    let looks = Cell::new(0);
    let mut event_loop = event_loop();
    let mut dispatcher = dispatcher(event_loop.now());
    let mut environment = Environment {
        read_system: Box::new(|occasion| {
            assert_eq!(occasion, Occasion::Look);
            looks.set(looks.get() + 1);
            SystemNews::default()
        }),
        system_interval: Duration::from_secs(10),
        ..environment()
    };
    settle(&mut event_loop, &mut dispatcher, &mut environment);
    assert_eq!(looks.get(), 0);
    assert!(event_loop.wait(&dispatcher).is_some_and(|wait| wait <= Duration::from_secs(10)));
    event_loop.system_look_at = Some(std::time::Instant::now());
    assert_eq!(event_loop.wait(&dispatcher), Some(Duration::ZERO));
    event_loop.iterate(&mut dispatcher, &mut environment).unwrap();
    assert_eq!(looks.get(), 1);
    assert!(event_loop.wait(&dispatcher).is_some_and(|wait| wait > Duration::from_secs(5)));
}
