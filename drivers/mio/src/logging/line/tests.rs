use super::*;

#[test]
fn a_line_has_a_time_and_a_level_and_no_control_characters() {
    let line = line(Level::Warn, "a\r\nb\u{1b}[31mü\n", None);
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let age = time.parse::<Timestamp>().unwrap().duration_until(Timestamp::now());
    assert!((0..60).contains(&age.as_secs()), "{time}");
    assert_eq!(rest, "WARN  a / b\\u{1b}[31mü\n");
}

#[test]
fn a_long_line_is_cut_between_characters_and_says_how_much() {
    let message = "ü".repeat(LINE_LIMIT_OCTETS);
    let line = line(Level::Warn, &message, Some(LINE_LIMIT_OCTETS));
    assert!(line.len() <= LINE_LIMIT_OCTETS, "{}", line.len());
    let (kept, rest) = line.split_once("… (").unwrap();
    let kept = kept.chars().filter(|character| *character == 'ü').count();
    assert_eq!(rest, format!("{} octets more)\n", message.len() - 2 * kept));
    assert!(LINE_LIMIT_OCTETS - line.len() < MARK_LIMIT_OCTETS, "{}", line.len());
}

#[test]
fn a_line_without_a_limit_is_whole() {
    let message = "x".repeat(10 * LINE_LIMIT_OCTETS);
    assert!(line(Level::Trace, &message, None).ends_with(&format!(" {message}\n")));
}
