use super::*;
use crate::attempt::{Failure, Unreached};
use crate::status::EnhancedStatus;
use alloc::sync::Arc;
use alloc::vec::Vec;

fn failure() -> PassFailure {
    let unreached =
        Unreached { is_relay: false, tried: Vec::new(), host: None, status: EnhancedStatus::NULL_MX };
    Failure::Unreached(Arc::new(unreached)).into()
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

#[test]
fn what_waits_for_its_turn_stays_small() {
    // There may be a million of these.
    assert!(size_of::<Destination>() <= 56, "{}", size_of::<Destination>());
}

#[test]
fn a_server_that_has_had_enough_is_left_alone_for_longer_each_time_until_it_takes_more() {
    let mut destination = Destination::new(Limits::default(), Arc::default());
    let mut pauses = || [(); 4].map(|()| destination.note_refusing(minutes(1), minutes(5)));
    assert_eq!(pauses(), [1, 2, 4, 5].map(minutes));
    destination.end_refusing();
    assert_eq!(destination.note_refusing(minutes(1), minutes(5)), minutes(1));
}

#[test]
fn mail_is_blamed_three_times_before_its_next_hop_and_the_newest_goes_first_meanwhile() {
    let mut destination = Destination::new(Limits::default(), Arc::default());
    let mut fail = |is_partly_tried: bool| {
        let exhausted = ExhaustedPass {
            failure: failure(),
            since: Instant::default(),
            end: Cursor::BeforeFirst,
            only_tried: None,
        };
        destination.replace_state(DestinationState::Exhausted(Box::new(exhausted)));
        let (_, first) = destination.exhausted(is_partly_tried).unwrap();
        // However often it is asked.
        let (_, again) = destination.exhausted(!is_partly_tried).unwrap();
        assert_eq!(first, again);
        (first, destination.order())
    };
    let (newest, oldest) = (Order::NewestFirst, Order::OldestFirst);
    assert_eq!([(); 3].map(|()| fail(true)), [(true, newest); 3]);
    assert_eq!(fail(true), (false, oldest));
    assert_eq!(fail(true), (true, newest));
    assert_eq!(fail(false), (false, oldest), "all of it was tried");
}

#[test]
fn a_pause_for_the_server_stays_one_and_does_not_undo_a_failure() {
    let until = Instant::from_micros(7);
    let mut then = Then::Again;
    let pause = |until, why| Pause { until, why };
    let later = until + minutes(1);
    then.pause(pause(until, PauseReason::Server("full".into())));
    then.pause(pause(later, PauseReason::Rate));
    assert!(matches!(&then, Then::Pause(pause) if pause.is_for_server() && pause.until == later));
    then = Then::Fail(Box::new(ExhaustedPass {
        failure: failure(),
        since: until,
        end: Cursor::BeforeFirst,
        only_tried: None,
    }));
    then.pause(pause(until, PauseReason::Rate));
    assert!(matches!(then, Then::Fail(_)));
}
