use super::*;

const INTERVAL: Duration = Duration::from_secs(8);
const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(seconds)
}

#[test]
fn nothing_is_walked_over_unless_somebody_has_written() {
    let mut rescan = Rescan::default();
    assert_eq!((rescan.due(INTERVAL), rescan.take_due(at(100), INTERVAL)), (None, None));
    rescan.request();
    assert_eq!(rescan.take_due(at(100), INTERVAL), Some(Cursor::BeforeFirst));
    rescan.answered(at(101), None, SECOND);
    assert_eq!(rescan.due(INTERVAL), None);
}

#[test]
fn a_slice_is_followed_by_a_rest_as_long_as_it_but_not_too_long() {
    let mut rescan = Rescan::default();
    let next = Cursor::After(MailId(7));
    rescan.request();
    for (longest_rest, rest) in [(SECOND * 10, 3), (SECOND, 1)] {
        rescan.take_due(at(100), INTERVAL).unwrap();
        rescan.answered(at(103), Some(next), longest_rest);
        assert_eq!(rescan.due(INTERVAL), Some(at(103 + rest)));
        rescan.step = RescanStep::Next(next, at(0));
    }
    assert_eq!(rescan.take_due(at(104), INTERVAL), Some(next));
}

#[test]
fn somebody_who_writes_all_the_time_brings_walks_within_the_interval_and_not_more_often() {
    let mut rescan = Rescan::default();
    rescan.request();
    rescan.take_due(at(100), INTERVAL).unwrap();
    rescan.request();
    rescan.answered(at(101), None, SECOND);
    assert_eq!(rescan.due(INTERVAL), Some(at(106)));
    // One that takes longer than that is followed by the next at once.
    rescan.take_due(at(106), INTERVAL).unwrap();
    rescan.request();
    rescan.answered(at(120), None, SECOND);
    assert_eq!(rescan.take_due(at(120), INTERVAL), Some(Cursor::BeforeFirst));
}

#[test]
fn a_slice_that_cannot_be_had_is_asked_for_again() {
    let mut rescan = Rescan::default();
    rescan.request();
    rescan.take_due(at(100), INTERVAL).unwrap();
    let after = Cursor::After(MailId(7));
    rescan.failed(at(101), after);
    assert_eq!(rescan.due(INTERVAL), Some(at(102)));
    assert_eq!(rescan.take_due(at(102), INTERVAL), Some(after));
}
