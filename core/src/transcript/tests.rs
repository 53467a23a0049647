use alloc::format;
use alloc::string::String;

use super::{HEAD_LIMIT_OCTETS, LINE_LIMIT_OCTETS, Speaker, TAIL_LIMIT_OCTETS, Transcript};
use crate::time::Instant;

fn at(millis: u64) -> Instant {
    Instant::from_micros((1000 + millis) * 1000)
}

#[test]
fn lines_have_time_and_speaker() {
    let mut transcript = Transcript::new(at(0));
    transcript.note(at(7), Speaker::Server, b"220 mx ready\r\n");
    transcript.note(at(12), Speaker::Client, b"EHLO me\r\n");
    transcript.note(at(61_234), Speaker::Server, b"250-mx\r\n250 SIZE\r\n");
    transcript.note(at(61_234), Speaker::Remark, b"TLS 1.3");
    assert_eq!(
        transcript.text(),
        "0.007 < 220 mx ready\n0.012 > EHLO me\n61.234 < 250-mx\n61.234 < 250 SIZE\n61.234 * TLS 1.3\n"
    );
}

#[test]
fn mail_data_are_one_line() {
    let mut transcript = Transcript::new(at(0));
    transcript.note_data(1000);
    transcript.note_data(24);
    transcript.note(at(5), Speaker::Server, b"250 ok");
    transcript.note_data(3);
    assert_eq!(
        transcript.text(),
        "0.005 > [1024 octets of mail data]\n0.005 < 250 ok\n[3 octets of mail data, and no reply]\n"
    );
}

#[test]
fn control_characters_are_not_repeated() {
    let mut transcript = Transcript::new(at(0));
    transcript.note(at(0), Speaker::Server, b"250 \x1b[2J\rx \xff");
    let text = transcript.text();
    assert_eq!(text.chars().filter(|character| character.is_control()).count(), 1, "{text:?}");
}

/// However long a conversation, its first and its last lines are there, and it takes no more room than both limits.
#[test]
fn beginning_and_end_are_kept() {
    let mut transcript = Transcript::new(at(0));
    for number in 0..10_000 {
        transcript.note(
            at(number),
            Speaker::Client,
            format!("RCPT TO:<{number}@example.org>\r\n").as_bytes(),
        );
    }
    let text = transcript.text();
    assert!(text.starts_with("0.000 > RCPT TO:<0@example.org>\n0.001 > "), "{text}");
    assert!(text.ends_with("9.999 > RCPT TO:<9999@example.org>\n"), "{text}");
    let omitted = text.lines().find(|line| line.starts_with('[')).unwrap_or_default();
    let kept = text.lines().count() - 1;
    assert_eq!(omitted, format!("[{} lines are left out]", 10_000 - kept));
    assert!(transcript.head.octets() <= HEAD_LIMIT_OCTETS && transcript.tail.octets() <= TAIL_LIMIT_OCTETS);
    let smallest = HEAD_LIMIT_OCTETS + TAIL_LIMIT_OCTETS - 100;
    assert!(text.len() >= smallest, "{} octets", text.len());
}

#[test]
fn long_lines_are_cut() {
    let mut transcript = Transcript::new(at(0));
    let line: String = core::iter::repeat_n('x', 10 * LINE_LIMIT_OCTETS).collect();
    for _ in 0..20 {
        transcript.note(at(0), Speaker::Server, line.as_bytes());
    }
    for line in transcript.text().lines().filter(|line| !line.starts_with('[')) {
        assert!(line.ends_with("x [...]") && line.len() < LINE_LIMIT_OCTETS + 20, "{line}");
    }
}
