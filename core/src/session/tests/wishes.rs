//! What senders want to be told (RFC 3461 section 5.2).

use super::*;
use crate::dsn::{EnvelopeId, Notify, OriginalRecipient, ReturnExtent};

fn wishing() -> Transaction {
    let mut transaction = mail(2, "x");
    for recipient in &mut transaction.recipients {
        recipient.wishes.message.extent = Some(ReturnExtent::Full);
        recipient.wishes.message.envelope_id = EnvelopeId::parse("a=b").ok();
    }
    transaction.recipients[0].wishes.notify = Some(Notify::NEVER);
    transaction.recipients[1].wishes.original_recipient = OriginalRecipient::parse("rfc822;x@y").ok();
    transaction
}

#[test]
fn wishes_are_passed_on_where_dsn_is_offered() {
    dialogue(&plain(), |talk| {
        talk.make_ready("DSN");
        talk.begin(wishing()).client("MAIL FROM:<s@example.org> RET=FULL ENVID=a+3Db\r\n");
        talk.server("250 ok\r\n").client("RCPT TO:<r1@example.net> NOTIFY=NEVER\r\n");
        talk.server("250 ok\r\n").client("RCPT TO:<r2@example.net> ORCPT=rfc822;x@y\r\n");
    });
}

#[test]
fn wishes_are_kept_where_dsn_is_not_offered() {
    dialogue(&plain(), |talk| {
        talk.make_ready("");
        talk.begin(wishing()).client("MAIL FROM:<s@example.org>\r\n");
        talk.server("250 ok\r\n").client("RCPT TO:<r1@example.net>\r\n");
        talk.server("250 ok\r\n").client("RCPT TO:<r2@example.net>\r\n");
    });
}
