//! The fields of records of `--json`. `docs/json.md` lists them; within a version fields are only added.

use cmail_delivery::hold::{HeldBy, HoldId};
use cmail_delivery::one_line::Octets;
use cmail_delivery::schedule::RetryState;
use cmail_delivery::time::UnixMillis;
use serde::Serialize;

use super::outlook::Outlook;
use crate::selection::Place;
use crate::store::{FaillogRow, QueuedMail};

/// A failure of a mail that only the faillog has.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    mail_id: i64,
    at_ms: Option<i64>,
    fatal: bool,
    code: Option<u16>,
    status: Option<String>,
    text: String,
}

impl Failure {
    pub(super) fn new(mail_id: i64, row: &FaillogRow) -> Self {
        let failure = &row.failure;
        Self {
            mail_id,
            at_ms: row.at.map(|at| UnixMillis::from(at).0),
            fatal: row.is_fatal,
            code: failure.reply.as_ref().map(|reply| reply.code),
            status: failure.status.map(|status| status.to_string()),
            text: failure.text.clone(),
        }
    }
}

/// A mail of the outbox.
#[derive(Debug, Serialize)]
pub(super) struct Mail {
    mail_id: i64,
    place: &'static str,
    submitted: Option<i64>,
    submitter: Option<String>,
    octets: u64,
    sender: Option<String>,
    recipient: String,
    next_hop: Option<String>,
    tries: u32,
    last_ms: Option<i64>,
    next_ms: Option<i64>,
    /// The line of the configuration that decides that; `None` if `retryinterval` and `retries` do.
    retry_line: Option<u32>,
    /// What holds it, and why.
    held_by: Option<String>,
    hold_line: Option<u32>,
    hold_id: Option<i64>,
    failure: Option<String>,
    code: Option<u16>,
    status: Option<String>,
    text: Option<String>,
    notify: Option<String>,
    orcpt: Option<String>,
    ret: Option<String>,
    envid: Option<String>,
}

impl Mail {
    pub(super) fn new(mail: &QueuedMail, outlook: &Outlook<'_>) -> Self {
        let standing = outlook.standing;
        let row = &mail.row;
        let failure = row.last_failure;
        let next = match (mail.place(standing), standing.of(row)) {
            (Place::Taken, _) | (_, RetryState::GivenUp | RetryState::Held(_)) => None,
            (_, RetryState::Due) => Some(standing.now),
            (_, RetryState::NotBefore(time)) => Some(time),
        };
        let (hold_line, hold_id) = match standing.of(row) {
            RetryState::Held(HeldBy::Line(line)) => (Some(line), None),
            RetryState::Held(HeldBy::Hold(HoldId(hold))) => (None, Some(hold)),
            RetryState::Due | RetryState::NotBefore(_) | RetryState::GivenUp => (None, None),
        };
        Self {
            mail_id: row.id.0,
            place: mail.place(standing).as_str(),
            submitted: mail.submitted().map(|time| time.0),
            submitter: mail.submitter.as_deref().map(text),
            octets: row.data_octets,
            sender: row.sender.as_deref().map(text),
            recipient: text(&row.recipient),
            next_hop: outlook.next_hop(row).map(|next_hop| next_hop.to_string()),
            tries: row.fail_count,
            last_ms: (row.fail_count > 0).then(|| UnixMillis::from(row.last_try).0),
            next_ms: next.map(|time| UnixMillis::from(time).0),
            retry_line: standing.rules.line_about(row).map(|line| line.line),
            held_by: outlook.held_by(row),
            hold_line,
            hold_id,
            failure: failure.map(|failure| failure.kind.to_string()),
            code: failure.and_then(|failure| failure.code),
            status: failure.and_then(|failure| failure.status).map(|status| status.to_string()),
            text: mail.failure_text().map(|text| text.to_string()),
            notify: row.wishes.notify.map(|notify| notify.to_string()),
            orcpt: row.wishes.original_recipient.as_ref().map(|original| original.as_str().to_owned()),
            ret: row.wishes.message.extent.map(|extent| extent.to_string()),
            envid: row.wishes.message.envelope_id.as_ref().map(|id| id.as_str().to_owned()),
        }
    }
}

fn text(octets: &[u8]) -> String {
    Octets(octets).to_string()
}
