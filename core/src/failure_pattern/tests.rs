use alloc::string::ToString as _;

use super::*;

fn failure(kind: AttemptKind, code: u16, status: &str) -> LastFailure {
    let status = EnhancedStatus::parse_prefix(status.as_bytes()).map(|(status, _)| status);
    LastFailure { kind, code: Some(code).filter(|code| *code > 0), status }
}

#[track_caller]
fn matches(pattern: &str, failure: LastFailure) -> bool {
    FailurePattern::parse(pattern).unwrap().matches(failure)
}

#[test]
fn a_failure_is_met_by_its_kind_its_code_or_its_status() {
    let full = failure(AttemptKind::Recipient, 452, "4.2.2");
    for pattern in ["*", "recipient", "452", "45", "4", "4.2.2", "4.2"] {
        assert!(matches(pattern, full), "{pattern}");
    }
    for pattern in ["connect", "451", "42", "5", "4.2.1", "4.3", "5.2.2"] {
        assert!(!matches(pattern, full), "{pattern}");
    }
    let silent = failure(AttemptKind::Connect, 0, "4.4.1");
    assert!(matches("connect", silent) && matches("4.4", silent));
    assert!(!matches("4", silent), "no server has replied");
}

#[test]
fn a_pattern_is_written_as_it_is_read() {
    for text in ["*", "dns", "uncertain", "local", "421", "45", "4", "5", "4.2.2", "4.2", "5.7.26", "4.0"] {
        assert_eq!(FailurePattern::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn what_meets_nothing_is_no_pattern() {
    for text in
        ["", "delivered", "address", "Connect", "2", "250", "3.1.1", "4.", "4.2.2.2", "4..2", "4567", "x"]
    {
        assert_eq!(FailurePattern::parse(text), Err(FailurePatternError), "{text}");
    }
    for text in ["42.1", "4.1000", "-4", "4.x", "+4", "4 5"] {
        assert_eq!(FailurePattern::parse(text), Err(FailurePatternError), "{text}");
    }
}

#[test]
fn a_failure_that_others_have_recorded_is_read_from_its_text() {
    let of = |text: &str| LastFailure::of_text(text.as_bytes());
    assert_eq!(
        of("450-4.2.1 busy\n450 4.2.1 later\n(mx.example [192.0.2.1]:25, in reply to RCPT TO)"),
        failure(AttemptKind::Recipient, 450, "4.2.1")
    );
    assert_eq!(
        of("421 no\n(mx.example [192.0.2.1]:25, in reply to greeting)"),
        failure(AttemptKind::Greeting, 421, "")
    );
    assert_eq!(of("Failed to resolve recipient domain"), failure(AttemptKind::Dns, 0, ""));
    assert_eq!(
        of("Failed to reach any MX: mx.example [192.0.2.1]:25: connection refused [4.4.1]"),
        failure(AttemptKind::Connect, 0, "4.4.1")
    );
    assert_eq!(of("451 try later"), failure(AttemptKind::Recipient, 451, ""));
    assert_eq!(of(""), failure(AttemptKind::Lost, 0, ""));
}
