//! The state of a mail, computed here once more, so that an error of the core does not hide itself.

use cmail_delivery::address::Mailbox;
use cmail_delivery::hold::{HeldBy, HoldState};
use cmail_delivery::memory_outbox::Mail;
use cmail_delivery::next_hop::{NextHop, Relay};
use cmail_delivery::outbox::{MailId, Row};
use cmail_delivery::retry_rule::RetryRule;
use cmail_delivery::schedule::RetryState;
use cmail_delivery::settings::Schedule;
use cmail_delivery::time::UnixTime;

/// Returns the state of a mail by this schedule. A rule makes each wait up to a tenth shorter or longer; the shortest one counts here.
pub(super) fn retry_state(schedule: &Schedule, id: MailId, mail: &Mail, at: UnixTime) -> RetryState {
    if let Some(held_by) = held_by(schedule, id, mail) {
        return RetryState::Held(held_by);
    }
    let state = mail.fail_state(id);
    let rule = schedule.rules.iter().find(|rule| is_about(rule, id, mail));
    if state.fatal || (rule.is_none() && state.fail_count >= schedule.retries) {
        return RetryState::GivenUp;
    }
    if state.fail_count == 0 {
        return RetryState::Due;
    }
    let not_before = match rule {
        None => state.last_try.0 + schedule.retry_interval_s + 1,
        Some(rule) => {
            let until_s = i64::try_from(rule.until.as_secs()).unwrap_or(i64::MAX);
            let waits: Vec<i64> = rule.waits.seconds().map(i64::from).collect();
            let wait_s = |number: usize| waits.get(number.min(waits.len()) - 1).copied().unwrap_or_default();
            let count = usize::try_from(state.fail_count).unwrap_or(usize::MAX);
            // If the clock was set back behind the submission, the waits that have passed are the age. After a release from a hold,
            // mail is as young as if it were submitted then.
            let age_s = match (state.last_try.0 - mail.submission.0, mail.hold.released) {
                (age_s, Some(released)) if age_s >= 0 => age_s.min((state.last_try.0 - released.0).max(0)),
                (_, Some(released)) => (state.last_try.0 - released.0).max(0),
                (age_s @ 0.., None) => age_s,
                (_, None) => (1..count).map(wait_s).sum(),
            };
            if age_s >= until_s && state.fail_count > 1 {
                return RetryState::GivenUp;
            }
            let least_s = wait_s(count) - wait_s(count) / 10 + 1;
            state.last_try.0 + if age_s >= until_s { least_s } else { least_s.min(until_s - age_s) }
        }
    };
    if at.0 >= not_before { RetryState::Due } else { RetryState::NotBefore(UnixTime(not_before)) }
}

/// Returns what holds a mail.
fn held_by(schedule: &Schedule, id: MailId, mail: &Mail) -> Option<HeldBy> {
    match mail.hold.state {
        HoldState::Held(hold) => Some(HeldBy::Hold(hold)),
        HoldState::Exempt => None,
        HoldState::Unset => {
            let next_hop = next_hop_of(&mail.row(id));
            let sender = mail.row(id).sender;
            let mut lines = schedule.hold_lines.iter();
            let line = lines.find(|line| line.mail.matches(next_hop.as_ref(), sender.as_deref()))?;
            Some(HeldBy::Line(line.line))
        }
    }
}

fn is_about(rule: &RetryRule, id: MailId, mail: &Mail) -> bool {
    let row = mail.row(id);
    let Some(failure) = row.last_failure else { return false };
    rule.is_about(next_hop_of(&row).as_ref(), row.sender.as_deref(), failure)
}

/// Returns the next hop that a mail names.
pub(super) fn next_hop_of(row: &Row) -> Option<NextHop> {
    let recipient = Mailbox::parse(&row.recipient);
    // Mail to or from an invalid address goes nowhere.
    let is_valid =
        recipient.is_ok() && row.sender.as_deref().is_none_or(|sender| Mailbox::parse(sender).is_ok());
    let next_hop = match &row.remote {
        Some(remote) => Relay::parse(remote).ok().map(NextHop::Relay),
        None => recipient.ok().and_then(|recipient| recipient.domain().ok()).map(NextHop::from),
    };
    next_hop.filter(|_| is_valid)
}
