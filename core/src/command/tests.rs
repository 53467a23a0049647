use super::*;
use crate::dsn::{EnvelopeId, Notify, OriginalRecipient, ReturnExtent};
use proptest::prelude::*;

fn line(command: Command<'_>) -> String {
    let mut line = BytesMut::new();
    command.write(&mut line);
    String::from_utf8(line.to_vec()).unwrap()
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).unwrap()
}

#[test]
fn parameters_follow_the_path() {
    let sender = mailbox("a@example.org");
    let mail = Command::Mail {
        reverse_path: Some(&sender),
        size: Some(0),
        body_8bit: true,
        smtputf8: true,
        wishes: None,
    };
    assert_eq!(line(mail), "MAIL FROM:<a@example.org> SIZE=0 BODY=8BITMIME SMTPUTF8\r\n");
    // RFC 5321 section 4.5.5: the null reverse-path
    let bounce =
        Command::Mail { reverse_path: None, size: None, body_8bit: false, smtputf8: false, wishes: None };
    assert_eq!(line(bounce), "MAIL FROM:<>\r\n");
}

#[test]
fn wishes_for_reports_follow_as_parameters() {
    // RFC 3461 section 4
    let (sender, recipient) = (mailbox("a@example.org"), mailbox("b@example.org"));
    let wishes = DsnWishes {
        notify: Some(Notify { success: true, failure: true, delay: false }),
        original_recipient: OriginalRecipient::parse("rfc822;was+b@example.org").ok(),
        message: MessageWishes {
            sign: Default::default(),
            extent: Some(ReturnExtent::Headers),
            envelope_id: EnvelopeId::parse("my id=1").ok(),
        },
    };
    let mail = |wishes| Command::Mail {
        reverse_path: Some(&sender),
        size: None,
        body_8bit: false,
        smtputf8: false,
        wishes,
    };
    let rcpt = |wishes| Command::Rcpt { forward_path: &recipient, wishes };
    assert_eq!(line(mail(Some(&wishes.message))), "MAIL FROM:<a@example.org> RET=HDRS ENVID=my+20id+3D1\r\n");
    assert_eq!(
        line(rcpt(Some(&wishes))),
        "RCPT TO:<b@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;was+2Bb@example.org\r\n"
    );
    let nothing = DsnWishes::default();
    assert_eq!(line(mail(Some(&nothing.message))), "MAIL FROM:<a@example.org>\r\n");
    assert_eq!(line(rcpt(Some(&nothing))), "RCPT TO:<b@example.org>\r\n");
    assert_eq!(line(rcpt(None)), "RCPT TO:<b@example.org>\r\n");
}

#[test]
fn secrets_are_neither_in_the_masked_form_nor_in_debug_output() {
    let auth = Command::Auth { mechanism: "PLAIN", initial_response: Some("c2VjcmV0") };
    assert_eq!(line(auth), "AUTH PLAIN c2VjcmV0\r\n");
    assert_eq!(auth.masked(), "AUTH PLAIN ***\r\n");
    assert_eq!(Command::AuthLine("c2VjcmV0").masked(), "***\r\n");
    assert_eq!(alloc::format!("{auth:?}"), "AUTH PLAIN ***\\r\\n");
}

proptest! {
    #[test]
    fn a_command_is_one_line_whatever_goes_in(text in "[a-z\r\n\0\x7f ]{0,20}") {
        for command in [
            Command::Ehlo(&text),
            Command::Helo(&text),
            Command::Auth { mechanism: &text, initial_response: Some(&text) },
            Command::AuthLine(&text),
        ] {
            let line = line(command);
            prop_assert!(line.ends_with("\r\n"));
            prop_assert_eq!(line.bytes().filter(u8::is_ascii_control).count(), 2);
        }
    }
}
