//! Reports for the administrator. A driver prints them; no decision depends on one.

mod fields;
mod name;

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use bytes::Bytes;

pub use self::fields::{Fields, Value};
pub use self::name::EventName;
use crate::address::Mailbox;
use crate::attempt::{Acceptance, Attempt, Failure};
use crate::course::Course;
use crate::ids::{ConnectionId, MailId};
use crate::one_line::{Octets, OneLine};
use crate::outbox::Row;
use crate::schedule::Outlook;
use crate::shown::shortened_octets;
use crate::time::{Duration, UnixTime};

/// The importance of an event, in the order of the directive `verbosity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The administrator must act.
    Error,
    /// Something went wrong, but is dealt with.
    Warning,
    /// The result for each mail.
    Info,
    /// The steps that lead to it.
    Debug,
    /// All input and output.
    Trace,
}

/// The consequence of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The mail is tried again when its time comes, unless this was its last attempt.
    Temporary,
    /// The same, but the attempt was early because the administrator has ordered it, so it does not count.
    Early,
    /// The mail may have arrived nevertheless. It is held until the administrator decides, and the attempt does not count.
    Held,
    /// The mail is not tried again.
    Permanent,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A server has taken responsibility for a mail.
    Delivered {
        /// The mail.
        id: MailId,
        /// The attempt, with its server, protection and reply.
        attempt: Attempt<Acceptance>,
        /// What else is known of the mail.
        facts: MailFacts,
    },
    /// An attempt has failed.
    Failed {
        /// The mail.
        id: MailId,
        /// The next hop, if all mail for it has failed.
        next_hop: Option<Box<str>>,
        /// The attempt, with its failure.
        attempt: Attempt<Failure>,
        /// The consequence.
        kind: FailureKind,
        /// What becomes of the mail then, if that is known.
        outlook: Option<Outlook>,
        /// What else is known of the mail.
        facts: MailFacts,
    },
    /// A mail was given up and replaced by a bounce.
    Bounced {
        /// The mail.
        id: MailId,
        /// Its recipient.
        recipient: Box<str>,
        /// The bounces: to the sender, and the copies.
        bounces: Vec<(MailId, Box<str>)>,
        /// The line of the configuration whose age it has reached, if that is the reason.
        expired: Option<u32>,
        /// What else is known of the mail.
        facts: MailFacts,
    },
    /// A mail was given up without a bounce: its sender is null or invalid, so that one would reach no one, or wants none (RFC 3461 section
    /// 5.2.6).
    Dropped {
        /// The mail.
        id: MailId,
        /// Its recipient.
        recipient: Box<str>,
        /// The line of the configuration whose age it has reached, if that is the reason.
        expired: Option<u32>,
        /// What else is known of the mail.
        facts: MailFacts,
    },
    /// The sender of a mail was told that it is late. It is still tried.
    Warned {
        /// The mail.
        id: MailId,
        /// Its recipient.
        recipient: Box<str>,
        /// The mail that tells the sender.
        warning: MailId,
        /// What else is known of the mail.
        facts: MailFacts,
    },
    /// The sender of a mail that was delivered was told so, because the server does not.
    Relayed {
        /// The mail.
        id: MailId,
        /// Its recipient.
        recipient: Box<str>,
        /// The mail that tells the sender.
        report: MailId,
        /// What else is known of the mail.
        facts: MailFacts,
    },
    /// A connection was closed because its server is silent and others need its slot. Its mail goes on to other candidates, and
    /// returns to the server after them.
    Yielded {
        /// The connection.
        connection: ConnectionId,
        /// The address and port that it led to.
        remote: SocketAddr,
        /// The time for which the server has been silent.
        silence: Duration,
    },
    /// Anything else.
    Note {
        /// What it is about.
        about: EventName,
        /// The importance.
        level: Level,
        /// A sentence.
        text: String,
    },
    /// A command line that is sent to a server, with secrets masked. Only if [conversations are told](crate::settings::Told::conversations),
    /// or while this one is [watched](crate::watch::Watch).
    Sent(Said),
    /// Mail data that was sent to a server. Only as above.
    SentData(Said),
    /// A reply of a server, or a part of one. Only as above.
    Received(Said),
}

/// What was said on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The connection.
    pub connection: ConnectionId,
    /// The mail that it is about: the first recipient of its transaction. `None` outside of transactions.
    pub mail: Option<MailId>,
    /// The octets.
    pub octets: Bytes,
}

/// What is known of a mail beside its id and its recipient, when something is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailFacts {
    /// `mail_envelopefrom`; `None` for the null reverse-path.
    pub sender: Option<Bytes>,
    /// The length of the message, as it is stored, in octets.
    pub data_octets: u64,
    /// The identifier of the message, without its angle brackets, if its header section was read and has one. That of a transaction
    /// is known to its [course](Course).
    pub message_id: Option<Box<str>>,
    /// The number of its failed attempts before.
    pub attempts_before: u32,
    /// The time from its submission to the claim, if it says when it was submitted.
    pub queued: Option<Duration>,
}

impl MailFacts {
    /// Returns what a row says that is claimed at this time.
    pub(crate) fn of(row: &Row, now: UnixTime) -> Self {
        let waited_s = u64::try_from(now.0.saturating_sub(row.submission.0)).unwrap_or(0);
        Self {
            sender: row.sender.clone(),
            data_octets: row.data_octets,
            message_id: None,
            attempts_before: row.fail_count,
            queued: (row.submission > UnixTime(0)).then(|| Duration::from_secs(waited_s)),
        }
    }

    /// Returns whether there is a sender whom a bounce could reach.
    fn has_sender(&self) -> bool {
        self.sender.as_deref().is_some_and(|sender| Mailbox::parse(sender).is_ok())
    }

    /// Returns the sender, shortened; nothing for the null reverse-path.
    fn shown_sender(&self) -> String {
        self.sender.as_ref().map(|sender| shortened_octets(sender).to_string()).unwrap_or_default()
    }

    fn message_id<'a>(&'a self, course: Option<&'a Course>) -> Option<&'a str> {
        let of_transaction = course.and_then(|course| course.transaction.as_ref()?.message_id.as_deref());
        of_transaction.or(self.message_id.as_deref())
    }

    /// Returns how long it waited for the claim, after it for its turn, for the setup of the connection, and for its transfer.
    fn delays(&self, course: Option<&Course>) -> [Option<Duration>; 4] {
        let transaction = course.and_then(|course| course.transaction.as_ref());
        let claim = transaction.map(|transaction| transaction.claim);
        [self.queued, claim, course.map(Course::setup), transaction.map(|transaction| transaction.transfer)]
    }
}

impl Event {
    pub(crate) fn debug(about: EventName, text: String) -> Self {
        Self::Note { about, level: Level::Debug, text }
    }

    pub(crate) fn warning(about: EventName, text: String) -> Self {
        Self::Note { about, level: Level::Warning, text }
    }

    /// Returns the importance of the event.
    pub fn level(&self) -> Level {
        match self {
            Self::Delivered { .. } | Self::Bounced { .. } | Self::Warned { .. } | Self::Relayed { .. } => {
                Level::Info
            }
            Self::Failed { .. } | Self::Dropped { .. } => Level::Warning,
            Self::Yielded { .. } => Level::Debug,
            Self::Note { level, .. } => *level,
            Self::Sent(..) | Self::SentData(..) | Self::Received(..) => Level::Trace,
        }
    }
}

impl fmt::Display for Event {
    /// Writes one line, whatever its texts contain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered { id, attempt, .. } => {
                write!(f, "mail {id} to <{}> delivered to {attempt}", OneLine(attempt.recipient.as_str()))
            }
            Self::Failed { id, attempt, kind, .. } => {
                let kind = match kind {
                    FailureKind::Temporary => "temporarily",
                    FailureKind::Early => "temporarily before its time, which does not count",
                    FailureKind::Held => "temporarily, and is held until released, failed or dropped",
                    FailureKind::Permanent => "permanently",
                };
                write!(f, "mail {id} to <{}> failed {kind}: {attempt}", OneLine(attempt.recipient.as_str()))
            }
            Self::Bounced { id, recipient, bounces, .. } => {
                write!(f, "mail {id} to <{}> given up", OneLine(recipient))?;
                for (bounce, to) in bounces {
                    write!(f, ", bounce {bounce} goes to <{}>", OneLine(to))?;
                }
                Ok(())
            }
            Self::Dropped { id, recipient, facts, .. } => {
                let why = match facts.has_sender() {
                    true => "wants none (NOTIFY)",
                    false => "is the null path, or no address",
                };
                let recipient = OneLine(recipient);
                write!(
                    f,
                    "mail {id} to <{recipient}> given up and deleted without a bounce, because its sender {why}"
                )
            }
            Self::Relayed { id, recipient, report, .. } => {
                write!(
                    f,
                    "mail {id} to <{}> was delivered, which mail {report} tells its sender, because the server offers no DSN",
                    OneLine(recipient)
                )
            }
            Self::Warned { id, recipient, warning, .. } => {
                write!(
                    f,
                    "mail {id} to <{}> is late, which mail {warning} tells its sender",
                    OneLine(recipient)
                )
            }
            Self::Yielded { remote, silence, .. } => write!(
                f,
                "{remote} has been silent for {} s, and others wait: its mail goes on, and it is tried again after all others",
                silence.as_secs()
            ),
            Self::Note { text, .. } => write!(f, "{}", OneLine(text)),
            Self::Sent(Said { connection, octets, .. }) | Self::SentData(Said { connection, octets, .. }) => {
                write!(f, "[{}] > {}", connection.0, OneLine(Octets(octets)))
            }
            Self::Received(Said { connection, octets, .. }) => {
                write!(f, "[{}] < {}", connection.0, OneLine(Octets(octets)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
