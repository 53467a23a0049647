//! What the core tells the administrator. A driver prints these; no decision hangs on one.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use bytes::Bytes;

use crate::io::ConnectionId;
use crate::outbox::MailId;

/// How much an event matters; in the order of the directive `verbosity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something needs the administrator.
    Error,
    /// Something went wrong that is dealt with.
    Warning,
    /// What becomes of each mail.
    Info,
    /// How it comes about.
    Debug,
    /// All input and output.
    Trace,
}

/// What follows from a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The mail is tried again when its time comes, unless this was its last attempt.
    Temporary,
    /// The same, but it was tried before its time because the administrator has ordered it: it does not count.
    Early,
    /// The mail is not tried again.
    Permanent,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A server has taken responsibility for a mail.
    Delivered {
        /// The mail.
        id: MailId,
        /// Its recipient.
        recipient: Box<str>,
        /// The server: name, address and port.
        server: Box<str>,
        /// Its reply.
        reply: Box<str>,
    },
    /// An attempt has failed.
    Failed {
        /// The mail.
        id: MailId,
        /// For whom it was, or where to if all mail for a destination has failed: `to <a@example.org>`,
        /// `for example.org`.
        whom: Box<str>,
        /// What the faillog says.
        text: Box<str>,
        /// What follows from it.
        kind: FailureKind,
    },
    /// A mail was given up and its sender told.
    Bounced {
        /// The mail.
        id: MailId,
        /// Who is told.
        sender: Box<str>,
    },
    /// A mail with a null sender, or one that is no address, was given up: there is nobody to tell.
    Dropped {
        /// The mail.
        id: MailId,
    },
    /// Anything else.
    Note {
        /// How much it matters.
        level: Level,
        /// A sentence.
        text: String,
    },
    /// A command line that is sent to a server, with secrets masked. Only with
    /// [`trace`](crate::settings::Settings::trace).
    Sent(ConnectionId, Bytes),
    /// Mail data that was sent to a server. Only with [`trace`](crate::settings::Settings::trace).
    SentData(ConnectionId, Bytes),
    /// What a server said. Only with [`trace`](crate::settings::Settings::trace).
    Received(ConnectionId, Bytes),
}

impl Event {
    pub(crate) fn debug(text: String) -> Self {
        Self::Note { level: Level::Debug, text }
    }

    pub(crate) fn warning(text: String) -> Self {
        Self::Note { level: Level::Warning, text }
    }

    /// How much it matters.
    pub fn level(&self) -> Level {
        match self {
            Self::Delivered { .. } | Self::Bounced { .. } => Level::Info,
            Self::Failed { .. } | Self::Dropped { .. } => Level::Warning,
            Self::Note { level, .. } => *level,
            Self::Sent(..) | Self::SentData(..) | Self::Received(..) => Level::Trace,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered { id, recipient, server, reply } => {
                write!(f, "mail {id} to <{recipient}> delivered to {server}: {}", reply.escape_debug())
            }
            Self::Failed { id, whom, text, kind } => {
                let kind = match kind {
                    FailureKind::Temporary => "temporarily",
                    FailureKind::Early => "temporarily before its time, which does not count",
                    FailureKind::Permanent => "permanently",
                };
                write!(f, "mail {id} {} failed {kind}: {}", whom.escape_debug(), text.escape_debug())
            }
            // The sender is what the database holds: nothing says that it is an address.
            Self::Bounced { id, sender } => {
                write!(f, "mail {id} given up, a bounce goes to <{}>", sender.escape_debug())
            }
            Self::Dropped { id } => {
                write!(
                    f,
                    "mail {id} given up and deleted without a bounce, because its sender is the null path, or no address"
                )
            }
            Self::Note { text, .. } => f.write_str(text),
            Self::Sent(connection, octets) | Self::SentData(connection, octets) => {
                write!(f, "[{}] > {}", connection.0, octets.escape_ascii())
            }
            Self::Received(connection, octets) => write!(f, "[{}] < {}", connection.0, octets.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn no_text_from_outside_begins_a_line_of_its_own() {
        let id = MailId(1);
        let text = || Box::<str>::from("a\nmail 2 \u{1b}[2J");
        for event in [
            Event::Delivered { id, recipient: "r@example.org".into(), server: "mx".into(), reply: text() },
            Event::Failed { id, whom: text(), text: text(), kind: FailureKind::Early },
            Event::Bounced { id, sender: text() },
            Event::Sent(ConnectionId(0), Bytes::from_static(b"a\nb\x1b")),
        ] {
            let shown = event.to_string();
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
        }
    }
}
