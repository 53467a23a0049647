use super::*;

#[test]
fn a_code_at_the_beginning_is_found() {
    assert_eq!(EnhancedStatus::parse_prefix(b"5.1.1 no such user"), Some((EnhancedStatus::new(5, 1, 1), 5)));
    assert_eq!(EnhancedStatus::parse_prefix(b"4.7.650"), Some((EnhancedStatus::new(4, 7, 650), 7)));
}

#[test]
fn what_merely_resembles_a_code_is_text() {
    for text in ["", "5.1", "5.1.1.1 x", "3.1.1 x", "5.1.1: x", "5.1.1000", "5.+1.1 x", "192.0.2.1"] {
        assert_eq!(EnhancedStatus::parse_prefix(text.as_bytes()), None, "{text}");
    }
}
