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

/// A time without an offset is one of the zone in which times are shown.
#[test]
fn a_time_is_read_as_it_is_shown() {
    let now = UnixTime(1_796_000_000);
    let berlin = Clock { zone: TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::UTC) };
    let utc = Clock::new(true);
    for clock in [&berlin, &utc] {
        let shown = clock.show(now.into());
        let without_offset = shown.get(..19).unwrap();
        for text in [&*shown, without_offset, &*without_offset.replace(' ', "T")] {
            assert_eq!(clock.resolve(text.parse().unwrap(), now), now.into(), "{text}");
        }
    }
    assert_eq!(utc.show(now.into()), "2026-11-30 00:53:20+00:00");
    assert_eq!(utc.resolve("2026-11-30".parse().unwrap(), now), UnixMillis(1_795_996_800_000));
    assert_eq!(utc.resolve("2h".parse().unwrap(), now), UnixMillis((now.0 - 7200) * 1000));
    assert_eq!(utc.show(UnixMillis(i64::MAX)), (i64::MAX / 1000).to_string());
}

#[test]
fn what_is_no_time_is_refused() {
    for text in ["", "yesterday", "5w", "2026-13-01", "14:00"] {
        assert_eq!(text.parse::<Since>(), Err(SinceError), "{text}");
    }
}
