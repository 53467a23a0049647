//! Decides from one reply whether a refusal concerns the mail, the connection, or the channel.

use super::context::SessionContext;
use super::types::{Outcome, Refusal, RefusalKind};
use crate::command::CommandName;
use crate::ending::EndCause;
use crate::reply::{Reply, ReplyClass, ReplyCode};

/// Subjects of enhanced codes (RFC 3463 section 3): other, address, mailbox, protocol.
const ANYTHING: u16 = 0;
const ADDRESS: u16 = 1;
const MAILBOX: u16 = 2;
const PROTOCOL: u16 = 5;
/// Enhanced codes that say that the server accepts no mail now: the system accepts no messages, it is congested, the message has
/// too many recipients (RFC 3463 sections 3.4 to 3.6) although none was accepted yet.
const NOT_NOW: [(u16, u16); 3] = [(3, 2), (4, 5), (5, 3)];

/// A refusal that says that the connection is unsuitable for any mail, and the command that it answers.
#[derive(Clone, Debug)]
pub(super) struct Objection {
    reply: Reply,
    command: CommandName,
}

impl Objection {
    pub(super) fn find(reply: &Reply, command: CommandName) -> Option<Self> {
        reply.is_about_the_channel().then(|| Self { reply: reply.clone(), command })
    }

    /// Returns the cause by which the conversation ends.
    pub(super) fn into_cause(self) -> EndCause {
        EndCause::Refused(self.reply, self.command)
    }
}

/// Returns the verdict of a reply that is not a success: by its first digit (RFC 5321 section 4.2), except that a lack of room
/// for more recipients is never permanent, whichever code says so (section 4.5.3.1.10).
pub(super) fn verdict(reply: &Reply, command: CommandName) -> Outcome {
    let fatal =
        reply.class() == ReplyClass::Permanent && !(command == CommandName::Rcpt && is_no_room(reply));
    Outcome::Rejected { reply: reply.clone(), command, fatal }
}

/// Returns the outcome of the mail to which the server replies with a refusal of the connection.
pub(super) fn of_connection(kind: RefusalKind, reply: &Reply, command: CommandName) -> Outcome {
    Outcome::Refused(Refusal { kind, reply: reply.clone(), command })
}

/// Returns whether a reply to RCPT says that the transaction has no room for more recipients. 552 says the same as 452 (RFC 5321
/// section 4.5.3.1.10), unless its enhanced code concerns this mailbox, which is full.
pub(super) fn is_no_room(reply: &Reply) -> bool {
    match reply.code() {
        ReplyCode::INSUFFICIENT_STORAGE => true,
        ReplyCode::EXCEEDED_STORAGE => !is_about(reply, &[MAILBOX]),
        _ => false,
    }
}

/// Returns whether a reply to MAIL or DATA may say that the server accepts nothing on this connection for now.
pub(super) fn is_not_now(reply: &Reply) -> bool {
    reply.class() == ReplyClass::Transient && !is_about(reply, &[ADDRESS, MAILBOX])
}

/// Returns whether a reply to RCPT may say so, if no recipient was accepted before.
pub(super) fn is_not_now_to_rcpt(reply: &Reply) -> bool {
    let speaks_of_load = reply.enhanced().is_some_and(|code| NOT_NOW.contains(&(code.subject, code.detail)));
    (is_no_room(reply) && !is_about(reply, &[ADDRESS, MAILBOX])) || (is_not_now(reply) && speaks_of_load)
}

/// Returns whether a reply says that the server did not know or expect the command (RFC 5321 section 4.2.2). An enhanced code of
/// another subject than the protocol shows that it concerns the mail instead (RFC 3463 section 3.6).
pub(super) fn is_misunderstood(reply: &Reply) -> bool {
    is_command_error(reply)
        && reply.enhanced().is_none_or(|code| [ANYTHING, PROTOCOL].contains(&code.subject))
}

/// Returns whether a reply concerns the conversation so far: on a new connection the same command would be understood.
pub(super) fn is_out_of_step(reply: &Reply, cx: &SessionContext) -> bool {
    is_command_error(reply) && reply.enhanced().is_none() && cx.conduct.has_decided()
}

fn is_command_error(reply: &Reply) -> bool {
    matches!(
        reply.code(),
        ReplyCode::SYNTAX_ERROR | ReplyCode::COMMAND_NOT_IMPLEMENTED | ReplyCode::BAD_SEQUENCE_OF_COMMANDS
    )
}

fn is_about(reply: &Reply, subjects: &[u16]) -> bool {
    reply.enhanced().is_some_and(|code| subjects.contains(&code.subject))
}
