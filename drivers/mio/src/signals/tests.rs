use super::*;
use mio::{Events, Poll};
use std::time::Duration;

#[test]
fn a_signal_wakes_the_poll_and_is_drained_once() {
    let mut signals = Signals::take().unwrap();
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut signals, Token(7), Interest::READABLE).unwrap();
    assert_eq!(signals.drain(), []);
    // A signal for this thread alone cannot reach the other tests of the process.
    signal::raise(signal::SIGHUP).unwrap();
    signal::raise(signal::SIGTERM).unwrap();
    signal::raise(signal::SIGALRM).unwrap();
    let mut events = Events::with_capacity(4);
    poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
    assert!(events.iter().any(|event| event.token() == Token(7)));
    let drained = signals.drain();
    let alarm = Signal::Meaningless { number: 14, sender: std::process::id() };
    assert_eq!(drained.len(), 3, "{drained:?}");
    assert!(
        [Signal::Hangup, Signal::Terminate, alarm].iter().all(|signal| drained.contains(signal)),
        "{drained:?}"
    );
    assert_eq!(signals.drain(), []);
}

#[test]
fn a_controller_wakes_the_poll_and_says_terminate_when_it_is_dropped() {
    let (mut signals, controller) = Signals::controlled().unwrap();
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut signals, Token(7), Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(4);
    let mut woken = || {
        poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
        events.iter().any(|event| event.token() == Token(7))
    };
    assert_eq!(signals.drain(), []);
    let sent = [Signal::Hangup, Signal::ReopenLog, Signal::TryNow, Signal::Terminate];
    for signal in sent {
        controller.send(signal).unwrap();
    }
    assert!(woken());
    // The check leaves all of them to be drained.
    assert!(signals.check_for_terminate());
    assert_eq!(signals.drain(), sent);
    assert_eq!(signals.drain(), []);
    drop(controller);
    assert!(woken());
    assert!(signals.check_for_terminate());
    assert_eq!(signals.drain(), [Signal::Terminate]);
}

#[test]
fn a_controller_learns_that_the_engine_has_ended() {
    let (signals, controller) = Signals::controlled().unwrap();
    drop(signals);
    assert!(controller.send(Signal::Hangup).is_err());
}

#[test]
fn signals_have_names_as_far_as_they_have_any() {
    assert_eq!([name(14), name(40)], ["SIGALRM", "signal 40"]);
}
