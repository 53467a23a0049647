//! The timeouts of the phases of a conversation (RFC 5321 section 4.5.3.2).

use super::types::Phase;
use crate::time::Duration;

/// The timeout of the greeting, EHLO, MAIL, RCPT, and all phases that the RFC does not name.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// From DATA to the reply that the server is ready for the message.
const DATA_TIMEOUT: Duration = Duration::from_secs(2 * 60);
/// From the final dot to the reply. Long, because giving up here causes duplicates.
const END_OF_DATA_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// From QUIT to the reply. Nothing depends on it any more.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time in which the peer receives none of the message.
pub(super) const MAIL_DATA_STALL_TIMEOUT: Duration = Duration::from_secs(3 * 60);
/// The time that any message may take, however short it is.
const MAIL_DATA_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// A peer that receives less than this in the long run holds a connection without need.
const MAIL_DATA_LEAST_OCTETS_PER_S: u64 = 1024;

/// Returns the bound on a whole phase, whatever is received meanwhile; `None` if the parent decides how long the phase lasts.
pub(super) fn timeout(phase: Phase) -> Option<Duration> {
    match phase {
        Phase::Tls
        | Phase::Greeting
        | Phase::Ehlo
        | Phase::StartTls
        | Phase::Padding
        | Phase::Auth
        | Phase::Mail
        | Phase::Rcpt
        | Phase::Rset => Some(REPLY_TIMEOUT),
        Phase::Data => Some(DATA_TIMEOUT),
        Phase::MailData => Some(MAIL_DATA_TIMEOUT),
        Phase::EndOfData => Some(END_OF_DATA_TIMEOUT),
        Phase::Quit => Some(QUIT_TIMEOUT),
        Phase::Ready | Phase::Ended => None,
    }
}

/// Returns the time that a message of this size may take beyond the bound of its phase.
pub(super) fn mail_data_allowance(octets: u64) -> Duration {
    Duration::from_secs(octets / MAIL_DATA_LEAST_OCTETS_PER_S)
}
