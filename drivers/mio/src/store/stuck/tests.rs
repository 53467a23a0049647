use super::super::fixture::Fixture;
use super::*;

#[test]
fn a_note_is_about_the_mail_that_was_taken_and_about_no_other_in_its_place() {
    let fixture = Fixture::new();
    let connection = &fixture.database.connection;
    // The last one comes from a machine whose clock is wrong, or from a program that writes something else there.
    for submission in ["0", "strftime('%s', 'now')", "strftime('%s', 'now') + 100000", "'2026-11-30'"] {
        let id = fixture.mail(None, "a@example.org", b"x");
        let submit = |submission: &str| {
            let set = format!("UPDATE outbox SET mail_submission = {submission} WHERE mail_id = ?1");
            fixture.execute(&set, [id.0]);
        };
        submit(submission);
        note(connection, id, "why").unwrap();
        assert!(contains(connection, id).unwrap(), "{submission}");
        assert_eq!(between(connection, id, id).unwrap(), [id], "{submission}");
        assert_eq!(successor(connection, id).unwrap(), None, "{submission}");
        submit("(SELECT since + 1 FROM dispatch_stuck WHERE dispatch_stuck.mail_id = outbox.mail_id)");
        assert!(!contains(connection, id).unwrap(), "{submission}");
        assert_eq!(between(connection, id, id).unwrap(), [], "{submission}");
        assert_eq!(successor(connection, id).unwrap().map(|row| row.id), Some(id), "{submission}");
        // Should that be taken as well, and not be deleted either.
        note(connection, id, "why").unwrap();
        assert!(contains(connection, id).unwrap(), "{submission}");
    }
}
