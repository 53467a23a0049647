use super::*;
use crate::dsn::DsnWishes;
use crate::hold::Hold;

#[test]
fn a_cursor_reaches_both_ends_of_the_ids() {
    let after = |id| Cursor::After(MailId(id)).next_id();
    assert_eq!(Cursor::BeforeFirst.next_id(), Some(MailId(i64::MIN)));
    assert_eq!(after(i64::MIN), Some(MailId(i64::MIN + 1)));
    assert_eq!((after(0), after(i64::MAX)), (Some(MailId(1)), None));
    assert!(Cursor::BeforeFirst < Cursor::After(MailId(i64::MIN)));
}

#[test]
fn the_null_path_is_known_however_it_is_written() {
    for path in ["", "<>", " ", " <>\r\n"] {
        assert!(is_null_path(path.as_bytes()), "{path:?}");
    }
    for path in ["<", "<a@example.org>", "a@example.org", "< >"] {
        assert!(!is_null_path(path.as_bytes()), "{path:?}");
    }
}

#[test]
fn no_output_shows_what_may_hold_a_password() {
    let row = Row {
        id: MailId(1),
        remote: Some(b"user:hunter2@relay.example"[..].into()),
        sender: None,
        recipient: b"r@example.net"[..].into(),
        submission: UnixTime(0),
        data_octets: 0,
        fail_count: 0,
        last_try: UnixTime(0),
        fatal: false,
        last_failure: None,
        hold: Hold::default(),
        wishes: DsnWishes::default(),
    };
    // In the way in which octets are printed, the password would begin so.
    assert!(!alloc::format!("{row:?}").contains("104, 117, 110"), "{row:?}");
}
