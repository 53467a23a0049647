use super::*;

#[test]
fn a_span_shows_its_two_largest_units() {
    for (seconds, shown) in [
        (-5, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h"),
        (7500, "2h5m"),
        (86_400, "1d"),
        (86_400 + 59, "1d"),
        (3 * 86_400 + 4 * 3600, "3d4h"),
    ] {
        assert_eq!(Span(seconds).to_string(), shown);
    }
}
